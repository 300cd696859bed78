//! When a pod's volumes are to be looked at again: a source changed, or a token grows old.

use base::Clock;
use jiff::Timestamp;
use tokio::sync::watch;

type Receivers = (watch::Receiver<u64>, watch::Receiver<Option<Timestamp>>);

/// The news of one pod.
pub struct Changes {
    /// Of the objects, and when something grows old.
    receivers: Option<Receivers>,
    /// The moment that was told already.
    told: Option<Timestamp>,
    clock: Clock,
}

// === impl Changes ===

impl Changes {
    pub(super) fn new(receivers: Option<Receivers>, clock: Clock) -> Changes {
        Changes {
            receivers,
            told: None,
            clock,
        }
    }

    /// Returns true when the volumes are to be prepared again, false when the pod is gone (or was never prepared).
    /// Changes from before the call count, several as one. Cancel-safe.
    pub async fn next(&mut self) -> bool {
        let Some((objects, refresh)) = &mut self.receivers else {
            return false;
        };
        loop {
            let due = refresh.borrow_and_update().filter(|due| self.told != Some(*due));
            let wait = async {
                match due {
                    Some(due) => self.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = objects.changed() => return changed.is_ok(),
                changed = refresh.changed() => if changed.is_err() {
                    return false;
                },
                () = wait => {
                    self.told = due;
                    return true;
                }
            }
        }
    }
}
