//! A state that is brought into an etcd from another store.
//!
//! etcd takes it in many transactions. A key of the engine's own says that this is under way, and while it does nobody
//! opens the etcd as a store. Every transaction is guarded by that key as this attempt wrote it: a copy of a request that
//! arrives late, or an attempt that was taken over by a later one, changes nothing any more. An attempt compares what is
//! there with what is to be there and writes the difference, so a later one goes on where an earlier one ended. The last
//! transaction raises the revision offset and says that all is done, both at once.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use rpc::etcd::etcdserverpb::{
    Compare, PutRequest, RangeRequest, TxnRequest, TxnResponse, request_op::Request as Change,
};

use super::commit::{mod_revision_is, operation};
use super::errors::{Cause, Failure};
use super::members::kv;
use super::question::{self, Offset};
use super::value::{signed, unsigned};
use super::{EtcdOptions, OpenEtcdError, Shared};
use crate::engine::{EngineError, KeyRange, Record, Revision};
use crate::migration::{Contents, Digest, MigrateError, is_same, pairs, text};
use crate::transaction::{Operation, Put, Transaction};

/// Operations of a transaction: etcd's default of `--max-txn-ops`.
const BATCH_OPERATIONS_MAX: usize = 128;
/// Bytes of a transaction, unless one record alone has more: below etcd's default of `--max-request-bytes`, 1.5 MiB.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Transactions under way: etcd makes them durable together.
const BATCHES_AT_ONCE: usize = 8;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marker {
    done: bool,
    /// The store that is moved.
    source: String,
    /// The source's revision.
    revision: Revision,
}

impl Marker {
    fn encode(&self) -> Bytes {
        let word = if self.done { "done" } else { "running" };
        format!("{word} {} {}", self.source, self.revision).into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(bytes).ok()?.split(' ');
        let marker = Self {
            done: match words.next()? {
                "done" => true,
                "running" => false,
                _ => return None,
            },
            source: words.next()?.to_owned(),
            revision: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(marker)
    }
}

/// The marker as it is found, and the revision that wrote it; 0: nobody did.
struct Found {
    marker: Option<Marker>,
    written: Revision,
}

async fn find(shared: &Shared) -> Result<Found, Failure> {
    let request = RangeRequest {
        key: shared.keys.migration(),
        ..RangeRequest::default()
    };
    let answer = shared.members.range(request).await?;
    let found = answer.kvs.first();
    Ok(Found {
        marker: found.and_then(|found| Marker::decode(&found.value)),
        written: found.map_or(0, |found| unsigned(found.mod_revision)),
    })
}

/// Whether a migration into this etcd is not finished. A marker that is not understood is one of a newer version.
pub(super) async fn is_under_way(shared: &Shared) -> Result<bool, Failure> {
    let found = find(shared).await?;
    Ok(found.written > 0 && !found.marker.is_some_and(|marker| marker.done))
}

/// How a migration begins.
pub enum Begun {
    /// Everything is to be done, or what an earlier attempt has left.
    Open(ToEtcd),
    /// This store was moved into this etcd before; the etcd's revision now.
    Done(Revision),
}

/// One attempt to bring a state into an etcd.
pub struct ToEtcd {
    shared: Arc<Shared>,
    contents: Contents,
    marker: Marker,
    /// The revision that wrote the marker, which guards everything.
    written: Revision,
    offset: Offset,
    /// What the copies' revisions have to be above.
    above: Revision,
}

impl ToEtcd {
    /// Claims an etcd that is empty below its prefix (unless `only_resume`), or that an earlier attempt with the same source
    /// has claimed. `source` is the id of the store that `contents` are of, `above` a revision above all that it handed out.
    ///
    /// # Errors
    /// See [`MigrateError`].
    pub async fn begin(
        target: EtcdOptions,
        source: [u8; 16],
        contents: Contents,
        above: Revision,
        only_resume: bool,
    ) -> Result<Begun, MigrateError> {
        let shared = Shared::connect(target).await?;
        let marker = Marker {
            done: false,
            source: source.iter().map(|byte| format!("{byte:02x}")).collect(),
            revision: contents.revision,
        };
        let found = find(&shared).await.map_err(unavailable)?;
        let resumed = match &found.marker {
            Some(before) if before.source == marker.source && before.done => {
                let newest = shared.progress().await?;
                return Ok(Begun::Done(newest.revision));
            }
            Some(before) if before.done => false,
            Some(before) if before.source == marker.source => true,
            None if found.written == 0 => false,
            _ => return Err(MigrateError::AnotherStore),
        };
        if only_resume && !resumed {
            return Err(MigrateError::NotThere);
        }
        let mut compare = vec![mod_revision_is(shared.keys.migration(), signed(found.written))];
        if !resumed {
            let nothing_in = |(key, range_end): (Bytes, Bytes)| Compare {
                range_end,
                ..mod_revision_is(key, 0)
            };
            compare.extend(shared.keys.callers().map(nothing_in));
        }
        let claimed = transact(&shared, compare, vec![put(shared.keys.migration(), marker.encode())]).await;
        let claimed = claimed.map_err(unavailable)?;
        let written = if claimed.succeeded {
            unsigned(claimed.header.unwrap_or_default().revision)
        } else {
            // Of two copies of the claim the first may be the one that succeeded. Nobody else has this source open.
            let now = find(&shared).await.map_err(unavailable)?;
            if now.written == found.written || now.marker.as_ref() != Some(&marker) {
                let there = shared.range(KeyRange::all(), None).await?.records;
                return Err(match there.first() {
                    Some(record) if now.written == found.written => MigrateError::NotEmpty(text(&record.key)),
                    _ => MigrateError::TakenOver,
                });
            }
            now.written
        };
        let offset = question::offset(&shared.members, &shared.keys).await;
        Ok(Begun::Open(Self {
            written,
            offset: offset.map_err(unavailable)?,
            shared,
            contents,
            marker,
            above,
        }))
    }

    /// Makes the etcd's keys those of the source; how many had to be written or deleted.
    ///
    /// # Errors
    /// See [`MigrateError`]. What was written stays and is taken up by the next attempt.
    pub async fn copy(&self) -> Result<usize, MigrateError> {
        let there = self.shared.range(KeyRange::all(), None).await?.records;
        let batches = batches(self.contents.records(), &there);
        let written = batches.iter().map(|batch| batch.operations.len()).sum();
        let sending = futures::stream::iter(batches).map(|batch| self.send(batch));
        sending
            .buffer_unordered(BATCHES_AT_ONCE)
            .try_collect::<()>()
            .await
            .map(|()| written)
    }

    /// Reads everything back and compares it.
    ///
    /// # Errors
    /// `Different`, or an etcd that does not answer.
    pub async fn verify(&self) -> Result<Digest, MigrateError> {
        let answer = self.shared.range(KeyRange::all(), None).await?;
        match self.contents.difference_of(&answer.records) {
            Some(key) => Err(MigrateError::Different(text(&key))),
            None => Ok(self.contents.digest()),
        }
    }

    /// Opens the etcd for servers; the revision at which it goes on.
    ///
    /// # Errors
    /// `TakenOver`, or an etcd that does not answer: then it may or may not be open, and the next attempt finds out.
    pub async fn finish(self) -> Result<Revision, MigrateError> {
        // The copies were written after the marker, so this puts all of them above.
        let offset = self.offset.offset.max(self.above.saturating_sub(self.written));
        let keys = &self.shared.keys;
        let compare = vec![
            mod_revision_is(keys.migration(), signed(self.written)),
            mod_revision_is(keys.offset(), signed(self.offset.written)),
        ];
        let done = Marker {
            done: true,
            ..self.marker
        };
        let success = vec![
            put(keys.offset(), offset.to_string().into()),
            put(keys.migration(), done.encode()),
        ];
        let finished = transact(&self.shared, compare, success).await.map_err(unavailable)?;
        let revision = unsigned(finished.header.unwrap_or_default().revision);
        match finished.succeeded {
            true => Ok(revision + offset),
            // The first of two copies may be the one that succeeded.
            false => match find(&self.shared).await.map_err(unavailable)?.marker {
                Some(marker) if marker == done => Ok(revision + offset),
                _ => Err(MigrateError::TakenOver),
            },
        }
    }

    /// Writes one batch. It may arrive twice: it says what is to be there.
    async fn send(&self, batch: Transaction) -> Result<(), MigrateError> {
        let mut leased_again = false;
        loop {
            let leases = self.shared.lease(&batch).await.map_err(unavailable)?;
            let request = self.shared.request(&batch, &leases, 0);
            let Some(mut request) = request else {
                return Err(EngineError::Unavailable("a key is outside of the store's root".into()).into());
            };
            let guard = mod_revision_is(self.shared.keys.migration(), signed(self.written));
            request.compare.push(guard);
            match transact(&self.shared, request.compare, request.success).await {
                Ok(answer) if answer.succeeded => return Ok(()),
                Ok(_) => return Err(MigrateError::TakenOver),
                Err(failure) if failure.cause == Cause::LeaseNotFound && !leased_again => {
                    leased_again = true;
                    self.shared.leases.forget(&leases);
                }
                Err(failure) => return Err(refused(&batch, failure)),
            }
        }
    }
}

/// What makes `there` the same as `wanted`, in transactions that an etcd takes.
fn batches(wanted: &[Arc<Record>], there: &[Arc<Record>]) -> Vec<Transaction> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Transaction::new(), 0);
    for pair in pairs(wanted, there) {
        let operation = match pair {
            (Some(wanted), Some(there)) if is_same(wanted, there) => continue,
            (Some(wanted), _) => Operation::Put(Put {
                key: wanted.key.clone(),
                value: wanted.value.clone(),
                expires_at_ms: wanted.expires_at_ms,
                stamp: wanted.stamp,
            }),
            (None, Some(surplus)) => Operation::Delete(surplus.key.clone()),
            (None, None) => continue,
        };
        let size = size(&operation);
        if batch.operations.len() >= BATCH_OPERATIONS_MAX || bytes + size > BATCH_BYTES_MAX {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.operations.push(operation);
    }
    batches.push(batch);
    batches.retain(|batch| !batch.operations.is_empty());
    batches
}

fn size(operation: &Operation) -> usize {
    match operation {
        Operation::Put(put) => put.key.len() + put.value.len(),
        Operation::Delete(key) => key.len(),
    }
}

/// For transactions that may happen twice.
async fn transact(
    shared: &Shared,
    compare: Vec<Compare>,
    success: Vec<rpc::etcd::etcdserverpb::RequestOp>,
) -> Result<TxnResponse, Failure> {
    let request = TxnRequest {
        compare,
        success,
        failure: Vec::new(),
    };
    let answer = shared.members.ask(|channel| {
        let request = shared.members.request(request.clone());
        async move { kv(channel).txn(request).await }
    });
    answer.await
}

fn put(key: Bytes, value: Bytes) -> rpc::etcd::etcdserverpb::RequestOp {
    operation(Change::RequestPut(PutRequest {
        key,
        value,
        ..PutRequest::default()
    }))
}

fn unavailable(failure: Failure) -> MigrateError {
    MigrateError::Etcd(OpenEtcdError::of(failure))
}

fn refused(batch: &Transaction, failure: Failure) -> MigrateError {
    match failure.cause {
        Cause::NoSpace => MigrateError::Full,
        Cause::TooLarge => {
            let largest = batch.operations.iter().max_by_key(|operation| size(operation));
            MigrateError::TooLarge {
                key: largest.map(|operation| text(operation.key())).unwrap_or_default(),
                bytes: largest.map_or(0, size),
            }
        }
        _ => unavailable(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Stamp;

    #[test]
    fn a_marker_is_read_back() {
        for done in [false, true] {
            let marker = Marker {
                done,
                source: "00ff".into(),
                revision: 7,
            };
            assert_eq!(Marker::decode(&marker.encode()), Some(marker));
        }
        for foreign in [
            "",
            "running",
            "done 00ff",
            "paused 00ff 7",
            "done 00ff x",
            "done 00ff 7 8",
            "\u{1}",
        ] {
            assert_eq!(Marker::decode(foreign.as_bytes()), None, "{foreign}");
        }
    }

    fn records(list: &[(&str, usize)]) -> Vec<Arc<Record>> {
        let record = |(key, bytes): &(&str, usize)| {
            Arc::new(Record {
                key: Bytes::copy_from_slice(key.as_bytes()),
                value: vec![0; *bytes].into(),
                create_revision: 1,
                mod_revision: 1,
                version: 1,
                stamp: Stamp::default(),
                expires_at_ms: None,
            })
        };
        list.iter().map(record).collect()
    }

    #[test]
    fn only_the_difference_is_written_in_pieces_that_etcd_takes() {
        let sizes = |wanted: &[_], there: &[_]| {
            let batches = batches(&records(wanted), &records(there));
            batches.iter().map(|batch| batch.operations.len()).collect::<Vec<_>>()
        };
        let large = BATCH_BYTES_MAX;
        assert_eq!(sizes(&[], &[]), [0; 0]);
        assert_eq!(sizes(&[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)]), [0; 0]);
        assert_eq!(sizes(&[("a", 1), ("b", 1)], &[("a", 2), ("c", 1)]), [3]);
        assert_eq!(sizes(&[("a", large), ("b", large), ("c", 1), ("d", 1)], &[]), [1, 1, 2]);
        let names: Vec<String> = (0..300).map(|index| format!("{index:03}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
        assert_eq!(sizes(&many, &[]), [128, 128, 44]);
        assert_eq!(sizes(&[], &many), [128, 128, 44]);
    }
}
