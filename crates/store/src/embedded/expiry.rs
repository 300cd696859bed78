//! Deletes what has expired, as ordinary transactions guarded by the revision that set the deadline.
//!
//! It sleeps until the earliest deadline and otherwise does nothing.

use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use tokio::time::Instant;

use super::Shared;
use crate::transaction::{CommitError, Transaction};

/// Deletes under way at once: one group commit takes them all.
const EXPIRING_MAX: usize = 256;
/// The wall clock can be set; so a far deadline is looked at again after this.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Waits after a delete that failed.
const RETRY_INITIAL: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    loop {
        let woken = shared.expiring.notified();
        let now_ms = shared.clock.now_ms();
        let (due, next_ms) = {
            let memory = shared.memory.read();
            let due = memory
                .expiries
                .iter()
                .take_while(|(deadline_ms, _)| *deadline_ms <= now_ms)
                .take(EXPIRING_MAX);
            let records = due
                .filter_map(|(_, key)| memory.root.get(key).cloned())
                .collect::<Vec<_>>();
            (records, memory.expiries.first().map(|(deadline_ms, _)| *deadline_ms))
        };
        if due.is_empty() {
            match next_ms {
                None => woken.await,
                Some(next_ms) => {
                    let wait = Duration::from_millis(u64::try_from(next_ms - now_ms).unwrap_or(0)).min(SLEEP_MAX);
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(Instant::now() + wait) => {}
                    }
                }
            }
            continue;
        }
        let delete = |record: &Arc<crate::engine::Record>| {
            shared.commit(Transaction::delete(record.key.clone(), record.mod_revision))
        };
        let answers = futures::future::join_all(due.iter().map(delete)).await;
        // A failed guard is a key that was written meanwhile.
        let failed = |answer: &&Result<_, CommitError>| !matches!(answer, Ok(_) | Err(CommitError::GuardFailed { .. }));
        match answers.iter().find(failed) {
            Some(Err(error)) => {
                tracing::warn!(%error, "expired keys could not be deleted; trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
            _ => backoff.reset(),
        }
    }
}
