//! What backup, migration and `history` read of any engine: a whole state at one revision, and the past of one key.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::engine::{Engine, EngineError, KeyRange, RangeAnswer, Record, Revision};

/// All records at one revision, in key order, read in parts. It stays readable however long that takes and whatever is
/// compacted meanwhile, unless the engine says otherwise by an error.
pub trait StateReader: Send {
    /// The revision that all records are of.
    fn revision(&self) -> Revision;
    /// The next records: at least one, and no more once they have `bytes_min` bytes. None left: empty.
    fn next(&mut self, bytes_min: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>, EngineError>>;
}

/// A state that was read at once.
pub(crate) struct WholeState {
    revision: Revision,
    records: VecDeque<Arc<Record>>,
}

impl From<RangeAnswer> for WholeState {
    fn from(answer: RangeAnswer) -> Self {
        Self {
            revision: answer.revision,
            records: answer.records.into(),
        }
    }
}

impl StateReader for WholeState {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn next(&mut self, bytes_min: usize) -> BoxFuture<'_, Result<Vec<Arc<Record>>, EngineError>> {
        let mut part = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_min.max(1)
            && let Some(record) = self.records.pop_front()
        {
            bytes += record.key.len() + record.value.len();
            part.push(record);
        }
        std::future::ready(Ok(part)).boxed()
    }
}

/// What an engine still knows of a key's past.
#[derive(Clone, Debug)]
pub struct KeyHistory {
    /// The oldest revision that the engine knows; what came before is forgotten.
    pub oldest: Revision,
    /// The revision up to which this is complete.
    pub newest: Revision,
    /// What the key had at `oldest`.
    pub at_oldest: Option<Arc<Record>>,
    /// Its changes since, oldest first.
    pub changes: Vec<KeyChange>,
}

/// One change of a key.
#[derive(Clone, Debug)]
pub struct KeyChange {
    /// The revision.
    pub revision: Revision,
    /// Wall time of the commit, in milliseconds since the epoch, as [`Committed::time_ms`](crate::Committed).
    pub time_ms: i64,
    /// What it has since; absent: deleted.
    pub after: Option<Arc<Record>>,
}

/// The history moves on while it is read; so often is begun again.
const HISTORY_ATTEMPTS_MAX: usize = 5;

/// The history of one key, as far back as an engine holds it. Reads the whole history: for people, not for programs.
///
/// # Errors
/// An engine that does not answer; `Compacted` when the history is forgotten faster than it can be read.
pub async fn key_history(engine: &dyn Engine, key: &Bytes) -> Result<KeyHistory, EngineError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match read_history(engine, key).await {
            Err(EngineError::Compacted { .. }) if attempt < HISTORY_ATTEMPTS_MAX => {}
            result => return result,
        }
    }
}

async fn read_history(engine: &dyn Engine, key: &Bytes) -> Result<KeyHistory, EngineError> {
    let progress = engine.progress().await?;
    let only = KeyRange {
        lower: Bound::Included(key.clone()),
        upper: Bound::Included(key.clone()),
    };
    let at_oldest = engine.range(only, Some(progress.oldest)).await?.records.pop();
    let mut changes = Vec::new();
    let mut newest = progress.oldest;
    let mut stream = engine.stream(progress.oldest).await?;
    while newest < progress.revision {
        let batch = stream.next().await?;
        newest = newest.max(batch.progress);
        for commit in batch.commits {
            newest = newest.max(commit.revision);
            let of_key = commit.changes.iter().filter(|change| change.key == *key);
            changes.extend(of_key.map(|change| KeyChange {
                revision: commit.revision,
                time_ms: commit.time_ms,
                after: change.after.clone(),
            }));
        }
    }
    Ok(KeyHistory {
        oldest: progress.oldest,
        newest,
        at_oldest,
        changes,
    })
}
