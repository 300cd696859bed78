//! Waiting until readers see a revision.
//!
//! Each waiter waits for its own revision: a publication wakes those it was for, not the thousands that wait for a later
//! one. Invariant: a revision at or below the published one never waits, and nobody waits any more once it is closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::Revision;

#[derive(Default)]
pub(crate) struct Applied {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    revision: Revision,
    closed: bool,
    waiting: BTreeMap<Revision, Arc<Notify>>,
}

impl Applied {
    /// Readers see this revision now.
    pub(crate) fn publish(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.revision = revision;
        let later = state.waiting.split_off(&(revision + 1));
        let reached = std::mem::replace(&mut state.waiting, later);
        drop(state);
        reached.values().for_each(|notify| notify.notify_waiters());
    }

    /// There will be no other revision.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.values().for_each(|notify| notify.notify_waiters());
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits for a revision; the one that is reached then. None: it will not come.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Option<Revision> {
        loop {
            let waiting = {
                let mut state = self.state.lock();
                if state.revision >= revision {
                    return Some(state.revision);
                }
                if state.closed {
                    return None;
                }
                let notify = state.waiting.entry(revision).or_default().clone();
                Waiting {
                    applied: self,
                    revision,
                    notify,
                }
            };
            let woken = waiting.notify.notified();
            tokio::pin!(woken);
            // Registered before looking again, so that nothing falls in between.
            woken.as_mut().enable();
            {
                let state = self.state.lock();
                if state.revision >= revision || state.closed {
                    continue;
                }
            }
            woken.await;
        }
    }
}

/// One who waits. The last one of a revision takes its entry along, so that revisions that never come leave nothing.
struct Waiting<'a> {
    applied: &'a Applied,
    revision: Revision,
    notify: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.applied.state.lock();
        // This one and the map's.
        if state
            .waiting
            .get(&self.revision)
            .is_some_and(|notify| Arc::ptr_eq(notify, &self.notify))
            && Arc::strong_count(&self.notify) == 2
        {
            state.waiting.remove(&self.revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_waits_for_its_own() {
        let applied = Arc::new(Applied::default());
        let wait = |revision| {
            let applied = applied.clone();
            tokio::spawn(async move { applied.wait_for(revision).await })
        };
        let (three, also_three, five, nine) = (wait(3), wait(3), wait(5), wait(9));
        tokio::time::sleep(Duration::from_secs(1)).await;
        applied.publish(4);
        assert_eq!((three.await.unwrap(), also_three.await.unwrap()), (Some(4), Some(4)));
        assert!(!five.is_finished());
        applied.publish(5);
        assert_eq!(five.await.unwrap(), Some(5));
        applied.close();
        assert_eq!(nine.await.unwrap(), None);
        assert_eq!((applied.wait_for(5).await, applied.wait_for(6).await), (Some(5), None));
        assert!(applied.state.lock().waiting.is_empty());
        let applied = Applied::default();
        let two = futures::future::join(applied.wait_for(8), applied.wait_for(8));
        assert!(tokio::time::timeout(Duration::from_secs(1), two).await.is_err());
        assert!(applied.state.lock().waiting.is_empty());
    }
}
