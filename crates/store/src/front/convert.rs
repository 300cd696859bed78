//! Between the engine's records and etcd's messages.

use std::ops::Bound;

use bytes::Bytes;
use rpc::etcd::mvccpb::{Event, KeyValue, event::EventType};

use super::Shared;
use crate::engine::{Change, KeyRange, Record, Revision};
use crate::transaction::Stamp;

/// Keys of the front's own, which nobody sees: they sort before all that people use.
pub(super) const HIDDEN: &[u8] = b"\0\0trireme/";

/// etcd's numbers are signed.
pub(super) fn signed(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Where the lease of a key stands: outside of the API server's prefixes a value's stamp has no other meaning.
pub(super) fn stamp_of(lease: i64) -> Stamp {
    let bits = lease.cast_unsigned();
    Stamp {
        sealing_key: (bits >> 32) as u32,
        schema_epoch: bits as u32,
    }
}

/// The lease in a stamp; 0: none.
pub(super) fn lease_in(stamp: Stamp) -> i64 {
    (u64::from(stamp.sealing_key) << 32 | u64::from(stamp.schema_epoch)).cast_signed()
}

impl Shared {
    /// A record as etcd tells it.
    pub(super) fn key_value(&self, record: &Record) -> KeyValue {
        KeyValue {
            key: record.key.clone(),
            create_revision: signed(record.create_revision),
            mod_revision: signed(record.mod_revision),
            version: signed(record.version),
            value: record.value.clone(),
            lease: if self.is_read_only(&record.key) {
                0
            } else {
                lease_in(record.stamp)
            },
        }
    }

    /// A change as etcd tells it.
    pub(super) fn event(&self, change: &Change, revision: Revision, with_previous: bool) -> Event {
        let kv = match &change.after {
            Some(after) => self.key_value(after),
            None => KeyValue {
                key: change.key.clone(),
                mod_revision: signed(revision),
                ..KeyValue::default()
            },
        };
        let word = if change.after.is_some() {
            EventType::Put
        } else {
            EventType::Delete
        };
        let previous = change.before.as_ref().filter(|_| with_previous);
        Event {
            r#type: word.into(),
            kv: Some(kv),
            prev_kv: previous.map(|before| self.key_value(before)),
        }
    }
}

/// The keys that a key and a range end name: one, all from the key on, or those between.
pub(super) fn range_of(key: &Bytes, range_end: &Bytes) -> KeyRange {
    let upper = match &range_end[..] {
        [] => Bound::Included(key.clone()),
        [0] => Bound::Unbounded,
        _ => Bound::Excluded(range_end.clone()),
    };
    KeyRange {
        lower: Bound::Included(key.clone()),
        upper,
    }
}

/// Whether a range end makes a range: a single key can be guarded, a range cannot.
pub(super) fn is_range(range_end: &Bytes) -> bool {
    !range_end.is_empty()
}

/// Whether a range is upside down: then it is empty, in etcd as here.
pub(super) fn is_empty(range: &KeyRange) -> bool {
    matches!((&range.lower, &range.upper), (Bound::Included(lower), Bound::Excluded(upper)) if lower >= upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_any_lease() {
        for lease in [0, 1, 7_587_850_000_000_000_001, i64::MAX, -1] {
            assert_eq!(lease_in(stamp_of(lease)), lease);
        }
    }

    #[test]
    fn ranges_are_as_etcd_reads_them() {
        for (key, end, inside, outside) in [
            ("a", "", "a", "b"),
            ("a", "\0", "zzz", "A"),
            ("a", "c", "b", "c"),
            ("\0", "\0", "a", ""),
        ] {
            let range = range_of(&key.into(), &end.into());
            assert!(
                range.contains(inside.as_bytes()) && !range.contains(outside.as_bytes()),
                "{key:?} {end:?}"
            );
        }
        assert!(is_empty(&range_of(&"b".into(), &"a".into())));
    }
}
