//! Frames on blocking and non-blocking unix sockets, with descriptors beside them.
//!
//! Descriptors travel with the first bytes of a frame. The kernel may hand out earlier bytes in the same read but never
//! later ones of another message, so descriptors belong to the frame that holds the last byte of the read they came with.
//! This file is also compiled into `crates/runtime`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::FRAME_BYTES_MAX;

/// Most descriptors in one frame: the three standard streams.
pub const FDS_MAX: usize = 3;

/// A message as bytes with its length in front.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message).expect("invariant: protocol types are plain data");
    let length = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Sends bytes, the descriptors with the first of them; returns how many bytes were taken.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL;
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

/// Sends a whole frame on a blocking socket.
pub fn send_all(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = encode(message);
    let mut sent = send(&socket, &bytes, fds)?;
    while sent < bytes.len() {
        sent += send(&socket, &bytes[sent..], &[])?;
    }
    Ok(())
}

/// Collects bytes and descriptors of one peer.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Bytes of the messages taken so far.
    consumed: usize,
    /// Each with the number of bytes received when it came.
    fds: Vec<(usize, OwnedFd)>,
}

impl Reader {
    /// Receives once; `Ok(0)` is the peer's end.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut chunk = [0u8; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut chunk)];
        let received = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        self.bytes.extend_from_slice(&chunk[..received.bytes]);
        let position = self.consumed + self.bytes.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds.map(|fd| (position, fd)));
            }
        }
        if self.fds.len() > FDS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        Ok(received.bytes)
    }

    /// The next complete message and the descriptors that came with it.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some(prefix) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        let message = serde_json::from_slice(&self.bytes[4..4 + length]).map_err(|err| invalid(err.to_string()))?;
        self.bytes.drain(..4 + length);
        self.consumed += 4 + length;
        let end = self.consumed;
        let (mine, later) = std::mem::take(&mut self.fds)
            .into_iter()
            .partition(|(position, _)| *position <= end);
        self.fds = later;
        Ok(Some((message, Vec::into_iter(mine).map(|(_, fd)| fd).collect())))
    }

    /// Reads one message from a blocking socket.
    pub fn read<T: DeserializeOwned>(&mut self, socket: impl AsFd) -> io::Result<(T, Vec<OwnedFd>)> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            if self.fill(&socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive() {
        let (left, right) = UnixStream::pair().unwrap();
        let long = "x".repeat(20_000);
        let file = std::fs::File::open("/dev/null").unwrap();
        send_all(&left, &"first", &[]).unwrap();
        send_all(&left, &long, &[file.as_fd()]).unwrap();
        let mut reader = Reader::default();
        let (text, _) = reader.read::<String>(&right).unwrap();
        assert_eq!(text, "first");
        let (text, fds) = reader.read::<String>(&right).unwrap();
        assert_eq!((text.len(), fds.len()), (20_000, 1));
        send_all(&left, &"without", &[]).unwrap();
        send_all(&left, &"with", &[file.as_fd()]).unwrap();
        let (_, fds) = reader.read::<String>(&right).unwrap();
        assert_eq!(fds.len(), 0);
        let (_, fds) = reader.read::<String>(&right).unwrap();
        assert_eq!(fds.len(), 1);
        drop(left);
        assert!(reader.read::<String>(&right).is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        let mut reader = Reader {
            bytes: u32::MAX.to_le_bytes().to_vec(),
            ..Reader::default()
        };
        assert!(reader.next::<String>().is_err());
    }
}
