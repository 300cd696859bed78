//! Containers: from what was made of an image and a request to a process, its end, and its traces.

mod create;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rpc::cri;
use rpc::cri::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};

use crate::error::{Error, Result, doing};
use crate::protocol::{Answer, Call, EXIT_UNKNOWN, Exit, Run};
use crate::records::ContainerRecord;
use crate::runtime::{Container, Runtime, Sandbox, blocking};
use crate::sandbox::limits;
use crate::spec::PidNamespace;

/// Longest wait for a process to end after SIGKILL: one in an uninterruptible wait of the kernel may take long.
const KILL_TIMEOUT: Duration = Duration::from_secs(120);
/// Exit code of a container that could not be started, as containerd reports it.
const EXIT_START_ERROR: i32 = 128;

impl Runtime {
    /// Starts a container that was created.
    pub async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record.lock().clone();
        if record.state() != ContainerCreated {
            return Err(Error::State(format!(
                "container is in {} state",
                record.state().as_str_name()
            )));
        }
        let sandbox = self.sandbox(&record.sandbox_id)?;
        match self.run_container(&sandbox, &record).await {
            Ok((pid, start_ticks, started_ns)) => {
                // A short one may have ended, and been recorded, before the answer came.
                self.update_container(&container, |record| {
                    (record.pid, record.start_ticks, record.started_at) = (pid, start_ticks, started_ns);
                    if record.state() == ContainerCreated {
                        record.set_state(ContainerRunning);
                    }
                })?;
                self.emit(
                    &container.id,
                    &sandbox.id,
                    cri::ContainerEventType::ContainerStartedEvent,
                );
                if record_exited(&container) {
                    self.emit(
                        &container.id,
                        &sandbox.id,
                        cri::ContainerEventType::ContainerStoppedEvent,
                    );
                }
                Ok(())
            }
            Err(err) => {
                let now = self.now_ns();
                self.update_container(&container, |record| {
                    record.set_state(ContainerExited);
                    (record.exit_code, record.finished_at) = (EXIT_START_ERROR, now);
                    (record.reason, record.message) = ("StartError".into(), err.to_string());
                })?;
                self.remove_cgroup(&container).await;
                self.emit(
                    &container.id,
                    &sandbox.id,
                    cri::ContainerEventType::ContainerStoppedEvent,
                );
                Err(err)
            }
        }
    }

    async fn run_container(self: &Arc<Self>, sandbox: &Sandbox, record: &ContainerRecord) -> Result<(i32, u64, i64)> {
        let client = sandbox.client()?;
        let config = record.config.clone().unwrap_or_default();
        let resources = record.resources.clone().unwrap_or_default();
        let runtime = Arc::clone(self);
        let prepared = record.clone();
        let (cgroups, oom_file, devices) = blocking(move || {
            let group = runtime.cgroups.group(&prepared.cgroup);
            group.create().map_err(doing("making the container's control group"))?;
            let resources = prepared.resources.clone().unwrap_or_default();
            group
                .apply(&limits(&resources))
                .map_err(doing("limiting the container"))?;
            let rootfs = runtime.container_dir(&prepared.id).join("rootfs");
            if !sys::mounts::is_mount_point(&rootfs).map_err(doing(rootfs.display()))? {
                runtime.mount_rootfs(&prepared)?;
            }
            let log = PathBuf::from(&prepared.log_path);
            if let Some(parent) = log.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                std::fs::create_dir_all(parent).map_err(doing(parent.display()))?;
            }
            // Left behind by a daemon that died while it started this container.
            let state = runtime.oci_root().join(&prepared.id);
            crate::files::remove_tree(&state).map_err(doing(state.display()))?;
            let devices = match runtime.cgroups.version() {
                sys::cgroup::Version::V1 => None,
                sys::cgroup::Version::V2 => {
                    let path = runtime.container_dir(&prepared.id).join("devices.json");
                    let bytes = std::fs::read(&path).map_err(doing(path.display()))?;
                    let devices = serde_json::from_slice(&bytes);
                    Some(devices.map_err(|err| Error::Internal(format!("{}: {err}", path.display())))?)
                }
            };
            Ok((group.directories(), group.oom_file(), devices))
        })
        .await?;
        let private_pid = self.pid_namespace(sandbox, &config)? == PidNamespace::New;
        let run = Run {
            container: record.id.clone(),
            bundle: self.container_dir(&record.id),
            oci_root: self.oci_root(),
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            log_path: Some(PathBuf::from(&record.log_path)).filter(|path| !path.as_os_str().is_empty()),
            log_bytes_max: self.config.log_bytes_max,
            oom_score_adj: Some(i32::try_from(resources.oom_score_adj).unwrap_or_default()),
            seccomp: record.seccomp,
            cgroups,
            oom_file,
            kill_rest: !private_pid,
            devices,
            spread: crate::spec::spread(&config),
        };
        match client.call(Call::Run(Box::new(run)), Vec::new()).await?.0 {
            Answer::Started {
                pid,
                start_ticks,
                started_ns,
                warnings,
            } => {
                for warning in warnings {
                    self.warn_once(&warning);
                }
                Ok((pid, start_ticks, started_ns))
            }
            _ => Err(Error::Internal("the pod's shim gave a strange answer".into())),
        }
    }

    /// A lacking capability of the node concerns every container alike: said once.
    fn warn_once(&self, warning: &str) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| tracing::warn!("containers: {warning} (said once)"));
    }

    /// A container ended; its shim wrote the record before it told.
    pub(crate) async fn container_ended(self: &Arc<Self>, container: &Arc<Container>, exit: Exit) {
        let (mut news, mut sandbox) = (false, String::new());
        let updated = self.update_container(container, |record| {
            sandbox.clone_from(&record.sandbox_id);
            if record.state() == ContainerExited {
                return;
            }
            // The start's own answer is on its way if it was not running yet.
            news = record.state() == ContainerRunning;
            record.set_state(ContainerExited);
            record.exit_code = exit.code;
            record.finished_at = exit.finished_ns;
            record.started_at = if record.started_at == 0 {
                exit.started_ns
            } else {
                record.started_at
            };
            let reason = match (exit.oom_killed, exit.code) {
                (true, code) if code != 0 => "OOMKilled",
                (_, 0) => "Completed",
                _ => "Error",
            };
            record.reason = reason.into();
        });
        if let Err(err) = updated {
            tracing::warn!(container = %container.id, %err, "cannot write the record");
        }
        self.remove_cgroup(container).await;
        if news {
            self.emit(&container.id, &sandbox, cri::ContainerEventType::ContainerStoppedEvent);
        }
    }

    /// A container whose shim is gone: its end was recorded, or nobody knows it.
    pub(crate) async fn container_lost(self: &Arc<Self>, container: &Arc<Container>) {
        let sandbox = container.record.lock().sandbox_id.clone();
        let record = self.sandbox_run_dir(&sandbox).join("exits").join(&container.id);
        let known = std::fs::read(record)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Exit>(&bytes).ok());
        if let Some(exit) = known {
            return self.container_ended(container, exit).await;
        }
        let now = self.now_ns();
        let updated = self.update_container(container, |record| {
            record.set_state(ContainerExited);
            (record.exit_code, record.finished_at) = (EXIT_UNKNOWN, now);
            record.reason = "Unknown".into();
            record.message = "the container's supervisor is gone, and with it how the container ended".into();
        });
        if let Err(err) = updated {
            tracing::warn!(container = %container.id, %err, "cannot write the record");
        }
        self.remove_cgroup(container).await;
        self.emit(&container.id, &sandbox, cri::ContainerEventType::ContainerStoppedEvent);
    }

    async fn remove_cgroup(self: &Arc<Self>, container: &Container) {
        let (runtime, cgroup) = (Arc::clone(self), container.record.lock().cgroup.clone());
        let removed = blocking(move || {
            let group = runtime.cgroups.group(&cgroup);
            if group.exists() {
                group.kill_and_remove().map_err(doing("removing the control group"))
            } else {
                Ok(())
            }
        });
        if let Err(err) = removed.await {
            tracing::warn!(container = %container.id, %err, "a control group stays behind");
        }
    }

    /// Asks a container to end, and kills it `timeout_seconds` later. Fine if it ended already or is not there.
    pub async fn stop_container(self: &Arc<Self>, id: &str, timeout_seconds: i64) -> Result<()> {
        let Ok(container) = self.container(id) else {
            return Ok(());
        };
        let record = container.record.lock().clone();
        if record.state() != ContainerRunning {
            // What was created and never started ends without having run.
            return Ok(());
        }
        let client = match self.sandbox(&record.sandbox_id).and_then(|sandbox| sandbox.client()) {
            Ok(client) => client,
            Err(_) => {
                self.container_lost(&container).await;
                return Ok(());
            }
        };
        let mut state = container.state.subscribe();
        let kill = |signal: i32| {
            let (client, container) = (client.clone(), record.id.clone());
            async move { client.tell(Call::Kill { container, signal }).await }
        };
        if timeout_seconds > 0 {
            kill(record.stop_signal).await?;
            let grace = Duration::from_secs(timeout_seconds.unsigned_abs());
            if ended(&mut state, grace).await {
                return Ok(());
            }
        }
        kill(rustix::process::Signal::KILL.as_raw()).await?;
        if ended(&mut state, KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(Error::Deadline(format!(
            "container {} does not end although it was killed",
            container.id
        )))
    }

    /// Removes a container; kills it first if it runs.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else {
            return Ok(());
        };
        self.stop_container(&container.id, 0).await?;
        let _changing = container.changing.lock().await;
        let sandbox_id = container.record.lock().sandbox_id.clone();
        if let Ok(sandbox) = self.sandbox(&sandbox_id) {
            if let Ok(client) = sandbox.client() {
                client
                    .tell(Call::Forget {
                        container: container.id.clone(),
                    })
                    .await?;
            }
            let exit = self.sandbox_run_dir(&sandbox_id).join("exits").join(&container.id);
            crate::files::remove_tree(&exit).map_err(doing(exit.display()))?;
        }
        self.remove_cgroup(&container).await;
        let (runtime, id) = (Arc::clone(self), container.id.clone());
        blocking(move || runtime.delete_container_files(&id)).await?;
        self.containers.lock().remove(&container.id);
        self.emit(
            &container.id,
            &sandbox_id,
            cri::ContainerEventType::ContainerDeletedEvent,
        );
        Ok(())
    }

    /// Blocks.
    fn delete_container_files(&self, id: &str) -> Result<()> {
        let (directory, state) = (self.container_dir(id), self.oci_root().join(id));
        let rootfs = directory.join("rootfs");
        while sys::mounts::detach(&rootfs).map_err(doing(rootfs.display()))? {}
        for path in [state, directory] {
            crate::files::remove_tree(&path).map_err(doing(path.display()))?;
        }
        Ok(())
    }

    /// Opens a container's log anew after somebody renamed it.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        let record = container.record.lock().clone();
        if record.state() != ContainerRunning {
            return Err(Error::State("container is not running".into()));
        }
        let client = self.sandbox(&record.sandbox_id)?.client()?;
        Ok(client
            .tell(Call::ReopenLog {
                container: container.id.clone(),
            })
            .await?)
    }

    /// Changes a container's limits; what is zero stays as it is.
    pub async fn update_resources(self: &Arc<Self>, id: &str, new: cri::LinuxContainerResources) -> Result<()> {
        let container = self.container(id)?;
        let _changing = container.changing.lock().await;
        let record = container.record.lock().clone();
        let mut merged = record.resources.clone().unwrap_or_default();
        merge_resources(&mut merged, &new);
        if record.state() == ContainerRunning {
            let runtime = Arc::clone(self);
            let changed = limits(&new);
            blocking(move || {
                runtime
                    .cgroups
                    .group(&record.cgroup)
                    .apply(&changed)
                    .map_err(doing("limiting the container"))
            })
            .await?;
        }
        self.update_container(&container, |record| record.resources = Some(merged))
    }
}

fn record_exited(container: &Container) -> bool {
    container.record.lock().state() == ContainerExited
}

/// Whether the container ends in time.
async fn ended(state: &mut tokio::sync::watch::Receiver<cri::ContainerState>, within: Duration) -> bool {
    let wait = state.wait_for(|state| *state == ContainerExited);
    // The sender lives as long as the container; its end means that the container was removed.
    tokio::time::timeout(within, wait).await.is_ok()
}

fn merge_resources(old: &mut cri::LinuxContainerResources, new: &cri::LinuxContainerResources) {
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field != cri::LinuxContainerResources::default().$field {
                old.$field = new.$field.clone();
            }
        )*};
    }
    take!(
        cpu_period,
        cpu_quota,
        cpu_shares,
        memory_limit_in_bytes,
        oom_score_adj,
        cpuset_cpus,
        cpuset_mems
    );
    take!(hugepage_limits, memory_swap_limit_in_bytes);
    old.unified.extend(new.unified.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_merge() {
        let mut old = cri::LinuxContainerResources {
            cpu_shares: 100,
            memory_limit_in_bytes: 5,
            ..Default::default()
        };
        let new = cri::LinuxContainerResources {
            cpu_shares: 200,
            ..Default::default()
        };
        merge_resources(&mut old, &new);
        assert_eq!((old.cpu_shares, old.memory_limit_in_bytes), (200, 5));
    }
}
