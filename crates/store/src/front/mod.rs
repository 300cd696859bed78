//! etcd's API, version 3, in front of the embedded engine: for `etcdctl`, and for programs that want an etcd.
//!
//! Requests are evaluated here, on a snapshot of the engine's state, and become guarded transactions of the engine; a
//! transaction that lost a race is evaluated again. Invariants:
//! - what is answered is durable, and linearizable: a snapshot is taken after the request came, a commit is guarded by
//!   everything that was read to decide it;
//! - a transaction that reads ranges and writes has the front to itself while it is decided, because no guard covers the
//!   keys that are not there; the engine's other users only write where the front must not ([`FrontOptions::read_only`]);
//! - a write that was begun is finished, whether its client waits or not.
//!
//! What is different from etcd: an engine's history is forgotten by age and size, too, not only by `Compact`; granting
//! and revoking a lease takes a revision; a hash can be compared only with another front's; there is one member.

mod auth;
mod bolt;
mod convert;
mod errors;
mod evaluate;
mod grpc;
mod kv;
mod leases;
mod maintenance;
mod output;
mod puts;
mod range;
mod serve;
mod snapshot;
mod streams;
mod telling;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Clock, Random};
use bytes::Bytes;
use rpc::etcd::etcdserverpb as pb;
use tokio::sync::RwLock;
use tonic::Status;

use crate::embedded::Embedded;
use crate::engine::{Engine as _, EngineError, Record, Revision};
use crate::map::Map;
use leases::Leases;

/// The largest request that is taken: the largest transaction, and its framing. An answer may be a whole range, as in etcd.
const REQUEST_BYTES_MAX: usize = 2 * crate::transaction::TRANSACTION_BYTES_MAX;

/// Whether a key is a front's own, which nobody else sees.
pub(crate) fn is_hidden(key: &[u8]) -> bool {
    key.starts_with(convert::HIDDEN)
}

/// The state that requests are evaluated on.
type Root = Map<Arc<Record>>;

/// What a front is told.
#[derive(Clone, Debug)]
pub struct FrontOptions {
    /// Keys under these prefixes are somebody else's: they can be read and watched only.
    pub read_only: Vec<Bytes>,
    /// The URLs under which clients reach it, for `member list`.
    pub advertised: Vec<String>,
    /// Wall time.
    pub clock: Clock,
    /// Ids of leases.
    pub random: Random,
}

/// etcd's services over an engine. Cheap to clone; all clones are the same front.
#[derive(Clone)]
pub struct Front {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Embedded>,
    options: FrontOptions,
    leases: Leases,
    telling: telling::Telling,
    /// Held for reading by transactions that guards protect, for writing by those that they cannot.
    order: Arc<RwLock<()>>,
    /// The revision of the last `Compact`.
    compacted: AtomicU64,
    cluster_id: u64,
    member_id: u64,
}

impl Front {
    /// A front over an engine. Leases that the engine holds begin anew, as in an etcd with a new leader.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub fn new(engine: Arc<Embedded>, options: FrontOptions) -> Result<Self, EngineError> {
        let (_, root) = engine.view(None)?;
        let id = engine.store_id();
        let half = |from: usize| {
            id[from..from + 8]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let shared = Arc::new(Shared {
            leases: Leases::load(&root, &options.read_only),
            telling: telling::Telling::default(),
            cluster_id: half(0),
            member_id: half(8),
            order: Arc::default(),
            compacted: AtomicU64::new(0),
            engine,
            options,
        });
        leases::start(&shared);
        Ok(Self { shared })
    }
}

impl Shared {
    /// The newest durable state.
    fn newest(&self) -> Result<(Revision, Root), Status> {
        self.engine.view(None).map_err(|error| errors::engine(&error))
    }

    fn header(&self, revision: Revision) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision: convert::signed(revision),
            // There is one member and it never loses an election.
            raft_term: 1,
        })
    }

    fn is_read_only(&self, key: &[u8]) -> bool {
        self.options.read_only.iter().any(|prefix| key.starts_with(prefix))
    }

    /// etcd's `Compact`.
    async fn compact(&self, revision: i64) -> Result<Revision, Status> {
        let progress = self.engine.progress().await.map_err(|error| errors::engine(&error))?;
        let wanted = u64::try_from(revision).unwrap_or(0);
        if wanted <= self.compacted.load(Ordering::Acquire) {
            return Err(errors::compacted());
        }
        if wanted > progress.revision {
            return Err(errors::future_revision());
        }
        // A compacted state can be read, and watches may begin with its changes: the engine, whose oldest revision is a
        // state without the changes that led to it, keeps one more. What is forgotten already needs no work, but its asker
        // is right to ask.
        let kept = wanted - 1;
        if kept > progress.oldest {
            let compacted = self.engine.compact(kept).await;
            compacted.map_err(|error| errors::engine(&error))?;
        }
        self.compacted.fetch_max(wanted, Ordering::AcqRel);
        Ok(progress.revision)
    }
}
