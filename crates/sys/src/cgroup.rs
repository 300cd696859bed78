//! Control groups, v1 and v2 behind one interface.
//!
//! Everything happens below one delegated root: nothing above it is written. A group is one path in every hierarchy; on v1
//! there is a hierarchy a controller (or a few), on v2 a single one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::process::Signal;

use crate::mounts;
use crate::process::kill_number;

/// Rounds of killing and removing before a group is given up; processes end asynchronously.
const KILL_ROUNDS_MAX: usize = 64;
/// Attempts to make a group while others remove its parents.
const CREATE_ATTEMPTS_MAX: usize = 16;
const KILL_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Which kind of control groups the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Hierarchies by controller.
    V1,
    /// One unified hierarchy.
    V2,
}

/// The machine's control groups.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version: Version,
    /// Mount point and controllers of each hierarchy; the first one tracks processes for killing.
    hierarchies: Vec<(PathBuf, Vec<String>)>,
    root: PathBuf,
}

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

impl Cgroups {
    /// Finds the hierarchies; `root` is the delegated one, relative to each mount (`/trireme`).
    pub fn detect(root: &Path) -> io::Result<Cgroups> {
        Cgroups::from_mounts(&mounts::list()?, root)
    }

    fn from_mounts(mounts: &[mounts::Mount], root: &Path) -> io::Result<Cgroups> {
        let mut hierarchies: Vec<(PathBuf, Vec<String>)> = Vec::new();
        for mount in mounts.iter().filter(|mount| mount.kind == "cgroup") {
            let controllers: Vec<String> = mount
                .super_options
                .split(',')
                .filter(|option| CONTROLLERS.contains(option))
                .map(str::to_owned)
                .collect();
            if !controllers.is_empty() && !hierarchies.iter().any(|(_, other)| *other == controllers) {
                hierarchies.push((mount.target.clone(), controllers));
            }
        }
        let version = if hierarchies.is_empty() {
            Version::V2
        } else {
            Version::V1
        };
        if version == Version::V2 {
            let unified = mounts.iter().find(|mount| mount.kind == "cgroup2");
            let unified = unified.ok_or_else(|| io::Error::other("no control groups are mounted"))?;
            hierarchies.push((unified.target.clone(), Vec::new()));
        }
        // Every process is in every hierarchy; pids is the cheapest to read where it is there.
        hierarchies.sort_by_key(|(_, controllers)| !controllers.iter().any(|name| name == "pids"));
        Ok(Cgroups {
            version,
            hierarchies,
            root: clean(root),
        })
    }

    /// Which kind.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path of a group below the delegated root. A `name` that begins with the root is taken as it is.
    pub fn group(&self, name: impl AsRef<Path>) -> Group<'_> {
        let name = clean(name.as_ref());
        let path = if name.starts_with(&self.root) {
            name
        } else {
            self.root.join(name)
        };
        Group { all: self, path }
    }

    fn mount_of(&self, controller: &str) -> Option<&Path> {
        match self.version {
            Version::V2 => self.hierarchies.first().map(|(mount, _)| mount.as_path()),
            Version::V1 => self
                .hierarchies
                .iter()
                .find(|(_, controllers)| controllers.iter().any(|name| name == controller))
                .map(|(mount, _)| mount.as_path()),
        }
    }
}

const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "hugetlb",
    "memory",
    "pids",
    "perf_event",
    "blkio",
    "net_prio",
    "net_cls",
    "freezer",
    "rdma",
    "misc",
];

/// Without a leading slash, `.` and `..`, so that it cannot lead out of the root.
fn clean(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect()
}

/// One group.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    all: &'a Cgroups,
    path: PathBuf,
}

impl<'a> Group<'a> {
    /// A group below this one.
    pub fn child(&self, name: &str) -> Group<'a> {
        Group {
            all: self.all,
            path: self.path.join(clean(Path::new(name))),
        }
    }

    /// The path below a hierarchy's mount, with a leading slash: what an OCI specification calls `cgroupsPath`.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Its directory in every hierarchy; the first one is good for listing processes.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.all
            .hierarchies
            .iter()
            .map(|(mount, _)| mount.join(&self.path))
            .collect()
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        Some(self.all.mount_of(controller)?.join(&self.path).join(name))
    }

    /// Makes the group and its parents up to the delegated root, with every controller usable in it.
    pub fn create(&self) -> io::Result<()> {
        for _ in 1..CREATE_ATTEMPTS_MAX {
            match self.try_create() {
                // Somebody else's last group went, and took the parents that were empty at that moment along.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                other => return other,
            }
        }
        self.try_create()
    }

    fn try_create(&self) -> io::Result<()> {
        for (mount, controllers) in &self.all.hierarchies {
            let mut directory = mount.clone();
            for part in self.path.components() {
                let parent = directory.clone();
                directory.push(part);
                let made = match std::fs::create_dir(&directory) {
                    Ok(()) => true,
                    Err(err) if err.kind() == io::ErrorKind::AlreadyExists => false,
                    Err(err) => return Err(at(&directory, err)),
                };
                let ours = made || directory.starts_with(mount.join(&self.all.root));
                if ours && controllers.iter().any(|name| name == "cpuset") {
                    inherit_cpuset(&parent, &directory)?;
                }
                if !made {
                    continue;
                }
                if controllers.iter().any(|name| name == "memory") {
                    // Where it is not the default yet: children count for their parents. Fails once there are children.
                    let _ = std::fs::write(directory.join("memory.use_hierarchy"), "1");
                }
                if self.all.version == Version::V2 && parent.starts_with(mount.join(&self.all.root)) {
                    enable_controllers(&parent);
                }
            }
        }
        Ok(())
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.directories().first().is_some_and(|directory| directory.exists())
    }

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

    /// The file in which the kernel counts `oom_kill`s.
    pub fn oom_file(&self) -> Option<PathBuf> {
        let name = if self.all.version == Version::V1 {
            "memory.oom_control"
        } else {
            "memory.events"
        };
        self.file("memory", name)
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<i32> {
        let directory = self.directories().into_iter().next().unwrap_or_default();
        let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills everything in it and in the groups below, waits for it, and removes them. Blocks; for a blocking thread.
    pub fn kill_and_remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for _ in 0..KILL_ROUNDS_MAX {
            let mut busy = false;
            for directory in self.directories() {
                for group in tree(&directory) {
                    if std::fs::write(group.join("cgroup.kill"), "1").is_err() {
                        let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                        // Zero is a process that this PID namespace does not see.
                        text.lines()
                            .filter_map(|line| line.parse().ok())
                            .filter(|pid| *pid > 0)
                            .for_each(|pid| {
                                kill_number(pid, Signal::KILL);
                            });
                    }
                    match std::fs::remove_dir(&group) {
                        Err(err) if err.kind() != io::ErrorKind::NotFound => {
                            busy = true;
                            result = Err(at(&group, err));
                        }
                        _ => {}
                    }
                }
            }
            if !busy {
                return Ok(());
            }
            std::thread::sleep(KILL_PAUSE);
        }
        result
    }

    /// Removes it if nothing is in it, then its parents up to and without the delegated root's own parent.
    pub fn remove_with_empty_parents(&self) {
        for (mount, _) in &self.all.hierarchies {
            for path in self
                .path
                .ancestors()
                .take_while(|path| path.starts_with(&self.all.root))
            {
                if std::fs::remove_dir(mount.join(path)).is_err() && mount.join(path).exists() {
                    break;
                }
            }
        }
    }

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

fn enable_controllers(directory: &Path) {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_ascii_whitespace() {
        // One by one: a controller that cannot be delegated must not keep the others from it.
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A directory and those below it, the deepest first.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found.push(directory.to_owned());
    found
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

fn at(path: &Path, err: io::Error) -> io::Error {
    // A file of a group that goes while the file is open answers ENODEV, where one that went before answers ENOENT.
    let kind = match err.raw_os_error() {
        Some(libc::ENODEV) => io::ErrorKind::NotFound,
        _ => err.kind(),
    };
    io::Error::new(kind, format!("{}: {err}", path.display()))
}

/// Gives a group of ours its parent's processors and memory: a new group has neither, and nothing can enter it so.
/// Whoever makes a group below does this too, because the one who made this group may not have come to it yet.
fn inherit_cpuset(parent: &Path, directory: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let read = |directory: &Path| {
            let file = directory.join(file);
            std::fs::read_to_string(&file).map_err(|err| at(&file, err))
        };
        if read(directory)?.trim().is_empty() {
            let file = directory.join(file);
            std::fs::write(&file, read(parent)?.trim()).map_err(|err| at(&file, err))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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

    fn fake(version: Version, dir: &Path) -> Cgroups {
        let controllers = |name: &str| (dir.join(name), vec![name.to_owned()]);
        let hierarchies = match version {
            Version::V1 => vec![controllers("pids"), controllers("memory"), controllers("cpu")],
            Version::V2 => vec![(dir.join("unified"), Vec::new())],
        };
        Cgroups {
            version,
            hierarchies,
            root: PathBuf::from("trireme"),
        }
    }

    #[test]
    fn groups_stay_below_the_root() {
        let all = fake(Version::V1, Path::new("/sys/fs/cgroup"));
        let check = |name: &str, expect: &str| assert_eq!(all.group(name).path(), Path::new(expect), "{name}");
        check("/kubepods/pod1", "/trireme/kubepods/pod1");
        check("/trireme/kubepods", "/trireme/kubepods");
        check("../../etc", "/trireme/etc");
        check("", "/trireme");
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

    #[test]
    fn groups_are_made_while_others_go() {
        let root = format!("trireme-test-race-{}", std::process::id());
        let all = Cgroups::detect(Path::new(&root)).unwrap();
        std::thread::scope(|scope| {
            for name in ["a/b", "a/c", "d"] {
                let group = all.group(name);
                scope.spawn(move || {
                    for _ in 0..50 {
                        group.create().unwrap();
                        for directory in group.directories() {
                            let cpus = std::fs::read_to_string(directory.join("cpuset.cpus"));
                            assert_ne!(
                                cpus.ok().as_deref(),
                                Some("\n"),
                                "nothing can enter {}",
                                directory.display()
                            );
                        }
                        group.remove_with_empty_parents();
                    }
                });
            }
        });
        assert!(!all.group("").exists());
    }

    #[test]
    fn real_groups_come_and_go() {
        let root = format!("trireme-test-sys-{}", std::process::id());
        let all = Cgroups::detect(Path::new(&root)).unwrap();
        let group = all.group("a/b");
        group.create().unwrap();
        assert!(group.exists());
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        std::fs::write(group.directories()[0].join("cgroup.procs"), child.id().to_string()).unwrap();
        assert_eq!(group.processes(), [child.id() as i32]);
        group.kill_and_remove().unwrap();
        assert!(!child.wait().unwrap().success());
        group.remove_with_empty_parents();
        assert!(!all.group("").exists());
    }
}
