//! What goes out on a connection, gathered.
//!
//! The HTTP/2 library writes each larger frame by itself, and flushes after it. On the way through the kernel a write of 16 KiB
//! costs little less than one of 128 KiB. So the frames of one turn of the connection are put together here, and whoever
//! turns the connection sends them at its end ([`Output::poll_send`]). Invariant: no more than [`GATHERED_BYTES`] and one
//! write wait here; past that the library waits, as it would for the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is sent at once: past it the costs of a write no longer fall.
const GATHERED_BYTES: usize = 128 * 1024;
/// What a connection keeps for its next turns when it did not need more.
const KEPT_BYTES: usize = 16 * 1024;

/// A connection, for the library that speaks on it. Clones are the same connection.
pub(super) struct Output<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

struct Inner<T> {
    stream: T,
    gathered: Vec<u8>,
    /// How much of that was sent.
    sent: usize,
    /// Until the first turn what the library flushes is sent: nobody else does it.
    turning: bool,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

// === impl Output ===

impl<T: AsyncRead + AsyncWrite + Unpin> Output<T> {
    pub(super) fn new(stream: T) -> Self {
        let inner = Inner {
            stream,
            gathered: Vec::new(),
            sent: 0,
            turning: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Sends what was gathered: the end of a turn. Pending: the socket is full, and the task is woken when it is not.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        inner.turning = true;
        inner.poll_send(context)
    }
}

// === impl Inner ===

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let rest = &self.gathered[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        if self.gathered.len() < KEPT_BYTES {
            self.gathered.shrink_to(KEPT_BYTES);
        }
        self.gathered.clear();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.len() < GATHERED_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Output<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.lock().stream).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Output<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_room(context))?;
        inner.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_room(context))?;
        for slice in slices {
            inner.gathered.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        if inner.turning {
            return Poll::Ready(Ok(()));
        }
        inner.poll_send(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// The kernel's part is a pipe that holds little: whatever is written comes out, in order, and waits in between.
    #[tokio::test]
    async fn what_is_written_comes_out_when_a_turn_ends() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut output = Output::new(ours);
        output.write_all(b"first").await.unwrap();
        output.flush().await.unwrap();
        let mut read = [0; 5];
        theirs.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"first", "before the first turn a flush sends");
        std::future::poll_fn(|context| output.poll_send(context)).await.unwrap();
        output.write_all(b"second").await.unwrap();
        output.flush().await.unwrap();
        assert!(futures::poll!(std::pin::pin!(theirs.read(&mut read))).is_pending());
        let bytes: Vec<u8> = (0..=255).cycle().take(GATHERED_BYTES + 5000).collect();
        let written = bytes.clone();
        let writer = tokio::spawn(async move {
            for chunk in written.chunks(3000) {
                output.write_all(chunk).await.unwrap();
                assert!(output.inner.lock().gathered.len() < GATHERED_BYTES + 3000);
            }
            std::future::poll_fn(|context| output.poll_send(context)).await.unwrap();
            assert!(output.inner.lock().gathered.is_empty());
        });
        let mut read = vec![0; 6 + bytes.len()];
        theirs.read_exact(&mut read).await.unwrap();
        assert!(read.strip_prefix(b"second").is_some_and(|rest| rest == bytes));
        writer.await.unwrap();
    }
}
