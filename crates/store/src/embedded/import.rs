//! Making a store of a state that came from elsewhere: a backup, or another engine.
//!
//! Invariant: a directory is a store only when everything is in it. An import that was cut short leaves a directory that
//! cannot be opened, and that the next import may not be made into either; its owner removes it.

use std::io;
use std::sync::Arc;

use super::snapshot::SnapshotWriter;
use super::{Driver, EmbeddedOptions, OpenError, recovery};
use crate::engine::{Record, Revision};

/// What a state is, beside its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportedState {
    /// The revision that it is of, as its users saw it: with the offset of the store it came from.
    pub revision: Revision,
    /// What is added to it and to all revisions of its records, for good, so that nobody sees time run backwards: at least
    /// the newest revision that was ever handed out, minus `revision`. Where that is not known (the disk is gone), more
    /// than can have been written since: etcd's own advice for restores is a thousand million.
    pub raise_by: u64,
}

/// Why a state was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The directory has a store, or a part of one.
    #[error("{0} is not empty: a store is imported into a directory of its own")]
    NotEmpty(String),
    /// A record that cannot be of this state: out of order, twice, or newer than it.
    #[error("the record of {0:?} is out of order, there twice, or newer than the state it is said to be of")]
    Misplaced(String),
    /// Reading the records or writing the store.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store that was made cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A defect of this program.
    #[error("importing failed: {0}")]
    Panicked(String),
}

/// Runs an import on a thread that may block, when the driver has one.
pub(super) async fn import(
    options: EmbeddedOptions,
    state: ImportedState,
    records: impl Iterator<Item = io::Result<Record>> + Send + 'static,
) -> Result<Revision, ImportError> {
    match options.driver {
        Driver::Task | Driver::PausingTask => write(&options, state, records),
        Driver::Thread => {
            let importing = tokio::task::spawn_blocking(move || write(&options, state, records));
            importing
                .await
                .map_err(|error| ImportError::Panicked(error.to_string()))?
        }
    }
}

fn write(
    options: &EmbeddedOptions,
    state: ImportedState,
    records: impl Iterator<Item = io::Result<Record>>,
) -> Result<Revision, ImportError> {
    let (disk, directory) = (&options.disk, &options.directory);
    {
        let _lock = recovery::lock(options)?;
        let store_file = |name: &String| name != recovery::LOCK;
        if disk.list(directory)?.iter().any(store_file) {
            return Err(ImportError::NotEmpty(directory.display().to_string()));
        }
        let store = options.random.bytes();
        let mut writer = SnapshotWriter::begin(disk.clone(), directory.clone(), store, state.revision, 0)?;
        let mut last: Option<Arc<Record>> = None;
        let mut block = Vec::new();
        let mut bytes = 0;
        for record in records {
            let record = record?;
            let ascends = last.as_ref().is_none_or(|last| last.key < record.key);
            if !ascends || record.mod_revision > state.revision || record.create_revision > record.mod_revision {
                let key = String::from_utf8_lossy(&record.key).into_owned();
                return Err(ImportError::Misplaced(key));
            }
            bytes += record.key.len() + record.value.len();
            let record = Arc::new(record);
            last = Some(record.clone());
            block.push(record);
            if bytes >= options.tuning.snapshot_block_bytes {
                writer.append(&block, 0)?;
                block.clear();
                bytes = 0;
            }
        }
        if !block.is_empty() {
            writer.append(&block, 0)?;
        }
        writer.seal()?;
        writer.name()?;
    }
    // Opened once, it gets the log that belongs to it, with the offset in its header.
    let options = EmbeddedOptions {
        raise_revisions_by: state.raise_by,
        ..options.clone()
    };
    let recovered = recovery::recover(&options, recovery::LogFiles::MayBeMissing)?;
    Ok(recovered.memory.revision)
}
