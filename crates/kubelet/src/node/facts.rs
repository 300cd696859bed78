//! What the machine has, read once from the kernel.

use std::path::Path;

/// Memory that is not for pods. Source: upstream's default `--eviction-hard` (`memory.available<100Mi`).
const MEMORY_KEPT_BYTES: i64 = 100 << 20;
/// The part of the disk that is not for pods, as a divisor. Source: the same (`nodefs.available<10%`).
const DISK_KEPT_PART: i64 = 10;

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// CPUs that this process may use.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// The size of the disk that holds containers, in bytes.
    pub disk_bytes: i64,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's id of the machine.
    pub system_uuid: String,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// The kernel's version.
    pub kernel_version: String,
    /// The system's name.
    pub os_image: String,
}

// === impl Facts ===

impl Facts {
    /// Reads them; `data` lies on the disk that holds containers. What cannot be read is empty, and never an error: a
    /// node without a machine id works.
    pub fn read(data: &Path) -> Facts {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .unwrap_or_default()
        };
        let disk = rustix::fs::statvfs(data)
            .map(|stat| stat.f_blocks.saturating_mul(stat.f_frsize))
            .unwrap_or(0);
        Facts {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
            memory_bytes: memory(&text("/proc/meminfo")),
            disk_bytes: i64::try_from(disk).unwrap_or(i64::MAX),
            machine_id: text("/etc/machine-id"),
            system_uuid: text("/sys/class/dmi/id/product_uuid"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel_version: text("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&text("/etc/os-release")),
        }
    }
}

impl Facts {
    /// What pods may use of the memory, in bytes: all but what is kept free before the node evicts.
    pub fn memory_allocatable_bytes(&self) -> i64 {
        (self.memory_bytes - MEMORY_KEPT_BYTES).max(0)
    }

    /// What pods may use of the disk, in bytes.
    pub fn disk_allocatable_bytes(&self) -> i64 {
        self.disk_bytes - self.disk_bytes / DISK_KEPT_PART
    }
}

fn memory(table: &str) -> i64 {
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

fn pretty_name(table: &str) -> String {
    let name = table.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// The architecture in Go's words, which labels use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        assert_eq!(memory("MemTotal:       24690176 kB\nMemFree: 1 kB"), 24_690_176 * 1024);
        assert_eq!(memory(""), 0);
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        let facts = Facts::read(Path::new("/"));
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes > 0 && !facts.kernel_version.is_empty());
    }
}
