//! The engine over an etcd, version 3: for several API servers on one store that others run.
//!
//! Every transaction of the trait is one transaction of etcd; etcd's revisions (plus an offset, see [`lineage`]) are the
//! engine's; one watch of the whole prefix is the stream. Invariants:
//! - an answer is by quorum, or it says nothing newer than what the watch delivered;
//! - [`Engine::progress`] answers a revision that the stream then reaches: by itself when the revision was ours, else by a
//!   progress request where the member's version makes that safe, else by a write of the engine's own (a *fence*);
//! - a request whose fate is not known is sent again only when it can happen at most once.
//!
//! `docs/etcd.md` says how to run with it and what is guaranteed.

mod commit;
mod compaction;
mod errors;
mod keys;
mod lease;
mod lineage;
mod members;
mod migration;
mod question;
mod stream;
mod value;
mod version;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use base::Clock;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, watch};

use crate::engine::{CommittedStream, Engine, EngineError, KeyRange, Progress, RangeAnswer, Revision};
use crate::transaction::{Commit, CommitError, Transaction};
use errors::{Cause, Failure};
use keys::Keys;
use lease::Leases;
use lineage::{Era, Lineage};
use members::Members;
pub use members::{Credentials, TlsFiles};
pub use migration::{Begun, ToEtcd};
use question::Quorum;

/// Transactions under way in one server. etcd itself takes some thousands before it answers "too many requests".
const COMMITS_MAX: usize = 1024;

/// How to reach an etcd, and what part of it is ours.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The members (`--etcd-servers`): `https://host:2379`, `http://...`, or `host:2379` for plain HTTP.
    pub endpoints: Vec<String>,
    /// What all keys in etcd begin with (`--etcd-prefix`).
    pub prefix: String,
    /// What the engine's keys begin with in its place; others are refused.
    pub root: String,
    /// For https members.
    pub tls: TlsFiles,
    /// For an etcd with authentication.
    pub credentials: Option<Credentials>,
    /// How much history is kept, and how often somebody forgets what is older (`--etcd-compaction-interval`); none: left to
    /// etcd.
    pub compaction_interval: Option<Duration>,
    /// Wall time of events and expiry.
    pub clock: Clock,
}

impl EtcdOptions {
    /// Upstream's defaults: `/registry`, a compaction each five minutes.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/registry".into(),
            root: "/registry".into(),
            tls: TlsFiles::default(),
            credentials: None,
            compaction_interval: Some(Duration::from_secs(5 * 60)),
            clock: Clock::real(),
        }
    }
}

/// Why an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenEtcdError {
    /// No member was named.
    #[error("no etcd member is named")]
    NoEndpoint,
    /// An address that is none.
    #[error("{0} is not an address of an etcd member: {1}")]
    Endpoint(String, String),
    /// No member answered as it should.
    #[error("etcd does not answer: {0}")]
    Unavailable(String),
    /// A migration into it was begun: not everything is there.
    #[error("a migration into this etcd was begun and is not finished")]
    Unfinished,
}

/// The engine over an etcd.
pub struct Etcd {
    shared: Arc<Shared>,
    compaction: Option<tokio::task::AbortHandle>,
}

/// What commits, questions and streams share.
struct Shared {
    members: Arc<Members>,
    keys: Keys,
    lineage: Lineage,
    leases: Leases,
    quorum: Quorum,
    commits: Arc<Semaphore>,
    /// etcd's revision that streams are to reach, as answered to somebody.
    demand: watch::Sender<Revision>,
    /// etcd's revision of our newest write: streams reach it by themselves, or their member is silent.
    written: watch::Sender<Revision>,
    /// etcd's revision of the newest compaction that is known.
    compacted: AtomicU64,
    fencing: tokio::sync::Mutex<()>,
    closed: watch::Sender<bool>,
    clock: Clock,
}

impl Etcd {
    /// Connects and reads how far etcd is. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Addresses that are none; members that do not answer, or refuse the user or the certificate; an etcd that holds a part
    /// of a state only.
    pub async fn open(options: EtcdOptions) -> Result<Self, OpenEtcdError> {
        let interval = options.compaction_interval;
        let shared = Shared::connect(options).await?;
        if migration::is_under_way(&shared).await.map_err(OpenEtcdError::of)? {
            return Err(OpenEtcdError::Unfinished);
        }
        let compaction = interval.map(|interval| {
            let task = compaction::run(Arc::downgrade(&shared), interval);
            tokio::spawn(task).abort_handle()
        });
        Ok(Self { shared, compaction })
    }

    /// Takes no more transactions and ends the streams. What was submitted may still happen.
    pub fn close(&self) {
        self.shared.closed.send_replace(true);
        if let Some(compaction) = &self.compaction {
            compaction.abort();
        }
    }

    /// What this engine's revisions are above etcd's.
    pub fn revision_offset(&self) -> u64 {
        self.shared.lineage.now().offset
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.close();
    }
}

impl Engine for Etcd {
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, CommitError>> {
        commit::submit(&self.shared, transaction)
    }

    fn range(
        &self,
        range: KeyRange,
        revision: Option<Revision>,
    ) -> BoxFuture<'static, Result<RangeAnswer, EngineError>> {
        let shared = self.shared.clone();
        async move { shared.range(range, revision).await }.boxed()
    }

    fn stream(&self, after: Revision) -> BoxFuture<'static, Result<Box<dyn CommittedStream>, EngineError>> {
        stream::open(self.shared.clone(), after).boxed()
    }

    fn progress(&self) -> BoxFuture<'static, Result<Progress, EngineError>> {
        let shared = self.shared.clone();
        async move { shared.progress().await }.boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'static, Result<(), EngineError>> {
        let shared = self.shared.clone();
        async move { shared.compact(revision).await }.boxed()
    }

    fn has_other_writers(&self) -> bool {
        true
    }
}

impl OpenEtcdError {
    fn of(failure: Failure) -> Self {
        Self::Unavailable(failure.to_string())
    }
}

impl Shared {
    async fn connect(options: EtcdOptions) -> Result<Arc<Self>, OpenEtcdError> {
        let keys = Keys::new(&options.root, &options.prefix);
        let members = Members::new(&options.endpoints, &options.tls, options.credentials, keys.nothing())?;
        let found = question::offset(&members, &keys).await;
        let (cluster, revision, offset) = found.map_err(OpenEtcdError::of)?.into();
        let shared = Arc::new(Self {
            members,
            lineage: Lineage::new(cluster, offset, revision),
            keys,
            leases: Leases::default(),
            quorum: Quorum::default(),
            commits: Arc::new(Semaphore::new(COMMITS_MAX)),
            demand: watch::Sender::new(0),
            written: watch::Sender::new(0),
            compacted: AtomicU64::new(0),
            fencing: tokio::sync::Mutex::default(),
            closed: watch::Sender::new(false),
            clock: options.clock,
        });
        let oldest = shared.find_compacted().await;
        oldest.map_err(|error| OpenEtcdError::Unavailable(error.to_string()))?;
        Ok(shared)
    }

    fn open(&self) -> Result<(), EngineError> {
        match *self.closed.borrow() {
            true => Err(EngineError::Closed),
            false => Ok(()),
        }
    }

    /// Has streams reach etcd's revision `revision`.
    fn demand(&self, revision: Revision) {
        raise(&self.demand, revision);
    }

    /// Has streams look that a write of ours comes.
    fn expect(&self, revision: Revision) {
        raise(&self.written, revision);
    }

    /// Begins a new era when etcd's history is another one than that of `era`.
    async fn replaced(&self, era: Era) -> Result<(), Failure> {
        let _one = self.lineage.changing.lock().await;
        while self.lineage.now().number == era.number {
            let found = question::offset(&self.members, &self.keys).await?;
            if found.cluster == era.cluster && found.revision >= self.lineage.highest() {
                return Ok(());
            }
            let needed = self.lineage.needed(found.offset, found.revision);
            let revision = match needed > found.offset {
                false => found.revision,
                true => match commit::raise_offset(self, &found, needed).await? {
                    Some(revision) => revision,
                    // Another server was faster.
                    None => continue,
                },
            };
            self.enter(found.cluster, needed, revision);
        }
        Ok(())
    }

    /// Another server has raised the offset.
    fn adopt(&self, era: Era, offset: u64, revision: Revision) {
        if self.lineage.now().number == era.number && offset > era.offset {
            self.enter(era.cluster, offset, revision);
        }
    }

    fn enter(&self, cluster: u64, offset: u64, revision: Revision) {
        self.leases.clear();
        self.demand.send_replace(0);
        self.written.send_replace(0);
        self.compacted.store(revision, std::sync::atomic::Ordering::Relaxed);
        let era = self.lineage.begin(cluster, offset, revision);
        tracing::warn!(
            cluster,
            revision,
            offset,
            "etcd's history is another one; everything is read anew at revision {}",
            era.floor
        );
    }
}

fn raise(highest: &watch::Sender<Revision>, revision: Revision) {
    highest.send_if_modified(|highest| {
        let higher = revision > *highest;
        *highest = revision.max(*highest);
        higher
    });
}

impl Failure {
    /// What a question that failed so is answered.
    fn to_engine(&self) -> EngineError {
        match self.cause {
            Cause::Denied | Cause::TokenExpired => {
                EngineError::Unavailable(format!("etcd refuses this server: {self}").into())
            }
            _ => EngineError::Unavailable(format!("etcd: {self}").into()),
        }
    }
}
