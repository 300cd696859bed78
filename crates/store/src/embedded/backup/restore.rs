//! Making a store of a backup.

use std::io::{self, Read};

use super::BackupError;
use super::read::{BackupSummary, Build, Decoder};
use crate::embedded::{Embedded, EmbeddedOptions, ImportError, ImportedState, OpenError};
use crate::engine::{Record, Revision};

/// How far a restored store is at least above every revision that is known of: more than any cluster writes between its
/// last backup and its loss (etcd's documentation of `--bump-revision` recommends the same).
const RAISE_MIN: u64 = 1_000_000_000;
/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// What to restore, and where to.
pub struct RestoreOptions {
    /// The new store: its directory must not hold one. Its clock and randomness are used, too.
    pub store: EmbeddedOptions,
    /// The revision whose state is wanted; none: the newest of the backup.
    pub revision: Option<Revision>,
    /// The highest revision that is known to have been handed out elsewhere (by the store that is replaced).
    pub known_revision: Revision,
}

/// A store that was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The backup.
    pub backup: BackupSummary,
    /// The revision of the backup whose state it is.
    pub revision: Revision,
    /// What that revision is called from now on.
    pub new_revision: Revision,
    /// Its keys.
    pub keys: u64,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not good.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The backup cannot be read.
    #[error("reading the backup: {0}")]
    Read(io::Error),
    /// A revision that it does not have.
    #[error("the backup has the revisions {oldest} to {newest}, not {wanted}")]
    Revision {
        /// What was asked for.
        wanted: Revision,
        /// The first it has.
        oldest: Revision,
        /// The last it has.
        newest: Revision,
    },
    /// The new store cannot be made.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// The revision at which a store goes on that takes the place of others: see `FORMAT.md`.
pub fn revision_after(known: Revision, now_ms: i64) -> Revision {
    let now = u64::try_from(now_ms).unwrap_or(0);
    now.max(known.saturating_add(RAISE_MIN))
}

/// Reads a backup to its end and makes a store of it, which is left closed. On an error the directory may hold the
/// beginning of one, which is no store yet: remove it.
///
/// # Errors
/// See [`RestoreError`].
pub async fn restore(backup: impl Read + Send + 'static, options: RestoreOptions) -> Result<Restored, RestoreError> {
    let wanted = options.revision;
    // Files block.
    let reading = tokio::task::spawn_blocking(move || read(backup, wanted));
    let panicked = |error: tokio::task::JoinError| ImportError::from(OpenError::Panicked(error.to_string()));
    let (backup, records) = reading.await.map_err(panicked)??;
    let revision = wanted.unwrap_or(backup.header.newest);
    let known = backup.header.newest.max(options.known_revision);
    let new_revision = revision_after(known, options.store.clock.now_ms());
    let state = ImportedState {
        revision,
        raise_by: new_revision - revision,
    };
    let keys = records.len() as u64;
    let new_revision = Embedded::import(options.store, state, records.into_iter().map(Ok)).await?;
    Ok(Restored {
        backup,
        revision,
        new_revision,
        keys,
    })
}

fn read(mut backup: impl Read, wanted: Option<Revision>) -> Result<(BackupSummary, Vec<Record>), RestoreError> {
    let mut build = Build::new(wanted.unwrap_or(Revision::MAX));
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match backup.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => decoder.push(&buffer[..read], &mut build)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(RestoreError::Read(error)),
        }
        if let (Some(header), Some(wanted)) = (decoder.header(), wanted)
            && !(header.oldest..=header.newest).contains(&wanted)
        {
            let (oldest, newest) = (header.oldest, header.newest);
            return Err(RestoreError::Revision { wanted, oldest, newest });
        }
    }
    let summary = decoder.finish()?;
    let records = build.finish().iter().map(|record| Record::clone(record)).collect();
    Ok((summary, records))
}
