//! What the kernel counts of this process, under the names that every Prometheus client library uses.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::AtomicU64;

use super::names::{Names, name};

/// Clock ticks a second in `/proc`: the kernel shows all programs 100, whatever its own clock does (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// The process's own figures, read when they are asked for.
#[derive(Default)]
pub struct Process {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge<i64>,
    virtual_bytes: Gauge<i64>,
    open_files: Gauge<i64>,
    open_files_max: Gauge<i64>,
    started_seconds: Gauge<f64, AtomicU64>,
}

impl Process {
    pub fn register(&self, r: &mut Names) {
        let help = "Processor time used, in seconds";
        name(r, "process_cpu_seconds", help, &self.cpu_seconds);
        let help = "Memory that is resident, in bytes";
        name(r, "process_resident_memory_bytes", help, &self.resident_bytes);
        let help = "Address space, in bytes";
        name(r, "process_virtual_memory_bytes", help, &self.virtual_bytes);
        name(r, "process_open_fds", "Open files", &self.open_files);
        name(r, "process_max_fds", "How many files may be open", &self.open_files_max);
        let help = "When the process was started, in seconds since 1970";
        name(r, "process_start_time_seconds", help, &self.started_seconds);
    }

    /// Brings the figures up to date. What the kernel does not tell stays as it was.
    pub fn measure(&self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(stat) = Stat::parse(&read("/proc/self/stat")) {
            let before = self.cpu_seconds.get();
            self.cpu_seconds
                .inc_by((stat.cpu_ticks as f64 / TICKS_PER_SECOND - before).max(0.0));
            self.virtual_bytes.set(stat.virtual_bytes);
            if let Some(booted) = field(&read("/proc/stat"), "btime ") {
                self.started_seconds
                    .set(booted as f64 + stat.started_ticks as f64 / TICKS_PER_SECOND);
            }
        }
        if let Some(kibibytes) = field(&read("/proc/self/status"), "VmRSS:") {
            self.resident_bytes.set(kibibytes * 1024);
        }
        if let Some(max) = field(&read("/proc/self/limits"), "Max open files") {
            self.open_files_max.set(max);
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(i64::try_from(open.count()).unwrap_or(i64::MAX));
        }
    }
}

/// The first number of the line that begins so.
fn field(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What is used of `/proc/self/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    started_ticks: u64,
    virtual_bytes: i64,
}

impl Stat {
    /// The fields are counted behind the program's name, which may contain anything.
    fn parse(text: &str) -> Option<Stat> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: number(11)? + number(12)?,
            started_ticks: number(19)?,
            virtual_bytes: i64::try_from(number(20)?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let text = "7 (a) b) S 1 1 1 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 4 0 9000 4096 3 18446744073709551615";
        let expect = Stat {
            cpu_ticks: 200,
            started_ticks: 9000,
            virtual_bytes: 4096,
        };
        assert_eq!(Stat::parse(text), Some(expect));
        assert_eq!(Stat::parse(""), None);
        assert_eq!(field("x 1\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn the_process_tells_of_itself() {
        let process = Process::default();
        process.measure();
        let started = process.started_seconds.get();
        assert!(process.resident_bytes.get() > 0 && process.virtual_bytes.get() > process.resident_bytes.get());
        assert!(process.open_files.get() > 2 && process.open_files_max.get() >= process.open_files.get());
        assert!(started > 1.5e9 && process.cpu_seconds.get() >= 0.0, "{started}");
    }
}
