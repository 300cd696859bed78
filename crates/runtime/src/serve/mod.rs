//! The engine as CRI v1 gRPC on a unix socket.

mod image_service;
mod runtime_service;

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::cri::image_service_server::ImageServiceServer;
use rpc::cri::runtime_service_server::RuntimeServiceServer;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::error::{Result, doing};
use crate::runtime::Runtime;

/// Largest message either way, as in the kubelet's client and containerd.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Calls at once on one connection: 110 pods with a few operations each.
const STREAMS_MAX: u32 = 1000;

/// The gRPC services around an engine.
#[derive(Clone)]
struct Cri(Arc<Runtime>);

/// Opens `socket` (mode 0600), and serves CRI on it while what it returns is polled, until `shutdown`, with the streaming
/// server beside it. Containers go on without.
pub async fn serve(
    runtime: Arc<Runtime>,
    socket: &Path,
    shutdown: base::Shutdown,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).map_err(doing(directory.display()))?;
    }
    let listener = bind(socket).map_err(doing(socket.display()))?;
    crate::stream::serve(Arc::clone(&runtime), shutdown.clone())
        .await
        .map_err(doing("the streaming server"))?;
    let cri = Cri(runtime);
    let services = Services {
        runtime: RuntimeServiceServer::new(cri.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX),
        image: ImageServiceServer::new(cri)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX),
    };
    let path = socket.to_owned();
    Ok(async move {
        while let Some(accepted) = shutdown.until(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let (services, ends) = (services.clone(), shutdown.clone());
            shutdown.spawn(async move {
                let service = service_fn(move |request| services.clone().answer(request));
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(STREAMS_MAX);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                // Event streams have no end of their own, and operations go on in their own tasks: connections are cut.
                let _ = ends.until(connection).await;
            });
        }
        let _ = std::fs::remove_file(path);
    })
}

/// The socket appears under its name when it can be connected to and only its owner may.
fn bind(socket: &Path) -> std::io::Result<UnixListener> {
    let part = socket.with_extension("part");
    crate::files::remove_tree(&part)?;
    let listener = UnixListener::bind(&part)?;
    // Whoever may talk to it is root on this node.
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&part, socket)?;
    Ok(listener)
}

/// Both services on one connection, told apart by the path.
#[derive(Clone)]
struct Services {
    runtime: RuntimeServiceServer<Cri>,
    image: ImageServiceServer<Cri>,
}

impl Services {
    async fn answer(
        mut self,
        request: http::Request<Incoming>,
    ) -> std::result::Result<http::Response<Body>, Infallible> {
        let service = request
            .uri()
            .path()
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        match service {
            "runtime.v1.RuntimeService" => self.runtime.call(request).await,
            "runtime.v1.ImageService" => self.image.call(request).await,
            other => Ok(tonic::Status::unimplemented(format!("unknown service {other}")).into_http()),
        }
    }
}
