//! Deletes what has expired, as ordinary transactions guarded by the revision that set the deadline, and has history
//! forgotten that became too old while nobody wrote.
//!
//! It sleeps until the earliest deadline and otherwise does nothing. Writes keep the history short by themselves, so that
//! in a busy store its deadline moves on before it is reached.

use std::sync::Arc;
use std::time::Duration;

use base::Backoff;
use tokio::time::Instant;

use super::Shared;
use super::driver::Control;
use crate::transaction::{CommitError, Transaction};

/// Deletes under way at once: one group commit takes them all.
const EXPIRING_MAX: usize = 256;
/// The wall clock can be set; so a far deadline is looked at again after this.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// History is at least this much too old before it is forgotten here, so that this is rare: the part of its window.
const SLACK_SHARE: i64 = 10;
/// Waits after a delete that failed.
const RETRY_INITIAL: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

pub(super) async fn run(shared: Arc<Shared>, history_window_ms: i64) {
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
    loop {
        let woken = shared.expiring.notified();
        let now_ms = shared.clock.now_ms();
        let (due, next_ms, oldest_ms) = {
            let memory = shared.memory.read();
            let due = memory
                .expiries
                .iter()
                .take_while(|(deadline_ms, _)| *deadline_ms <= now_ms)
                .take(EXPIRING_MAX);
            let records = due
                .filter_map(|(_, key)| memory.root.get(key).cloned())
                .collect::<Vec<_>>();
            let next_ms = memory.expiries.first().map(|(deadline_ms, _)| *deadline_ms);
            (records, next_ms, memory.oldest_ms())
        };
        let slack_ms = history_window_ms / SLACK_SHARE;
        let mut trim_ms =
            oldest_ms.map(|oldest_ms| oldest_ms.saturating_add(history_window_ms).saturating_add(slack_ms));
        if trim_ms.is_some_and(|trim_ms| trim_ms <= now_ms) {
            shared.queue.control(Control::Trim);
            // Looked at again when that was done; a stream that needs the history may keep it.
            trim_ms = Some(now_ms.saturating_add(slack_ms.max(1)));
        }
        if due.is_empty() {
            match next_ms.into_iter().chain(trim_ms).min() {
                None => woken.await,
                Some(next_ms) => {
                    let wait = Duration::from_millis(u64::try_from(next_ms - now_ms).unwrap_or(0)).min(SLEEP_MAX);
                    tokio::select! {
                        biased;
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
