//! An answer whose last bytes wait until its last event is told: what `blocking` promises.
//!
//! One frame is always held back, so that the end is known before the client sees it. An answer that is given up is told of
//! by the trail's own end, and nobody waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use client::Body;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};

use super::Trail;

/// The body of an answer.
pub(super) struct Held {
    body: Body,
    trail: Arc<Trail>,
    held: Option<Frame<Bytes>>,
    telling: Option<BoxFuture<'static, ()>>,
    is_told: bool,
}

impl Held {
    pub(super) fn new(body: Body, trail: Arc<Trail>) -> Held {
        Held {
            body,
            trail,
            held: None,
            telling: None,
            is_told: false,
        }
    }

    fn tell(&mut self) {
        let trail = self.trail.clone();
        self.telling = Some(Box::pin(async move { trail.finish().await }));
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        loop {
            if let Some(telling) = &mut this.telling {
                ready!(telling.as_mut().poll(context));
                (this.telling, this.is_told) = (None, true);
            }
            if this.is_told {
                return Poll::Ready(this.held.take().map(Ok));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    let before = this.held.replace(frame);
                    if this.body.is_end_stream() {
                        this.tell();
                    }
                    if let Some(before) = before {
                        return Poll::Ready(Some(Ok(before)));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.tell(),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_told && self.held.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.held.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        match self.body.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + held),
            None => SizeHint::default(),
        }
    }
}
