//! Taking a backup of any engine.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::Clock;
use bytes::Bytes;

use super::format::{self, BackupHeader, End};
use crate::engine::{Committed, Engine, EngineError, Record};

/// Bytes of keys and values in a frame before it is packed: enough to pack well, little enough to hold in memory.
const FRAME_BYTES: usize = 256 * 1024;
/// Tries to read the state before its history is forgotten meanwhile.
const ATTEMPTS: u32 = 5;

/// A backup being sent: an iterator over its bytes. It shares the store's memory and holds nothing else up.
pub struct Backup {
    header: BackupHeader,
    records: std::iter::Peekable<std::vec::IntoIter<Arc<Record>>>,
    commits: std::iter::Peekable<std::vec::IntoIter<Arc<Committed>>>,
    seed: Option<u32>,
    end: End,
    ended: bool,
}

impl Backup {
    /// The state of an engine now, with its history.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub async fn take(engine: &dyn Engine, clock: &Clock) -> Result<Self, EngineError> {
        let mut attempt = 1;
        loop {
            match Self::try_take(engine, clock).await {
                Err(EngineError::Compacted { .. }) if attempt < ATTEMPTS => attempt += 1,
                taken => return taken,
            }
        }
    }

    async fn try_take(engine: &dyn Engine, clock: &Clock) -> Result<Self, EngineError> {
        let progress = engine.progress().await?;
        // The stream first: it keeps the history that it will deliver.
        let mut stream = engine.stream(progress.oldest).await?;
        let mut state = engine.state(Some(progress.oldest)).await?;
        let mut records = Vec::new();
        loop {
            let part = state.next(FRAME_BYTES).await?;
            if part.is_empty() {
                break;
            }
            records.extend(part);
        }
        let mut commits = Vec::new();
        let mut delivered = progress.oldest;
        while delivered < progress.revision {
            let batch = stream.next().await?;
            delivered = batch.progress;
            let wanted = |commit: &Arc<Committed>| commit.revision <= progress.revision;
            commits.extend(batch.commits.into_iter().filter(wanted));
        }
        let header = BackupHeader {
            oldest: progress.oldest,
            newest: progress.revision,
            taken_at_ms: clock.now_ms(),
        };
        let changed = commits.iter().flat_map(|commit| &commit.changes);
        let written = changed.filter_map(|change| change.after.as_ref());
        let stamps = records.iter().chain(written).map(|record| record.stamp.sealing_key);
        let end = End {
            keys: records.len() as u64,
            revisions: commits.len() as u64,
            sealing_keys: stamps.filter(|key| *key != 0).collect::<BTreeSet<_>>(),
        };
        Ok(Self {
            header,
            records: records.into_iter().peekable(),
            commits: commits.into_iter().peekable(),
            seed: None,
            end,
            ended: false,
        })
    }

    /// What it is of.
    pub fn header(&self) -> BackupHeader {
        self.header
    }
}

/// Takes items until a frame is full.
fn gather<T>(items: &mut std::iter::Peekable<std::vec::IntoIter<T>>, cost: impl Fn(&T) -> usize) -> Vec<T> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while let Some(item) = items.next_if(|item| bytes == 0 || bytes + cost(item) <= FRAME_BYTES) {
        bytes += cost(&item);
        taken.push(item);
    }
    taken
}

fn record_cost(record: &Arc<Record>) -> usize {
    // Framing included, so that something is always counted.
    64 + record.key.len() + record.value.len()
}

fn commit_cost(commit: &Arc<Committed>) -> usize {
    let change = |change: &crate::engine::Change| change.key.len() + change.after.as_ref().map_or(64, record_cost);
    64 + commit.changes.iter().map(change).sum::<usize>()
}

impl Iterator for Backup {
    type Item = std::io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(seed) = self.seed else {
            let (bytes, seed) = self.header.encode();
            self.seed = Some(seed);
            return Some(Ok(Bytes::copy_from_slice(&bytes)));
        };
        if self.ended {
            return None;
        }
        let records = gather(&mut self.records, record_cost);
        let frame = if !records.is_empty() {
            format::encode_blocks(&records, seed)
        } else {
            let commits = gather(&mut self.commits, commit_cost);
            if !commits.is_empty() {
                format::encode_revisions(&commits, seed)
            } else {
                self.ended = true;
                format::encode_end(&self.end, seed)
            }
        };
        match frame {
            Ok((bytes, seed)) => {
                self.seed = Some(seed);
                Some(Ok(bytes.into()))
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}
