//! Limits, and the files of v1 and v2 that they are written to.

use std::collections::BTreeMap;
use std::io;

use super::{Group, Version, at};

/// Limits of a group; `None` leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes; negative is without limit.
    pub memory_bytes: Option<i64>,
    /// Bytes of memory and swap together; negative is without limit.
    pub memory_swap_bytes: Option<i64>,
    /// v1's shares, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Microseconds a period; negative is without limit.
    pub cpu_quota_us: Option<i64>,
    /// The period.
    pub cpu_period_us: Option<u64>,
    /// Processors, `0-3,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; negative is without limit.
    pub pids: Option<i64>,
    /// Huge page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// v2 files written as given.
    pub unified: BTreeMap<String, String>,
}

impl Group<'_> {
    /// Writes the limits. A controller that is not there is an error only if a limit needs it.
    pub fn apply(&self, limits: &Limits) -> io::Result<()> {
        match self.all.version {
            Version::V1 => self.apply_v1(limits),
            Version::V2 => self.apply_v2(limits),
        }
    }

    fn write(&self, controller: &str, name: &str, value: &str) -> io::Result<()> {
        let file = self.file(controller, name);
        let file = file.ok_or_else(|| io::Error::other(format!("there is no {controller} controller")))?;
        std::fs::write(&file, value).map_err(|err| at(&file, err))
    }

    fn apply_v1(&self, limits: &Limits) -> io::Result<()> {
        if let Some(bytes) = limits.memory_bytes {
            let swap = limits.memory_swap_bytes.map(|bytes| bytes.to_string());
            let with_swap = swap.filter(|_| {
                self.file("memory", "memory.memsw.limit_in_bytes")
                    .is_some_and(|f| f.exists())
            });
            // The sum may never be below the part, so which comes first depends on the direction.
            let raise = |value: &str| self.write("memory", "memory.memsw.limit_in_bytes", value);
            let raised_first = with_swap.as_deref().is_some_and(|value| raise(value).is_ok());
            self.write("memory", "memory.limit_in_bytes", &bytes.to_string())?;
            if let (Some(value), false) = (&with_swap, raised_first) {
                raise(value)?;
            }
        }
        if let Some(shares) = limits.cpu_shares {
            self.write("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(period) = limits.cpu_period_us {
            self.write("cpu", "cpu.cfs_period_us", &period.to_string())?;
        }
        if let Some(quota) = limits.cpu_quota_us {
            self.write("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        }
        if let Some(pids) = limits.pids {
            self.write("pids", "pids.max", &unlimited(pids, "max"))?;
        }
        for (size, bytes) in &limits.hugepages {
            self.write("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), &bytes.to_string())?;
        }
        self.apply_cpuset(limits)
    }

    fn apply_v2(&self, limits: &Limits) -> io::Result<()> {
        if let Some(bytes) = limits.memory_bytes {
            self.write("memory", "memory.max", &unlimited(bytes, "max"))?;
            if let Some(both) = limits.memory_swap_bytes {
                let swap = if both < 0 { -1 } else { (both - bytes.max(0)).max(0) };
                // Not there on a kernel without swap accounting, and then there is nothing to limit.
                let _ = self.write("memory", "memory.swap.max", &unlimited(swap, "max"));
            }
        }
        if let Some(shares) = limits.cpu_shares {
            self.write("cpu", "cpu.weight", &weight(shares).to_string())?;
        }
        if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
            let quota = unlimited(limits.cpu_quota_us.unwrap_or(-1), "max");
            let period = limits.cpu_period_us.unwrap_or(100_000);
            self.write("cpu", "cpu.max", &format!("{quota} {period}"))?;
        }
        if let Some(pids) = limits.pids {
            self.write("pids", "pids.max", &unlimited(pids, "max"))?;
        }
        for (size, bytes) in &limits.hugepages {
            self.write("hugetlb", &format!("hugetlb.{size}.max"), &bytes.to_string())?;
        }
        for (name, value) in &limits.unified {
            if name.contains('/') {
                return Err(io::Error::other(format!("{name} is not a control group file")));
            }
            self.write("", name, value)?;
        }
        self.apply_cpuset(limits)
    }

    fn apply_cpuset(&self, limits: &Limits) -> io::Result<()> {
        for (value, name) in [
            (&limits.cpuset_cpus, "cpuset.cpus"),
            (&limits.cpuset_mems, "cpuset.mems"),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                self.write("cpuset", name, value)?;
            }
        }
        Ok(())
    }
}

fn unlimited(value: i64, word: &str) -> String {
    if value < 0 { word.to_owned() } else { value.to_string() }
}

/// v2's weight for v1's shares, by the formula that runc, crun and the kubelet share.
pub fn weight(shares: u64) -> u64 {
    if shares == 0 {
        100
    } else {
        1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::Cgroups;
    use super::super::tests::fake;
    use super::*;

    #[test]
    fn weights() {
        let check = |shares, expect| assert_eq!(weight(shares), expect, "{shares}");
        check(2, 1);
        check(1024, 39);
        check(262_144, 10_000);
        check(1 << 40, 10_000);
        check(0, 100);
    }

    #[test]
    fn limits_become_files() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            cpu_shares: Some(512),
            cpu_quota_us: Some(-1),
            cpu_period_us: Some(100_000),
            pids: Some(-1),
            ..Limits::default()
        };
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap_or_default();
        let all = fake(Version::V1, dir.path());
        all.hierarchies
            .iter()
            .for_each(|(mount, _)| std::fs::create_dir(mount).unwrap());
        all.group("a").create().unwrap();
        all.group("a").apply(&limits).unwrap();
        assert_eq!(read("memory/trireme/a/memory.limit_in_bytes"), "1048576");
        assert_eq!(read("cpu/trireme/a/cpu.cfs_quota_us"), "-1");
        assert_eq!(read("pids/trireme/a/pids.max"), "max");
        let all = fake(Version::V2, dir.path());
        std::fs::create_dir(dir.path().join("unified")).unwrap();
        all.group("a").create().unwrap();
        all.group("a").apply(&limits).unwrap();
        assert_eq!(read("unified/trireme/a/memory.max"), "1048576");
        assert_eq!(read("unified/trireme/a/cpu.max"), "max 100000");
        assert_eq!(read("unified/trireme/a/cpu.weight"), "20");
    }

    /// What the kernel made of the limits; the fake groups above show names only.
    #[test]
    fn the_kernel_takes_the_limits() {
        let root = format!("trireme-test-limits-{}", std::process::id());
        let all = Cgroups::detect(Path::new(&root)).unwrap();
        let group = all.group("pod/container");
        group.create().unwrap();
        let limits = Limits {
            memory_bytes: Some(64 << 20),
            memory_swap_bytes: Some(64 << 20),
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            pids: Some(7),
            ..Limits::default()
        };
        let read = |name: &str| -> String {
            let files = group
                .directories()
                .into_iter()
                .map(|directory: PathBuf| directory.join(name));
            let text = files.filter_map(|file| std::fs::read_to_string(file).ok()).next();
            text.unwrap_or_else(|| panic!("no controller has {name}"))
                .trim()
                .to_owned()
        };
        let check = |expect: &[(&str, &str)]| {
            for (name, expect) in expect {
                assert_eq!(read(name), *expect, "{name}");
            }
        };
        group.apply(&limits).unwrap();
        let without = Limits {
            memory_bytes: Some(-1),
            memory_swap_bytes: Some(-1),
            cpu_quota_us: Some(-1),
            pids: Some(-1),
            ..Limits::default()
        };
        match all.version() {
            Version::V1 => check(&[
                ("memory.limit_in_bytes", "67108864"),
                ("cpu.shares", "512"),
                ("cpu.cfs_quota_us", "50000"),
                ("cpu.cfs_period_us", "100000"),
                ("pids.max", "7"),
            ]),
            Version::V2 => check(&[
                ("memory.max", "67108864"),
                ("memory.swap.max", "0"),
                ("cpu.weight", "20"),
                ("cpu.max", "50000 100000"),
                ("pids.max", "7"),
            ]),
        }
        group.apply(&without).unwrap();
        match all.version() {
            Version::V1 => check(&[("cpu.cfs_quota_us", "-1"), ("pids.max", "max")]),
            Version::V2 => check(&[("memory.max", "max"), ("cpu.max", "max 100000"), ("pids.max", "max")]),
        }
        group.kill_and_remove().unwrap();
        group.remove_with_empty_parents();
        assert!(!all.group("").exists());
    }
}
