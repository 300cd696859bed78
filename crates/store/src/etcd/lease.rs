//! Expiry through etcd's leases, few of them: keys that end at about the same time share one.
//!
//! A lease costs etcd memory and checkpoints, and Events alone would need thousands. As upstream's lease manager does, a
//! lease is shared for a twentieth of a key's life, a minute at most, and by at most a thousand keys. A key never ends
//! before its time and at most that share after it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Keys of one lease (upstream's `LeaseManagerConfig.MaxObjectCount`): its end is one transaction of etcd.
const KEYS_MAX: u32 = 1000;
/// The longest span of deadlines that share a lease (upstream's `LeaseManagerConfig.ReuseDurationSeconds`).
const SPAN_MAX_MS: i64 = 60_000;
/// The share of a key's life that it may live longer: one in so many.
const SPAN_SHARE: i64 = 20;
/// etcd counts leases in seconds.
const SPAN_MIN_MS: i64 = 1000;

/// The leases that can still take keys, by the time they end at.
#[derive(Default)]
pub(super) struct Leases(Mutex<BTreeMap<i64, Shared>>);

struct Shared {
    id: i64,
    keys: u32,
}

/// When the lease of a key that ends at `expires_at_ms` is to end.
pub(super) fn end_of(expires_at_ms: i64, now_ms: i64) -> i64 {
    let span = (expires_at_ms.saturating_sub(now_ms) / SPAN_SHARE).clamp(SPAN_MIN_MS, SPAN_MAX_MS);
    // Whole multiples, so that keys of one life meet in one lease.
    expires_at_ms
        .saturating_add(span - 1)
        .div_euclid(span)
        .saturating_mul(span)
}

/// Seconds from now to `end_ms`, one at least.
pub(super) fn seconds_until(end_ms: i64, now_ms: i64) -> i64 {
    let left = end_ms.saturating_sub(now_ms).max(0);
    (left / 1000 + i64::from(left % 1000 != 0)).max(1)
}

impl Leases {
    /// A lease with that end that takes one more key.
    pub(super) fn take(&self, end_ms: i64, now_ms: i64) -> Option<i64> {
        let mut leases = self.0.lock();
        // What has ended takes nothing any more.
        *leases = leases.split_off(&now_ms);
        let lease = leases.get_mut(&end_ms)?;
        if lease.keys >= KEYS_MAX {
            leases.remove(&end_ms);
            return None;
        }
        lease.keys += 1;
        Some(lease.id)
    }

    /// Notes a new lease with its first key.
    pub(super) fn add(&self, end_ms: i64, id: i64) {
        self.0.lock().insert(end_ms, Shared { id, keys: 1 });
    }

    /// Forgets leases that etcd does not know (any more).
    pub(super) fn forget(&self, ids: &[i64]) {
        self.0.lock().retain(|_, lease| !ids.contains(&lease.id));
    }

    /// Forgets all: they were of another cluster.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_share_ends() {
        let hour = 3_600_000;
        for (expires_at_ms, now_ms, end) in [
            (10_000, 0, 10_000),
            (10_001, 0, 11_000),
            (hour, 0, hour),
            (hour + 1, 1, hour + 60_000),
            (hour + 59_999, 59_999, hour + 60_000),
            (500, 1_000, 1_000),
            (i64::MAX, 0, i64::MAX / 60_000 * 60_000),
        ] {
            assert_eq!(end_of(expires_at_ms, now_ms), end, "{expires_at_ms} at {now_ms}");
        }
        for (end_ms, now_ms, seconds) in [(1000, 0, 1), (1001, 0, 2), (0, 5000, 1), (3_600_000, 600, 3600)] {
            assert_eq!(seconds_until(end_ms, now_ms), seconds);
        }
    }

    #[test]
    fn a_lease_takes_a_thousand_keys_until_it_ends() {
        let leases = Leases::default();
        assert_eq!(leases.take(5000, 0), None);
        leases.add(5000, 7);
        assert!((1..KEYS_MAX).all(|_| leases.take(5000, 0) == Some(7)));
        assert_eq!(leases.take(5000, 0), None);
        leases.add(5000, 8);
        leases.add(6000, 9);
        assert_eq!(leases.take(5000, 5001), None);
        assert_eq!(leases.take(6000, 5001), Some(9));
        leases.forget(&[9]);
        assert_eq!(leases.take(6000, 5001), None);
    }
}
