//! The node's own socket: `trireme image import` speaks to it, in HTTP over a Unix socket that only its owner can open.
//! CRI knows no import; everything else about images goes through CRI.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use base::Shutdown;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use runtime::Runtime;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

use crate::errors::{CliError, Result};

type Answer = Response<Full<Bytes>>;

/// Serves until the end.
pub fn serve(runtime: Arc<Runtime>, socket: &Path, shutdown: &Shutdown) -> Result {
    // A socket of a daemon that was killed is in the way.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).map_err(|error| CliError::file(socket, &error))?;
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        while let Some(accepted) = stop.until(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let runtime = runtime.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(runtime.clone(), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the node's socket ended");
                }
            });
        }
    });
    Ok(())
}

async fn answer(runtime: Arc<Runtime>, request: Request<Incoming>) -> std::result::Result<Answer, Infallible> {
    let outcome = match (request.method(), request.uri().path()) {
        (&Method::POST, "/images") => import(&runtime, request.into_body()).await,
        _ => Err("no such path".into()),
    };
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (StatusCode::BAD_REQUEST, json!({"error": error})),
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    Ok(response)
}

/// Takes an archive into a file first: it may be larger than memory.
async fn import(runtime: &Arc<Runtime>, mut body: Incoming) -> std::result::Result<serde_json::Value, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let path = std::env::temp_dir().join(format!("trireme-import-{}", base::Random::real().uuid()));
    let mut file = tokio::fs::File::create_new(&path).await.map_err(|error| said(&error))?;
    let outcome = async {
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(|error| said(&error))?.into_data() {
                file.write_all(&data).await.map_err(|error| said(&error))?;
            }
        }
        file.flush().await.map_err(|error| said(&error))?;
        runtime.import_image(&path).await.map_err(|error| said(&error))
    };
    let outcome = outcome.await;
    // The archive is in the image store now, or is no use.
    let _ = tokio::fs::remove_file(&path).await;
    // An archive may name no image: then it is found by its id.
    let names = outcome?.into_iter().flat_map(|image| match image.tags.is_empty() {
        true => vec![image.id],
        false => image.tags,
    });
    let names: Vec<String> = names.collect();
    Ok(json!({"imported": names}))
}
