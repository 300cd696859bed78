//! What a group uses, as its controllers count it.

use super::{Group, Version};

/// What a group uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group was made.
    pub cpu_ns: u64,
    /// All memory, page cache included.
    pub memory_bytes: u64,
    /// Memory that cannot be given back at once: all but the inactive page cache.
    pub working_set_bytes: u64,
    /// Anonymous memory.
    pub rss_bytes: u64,
    /// The limit, if there is one.
    pub memory_limit_bytes: Option<u64>,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that read from disk.
    pub major_page_faults: u64,
    /// Swap.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Group<'_> {
    /// What it uses now; what a controller does not tell is zero.
    pub fn usage(&self) -> Usage {
        let read = |controller: &str, name: &str| -> String {
            self.file(controller, name)
                .and_then(|file| std::fs::read_to_string(file).ok())
                .unwrap_or_default()
        };
        let number =
            |controller: &str, name: &str| -> u64 { read(controller, name).trim().parse().unwrap_or_default() };
        let field = |text: &str, name: &str| -> u64 {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
        };
        match self.all.version {
            Version::V1 => {
                let stat = read("memory", "memory.stat");
                let memory_bytes = number("memory", "memory.usage_in_bytes");
                let limit = number("memory", "memory.limit_in_bytes");
                Usage {
                    cpu_ns: number("cpuacct", "cpuacct.usage"),
                    memory_bytes,
                    working_set_bytes: memory_bytes.saturating_sub(field(&stat, "total_inactive_file")),
                    rss_bytes: field(&stat, "total_rss"),
                    memory_limit_bytes: (limit > 0 && limit < 1 << 62).then_some(limit),
                    page_faults: field(&stat, "total_pgfault"),
                    major_page_faults: field(&stat, "total_pgmajfault"),
                    swap_bytes: field(&stat, "total_swap"),
                    pids: number("pids", "pids.current"),
                }
            }
            Version::V2 => {
                let stat = read("memory", "memory.stat");
                let memory_bytes = number("memory", "memory.current");
                Usage {
                    cpu_ns: field(&read("cpu", "cpu.stat"), "usage_usec") * 1000,
                    memory_bytes,
                    working_set_bytes: memory_bytes.saturating_sub(field(&stat, "inactive_file")),
                    rss_bytes: field(&stat, "anon"),
                    memory_limit_bytes: read("memory", "memory.max").trim().parse().ok(),
                    page_faults: field(&stat, "pgfault"),
                    major_page_faults: field(&stat, "pgmajfault"),
                    swap_bytes: number("memory", "memory.swap.current"),
                    pids: number("pids", "pids.current"),
                }
            }
        }
    }
}
