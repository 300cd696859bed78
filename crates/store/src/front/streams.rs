//! Calls that are left to generated servers: their bodies, in and out, over the HTTP/2 library's streams.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http_body::{Body, Frame};

use super::output::Lender;

/// The body of a request.
pub(super) struct Received(pub(super) RecvStream);

impl Body for Received {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.0.poll_data(context)) {
            let data = data?;
            // A stream that has ended has no window any more.
            let _ = self.0.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.0.poll_trailers(context))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Sends an answer to its end, or until nobody hears it any more.
pub(super) async fn send<B>(
    response: http::Response<B>,
    mut respond: SendResponse<Bytes>,
    lender: Lender,
) -> Result<(), h2::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, body) = response.into_parts();
    let ended = body.is_end_stream();
    let stream = respond.send_response(http::Response::from_parts(parts, ()), ended)?;
    if ended {
        return Ok(());
    }
    let mut sending = Sending { body, stream, lender };
    std::future::poll_fn(|context| sending.poll(context)).await
}

struct Sending<B> {
    body: B,
    stream: SendStream<Bytes>,
    lender: Lender,
}

// === impl Sending ===

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Poll::Ready(reset) = self.stream.poll_reset(context) {
                // The client has enough of it.
                return Poll::Ready(reset.map(drop));
            }
            // One part waits at most: the next one is made when the client has room for something.
            self.stream.reserve_capacity(1);
            while self.stream.capacity() == 0 {
                match ready!(self.stream.poll_capacity(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(())),
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.lender.lend(&data);
                        self.stream.send_data(data, self.body.is_end_stream())?;
                    }
                    Err(frame) => {
                        self.stream.reserve_capacity(0);
                        let end = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(self.stream.send_trailers(end));
                    }
                },
                // A server of gRPC says its errors in trailers: this one broke.
                Some(Err(_)) => {
                    self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
                None => return Poll::Ready(self.stream.send_data(Bytes::new(), true)),
            }
            if self.body.is_end_stream() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
