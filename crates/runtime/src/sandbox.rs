//! Sandboxes: a pod's namespaces, control group, files and network, around a shim.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rpc::cri;
use sys::cgroup::Limits;

use crate::error::{Error, Result, doing};
use crate::network::{PodNetworkRequest, PortMapping};
use crate::protocol::{Answer, Call};
use crate::records::{SandboxRecord, required};
use crate::runtime::{Runtime, Sandbox, blocking};
use crate::shim::Client;

/// Shared memory of a pod, as Docker and containerd size it.
const SHM_BYTES: u64 = 64 << 20;
/// Linux's limit on a host name.
const HOSTNAME_BYTES_MAX: usize = 64;

impl Runtime {
    /// Makes a sandbox and starts its shim; the pod's network is ready when this returns.
    pub async fn run_sandbox(self: &Arc<Self>, config: cri::PodSandboxConfig, handler: &str) -> Result<String> {
        let metadata = required(config.metadata.clone(), "the sandbox's metadata")?;
        tracing::trace!(target: "walk", pod = metadata.name, "a sandbox is made");
        if !handler.is_empty() && handler != "runc" && handler != "trireme" {
            return Err(Error::Invalid(format!("no runtime for {handler:?} is configured")));
        }
        if config.hostname.len() > HOSTNAME_BYTES_MAX {
            return Err(Error::Invalid("the host name is too long".into()));
        }
        let options = namespace_options(&config);
        if options
            .userns_options
            .as_ref()
            .is_some_and(|user| !user.uids.is_empty())
        {
            return Err(Error::Unsupported(
                "user namespaces are not supported by this runtime yet".into(),
            ));
        }
        let same = |sandbox: &Arc<Sandbox>| sandbox.record.lock().config().metadata.as_ref() == Some(&metadata);
        if let Some(other) = self.sandboxes.lock().values().find(|sandbox| same(sandbox)) {
            let (name, id) = (&metadata.name, &other.id);
            return Err(Error::Exists(format!(
                "a sandbox of {name} attempt {} is there already: {id}",
                metadata.attempt
            )));
        }
        let id = self.new_id();
        let cgroup = match config
            .linux
            .as_ref()
            .map(|linux| linux.cgroup_parent.as_str())
            .unwrap_or_default()
        {
            "" => format!("pods/{id}"),
            parent => parent.to_owned(),
        };
        let record = SandboxRecord {
            id: id.clone(),
            config: Some(config),
            runtime_handler: handler.to_owned(),
            created_at: self.now_ns(),
            boot_id: self.boot_id.clone(),
            cgroup,
            ..SandboxRecord::default()
        };
        let sandbox = Arc::new(Sandbox::new(record));
        let changing = Arc::clone(&sandbox);
        let _changing = changing.changing.lock().await;
        self.sandboxes.lock().insert(id.clone(), Arc::clone(&sandbox));
        match self.start_sandbox(&sandbox).await {
            Ok(()) => {
                self.emit(&id, &id, cri::ContainerEventType::ContainerCreatedEvent);
                self.emit(&id, &id, cri::ContainerEventType::ContainerStartedEvent);
                Ok(id)
            }
            Err(err) => {
                if let Err(cleanup) = self.dismantle(&sandbox).await {
                    tracing::warn!(sandbox = %id, err = %cleanup, "a sandbox that failed was not cleaned up entirely");
                }
                self.delete_sandbox_files(&id).await?;
                self.sandboxes.lock().remove(&id);
                Err(err)
            }
        }
    }

    async fn start_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        let record = sandbox.record.lock().clone();
        let (config, run_dir) = (record.config(), self.sandbox_run_dir(&sandbox.id));
        let options = namespace_options(&config);
        let node = cri::NamespaceMode::Node;
        let own_ipc = options.ipc() != node;
        self.prepare_sandbox(sandbox, &config, own_ipc).await?;
        let socket = run_dir.join("shim.sock");
        let child = self
            .executable
            .spawn_shim(&socket, &run_dir.join("shim.log"))
            .map_err(doing("starting the shim"))?;
        let pid = child.id().map(|pid| pid as i32).unwrap_or_default();
        {
            let mut record = sandbox.record.lock();
            record.shim_pid = pid;
            record.shim_ticks = sys::process::start_ticks(pid).unwrap_or_default();
        }
        reap(child);
        let (client, _) = Client::connect(&socket, &sandbox.id, self.shim_events()).await?;
        let own_network = options.network() != node;
        let call = Call::Sandbox(crate::protocol::Sandbox {
            id: sandbox.id.clone(),
            hostname: Some(config.hostname.clone()).filter(|name| !name.is_empty()),
            network: own_network,
            ipc: own_ipc,
            // A pod in the node's network has the node's name.
            uts: own_network,
            shared_pid: options.pid() == cri::NamespaceMode::Pod,
            sysctls: config.linux.iter().flat_map(|linux| linux.sysctls.clone()).collect(),
            cgroups: self.cgroups.group(self.shim_cgroup(sandbox)).directories(),
            exits: run_dir.join("exits"),
        });
        let (answer, _) = client.call(call, Vec::new()).await?;
        *sandbox.shim.lock() = Some(client);
        if let Answer::Sandbox { pause_pid, warnings } = answer {
            sandbox.record.lock().pause_pid = pause_pid.unwrap_or_default();
            for warning in warnings {
                tracing::warn!(sandbox = %sandbox.id, "{warning}");
            }
        }
        if own_network {
            // Before it is done: a crash in between has to take away what there may be.
            sandbox.record.lock().network_made = true;
            self.save_sandbox(sandbox)?;
            let request = self.network_request(sandbox, true);
            let ips = self.config.network.setup(&request).await;
            let ips = ips.map_err(|err| Error::Internal(format!("failed to setup network for sandbox: {err}")))?;
            sandbox.record.lock().ips = ips.iter().map(IpAddr::to_string).collect();
        }
        sandbox.record.lock().ready = true;
        self.save_sandbox(sandbox)
    }

    /// Directories, files, shared memory and control groups.
    async fn prepare_sandbox(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        config: &cri::PodSandboxConfig,
        own_ipc: bool,
    ) -> Result<()> {
        let (runtime, sandbox, config) = (Arc::clone(self), Arc::clone(sandbox), config.clone());
        blocking(move || {
            let (dir, run_dir) = (runtime.sandbox_dir(&sandbox.id), runtime.sandbox_run_dir(&sandbox.id));
            let make = |directory: &Path| std::fs::create_dir_all(directory).map_err(doing(directory.display()));
            make(&dir)?;
            // Before there is anything elsewhere: what has no record is not found again after a crash.
            runtime.save_sandbox(&sandbox)?;
            make(&run_dir)?;
            if !config.log_directory.is_empty() {
                std::fs::create_dir_all(&config.log_directory).map_err(doing(&config.log_directory))?;
            }
            let write = |name: &str, text: String| {
                let path = dir.join(name);
                std::fs::write(&path, text).map_err(doing(path.display()))
            };
            write("resolv.conf", resolv_conf(config.dns_config.as_ref()))?;
            let hostname = match config.hostname.as_str() {
                "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
                name => name.to_owned(),
            };
            write("hostname", format!("{hostname}\n"))?;
            write(
                "hosts",
                "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".into(),
            )?;
            if own_ipc {
                let shm = run_dir.join("shm");
                std::fs::create_dir_all(&shm).map_err(doing(shm.display()))?;
                sys::mounts::tmpfs(&shm, SHM_BYTES, 0o1777).map_err(doing("mounting the pod's shared memory"))?;
            }
            let pod = runtime.cgroups.group(&sandbox.record.lock().cgroup);
            runtime
                .cgroups
                .group(runtime.shim_cgroup(&sandbox))
                .create()
                .map_err(doing("making the pod's control group"))?;
            let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone());
            if let Some(resources) = resources {
                pod.apply(&limits(&resources)).map_err(doing("limiting the pod"))?;
            }
            Ok(())
        })
        .await
    }

    /// The control group of a sandbox's shim: beside those of its containers.
    pub(crate) fn shim_cgroup(&self, sandbox: &Sandbox) -> String {
        format!(
            "{}/shim-{}",
            sandbox.record.lock().cgroup,
            sandbox.id.get(..12).unwrap_or(&sandbox.id)
        )
    }

    /// Ends everything in a sandbox and takes its network away; what is there stays to be looked at until it is removed.
    pub async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else {
            return Ok(());
        };
        let _changing = sandbox.changing.lock().await;
        let was_ready = sandbox.record.lock().ready;
        for container in self.containers_of(&sandbox.id) {
            self.stop_container(&container.id, 0).await?;
        }
        self.dismantle(&sandbox).await?;
        if was_ready {
            self.emit(&sandbox.id, &sandbox.id, cri::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Takes a sandbox apart, in an order that can be begun again after a failure.
    async fn dismantle(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        sandbox.record.lock().ready = false;
        self.teardown_network(sandbox, true).await?;
        // Taken out first, so that its end is no surprise.
        let client = sandbox.shim.lock().take();
        if let Some(client) = client
            && let Err(err) = client.tell(Call::Shutdown).await
        {
            tracing::debug!(sandbox = %sandbox.id, %err, "the shim ended without saying so");
        }
        let (runtime, sandbox) = (Arc::clone(self), Arc::clone(sandbox));
        blocking(move || {
            let group = runtime.cgroups.group(runtime.shim_cgroup(&sandbox));
            group
                .kill_and_remove()
                .map_err(doing("removing the pod's control group"))?;
            group.remove_with_empty_parents();
            let shm = runtime.sandbox_run_dir(&sandbox.id).join("shm");
            while sys::mounts::detach(&shm).map_err(doing("unmounting the pod's shared memory"))? {}
            runtime.save_sandbox(&sandbox)
        })
        .await
    }

    /// Removes a sandbox and its containers.
    pub async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else {
            return Ok(());
        };
        self.stop_sandbox(&sandbox.id).await?;
        let _changing = sandbox.changing.lock().await;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.delete_sandbox_files(&sandbox.id).await?;
        self.sandboxes.lock().remove(&sandbox.id);
        let runtime = Arc::clone(self);
        let cgroup = sandbox.record.lock().cgroup.clone();
        blocking(move || {
            runtime.cgroups.group(cgroup).remove_with_empty_parents();
            Ok(())
        })
        .await?;
        self.emit(&sandbox.id, &sandbox.id, cri::ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    async fn delete_sandbox_files(&self, id: &str) -> Result<()> {
        let directories = [self.sandbox_run_dir(id), self.sandbox_dir(id)];
        blocking(move || {
            for directory in directories {
                sys::mounts::detach_below(&directory).map_err(doing(directory.display()))?;
                crate::files::remove_tree(&directory).map_err(doing(directory.display()))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a pod's network away if there is any; `alive` says whether its namespace still is.
    pub(crate) async fn teardown_network(&self, sandbox: &Sandbox, alive: bool) -> Result<()> {
        if !sandbox.record.lock().network_made {
            return Ok(());
        }
        let request = self.network_request(sandbox, alive && sandbox.shim.lock().is_some());
        let result = self.config.network.teardown(&request).await;
        result
            .map_err(|err| Error::Internal(format!("failed to destroy network for sandbox {}: {err}", sandbox.id)))?;
        sandbox.record.lock().network_made = false;
        Ok(())
    }

    fn network_request(&self, sandbox: &Sandbox, alive: bool) -> PodNetworkRequest {
        let record = sandbox.record.lock();
        let config = record.config();
        let metadata = config.metadata.clone().unwrap_or_default();
        let port = |mapping: &cri::PortMapping| {
            Some(PortMapping {
                protocol: mapping.protocol().as_str_name(),
                container_port: u16::try_from(mapping.container_port).ok()?,
                host_port: u16::try_from(mapping.host_port).ok().filter(|port| *port > 0)?,
                host_ip: mapping.host_ip.clone(),
            })
        };
        PodNetworkRequest {
            sandbox_id: sandbox.id.clone(),
            netns: alive.then(|| PathBuf::from(format!("/proc/{}/ns/net", record.shim_pid))),
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            labels: config.labels.into_iter().collect::<BTreeMap<_, _>>(),
            annotations: config.annotations.into_iter().collect::<BTreeMap<_, _>>(),
            ports: config.port_mappings.iter().filter_map(port).collect(),
            ips: record.ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        }
    }

    /// A sandbox as CRI tells it.
    pub(crate) fn sandbox_status(&self, sandbox: &Sandbox) -> cri::PodSandboxStatus {
        let record = sandbox.record.lock();
        let config = record.config();
        let ips = if record.ready { record.ips.clone() } else { Vec::new() };
        let mut ips = ips.into_iter();
        cri::PodSandboxStatus {
            id: sandbox.id.clone(),
            metadata: config.metadata.clone(),
            state: state(&record).into(),
            created_at: record.created_at,
            network: Some(cri::PodSandboxNetworkStatus {
                ip: ips.next().unwrap_or_default(),
                additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
            }),
            linux: Some(cri::LinuxPodSandboxStatus {
                namespaces: Some(cri::Namespace {
                    options: Some(namespace_options(&config)),
                }),
            }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: record.runtime_handler.clone(),
        }
    }

    /// The sandboxes that fit a filter.
    pub fn list_sandboxes(&self, filter: &cri::PodSandboxFilter) -> Vec<cri::PodSandbox> {
        let sandboxes: Vec<_> = self.sandboxes.lock().values().cloned().collect();
        let fits = |sandbox: &cri::PodSandbox| {
            (filter.id.is_empty() || sandbox.id.starts_with(&filter.id))
                && filter.state.as_ref().is_none_or(|state| state.state == sandbox.state)
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| sandbox.labels.get(key) == Some(value))
        };
        let listed = sandboxes.iter().map(|sandbox| {
            let record = sandbox.record.lock();
            let config = record.config();
            cri::PodSandbox {
                id: sandbox.id.clone(),
                metadata: config.metadata,
                state: state(&record).into(),
                created_at: record.created_at,
                labels: config.labels,
                annotations: config.annotations,
                runtime_handler: record.runtime_handler.clone(),
            }
        });
        listed.filter(fits).collect()
    }
}

fn state(record: &SandboxRecord) -> cri::PodSandboxState {
    if record.ready {
        cri::PodSandboxState::SandboxReady
    } else {
        cri::PodSandboxState::SandboxNotready
    }
}

/// The pod's namespaces as asked for.
pub(crate) fn namespace_options(config: &cri::PodSandboxConfig) -> cri::NamespaceOption {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security
        .and_then(|security| security.namespace_options.clone())
        .unwrap_or_default()
}

/// CRI's resources as limits: zero is "not said", as in every CRI runtime.
pub(crate) fn limits(resources: &cri::LinuxContainerResources) -> Limits {
    let some = |value: i64| (value != 0).then_some(value);
    let text = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Limits {
        memory_bytes: some(resources.memory_limit_in_bytes),
        memory_swap_bytes: some(resources.memory_swap_limit_in_bytes),
        cpu_shares: positive(resources.cpu_shares),
        cpu_quota_us: some(resources.cpu_quota),
        cpu_period_us: positive(resources.cpu_period),
        cpuset_cpus: text(&resources.cpuset_cpus),
        cpuset_mems: text(&resources.cpuset_mems),
        pids: resources.unified.get("pids.max").and_then(|value| value.parse().ok()),
        hugepages: resources
            .hugepage_limits
            .iter()
            .filter(|limit| limit.limit > 0)
            .map(|limit| (limit.page_size.clone(), limit.limit))
            .collect(),
        unified: resources.unified.clone().into_iter().collect(),
    }
}

fn resolv_conf(dns: Option<&cri::DnsConfig>) -> String {
    let Some(dns) = dns else {
        return std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    };
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// Waits for a shim in the background, so that it does not stay behind as a zombie while this daemon lives.
fn reap(mut child: tokio::process::Child) {
    tokio::spawn(async move {
        let _ = child.wait().await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolver_files() {
        let dns = cri::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(
            resolv_conf(Some(&dns)),
            "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
        assert_eq!(resolv_conf(Some(&cri::DnsConfig::default())), "");
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(limits(&cri::LinuxContainerResources::default()), Limits::default());
        let resources = cri::LinuxContainerResources {
            cpu_quota: -1,
            cpu_shares: 2,
            ..Default::default()
        };
        let expect = Limits {
            cpu_quota_us: Some(-1),
            cpu_shares: Some(2),
            ..Limits::default()
        };
        assert_eq!(limits(&resources), expect);
    }
}
