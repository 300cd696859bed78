//! The bridge from rows to the store: keys, builders of objects, reads from the replica, writes as transactions.
//!
//! The store knows bytes, the verbs know objects; only this file and `verbs/watch/mod.rs` know both.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use futures::future::BoxFuture;
use store::{
    CommitError, Cursor, Engine, Entry, Event, Guard, History, Interest, KeyRange, Operation, Put, Record, Replica,
    RingLimits, Snapshot, Stamp, Table, Transaction, Value as StoreValue, WatchError, Watches,
};

use api::codec::{json, protobuf};
use api::{GroupResource, Reason, Status, StatusCause, Value, meta};

use crate::cluster::{Change, Changes, Cluster, Object, to_stored};
use crate::metrics::{StoreLabels, shared};
use crate::registry::{Kind, Registry};
use crate::respond::view;
use crate::sealing::{Mark, Sealing};

/// Written once, with the time in milliseconds, when a store is new. Belongs to no kind.
const BORN_KEY: &str = "/trireme/born";

/// How long a read waits for a revision that the client saw elsewhere (upstream: `blockTimeout` of the watch cache).
const FRESH_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// How long a consistent read waits for a store that others write to: members of it may have to be given up first.
const CONSISTENT_WAIT: std::time::Duration = std::time::Duration::from_secs(15);

/// What the replica holds under a key.
#[derive(Debug)]
pub struct Stored {
    /// The object; `None` when the stored bytes are no object (one bad object never takes its neighbours down).
    pub object: Option<Arc<Object>>,
    trigger: Option<Box<str>>,
}

impl StoreValue for Stored {
    fn trigger(&self) -> Option<&str> {
        self.trigger.as_deref()
    }
}

/// Kinds by the prefix of their keys, for building objects.
#[derive(Default)]
struct Kinds(Vec<(Bytes, Arc<Kind>)>);

impl Kinds {
    fn of(registry: &Registry) -> Kinds {
        let mut kinds: Vec<_> = registry
            .kinds()
            .map(|kind| (table_prefix(kind), kind.clone()))
            .collect();
        kinds.sort_by(|a, b| a.0.cmp(&b.0));
        Kinds(kinds)
    }

    /// The same with some more, or as they are now.
    fn with<'k>(&self, more: impl IntoIterator<Item = &'k Arc<Kind>>) -> Kinds {
        let mut kinds = self.0.clone();
        for kind in more {
            let prefix = table_prefix(kind);
            match kinds.binary_search_by(|(known, _)| known.cmp(&prefix)) {
                Ok(at) => kinds[at].1 = kind.clone(),
                Err(at) => kinds.insert(at, (prefix, kind.clone())),
            }
        }
        Kinds(kinds)
    }

    fn without(&self, prefix: &Bytes) -> Kinds {
        let others = self.0.iter().filter(|(known, _)| known != prefix);
        Kinds(others.cloned().collect())
    }

    fn find(&self, key: &[u8]) -> Option<&Arc<Kind>> {
        let after = self.0.partition_point(|(prefix, _)| &**prefix <= key);
        let (prefix, kind) = self.0.get(after.checked_sub(1)?)?;
        key.starts_with(prefix).then_some(kind)
    }
}

fn table_prefix(kind: &Kind) -> Bytes {
    Bytes::from(kind.prefix(""))
}

/// The store as the API server sees it.
pub struct Storage {
    replica: Replica<Stored>,
    kinds: Arc<ArcSwap<Kinds>>,
    tables: ArcSwap<HashMap<Arc<GroupResource>, Table<Stored>>>,
    sealing: Arc<Sealing>,
}

/// A write that happened.
#[derive(Debug)]
pub struct Committed {
    /// Its revision.
    pub revision: u64,
    /// What the first operation wrote.
    pub object: Option<Arc<Object>>,
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// Somebody was faster; the write has to be redone on what is there now.
    Raced,
    /// The store takes nothing that large: something smaller may do.
    TooLarge(Status),
    /// It failed for good.
    Failed(Status),
}

impl Storage {
    /// Opens the replica over an engine with a table for each kind.
    pub async fn open(
        engine: Arc<dyn Engine>,
        clock: base::Clock,
        history: RingLimits,
        sealing: Arc<Sealing>,
        registry: &Registry,
    ) -> Result<Storage, store::ReplicaError> {
        let kinds = Arc::new(ArcSwap::from_pointee(Kinds::of(registry)));
        let prefixes: Vec<Bytes> = registry.kinds().map(|kind| table_prefix(kind)).collect();
        let by_prefix = kinds.clone();
        let opener = sealing.clone();
        let build = move |record: &Record| build(&by_prefix.load(), &opener, record);
        let replica = Replica::open_with(engine, clock, history, prefixes, build).await?;
        let tables = registry.kinds().filter_map(|kind| {
            let table = replica.table(&table_prefix(kind))?;
            Some((Arc::new(kind.resource.clone()), table))
        });
        let tables = ArcSwap::from_pointee(tables.collect());
        Ok(Storage {
            replica,
            kinds,
            tables,
            sealing,
        })
    }

    /// Adds the tables of kinds that are served from now on.
    pub async fn add(&self, kinds: &[Arc<Kind>], history: History) -> Result<(), store::ReplicaError> {
        self.kinds.rcu(|known| known.with(kinds));
        let prefixes = kinds.iter().map(|kind| table_prefix(kind)).collect();
        let added = self.replica.add_tables(prefixes, history).await?;
        self.tables.rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            let added = kinds.iter().zip(&added);
            tables.extend(added.map(|(kind, table)| (Arc::new(kind.resource.clone()), table.clone())));
            tables
        });
        Ok(())
    }

    /// Reads the objects of a kind again, whose schema or stored version changed; its watches end.
    pub async fn again(&self, kind: &Arc<Kind>) -> Result<(), store::ReplicaError> {
        self.kinds.rcu(|known| known.with([kind]));
        let rebuilt = self.replica.rebuild_table(&table_prefix(kind), Watches::End).await;
        rebuilt.map(drop)
    }

    /// Ends the watches of a kind that there are now.
    pub fn end_watches(&self, kind: &Kind) {
        if let Some(table) = self.table_of(&kind.resource) {
            table.end_watches();
        }
    }

    /// Removes the table of a kind; its watches end. What is stored stays stored.
    pub async fn remove(&self, kind: &Kind) {
        self.tables.rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            tables.remove(&kind.resource);
            tables
        });
        let prefix = table_prefix(kind);
        // A replica that has ended has no tables to remove.
        let _ = self.replica.remove_table(&prefix).await;
        self.kinds.rcu(|known| known.without(&prefix));
    }

    /// Reads values of these resources again that did not open before, until there are none such; never ends.
    pub(crate) async fn reopen(&self) {
        loop {
            for resource in self.sealing.reopened().await {
                let Some(table) = self.table_of(&resource) else {
                    continue;
                };
                tracing::info!(%resource, "sealed values that did not open are read again");
                if let Err(error) = self.replica.rebuild_table(table.prefix(), Watches::Expire).await {
                    tracing::warn!(%resource, %error, "sealed values could not be read again");
                }
            }
        }
    }

    /// What seals values of a kind now.
    pub fn seal_mark(&self, kind: &Kind) -> Mark {
        self.sealing.mark_of(&kind.resource)
    }

    /// A kind's table.
    pub fn table(&self, kind: &Kind) -> Result<Table<Stored>, Status> {
        self.tables
            .load()
            .get(&kind.resource)
            .cloned()
            .ok_or_else(Status::no_such_path)
    }

    fn table_of(&self, resource: &GroupResource) -> Option<Table<Stored>> {
        self.tables.load().get(resource).cloned()
    }

    /// Whether other servers write to the same store: then what readers see here may be behind what those have answered.
    pub fn is_shared(&self) -> bool {
        self.replica.engine().has_other_writers()
    }

    /// Before a read or a verdict that must not be behind what any server has answered. Costs nothing with a store of
    /// one's own.
    pub async fn fresh(&self) -> Result<(), Status> {
        if !self.is_shared() {
            return Ok(());
        }
        match tokio::time::timeout(CONSISTENT_WAIT, self.consistent()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Status::failure(Reason::ServiceUnavailable, error.to_string())),
            Err(_) => Err(Status::timeout("the store did not tell in time what is new", 1)),
        }
    }

    /// Waits until readers see everything that was acknowledged before the call, by whichever server.
    pub async fn consistent(&self) -> Result<u64, store::ReplicaError> {
        self.replica.consistent().await
    }

    /// Clients take version 0 for "any": the first thing in a new store is a record that it is one.
    pub async fn begin(&self, now_ms: i64) -> Result<(), Status> {
        if self.revision() > 0 {
            return Ok(());
        }
        let transaction = Transaction::create(BORN_KEY, now_ms.to_string());
        match self.commit(transaction).await {
            Ok(_) | Err(WriteError::Raced) => Ok(()),
            Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => Err(status),
        }
    }

    /// The whole store now, to be sent somewhere.
    pub async fn backup(&self, clock: &base::Clock) -> Result<store::Backup, store::EngineError> {
        store::Backup::take(&**self.replica.engine(), clock).await
    }

    /// Whether the replica has ended: nothing can be written any more.
    pub fn is_closed(&self) -> bool {
        self.replica.is_closed()
    }

    /// The newest revision that readers see.
    pub fn revision(&self) -> u64 {
        self.replica.revision()
    }

    /// What stands under keys that are of no kind, as the store has it now.
    pub async fn range(&self, range: KeyRange) -> Result<Vec<Arc<Record>>, Status> {
        let answer = self.replica.engine().range(range, None).await;
        let answer = answer.map_err(|error| Status::failure(Reason::ServiceUnavailable, error.to_string()))?;
        Ok(answer.records)
    }

    /// One object.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Arc<Object>>, Status> {
        match self.table(kind)?.get(kind.key(namespace, name).as_bytes()) {
            None => Ok(None),
            Some(entry) => object_of(&entry).map(Some),
        }
    }

    /// Waits until readers see a revision, for as long as upstream does.
    pub async fn wait_for(&self, revision: u64) -> Result<(), Status> {
        if self.revision() >= revision {
            return Ok(());
        }
        let seen = async {
            // A revision of another server's may be none of any object: then only asking for it brings it here.
            if self.is_shared() {
                self.replica.consistent().await?;
            }
            self.replica.wait_for(revision).await
        };
        match tokio::time::timeout(FRESH_WAIT, seen).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(too_large_version(revision, self.revision())),
        }
    }

    /// Commits a transaction; done when readers see it (or what refused it, so that the next attempt does).
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, WriteError> {
        tracing::trace!(target: "walk", "handed to the store");
        match self.replica.commit(transaction).await {
            Ok(written) => {
                let after = written.entries.into_iter().next().and_then(|entry| entry.after);
                Ok(Committed {
                    revision: written.revision,
                    object: after.and_then(|entry| entry.value.object.clone()),
                })
            }
            Err(CommitError::GuardFailed { .. }) => Err(WriteError::Raced),
            Err(error @ CommitError::TooLarge { .. }) => Err(WriteError::TooLarge(commit_status(&error))),
            Err(error) => Err(WriteError::Failed(commit_status(&error))),
        }
    }

    /// What a transaction is counted under: what it does first, and to which resource.
    pub fn labels_of(&self, transaction: &Transaction) -> Option<StoreLabels> {
        let creates = |guard: &Guard| matches!(guard, Guard::Absent(_));
        let (operation, key) = match transaction.operations.first()? {
            Operation::Put(put) if transaction.guards.iter().any(creates) => ("create", &put.key),
            Operation::Put(put) => ("update", &put.key),
            Operation::Delete(key) => ("delete", key),
        };
        let kinds = self.kinds.load();
        let GroupResource { group, resource } = kinds.find(key)?.resource.clone();
        Some(StoreLabels {
            operation,
            group,
            resource,
        })
    }

    /// The operation that writes an object of a kind, sealed if the kind is.
    ///
    /// # Errors
    /// 500 when the key service that seals the kind has not answered for too long.
    pub fn put(&self, kind: &Kind, key: &str, object: &Value, expires_at_ms: Option<i64>) -> Result<Operation, Status> {
        let sealed = self.sealing.seal(&kind.resource, key.as_bytes(), to_stored(object));
        let sealed = sealed.map_err(Status::internal)?;
        Ok(Operation::Put(Put {
            key: key.to_owned().into(),
            value: sealed.value,
            expires_at_ms,
            stamp: Stamp {
                sealing_key: sealed.local_key,
                schema_epoch: SCHEMA_EPOCH,
            },
        }))
    }

    /// A cursor over a kind's events.
    pub fn watch(&self, kind: &Kind, after: u64, interest: Interest) -> Result<Cursor<Stored>, WatchStart> {
        let table = self.table(kind).map_err(WatchStart::Status)?;
        table.watch_from(after, interest).map_err(WatchStart::Watch)
    }
}

/// Why a watch cannot start.
#[derive(Debug)]
pub enum WatchStart {
    /// There is no such table.
    Status(Status),
    /// The history does not reach.
    Watch(WatchError),
}

/// The object of an entry, or the error that its bytes are none.
pub fn object_of(entry: &Entry<Stored>) -> Result<Arc<Object>, Status> {
    entry.value.object.clone().ok_or_else(|| {
        let key = String::from_utf8_lossy(entry.key()).into_owned();
        Status::failure(
            Reason::StoreReadError,
            format!("the object stored under {key} cannot be read"),
        )
    })
}

/// The objects before and after an event. Unreadable ones are left out.
pub fn event_objects(event: &Event<Stored>) -> (Option<Arc<Object>>, Option<Arc<Object>>) {
    let object = |entry: &Option<Arc<Entry<Stored>>>| entry.as_ref().and_then(|entry| entry.value.object.clone());
    (object(&event.before), object(&event.after))
}

/// Raised when the normal form of built-in kinds changes; objects of an older epoch are normalized again when read.
pub const SCHEMA_EPOCH: u32 = 1;

/// What a record that cannot be read is.
const UNREADABLE: Stored = Stored {
    object: None,
    trigger: None,
};

fn build(kinds: &Kinds, sealing: &Sealing, record: &Record) -> Stored {
    let Some(kind) = kinds.find(&record.key) else {
        return UNREADABLE;
    };
    let unreadable = |error: &dyn std::fmt::Display| {
        tracing::error!(key = %String::from_utf8_lossy(&record.key), %error, "a stored object cannot be read");
        shared().unreadable.found(&kind.resource);
        UNREADABLE
    };
    let mut trigger = None;
    let opened = sealing.open(&kind.resource, &record.key, &record.value, record.stamp.sealing_key);
    let (mut bytes, mark) = match opened {
        Ok(opened) => opened,
        Err(error) => return unreadable(&error),
    };
    let mut current = record.stamp.schema_epoch == SCHEMA_EPOCH;
    if let Some(custom) = &kind.custom {
        let loaded = json::read(&bytes).map(|object| custom.loaded(object));
        match loaded {
            Ok(Some((object, older))) => {
                bytes = to_stored(&object);
                current &= !older;
            }
            Ok(None) => return unreadable(&"it is of another kind"),
            Err(error) => return unreadable(&error),
        }
    } else if !current && let Some(again) = renormalize(kind, &bytes) {
        bytes = again;
    }
    let object = Object::from_bytes(bytes, record.mod_revision, &kind.read, |value| {
        trigger = kind
            .row
            .trigger
            .and_then(|read| read(value))
            .map(String::into_boxed_str);
        kind.field_values(value)
    });
    match object {
        Ok(object) => {
            let object = if current { object } else { object.of_older_schema() };
            let object = object.sealed_by(mark);
            Stored {
                object: Some(Arc::new(object)),
                trigger,
            }
        }
        Err(error) => unreadable(&error),
    }
}

/// Versions that are not served, in which kube-apiserver stores kinds whose fields are those of the served one: until v1.37
/// MutatingAdmissionPolicies and their bindings. Source: `pkg/kubeapiserver/default_storage_factory_builder.go`.
const STORED_ALIKE: [(&str, &str); 1] = [("admissionregistration.k8s.io", "v1beta1")];

/// An object of another normal form in that of today. An API server of upstream's stores built-in kinds as protobuf, in
/// whichever version it prefers.
fn renormalize(kind: &Kind, bytes: &[u8]) -> Option<Bytes> {
    let mut value = match bytes.starts_with(protobuf::PREFIX) {
        false => json::read(bytes).ok()?,
        true => {
            let (gvk, mut value) = protobuf::decode(bytes).ok()?;
            view::set_kind(&mut value, &gvk.api_version(), &gvk.kind);
            value
        }
    };
    let gvk = meta::gvk(&value);
    if gvk.kind == kind.hub.kind && STORED_ALIKE.contains(&(&*gvk.group, &*gvk.version)) {
        view::set_kind(&mut value, &kind.hub.api_version(), &kind.hub.kind);
    } else if let Some(version) = kind.versions.iter().position(|(version, _)| *version == gvk) {
        value = view::to_hub_version(kind, version, value).ok()?;
    } else if bytes.starts_with(protobuf::PREFIX) {
        return None;
    }
    api::normalize::normalize(&mut value, &kind.schema, api::normalize::UnknownFields::Ignore).ok()?;
    kind.row.set_defaults(&mut value);
    Some(to_stored(&value))
}

/// The API's word for a failed commit.
fn commit_status(error: &CommitError) -> Status {
    match error {
        CommitError::Overloaded => Status::too_many_requests(error.to_string(), 1),
        CommitError::TooLarge { .. } => Status::too_large(error),
        CommitError::UnknownOutcome(_) => Status::timeout(error.to_string(), 1),
        CommitError::Unavailable(_) | CommitError::Full => {
            Status::failure(Reason::ServiceUnavailable, error.to_string())
        }
        CommitError::GuardFailed { .. } | CommitError::Invalid(_) => Status::internal(error),
    }
}

/// 504 for a revision that this server has not seen, worded so that clients recognise it.
pub fn too_large_version(wanted: u64, current: u64) -> Status {
    let mut status = Status::timeout(format!("Too large resource version: {wanted}, current: {current}"), 1);
    if let Some(details) = &mut status.details {
        details.causes = vec![StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }];
    }
    status
}

impl Cluster for Storage {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let table = self.table_of(resource)?;
        let key = match namespace {
            "" => [&**table.prefix(), name.as_bytes()].concat(),
            _ => [&**table.prefix(), namespace.as_bytes(), b"/", name.as_bytes()].concat(),
        };
        table.get(&key)?.value.object.clone()
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let Some(table) = self.table_of(resource) else {
            return Vec::new();
        };
        let prefix = match namespace {
            None => table.prefix().to_vec(),
            Some(namespace) => [&**table.prefix(), namespace.as_bytes(), b"/"].concat(),
        };
        let snapshot = table.snapshot();
        snapshot
            .prefix(&prefix)
            .filter_map(|entry| entry.value.object.clone())
            .collect()
    }

    fn changes(&self, resource: &GroupResource) -> Box<dyn Changes> {
        Box::new(Follower {
            table: self.table_of(resource),
            cursor: None,
            waiting: Vec::new(),
        })
    }
}

/// Follows a table for an authorizer or a plug-in.
struct Follower {
    /// `None`: there is no such resource; nothing ever changes.
    table: Option<Table<Stored>>,
    cursor: Option<Cursor<Stored>>,
    /// Changes taken from the cursor and not handed out, newest first.
    waiting: Vec<Change>,
}

impl Follower {
    /// Starts over: everything, and a cursor from there.
    fn reset(&mut self) -> Option<Change> {
        let table = self.table.as_ref()?;
        let snapshot: Snapshot<Stored> = table.snapshot();
        self.cursor = table.watch_from(snapshot.revision(), Interest::All).ok();
        self.cursor.as_ref()?;
        Some(Change::Reset(
            snapshot.iter().filter_map(|entry| entry.value.object.clone()).collect(),
        ))
    }

    fn keep(&mut self, batch: store::WatchBatch<Stored>) {
        self.waiting = batch
            .events
            .iter()
            .rev()
            .map(|event| {
                let (old, new) = event_objects(event);
                Change::Changed { old, new }
            })
            .collect();
    }
}

impl Changes for Follower {
    fn try_next(&mut self) -> Option<Change> {
        if let Some(change) = self.waiting.pop() {
            return Some(change);
        }
        let Some(cursor) = &mut self.cursor else {
            return self.reset();
        };
        match cursor.try_next() {
            Ok(None) => None,
            Ok(Some(batch)) => {
                self.keep(batch);
                self.waiting.pop()
            }
            // Watches may be ended and begin again; a table that is gone has none.
            Err(WatchError::Expired { .. } | WatchError::Closed) => self.reset(),
        }
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Change>> {
        Box::pin(async move {
            loop {
                if let Some(change) = self.try_next() {
                    return Some(change);
                }
                let cursor = self.cursor.as_mut()?;
                match cursor.next().await {
                    Ok(batch) => self.keep(batch),
                    Err(WatchError::Expired { .. } | WatchError::Closed) => self.cursor = None,
                }
            }
        })
    }
}
