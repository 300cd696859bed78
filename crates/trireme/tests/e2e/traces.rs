//! What a cluster could leave on a machine: listed before and after, and compared.
//!
//! Tests run beside each other, and machines live. So what many change (processes, mounts, control groups, namespaces) is
//! looked through for what is this cluster's; what nobody changes by the way (links, addresses, routes, rules, tables,
//! sysctls, the machine's directories) has to be the same as before, whoever changed it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, succeed};
use crate::node_cluster::{cgroup, inside, processes, server_cgroup};

/// Sysctls that tell of the moment: the kernel changes them by itself.
const COUNTERS: &[&str] = &[
    "fs/aio-nr",
    "fs/binfmt_misc",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota",
    "kernel/cad_pid",
    "kernel/ns_last_pid",
    "kernel/perf_cpu_time_max_percent",
    "kernel/perf_event_max_sample_rate",
    "kernel/pty/nr",
    "kernel/random",
    "kernel/tainted",
    "net/netfilter/nf_conntrack_count",
    "vm/stat_refresh",
];
/// Where programs leave files on a machine.
const DIRECTORIES: &[&str] = &["/etc", "/run", "/var/lib", "/dev", "/dev/shm", "/sys/fs/bpf"];
/// The directories of a cluster that is started without `--dir`: no test starts one, but people may have one.
const SYSTEM: &str = "/trireme";
/// Deeper than any path of a control group.
const DEPTH_MAX: usize = 16;

/// The lists.
pub struct Traces {
    mounts: Vec<String>,
    /// Each process with its words and its control groups.
    processes: Vec<String>,
    groups: Vec<String>,
    /// Namespaces that a process is in, with the oldest of those: when it began, and its words. A mount is as old as the
    /// machine.
    namespaces: BTreeMap<String, (u64, String)>,
    /// What has to be the same: by what it is of.
    machine: BTreeMap<&'static str, Vec<String>>,
    sysctls: BTreeMap<PathBuf, Vec<u8>>,
}

/// How a cluster's traces are known.
pub struct Marks {
    dir: PathBuf,
    groups: [String; 2],
    namespaces: BTreeSet<String>,
    /// When the youngest of its processes began. Numbers of namespaces that are gone are given again: a younger process is
    /// somebody else's, in one of those.
    youngest: u64,
}

impl Marks {
    /// Of a cluster that runs.
    pub fn of(cluster: &Cluster) -> Marks {
        let inside = inside(cluster).into_iter();
        let all: Vec<i32> = inside
            .chain(cluster.supervisors())
            .chain([cluster.server_pid()])
            .collect();
        let own = namespaces_of("self");
        let namespaces: BTreeSet<String> = all
            .iter()
            .flat_map(|pid| namespaces_of(&pid.to_string()))
            .filter(|namespace| !own.contains(namespace))
            .collect();
        let kinds = ["mnt:", "net:", "pid:", "uts:", "ipc:"];
        for kind in kinds {
            let is_there = namespaces.iter().any(|namespace| namespace.starts_with(kind));
            assert!(is_there, "a node has a namespace {kind} of its own: {namespaces:?}");
        }
        Marks {
            dir: cluster.dir.clone(),
            groups: [cgroup(cluster), server_cgroup(cluster)],
            namespaces,
            youngest: all.into_iter().filter_map(sys::process::start_ticks).max().unwrap(),
        }
    }
}

impl Traces {
    /// Those of the machine now.
    pub fn of_machine() -> Traces {
        let tell = |program: &str, words: &[&str]| {
            let output = Command::new(program)
                .args(words)
                .output()
                .unwrap_or_else(|error| panic!("{program}: {error}"));
            lines(&succeed(&output))
        };
        let words = |pid: i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            format!("{pid} {} {groups}", String::from_utf8_lossy(&words).replace('\0', " "))
        };
        let mut groups = Vec::new();
        directories(Path::new("/sys/fs/cgroup"), DEPTH_MAX, &mut groups);
        let mut namespaces = BTreeMap::new();
        for pid in processes() {
            let begun = sys::process::start_ticks(pid).unwrap_or(u64::MAX);
            for namespace in namespaces_of(&pid.to_string()) {
                let oldest = namespaces.entry(namespace).or_insert((u64::MAX, String::new()));
                if begun < oldest.0 {
                    *oldest = (begun, words(pid));
                }
            }
        }
        // A bind mount keeps one alive without a process; its line has the same name.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let kept = mounts.split_whitespace().filter(|word| word.contains(":["));
        namespaces.extend(kept.map(|name| (name.to_owned(), (0, "a mount".to_owned()))));
        let mut sysctls = BTreeMap::new();
        read_sysctls(Path::new("/proc/sys"), &mut sysctls);
        assert!(sysctls.len() > 100, "{} sysctls", sysctls.len());
        let machine = BTreeMap::from([
            ("links", tell("ip", &["-o", "link"])),
            ("addresses", tell("ip", &["-o", "addr"])),
            ("routes", tell("ip", &["route", "show", "table", "all"])),
            ("rules", tell("ip", &["rule"])),
            ("named network namespaces", tell("ip", &["netns"])),
            ("packet rules", tell("nft", &["--stateless", "list", "ruleset"])),
            ("files", files()),
            ("controllers handed to control groups", controllers()),
        ]);
        Traces {
            mounts: lines(&mounts),
            processes: processes().into_iter().map(words).collect(),
            groups,
            namespaces,
            machine,
            sysctls,
        }
    }

    /// What is there of one cluster. (The process that waits for its end to remove it is the test's own.)
    pub fn of(&self, marks: &Marks) -> Vec<String> {
        let dir = marks.dir.display().to_string();
        let is_its = |line: &&String| {
            let names_it = line.contains(&dir) || marks.groups.iter().any(|group| line.contains(group));
            names_it && !line.contains("/bin/sh -c")
        };
        let all = [&self.mounts, &self.processes, &self.groups].into_iter().flatten();
        let namespaces = self.namespaces.iter().filter_map(|(name, (begun, words))| {
            let is_its = marks.namespaces.contains(name) && *begun <= marks.youngest;
            is_its.then(|| format!("{name} of {words}"))
        });
        all.filter(is_its).cloned().chain(namespaces).collect()
    }

    /// What of the machine is not as it was. Sysctls that are new came with a module that the kernel loaded.
    pub fn changes_since(&self, before: &Traces) -> Vec<String> {
        let mut changes = Vec::new();
        for (what, lines) in &self.machine {
            let was = &before.machine[what];
            let added = lines.iter().filter(|line| !was.contains(line));
            changes.extend(added.map(|line| format!("{what}: + {line}")));
            let removed = was.iter().filter(|line| !lines.contains(line));
            changes.extend(removed.map(|line| format!("{what}: - {line}")));
        }
        for (path, value) in &before.sysctls {
            if self.sysctls.get(path).is_some_and(|now| now != value) {
                changes.push(format!(
                    "sysctl {} was {}",
                    path.display(),
                    String::from_utf8_lossy(value)
                ));
            }
        }
        changes
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// None of a process that is dead and waits to be reaped by the machine's first one: the kernel still tells its number.
fn namespaces_of(process: &str) -> BTreeSet<String> {
    if std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| stat.contains(") Z ")) {
        return BTreeSet::new();
    }
    let entries = std::fs::read_dir(format!("/proc/{process}/ns")).into_iter().flatten();
    let links = entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn directories(folder: &Path, depth: usize, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.push(entry.path().display().to_string());
        if depth > 0 {
            directories(&entry.path(), depth - 1, found);
        }
    }
}

fn read_sysctls(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix("/proc/sys").unwrap_or(&path);
        if COUNTERS.iter().any(|counter| name.starts_with(counter)) {
            continue;
        }
        if path.is_dir() {
            read_sysctls(&path, found);
        } else if let Ok(value) = std::fs::read(&path) {
            found.insert(path, value);
        }
    }
}

fn files() -> Vec<String> {
    let mut all = Vec::new();
    for directory in DIRECTORIES {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path().display().to_string());
        all.extend(paths.filter(|path| !path.ends_with(SYSTEM)));
    }
    all.sort();
    all
}

/// Of groups that are not ours: what a daemon writes there stays when it goes.
fn controllers() -> Vec<String> {
    let mut folders = vec![String::from("/sys/fs/cgroup")];
    directories(Path::new("/sys/fs/cgroup"), 0, &mut folders);
    let read = |folder: &String| {
        let text = std::fs::read_to_string(format!("{folder}/cgroup.subtree_control")).ok()?;
        Some(format!("{folder}: {}", text.trim()))
    };
    let theirs = folders.iter().filter(|folder| !folder.contains("trireme"));
    theirs.filter_map(read).collect()
}
