//! What gRPC alone costs: the front's libraries around a service that does nothing.

use std::convert::Infallible;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::etcd::etcdserverpb::{PutRequest, PutResponse, ResponseHeader};
use tokio::net::TcpStream;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Answers every call of a connection as a put.
pub async fn serve(stream: TcpStream) -> hyper::Result<()> {
    let answer =
        |request| async move { Ok::<_, Infallible>(Grpc::new(ProstCodec::default()).unary(Put, request).await) };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_concurrent_streams(10_000);
    builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await
}

struct Put;

impl UnaryService<PutRequest> for Put {
    type Response = PutResponse;
    type Future = std::future::Ready<Result<Response<PutResponse>, Status>>;

    fn call(&mut self, _: Request<PutRequest>) -> Self::Future {
        let header = Some(ResponseHeader {
            cluster_id: 1,
            member_id: 1,
            revision: 1,
            raft_term: 1,
        });
        std::future::ready(Ok(Response::new(PutResponse { header, prev_kv: None })))
    }
}
