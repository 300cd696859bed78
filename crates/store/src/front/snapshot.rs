//! `Snapshot`: a state as the database file of an etcd member, so that `etcdctl snapshot status` reads it and
//! `etcdctl snapshot restore` makes an etcd of it.
//!
//! The file has every key at its newest revision and no history, as after a compaction at that revision.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rpc::etcd::mvccpb::KeyValue;

use super::bolt::{Bucket, Database, Entry};
use super::convert::HIDDEN;
use super::{Root, Shared};
use crate::engine::{Record, Revision};

/// The database of a state, to be sent.
pub(super) fn file(shared: &Arc<Shared>, revision: Revision, root: &Root) -> Database {
    let mut records: Vec<Arc<Record>> = root
        .iter()
        .filter(|record| !record.key.starts_with(HIDDEN))
        .cloned()
        .collect();
    records.sort_by_key(|record| record.mod_revision);
    let mut keys: Vec<Box<dyn Entry>> = Vec::with_capacity(records.len());
    let (mut last, mut sub) = (0, 0);
    for record in records {
        sub = if record.mod_revision == last { sub + 1 } else { 0 };
        last = record.mod_revision;
        keys.push(Box::new(Written {
            shared: shared.clone(),
            revision: revision_bytes(record.mod_revision, sub),
            record,
        }));
    }
    let leases = shared.leases.all().into_iter().map(|(id, ttl)| -> Box<dyn Entry> {
        // leasepb.Lease: ID (1) and TTL (2), both int64.
        let mut value = Vec::new();
        prost::encoding::int64::encode(1, &id, &mut value);
        prost::encoding::int64::encode(2, &ttl, &mut value);
        Box::new((id.to_be_bytes().to_vec(), value))
    });
    let compacted = revision_bytes(revision, 0).to_vec();
    let meta: Vec<Box<dyn Entry>> = vec![
        Box::new((b"consistent_index".to_vec(), 1_u64.to_be_bytes().to_vec())),
        Box::new((b"finishedCompactRev".to_vec(), compacted.clone())),
        Box::new((b"scheduledCompactRev".to_vec(), compacted)),
    ];
    let empty = [
        "alarm",
        "auth",
        "authRoles",
        "authUsers",
        "cluster",
        "members",
        "members_removed",
    ];
    let mut buckets: Vec<Bucket> = empty.map(|name| Bucket::new(name, Vec::new())).into();
    buckets.push(Bucket::new("key", keys));
    buckets.push(Bucket::new("lease", leases.collect()));
    buckets.push(Bucket::new("meta", meta));
    Database::new(buckets)
}

/// A revision as etcd's keys have it: the revision, an underscore, and the place within the revision.
fn revision_bytes(revision: Revision, sub: u64) -> [u8; 17] {
    let mut bytes = [b'_'; 17];
    bytes[..8].copy_from_slice(&revision.to_be_bytes());
    bytes[9..].copy_from_slice(&sub.to_be_bytes());
    bytes
}

/// A key of people's, encoded when its page is made.
struct Written {
    shared: Arc<Shared>,
    revision: [u8; 17],
    record: Arc<Record>,
}

impl Written {
    fn key_value(&self) -> KeyValue {
        self.shared.key_value(&self.record)
    }
}

impl Entry for Written {
    fn key(&self) -> &[u8] {
        &self.revision
    }

    fn value_bytes(&self) -> usize {
        self.key_value().encoded_len()
    }

    fn value(&self) -> Bytes {
        self.key_value().encode_to_vec().into()
    }
}
