//! A body that something looks at while it is sent, or lasts as long as: what is known of its length stays known, so that the
//! answer tells it (`content-length`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

use client::Body;

struct Observed<F> {
    body: Body,
    observe: F,
}

/// Tells `observe` of each frame.
pub fn observed(body: Body, observe: impl FnMut(&Frame<Bytes>) + Send + Unpin + 'static) -> Body {
    Observed { body, observe }.boxed_unsync()
}

/// Keeps something until the body is sent or given up.
pub fn held(body: Body, what: impl Send + Unpin + 'static) -> Body {
    observed(body, move |_| {
        let _held = &what;
    })
}

impl<F: FnMut(&Frame<Bytes>) + Unpin> http_body::Body for Observed<F> {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            (self.observe)(frame);
        }
        Poll::Ready(frame)
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
    use std::sync::Arc;

    use http_body::Body as _;
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn the_length_is_known_and_each_frame_is_seen() {
        let seen = Arc::new(Mutex::new(0));
        let sum = seen.clone();
        let observe = move |frame: &Frame<Bytes>| *sum.lock() += frame.data_ref().map_or(0, Bytes::len);
        let body = held(observed(client::body_of("four"), observe), seen.clone());
        assert_eq!(body.size_hint().exact(), Some(4));
        assert_eq!(Arc::strong_count(&seen), 3);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "four");
        assert_eq!((*seen.lock(), Arc::strong_count(&seen)), (4, 1));
    }
}
