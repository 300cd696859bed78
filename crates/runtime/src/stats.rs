//! What containers and pods use, measured when asked.

use std::path::Path;
use std::sync::Arc;

use rpc::cri;
use sys::disk::usage as disk_usage;

use crate::error::Result;
use crate::runtime::{Container, Runtime, Sandbox, blocking};

impl Runtime {
    /// A container's use; one that does not run uses disk only.
    pub(crate) async fn container_stats(self: &Arc<Self>, container: &Arc<Container>) -> Result<cri::ContainerStats> {
        let (runtime, container) = (Arc::clone(self), Arc::clone(container));
        blocking(move || Ok(runtime.measure(&container))).await
    }

    fn measure(&self, container: &Container) -> cri::ContainerStats {
        let record = container.record.lock().clone();
        let config = record.config.clone().unwrap_or_default();
        let timestamp = self.now_ns();
        let directory = self.container_dir(&container.id);
        let (used_bytes, inodes) = disk_usage(&directory.join("upper"));
        let mut stats = cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: container.id.clone(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            writable_layer: Some(filesystem_usage(timestamp, &self.config.root_dir, used_bytes, inodes)),
            ..Default::default()
        };
        if record.state() == cri::ContainerState::ContainerRunning {
            let usage = self.cgroups.group(&record.cgroup).usage();
            let rate = cpu_rate(&container.cpu, timestamp, usage.cpu_ns);
            let (cpu, memory) = usage_stats(timestamp, &usage, rate);
            (stats.cpu, stats.memory) = (Some(cpu), Some(memory));
            stats.swap = Some(cri::SwapUsage {
                timestamp,
                swap_available_bytes: None,
                swap_usage_bytes: value(usage.swap_bytes),
            });
        }
        stats
    }

    /// A pod's use: of its control group, with those of its containers.
    pub(crate) async fn sandbox_stats(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<cri::PodSandboxStats> {
        let mut containers = Vec::new();
        for container in self.containers_of(&sandbox.id) {
            if container.record.lock().state() == cri::ContainerState::ContainerRunning {
                containers.push(self.container_stats(&container).await?);
            }
        }
        let record = sandbox.record.lock().clone();
        let config = record.config();
        let timestamp = self.now_ns();
        let mut linux = cri::LinuxPodSandboxStats {
            containers,
            ..Default::default()
        };
        if record.ready {
            let usage = self.cgroups.group(&record.cgroup).usage();
            let rates = linux
                .containers
                .iter()
                .filter_map(|stats| stats.cpu.as_ref()?.usage_nano_cores.as_ref());
            let rate = rates.map(|rate| rate.value).sum();
            let (cpu, memory) = usage_stats(timestamp, &usage, Some(rate));
            (linux.cpu, linux.memory) = (Some(cpu), Some(memory));
            linux.process = Some(cri::ProcessUsage {
                timestamp,
                process_count: value(usage.pids),
            });
            linux.network = network_usage(timestamp, record.shim_pid);
        }
        Ok(cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            linux: Some(linux),
            windows: None,
        })
    }
}

/// A number where CRI tells absent from zero.
pub(crate) fn value(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

pub(crate) fn filesystem_usage(timestamp: i64, mountpoint: &Path, bytes: u64, inodes: u64) -> cri::FilesystemUsage {
    cri::FilesystemUsage {
        timestamp,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: value(bytes),
        inodes_used: value(inodes),
    }
}

fn usage_stats(timestamp: i64, usage: &sys::cgroup::Usage, rate: Option<u64>) -> (cri::CpuUsage, cri::MemoryUsage) {
    let cpu = cri::CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(usage.cpu_ns),
        usage_nano_cores: rate.and_then(value),
        psi: None,
    };
    let memory = cri::MemoryUsage {
        timestamp,
        working_set_bytes: value(usage.working_set_bytes),
        available_bytes: usage
            .memory_limit_bytes
            .and_then(|limit| value(limit.saturating_sub(usage.working_set_bytes))),
        usage_bytes: value(usage.memory_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        psi: None,
    };
    (cpu, memory)
}

/// Nanoseconds of processor a second since the last measurement.
fn cpu_rate(last: &parking_lot::Mutex<Option<(i64, u64)>>, now: i64, used: u64) -> Option<u64> {
    let (then, before) = last.lock().replace((now, used))?;
    let elapsed = u64::try_from(now - then).ok().filter(|elapsed| *elapsed > 0)?;
    Some((u128::from(used.saturating_sub(before)) * 1_000_000_000 / u128::from(elapsed)) as u64)
}

/// Counters of the pod's links; the one named `eth0`, or the first, stands for the pod.
fn network_usage(timestamp: i64, pid: i32) -> Option<cri::NetworkUsage> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let interfaces: Vec<cri::NetworkInterfaceUsage> = table.lines().filter_map(interface_usage).collect();
    let default = interfaces
        .iter()
        .find(|link| link.name == "eth0")
        .or(interfaces.first())
        .cloned();
    Some(cri::NetworkUsage {
        timestamp,
        default_interface: default,
        interfaces,
    })
}

fn interface_usage(line: &str) -> Option<cri::NetworkInterfaceUsage> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let name = name.trim();
    if name == "lo" || counters.len() < 11 {
        return None;
    }
    Some(cri::NetworkInterfaceUsage {
        name: name.to_owned(),
        rx_bytes: value(counters[0]),
        rx_errors: value(counters[2]),
        tx_bytes: value(counters[8]),
        tx_errors: value(counters[10]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let last = parking_lot::Mutex::new(None);
        assert_eq!(cpu_rate(&last, 1_000_000_000, 50), None);
        assert_eq!(cpu_rate(&last, 3_000_000_000, 1_000_000_050), Some(500_000_000));
        assert_eq!(cpu_rate(&last, 3_000_000_000, 1_000_000_050), None);
    }

    #[test]
    fn links() {
        let usage = interface_usage("  eth0: 100 1 2 0 0 0 0 0 200 3 4 0 0 0 0 0").unwrap();
        assert_eq!(
            (usage.name.as_str(), usage.rx_bytes, usage.tx_errors),
            ("eth0", value(100), value(4))
        );
        assert!(interface_usage("lo: 1 2 3 4 5 6 7 8 9 10 11").is_none());
        assert!(interface_usage("Inter-|   Receive").is_none());
    }
}
