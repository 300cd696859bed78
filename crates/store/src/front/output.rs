//! What goes out on a connection, gathered.
//!
//! The HTTP/2 library writes each larger frame by itself, and flushes after it. On the way through the kernel a write of 16 KiB
//! costs little less than one of 128 KiB. So the frames of one turn of the connection are put together here, and whoever
//! turns the connection sends them at its end ([`Output::poll_send`]). What is small is copied; the parts of what was lent
//! ([`Lender`]) are known by their place in memory, and are sent from there. Invariant: no more than [`GATHERED_BYTES`] and one
//! write wait here; past that the library waits, as it would for the socket.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is sent at once: past it the costs of a write no longer fall.
const GATHERED_BYTES: usize = 128 * 1024;
/// What a connection keeps for its next turns when it did not need more.
const KEPT_BYTES: usize = 16 * 1024;
/// What is smaller is copied: that costs less than a place of its own in a write.
const LENT_BYTES_MIN: usize = 4096;
/// Pieces of one write. A frame is two, its head and its content.
const SLICES_MAX: usize = 64;

/// A connection, for the library that speaks on it. Clones are the same connection.
pub(super) struct Output<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

/// Takes what will be written from where it lies. Clones are the same connection's.
#[derive(Clone, Debug, Default)]
pub(super) struct Lender(Arc<Mutex<Lent>>);

/// What was lent in this turn and the one before, by the address of its first byte. As long as it is here its memory is not
/// anybody else's. What the library writes later than that is copied.
#[derive(Debug, Default)]
struct Lent {
    parts: BTreeMap<usize, (Bytes, u64)>,
    turn: u64,
}

struct Inner<T> {
    stream: T,
    /// What was copied.
    gathered: Vec<u8>,
    /// How much of that was sent.
    sent: usize,
    /// What was not, and at which place between the bytes of `gathered` each comes.
    shared: VecDeque<(usize, Bytes)>,
    /// Bytes taken since all was sent.
    taken: usize,
    lender: Lender,
    /// Until the first turn what the library flushes is sent: nobody else does it.
    turning: bool,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        let inner = self.inner.clone();
        Self { inner }
    }
}

// === impl Lender ===

impl Lender {
    /// Lends bytes that the library is given now. What is small is not worth it.
    pub(super) fn lend(&self, bytes: &Bytes) {
        if bytes.len() < LENT_BYTES_MIN {
            return;
        }
        let mut lent = self.0.lock();
        let turn = lent.turn;
        let (part, lent_in) = lent
            .parts
            .entry(bytes.as_ptr().addr())
            .or_insert_with(|| (bytes.clone(), turn));
        if part.len() < bytes.len() {
            *part = bytes.clone();
        }
        *lent_in = turn;
    }

    /// The part that a slice lies in, if it was lent.
    fn find(&self, slice: &[u8]) -> Option<Bytes> {
        if slice.len() < LENT_BYTES_MIN {
            return None;
        }
        let lent = self.0.lock();
        let begin = slice.as_ptr().addr();
        let (start, (part, _)) = lent.parts.range(..=begin).next_back()?;
        (begin + slice.len() <= start + part.len()).then(|| part.slice_ref(slice))
    }

    fn end_turn(&self) {
        let mut lent = self.0.lock();
        if !lent.parts.is_empty() {
            let turn = lent.turn;
            lent.parts.retain(|_, (_, lent_in)| *lent_in == turn);
            lent.turn += 1;
        }
    }
}

// === impl Output ===

impl<T: AsyncRead + AsyncWrite + Unpin> Output<T> {
    pub(super) fn new(stream: T) -> Self {
        let inner = Inner {
            stream,
            gathered: Vec::new(),
            sent: 0,
            shared: VecDeque::new(),
            taken: 0,
            lender: Lender::default(),
            turning: false,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Who lends to this connection.
    pub(super) fn lender(&self) -> Lender {
        self.inner.lock().lender.clone()
    }

    /// Sends what was gathered: the end of a turn. Pending: the socket is full, and the task is woken when it is not.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        inner.turning = true;
        let sent = inner.poll_send(context);
        if sent.is_ready() {
            inner.lender.end_turn();
        }
        sent
    }
}

// === impl Inner ===

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() || !self.shared.is_empty() {
            match ready!(self.poll_write_some(context))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.forget(sent),
            }
        }
        if self.gathered.len() < KEPT_BYTES {
            self.gathered.shrink_to(KEPT_BYTES);
        }
        self.gathered.clear();
        (self.sent, self.taken) = (0, 0);
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// One write of what waits.
    fn poll_write_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if self.shared.is_empty() {
            return stream.poll_write(context, &self.gathered[self.sent..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut count, mut from) = (0, self.sent);
        for (place, part) in self.shared.iter().take(SLICES_MAX / 2) {
            if from < *place {
                slices[count] = IoSlice::new(&self.gathered[from..*place]);
                count += 1;
            }
            slices[count] = IoSlice::new(part);
            (count, from) = (count + 1, *place);
        }
        if count < SLICES_MAX && self.shared.len() <= SLICES_MAX / 2 && from < self.gathered.len() {
            slices[count] = IoSlice::new(&self.gathered[from..]);
            count += 1;
        }
        stream.poll_write_vectored(context, &slices[..count])
    }

    /// Forgets what was sent.
    fn forget(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let place = self.shared.front().map_or(self.gathered.len(), |(place, _)| *place);
            let copied = bytes.min(place - self.sent);
            self.sent += copied;
            bytes -= copied;
            if let Some((place, part)) = self.shared.front_mut()
                && *place == self.sent
            {
                let sent = bytes.min(part.len());
                part.advance(sent);
                bytes -= sent;
                if part.is_empty() {
                    self.shared.pop_front();
                }
            }
        }
    }

    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.taken < GATHERED_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(context)
    }

    fn gather(&mut self, bytes: &[u8]) {
        // One write takes many pieces only where the connection can do that.
        let lent = self.lender.find(bytes).filter(|_| self.stream.is_write_vectored());
        self.taken += bytes.len();
        match lent {
            Some(part) => self.shared.push_back((self.gathered.len(), part)),
            None => self.gathered.extend_from_slice(bytes),
        }
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
        inner.gather(bytes);
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
            inner.gather(slice);
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

    /// Lent or not, copied or not, what was written comes out in order, however little is taken at once.
    #[tokio::test]
    async fn what_was_lent_is_sent_from_where_it_lies() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut output = Output::new(ours);
        let lender = output.lender();
        std::future::poll_fn(|context| output.poll_send(context)).await.unwrap();
        let large = Bytes::from_iter((0..=255_u8).cycle().take(3 * LENT_BYTES_MIN));
        let (small, other) = (large.slice(..100), Bytes::from(vec![7; 2 * LENT_BYTES_MIN]));
        lender.lend(&large);
        lender.lend(&small);
        let mut expect = Vec::new();
        let pieces = [
            (small.clone(), false),
            (large.clone(), true),
            (other.clone(), false),
            (large.slice(100..), true),
            (large.slice(2 * LENT_BYTES_MIN + 1..), false),
            (small.clone(), false),
            (large.slice(5..LENT_BYTES_MIN + 5), true),
        ];
        for (piece, is_lent) in &pieces {
            let copied = output.inner.lock().gathered.len();
            output.write_all(piece).await.unwrap();
            expect.extend_from_slice(piece);
            let grown = output.inner.lock().gathered.len() - copied;
            assert_eq!(grown, if *is_lent { 0 } else { piece.len() });
        }
        let written = expect.len();
        assert_eq!(output.inner.lock().taken, written);
        let reader = tokio::spawn(async move {
            let mut read = vec![0; written];
            theirs.read_exact(&mut read).await.unwrap();
            (read, theirs)
        });
        std::future::poll_fn(|context| output.poll_send(context)).await.unwrap();
        let (read, _theirs) = reader.await.unwrap();
        assert!(read == expect);
        // What was lent is kept for one turn more.
        let is_known = || lender.find(&large).is_some();
        assert!(is_known());
        std::future::poll_fn(|context| output.poll_send(context)).await.unwrap();
        assert!(!is_known() && lender.0.lock().parts.is_empty());
    }
}
