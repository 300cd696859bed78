//! Daemons: started apart from us, found again by pid *and* start time, and ended.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Resource;
use serde::{Deserialize, Serialize};

use crate::errors::{CliError, Context as _, Kind, Result, last_in};
use crate::layout::write_private;
use crate::supervisor::OWN_PROGRAM;

/// For how long a daemon may end by itself before it is killed. Within it the API server lets requests finish.
pub const END_SECONDS: u64 = 10;

/// A daemon's process. A pid alone may be somebody else's by now; its start time tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

// === impl Process ===

impl Process {
    /// The process of that id, when there is one.
    pub fn of(pid: i32) -> Option<Process> {
        Some(Process {
            pid,
            start_ticks: sys::process::start_ticks(pid)?,
        })
    }

    /// Whether it runs.
    pub fn is_running(self) -> bool {
        sys::process::is_running(self.pid, self.start_ticks)
    }

    /// The process a file tells of, when it runs.
    pub fn read(path: &Path) -> Option<Process> {
        let process: Process = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        process.is_running().then_some(process)
    }

    /// Tells of the process in a file.
    pub fn write(self, path: &Path) -> Result {
        write_private(path, &serde_json::to_vec(&self).map_err(CliError::internal)?)
    }

    /// Asks it to end, waits so long, and kills it when it does not.
    pub async fn end(self, limit: Duration) -> Result {
        let signal = |signal| {
            sys::process::kill(self.pid, self.start_ticks, signal)
                .doing("ending a daemon")
                .map(drop)
        };
        signal(rustix::process::Signal::TERM)?;
        if self.gone_within(limit).await {
            return Ok(());
        }
        self.kill().await
    }

    /// Tells a supervisor that somebody waits.
    pub fn nudge(self) -> Result {
        let told = sys::process::kill(self.pid, self.start_ticks, rustix::process::Signal::HUP);
        told.doing("telling a supervisor").map(drop)
    }

    /// Kills it and waits for its end.
    pub async fn kill(self) -> Result {
        sys::process::kill(self.pid, self.start_ticks, rustix::process::Signal::KILL).doing("ending a process")?;
        if self.gone_within(Duration::from_secs(END_SECONDS)).await {
            return Ok(());
        }
        Err(CliError::new(
            Kind::Machine,
            "PROCESS_STUCK",
            format!("process {} cannot be killed", self.pid),
        )
        .hint(format!("look at it: cat /proc/{}/stack", self.pid)))
    }

    /// Waits for its end, told by the kernel through a pidfd: then its files and sockets are closed.
    pub async fn gone_within(self, limit: Duration) -> bool {
        let Some(pid) = rustix::process::Pid::from_raw(self.pid) else {
            return true;
        };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            return !self.is_running();
        };
        // The pidfd may have been opened on a later process of that id.
        if !self.is_running() {
            return true;
        }
        let waiting = tokio::task::spawn_blocking(move || {
            let mut entry = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec {
                tv_sec: limit.as_secs().cast_signed(),
                tv_nsec: limit.subsec_nanos().into(),
            };
            rustix::event::poll(&mut entry, Some(&limit)).is_ok_and(|ready| ready > 0)
        });
        waiting.await.unwrap_or(false) || !self.is_running()
    }
}

/// Raises the limit of open files as far as this process may. Each connection is one, and shells start programs with a soft
/// limit of 1024 that only `select` needs. For servers that start no program that would inherit theirs.
pub fn allow_many_connections() -> Result {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(Resource::Nofile, limit).doing("raising the limit of open files")
}

/// Starts a daemon (`what`, for people) of our own program and waits until it says on its standard output that it is ready: one line of JSON.
///
/// # Errors
/// It ended before it was ready, or was not ready after that long and is ended: the end of its log is told.
pub async fn start(what: &str, arguments: &[String], log: &Path, limit: Duration) -> Result<serde_json::Value> {
    let file = crate::log::open(log)?;
    let begin = file.metadata().map(|metadata| metadata.len()).unwrap_or(0);
    let child = Command::new(OWN_PROGRAM)
        .arg0("trireme")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .doing("starting a daemon")?;
    until_ready(what, child, log, begin, limit).await
}

/// Waits for a daemon's line; its own words begin in the log at `begin`.
async fn until_ready(
    what: &str,
    mut child: Child,
    log: &Path,
    begin: u64,
    limit: Duration,
) -> Result<serde_json::Value> {
    let output = child
        .stdout
        .take()
        .ok_or_else(|| CliError::internal("a daemon without output"))?;
    let line = tokio::task::spawn_blocking(move || {
        use std::io::BufRead as _;
        let mut line = String::new();
        std::io::BufReader::new(output).read_line(&mut line).map(|_| line)
    });
    let said = || {
        let text = std::fs::read(log).unwrap_or_default();
        let begin = usize::try_from(begin).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[begin..]).into_owned()
    };
    let Ok(line) = tokio::time::timeout(limit, line).await else {
        if let Some(process) = Process::of(child.id().cast_signed()) {
            // A supervisor ends its daemon first.
            process.end(Duration::from_secs(2 * END_SECONDS)).await?;
        }
        // It was ours: nobody else waits for it.
        let _ = child.wait();
        return Err(not_ready(what, &said(), limit, log));
    };
    let line = line.map_err(CliError::internal)?.doing("waiting for a daemon")?;
    if let Ok(ready) = serde_json::from_str(&line) {
        return Ok(ready);
    }
    let status = child.wait().doing("waiting for a daemon")?;
    Err(not_started(what, &said(), status, log))
}

/// A daemon that is neither ready nor dead: what it said last tells for what it waits.
fn not_ready(what: &str, said: &str, limit: Duration, log: &Path) -> CliError {
    let seconds = limit.as_secs();
    let what = format!("{what} was not ready after {seconds} s, and was ended\n{}", tail(said));
    CliError::new(Kind::Machine, "NOT_READY", what.trim_end()).hint(format!(
        "see for what it waited: {}; when it only needs longer, call this again: it goes on with what is there",
        log.display()
    ))
}

/// The daemon's own last words are an error of ours already: that is told, not that there was a daemon.
fn not_started(what: &str, said: &str, status: ExitStatus, log: &Path) -> CliError {
    let log = format!("its log: {}", log.display());
    match last_in(said) {
        Some((id, why, hint)) => {
            let hint = if hint.is_empty() { log } else { format!("{hint}; {log}") };
            CliError::new(
                Kind::Machine,
                id.to_owned(),
                format!("{what} did not start: {}", why.trim_end()),
            )
            .hint(hint)
        }
        None => {
            let what = format!("{what} did not start; it ended with {status}\n{}", tail(said));
            CliError::new(Kind::Machine, "DAEMON_FAILED", what.trim_end()).hint(log)
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Leaves the session of whoever started us, and tells them that we are ready.
pub fn tell_ready(ready: &serde_json::Value) -> Result {
    use std::io::Write as _;
    let mut output = std::io::stdout().lock();
    // Nobody listens when we were started by hand: that is no failure.
    let _ = writeln!(output, "{ready}").and_then(|()| output.flush());
    Ok(())
}

/// Puts this process into a control group of its own (D14): what it uses counts for nobody else, and whoever started it does
/// not end it with its own group. Blocks for some milliseconds.
pub fn own_cgroup(root: &Path, name: &str) {
    let entered = sys::cgroup::Cgroups::detect(root).and_then(|all| {
        let group = all.group(name);
        group.create().and_then(|()| group.enter())
    });
    if let Err(error) = entered {
        tracing::warn!(%error, name, "this process stays in the control group of whoever started it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_limited_by_the_hard_limit_alone() {
        let mut limit = rustix::process::getrlimit(Resource::Nofile);
        limit.current = Some(512);
        rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
        allow_many_connections().unwrap();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.is_running());
        assert!(
            !Process {
                start_ticks: own.start_ticks + 1,
                ..own
            }
            .is_running()
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        own.write(&path).unwrap();
        assert_eq!(Process::read(&path), Some(own));
        assert_eq!(Process::read(&dir.path().join("none")), None);
    }

    #[test]
    fn why_a_daemon_did_not_start_is_told_as_an_error_of_ours() {
        use std::os::unix::process::ExitStatusExt as _;
        let said = |text: &str| not_started("the node", text, ExitStatus::from_raw(256), Path::new("/log")).to_string();
        for (text, expect) in [
            (
                "INFO a\nerror[PORT_TAKEN]: taken\nhint: take another\n",
                "error[PORT_TAKEN]: the node did not start: taken\nhint: take another; its log: /log",
            ),
            (
                "thread 'main' panicked at x.rs:1\nno reason\n",
                "error[DAEMON_FAILED]: the node did not start; it ended with exit status: 1\n\
                 thread 'main' panicked at x.rs:1\nno reason\nhint: its log: /log",
            ),
        ] {
            assert_eq!(said(text), expect);
        }
    }

    #[tokio::test]
    async fn a_process_is_ended() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id() as i32).unwrap();
        // Somebody has to reap it, as init does for daemons.
        let reaper = tokio::task::spawn_blocking(move || child.wait().unwrap());
        process.end(Duration::from_secs(END_SECONDS)).await.unwrap();
        assert!(!reaper.await.unwrap().success());
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn a_daemon_that_never_gets_ready_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "of yesterday\nwaiting for the API\n").unwrap();
        let mut command = Command::new("sleep");
        let child = command.arg("600").stdout(Stdio::piped()).spawn().unwrap();
        let process = Process::of(child.id().cast_signed()).unwrap();
        let waited = until_ready("the node", child, &log, 13, Duration::from_millis(10)).await;
        let error = waited.unwrap_err();
        assert_eq!(error.id, "NOT_READY");
        assert_eq!(
            error.what,
            "the node was not ready after 0 s, and was ended\nwaiting for the API"
        );
        assert!(error.hint.contains(&log.display().to_string()), "{}", error.hint);
        assert!(!process.is_running());
    }
}
