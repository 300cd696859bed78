//! The last step of a write: once a transaction was submitted, what has to follow it follows even when the client goes away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use store::Transaction;
use tokio::runtime::Handle;
use tracing::Instrument as _;

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
    Followed::new(work).await
}

/// Work that is done in the task that waits for it, and in one of its own when nobody waits any more: a task for each write
/// would cost two wakes.
struct Followed<T: Send + 'static> {
    /// `None` once it is done.
    work: Option<BoxFuture<'static, T>>,
    runtime: Handle,
}

impl<T: Send + 'static> Followed<T> {
    fn new(work: impl Future<Output = T> + Send + 'static) -> Followed<T> {
        Followed {
            work: Some(Box::pin(work)),
            runtime: Handle::current(),
        }
    }
}

impl<T: Send + 'static> Future for Followed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out: what panics is not gone on with.
        let mut work = self.work.take().expect("invariant: nobody waits for what is done");
        let outcome = work.as_mut().poll(context);
        if outcome.is_pending() {
            self.work = Some(work);
        }
        outcome
    }
}

impl<T: Send + 'static> Drop for Followed<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let (begin, begun) = oneshot::channel::<u8>();
        let (end, ended) = oneshot::channel();
        let mut work = Followed::new(async move {
            let given = begun.await.unwrap();
            end.send(given).unwrap();
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        begin.send(7).unwrap();
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_is_done_or_has_failed_is_over() {
        let mut done = Followed::new(std::future::ready(7));
        assert_eq!((&mut done).await, 7);
        assert!(done.work.is_none());
        let mut failed = Followed::new(async { "x".parse::<u8>().unwrap() });
        let outcome = std::panic::AssertUnwindSafe(&mut failed).catch_unwind().await;
        assert!(outcome.is_err() && failed.work.is_none());
    }
}
