//! The volumes of pods: made, kept current, shown to containers, and taken away.
//!
//! What a volume holds is decided by plain functions ([`payload`], [`gather`]); what is done to the disk stands in
//! [`atomic`], [`set_up`], [`sub_path`] and [`removal`]. Below the kubelet's directory everything of a pod stands in
//! `pods/<uid>/`, as upstream: `volumes/kubernetes.io~<kind>/<name>`, `volume-subpaths/`, `containers/`, `etc-hosts`.
//! Invariant: whatever is made here lies below that directory, and [`VolumeManager::teardown`] removes just that.
//!
//! How it is used, by the worker of a pod:
//! ```text
//! let volumes = manager.prepare(&pod).await?;          // error: event Warning `error.reason()`, try again
//! for warning in &volumes.warnings { /* event Warning FailedMount, go on */ }
//! let environment = env::environment(&input, manager.objects()).await?;
//! let mounts = manager.mounts(&pod, container, &volumes, &environment, &pod_ips)?;
//! // again and again: prepare() after the pod changed, and whenever
//! while manager.changes(uid).next().await { manager.prepare(&pod).await; }
//! manager.teardown(uid).await?;                        // when no container is left
//! ```

pub mod atomic;
mod changes;
mod container;
pub mod gather;
pub mod host_path;
pub mod hosts;
pub mod objects;
pub mod ownership;
pub mod payload;
pub mod references;
pub mod removal;
mod set_up;
pub mod sub_path;
pub mod tokens;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Clock, Random, Shutdown};
use client::Client;
use client::k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use rpc::cri::Mount;

use crate::env::{Environment, NodeFacts};

pub use changes::Changes;
use gather::Work;
use objects::ObjectCache;
use tokens::TokenCache;

/// What the volumes of a node need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kubelet's own directory; `pods/` is made in it.
    pub root: PathBuf,
    /// What the downward API tells about the node.
    pub node: Arc<NodeFacts>,
    /// The domain of the cluster's DNS, such as `cluster.local`, for `/etc/hosts` of pods with a subdomain.
    pub cluster_domain: String,
    /// The node's own hosts file, for pods on the node's network.
    pub hosts_file: PathBuf,
    /// Whether the runtime makes mounts read-only with all below them.
    pub recursive_read_only: bool,
}

impl Config {
    /// The usual configuration for a directory.
    pub fn new(root: impl Into<PathBuf>, node: NodeFacts) -> Config {
        Config {
            root: root.into(),
            node: Arc::new(node),
            cluster_domain: "cluster.local".into(),
            hosts_file: "/etc/hosts".into(),
            recursive_read_only: false,
        }
    }
}

/// Why a volume is not there, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// A volume could not be made.
    #[error("MountVolume.SetUp failed for volume {} : {why}", api::field::quote(volume))]
    SetUp {
        /// Its name in the pod.
        volume: String,
        /// Why.
        why: String,
    },
    /// A volume cannot be shown to a container.
    #[error("{0}")]
    Mount(String),
    /// The pod's directory could not be made or removed.
    #[error("{0}")]
    Directory(String),
}

impl VolumeError {
    /// The reason of the event, or for [`VolumeError::Mount`] of the container's waiting state.
    pub fn reason(&self) -> &'static str {
        match self {
            VolumeError::SetUp { .. } | VolumeError::Directory(_) => "FailedMount",
            VolumeError::Mount(_) => "CreateContainerConfigError",
        }
    }
}

/// A volume that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Where it is on this node.
    pub path: PathBuf,
    /// Whether containers may only read it, whatever they ask for.
    pub read_only: bool,
}

/// The volumes of a pod, all of them there.
#[derive(Clone, Debug, Default)]
pub struct PodVolumes {
    /// By their names in the pod.
    pub volumes: BTreeMap<String, Volume>,
    /// Volumes that are there but could not be brought up to date: events, and no reason not to go on.
    pub warnings: Vec<VolumeError>,
}

/// The volumes of this node's pods. Cheap to clone; clones are the same manager.
#[derive(Clone)]
pub struct VolumeManager {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    objects: ObjectCache,
    tokens: TokenCache,
    clock: Clock,
    random: Random,
    pods: Mutex<HashMap<String, Arc<PodState>>>,
}

/// What is known of a pod besides the disk.
struct PodState {
    /// One at a time changes a pod's volumes.
    turn: tokio::sync::Mutex<()>,
    /// When something in the volumes grows old, or when to try again.
    refresh: tokio::sync::watch::Sender<Option<jiff::Timestamp>>,
    /// The count of changes that the last preparation has seen.
    seen: AtomicU64,
}

// === impl VolumeManager ===

impl VolumeManager {
    /// A manager that reads Secrets, ConfigMaps and tokens through this client until `shutdown`.
    pub fn new(config: Config, client: Client, clock: Clock, random: Random, shutdown: Shutdown) -> VolumeManager {
        let objects = ObjectCache::new(client.clone(), random.fork(), shutdown);
        let tokens = TokenCache::new(client, clock.clone(), random.fork());
        let inner = Inner {
            config,
            objects,
            tokens,
            clock,
            random,
            pods: Mutex::default(),
        };
        VolumeManager { inner: Arc::new(inner) }
    }

    /// The Secrets and ConfigMaps of the pods that were prepared, for their environments.
    pub fn objects(&self) -> &ObjectCache {
        &self.inner.objects
    }

    /// The directory of a pod.
    pub fn pod_directory(&self, uid: &str) -> PathBuf {
        self.inner.config.root.join("pods").join(uid)
    }

    /// The uids of the pods whose directories are there, whoever made them.
    pub fn known_pods(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.inner.config.root.join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Makes all volumes of a pod, or brings them up to date. Idempotent; call it again after each of
    /// [`VolumeManager::changes`] and when the pod's labels or annotations changed.
    ///
    /// # Errors
    /// The first volume that is not there and cannot be made; the others were made.
    pub async fn prepare(&self, pod: &Pod) -> Result<PodVolumes, VolumeError> {
        let uid = uid_of(pod)?;
        self.inner.objects.register(pod);
        let state = self.state(uid);
        let _turn = state.turn.lock().await;
        // Noted before anything is read, so that no change falls in between.
        if let Some(count) = self.inner.objects.changes(uid) {
            state.seen.store(*count.borrow(), Ordering::Release);
        }
        let gathered = gather::gather(pod, &self.inner.config.node, &self.inner.objects, &self.inner.tokens).await;
        let retry = gathered.retry_at(self.inner.clock.now());
        let context = set_up::Context {
            pod_directory: self.pod_directory(uid),
            fs_group: ownership::fs_group(pod),
            memory_bytes: gather::memory_bytes(pod, &self.inner.config.node),
            clock: self.inner.clock.clone(),
            random: self.inner.random.fork(),
        };
        let work: Vec<(String, Result<Work, String>)> = gathered.volumes;
        let outcomes = tokio::task::spawn_blocking(move || set_up::set_up(&context, work)).await;
        let outcomes = outcomes.map_err(|error| VolumeError::Directory(error.to_string()))??;
        let mut volumes = PodVolumes::default();
        let mut first_error = None;
        for outcome in outcomes {
            let error = outcome.error.map(|why| VolumeError::SetUp {
                volume: outcome.name.clone(),
                why,
            });
            match (outcome.volume, error) {
                (Some(volume), error) => {
                    volumes.volumes.insert(outcome.name, volume);
                    volumes.warnings.extend(error);
                }
                (None, error) => first_error = first_error.or(error),
            }
        }
        state
            .refresh
            .send_if_modified(|known| std::mem::replace(known, retry) != retry);
        first_error.map_or(Ok(volumes), Err)
    }

    /// What a container mounts: its volumes, `/etc/hosts` and the file for its last words. Makes what sub paths need.
    /// Few and short system calls, no waiting.
    ///
    /// # Errors
    /// In upstream's words, for the container's waiting reason `CreateContainerConfigError`.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        volumes: &PodVolumes,
        environment: &Environment,
        pod_ips: &[String],
    ) -> Result<Vec<Mount>, VolumeError> {
        let uid = uid_of(pod)?;
        let context = container::Context {
            config: &self.inner.config,
            pod_directory: self.pod_directory(uid),
            random: &self.inner.random,
        };
        context.mounts(pod, container, volumes, environment, pod_ips)
    }

    /// Tells when [`VolumeManager::prepare`] is to be called again. What changed since the last preparation counts, so
    /// this may be called late; a pod that was never prepared has no changes.
    pub fn changes(&self, uid: &str) -> Changes {
        let state = self.inner.pods.lock().get(uid).cloned();
        let objects = self.inner.objects.changes(uid).zip(state).map(|(mut objects, state)| {
            if *objects.borrow_and_update() != state.seen.load(Ordering::Acquire) {
                objects.mark_changed();
            }
            (objects, state.refresh.subscribe())
        });
        Changes::new(objects, self.inner.clock.clone())
    }

    /// Unmounts and removes everything of a pod that has no running container. Idempotent.
    ///
    /// # Errors
    /// What could not be unmounted or removed; try again later.
    pub async fn teardown(&self, uid: &str) -> Result<(), VolumeError> {
        if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
            return Err(VolumeError::Directory(format!(
                "{} is no pod uid",
                api::field::quote(uid)
            )));
        }
        let state = self.inner.pods.lock().remove(uid);
        let directory = self.pod_directory(uid);
        let turn = match &state {
            Some(state) => Some(state.turn.lock().await),
            None => None,
        };
        self.inner.objects.unregister(uid);
        self.inner.tokens.forget(uid);
        let outcome = tokio::task::spawn_blocking(move || remove_pod(&directory)).await;
        drop(turn);
        outcome.map_err(|error| VolumeError::Directory(error.to_string()))?
    }

    fn state(&self, uid: &str) -> Arc<PodState> {
        let mut pods = self.inner.pods.lock();
        let state = pods.entry(uid.to_owned()).or_insert_with(|| {
            let refresh = tokio::sync::watch::Sender::new(None);
            Arc::new(PodState {
                turn: tokio::sync::Mutex::new(()),
                refresh,
                seen: AtomicU64::new(0),
            })
        });
        state.clone()
    }
}

fn uid_of(pod: &Pod) -> Result<&str, VolumeError> {
    let uid = pod.metadata.uid.as_deref().unwrap_or("");
    if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
        return Err(VolumeError::Directory(format!(
            "{} is no pod uid",
            api::field::quote(uid)
        )));
    }
    Ok(uid)
}

fn remove_pod(directory: &Path) -> Result<(), VolumeError> {
    let tell = |error: std::io::Error| {
        VolumeError::Directory(format!(
            "failed to remove the directory {}: {error}",
            directory.display()
        ))
    };
    sys::mounts::detach_below(directory).map_err(tell)?;
    removal::remove_tree(directory).map_err(tell)
}
