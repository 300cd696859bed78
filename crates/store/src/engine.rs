//! What a store is, whoever implements it: commits, an ordered stream of what was committed, ranges at a revision.
//!
//! Contract of every engine:
//! - revisions only rise; each changing transaction has one of its own; nothing is visible before it is durable;
//! - a submitted transaction does not depend on the future that answers it;
//! - a stream delivers every committed revision after its start exactly once and in order, or ends with an error;
//! - `progress` in a stream's batch promises that everything up to it *was delivered*; it may come late or repeat an
//!   older value, never early, and in time it reaches every revision that [`Engine::progress`] has answered.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::map::Item;
use crate::state::{StateReader, WholeState};
use crate::transaction::{Commit, CommitError, Stamp, Transaction};

/// A point in the store's history. 0 is the empty store.
pub type Revision = u64;

/// A value under its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The value as it was handed in.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How often the key was written since it was created, 1 at first.
    pub version: u64,
    /// How the value was made.
    pub stamp: Stamp,
    /// When the store deletes it, in milliseconds since the epoch.
    pub expires_at_ms: Option<i64>,
}

impl Record {
    /// A record of revision 0 whose key and value share one allocation of just their size. What comes from elsewhere is often a
    /// part of something larger (a request, a block of a file) that it would keep in memory as long as itself.
    pub(crate) fn tight(key: &[u8], value: &[u8]) -> Self {
        let mut both = Vec::with_capacity(key.len() + value.len());
        both.extend_from_slice(key);
        both.extend_from_slice(value);
        let mut value = Bytes::from(both);
        Self {
            key: value.split_to(key.len()),
            value,
            create_revision: 0,
            mod_revision: 0,
            version: 0,
            stamp: Stamp::default(),
            expires_at_ms: None,
        }
    }
}

impl Item for Arc<Record> {
    type Key = [u8];
    fn key(&self) -> &[u8] {
        &self.key
    }
    fn bytes(key: &[u8]) -> &[u8] {
        key
    }
}

/// One committed revision.
#[derive(Debug)]
pub struct Committed {
    /// The revision.
    pub revision: Revision,
    /// Wall time of the commit, in milliseconds since the epoch.
    pub time_ms: i64,
    /// What it changed, in the transaction's order.
    pub changes: Vec<Change>,
}

/// One changed key.
#[derive(Clone, Debug)]
pub struct Change {
    /// The key.
    pub key: Bytes,
    /// What it had. Engines that do not know leave it out.
    pub before: Option<Arc<Record>>,
    /// What it has now; absent: deleted.
    pub after: Option<Arc<Record>>,
}

/// Keys from a bound to a bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub lower: Bound<Bytes>,
    /// The last key.
    pub upper: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self {
            lower: Bound::Unbounded,
            upper: Bound::Unbounded,
        }
    }

    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let upper = prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        Self {
            lower: Bound::Included(Bytes::copy_from_slice(prefix)),
            upper,
        }
    }

    /// Both bounds, borrowed.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (
            self.lower.as_ref().map(Bytes::as_ref),
            self.upper.as_ref().map(Bytes::as_ref),
        )
    }

    /// Whether a key lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        std::ops::RangeBounds::<[u8]>::contains(&self.bounds(), key)
    }
}

/// The first key after all that start with `prefix`; none when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end.into());
        }
    }
    None
}

/// The records of a range at a revision.
#[derive(Clone, Debug)]
pub struct RangeAnswer {
    /// The revision they are of.
    pub revision: Revision,
    /// In key order.
    pub records: Vec<Arc<Record>>,
}

/// How far an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The newest durable revision; nothing acknowledged before the question is newer.
    pub revision: Revision,
    /// The oldest revision at which ranges can be read and after which streams can start.
    pub oldest: Revision,
}

/// Why a question to an engine has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The history before `oldest` is gone.
    #[error("the revision is compacted; the oldest is {oldest}")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision has not happened.
    #[error("the revision is in the future; the newest is {newest}")]
    Future {
        /// The newest revision.
        newest: Revision,
    },
    /// The engine cannot answer now.
    #[error("the store is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The engine was closed.
    #[error("the store is closed")]
    Closed,
}

/// A revisioned, durable, watchable key-value store.
pub trait Engine: Send + Sync + 'static {
    /// Submits a transaction *now*; the returned future only waits for its answer and may be dropped.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>>;
    /// The records of a range, at a revision or at the newest durable one.
    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>>;
    /// Everything committed after a revision.
    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>>;
    /// How far the engine is, linearizably.
    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>>;
    /// All records at a revision, or at the newest durable one, in parts: for backup and migration. By default they are
    /// read at once.
    fn state(&self, revision: Option<Revision>) -> BoxFuture<'static, Result<Box<dyn StateReader>, EngineError>> {
        let answer = self.range(KeyRange::all(), revision);
        let whole = async move {
            answer
                .await
                .map(|answer| Box::new(WholeState::from(answer)) as Box<dyn StateReader>)
        };
        whole.boxed()
    }
    /// Forgets the history before a revision.
    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>>;
    /// Whether others than this engine write to the store: then what a replica shows may be behind what they were
    /// answered, until [`Engine::progress`] is asked.
    fn has_other_writers(&self) -> bool {
        false
    }
}

/// Committed revisions in order.
pub trait CommittedStream: Send {
    /// Waits for more. Cancel-safe: a dropped future loses nothing.
    fn next(&mut self) -> BoxFuture<'_, Result<StreamBatch, EngineError>>;
}

/// What a stream delivers at once.
#[derive(Clone, Debug)]
pub struct StreamBatch {
    /// Revisions in order, possibly none.
    pub commits: Vec<Arc<Committed>>,
    /// Everything up to here was delivered, by this batch or earlier ones.
    pub progress: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_they_should() {
        for (prefix, end) in [
            (&b"/a/"[..], Some(&b"/a0"[..])),
            (b"a\xff", Some(b"b")),
            (b"\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(prefix_end(prefix).as_deref(), end, "{prefix:?}");
        }
        let range = KeyRange::prefix(b"/a/");
        assert!(
            range.contains(b"/a/") && range.contains(b"/a/zz") && !range.contains(b"/a") && !range.contains(b"/a0")
        );
        assert!(KeyRange::all().contains(b""));
    }
}
