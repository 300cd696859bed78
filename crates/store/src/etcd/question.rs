//! Questions that change nothing: ranges, how far etcd is, how far back its history goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use parking_lot::Mutex;
use rpc::etcd::etcdserverpb::{CompactionRequest, RangeRequest};

use super::Shared;
use super::errors::{Cause, Failure};
use super::keys::{Keys, successor};
use super::members::{Members, kv};
use super::value::{record, signed, unsigned};
use crate::engine::{EngineError, KeyRange, Progress, RangeAnswer, Record, Revision};

/// Keys of the first page of a range, and of the largest one (upstream's `maxLimit`).
const PAGE_KEYS_FIRST: i64 = 500;
const PAGE_KEYS_MAX: i64 = 10_000;
/// Bytes of values that a page aims at: enough that round trips do not matter, little enough for a member to put together.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Revisions of history that a new replica replays at most. Compactions leave some minutes, but not every etcd is compacted.
const HISTORY_MAX: Revision = 10_000;
/// How long a member may take to say at what revision it was compacted.
const COMPACTED_MAX: Duration = Duration::from_secs(3);

/// etcd's revision, by quorum, asked once for all who wait at the same time.
#[derive(Default)]
pub(super) struct Quorum {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The next question, not asked yet: whoever comes now may share it.
    next: Arc<Mutex<Option<SharedFuture<BoxFuture<'static, Result<Revision, EngineError>>>>>>,
}

impl Quorum {
    fn ask(&self, shared: &Arc<Shared>) -> SharedFuture<BoxFuture<'static, Result<Revision, EngineError>>> {
        let mut next = self.next.lock();
        if let Some(question) = &*next {
            return question.clone();
        }
        let (turn, slot, shared) = (self.turn.clone(), self.next.clone(), shared.clone());
        let question = async move {
            let _one = turn.lock_owned().await;
            // From here on it may see too little for those who come.
            *slot.lock() = None;
            shared.newest().await
        };
        let question = question.boxed().shared();
        *next = Some(question.clone());
        question
    }
}

/// What etcd holds about the engine's revisions.
#[derive(Clone, Debug)]
pub(super) struct Offset {
    pub(super) cluster: u64,
    pub(super) revision: Revision,
    pub(super) offset: u64,
    /// The revision that wrote it; 0: nobody did.
    pub(super) written: Revision,
}

impl From<Offset> for (u64, Revision, u64) {
    fn from(found: Offset) -> Self {
        (found.cluster, found.revision, found.offset)
    }
}

/// Reads the offset, by quorum.
pub(super) async fn offset(members: &Members, keys: &Keys) -> Result<Offset, Failure> {
    let request = RangeRequest {
        key: keys.offset(),
        ..RangeRequest::default()
    };
    let answer = members.range(request).await?;
    let header = answer.header.unwrap_or_default();
    let found = answer.kvs.first();
    Ok(Offset {
        cluster: header.cluster_id,
        revision: unsigned(header.revision),
        offset: found.and_then(|found| parse_offset(&found.value)).unwrap_or(0),
        written: found.map_or(0, |found| unsigned(found.mod_revision)),
    })
}

/// The offset in its key's value: a decimal number.
pub(super) fn parse_offset(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl Shared {
    /// etcd's revision and the era it is of, plus its offset.
    async fn newest(&self) -> Result<Revision, EngineError> {
        loop {
            self.open()?;
            let (era, before) = (self.lineage.now(), self.lineage.highest());
            let request = RangeRequest {
                key: self.keys.nothing(),
                keys_only: true,
                ..RangeRequest::default()
            };
            let answer = self
                .members
                .range(request)
                .await
                .map_err(|failure| failure.to_engine())?;
            match self.lineage.judge(era, before, answer.header.as_ref()) {
                Ok(revision) => {
                    self.demand(revision);
                    return Ok(revision + era.offset);
                }
                Err(_) => self.replaced(era).await.map_err(|failure| failure.to_engine())?,
            }
        }
    }

    pub(super) async fn progress(self: &Arc<Self>) -> Result<Progress, EngineError> {
        self.open()?;
        let revision = self.quorum.ask(self).await?;
        Ok(Progress {
            revision,
            oldest: self.oldest().max(revision.saturating_sub(HISTORY_MAX)).min(revision),
        })
    }

    /// The oldest revision that can be read, as far as is known.
    pub(super) fn oldest(&self) -> Revision {
        let era = self.lineage.now();
        // An etcd is born at revision 1.
        era.floor
            .max(self.compacted.load(Ordering::Relaxed).max(1) + era.offset)
    }

    /// Notes a compaction.
    pub(super) fn note_compacted(&self, revision: Revision) {
        self.compacted.fetch_max(revision, Ordering::Relaxed);
    }

    /// Finds out how far back etcd's history goes: no question answers it, but a watch from too far back is told.
    pub(super) async fn find_compacted(self: &Arc<Self>) -> Result<Revision, EngineError> {
        let request = RangeRequest {
            key: self.keys.nothing(),
            revision: 1,
            ..RangeRequest::default()
        };
        match self.members.range(request).await {
            Ok(_) => {}
            Err(failure) if failure.cause == Cause::Compacted => {
                let found = tokio::time::timeout(COMPACTED_MAX, super::stream::compacted_revision(self)).await;
                let found = found.map_err(|_| unavailable("it does not tell how far back its history goes"))?;
                self.note_compacted(found.map_err(|failure| failure.to_engine())?);
            }
            Err(failure) => return Err(failure.to_engine()),
        }
        Ok(self.oldest())
    }

    pub(super) async fn range(
        self: &Arc<Self>,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> Result<RangeAnswer, EngineError> {
        self.open()?;
        let (era, before) = (self.lineage.now(), self.lineage.highest());
        let wanted = match revision {
            None => None,
            Some(revision) if revision < era.floor => return Err(EngineError::Compacted { oldest: era.floor }),
            Some(revision) => match revision.checked_sub(era.offset) {
                Some(wanted) if wanted > 0 => Some(wanted),
                // etcd's revision 0 means "newest"; the state before the first revision is that of the first.
                Some(_) => Some(1),
                None => return Err(EngineError::Compacted { oldest: era.offset + 1 }),
            },
        };
        let Some((mut start, end)) = self.keys.range(&range) else {
            let revision = match revision {
                Some(revision) => revision,
                None => self.progress().await?.revision,
            };
            return Ok(RangeAnswer {
                revision,
                records: Vec::new(),
            });
        };
        let mut records: Vec<Arc<Record>> = Vec::new();
        let (mut at, mut limit) = (wanted, PAGE_KEYS_FIRST);
        loop {
            let request = RangeRequest {
                key: start,
                range_end: end.clone(),
                revision: at.map_or(0, signed),
                limit,
                ..RangeRequest::default()
            };
            let answer = match self.members.range(request).await {
                Ok(answer) => answer,
                Err(failure) => return Err(self.refused_range(&failure).await),
            };
            let newest = match self.lineage.judge(era, before, answer.header.as_ref()) {
                Ok(newest) => newest,
                Err(_) => {
                    self.replaced(era).await.map_err(|failure| failure.to_engine())?;
                    return Err(unavailable("its history was replaced while it was read"));
                }
            };
            // All pages are of the first one's revision.
            let of = *at.get_or_insert(newest);
            let more = answer.more;
            let bytes: usize = answer.kvs.iter().map(|found| found.value.len()).sum();
            let last = answer.kvs.last().map(|found| found.key.clone());
            limit = next_limit(answer.kvs.len(), bytes);
            records.extend(
                answer
                    .kvs
                    .into_iter()
                    .filter_map(|found| record(&self.keys, era.offset, found)),
            );
            match (more, last) {
                (true, Some(last)) => start = successor(&last),
                _ => {
                    self.demand(if wanted.is_none() { of } else { 0 });
                    return Ok(RangeAnswer {
                        revision: revision.unwrap_or(of + era.offset),
                        records,
                    });
                }
            }
        }
    }

    async fn refused_range(self: &Arc<Self>, failure: &Failure) -> EngineError {
        match failure.cause {
            Cause::Compacted => match self.find_compacted().await {
                Ok(oldest) => EngineError::Compacted { oldest },
                Err(error) => error,
            },
            Cause::Future => EngineError::Future {
                newest: self.lineage.highest() + self.lineage.now().offset,
            },
            _ => failure.to_engine(),
        }
    }

    pub(super) async fn compact(self: &Arc<Self>, revision: Revision) -> Result<(), EngineError> {
        self.open()?;
        let era = self.lineage.now();
        let Some(wanted) = revision.checked_sub(era.offset).filter(|wanted| *wanted > 0) else {
            return Ok(());
        };
        let compacted = self.members.ask(|channel| {
            let request = self.members.request(CompactionRequest {
                revision: signed(wanted),
                physical: false,
            });
            async move { kv(channel).compact(request).await }
        });
        match compacted.await {
            Ok(_) => self.note_compacted(wanted),
            // Somebody was faster.
            Err(failure) if failure.cause == Cause::Compacted => self.note_compacted(wanted),
            Err(failure) if failure.cause == Cause::Future => {
                return Err(EngineError::Future {
                    newest: self.lineage.highest() + era.offset,
                });
            }
            Err(failure) => return Err(failure.to_engine()),
        }
        Ok(())
    }

    /// What a key has now, by quorum, with the revision it was read at.
    pub(super) async fn read(&self, key: Bytes, offset: u64) -> Result<Option<Arc<Record>>, Failure> {
        let request = RangeRequest {
            key,
            ..RangeRequest::default()
        };
        let answer = self.members.range(request).await?;
        Ok(answer
            .kvs
            .into_iter()
            .next()
            .and_then(|found| record(&self.keys, offset, found)))
    }
}

/// How many keys the next page asks for, so that its values come near to [`PAGE_BYTES`].
fn next_limit(keys: usize, bytes: usize) -> i64 {
    let each = (bytes / keys.max(1)).max(1);
    i64::try_from(PAGE_BYTES / each)
        .unwrap_or(PAGE_KEYS_MAX)
        .clamp(1, PAGE_KEYS_MAX)
}

pub(super) fn unavailable(why: &str) -> EngineError {
    EngineError::Unavailable(format!("etcd: {why}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_and_shrink_with_the_values() {
        for (keys, bytes, limit) in [
            (500, 500 * 1024, 4096),
            (500, 500, PAGE_KEYS_MAX),
            (0, 0, PAGE_KEYS_MAX),
            (500, 500 * PAGE_BYTES, 1),
            (1, 3 * PAGE_BYTES, 1),
        ] {
            assert_eq!(next_limit(keys, bytes), limit);
        }
    }
}
