//! The Secrets and ConfigMaps that the pods of this node use: one watch of one object each.
//!
//! A watch of a single name is all that the Node authorizer allows. Invariant: an object is watched while at least one
//! registered pod refers to it, and no longer. Each registered pod has a counter that every change of its objects raises.
//! Source: `pkg/kubelet/util/manager/watch_based_manager.go`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Random, Shutdown};
use client::informer::{Delta, Informer, Selection};
use client::k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use client::{Client, Kind, Object};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::references::{Reference, Sort, references};

/// How long to wait for the first sight of an object, before the pod is told to try again.
const SYNC_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an object cannot be had, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is none of that name.
    #[error("{sort} {} not found", api::field::quote(name))]
    NotFound {
        /// `configmap` or `secret`.
        sort: &'static str,
        /// Its name.
        name: String,
    },
    /// The API server did not show it in time.
    #[error("failed to sync {0} cache: timed out waiting for the condition")]
    NotSynced(&'static str),
    /// No registered pod refers to it.
    #[error("object {}/{} not registered", api::field::quote(.0), api::field::quote(.1))]
    NotRegistered(String, String),
}

impl ObjectError {
    /// Whether the object is not there, as opposed to not known.
    pub fn is_not_found(&self) -> bool {
        matches!(self, ObjectError::NotFound { .. })
    }
}

/// Where environment and volumes get their objects from.
pub trait Objects: Send + Sync {
    /// A ConfigMap that a registered pod refers to.
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> futures::future::BoxFuture<'_, Result<Arc<ConfigMap>, ObjectError>>;

    /// A Secret that a registered pod refers to.
    fn secret(&self, namespace: &str, name: &str) -> futures::future::BoxFuture<'_, Result<Arc<Secret>, ObjectError>>;
}

/// The cache. Cheap to clone; clones are the same cache.
#[derive(Clone)]
pub struct ObjectCache {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    random: Random,
    shutdown: Shutdown,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: HashMap<String, Registration>,
    config_maps: HashMap<(String, String), Watched<ConfigMap>>,
    secrets: HashMap<(String, String), Watched<Secret>>,
}

struct Registration {
    references: HashSet<Reference>,
    changes: watch::Sender<u64>,
}

struct Watched<T> {
    informer: Informer<T>,
    users: HashSet<String>,
    /// Ends the watch when the last user goes.
    shutdown: Shutdown,
}

// === impl ObjectCache ===

impl ObjectCache {
    /// An empty cache that reads through this client until `shutdown`.
    pub fn new(client: Client, random: Random, shutdown: Shutdown) -> ObjectCache {
        ObjectCache {
            inner: Arc::new(Inner {
                client,
                random,
                shutdown,
                state: Mutex::default(),
            }),
        }
    }

    /// Begins to watch what the pod refers to, and ends watching what it no longer refers to. Idempotent.
    pub fn register(&self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let wanted: HashSet<Reference> = references(pod).into_iter().collect();
        let mut state = self.inner.state.lock();
        let registration = state.pods.entry(uid.clone()).or_insert_with(|| Registration {
            references: HashSet::new(),
            changes: watch::Sender::new(0),
        });
        let before = std::mem::replace(&mut registration.references, wanted.clone());
        for reference in wanted.difference(&before) {
            self.add(&mut state, &uid, reference);
        }
        for reference in before.difference(&wanted) {
            state.drop_user(&uid, reference);
        }
    }

    /// Ends watching what only this pod used.
    pub fn unregister(&self, uid: &str) {
        let mut state = self.inner.state.lock();
        let Some(registration) = state.pods.remove(uid) else {
            return;
        };
        for reference in &registration.references {
            state.drop_user(uid, reference);
        }
    }

    /// A counter that goes up whenever an object of the pod changes. `None` when the pod is not registered.
    pub fn changes(&self, uid: &str) -> Option<watch::Receiver<u64>> {
        self.inner
            .state
            .lock()
            .pods
            .get(uid)
            .map(|registration| registration.changes.subscribe())
    }

    /// How many objects are watched.
    pub fn watched(&self) -> usize {
        let state = self.inner.state.lock();
        state.config_maps.len() + state.secrets.len()
    }

    fn add(&self, state: &mut State, uid: &str, reference: &Reference) {
        let key = (reference.namespace.clone(), reference.name.clone());
        match reference.sort {
            Sort::ConfigMap => self.watch(&mut state.config_maps, key, uid),
            Sort::Secret => self.watch(&mut state.secrets, key, uid),
        }
    }

    fn watch<T: Kind>(&self, all: &mut HashMap<(String, String), Watched<T>>, key: (String, String), uid: &str)
    where
        State: Holds<T>,
    {
        let watched = all.entry(key.clone()).or_insert_with(|| {
            let shutdown = self.inner.shutdown.child();
            let selection = Selection {
                namespace: key.0.clone(),
                fields: format!("metadata.name={}", key.1),
                ..Selection::default()
            };
            let (client, random) = (self.inner.client.clone(), self.inner.random.fork());
            let informer = Informer::start(client, T::RESOURCE, selection, random, shutdown.clone());
            self.announce(informer.clone(), key, &shutdown);
            Watched {
                informer,
                users: HashSet::new(),
                shutdown,
            }
        });
        watched.users.insert(uid.to_owned());
    }

    /// Raises the counters of an object's users at each change of it. What is there from the start is no change.
    fn announce<T: Kind>(&self, informer: Informer<T>, key: (String, String), shutdown: &Shutdown)
    where
        State: Holds<T>,
    {
        let mut events = informer.subscribe();
        let inner = Arc::downgrade(&self.inner);
        shutdown.spawn(async move {
            let mut synced = false;
            while let Some(delta) = events.next().await {
                synced |= matches!(delta, Delta::Synced);
                let Some(inner) = inner.upgrade() else { return };
                if synced && delta.object().is_some() {
                    inner.state.lock().tell::<T>(&key);
                }
            }
        });
    }

    async fn get<T: Kind>(&self, namespace: &str, name: &str, sort: &'static str) -> Result<Arc<T>, ObjectError>
    where
        State: Holds<T>,
    {
        let key = (namespace.to_owned(), name.to_owned());
        let informer = {
            let mut state = self.inner.state.lock();
            Holds::<T>::all(&mut *state)
                .get(&key)
                .map(|watched| watched.informer.clone())
        };
        let informer = informer.ok_or(ObjectError::NotRegistered(key.0, key.1))?;
        if !tokio::time::timeout(SYNC_TIMEOUT, informer.synced())
            .await
            .unwrap_or(false)
        {
            return Err(ObjectError::NotSynced(sort));
        }
        informer.get(namespace, name).ok_or_else(|| ObjectError::NotFound {
            sort,
            name: name.to_owned(),
        })
    }
}

impl Objects for ObjectCache {
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> futures::future::BoxFuture<'_, Result<Arc<ConfigMap>, ObjectError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Box::pin(async move { self.get(&namespace, &name, "configmap").await })
    }

    fn secret(&self, namespace: &str, name: &str) -> futures::future::BoxFuture<'_, Result<Arc<Secret>, ObjectError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Box::pin(async move { self.get(&namespace, &name, "secret").await })
    }
}

/// Which map of the state holds a kind.
trait Holds<T> {
    fn all(&mut self) -> &mut HashMap<(String, String), Watched<T>>;
}

impl Holds<ConfigMap> for State {
    fn all(&mut self) -> &mut HashMap<(String, String), Watched<ConfigMap>> {
        &mut self.config_maps
    }
}

impl Holds<Secret> for State {
    fn all(&mut self) -> &mut HashMap<(String, String), Watched<Secret>> {
        &mut self.secrets
    }
}

// === impl State ===

impl State {
    fn drop_user(&mut self, uid: &str, reference: &Reference) {
        let key = (reference.namespace.clone(), reference.name.clone());
        match reference.sort {
            Sort::ConfigMap => release(&mut self.config_maps, &key, uid),
            Sort::Secret => release(&mut self.secrets, &key, uid),
        }
    }

    fn tell<T>(&mut self, key: &(String, String))
    where
        State: Holds<T>,
    {
        let users: Vec<String> = Holds::<T>::all(self)
            .get(key)
            .map(|watched| watched.users.iter().cloned().collect())
            .unwrap_or_default();
        for uid in users {
            if let Some(registration) = self.pods.get(&uid) {
                registration.changes.send_modify(|count| *count += 1);
            }
        }
    }
}

fn release<T: Object>(all: &mut HashMap<(String, String), Watched<T>>, key: &(String, String), uid: &str) {
    if let Some(watched) = all.get_mut(key) {
        watched.users.remove(uid);
        if watched.users.is_empty() {
            watched.shutdown.trigger();
            all.remove(key);
        }
    }
}

/// Objects that are simply there.
#[derive(Clone, Debug, Default)]
pub struct FixedObjects {
    /// By namespace and name.
    pub config_maps: BTreeMap<(String, String), Arc<ConfigMap>>,
    /// By namespace and name.
    pub secrets: BTreeMap<(String, String), Arc<Secret>>,
}

impl Objects for FixedObjects {
    fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> futures::future::BoxFuture<'_, Result<Arc<ConfigMap>, ObjectError>> {
        let found = self.config_maps.get(&(namespace.to_owned(), name.to_owned())).cloned();
        let found = found.ok_or_else(|| ObjectError::NotFound {
            sort: "configmap",
            name: name.to_owned(),
        });
        Box::pin(std::future::ready(found))
    }

    fn secret(&self, namespace: &str, name: &str) -> futures::future::BoxFuture<'_, Result<Arc<Secret>, ObjectError>> {
        let found = self.secrets.get(&(namespace.to_owned(), name.to_owned())).cloned();
        let found = found.ok_or_else(|| ObjectError::NotFound {
            sort: "secret",
            name: name.to_owned(),
        });
        Box::pin(std::future::ready(found))
    }
}
