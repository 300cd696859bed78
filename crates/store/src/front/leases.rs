//! Leases: keys that go when their client does, and the service `Lease`.
//!
//! A lease is a hidden key of the engine, so that it survives a restart (its time then begins anew, as in an etcd with a
//! new leader); the lease of a key stands with the key. What is here in memory is derived from that: deadlines, and which
//! keys a lease has. Invariants: a key is listed under the lease of its newest record; the end of a lease and a write that
//! attaches to it exclude each other ([`super::Shared`]'s order).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use rpc::etcd::etcdserverpb::lease_server::Lease;
use rpc::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{HIDDEN, lease_in};
use super::{Front, Root, Shared, errors};
use crate::engine::{Engine as _, KeyRange, Revision};
use crate::transaction::{CommitError, Guard, Operation, Transaction};

/// The shortest and the longest time that a lease can have, in seconds (etcd: one and a half election timeouts, rounded up;
/// `MaxLeaseTTL`).
const TTL_SECONDS_MIN: i64 = 2;
const TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Keys that one transaction deletes when a lease ends.
const KEYS_AT_ONCE: usize = crate::transaction::OPERATIONS_MAX - 1;
/// The end of a lease that could not be written is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The leases of a front.
#[derive(Default)]
pub(super) struct Leases {
    state: Mutex<State>,
    /// Told when the earliest deadline may have changed.
    changed: Notify,
}

#[derive(Default)]
struct State {
    granted: HashMap<i64, Granted>,
    deadlines: BTreeSet<(Instant, i64)>,
    /// The lease of each key that has one, and the revision that says so.
    attached: BTreeMap<Bytes, (i64, Revision)>,
}

struct Granted {
    ttl_seconds: i64,
    deadline: Instant,
    keys: BTreeSet<Bytes>,
}

fn hidden_key(id: i64) -> Bytes {
    [HIDDEN, b"lease/", &id.to_be_bytes()].concat().into()
}

fn after(ttl_seconds: i64) -> Instant {
    Instant::now() + Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0))
}

impl Leases {
    /// The leases that a state holds.
    pub(super) fn load(root: &Root, read_only: &[Bytes]) -> Self {
        let leases = Self::default();
        {
            let mut state = leases.state.lock();
            let prefix = [HIDDEN, b"lease/"].concat();
            let hidden = KeyRange::prefix(&prefix);
            let (lower, upper) = hidden.bounds();
            for record in root.range(lower, upper) {
                let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).ok();
                if let (Some(id), Some(ttl)) = (number(&record.key[prefix.len()..]), number(&record.value)) {
                    state.grant(id, ttl);
                }
            }
            for record in root.range(Bound::Unbounded, Bound::Unbounded) {
                let lease = lease_in(record.stamp);
                let foreign = read_only.iter().any(|prefix| record.key.starts_with(prefix));
                if lease != 0 && !foreign {
                    state.attach(&record.key, lease, record.mod_revision);
                }
            }
        }
        leases
    }

    pub(super) fn exists(&self, id: i64) -> bool {
        self.state.lock().granted.contains_key(&id)
    }

    /// The ids with their times, for a snapshot.
    pub(super) fn all(&self) -> BTreeMap<i64, i64> {
        let state = self.state.lock();
        state
            .granted
            .iter()
            .map(|(id, granted)| (*id, granted.ttl_seconds))
            .collect()
    }

    /// Takes in committed puts: their revisions, keys and leases.
    pub(super) fn note_puts<'a>(&self, puts: impl Iterator<Item = (Revision, &'a Bytes, i64)>) {
        let mut state = self.state.lock();
        for (revision, key, lease) in puts {
            state.attach(key, lease, revision);
        }
    }

    /// Takes in what a committed transaction attached and detached.
    pub(super) fn note(&self, revision: Revision, operations: &[Operation]) {
        let mut state = self.state.lock();
        for operation in operations {
            match operation {
                Operation::Put(put) => state.attach(&put.key, lease_in(put.stamp), revision),
                Operation::Delete(key) => state.attach(key, 0, revision),
            }
        }
    }
}

impl State {
    fn grant(&mut self, id: i64, ttl_seconds: i64) {
        let deadline = after(ttl_seconds);
        self.deadlines.insert((deadline, id));
        let keys = BTreeSet::new();
        self.granted.insert(
            id,
            Granted {
                ttl_seconds,
                deadline,
                keys,
            },
        );
    }

    fn renew(&mut self, id: i64) -> Option<i64> {
        let granted = self.granted.get_mut(&id)?;
        self.deadlines.remove(&(granted.deadline, id));
        granted.deadline = after(granted.ttl_seconds);
        self.deadlines.insert((granted.deadline, id));
        Some(granted.ttl_seconds)
    }

    fn forget(&mut self, id: i64) {
        if let Some(granted) = self.granted.remove(&id) {
            self.deadlines.remove(&(granted.deadline, id));
        }
    }

    /// A key's newest record has this lease. Commits of a key may be noted in another order than they happened.
    fn attach(&mut self, key: &Bytes, lease: i64, revision: Revision) {
        let before = self.attached.get(key).copied();
        if before.is_some_and(|(_, known)| known > revision) {
            return;
        }
        if let Some((old, _)) = before
            && let Some(granted) = self.granted.get_mut(&old)
        {
            granted.keys.remove(key);
        }
        match self.granted.get_mut(&lease) {
            Some(granted) => {
                granted.keys.insert(key.clone());
                self.attached.insert(key.clone(), (lease, revision));
            }
            // A key without a lease is remembered only while an older word of it could still come: never for long, so
            // its place is taken by its next write.
            None => {
                self.attached.remove(key);
            }
        }
    }
}

/// Ends leases at their deadlines, for as long as the front is there.
pub(super) fn start(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    tokio::spawn(expire(weak));
}

async fn expire(shared: Weak<Shared>) {
    // A front that is gone is noticed at this pace at the latest; deadlines and grants wake earlier.
    const LOOK_EVERY: Duration = Duration::from_secs(60);
    while let Some(shared) = shared.upgrade() {
        let next = shared.leases.state.lock().deadlines.first().copied();
        let now = Instant::now();
        match next {
            Some((deadline, id)) if deadline <= now => {
                if let Err(status) = shared.clone().end_lease(id).await {
                    tracing::warn!(id, %status, "a lease that has expired could not be ended; trying again");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
            _ => {
                let wait = next.map_or(LOOK_EVERY, |(deadline, _)| (deadline - now).min(LOOK_EVERY));
                // Neither branch loses anything: what woke is looked at again.
                let _ = tokio::time::timeout(wait, shared.leases.changed.notified()).await;
            }
        }
    }
}

impl Shared {
    async fn grant(self: Arc<Self>, id: i64, ttl_seconds: i64) -> Result<(i64, Revision), Status> {
        loop {
            let id = match id {
                // etcd chooses positive ids.
                0 => (self.options.random.u64() >> 1).max(1).cast_signed(),
                id => id,
            };
            let key = hidden_key(id);
            let transaction = Transaction::create(key, Bytes::copy_from_slice(&ttl_seconds.to_be_bytes()));
            match self.engine.commit(transaction).await {
                Ok(commit) => {
                    self.leases.state.lock().grant(id, ttl_seconds);
                    self.leases.changed.notify_one();
                    return Ok((id, commit.revision));
                }
                Err(CommitError::GuardFailed { .. }) if id != 0 => return Err(errors::lease_exists()),
                Err(CommitError::GuardFailed { .. }) => {}
                Err(error) => return Err(errors::commit(&error)),
            }
        }
    }

    /// Deletes a lease and its keys.
    async fn end_lease(self: Arc<Self>, id: i64) -> Result<Revision, Status> {
        let _alone = self.order.write().await;
        let Some(keys) = self
            .leases
            .state
            .lock()
            .granted
            .get(&id)
            .map(|granted| granted.keys.clone())
        else {
            return Err(errors::lease_not_found());
        };
        let keys: Vec<Bytes> = keys.into_iter().collect();
        let mut rest = &keys[..];
        loop {
            let (now, later) = rest.split_at(rest.len().min(KEYS_AT_ONCE));
            let mut operations: Vec<Operation> = now.iter().cloned().map(Operation::Delete).collect();
            if later.is_empty() {
                operations.push(Operation::Delete(hidden_key(id)));
            }
            let guards: Vec<Guard> = Vec::new();
            let noted = operations.clone();
            let commit = self.engine.commit(Transaction { guards, operations }).await;
            let commit = commit.map_err(|error| errors::commit(&error))?;
            self.leases.note(commit.revision, &noted);
            if later.is_empty() {
                self.leases.state.lock().forget(id);
                return Ok(commit.revision);
            }
            rest = later;
        }
    }
}

#[tonic::async_trait]
impl Lease for Front {
    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        if request.ttl > TTL_SECONDS_MAX {
            return Err(errors::lease_ttl_too_large());
        }
        if self.shared.leases.exists(request.id) {
            return Err(errors::lease_exists());
        }
        let ttl = request.ttl.max(TTL_SECONDS_MIN);
        let work = tokio::spawn(self.shared.clone().grant(request.id, ttl));
        let (id, revision) = work.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(LeaseGrantResponse {
            header: self.shared.header(revision),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let work = tokio::spawn(self.shared.clone().end_lease(request.get_ref().id));
        let revision = work.await.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(LeaseRevokeResponse {
            header: self.shared.header(revision),
        }))
    }

    type LeaseKeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let shared = self.shared.clone();
        let answers = request.into_inner().map(move |request| {
            let id = request?.id;
            let renewed = shared.leases.state.lock().renew(id);
            let (revision, _) = shared.newest()?;
            Ok(LeaseKeepAliveResponse {
                header: shared.header(revision),
                id,
                // A lease that is not there has no time left, which is no error.
                ttl: renewed.unwrap_or(0),
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let (revision, _) = self.shared.newest()?;
        let mut response = LeaseTimeToLiveResponse {
            header: self.shared.header(revision),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some(granted) = self.shared.leases.state.lock().granted.get(&request.id) {
            let left = granted.deadline.saturating_duration_since(Instant::now());
            response.ttl = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            response.granted_ttl = granted.ttl_seconds;
            if request.keys {
                response.keys = granted.keys.iter().cloned().collect();
            }
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        let (revision, _) = self.shared.newest()?;
        // Those that end first come first, as in etcd.
        let state = self.shared.leases.state.lock();
        let leases = state.deadlines.iter().map(|(_, id)| LeaseStatus { id: *id }).collect();
        Ok(Response::new(LeaseLeasesResponse {
            header: self.shared.header(revision),
            leases,
        }))
    }
}
