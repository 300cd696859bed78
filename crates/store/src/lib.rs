//! etcd's role: a revisioned, durable, watchable key-value store. Keys and bytes only; nothing here knows an API type.
//!
//! Two halves:
//! - an [`Engine`] commits: [`Transaction`] in, [`Commit`] out, an ordered stream of what was committed. [`Embedded`] is
//!   the one inside the program: a checksummed log with group commit, snapshots, space reuse and expiry
//!   (`src/embedded/FORMAT.md` describes its files). [`Etcd`] is a client of an etcd cluster, for several API servers;
//! - a [`Replica`] above any engine is what the API server reads: one [`Table`] a resource, each a persistent ordered map
//!   from key to [`Entry`] with whatever value `V` the caller builds from the stored bytes, and a ring of recent
//!   [`Event`]s that [`Cursor`]s watch.
//!
//! How they are used:
//!
//! ```no_run
//! # use store::*;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = std::sync::Arc::new(Embedded::open(EmbeddedOptions::new("/var/lib/trireme/store")).await?);
//! let tables = ["/registry/pods/".into()];
//! // The value built for each record: here its length, in the API server an object's header.
//! struct Length(usize);
//! impl Value for Length {}
//! let build = |record: &Record| Length(record.value.len());
//! let replica = Replica::open(engine, base::Clock::real(), tables, build).await?;
//! let pods = replica.table(b"/registry/pods/").ok_or("no such table")?;
//! // Durable when it returns, and visible here.
//! let written = replica.commit(Transaction::create("/registry/pods/default/a", "{}")).await?;
//! assert_eq!(pods.get(b"/registry/pods/default/a").map(|entry| entry.mod_revision()), Some(written.revision));
//! // O(1), and it does not change any more.
//! let list = pods.snapshot();
//! let mut watch = pods.watch_from(list.revision(), Interest::All)?;
//! for event in watch.next().await?.events {
//!     println!("{} {:?}", event.revision, event.after.as_ref().map(|entry| entry.value.0));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Guarantees, checked by simulation over crashes of a disk that loses what was not synced (`tests/it`):
//! - nothing is acknowledged or visible before it is durable, and no acknowledged write is ever lost;
//! - when a commit returns, the replica that took it shows it; readers never go back;
//! - a watch delivers each matching event after its start once, in order, all events of a revision together, or says that
//!   it cannot ([`WatchError::Expired`], the API's 410).

mod embedded;
mod engine;
mod etcd;
mod front;
mod map;
mod migration;
mod mutation;
mod replica;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;

#[cfg(feature = "fuzzing")]
pub use embedded::fuzzing;
pub use embedded::{
    Backup, BackupCheck, BackupError, BackupHeader, BackupSummary, RestoreError, RestoreOptions, Restored, restore,
    revision_after,
};
pub use embedded::{Driver, Embedded, EmbeddedOptions, ImportError, ImportedState, OpenError, Tuning};
pub use engine::{
    Change, Committed, CommittedStream, Engine, EngineError, KeyRange, Progress, RangeAnswer, Record, Revision,
    StreamBatch, prefix_end,
};
pub use etcd::{Begun, Credentials, Etcd, EtcdOptions, OpenEtcdError, TlsFiles, ToEtcd};
pub use front::{Front, FrontOptions};
pub use map::{Item, Map};
pub use migration::{Contents, Digest, MigrateError, ToEmbedded, to_embedded};
pub use replica::{
    Cursor, Entry, Event, History, Interest, Replica, ReplicaError, ReplicaSnapshot, RingLimits, Snapshot, Table,
    Value, WatchBatch, WatchError, Watches, Written, WrittenEntry,
};
pub use state::{KeyChange, KeyHistory, StateReader, key_history};
pub use transaction::{
    Commit, CommitError, GUARDS_MAX, Guard, KEY_BYTES_MAX, OPERATIONS_MAX, Operation, Put, Stamp,
    TRANSACTION_BYTES_MAX, Transaction,
};
