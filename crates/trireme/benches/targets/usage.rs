//! What processes use: processor time and memory, as the kernel counts them.

use std::collections::BTreeSet;
use std::path::Path;

/// `USER_HZ`: the unit of processor times in `/proc`, the same on every Linux of this architecture.
const TICKS_A_SECOND: f64 = 100.0;
/// The kernel's stack of one thread.
const KERNEL_STACK_BYTES: u64 = 16 * 1024;

/// Seconds of processor time of these processes and of their children that have ended.
pub fn cpu_seconds(pids: &[i32]) -> f64 {
    pids.iter().map(|pid| cpu_ticks(*pid)).sum::<f64>() / TICKS_A_SECOND
}

fn cpu_ticks(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may contain anything; after it come the state and then numbers: proc_pid_stat(5), fields 14 to 17.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = fields.get(11..15).unwrap_or_default();
    ticks.iter().filter_map(|field| field.parse::<f64>().ok()).sum()
}

/// The same to the nanosecond, without what children and threads used that have ended.
pub fn cpu_seconds_of_threads(pids: &[i32]) -> f64 {
    let of_thread = |thread: std::fs::DirEntry| {
        // The first number is the time on a processor: Documentation/scheduler/sched-stats.rst.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let threads = pids
        .iter()
        .filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    threads.flatten().flatten().map(of_thread).sum::<f64>() / 1e9
}

/// Memory of processes, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Anonymous memory.
    pub anonymous: u64,
    /// Page tables and the stacks of threads in the kernel.
    pub kernel: u64,
}

impl Memory {
    /// Of all of them together.
    pub fn of(pids: &[i32]) -> Memory {
        pids.iter().fold(Memory::default(), |sum, pid| Memory {
            anonymous: sum.anonymous + status(*pid, "RssAnon") * 1024,
            kernel: sum.kernel + status(*pid, "VmPTE") * 1024 + status(*pid, "Threads") * KERNEL_STACK_BYTES,
        })
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.anonymous + self.kernel
    }
}

/// Memory that the kernel holds for the control groups of these processes: sockets, slab, page tables, stacks. None where
/// no group of ours tells.
pub fn kernel_bytes_of_groups(pids: &[i32]) -> Option<u64> {
    let groups: BTreeSet<String> = pids.iter().filter_map(|pid| top_group(*pid)).collect();
    let of = |group: &String| {
        let v1 = Path::new("/sys/fs/cgroup/memory").join(group);
        let number = |file: &str| std::fs::read_to_string(v1.join(file)).ok()?.trim().parse::<u64>().ok();
        if let Some(bytes) = number("memory.kmem.usage_in_bytes") {
            return Some(bytes + number("memory.kmem.tcp.usage_in_bytes").unwrap_or(0));
        }
        let stat = std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(group).join("memory.stat")).ok()?;
        let value = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        let counted = |line: &&str| line.starts_with("kernel ") || line.starts_with("sock ");
        Some(stat.lines().filter(counted).filter_map(value).sum())
    };
    let known: Vec<u64> = groups.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

/// The topmost group of a process below the hierarchy's root, when it is one of ours.
fn top_group(pid: i32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // `4:memory:/path`, or `0::/path` where there is one hierarchy.
    let path = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let controllers = parts.next()?;
        (controllers.is_empty() || controllers.split(',').any(|name| name == "memory")).then(|| parts.next())?
    })?;
    let top = path.split('/').nth(1)?;
    top.starts_with("trireme").then(|| top.to_owned())
}

/// Counts how far the resident memory of a process rises.
pub struct Peak {
    pid: i32,
    before: u64,
}

impl Peak {
    /// Begins at what is resident now.
    pub fn begin(pid: i32) -> Peak {
        // Sets the kernel's own high-water mark back: proc_pid_clear_refs(5).
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        Peak {
            pid,
            before: status(pid, "VmRSS"),
        }
    }

    /// By how many bytes it rose at most.
    pub fn growth(&self) -> u64 {
        status(self.pid, "VmHWM").saturating_sub(self.before) * 1024
    }
}

/// A number of `/proc/PID/status`.
fn status(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
