//! The end of a connection whose other side still sends.
//!
//! A socket that is closed with bytes in it that nobody read is reset, and a reset takes with it what the other side was told
//! last: why its head is too large, its body refused. So what still comes is read and dropped, until the other side has heard
//! that this is the end.
//! Source: `net/http`, `closeWriteAndWait` of server.go.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long the other side has to hear of the end (upstream: Go's `rstAvoidanceDelay`).
const LINGER_TIMEOUT: Duration = Duration::from_millis(500);
/// What is read at once to be dropped.
const DROPPED_BYTES: usize = 8 * 1024;
/// What is dropped of one connection at most: whoever sends more than the largest body does not listen.
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A socket that lingers when it is shut down.
pub struct Lingering<S> {
    socket: S,
    /// Whether the other side has ended: it has nothing to be told.
    is_over: bool,
    /// Since our own end was sent.
    until: Option<Pin<Box<Sleep>>>,
    dropped: usize,
}

impl<S> Lingering<S> {
    pub fn new(socket: S) -> Lingering<S> {
        Lingering {
            socket,
            is_over: false,
            until: None,
            dropped: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, buffer));
        self.is_over |= read.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0);
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.until.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
            self.until = Some(Box::pin(sleep(LINGER_TIMEOUT)));
        }
        let mut space = [0; DROPPED_BYTES];
        while !self.is_over && self.dropped < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut space);
            match self.as_mut().poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => self.dropped += buffer.filled().len(),
                // It is gone, and heard what it could.
                Poll::Ready(Err(_)) => break,
                Poll::Pending => {
                    let until = self.until.as_mut().map(|until| until.as_mut().poll(context));
                    match until {
                        Some(Poll::Pending) => return Poll::Pending,
                        _ => break,
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn end(socket: impl AsyncRead + AsyncWrite + Unpin) {
        let mut socket = Lingering::new(socket);
        socket.write_all(b"too large").await.unwrap();
        socket.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn whoever_still_sends_hears_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        client.write_all(&[0; 32 * 1024]).await.unwrap();
        let ends = tokio::spawn(end(server));
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        // Nor is it reset when it goes on sending what it had begun.
        client.write_all(&[0; 32 * 1024]).await.unwrap();
        drop(client);
        ends.await.unwrap();
        assert_eq!(heard, b"too large");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_listen_is_not_waited_for() {
        let (server, client) = tokio::io::duplex(1024);
        let begin = tokio::time::Instant::now();
        end(server).await;
        assert_eq!(begin.elapsed(), LINGER_TIMEOUT);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_ended_is_not_waited_for() {
        let (server, mut client) = tokio::io::duplex(1024);
        client.shutdown().await.unwrap();
        let begin = tokio::time::Instant::now();
        end(server).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}
