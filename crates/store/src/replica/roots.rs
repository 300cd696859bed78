//! Roots of old revisions, kept so that a continue token reads on in the list it began.
//!
//! A kept root pins the entries that have changed since. Invariant: the kept ones are at most as many, as old, and pin at
//! most as many bytes as the ring's limits say; what is gone is rebuilt from the ring as long as that reaches back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, RingLimits};
use crate::engine::Revision;
use crate::map::Map;

pub(crate) struct Roots<V> {
    limits: RingLimits,
    /// Oldest kept first.
    kept: VecDeque<Kept<V>>,
}

struct Kept<V> {
    revision: Revision,
    map: Map<Arc<Entry<V>>>,
    kept_at_ms: i64,
    /// The ring's total when it was kept; what was added since is at most what this root pins.
    total_bytes: u64,
}

impl<V> Roots<V> {
    pub(crate) fn new(limits: RingLimits) -> Self {
        Self {
            limits,
            kept: VecDeque::new(),
        }
    }

    pub(crate) fn keep(&mut self, revision: Revision, map: Map<Arc<Entry<V>>>, now_ms: i64, total_bytes: u64) {
        if self.kept.iter().any(|kept| kept.revision == revision) {
            // Its age and what it pins count from the first time.
            return;
        }
        self.kept.push_back(Kept {
            revision,
            map,
            kept_at_ms: now_ms,
            total_bytes,
        });
        self.evict(now_ms, total_bytes);
    }

    pub(crate) fn evict(&mut self, now_ms: i64, total_bytes: u64) {
        let limits = self.limits;
        self.kept.retain(|kept| {
            let aged = kept.kept_at_ms < now_ms.saturating_sub(limits.window_ms);
            !aged && total_bytes.saturating_sub(kept.total_bytes) <= limits.bytes_max as u64
        });
        while self.kept.len() > limits.roots_max {
            self.kept.pop_front();
        }
    }

    /// The kept root of the lowest revision that is not below `revision`.
    pub(crate) fn at_or_after(&self, revision: Revision) -> Option<(Revision, Map<Arc<Entry<V>>>)> {
        let newer = self.kept.iter().filter(|kept| kept.revision >= revision);
        newer
            .min_by_key(|kept| kept.revision)
            .map(|kept| (kept.revision, kept.map.clone()))
    }

    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(roots_max: usize, bytes_max: usize) -> Roots<()> {
        Roots::new(RingLimits {
            roots_max,
            bytes_max,
            window_ms: 1000,
            ..RingLimits::default()
        })
    }

    #[test]
    fn bounded_by_number_age_and_bytes() {
        let mut roots = roots(2, 100);
        for revision in [5, 9, 7] {
            roots.keep(revision, Map::new(), 0, 10);
        }
        let found = |roots: &Roots<()>, revision| roots.at_or_after(revision).map(|found| found.0);
        assert_eq!(
            [found(&roots, 1), found(&roots, 8), found(&roots, 10)],
            [Some(7), Some(9), None]
        );
        roots.keep(11, Map::new(), 900, 60);
        // Asked for again, it does not become younger.
        roots.keep(11, Map::new(), 1900, 200);
        assert_eq!(found(&roots, 1), Some(7));
        roots.evict(900, 111);
        assert_eq!(found(&roots, 1), Some(11));
        roots.evict(1901, 111);
        assert!(roots.is_empty());
    }
}
