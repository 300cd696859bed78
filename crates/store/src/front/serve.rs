//! One connection of a front. Who may connect is decided by whoever accepts.
//!
//! The HTTP/2 library is used directly, and the connection is one task: it reads requests, hands plain puts to the engine
//! together ([`Puts`]), decides what needs a moment itself, and writes the answers of a turn at once ([`Output`]). A task for
//! each request, as servers of gRPC have it, costs more than a durable put does. What can take long has tasks of its own.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use h2::server::SendResponse;
use h2::{Ping, PingPong, RecvStream};
use prost::Message;
use rpc::etcd::etcdserverpb::auth_server::AuthServer;
use rpc::etcd::etcdserverpb::cluster_server::ClusterServer;
use rpc::etcd::etcdserverpb::kv_server::Kv as _;
use rpc::etcd::etcdserverpb::lease_server::LeaseServer;
use rpc::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use rpc::etcd::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

use super::convert::is_range;
use super::output::{Lender, Output};
use super::puts::Puts;
use super::streams::{Received, send};
use super::{Front, REQUEST_BYTES_MAX, evaluate, grpc};

/// Calls at once on one connection. A kube-apiserver has some hundred.
const STREAMS_MAX: u32 = 10_000;
/// Bytes that a client may send before it is told to go on: the puts of a turn, or one large transaction.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes of a request's headers: gRPC needs some hundred.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Streams that a client may break off by errors of its own until its connection is ended.
const ERRORS_MAX: usize = 1024;
/// A client that does not answer a ping in this time is gone (etcd: `grpc-keepalive-timeout`, 20 s; every 2 hours).
const PING_TIMEOUT: Duration = Duration::from_secs(20);
const PING_EVERY: Duration = Duration::from_secs(60);

/// Why a connection ended.
pub(crate) type Broken = Box<dyn std::error::Error + Send + Sync>;

impl Front {
    /// Answers the calls of a connection to its end.
    ///
    /// # Errors
    /// A connection that broke.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<(), Broken> {
        let output = Output::new(stream);
        let mut settings = h2::server::Builder::new();
        settings
            .max_concurrent_streams(STREAMS_MAX)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_local_error_reset_streams(Some(ERRORS_MAX));
        let mut library = settings.handshake(output.clone()).await?;
        let mut connection = Connection {
            pings: Pings::new(library.ping_pong()),
            library,
            lender: output.lender(),
            output,
            puts: Puts::new(self.shared.clone()),
            calls: FuturesUnordered::new(),
            front: self.clone(),
        };
        std::future::poll_fn(|context| connection.poll(context)).await
    }

    /// What is left to generated servers, told apart by the path.
    async fn answer(self, request: http::Request<Received>) -> http::Response<Body> {
        let path = request.uri().path().trim_start_matches('/');
        macro_rules! call {
            ($server:ident) => {
                $server::new(self)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX)
                    .call(request)
                    .await
                    .unwrap_or_else(|never| match never {})
            };
        }
        let absent = Status::unimplemented(format!("this is trireme's store, which has no {path}"));
        let response = match path.split('/').next().unwrap_or_default() {
            "etcdserverpb.Lease" => call!(LeaseServer),
            "etcdserverpb.Maintenance" => call!(MaintenanceServer),
            "etcdserverpb.Cluster" => call!(ClusterServer),
            "etcdserverpb.Auth" => call!(AuthServer),
            _ => return absent.into_http(),
        };
        // Of a method that is not there a generated server says nothing more.
        let headers = response.headers();
        match headers.get("grpc-status") {
            Some(status) if status == "12" && !headers.contains_key("grpc-message") => absent.into_http(),
            _ => response,
        }
    }
}

struct Connection<T> {
    library: h2::server::Connection<Output<T>, Bytes>,
    output: Output<T>,
    lender: Lender,
    puts: Puts,
    /// Calls that this task goes on with: those that wait for the engine, and watches.
    calls: FuturesUnordered<BoxFuture<'static, ()>>,
    pings: Pings,
    front: Front,
}

// === impl Connection ===

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Turns until there is nothing to do. Ready: the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            while let Poll::Ready(accepted) = self.library.poll_accept(context) {
                let Some(accepted) = accepted else {
                    return Poll::Ready(Ok(()));
                };
                let (request, respond) = accepted?;
                self.begin(request, respond, context);
            }
            self.puts.submit();
            let mut answered = self.puts.poll_answered(context).is_ready();
            while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(context) {
                answered = true;
            }
            if !answered {
                break;
            }
        }
        if self.pings.poll_dead(context).is_ready() {
            return Poll::Ready(Err("the client does not answer".into()));
        }
        ready!(self.output.poll_send(context))?;
        Poll::Pending
    }

    fn begin(&mut self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>, context: &mut Context<'_>) {
        let (head, stream) = request.into_parts();
        let Some(method) = head.uri.path().strip_prefix("/etcdserverpb.KV/") else {
            let request = http::Request::from_parts(head, Received(stream));
            return self.leave(request, respond);
        };
        if let Err(status) = grpc::check(&head.headers) {
            return grpc::refuse(respond, status);
        }
        let body = grpc::Body::new(stream);
        match method {
            "Put" => self.put(body, respond, context),
            // What is a range may be all that there is.
            "Range" => self.call(
                body,
                respond,
                |range: &RangeRequest| is_range(&range.range_end),
                |front, range| async move { front.range(range).await },
            ),
            "Txn" => self.call(
                body,
                respond,
                |transaction: &TxnRequest| !evaluate::is_guardable(transaction),
                |front, transaction| async move { front.txn(transaction).await },
            ),
            "DeleteRange" => self.call(
                body,
                respond,
                |delete: &DeleteRangeRequest| is_range(&delete.range_end),
                |front, delete| async move { front.delete_range(delete).await },
            ),
            "Compact" => self.call(
                body,
                respond,
                |_: &CompactionRequest| false,
                |front, compaction| async move { front.compact(compaction).await },
            ),
            other => grpc::refuse(respond, Status::unimplemented(format!("unknown method {other}"))),
        }
    }

    fn put(&mut self, mut body: grpc::Body, respond: SendResponse<Bytes>, context: &mut Context<'_>) {
        let alone = |front: Front, put| async move { front.put(put).await };
        match body.poll_message::<PutRequest>(context) {
            Poll::Ready(Ok(put)) if evaluate::is_reading(&put) => self.go_on(put, respond, alone),
            Poll::Ready(Ok(put)) => {
                if let Err((put, respond)) = self.puts.take(put, respond) {
                    self.go_on(put, respond, alone);
                }
            }
            Poll::Ready(Err(status)) => grpc::refuse(respond, status),
            Poll::Pending => self.call(body, respond, |_| false, alone),
        }
    }

    /// A call of one message with one answer. What is `long` has a task of its own.
    fn call<Q, A, W>(
        &self,
        body: grpc::Body,
        respond: SendResponse<Bytes>,
        long: impl FnOnce(&Q) -> bool + Send + 'static,
        work: impl FnOnce(Front, Request<Q>) -> W + Send + 'static,
    ) where
        Q: Message + Default + 'static,
        A: Message,
        W: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let (front, lender) = (self.front.clone(), self.lender.clone());
        let call = async move {
            match body.message().await {
                Ok(question) => {
                    let long = long(&question);
                    let work = work(front, Request::new(question));
                    let answering = async move { grpc::answer(respond, work.await, Some(&lender)) };
                    if long {
                        tokio::spawn(answering);
                    } else {
                        answering.await;
                    }
                }
                Err(status) => grpc::refuse(respond, status),
            }
        };
        self.calls.push(call.boxed());
    }

    /// A call whose message is here.
    fn go_on<Q, A, W>(&self, question: Q, respond: SendResponse<Bytes>, work: impl FnOnce(Front, Request<Q>) -> W)
    where
        A: Message,
        W: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let work = work(self.front.clone(), Request::new(question));
        let lender = self.lender.clone();
        let answering = async move { grpc::answer(respond, work.await, Some(&lender)) };
        self.calls.push(answering.boxed());
    }

    /// Leaves a call to servers that take and give bodies.
    fn leave(&self, request: http::Request<Received>, respond: SendResponse<Bytes>) {
        let (front, lender) = (self.front.clone(), self.lender.clone());
        if request.uri().path() == "/etcdserverpb.Watch/Watch" {
            // Not the generated server: it would encode each answer anew, and copy it.
            let watching = async move { heard(send(front.watch(request).await, respond, lender).await) };
            self.calls.push(watching.boxed());
        } else {
            tokio::spawn(async move { heard(send(front.answer(request).await, respond, lender).await) });
        }
    }
}

fn heard(sent: Result<(), h2::Error>) {
    if let Err(error) = sent {
        tracing::trace!(%error, "an answer was not heard to its end");
    }
}

/// Whether the client is still there.
struct Pings {
    pings: Option<PingPong>,
    /// When the next one is due, or its answer.
    alarm: Pin<Box<Sleep>>,
    waiting: bool,
}

// === impl Pings ===

impl Pings {
    fn new(pings: Option<PingPong>) -> Self {
        Self {
            pings,
            alarm: Box::pin(tokio::time::sleep(PING_EVERY)),
            waiting: false,
        }
    }

    /// Ready: it has not answered in time.
    fn poll_dead(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else {
            return Poll::Pending;
        };
        loop {
            if self.waiting && pings.poll_pong(context).is_ready() {
                self.waiting = false;
                self.alarm.as_mut().reset(Instant::now() + PING_EVERY);
            }
            ready!(self.alarm.as_mut().poll(context));
            if self.waiting {
                return Poll::Ready(());
            }
            if pings.send_ping(Ping::opaque()).is_err() {
                // The connection ends, which its library tells.
                return Poll::Pending;
            }
            self.waiting = true;
            self.alarm.as_mut().reset(Instant::now() + PING_TIMEOUT);
        }
    }
}
