//! Keeps one daemon running: starts it again when it dies, and tells how often and why.
//!
//! A supervisor is a small process of one thread between whoever called `up` and the daemon. Invariants: there is one for a
//! daemon (a lock that the kernel releases with it); a daemon never outlives its supervisor (its standard input is a pipe
//! whose end it sees); while the daemon is not ready the *gate* is locked, so that whoever waits for it is woken by the
//! kernel; a daemon is started only when the one before is gone whole, with its files and sockets.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use base::Clock;
use base::backoff::Backoff;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::commands::Ends;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, write_private};
use crate::process::{END_SECONDS, Process, tell_ready};

/// The program that runs, also when its file was replaced meanwhile.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// How soon a daemon that died is started again; it doubles from death to death.
const RESTART_MIN: Duration = Duration::from_millis(100);
/// The longest wait before another start.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A daemon that was ready for this long is healthy: its next death is a first one.
const HEALTHY: Duration = Duration::from_secs(60);
/// How much of a daemon's last words is looked at for the reason of its death.
const LAST_WORDS_BYTES_MAX: u64 = 16 * 1024;

/// What a supervisor tells of its daemon.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The supervisor itself.
    pub supervisor: Process,
    /// The daemon, while it runs.
    pub daemon: Option<Process>,
    /// How often it was started again.
    pub restarts: u32,
    /// Its last death.
    pub last_death: Option<Death>,
}

/// The end of a daemon that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// When, as RFC 3339.
    pub at: String,
    /// Why, as far as can be told.
    pub why: String,
}

/// The files of one supervised daemon.
#[derive(Clone, Debug)]
pub struct Files {
    state: PathBuf,
    /// Locked for as long as the supervisor lives.
    lock: PathBuf,
    /// Locked while the daemon is not ready.
    gate: PathBuf,
    log: PathBuf,
}

// === impl Files ===

impl Files {
    /// Those of the control plane (`server`) or of a node; `log` is the daemon's.
    pub fn new(layout: &Layout, daemon: &str, log: &str) -> Files {
        let file = |suffix: &str| layout.run().join(format!("{daemon}.{suffix}"));
        Files {
            state: file("state"),
            lock: file("lock"),
            gate: file("gate"),
            log: layout.log(log),
        }
    }

    /// What the supervisor tells, while it lives.
    pub fn read(&self) -> Option<State> {
        let state: State = serde_json::from_slice(&std::fs::read(&self.state).ok()?).ok()?;
        state.supervisor.is_running().then_some(state)
    }

    /// What a supervisor told that is gone without having ended: it was killed.
    pub fn left_behind(&self) -> Option<State> {
        let state: State = serde_json::from_slice(&std::fs::read(&self.state).ok()?).ok()?;
        (!state.supervisor.is_running()).then_some(state)
    }

    /// Forgets a supervisor that was killed: now somebody asked for its end.
    pub fn forget(&self) {
        // It is there only after such a death.
        let _ = std::fs::remove_file(&self.state);
    }

    /// Waits until the daemon is ready, or its supervisor gone. One that waits before another start starts at once. Whoever
    /// gives up waiting may end: the thread that the kernel holds up is nobody's.
    pub async fn passed(&self) -> Result {
        if let Some(state) = self.read().filter(|state| state.daemon.is_none()) {
            state.supervisor.nudge()?;
        }
        let gate = open(&self.gate)?;
        let (tell, told) = tokio::sync::oneshot::channel();
        let wait = move || {
            // Nobody listens any more when they gave up.
            let _ = tell.send(rustix::fs::flock(&gate, FlockOperation::LockShared));
        };
        let thread = std::thread::Builder::new().name("gate".into()).spawn(wait);
        thread.doing("waiting for a daemon")?;
        told.await.map_err(CliError::internal)?.doing("waiting for a daemon")
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.map_err(|error| CliError::file(path, &error))
}

/// Runs a daemon until the end is asked for. `command` makes it from what the one before told when it was ready.
///
/// # Errors
/// Another supervisor is there, or the machine refuses. A daemon that never got ready is no error here: it said why.
pub async fn run(files: &Files, command: impl Fn(Option<&Value>) -> Command) -> Result {
    let lock = open(&files.lock)?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(CliError::new(
            Kind::Machine,
            "ALREADY_RUNNING",
            "another process starts or supervises this daemon already",
        )
        .hint("wait for it, and look: trireme status"));
    }
    let mut ends = Ends::listen()?;
    let hangup = tokio::signal::unix::SignalKind::hangup();
    let mut nudges = tokio::signal::unix::signal(hangup).doing("listening for signals")?;
    let own = Process::of(std::process::id().cast_signed());
    let mut supervisor = Supervisor {
        files,
        gate: open(&files.gate)?,
        state: State {
            supervisor: own.ok_or_else(|| CliError::internal("our own process is unknown"))?,
            daemon: None,
            restarts: 0,
            last_death: None,
        },
    };
    supervisor.close_gate()?;
    let outcome = supervisor.keep(command, &mut ends, &mut nudges).await;
    // The locks go with this process; their files stay, so that all who come lock the same ones.
    let _ = std::fs::remove_file(&files.state);
    outcome
}

struct Supervisor<'a> {
    files: &'a Files,
    gate: File,
    state: State,
}

/// How a daemon's life ended.
enum End {
    /// We were asked to end it, or somebody asked the daemon itself.
    Asked,
    /// It died.
    Died(ExitStatus),
}

// === impl Supervisor ===

impl Supervisor<'_> {
    async fn keep(
        &mut self,
        command: impl Fn(Option<&Value>) -> Command,
        ends: &mut Ends,
        nudges: &mut tokio::signal::unix::Signal,
    ) -> Result {
        let mut backoff = Backoff::new(RESTART_MIN, RESTART_MAX);
        let mut told: Option<Value> = None;
        loop {
            let words_from = std::fs::metadata(&self.files.log).map_or(0, |log| log.len());
            let mut child = spawn(command(told.as_ref()))?;
            // Kept open for as long as the daemon is to live: waiting for it would close it.
            let _lifeline = child.stdin.take();
            let begun = Instant::now();
            let ready = tokio::select! {
                ready = first_line(&mut child) => ready,
                _ = ends.next() => return end(child).await,
            };
            if let Some(ready) = ready {
                self.state.daemon = child.id().and_then(|pid| Process::of(pid.cast_signed()));
                self.write()?;
                self.open_gate()?;
                if told.is_none() {
                    tell_ready(&ready)?;
                }
                told = Some(ready);
            }
            let end = tokio::select! {
                status = child.wait() => match status.doing("waiting for a daemon")? {
                    status if status.success() => End::Asked,
                    status => End::Died(status),
                },
                _ = ends.next() => {
                    end(child).await?;
                    End::Asked
                }
            };
            let End::Died(status) = end else {
                return Ok(());
            };
            if told.is_none() {
                // It never worked, and said why.
                return Ok(());
            }
            if begun.elapsed() >= HEALTHY {
                backoff.reset();
            }
            self.close_gate()?;
            let why = reason(status, &self.files.log, words_from);
            tracing::error!(why, "the daemon died");
            self.state.daemon = None;
            self.state.restarts += 1;
            let at = Clock::real().now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            self.state.last_death = Some(Death { at, why });
            self.write()?;
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                _ = nudges.recv() => backoff.reset(),
                _ = ends.next() => return Ok(()),
            }
        }
    }

    fn write(&self) -> Result {
        let text = serde_json::to_vec(&self.state).map_err(CliError::internal)?;
        write_private(&self.files.state, &text)
    }

    fn open_gate(&self) -> Result {
        rustix::fs::flock(&self.gate, FlockOperation::Unlock).doing("opening the gate")
    }

    /// Whoever passes holds it for a moment only. (No thread is asked to wait: a process whose children are in another PID
    /// namespace cannot have a second one.)
    fn close_gate(&self) -> Result {
        rustix::fs::flock(&self.gate, FlockOperation::LockExclusive).doing("closing the gate")
    }
}

fn spawn(mut command: Command) -> Result<Child> {
    // The daemon sees the end of its input when we are gone, however we went.
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing("starting a daemon")
}

/// The line in which the daemon says that it is ready; `None`: it ended before.
async fn first_line(child: &mut Child) -> Option<Value> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).await.ok()?;
    serde_json::from_str(&line).ok()
}

/// Asks a daemon to end, and kills it when it does not.
async fn end(mut child: Child) -> Result {
    if let Some(pid) = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
    {
        // It is not waited for yet, so that its number is its own.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let limit = Duration::from_secs(END_SECONDS);
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(_) => Ok(()),
        Err(_) => child.kill().await.doing("killing a daemon"),
    }
}

/// Why a daemon died: the signal, or its last words.
fn reason(status: ExitStatus, log: &Path, from: u64) -> String {
    if let Some(signal) = status.signal() {
        return format!("killed by signal {signal}");
    }
    let words = last_words(log, from).unwrap_or_default();
    let said = words
        .lines()
        .rev()
        .find(|line| line.starts_with("error[") || line.contains("panicked at"));
    let code = status.code().unwrap_or_default();
    match said {
        Some(said) => format!("exit code {code}: {said}"),
        None => format!("exit code {code}"),
    }
}

fn last_words(log: &Path, from: u64) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(log)?;
    let len = file.metadata()?.len();
    // A log that was full was put aside meanwhile.
    let from = if from > len { 0 } else { from };
    let from = from.max(len.saturating_sub(LAST_WORDS_BYTES_MAX));
    file.seek(SeekFrom::Start(from))?;
    let mut words = Vec::new();
    file.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words)?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_has_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(
            &log,
            "error[OLD]: of the one before\nnow\nerror[STORE]: no room\nhint: make some\n",
        )
        .unwrap();
        for (status, from, expect) in [
            (9, 0, "killed by signal 9"),
            (71 << 8, 30, "exit code 71: error[STORE]: no room"),
            (1 << 8, 60, "exit code 1"),
            (71 << 8, 1000, "exit code 71: error[STORE]: no room"),
        ] {
            assert_eq!(reason(ExitStatus::from_raw(status), &log, from), expect);
        }
        assert_eq!(
            reason(ExitStatus::from_raw(256), Path::new("/nowhere"), 0),
            "exit code 1"
        );
    }

    /// Between two looks at what nobody tells a test.
    const LOOK: Duration = Duration::from_millis(5);

    fn files(dir: &Path) -> Files {
        let layout = Layout::find(Some(dir), true, |_| None).unwrap();
        layout.create().unwrap();
        Files::new(&layout, "server", "server")
    }

    /// A daemon that is ready at once, notes each start, and dies when a file is written into a pipe.
    fn daemon(dir: &Path) -> Command {
        let script = format!(
            "echo x >>{0}/starts; echo '{{}}'; cat {0}/die >/dev/null; exit 3",
            dir.display()
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script]);
        command
    }

    #[tokio::test]
    async fn a_daemon_that_dies_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let (files, fifo) = (files(dir.path()), dir.path().join("die"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let supervised = async {
            run(&files, |_| daemon(dir.path())).await.unwrap();
        };
        let watching = async {
            for round in 0..3 {
                loop {
                    files.passed().await.unwrap();
                    let ready = files
                        .read()
                        .filter(|state| state.daemon.is_some() && state.restarts >= round);
                    if ready.is_some() {
                        break;
                    }
                    // Before the first start there is no gate to wait at.
                    tokio::time::sleep(LOOK).await;
                }
                let fifo = fifo.clone();
                tokio::task::spawn_blocking(move || std::fs::write(fifo, ""))
                    .await
                    .unwrap()
                    .unwrap();
                loop {
                    tokio::time::sleep(LOOK).await;
                    if files.read().is_some_and(|state| state.restarts > round) {
                        break;
                    }
                }
            }
            files.read().unwrap()
        };
        let state = tokio::select! {
            () = supervised => panic!("it ended"),
            state = watching => state,
        };
        assert_eq!(state.last_death.unwrap().why, "exit code 3");
        assert_eq!(state.restarts, 3);
        assert!(
            std::fs::read_to_string(dir.path().join("starts"))
                .unwrap()
                .lines()
                .count()
                >= 3
        );
    }

    #[tokio::test]
    async fn a_daemon_that_never_worked_and_one_that_was_asked_to_end_are_left_alone() {
        for script in ["exit 1", "echo '{}'; exit 0"] {
            let dir = tempfile::tempdir().unwrap();
            let files = files(dir.path());
            let make = |_: Option<&Value>| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]);
                command
            };
            run(&files, make).await.unwrap();
            assert!(files.read().is_none());
            files.passed().await.unwrap();
        }
    }
}
