//! Answers no faster than they are sent.
//!
//! hyper takes as much of a body in advance as the largest head of a request may have, and frames are made faster than a
//! socket takes them: without a bound of its own each list that streams would hold several of them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Frame, SizeHint};

use client::{Body, TransportError};

/// How much of a body may wait until TLS has taken it: as much as TLS takes at a time. One frame may be larger.
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Smaller frames are not counted: there are as many of them as hyper takes, sixteen.
const COUNTED_BYTES_MIN: usize = 4 * 1024;

/// A body whose next frame is asked for when those before it are gone.
pub struct Paced {
    body: Body,
    /// Since the first frame that counts.
    waiting: Option<Arc<Waiting>>,
}

/// What was handed on and is not sent.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    reader: AtomicWaker,
}

/// Bytes that count until they are dropped.
struct Counted {
    bytes: Bytes,
    waiting: Arc<Waiting>,
}

impl Paced {
    /// Paces a body.
    pub fn new(body: Body) -> Paced {
        Paced { body, waiting: None }
    }

    fn count(&mut self, bytes: Bytes) -> Bytes {
        if bytes.len() < COUNTED_BYTES_MIN {
            return bytes;
        }
        let waiting = self.waiting.get_or_insert_default().clone();
        waiting.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes, waiting })
    }
}

impl Waiting {
    fn poll_room(&self, context: &Context<'_>) -> Poll<()> {
        let has_room = || self.bytes.load(Ordering::Acquire) < WAITING_BYTES_MAX;
        if has_room() {
            return Poll::Ready(());
        }
        self.reader.register(context.waker());
        match has_room() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.waiting.bytes.fetch_sub(self.bytes.len(), Ordering::Release);
        self.waiting.reader.wake();
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        if let Some(waiting) = &self.waiting {
            ready!(waiting.poll_room(context));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|bytes| self.count(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn body(sizes: &'static [usize]) -> Paced {
        let frames = sizes.iter().map(|size| Ok(Frame::data(vec![b'x'; *size].into())));
        Paced::new(StreamBody::new(futures::stream::iter(frames)).boxed_unsync())
    }

    /// The next frame's data, if it is there.
    fn next(body: &mut Paced) -> Option<Bytes> {
        let frame = body.frame().now_or_never()?;
        Some(frame?.unwrap().into_data().unwrap())
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_gone_makes_room() {
        let mut body = body(&[WAITING_BYTES_MAX - 1, 5000, 5000, 5000]);
        let (first, second) = (next(&mut body).unwrap(), next(&mut body).unwrap());
        assert_eq!((first.len(), second.len()), (WAITING_BYTES_MAX - 1, 5000));
        assert!(next(&mut body).is_none());
        // A part of it that is not sent yet holds all of it.
        let rest = first.slice(10..);
        drop(first);
        assert!(next(&mut body).is_none());
        drop(rest);
        assert_eq!(next(&mut body).unwrap().len(), 5000);
    }

    #[test]
    fn small_frames_are_not_held_back() {
        let mut body = body(&[COUNTED_BYTES_MIN - 1; 64]);
        let all: Vec<Bytes> = std::iter::from_fn(|| next(&mut body)).collect();
        assert_eq!(all.len(), 64);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let mut body = body(&[WAITING_BYTES_MAX, 5000]);
        let first = next(&mut body).unwrap();
        let second = tokio::spawn(async move { body.frame().await.unwrap().unwrap().into_data().unwrap() });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.await.unwrap().len(), 5000);
    }
}
