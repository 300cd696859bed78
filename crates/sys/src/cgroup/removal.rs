//! The end of a group: everything in it is killed, waited for and removed.
//!
//! v2 kills a whole tree at one write and tells when nothing lives in it. v1 has neither: there each process is killed and
//! waited for through a descriptor of its own.

use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{Group, Version, at};

/// Rounds of killing and removing before a group is given up: on v1 processes may fork while they are killed.
const ROUNDS_MAX: usize = 64;
/// Longest wait of a round: a process in an uninterruptible wait of the kernel may take long.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Processes that are waited for at once on v1, against the limit on open files; the others are met in the next round.
const DESCRIPTORS_MAX: usize = 256;
/// Between rounds that found nobody to wait for although the group is busy: v1 has no event for what lives in another PID
/// namespace than ours.
const UNSEEN_PAUSE: Duration = Duration::from_millis(5);

impl Group<'_> {
    /// Kills everything in it and in the groups below, waits for it, and removes them. Blocks; for a blocking thread.
    pub fn kill_and_remove(&self) -> io::Result<()> {
        for directory in self.directories() {
            let mut result = remove(&directory);
            for _ in 0..ROUNDS_MAX {
                if result.is_ok() {
                    break;
                }
                match self.all.version {
                    Version::V1 => kill_each(&directory)?,
                    Version::V2 => kill_all(&directory)?,
                }
                result = remove(&directory);
            }
            result?;
        }
        Ok(())
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
}

/// v2: kills the tree and waits until the kernel says that nobody lives in it.
fn kill_all(directory: &Path) -> io::Result<()> {
    let gone = |err: &io::Error| err.kind() == io::ErrorKind::NotFound;
    let path = directory.join("cgroup.events");
    let mut events = match std::fs::File::open(&path) {
        Ok(events) => events,
        Err(err) if gone(&err) => return Ok(()),
        Err(err) => return Err(at(&path, err)),
    };
    match std::fs::write(directory.join("cgroup.kill"), "1") {
        Ok(()) => {}
        Err(err) if gone(&err) => {
            // Before Linux 5.14; or the group went, then there is nobody.
            tree(directory).iter().for_each(|group| drop(signal_each(group)));
        }
        Err(err) => return Err(at(directory, err)),
    }
    let until = Instant::now() + WAIT_MAX;
    loop {
        let mut text = String::new();
        events.rewind()?;
        // A group that went while it was read.
        if events.read_to_string(&mut text).is_err() || text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        if !wait(&events, PollFlags::PRI, until)? {
            return Ok(());
        }
    }
}

/// v1: kills the processes of the tree and waits for each.
fn kill_each(directory: &Path) -> io::Result<()> {
    let dying: Vec<OwnedFd> = tree(directory).iter().flat_map(|group| signal_each(group)).collect();
    if dying.is_empty() {
        std::thread::sleep(UNSEEN_PAUSE);
    }
    let until = Instant::now() + WAIT_MAX;
    for process in dying {
        if !wait(&process, PollFlags::IN, until)? {
            break;
        }
    }
    Ok(())
}

/// Kills the processes listed in a group; descriptors of those that can be waited for.
fn signal_each(group: &Path) -> Vec<OwnedFd> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // Zero is a process that this PID namespace does not see.
    let pids = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    let opened = pids
        .take(DESCRIPTORS_MAX)
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    opened
        .inspect(|process| {
            // It may have ended by itself; then its descriptor says so at once.
            let _ = pidfd_send_signal(process, Signal::KILL);
        })
        .collect()
}

/// Waits for an event on a descriptor; `false` if the time is over first.
fn wait(descriptor: &impl std::os::fd::AsFd, event: PollFlags, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = rustix::time::Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(descriptor, event)], Some(&timeout)) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err.into()),
        }
    }
}

/// Removes the tree, the deepest first.
fn remove(directory: &Path) -> io::Result<()> {
    for group in tree(directory) {
        match std::fs::remove_dir(&group) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(at(&group, err)),
            _ => {}
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::super::Cgroups;
    use super::*;

    fn sleeper_in(group: &Group<'_>) -> Child {
        let child = Command::new("sleep").arg("100").spawn().unwrap();
        for directory in group.directories() {
            std::fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        child
    }

    #[test]
    fn real_groups_come_and_go() {
        let root = format!("trireme-test-sys-{}", std::process::id());
        let all = Cgroups::detect(Path::new(&root)).unwrap();
        let group = all.group("a/b");
        group.create().unwrap();
        assert!(group.exists());
        group.child("c").create().unwrap();
        group.child("d").create().unwrap();
        // v2 has no processes in groups that have groups below.
        let mut children = [sleeper_in(&group.child("c")), sleeper_in(&group.child("d"))];
        assert_eq!(group.child("c").processes(), [children[0].id() as i32]);
        group.kill_and_remove().unwrap();
        assert!(!group.exists());
        for child in &mut children {
            assert!(!child.wait().unwrap().success());
        }
        group.kill_and_remove().expect("what is gone is fine");
        group.remove_with_empty_parents();
        assert!(!all.group("").exists());
    }
}
