//! A container as its shim holds it: streams into the log, and the end.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::attach::Sink;
use crate::log::{LogFile, Splitter};
use crate::protocol::{Exit, Run};
use crate::{clock, kernel};

/// Read at a time from a container's output.
const CHUNK_BYTES: usize = 32 * 1024;
/// Chunks read from one stream after its container ended, or in one turn: more than a pipe holds.
const CHUNKS_MAX: usize = 64;

/// A container that was started, or is being created.
pub(super) struct Container {
    pub(super) run: Run,
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) started_ns: i64,
    pub(super) exit: Option<Exit>,
    pub(super) log: Option<LogFile>,
    pub(super) streams: Vec<Output>,
    /// Held open for a container that wants a stdin.
    pub(super) stdin: Option<OwnedFd>,
    /// The master side of its terminal, to be lent.
    pub(super) terminal: Option<OwnedFd>,
    /// The daemon's connection with whose end stdin ends too.
    pub(super) stdin_lent_to: Option<u64>,
    /// Those who are attached.
    pub(super) sinks: Vec<Sink>,
}

/// One stream of a container.
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) name: &'static str,
    pub(super) splitter: Splitter,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, name: &'static str) -> Output {
        Output {
            fd,
            name,
            splitter: Splitter::new(name),
        }
    }
}

impl Container {
    /// Before anything of it runs.
    pub(super) fn new(run: Run, log: Option<LogFile>) -> io::Result<(Container, [Option<OwnedFd>; 3])> {
        let streams = Streams::new(run.tty, run.stdin)?;
        let outputs = streams.readers.into_iter().map(|(fd, name)| Output::new(fd, name));
        let container = Container {
            run,
            pid: 0,
            start_ticks: 0,
            started_ns: 0,
            exit: None,
            log,
            streams: outputs.collect(),
            stdin: streams.stdin_writer,
            terminal: None,
            stdin_lent_to: None,
            sinks: Vec::new(),
        };
        Ok((container, streams.child))
    }

    /// Takes the master side of its terminal.
    pub(super) fn take_terminal(&mut self, terminal: OwnedFd) {
        let _ = rustix::io::ioctl_fionbio(&terminal, true);
        self.terminal = terminal.try_clone().ok();
        self.streams.push(Output::new(terminal, "stdout"));
    }

    /// Reads what one stream has, up to a turn's share; forgets the stream at its end.
    pub(super) fn pump(&mut self, index: usize) {
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let mut chunk = [0u8; CHUNK_BYTES];
        let mut records = Vec::new();
        let (mut ended, name) = (false, stream.name);
        let mut copied = Vec::new();
        let attached = !self.sinks.is_empty();
        for _ in 0..CHUNKS_MAX {
            match rustix::io::read(&stream.fd, &mut chunk) {
                Ok(0) => ended = true,
                Ok(count) => {
                    let time = clock::rfc3339(clock::now_ns());
                    stream.splitter.push(&chunk[..count], &time, &mut records);
                    if attached {
                        copied.extend_from_slice(&chunk[..count]);
                    }
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                // A terminal whose other side is closed says EIO.
                Err(_) => ended = true,
            }
            break;
        }
        if ended {
            stream.splitter.finish(&clock::rfc3339(clock::now_ns()), &mut records);
            self.streams.remove(index);
        }
        if let (Some(log), false) = (&mut self.log, records.is_empty()) {
            log.append(&records);
        }
        self.copy(name, &copied);
        if ended {
            self.end_sinks(name);
        }
    }

    pub(super) fn drain(&mut self) {
        for index in (0..self.streams.len()).rev() {
            self.pump(index);
        }
    }
}

/// A container's standard streams: what the helper gets and what the shim keeps.
pub(super) struct Streams {
    pub(super) child: [Option<OwnedFd>; 3],
    pub(super) readers: Vec<(OwnedFd, &'static str)>,
    pub(super) stdin_writer: Option<OwnedFd>,
}

impl Streams {
    pub(super) fn new(tty: bool, stdin: bool) -> io::Result<Streams> {
        let mut streams = Streams {
            child: [const { None }; 3],
            readers: Vec::new(),
            stdin_writer: None,
        };
        if tty {
            return Ok(streams);
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        if stdin {
            let (reader, writer) = pipe()?;
            streams.child[0] = Some(reader);
            streams.stdin_writer = Some(writer);
        }
        for (index, name) in [(1, "stdout"), (2, "stderr")] {
            let (reader, writer) = pipe()?;
            rustix::io::ioctl_fionbio(&reader, true)?;
            streams.child[index] = Some(writer);
            streams.readers.push((reader, name));
        }
        Ok(streams)
    }
}

pub(super) fn exit_of(ended: kernel::Ended, started_ns: i64, oom_killed: bool) -> Exit {
    Exit {
        code: ended.code,
        signal: ended.signal,
        oom_killed,
        finished_ns: clock::now_ns(),
        started_ns,
    }
}

/// Written beside and renamed: a reader sees a whole record or none.
pub(super) fn write_exit(directory: &Path, id: &str, exit: &Exit) -> io::Result<()> {
    let part = directory.join(format!(".{id}"));
    std::fs::write(&part, serde_json::to_vec(exit)?)?;
    std::fs::rename(part, directory.join(id))
}

/// How often the out-of-memory killer struck: `oom_kill N` in v1's `memory.oom_control` and v2's `memory.events`.
pub(super) fn oom_kills(file: &Path) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or_default()
}

/// Kills what is left in a container's control group.
pub(super) fn kill_cgroup(cgroups: &[PathBuf]) {
    // A fork bomb makes new processes while we kill: a few rounds, then the group's own limit has to do.
    const ROUNDS_MAX: usize = 16;
    let Some(cgroup) = cgroups.first() else { return };
    if std::fs::write(cgroup.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for _ in 0..ROUNDS_MAX {
        let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        let killed = pids
            .lines()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| kernel::kill(*pid, libc::SIGKILL).is_ok());
        if killed.count() == 0 {
            return;
        }
    }
}
