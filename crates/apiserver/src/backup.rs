//! `/trireme/v1/backup`: the whole store as one stream, for whoever may `get` that path (by default: administrators).
//!
//! Going through the API means that authentication, RBAC and audit are those of every request, and that the one process
//! that has the store's files open is the one that reads them.

use futures::stream;
use http::Response;

use api::{Reason, Status};
use client::{Body, TransportError};

use crate::call::Call;
use crate::respond::body;

/// The path; its segments are in [`crate::route`].
pub const PATH: &str = "/trireme/v1/backup";

/// Answers with a backup of now.
pub async fn serve(call: &Call) -> Result<Response<Body>, Status> {
    let taken = call.server.storage.backup(&call.server.clock).await;
    let backup = taken.map_err(|error| Status::failure(Reason::ServiceUnavailable, error.to_string()))?;
    let pieces = stream::unfold(backup, |mut backup| async move {
        // Packing is work: others get their turn between pieces.
        tokio::task::yield_now().await;
        let piece = backup.next()?;
        let piece = piece.map_err(|error| TransportError::Lost(error.to_string()));
        Some((piece, backup))
    });
    Ok(body::streaming("application/vnd.trireme.backup", pieces))
}
