//! Those who are attached to a container: its output goes to them beside its log, its stdin is lent to them.
//!
//! Invariant: somebody who does not read holds a container up for [`HOLD_MS_MAX`] and is cut off then.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Pod;
use super::container::Container;
use crate::clock;
use crate::protocol::Answer;

/// How long a container waits for somebody who is attached and does not read: a daemon that is busy for a moment must lose
/// nothing, a dead one must not matter.
const HOLD_MS_MAX: i64 = 5000;
/// Who may be attached to one stream of a container at a time.
const SINKS_MAX: usize = 16;

/// Where one stream of a container goes beside its log.
pub(super) struct Sink {
    pub(super) fd: OwnedFd,
    /// The stream's name.
    stream: &'static str,
    /// What it did not take yet.
    pending: Vec<u8>,
    /// Since when it takes nothing.
    held_since: Option<i64>,
}

impl Sink {
    fn new(fd: OwnedFd, stream: &'static str) -> std::io::Result<Sink> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Sink {
            fd,
            stream,
            pending: Vec::new(),
            held_since: None,
        })
    }

    /// Writes what it takes. `false`: nobody reads it any more, or not for too long.
    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.fd, &self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    self.held_since = None;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let now = clock::monotonic_ms();
                    return now - *self.held_since.get_or_insert(now) < HOLD_MS_MAX;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Whether the other end is closed.
    fn is_gone(&self) -> bool {
        let mut entry = [PollFd::new(&self.fd, PollFlags::OUT)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut entry, Some(&at_once)).is_ok() && entry[0].revents().contains(PollFlags::ERR)
    }
}

impl Container {
    /// Sends a piece of one stream to those who are attached to it.
    pub(super) fn copy(&mut self, stream: &str, bytes: &[u8]) {
        for sink in self.sinks.iter_mut().filter(|sink| sink.stream == stream) {
            sink.pending.extend_from_slice(bytes);
        }
        self.flush_sinks();
    }

    /// Goes on with those who were behind. After the container's end everybody is let go who has all.
    pub(super) fn flush_sinks(&mut self) {
        self.sinks.retain_mut(Sink::flush);
        if self.exit.is_some() {
            self.sinks.retain(|sink| !sink.pending.is_empty());
        }
    }

    /// Whether somebody is behind: then nothing more is read from the container.
    pub(super) fn is_held(&self) -> bool {
        self.sinks.iter().any(|sink| !sink.pending.is_empty())
    }

    /// The sinks that are behind.
    pub(super) fn held(&self) -> impl Iterator<Item = usize> {
        let all = self.sinks.iter().enumerate();
        all.filter(|(_, sink)| !sink.pending.is_empty()).map(|(index, _)| index)
    }

    /// The stream has ended: nothing more will come of it.
    pub(super) fn end_sinks(&mut self, stream: &str) {
        self.sinks
            .retain(|sink| sink.stream != stream || !sink.pending.is_empty());
    }
}

impl Pod {
    pub(super) fn attach(
        &mut self,
        connection: u64,
        id: &str,
        stdin: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), String> {
        let container = self.containers.get_mut(id).filter(|container| container.exit.is_none());
        let container = container.ok_or_else(|| format!("container {id} is not running"))?;
        container.sinks.retain(|sink| !sink.is_gone());
        let names = if container.run.tty {
            &["stdout"][..]
        } else {
            &["stdout", "stderr"]
        };
        if fds.len() != names.len() {
            return Err("the descriptors of the streams did not come along".into());
        }
        if container.sinks.len() / names.len() >= SINKS_MAX {
            return Err(format!("{SINKS_MAX} are attached to container {id} already"));
        }
        let lent = match (&container.terminal, &container.stdin) {
            (Some(terminal), _) => Some(terminal),
            (None, own) => own.as_ref().filter(|_| stdin),
        };
        let explain = |err: std::io::Error| format!("cannot attach: {err}");
        let lent = lent.map(|fd| fd.as_fd().try_clone_to_owned()).transpose().map_err(explain)?;
        for (fd, name) in fds.into_iter().zip(names) {
            container.sinks.push(Sink::new(fd, name).map_err(explain)?);
        }
        let takes_input = stdin && container.run.stdin && lent.is_some();
        if takes_input && container.run.stdin_once {
            container.stdin_lent_to = Some(connection);
        }
        let answer = Answer::Attached {
            terminal: container.run.tty,
            stdin: takes_input,
        };
        Ok((answer, lent.into_iter().collect()))
    }

    pub(super) fn close_stdin(&mut self, id: &str) -> Result<Answer, String> {
        if let Some(container) = self.containers.get_mut(id) {
            container.stdin = None;
        }
        Ok(Answer::Done)
    }

    /// A daemon that died with somebody attached cannot say that their stdin is over.
    pub(super) fn close_orphaned_stdins(&mut self) {
        let connections = &self.connections;
        for container in self.containers.values_mut() {
            let lent_to = container.stdin_lent_to;
            if lent_to.is_some_and(|connection| !connections.contains_key(&connection)) {
                (container.stdin, container.stdin_lent_to) = (None, None);
            }
        }
    }

    /// How long a poll may take before somebody has to be cut off, in milliseconds.
    pub(super) fn patience_ms(&self) -> Option<i64> {
        let held = self.containers.values().flat_map(|container| &container.sinks);
        let since = held.filter_map(|sink| sink.held_since).min()?;
        Some((since + HOLD_MS_MAX - clock::monotonic_ms()).max(0))
    }
}
