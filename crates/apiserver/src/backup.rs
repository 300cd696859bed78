//! `/trireme/v1/backup`: the whole store as one stream, for whoever may `get` that path and has the verb `backup` on it (by
//! default: administrators). A role that may look at every path, as those of monitoring often may, does not read all Secrets
//! with it: `docs/decisions/0007-a-backup-takes-a-verb-of-its-own.md`.
//!
//! Going through the API means that authentication, RBAC and audit are those of every request, and that the one process
//! that has the store's files open is the one that reads them.

use futures::stream;
use http::Response;

use api::{Reason, Status};
use client::{Body, TransportError};

use crate::call::Call;
use crate::pipeline::must_allow;
use crate::request::Attributes;
use crate::respond::body;

/// The path; its segments are in [`crate::route`].
pub const PATH: &str = "/trireme/v1/backup";

/// What is asked of the authorizer beside the request's own verb.
const VERB: &str = "backup";

/// Answers with a backup of now.
///
/// # Errors
/// 403 without the right to it; 503 when the store cannot be read.
pub async fn serve(call: &Call) -> Result<Response<Body>, Status> {
    let asked = Attributes {
        verb: VERB.into(),
        ..call.attributes.clone()
    };
    let decision = call.server.authorizer.authorize(&call.user, &asked).await;
    must_allow(decision, &call.user, &asked)?;
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
