//! One connection of a front. Who may connect is decided by whoever accepts.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rpc::etcd::etcdserverpb::cluster_server::ClusterServer;
use rpc::etcd::etcdserverpb::kv_server::KvServer;
use rpc::etcd::etcdserverpb::lease_server::LeaseServer;
use rpc::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use super::{Front, REQUEST_BYTES_MAX};

/// Calls at once on one connection. A kube-apiserver has some hundred.
const STREAMS_MAX: u32 = 10_000;
/// A client that does not answer a ping in this time is gone (etcd: `grpc-keepalive-timeout`, 20 s; every 2 hours).
const PING_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

impl Front {
    /// Answers the calls of a connection to its end.
    ///
    /// # Errors
    /// A connection that broke.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> hyper::Result<()> {
        let service = service_fn(|request| self.clone().answer(request));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX);
        builder.serve_connection(TokioIo::new(stream), service).await
    }

    /// The services, told apart by the path.
    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
        let path = request.uri().path().trim_start_matches('/');
        macro_rules! call {
            ($server:ident) => {
                $server::new(self)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX)
                    .call(request)
                    .await
            };
        }
        match path.split('/').next().unwrap_or_default() {
            "etcdserverpb.KV" => call!(KvServer),
            // Not the generated server: it would encode each answer anew, and copy it.
            "etcdserverpb.Watch" if path == "etcdserverpb.Watch/Watch" => Ok(self.watch(request).await),
            "etcdserverpb.Lease" => call!(LeaseServer),
            "etcdserverpb.Maintenance" => call!(MaintenanceServer),
            "etcdserverpb.Cluster" => call!(ClusterServer),
            other => Ok(Status::unimplemented(format!("unknown service {other}")).into_http()),
        }
    }
}
