//! The per-pod shim: holds the pod's namespaces, is the parent of its containers, writes their logs and their ends.
//!
//! One thread and one `poll`: there is nothing to wait for but descriptors. Invariants:
//! - an exit record is on disk (written and renamed) before anybody is told of the exit;
//! - what a container wrote before it ended is in its log before its exit is told;
//! - nothing a daemon does or stops doing (not reading, dying, sending nonsense) holds a container up.

mod attach;
mod connection;
mod container;
mod processes;
mod sandbox;
mod spawn;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, poll};

use crate::kernel;
use crate::protocol::{Answer, Call, ContainerState, Request, Sandbox, State, VERSION, VERSION_MIN};
use connection::Connection;
use container::{Container, kill_cgroup};

/// The role's entry: listens on descriptor 0 until it is told to end.
pub fn shim() -> i32 {
    let mut pod = match Pod::new() {
        Ok(pod) => pod,
        Err(err) => {
            eprintln!("shim: cannot start: {err}");
            return 1;
        }
    };
    loop {
        if let Err(err) = pod.turn() {
            eprintln!("shim: {err}");
            return 1;
        }
        if pod.finished() {
            return 0;
        }
    }
}

struct Pod {
    listener: UnixListener,
    signals: OwnedFd,
    connections: BTreeMap<u64, Connection>,
    connection_next: u64,
    sandbox: Option<Sandbox>,
    pause_pid: Option<i32>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<i32, Running>,
    helpers: BTreeMap<i32, Helper>,
    ended_early: VecDeque<kernel::Ended>,
    shutdown: Option<(u64, u64)>,
    closing: bool,
}

struct Running {
    exec: String,
    started_ns: i64,
}

/// A one-shot helper at work, and whom its outcome is for.
struct Helper {
    socket: UnixStream,
    connection: u64,
    request: u64,
    job: Job,
}

enum Job {
    Create(Box<Container>),
    Exec { exec: String, tty: bool },
}

/// What a poll entry stands for.
#[derive(Clone)]
enum Source {
    Listener,
    Signals,
    Connection(u64),
    Output(String, usize),
    /// Somebody attached who is behind.
    Sink(String, usize),
}

impl Pod {
    fn new() -> io::Result<Pod> {
        let listener = UnixListener::from(kernel::inherited(0));
        listener.set_nonblocking(true)?;
        kernel::set_cloexec(listener.as_fd(), true)?;
        // Standard input of the helpers must not be this socket: descriptor 0 is taken by /dev/null from here on.
        let moved = rustix::io::fcntl_dupfd_cloexec(&listener, 3)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        std::mem::forget(listener);
        let listener = UnixListener::from(moved);
        // The terminal's and the service manager's ways of ending processes do not reach it.
        let signals = kernel::signal_fd(&[
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGPIPE,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ])?;
        let _ = rustix::process::setsid();
        std::env::set_current_dir("/")?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let _ = rustix::thread::set_name(c"trireme-shim");
        // Rather any container than the shim that would tell of its end; needs CAP_SYS_RESOURCE.
        let _ = std::fs::write("/proc/self/oom_score_adj", "-998");
        Ok(Pod {
            listener,
            signals,
            connections: BTreeMap::new(),
            connection_next: 1,
            sandbox: None,
            pause_pid: None,
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            helpers: BTreeMap::new(),
            ended_early: VecDeque::new(),
            shutdown: None,
            closing: false,
        })
    }

    /// Waits for something to happen and handles all of it.
    fn turn(&mut self) -> io::Result<()> {
        let mut sources = vec![Source::Listener, Source::Signals];
        sources.extend(self.connections.keys().map(|id| Source::Connection(*id)));
        for (id, container) in &self.containers {
            if container.is_held() {
                sources.extend(container.held().map(|index| Source::Sink(id.clone(), index)));
                continue;
            }
            sources.extend((0..container.streams.len()).map(|index| Source::Output(id.clone(), index)));
        }
        let patience = self.patience_ms().map(|ms| rustix::event::Timespec {
            tv_sec: ms / 1000,
            tv_nsec: ms % 1000 * 1_000_000,
        });
        let mut entries: Vec<PollFd<'_>> = sources.iter().map(|source| self.poll_entry(source)).collect();
        match poll(&mut entries, patience.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
        let ready: Vec<(Source, PollFlags)> = sources
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| !entry.revents().is_empty())
            .map(|(source, entry)| (source.clone(), entry.revents()))
            .collect();
        drop(entries);
        // Streams from the back, so that removing one does not move those still to be handled.
        for (source, flags) in ready.into_iter().rev() {
            match source {
                Source::Listener => self.accept(),
                Source::Signals => self.signals(),
                Source::Connection(id) => self.converse(id, flags),
                Source::Output(container, index) => {
                    if let Some(container) = self.containers.get_mut(&container) {
                        container.pump(index);
                    }
                }
                // All that are behind are looked at below.
                Source::Sink(..) => {}
            }
        }
        for container in self.containers.values_mut().filter(|container| container.is_held()) {
            container.flush_sinks();
        }
        self.close_orphaned_stdins();
        Ok(())
    }

    fn poll_entry(&self, source: &Source) -> PollFd<'_> {
        match source {
            Source::Listener => PollFd::new(&self.listener, PollFlags::IN),
            Source::Signals => PollFd::new(&self.signals, PollFlags::IN),
            Source::Connection(id) => {
                let connection = &self.connections[id];
                let writing = if connection.out.is_empty() {
                    PollFlags::empty()
                } else {
                    PollFlags::OUT
                };
                PollFd::new(&connection.stream, PollFlags::IN | writing)
            }
            Source::Output(id, index) => PollFd::new(&self.containers[id].streams[*index].fd, PollFlags::IN),
            Source::Sink(id, index) => PollFd::new(&self.containers[id].sinks[*index].fd, PollFlags::OUT),
        }
    }

    /// After a shutdown: when everything is dead and the answer is out. Or when the daemon died before it said what for.
    fn finished(&self) -> bool {
        if self.sandbox.is_none() && self.connection_next > 1 && self.connections.is_empty() {
            return true;
        }
        self.closing && self.connections.values().all(|connection| connection.out.is_empty())
    }

    fn signals(&mut self) {
        while kernel::read_signal(self.signals.as_fd()).is_some() {}
        // One signal may stand for many children.
        while let Ok(Some(ended)) = kernel::reap(false) {
            self.ended(ended);
        }
        self.finish_shutdown();
    }

    fn handle(&mut self, connection: u64, request: Request, fds: Vec<OwnedFd>) {
        let id = request.id;
        let result = match request.call {
            Call::Hello { version } => self.hello(connection, version),
            Call::Sandbox(sandbox) => self.make_sandbox(sandbox),
            Call::Run(run) => match self.create(connection, id, *run) {
                Ok(()) => return,
                Err(text) => Err(text),
            },
            Call::Exec(exec) => match self.exec(connection, id, exec, fds) {
                Ok(()) => return,
                Err(text) => Err(text),
            },
            Call::Kill { container, signal } => self.kill(&container, signal),
            Call::KillExec { exec, signal } => {
                let pid = self
                    .execs
                    .iter()
                    .find(|(_, running)| running.exec == exec)
                    .map(|(pid, _)| *pid);
                // Gone is what a signal wants; the exit was told.
                pid.map_or(Ok(Answer::Done), |pid| {
                    kernel::kill(pid, signal)
                        .map(|()| Answer::Done)
                        .map_err(|err| err.to_string())
                })
            }
            Call::Attach { container, stdin } => match self.attach(connection, &container, stdin, fds) {
                Ok((answer, fds)) => return self.reply(connection, id, Ok(answer), fds),
                Err(text) => Err(text),
            },
            Call::CloseStdin { container } => self.close_stdin(&container),
            Call::ReopenLog { container } => self.reopen_log(&container),
            Call::Forget { container } => self.forget(&container),
            Call::Shutdown => {
                self.shutdown = Some((connection, id));
                self.kill_everything();
                self.finish_shutdown();
                return;
            }
        };
        self.reply(connection, id, result, Vec::new());
    }

    fn hello(&mut self, connection: u64, version: u32) -> Result<Answer, String> {
        if version < VERSION_MIN {
            return Err(format!(
                "the shim speaks versions {VERSION_MIN} to {VERSION}, not {version}"
            ));
        }
        let version = version.min(VERSION);
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.version = version;
        }
        let containers = self.containers.iter().map(|(id, container)| ContainerState {
            container: id.clone(),
            pid: container.pid,
            start_ticks: container.start_ticks,
            started_ns: container.started_ns,
            exit: container.exit,
        });
        Ok(Answer::State(State {
            version,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            ready: self.sandbox.is_some(),
            pause_pid: self.pause_pid,
            containers: containers.collect(),
        }))
    }

    fn kill_everything(&mut self) {
        for container in self.containers.values().filter(|container| container.exit.is_none()) {
            let _ = kernel::kill(container.pid, libc::SIGKILL);
            if container.run.kill_rest {
                kill_cgroup(&container.run.cgroups);
            }
        }
        for pid in self.execs.keys().chain(self.helpers.keys()).chain(&self.pause_pid) {
            let _ = kernel::kill(*pid, libc::SIGKILL);
        }
    }

    fn finish_shutdown(&mut self) {
        let Some((connection, id)) = self.shutdown else { return };
        let running = self.containers.values().any(|container| container.exit.is_none());
        if running || !self.helpers.is_empty() || self.closing {
            return;
        }
        // Orphans of a helper killed half way have no other parent than us.
        while let Ok(Some(_)) = kernel::reap(false) {}
        self.closing = true;
        self.reply(connection, id, Ok(Answer::Done), Vec::new());
    }
}
