//! How long a container waits before it is started again.
//!
//! Source: `k8s.io/client-go/util/flowcontrol/backoff.go` as `kuberuntime_manager.go` (`doBackOff`) uses it: the first
//! restart is immediate, then 10 s, doubled up to 5 min, and forgotten after twice that time without a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::plan::Pause;

/// The first pause.
const INITIAL: Duration = Duration::from_secs(10);
/// The longest pause.
const MAX: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    since: Instant,
}

/// The back-offs of one pod's containers.
#[derive(Debug, Default)]
pub struct Backoffs {
    entries: BTreeMap<String, Entry>,
}

// === impl Backoffs ===

impl Backoffs {
    /// The pause of a container that failed at that moment; `None` when it may start at once.
    pub fn pause(&self, key: &str, failed: Instant) -> Option<Pause> {
        let entry = self
            .entries
            .get(key)
            .filter(|entry| failed.saturating_duration_since(entry.since) <= 2 * MAX)?;
        Some(Pause {
            until: failed + entry.delay,
            seconds: entry.delay.as_secs(),
        })
    }

    /// The container is tried again now: the next pause is longer.
    pub fn tried(&mut self, key: &str, now: Instant) {
        let old = self
            .entries
            .get(key)
            .filter(|entry| now.saturating_duration_since(entry.since) <= 2 * MAX);
        let delay = old.map_or(INITIAL, |entry| (entry.delay * 2).min(MAX));
        self.entries.insert(key.to_owned(), Entry { delay, since: now });
    }

    /// The container is another one now.
    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pauses_grow_and_are_forgotten() {
        let (mut backoffs, start) = (Backoffs::default(), Instant::now());
        assert_eq!(backoffs.pause("a", start), None);
        let mut now = start;
        for seconds in [10, 20, 40, 80, 160, 300, 300] {
            backoffs.tried("a", now);
            let pause = backoffs.pause("a", now).unwrap();
            assert_eq!(pause.seconds, seconds);
            now = pause.until;
        }
        assert_eq!(backoffs.pause("a", now + Duration::from_secs(601)), None);
        backoffs.tried("a", now + Duration::from_secs(1000));
        assert_eq!(
            backoffs.pause("a", now + Duration::from_secs(1000)).unwrap().seconds,
            10
        );
        backoffs.forget("a");
        assert_eq!(backoffs.pause("a", now + Duration::from_secs(1000)), None);
    }
}
