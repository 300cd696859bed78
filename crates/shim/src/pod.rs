//! The per-pod shim: holds the pod's namespaces, is the parent of its containers, writes their logs and their ends.
//!
//! One thread and one `poll`: there is nothing to wait for but descriptors. Invariants:
//! - an exit record is on disk (written and renamed) before anybody is told of the exit;
//! - what a container wrote before it ended is in its log before its exit is told;
//! - nothing a daemon does or stops doing (not reading, dying, sending nonsense) holds a container up.

mod container;
mod spawn;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use crate::log::{LogFile, Splitter};
use crate::protocol::{
    Answer, Call, ContainerState, Exec, HelperReply, HelperRequest, Message, Request, Run, Sandbox, State, VERSION,
    VERSION_MIN,
};
use crate::wire::{Reader, encode, send};
use crate::{clock, kernel};
use container::{Container, Output, Streams, exit_of, kill_cgroup, oom_kills, write_exit};
use spawn::{spawn_helper, spawn_pause, start};

/// Daemons that may be connected at once: one, and those that died a moment ago.
const CONNECTIONS_MAX: usize = 8;
/// Bytes that wait for a daemon which does not read before it is dropped; it asks for the state when it comes back.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

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

struct Connection {
    stream: UnixStream,
    reader: Reader,
    out: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    out_bytes: usize,
    sent: usize,
    version: u32,
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
            sources.extend((0..container.streams.len()).map(|index| Source::Output(id.clone(), index)));
        }
        let mut entries: Vec<PollFd<'_>> = sources.iter().map(|source| self.poll_entry(source)).collect();
        match poll(&mut entries, None) {
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
            }
        }
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
        }
    }

    /// After a shutdown: when everything is dead and the answer is out. Or when the daemon died before it said what for.
    fn finished(&self) -> bool {
        if self.sandbox.is_none() && self.connection_next > 1 && self.connections.is_empty() {
            return true;
        }
        self.closing && self.connections.values().all(|connection| connection.out.is_empty())
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.connections.len() >= CONNECTIONS_MAX || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let connection = Connection {
                stream,
                reader: Reader::default(),
                out: VecDeque::new(),
                out_bytes: 0,
                sent: 0,
                version: 0,
            };
            self.connections.insert(self.connection_next, connection);
            self.connection_next += 1;
        }
    }

    fn signals(&mut self) {
        while kernel::read_signal(self.signals.as_fd()).is_some() {}
        // One signal may stand for many children.
        while let Ok(Some(ended)) = kernel::reap(false) {
            self.ended(ended);
        }
        self.finish_shutdown();
    }

    fn converse(&mut self, id: u64, flags: PollFlags) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut alive = true;
        if flags.contains(PollFlags::OUT) {
            alive = connection.flush().is_ok();
        }
        let mut requests = Vec::new();
        while alive && flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            match connection.reader.fill(&connection.stream) {
                Ok(0) => alive = false,
                Ok(_) => {}
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => alive = false,
            }
            loop {
                match connection.reader.next::<Request>() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(err) => {
                        eprintln!("shim: a message that is not one: {err}");
                        alive = false;
                        break;
                    }
                }
            }
        }
        for (request, fds) in requests {
            self.handle(id, request, fds);
        }
        if !alive {
            self.connections.remove(&id);
        }
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

    fn reply(&mut self, connection: u64, id: u64, result: Result<Answer, String>, fds: Vec<OwnedFd>) {
        self.send(connection, &Message::Reply { id, result }, fds);
    }

    fn send(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let bytes = encode(message);
        connection.out_bytes += bytes.len();
        connection.out.push_back((bytes, fds));
        if connection.flush().is_err() || connection.out_bytes > BACKLOG_BYTES_MAX {
            self.connections.remove(&id);
        }
    }

    fn broadcast(&mut self, message: &Message) {
        let ids: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.version > 0)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.send(id, message, Vec::new());
        }
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

    fn make_sandbox(&mut self, sandbox: Sandbox) -> Result<Answer, String> {
        if self.sandbox.is_some() {
            return Err("the sandbox is there already".into());
        }
        let mut warnings = Vec::new();
        for cgroup in &sandbox.cgroups {
            let file = cgroup.join("cgroup.procs");
            std::fs::write(&file, "0").map_err(|err| format!("cannot enter {}: {err}", file.display()))?;
        }
        let flag = |wanted: bool, flag: i32| if wanted { flag } else { 0 };
        let namespaces = flag(sandbox.network, libc::CLONE_NEWNET)
            | flag(sandbox.ipc, libc::CLONE_NEWIPC)
            | flag(sandbox.uts, libc::CLONE_NEWUTS);
        kernel::unshare(namespaces).map_err(|err| format!("cannot make the namespaces: {err}"))?;
        if sandbox.network {
            kernel::loopback_up().map_err(|err| format!("cannot bring the loopback link up: {err}"))?;
        }
        if let (true, Some(hostname)) = (sandbox.uts, &sandbox.hostname) {
            rustix::system::sethostname(hostname.as_bytes())
                .map_err(|err| format!("cannot set the host name: {err}"))?;
        }
        for (name, value) in &sandbox.sysctls {
            // A dot separates, except that a slash does when the name has one: interfaces may have dots.
            let path = if name.contains('/') {
                name.clone()
            } else {
                name.replace('.', "/")
            };
            if path.split('/').any(|part| part == "..") {
                return Err(format!("{name} is not a kernel parameter"));
            }
            std::fs::write(Path::new("/proc/sys").join(path), value)
                .map_err(|err| format!("cannot set the kernel parameter {name}: {err}"))?;
        }
        if sandbox.shared_pid {
            self.pause_pid = Some(spawn_pause().map_err(|err| format!("cannot hold the PID namespace: {err}"))?);
        }
        if let Err(err) = std::fs::create_dir_all(&sandbox.exits) {
            warnings.push(format!("{}: {err}", sandbox.exits.display()));
        }
        self.sandbox = Some(sandbox);
        Ok(Answer::Sandbox {
            pause_pid: self.pause_pid,
            warnings,
        })
    }

    fn create(&mut self, connection: u64, request: u64, run: Run) -> Result<(), String> {
        if self.sandbox.is_none() || self.shutdown.is_some() {
            return Err("the sandbox is not ready".into());
        }
        let id = run.container.clone();
        let creating = |helper: &Helper| matches!(&helper.job, Job::Create(other) if other.run.container == id);
        if self.containers.contains_key(&id) || self.helpers.values().any(creating) {
            return Err(format!("container {id} was started already"));
        }
        let log = match &run.log_path {
            Some(path) => Some(
                LogFile::open(path, run.log_bytes_max)
                    .map_err(|err| format!("cannot open the log {}: {err}", path.display()))?,
            ),
            None => None,
        };
        let explain = |err: io::Error| format!("cannot make the container's streams: {err}");
        let streams = Streams::new(run.tty, run.stdin).map_err(explain)?;
        let mut container = Container {
            run,
            pid: 0,
            start_ticks: 0,
            started_ns: 0,
            exit: None,
            log,
            streams: Vec::new(),
            _stdin: streams.stdin_writer,
        };
        for (fd, name) in streams.readers {
            container.streams.push(Output {
                fd,
                splitter: Splitter::new(name),
            });
        }
        let message = HelperRequest::Create(Box::new(container.run.clone()));
        let (pid, socket) = spawn_helper(&message, streams.child).map_err(explain)?;
        let job = Job::Create(Box::new(container));
        self.helpers.insert(
            pid,
            Helper {
                socket,
                connection,
                request,
                job,
            },
        );
        Ok(())
    }

    fn exec(&mut self, connection: u64, request: u64, exec: Exec, fds: Vec<OwnedFd>) -> Result<(), String> {
        let container = self
            .containers
            .get(&exec.container)
            .filter(|container| container.exit.is_none());
        let container = container.ok_or_else(|| format!("container {} is not running", exec.container))?;
        let message = HelperRequest::Exec {
            pid: container.pid,
            start_ticks: container.start_ticks,
            bundle: container.run.bundle.clone(),
            cgroups: container.run.cgroups.clone(),
            args: exec.args,
            tty: exec.tty,
            oom_score_adj: container.run.oom_score_adj,
        };
        let mut fds = fds.into_iter();
        let mut stdio = [const { None }; 3];
        if !exec.tty {
            if exec.stdin {
                stdio[0] = Some(fds.next().ok_or("no descriptor for stdin came along")?);
            }
            stdio[1] = Some(fds.next().ok_or("no descriptor for stdout came along")?);
            stdio[2] = Some(fds.next().ok_or("no descriptor for stderr came along")?);
        }
        let (pid, socket) = spawn_helper(&message, stdio).map_err(|err| format!("cannot start the helper: {err}"))?;
        let job = Job::Exec {
            exec: exec.exec,
            tty: exec.tty,
        };
        self.helpers.insert(
            pid,
            Helper {
                socket,
                connection,
                request,
                job,
            },
        );
        Ok(())
    }

    fn kill(&mut self, container: &str, signal: i32) -> Result<Answer, String> {
        let container = self
            .containers
            .get(container)
            .ok_or_else(|| format!("no container {container}"))?;
        if container.exit.is_some() {
            return Ok(Answer::Done);
        }
        // The process was not waited for, so its number is still its own.
        kernel::kill(container.pid, signal).map_err(|err| err.to_string())?;
        Ok(Answer::Done)
    }

    fn reopen_log(&mut self, id: &str) -> Result<Answer, String> {
        let container = self
            .containers
            .get_mut(id)
            .ok_or_else(|| format!("no container {id}"))?;
        match &mut container.log {
            Some(log) => log
                .reopen()
                .map(|()| Answer::Done)
                .map_err(|err| format!("cannot open the log: {err}")),
            None => Ok(Answer::Done),
        }
    }

    fn forget(&mut self, id: &str) -> Result<Answer, String> {
        match self.containers.get(id) {
            Some(container) if container.exit.is_none() => Err(format!("container {id} is running")),
            _ => {
                self.containers.remove(id);
                Ok(Answer::Done)
            }
        }
    }

    /// A child ended: a helper, a container, an exec, or an orphan of a container, of which nobody wants to know.
    fn ended(&mut self, ended: kernel::Ended) {
        if let Some(helper) = self.helpers.remove(&ended.pid) {
            self.helper_ended(helper);
            return;
        }
        if self.process_ended(ended) {
            return;
        }
        // The process of a helper that is still at work may be reaped before the helper is.
        if !self.helpers.is_empty() {
            self.ended_early.push_back(ended);
            self.ended_early.truncate(1024);
        }
    }

    fn process_ended(&mut self, ended: kernel::Ended) -> bool {
        if let Some(running) = self.execs.remove(&ended.pid) {
            let exit = exit_of(ended, running.started_ns, false);
            self.broadcast(&Message::ExecExited {
                exec: running.exec,
                exit,
            });
            return true;
        }
        let found = self
            .containers
            .iter_mut()
            .find(|(_, container)| container.pid == ended.pid && container.exit.is_none());
        let Some((id, container)) = found else {
            return false;
        };
        let id = id.clone();
        if container.run.kill_rest {
            kill_cgroup(&container.run.cgroups);
        }
        container.drain();
        let oom_killed = container
            .run
            .oom_file
            .as_deref()
            .is_some_and(|file| oom_kills(file) > 0);
        let exit = exit_of(ended, container.started_ns, oom_killed);
        container.exit = Some(exit);
        if let Some(sandbox) = &self.sandbox
            && let Err(err) = write_exit(&sandbox.exits, &id, &exit)
        {
            eprintln!("shim: cannot write the exit record of {id}: {err}");
        }
        self.broadcast(&Message::ContainerExited { container: id, exit });
        true
    }

    fn helper_ended(&mut self, helper: Helper) {
        // The container's process holds a copy of the other end until it runs its program: there may be no end of file.
        let outcome = helper
            .socket
            .set_nonblocking(true)
            .and_then(|()| Reader::default().read::<HelperReply>(&helper.socket))
            .map_err(|err| format!("the helper ended without an answer: {err}"))
            .and_then(|(reply, fds)| Ok((reply.result?, reply.warnings, fds)));
        let (pid, warnings, mut fds) = match outcome {
            Ok(outcome) => outcome,
            Err(text) => return self.reply(helper.connection, helper.request, Err(text), Vec::new()),
        };
        let started_ns = clock::now_ns();
        let start_ticks = kernel::start_ticks(pid).unwrap_or_default();
        let started = |warnings| Answer::Started {
            pid,
            start_ticks,
            started_ns,
            warnings,
        };
        match helper.job {
            Job::Create(mut container) => {
                if let Some(terminal) = fds.pop() {
                    let _ = rustix::io::ioctl_fionbio(&terminal, true);
                    container.streams.push(Output {
                        fd: terminal,
                        splitter: Splitter::new("stdout"),
                    });
                }
                if let Err(err) = start(&container.run.oci_root.join(&container.run.container)) {
                    let _ = kernel::kill(pid, libc::SIGKILL);
                    let text = format!("cannot start the container: {err}");
                    return self.reply(helper.connection, helper.request, Err(text), Vec::new());
                }
                (container.pid, container.start_ticks, container.started_ns) = (pid, start_ticks, started_ns);
                self.containers.insert(container.run.container.clone(), *container);
                self.reply(helper.connection, helper.request, Ok(started(warnings)), Vec::new());
            }
            Job::Exec { exec, tty } => {
                self.execs.insert(pid, Running { exec, started_ns });
                let fds = if tty { std::mem::take(&mut fds) } else { Vec::new() };
                self.reply(helper.connection, helper.request, Ok(started(warnings)), fds);
            }
        }
        // It may have ended before its helper was reaped.
        let early = self.ended_early.iter().position(|ended| ended.pid == pid);
        if let Some(ended) = early.and_then(|index| self.ended_early.remove(index)) {
            self.process_ended(ended);
        }
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

impl Connection {
    /// Sends what the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while let Some((bytes, fds)) = self.out.front() {
            let borrowed: Vec<_> = if self.sent == 0 {
                fds.iter().map(AsFd::as_fd).collect()
            } else {
                Vec::new()
            };
            match send(&self.stream, &bytes[self.sent..], &borrowed) {
                Ok(count) => self.sent += count,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(err) => return Err(err),
            }
            if self.sent == bytes.len() {
                self.out_bytes -= self.sent;
                self.sent = 0;
                self.out.pop_front();
            }
        }
        Ok(())
    }
}
