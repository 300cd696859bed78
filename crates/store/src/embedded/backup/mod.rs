//! Backups: a store at a moment, with the history it still had, as one stream of bytes; and a store made of such a stream.
//!
//! Taking one holds nothing up: the state is an immutable snapshot that costs pointers. Invariants: a backup is consistent
//! at a revision and has everything acknowledged before it was asked for; every byte of it is under a checksum; whoever
//! writes it to a medium can check it on its way with [`BackupCheck`]; [`restore`] changes nothing before it has read the
//! whole backup and found it good.

mod format;
mod read;
mod restore;
mod write;

pub use format::BackupHeader;
pub use read::{BackupCheck, BackupSummary};
pub use restore::{RestoreError, RestoreOptions, Restored, restore, revision_after};
pub use write::Backup;

/// Why bytes are no backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// Another kind of file.
    #[error("this is not a backup of a store")]
    NotABackup,
    /// Another version of the format.
    #[error(
        "the backup has format version {0}, this program reads version 1: use the trireme that wrote it, or a newer one"
    )]
    Version(u32),
    /// Not what was written.
    #[error("the backup is damaged at byte {offset}")]
    Damaged {
        /// Where what is not right begins.
        offset: u64,
    },
    /// It has no end.
    #[error("the backup is cut off after {bytes} bytes")]
    Truncated {
        /// What is there.
        bytes: u64,
    },
}
