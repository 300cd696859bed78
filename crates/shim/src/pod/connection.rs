//! The daemons that are connected to a shim: what they say is read, what they are told waits until they read it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::PollFlags;

use super::Pod;
use crate::protocol::{Answer, Message, Request};
use crate::wire::{Reader, encode, send};

/// Daemons that may be connected at once: one, and those that died a moment ago.
const CONNECTIONS_MAX: usize = 8;
/// Bytes that wait for a daemon which does not read before it is dropped; it asks for the state when it comes back.
const BACKLOG_BYTES_MAX: usize = 4 << 20;

pub(super) struct Connection {
    pub(super) stream: UnixStream,
    reader: Reader,
    pub(super) out: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    out_bytes: usize,
    sent: usize,
    pub(super) version: u32,
}

impl Pod {
    pub(super) fn accept(&mut self) {
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

    pub(super) fn converse(&mut self, id: u64, flags: PollFlags) {
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

    pub(super) fn reply(&mut self, connection: u64, id: u64, result: Result<Answer, String>, fds: Vec<OwnedFd>) {
        self.send(connection, &Message::Reply { id, result }, fds);
    }

    pub(super) fn send(&mut self, id: u64, message: &Message, fds: Vec<OwnedFd>) {
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

    pub(super) fn broadcast(&mut self, message: &Message) {
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
