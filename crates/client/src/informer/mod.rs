//! Informers: a local copy of the objects of a resource, kept current by one watch, and the news about it.
//!
//! All users of a process share one watch for each (view, resource, selection). Invariants: a subscriber sees every object
//! it has not seen deleted, in order for each object, however slow it is; what waits for it is bounded by the number of
//! objects, because changes of one object that it has not taken yet become one. The copy never goes back: a reconnect
//! resumes where the watch ended, and when the server no longer holds that revision the copy is compared with a new list.

mod reflector;
mod shared;
mod store;
mod subscription;

use std::sync::Arc;

use base::{Random, Shutdown};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use shared::SharedInformers;
pub use subscription::{Delta, Events};

use crate::kind::Object;
use crate::{Client, Resource};
use store::Store;
use subscription::Subscription;

/// The index of objects by the uids of their owners; every informer has it.
const OWNER_INDEX: &str = "owner";

/// Which objects of a resource an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace; empty for all.
    pub namespace: String,
    /// Only these labels; empty for all.
    pub labels: String,
    /// Only these fields; empty for all.
    pub fields: String,
}

impl Selection {
    /// Everything.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Objects with these fields, such as `spec.nodeName=here`.
    pub fn fields(selector: impl Into<String>) -> Selection {
        Selection {
            fields: selector.into(),
            ..Default::default()
        }
    }

    /// Objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Selection {
        Selection {
            labels: selector.into(),
            ..Default::default()
        }
    }

    /// Objects of this namespace.
    pub fn namespace(namespace: impl Into<String>) -> Selection {
        Selection {
            namespace: namespace.into(),
            ..Default::default()
        }
    }
}

/// Writes the index keys of an object.
pub type IndexFn<T> = fn(&T, &mut dyn FnMut(&str));

/// How far the copy has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    synced: bool,
    revision: u64,
    ended: bool,
}

/// A local copy of the objects of a resource. Cheap to clone; clones are the same copy.
pub struct Informer<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Informer<T> {
    fn clone(&self) -> Self {
        Informer {
            inner: self.inner.clone(),
        }
    }
}

struct Inner<T> {
    resource: Resource,
    selection: Selection,
    /// Taken before `subscribers`.
    store: RwLock<Store<T>>,
    subscribers: Mutex<Vec<Arc<Subscription<T>>>>,
    progress: watch::Sender<Progress>,
}

impl<T: Object> Informer<T> {
    /// Starts an informer of its own, not shared with others, that ends with `shutdown`.
    pub fn start(
        client: Client,
        resource: Resource,
        selection: Selection,
        random: Random,
        shutdown: Shutdown,
    ) -> Informer<T> {
        let mut store = Store::default();
        store.add_index(OWNER_INDEX, |object: &T, add| {
            object.meta().owner_uids().into_iter().for_each(add)
        });
        let inner = Arc::new(Inner {
            resource,
            selection,
            store: RwLock::new(store),
            subscribers: Mutex::new(Vec::new()),
            progress: watch::Sender::new(Progress::default()),
        });
        let informer = Informer { inner };
        let reflector = reflector::Reflector::new(client, informer.clone(), random, shutdown.clone());
        shutdown.spawn(reflector.run());
        informer
    }

    /// The resource.
    pub fn resource(&self) -> &Resource {
        &self.inner.resource
    }

    /// One object; `namespace` is empty for objects that are in none.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.inner.store.read().get(namespace, name)
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.inner.store.read().list()
    }

    /// The objects of a namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.inner.store.read().list_namespace(namespace)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.store.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects that name this uid as an owner (controller or not), ordered by namespace and name.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<T>> {
        self.indexed(OWNER_INDEX, uid)
    }

    /// Adds an index; one that is there already under this name stays. Works at any time.
    pub fn add_index(&self, name: &'static str, keys: IndexFn<T>) {
        self.inner.store.write().add_index(name, keys);
    }

    /// The objects with a key of an index, ordered by namespace and name. Empty when there is no such index.
    pub fn indexed(&self, name: &str, key: &str) -> Vec<Arc<T>> {
        self.inner.store.read().indexed(name, key)
    }

    /// Subscribes: every object that is there comes as added, then [`Delta::Synced`] once the copy is complete, and
    /// from then on what changes.
    pub fn subscribe(&self) -> Events<T> {
        let store = self.inner.store.write();
        let progress = *self.inner.progress.borrow();
        let subscription = Arc::new(Subscription::new(store.list(), progress.synced, progress.ended));
        self.inner.subscribers.lock().push(subscription.clone());
        drop(store);
        Events::new(subscription)
    }

    /// Whether the copy was complete once.
    pub fn has_synced(&self) -> bool {
        self.inner.progress.borrow().synced
    }

    /// Returns when the copy is complete; false when the informer ended before.
    pub async fn synced(&self) -> bool {
        self.wait(|progress| progress.synced).await
    }

    /// The newest revision the copy shows; zero before the first list.
    pub fn revision(&self) -> u64 {
        self.inner.progress.borrow().revision
    }

    /// Returns when the copy shows this revision or a newer one: how a controller waits for its own write, before it
    /// decides again. At once for a text that is no revision. False when the informer ended before.
    ///
    /// Only for informers of everything: a selection need not contain the write.
    pub async fn seen(&self, resource_version: &str) -> bool {
        let Ok(revision) = resource_version.parse::<u64>() else {
            return true;
        };
        self.wait(|progress| progress.revision >= revision).await
    }

    /// Returns when `enough` says yes to the object as it is in the copy (`None`: not there). False when the informer
    /// ended before.
    pub async fn until(&self, namespace: &str, name: &str, enough: impl Fn(Option<&T>) -> bool) -> bool {
        self.wait(|_| enough(self.get(namespace, name).as_deref())).await
    }

    async fn wait(&self, enough: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = self.inner.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            if enough(&now) {
                return true;
            }
            if now.ended || progress.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Puts a list in the place of everything.
    fn replace(&self, objects: Vec<T>, revision: &str) {
        let mut store = self.inner.store.write();
        let changes = store.replace(objects.into_iter().map(Arc::new).collect());
        let subscribers = self.subscribers();
        for (old, new) in changes {
            subscribers
                .iter()
                .for_each(|subscriber| subscriber.change(old.clone(), new.clone()));
        }
        subscribers.iter().for_each(|subscriber| subscriber.sync());
        // Told while the lock is held, so that nobody subscribes between the change and the news of it.
        self.inner.progress.send_modify(|progress| {
            progress.synced = true;
            progress.revision = progress.revision.max(revision.parse().unwrap_or(0));
        });
    }

    /// Applies one change of the watch.
    fn change(&self, object: T, deleted: bool) {
        let (name, version) = (object.meta().name(), object.meta().resource_version());
        tracing::trace!(target: "walk", resource = %self.resource(), object = name, version, "an informer hears");
        let revision = version.parse().unwrap_or(0);
        let object = Arc::new(object);
        let mut store = self.inner.store.write();
        let (old, new) = if deleted {
            let meta = object.meta();
            let old = store.remove(meta.namespace(), meta.name());
            // The last state comes with the event; it is newer than the copy's. What was never seen needs no news.
            (old.map(|_| object), None)
        } else {
            (store.insert(object.clone()), Some(object))
        };
        // A server may repeat what was seen already.
        let repeated = old
            .as_ref()
            .zip(new.as_ref())
            .is_some_and(|(old, new)| is_same(&**old, &**new));
        if (old.is_some() || new.is_some()) && !repeated {
            let subscribers = self.subscribers();
            subscribers
                .iter()
                .for_each(|subscriber| subscriber.change(old.clone(), new.clone()));
        }
        self.advance(revision);
    }

    fn advance(&self, revision: u64) {
        self.inner
            .progress
            .send_modify(|progress| progress.revision = progress.revision.max(revision));
    }

    fn end(&self) {
        let _store = self.inner.store.write();
        self.inner.progress.send_modify(|progress| progress.ended = true);
        self.subscribers().iter().for_each(|subscriber| subscriber.end());
    }

    /// The subscribers that still listen.
    fn subscribers(&self) -> Vec<Arc<Subscription<T>>> {
        let mut subscribers = self.inner.subscribers.lock();
        subscribers.retain(|subscriber| Arc::strong_count(subscriber) > 1);
        subscribers.clone()
    }
}

/// Whether both are the same object in the same state.
fn is_same<T: Object>(a: &T, b: &T) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.uid() == b.uid() && a.resource_version() == b.resource_version() && !a.resource_version().is_empty()
}

#[cfg(test)]
mod tests;
