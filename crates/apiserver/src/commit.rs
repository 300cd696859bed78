//! The last step of a write, in a task of its own: once a transaction was submitted, what has to follow it follows even
//! when the client goes away.

use std::sync::Arc;

use store::Transaction;
use tracing::Instrument as _;

use api::Status;

use crate::allocation::Reservation;
use crate::server::Server;
use crate::storage::{Committed, WriteError};

/// Commits a transaction; keeps what was reserved for it when it happened, and frees it when not.
pub async fn commit(
    server: &Arc<Server>,
    mut transaction: Transaction,
    reservation: Reservation,
) -> Result<Committed, WriteError> {
    reservation
        .claim(server, &mut transaction)
        .map_err(WriteError::Failed)?;
    let server = server.clone();
    let work = async move {
        let labels = server.storage.labels_of(&transaction);
        let started = tokio::time::Instant::now();
        let outcome = server.storage.commit(transaction).await;
        if let Some(labels) = labels {
            server.metrics.stored(&labels, started.elapsed(), outcome.is_err());
        }
        match &outcome {
            Ok(_) => reservation.keep(),
            // It may have happened: what was reserved stays taken until what is stored says otherwise.
            Err(WriteError::Failed(status)) if status.code == 504 => {
                let storage = server.storage.clone();
                server.shutdown.spawn(async move { reservation.settle(&storage).await });
            }
            Err(_) => drop(reservation),
        }
        outcome
    };
    let work = work.instrument(tracing::trace_span!(target: "otel", "Store commit"));
    let task = tokio::spawn(work.in_current_span());
    match task.await {
        Ok(outcome) => outcome,
        Err(error) => Err(WriteError::Failed(Status::internal(error))),
    }
}
