//! Control groups, v1 and v2 behind one interface.
//!
//! Everything happens below one delegated root: nothing above it is written. A group is one path in every hierarchy; on v1
//! there is a hierarchy a controller (or a few), on v2 a single one.

mod limits;
mod removal;
mod usage;

use std::io;
use std::path::{Component, Path, PathBuf};

pub use limits::{Limits, weight};
pub use usage::Usage;

use crate::mounts;

/// Attempts to make a group while others remove its parents.
const CREATE_ATTEMPTS_MAX: usize = 16;

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

    /// Moves this process into it, in every hierarchy. The kernel takes some ten milliseconds for each.
    pub fn enter(&self) -> io::Result<()> {
        for directory in self.directories() {
            let file = directory.join("cgroup.procs");
            std::fs::write(&file, "0").map_err(|err| at(&file, err))?;
        }
        Ok(())
    }

    /// Whether it is there.
    pub fn exists(&self) -> bool {
        self.directories().first().is_some_and(|directory| directory.exists())
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
}

fn enable_controllers(directory: &Path) {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_ascii_whitespace() {
        // One by one: a controller that cannot be delegated must not keep the others from it.
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
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
pub(super) mod tests {
    use super::*;

    pub(in crate::cgroup) fn fake(version: Version, dir: &Path) -> Cgroups {
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
}
