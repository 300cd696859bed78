//! Services of gRPC at a Unix socket, as stand-ins for programs of others that the server asks.

use std::convert::Infallible;
use std::path::Path;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

/// Serves on a socket, on a thread of its own, until the answer is dropped.
pub fn serve<S>(socket: &Path, service: S) -> Runtime
where
    S: Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let listener = UnixListener::bind(socket).unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service.clone());
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    runtime
}
