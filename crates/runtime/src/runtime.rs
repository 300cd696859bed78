//! The engine: what there is, and how it comes back after a restart.
//!
//! Invariants: the record on disk is written before anybody outside hears of a change; a lock around a record is never held
//! across an await; operations that change one sandbox or container take its `changing` lock, a sandbox's before its
//! containers'.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rpc::cri;
use sys::cgroup::Cgroups;
use tokio::sync::{broadcast, oneshot, watch};

use crate::error::{Error, Result, doing};
use crate::image::ImageStore;
use crate::network::PodNetwork;
use crate::protocol::Exit;
use crate::records::{self, ContainerRecord, SandboxRecord};
use crate::shim::{Client, Events, Executable};

/// Events that wait for a slow reader before it loses the oldest and has to list again.
const EVENTS_MAX: usize = 1024;

/// How long the lock of an engine that was killed may stay: a child that it forked for a shim holds it too, until that runs
/// the shim's program.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Where the engine keeps things and what it is handed.
#[derive(Clone)]
pub struct Config {
    /// Kept across reboots: images, containers' layers, records. `/var/lib/trireme/runtime`.
    pub root_dir: PathBuf,
    /// Gone after a reboot: sockets, exit records. `/run/trireme/runtime`.
    pub run_dir: PathBuf,
    /// The delegated control group, `/trireme`; nothing above it is written.
    pub cgroup_root: PathBuf,
    /// Gives pods their network.
    pub network: Arc<dyn PodNetwork>,
    /// Size at which a container's log is rotated even if no kubelet asks; 0 is never.
    pub log_bytes_max: u64,
    /// Wall time.
    pub clock: base::Clock,
    /// For ids and tokens.
    pub random: base::Random,
}

impl Config {
    /// The usual settings below two directories.
    pub fn new(root_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>, network: Arc<dyn PodNetwork>) -> Config {
        Config {
            root_dir: root_dir.into(),
            run_dir: run_dir.into(),
            cgroup_root: PathBuf::from("/trireme"),
            network,
            log_bytes_max: 128 << 20,
            clock: base::Clock::real(),
            random: base::Random::real(),
        }
    }
}

/// A pod's sandbox.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) record: Mutex<SandboxRecord>,
    pub(crate) shim: Mutex<Option<Client>>,
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) record: Mutex<ContainerRecord>,
    /// Tells the state to those who wait for the end.
    pub(crate) state: watch::Sender<cri::ContainerState>,
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The last measurement of processor time (wall and used nanoseconds), for the rate.
    pub(crate) cpu: Mutex<Option<(i64, u64)>>,
}

/// The engine.
pub struct Runtime {
    pub(crate) config: Config,
    pub(crate) cgroups: Cgroups,
    pub(crate) images: ImageStore,
    pub(crate) executable: Executable,
    pub(crate) bounding: Vec<&'static str>,
    pub(crate) boot_id: String,
    pub(crate) sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    pub(crate) containers: Mutex<BTreeMap<String, Arc<Container>>>,
    pub(crate) execs: Mutex<HashMap<String, oneshot::Sender<Exit>>>,
    pub(crate) events: broadcast::Sender<cri::ContainerEventResponse>,
    pub(crate) streams: crate::stream::Tokens,
    pub(crate) weak: Weak<Runtime>,
    /// Held as long as the engine lives.
    _lock: std::fs::File,
}

impl Runtime {
    /// Opens the engine: finds the sandboxes and containers of before and connects to the shims that live.
    pub async fn open(config: Config) -> Result<Arc<Runtime>> {
        for directory in [
            config.root_dir.join("sandboxes"),
            config.root_dir.join("containers"),
            config.run_dir.join("sandboxes"),
            config.run_dir.join("oci"),
        ] {
            std::fs::create_dir_all(&directory).map_err(doing(directory.display()))?;
        }
        let lock = lock(&config.root_dir).await?;
        let cgroups = Cgroups::detect(&config.cgroup_root).map_err(doing("finding the control groups"))?;
        let images = ImageStore::open(&config.root_dir.join("images"))?;
        let executable = Executable::new().map_err(doing("making the shim's executable"))?;
        let bounding = sys::process::bounding_capabilities().map_err(doing("reading the capabilities"))?;
        let boot_id = sys::process::boot_id().map_err(doing("reading the boot id"))?;
        let runtime = Arc::new_cyclic(|weak| Runtime {
            cgroups,
            images,
            executable,
            bounding,
            boot_id,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            execs: Mutex::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            streams: crate::stream::Tokens::default(),
            weak: weak.clone(),
            config,
            _lock: lock,
        });
        runtime.recover().await?;
        Ok(runtime)
    }

    /// The images of this node.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// Imports an image archive (docker-archive or OCI layout).
    pub async fn import_image(self: &Arc<Self>, archive: &Path) -> Result<Vec<crate::image::Image>> {
        let (runtime, archive) = (Arc::clone(self), archive.to_owned());
        blocking(move || Ok(runtime.images.import(&archive)?)).await
    }

    /// Wall time in nanoseconds, as CRI carries it.
    pub(crate) fn now_ns(&self) -> i64 {
        i64::try_from(self.config.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// 64 hexadecimal digits, as other engines make them.
    pub(crate) fn new_id(&self) -> String {
        self.config
            .random
            .bytes::<32>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("sandboxes").join(id)
    }

    pub(crate) fn sandbox_run_dir(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("sandboxes").join(id)
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.root_dir.join("containers").join(id)
    }

    pub(crate) fn oci_root(&self) -> PathBuf {
        self.config.run_dir.join("oci")
    }

    /// Finds a sandbox by its id or the beginning of one.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        find(&self.sandboxes.lock(), id).ok_or_else(|| Error::NotFound(format!("sandbox {id:?} not found")))
    }

    /// Finds a container by its id or the beginning of one.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        find(&self.containers.lock(), id).ok_or_else(|| Error::NotFound(format!("container {id:?} not found")))
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let containers = self.containers.lock();
        containers
            .values()
            .filter(|container| container.record.lock().sandbox_id == sandbox)
            .cloned()
            .collect()
    }

    /// Layers that containers stand on.
    pub(crate) fn used_layers(&self) -> BTreeSet<String> {
        let containers = self.containers.lock();
        containers
            .values()
            .flat_map(|container| container.record.lock().layers.clone())
            .collect()
    }

    pub(crate) fn save_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        records::save(&self.sandbox_dir(&sandbox.id), &*sandbox.record.lock())
    }

    pub(crate) fn save_container(&self, container: &Container) -> Result<()> {
        records::save(&self.container_dir(&container.id), &*container.record.lock())
    }

    /// Changes a container's record, writes it, and tells those who wait.
    pub(crate) fn update_container(
        &self,
        container: &Container,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<()> {
        let state = {
            let mut record = container.record.lock();
            change(&mut record);
            record.state()
        };
        let saved = self.save_container(container);
        container.state.send_replace(state);
        saved
    }

    /// Tells event readers. Statuses come along, so that they need not ask back.
    pub(crate) fn emit(&self, id: &str, sandbox: &str, kind: cri::ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let status = self
            .sandboxes
            .lock()
            .get(sandbox)
            .cloned()
            .map(|sandbox| self.sandbox_status(&sandbox));
        let containers = self.containers_of(sandbox);
        // Fails only if nobody listens.
        let _ = self.events.send(cri::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: self.now_ns(),
            pod_sandbox_status: status,
            containers_statuses: containers
                .iter()
                .map(|container| self.container_status(container))
                .collect(),
        });
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<cri::ContainerEventResponse> {
        self.events.subscribe()
    }

    /// The receiver of shims' events, which does not keep the engine alive.
    pub(crate) fn shim_events(&self) -> Arc<dyn Events> {
        Arc::new(ShimEvents(self.weak.clone()))
    }

    async fn recover(self: &Arc<Self>) -> Result<()> {
        let (sandboxes, mut broken) = records::load::<SandboxRecord>(&self.config.root_dir.join("sandboxes"))?;
        let (containers, broken_containers) =
            records::load::<ContainerRecord>(&self.config.root_dir.join("containers"))?;
        broken.extend(broken_containers);
        for directory in broken {
            tracing::warn!(directory = %directory.display(), "sweeping what a crash left half made");
            let swept = sys::mounts::detach_below(&directory).and_then(|()| crate::files::remove_tree(&directory));
            swept.map_err(doing(directory.display()))?;
        }
        for record in containers {
            self.containers
                .lock()
                .insert(record.id.clone(), Arc::new(Container::new(record)));
        }
        for record in sandboxes {
            let sandbox = Arc::new(Sandbox::new(record));
            self.sandboxes.lock().insert(sandbox.id.clone(), sandbox);
        }
        let all: Vec<_> = self.sandboxes.lock().values().cloned().collect();
        for sandbox in &all {
            self.reconnect(sandbox).await;
        }
        // A container whose sandbox's record is gone has nobody who would remove it.
        let orphans: Vec<_> = {
            let sandboxes = self.sandboxes.lock();
            let containers = self.containers.lock();
            let orphan = |container: &&Arc<Container>| !sandboxes.contains_key(&container.record.lock().sandbox_id);
            containers.values().filter(orphan).cloned().collect()
        };
        for container in orphans {
            if let Err(err) = self.remove_container(&container.id).await {
                tracing::warn!(container = %container.id, %err, "cannot remove a container without a sandbox");
            }
        }
        let (runtime, used) = (Arc::clone(self), self.used_layers());
        blocking(move || Ok(runtime.images.collect_garbage(&used)?)).await
    }

    /// Finds a sandbox's shim again and learns what happened meanwhile.
    async fn reconnect(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let record = sandbox.record.lock().clone();
        if !record.ready {
            // Half made or half taken apart: whatever there is of it ends here. A shim that was told nothing yet is in no
            // control group, but it listens.
            let socket = self.sandbox_run_dir(&sandbox.id).join("shim.sock");
            if let Ok((client, _)) = Client::connect(&socket, &sandbox.id, self.shim_events()).await {
                let _ = client.tell(crate::protocol::Call::Shutdown).await;
            }
            self.shim_lost(sandbox).await;
            return;
        }
        let same_boot = record.boot_id == self.boot_id;
        let socket = self.sandbox_run_dir(&sandbox.id).join("shim.sock");
        let lives = same_boot && sys::process::is_running(record.shim_pid, record.shim_ticks);
        let connected = if lives {
            Client::connect(&socket, &sandbox.id, self.shim_events()).await.ok()
        } else {
            None
        };
        let Some((client, state)) = connected else {
            tracing::warn!(sandbox = %sandbox.id, "the pod's shim is gone");
            self.shim_lost(sandbox).await;
            return;
        };
        *sandbox.shim.lock() = Some(client);
        for container in self.containers_of(&sandbox.id) {
            let known = state.containers.iter().find(|known| known.container == container.id);
            let (id, recorded) = (container.id.clone(), container.record.lock().state());
            match (known, recorded) {
                (Some(known), cri::ContainerState::ContainerCreated | cri::ContainerState::ContainerRunning) => {
                    let updated = self.update_container(&container, |record| {
                        record.set_state(cri::ContainerState::ContainerRunning);
                        (record.pid, record.start_ticks) = (known.pid, known.start_ticks);
                        record.started_at = known.started_ns;
                    });
                    if let Err(err) = updated {
                        tracing::warn!(container = %id, %err, "cannot write the record");
                    }
                    if let Some(exit) = known.exit {
                        self.container_ended(&container, exit).await;
                    }
                }
                (None, cri::ContainerState::ContainerRunning) => self.container_lost(&container).await,
                _ => {}
            }
        }
    }

    /// Without its shim a sandbox is dead: what still runs of it is killed, since nobody would learn of its end.
    pub(crate) async fn shim_lost(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        sandbox.shim.lock().take();
        let _changing = sandbox.changing.lock().await;
        let was_ready = std::mem::replace(&mut sandbox.record.lock().ready, false);
        let runtime = Arc::clone(self);
        let groups: Vec<String> = self
            .containers_of(&sandbox.id)
            .iter()
            .map(|c| c.record.lock().cgroup.clone())
            .collect();
        let shim_group = self.shim_cgroup(sandbox);
        let killed = blocking(move || {
            for group in groups.iter().chain([&shim_group]).filter(|group| !group.is_empty()) {
                let group = runtime.cgroups.group(group);
                if group.exists() {
                    group
                        .kill_and_remove()
                        .map_err(doing("killing what a lost shim left"))?;
                }
            }
            Ok(())
        })
        .await;
        if let Err(err) = killed {
            tracing::error!(sandbox = %sandbox.id, %err, "processes of a lost pod may still run");
        }
        for container in self.containers_of(&sandbox.id) {
            if container.record.lock().state() == cri::ContainerState::ContainerRunning {
                self.container_lost(&container).await;
            }
        }
        if let Err(err) = self.teardown_network(sandbox, false).await {
            tracing::warn!(sandbox = %sandbox.id, %err, "the pod's network could not be taken away");
        }
        if let Err(err) = self.save_sandbox(sandbox) {
            tracing::warn!(sandbox = %sandbox.id, %err, "cannot write the record");
        }
        if was_ready {
            self.emit(&sandbox.id, &sandbox.id, cri::ContainerEventType::ContainerStoppedEvent);
        }
    }
}

impl Sandbox {
    pub(crate) fn new(record: SandboxRecord) -> Sandbox {
        Sandbox {
            id: record.id.clone(),
            record: Mutex::new(record),
            shim: Mutex::new(None),
            changing: tokio::sync::Mutex::new(()),
        }
    }

    /// The connection to its shim, while it is ready.
    pub(crate) fn client(&self) -> Result<Client> {
        let client = self.shim.lock().clone();
        client.ok_or_else(|| Error::State(format!("sandbox {} is not ready", self.id)))
    }
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Container {
        Container {
            id: record.id.clone(),
            state: watch::channel(record.state()).0,
            record: Mutex::new(record),
            changing: tokio::sync::Mutex::new(()),
            cpu: Mutex::new(None),
        }
    }
}

struct ShimEvents(Weak<Runtime>);

impl Events for ShimEvents {
    fn container_exited(&self, container: &str, exit: Exit) {
        let Some(runtime) = self.0.upgrade() else { return };
        let container = runtime.containers.lock().get(container).cloned();
        if let Some(container) = container {
            tokio::spawn(async move { runtime.container_ended(&container, exit).await });
        }
    }

    fn exec_exited(&self, exec: &str, exit: Exit) {
        let Some(runtime) = self.0.upgrade() else { return };
        let sender = runtime.execs.lock().remove(exec);
        if let Some(sender) = sender {
            // Whoever started it may have gone.
            let _ = sender.send(exit);
        }
    }

    fn lost(&self, sandbox: &str) {
        let Some(runtime) = self.0.upgrade() else { return };
        let sandbox = runtime.sandboxes.lock().get(sandbox).cloned();
        // A shim that was asked to end is not in its sandbox any more.
        if let Some(sandbox) = sandbox.filter(|sandbox| sandbox.shim.lock().is_some()) {
            tracing::error!(sandbox = %sandbox.id, "the pod's shim died");
            tokio::spawn(async move { runtime.shim_lost(&sandbox).await });
        }
    }
}

/// Two engines over one directory would take each other's containers for lost.
async fn lock(root_dir: &Path) -> Result<std::fs::File> {
    use rustix::fs::{FlockOperation, flock};
    let path = root_dir.join("lock");
    let file = std::fs::File::create(&path).map_err(doing(path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(file);
    }
    let (tell, told) = oneshot::channel();
    // On a thread, because the kernel has no wait with a limit; one that comes too late lets go of the lock at once.
    std::thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive).map(|()| file);
        let _ = tell.send(locked);
    });
    match tokio::time::timeout(LOCK_WAIT, told).await {
        Ok(Ok(locked)) => locked.map_err(|err| doing(path.display())(err.into())),
        _ => Err(Error::State(format!(
            "another container engine uses {}: end it first",
            root_dir.display()
        ))),
    }
}

fn find<T>(map: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = map.get(id) {
        return Some(Arc::clone(found));
    }
    // crictl's users type beginnings.
    if id.is_empty() {
        return None;
    }
    let mut matching = map.range(id.to_owned()..).take_while(|(key, _)| key.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Some(Arc::clone(found)),
        _ => None,
    }
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|err| Error::Internal(err.to_string()))?
}
