//! Netlink: one encoder of messages and one synchronous socket, for routes, nftables and connection tracking alike.
//!
//! The kernel handles a netlink request inside `sendmsg`, on the caller's thread. When `send` returns, every
//! acknowledgement is already in the socket's queue: that is why there is no event loop here, why a transaction of ten
//! thousand services is two system calls, and why an error can be given back with the place of the message that caused
//! it. A socket belongs to the network namespace of the thread that opened it, for good.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

pub use crate::netlink_message::{
    ACK, APPEND, ATTRIBUTE_LENGTH_MAX, Attributes, CREATE, DUMP, EXCLUSIVE, HEADER_LENGTH, Messages, REPLACE, REQUEST,
    read_u32,
};

use crate::netlink_message::{align, read_u16};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as protocols, sockopt};

/// Receive buffer: an acknowledgement costs the kernel some 800 bytes, so this holds five thousand of them.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// One read; the kernel makes dump parts of at most 32 KiB.
const READ_BYTES: usize = 64 << 10;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const ERROR_ATTRIBUTE_MESSAGE: u16 = 1;

/// The subsystems this program talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// What the kernel said about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Place of the message in its [`Messages`].
    pub place: usize,
    /// The error number, positive.
    pub errno: i32,
    /// The kernel's own words, when it gave some.
    pub detail: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        write!(formatter, "message {}: {error}", self.place)?;
        match &self.detail {
            Some(detail) => write!(formatter, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket itself failed; what the kernel did is unknown.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused one or more messages.
    #[error("the kernel refused: {}", first(.0))]
    Refused(Vec<Refusal>),
    /// The kernel sent no acknowledgement for the last message, or something that is not netlink.
    #[error("netlink answer: {0}")]
    Protocol(&'static str),
}

fn first(refusals: &[Refusal]) -> String {
    match refusals {
        [] => "nothing".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{one}, and {} more", rest.len()),
    }
}

impl Error {
    /// The error number of the first refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused(refusals) => refusals.first().map(|refusal| refusal.errno),
            Error::Socket(error) => error.raw_os_error(),
            Error::Protocol(_) => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error.errno().map(io::Error::from_raw_os_error) {
            Some(cause) => io::Error::new(cause.kind(), error),
            None => io::Error::other(error),
        }
    }
}

/// One message of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Message type.
    pub kind: u16,
    /// Everything behind the netlink header.
    pub payload: Vec<u8>,
}

/// A netlink socket in the network namespace it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    next_sequence: u32,
    send_buffer_bytes: usize,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => None,
            Family::Netfilter => Some(protocols::NETFILTER),
        };
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        rustix::net::bind(&fd, &protocols::SocketAddrNetlink::new(0, 0))?;
        sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER_BYTES))?;
        // Both only make errors better to read; a kernel without them still works.
        let _ = set_netlink_option(&fd, libc::NETLINK_EXT_ACK);
        let _ = set_netlink_option(&fd, libc::NETLINK_CAP_ACK);
        Ok(Self {
            fd,
            next_sequence: 1,
            send_buffer_bytes: 0,
        })
    }

    /// Sends all messages and waits for the kernel's verdict. Netfilter batches are atomic, route messages are each on
    /// their own: after a refusal the others have been carried out.
    pub fn transact(&mut self, messages: Messages) -> Result<(), Error> {
        let last = messages.count().saturating_sub(1);
        self.transact_acknowledged(messages, last).map(drop)
    }

    /// Like [`Socket::transact`], and returns what the kernel answered besides acknowledgements. `acknowledged` is the
    /// place of the message whose acknowledgement proves success (in a netfilter batch, the last one before its end).
    pub fn transact_acknowledged(&mut self, messages: Messages, acknowledged: usize) -> Result<Vec<Answer>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        let base = self.send(messages, acknowledged)?;
        let mut collected = Collected::default();
        let mut buffer = vec![0u8; READ_BYTES];
        loop {
            match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((read, length)) => {
                    if length > read {
                        return Err(Error::Protocol("an answer is longer than 64 KiB"));
                    }
                    collected.take(&buffer[..read], base)?;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Socket(error.into())),
            }
        }
        if !collected.refusals.is_empty() {
            return Err(Error::Refused(collected.refusals));
        }
        match collected.acknowledged.contains(&acknowledged) {
            true => Ok(collected.answers),
            false => Err(Error::Protocol("no acknowledgement")),
        }
    }

    /// Sends one dump request and returns all parts of its answer. A dump that changed under way is asked for again.
    pub fn dump(&mut self, request: &Messages) -> Result<Vec<Answer>, Error> {
        const ATTEMPTS_MAX: usize = 5;
        for _ in 0..ATTEMPTS_MAX {
            let base = self.send(request.clone(), usize::MAX)?;
            let mut collected = Collected::default();
            let mut buffer = vec![0u8; READ_BYTES];
            while !collected.done && collected.refusals.is_empty() {
                match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                    Ok((read, length)) if length <= read => collected.take(&buffer[..read], base)?,
                    Ok(_) => return Err(Error::Protocol("an answer is longer than 64 KiB")),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(Error::Socket(error.into())),
                }
            }
            if !collected.refusals.is_empty() {
                return Err(Error::Refused(collected.refusals));
            }
            if !collected.interrupted {
                return Ok(collected.answers);
            }
        }
        Err(Error::Protocol("the table changed during every attempt to read it"))
    }

    fn send(&mut self, messages: Messages, acknowledged: usize) -> Result<u32, Error> {
        let base = self.next_sequence;
        self.next_sequence = base.wrapping_add(messages.count() as u32);
        let wire = messages.into_wire(base, acknowledged);
        // The kernel takes a request only when it fits the send buffer whole.
        let needed = wire.len() + 4096;
        if needed > self.send_buffer_bytes.max(128 << 10) {
            sockopt::set_socket_send_buffer_size_force(&self.fd, needed)
                .or_else(|_| sockopt::set_socket_send_buffer_size(&self.fd, needed))
                .map_err(io::Error::from)?;
            self.send_buffer_bytes = needed;
        }
        let sent = rustix::net::sendto(
            &self.fd,
            &wire,
            SendFlags::empty(),
            &protocols::SocketAddrNetlink::new(0, 0),
        )
        .map_err(io::Error::from)?;
        match sent == wire.len() {
            true => Ok(base),
            false => Err(Error::Protocol("the kernel took part of a request")),
        }
    }
}

#[derive(Default)]
struct Collected {
    refusals: Vec<Refusal>,
    acknowledged: Vec<usize>,
    answers: Vec<Answer>,
    done: bool,
    interrupted: bool,
}

impl Collected {
    fn take(&mut self, mut bytes: &[u8], base: u32) -> Result<(), Error> {
        while bytes.len() >= HEADER_LENGTH {
            let length = read_u32(bytes, 0) as usize;
            if length < HEADER_LENGTH || length > bytes.len() {
                return Err(Error::Protocol("a message with a wrong length"));
            }
            let (message, rest) = (&bytes[..length], &bytes[align(length).min(bytes.len())..]);
            bytes = rest;
            let kind = read_u16(message, 4);
            let flags = read_u16(message, 6);
            let place = read_u32(message, 8).wrapping_sub(base) as usize;
            let payload = &message[HEADER_LENGTH..];
            self.interrupted |= flags & FLAG_DUMP_INTERRUPTED != 0;
            match kind {
                NLMSG_ERROR if payload.len() < 4 => return Err(Error::Protocol("a short error message")),
                NLMSG_ERROR => match read_u32(payload, 0) as i32 {
                    0 => self.acknowledged.push(place),
                    code => {
                        self.refusals.push(Refusal {
                            place,
                            errno: -code,
                            detail: error_detail(flags, payload),
                        });
                    }
                },
                NLMSG_DONE => {
                    self.done = true;
                    let code = if payload.len() >= 4 {
                        read_u32(payload, 0) as i32
                    } else {
                        0
                    };
                    if code < 0 {
                        self.refusals.push(Refusal {
                            place,
                            errno: -code,
                            detail: None,
                        });
                    }
                }
                _ => self.answers.push(Answer {
                    kind,
                    payload: payload.to_vec(),
                }),
            }
        }
        Ok(())
    }
}

fn error_detail(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & FLAG_ACK_TLVS == 0 || payload.len() < 4 + HEADER_LENGTH {
        return None;
    }
    // The original message follows, whole unless the kernel was asked to cap it to its header.
    let original = if flags & FLAG_CAPPED != 0 {
        HEADER_LENGTH
    } else {
        read_u32(payload, 4) as usize
    };
    let attributes = payload.get(4 + align(original)..)?;
    let (_, value) = Attributes::new(attributes).find(|(kind, _)| *kind == ERROR_ATTRIBUTE_MESSAGE)?;
    let text = value.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(text).into_owned())
}

fn set_netlink_option(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let value: libc::c_int = 1;
    // JUSTIFICATION: rustix has no netlink socket options.
    // SAFETY: the descriptor is open for the whole call, and the pointer and length describe one live c_int.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(sequence: u32, code: i32, text: &str) -> Vec<u8> {
        let mut messages = Messages::new();
        messages.begin(NLMSG_ERROR, FLAG_ACK_TLVS | FLAG_CAPPED);
        messages
            .fixed(&code.to_ne_bytes())
            .fixed(&[0; HEADER_LENGTH])
            .text(ERROR_ATTRIBUTE_MESSAGE, text);
        messages.into_wire(sequence, usize::MAX)
    }

    #[test]
    fn errors_name_the_message_and_the_kernels_words() {
        let mut collected = Collected::default();
        collected.take(&error_message(12, -2, "no such table"), 10).unwrap();
        collected.take(&error_message(13, 0, ""), 10).unwrap();
        assert_eq!(
            collected.refusals,
            [Refusal {
                place: 2,
                errno: 2,
                detail: Some("no such table".to_owned())
            }]
        );
        assert_eq!(collected.acknowledged, [3]);
    }

    #[test]
    fn a_message_with_a_wrong_length_is_refused() {
        let mut bytes = error_message(1, 0, "");
        bytes[0] = 200;
        assert!(Collected::default().take(&bytes, 1).is_err());
    }
}
