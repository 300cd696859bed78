//! A disk in memory that a seed controls and that keeps no promise beyond those of [`Disk`].
//!
//! It distinguishes what a reader sees from what is durable. [`SimDisk::power_loss`] keeps the durable part and a random
//! part of the rest: writes survive in pieces of a sector and in no order, names survive as a prefix of their changes (as
//! journalling file systems keep them). A failed sync forgets what it covered, as Linux does: readers still see it, a
//! later successful sync does not make it durable.
//!
//! Invariant: what a successful sync covered survives everything, unless the disk was told to lie.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, OpenMode};
use crate::Random;

/// The unit in which unsynced writes survive a power loss.
const SECTOR_BYTES: usize = 512;

/// What goes wrong by itself.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Probability that a sync (of a file or directory) fails.
    pub sync_error: f64,
    /// Probability that a write that makes a file longer fails for lack of space after writing a part.
    pub no_space: f64,
    /// Probability that a write fails after writing a part, whether it makes the file longer or not.
    pub write_error: f64,
    /// Bytes the disk holds; more is `StorageFull`.
    pub capacity_bytes: Option<u64>,
    /// Every sync of a file says it worked and does nothing: the mutation that a durability test must notice.
    pub syncs_lie: bool,
}

/// A simulated disk. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    random: Random,
    faults: Faults,
    /// In order: what a power loss leaves of each is drawn from one sequence.
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    locks: HashSet<PathBuf>,
    /// Changes asked for since the disk was made.
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// Counts restarts, so that a file or lock of an earlier life is dead.
    life: u64,
}

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<ContentChange>,
    /// Files open on it.
    open: usize,
}

enum ContentChange {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

#[derive(Clone)]
enum NameChange {
    Link { path: PathBuf, inode: u64 },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new(random: Random) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                random,
                faults: Faults::default(),
                inodes: BTreeMap::new(),
                next_inode: 1,
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                pending_names: Vec::new(),
                locks: HashSet::new(),
                operations: 0,
                crash_at: None,
                crashed: false,
                life: 0,
            })),
        }
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// How many changing operations (create, append, truncate, sync, rename, remove) were asked for.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// The `operation`-th change (counted as [`SimDisk::operations`] does) happens in part, and the process is dead from
    /// then on: everything fails until [`SimDisk::process_restart`] or [`SimDisk::power_loss`].
    pub fn crash_at(&self, operation: u64) {
        self.state.lock().crash_at = Some(operation);
    }

    /// Kills the process now.
    pub fn crash(&self) {
        self.state.lock().crashed = true;
    }

    /// Whether the process is dead.
    pub fn is_crashed(&self) -> bool {
        self.state.lock().crashed
    }

    /// A new process on the same running machine: whatever was written is seen, durable or not.
    pub fn process_restart(&self) {
        self.state.lock().restart();
    }

    /// The machine loses power and comes back: what was not synced survives in part or not at all.
    pub fn power_loss(&self) {
        let mut state = self.state.lock();
        state.lose_power();
        state.restart();
    }

    /// Bytes of all files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Flips one bit of a file, durably: what a medium does that rots.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.state.lock();
        if let Some(inode) = state.names.get(path).copied()
            && let Some(inode) = state.inodes.get_mut(&inode)
        {
            for bytes in [&mut inode.content, &mut inode.durable] {
                if let Some(byte) = bytes.get_mut(offset as usize) {
                    *byte ^= 1 << (bit & 7);
                }
            }
        }
    }
}

impl State {
    fn restart(&mut self) {
        self.crashed = false;
        self.crash_at = None;
        self.life += 1;
        self.locks.clear();
    }

    fn used_bytes(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.content.len() as u64)
            .sum()
    }

    /// Frees what has neither a name, now or after the loss of power, nor an open file.
    fn free_inodes(&mut self) {
        let links = self.pending_names.iter().filter_map(|change| match change {
            NameChange::Link { inode, .. } => Some(*inode),
            _ => None,
        });
        let named: HashSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .chain(links)
            .collect();
        self.inodes
            .retain(|number, inode| inode.open > 0 || named.contains(number));
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed {
            Err(io::Error::other("simulated: the process is dead"))
        } else {
            Ok(())
        }
    }

    /// Counts a change; true when it is the one that the process dies in.
    fn change(&mut self) -> io::Result<bool> {
        self.alive()?;
        self.operations += 1;
        if self.crash_at == Some(self.operations) {
            self.crashed = true;
        }
        Ok(self.crashed)
    }

    fn finish(&self) -> io::Result<()> {
        self.alive()
    }

    /// A change of a name: it happens or not when the process dies in it.
    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let dying = self.change()?;
        if !dying || self.random.chance(0.5) {
            apply_name(&mut self.names, &change);
            self.pending_names.push(change);
        }
        self.finish()
    }

    fn lose_power(&mut self) {
        for inode in self.inodes.values_mut() {
            let pending = std::mem::take(&mut inode.pending);
            inode.settle(pending, &self.random);
            inode.content = inode.durable.clone();
        }
        let kept = self.random.index(self.pending_names.len() + 1);
        for change in self.pending_names.drain(..).take(kept) {
            apply_name(&mut self.durable_names, &change);
        }
        self.pending_names.clear();
        self.names = self.durable_names.clone();
    }
}

impl Inode {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.pending.push(ContentChange::Write {
            offset,
            bytes: bytes.to_vec(),
        });
        put(&mut self.content, offset, bytes);
    }

    /// Makes a random part of `changes` durable: all, none, a prefix, or sectors in any order.
    fn settle(&mut self, changes: Vec<ContentChange>, random: &Random) {
        let kept = match random.range(0..4) {
            0 => changes.len(),
            1 => 0,
            2 => random.index(changes.len() + 1),
            _ => usize::MAX,
        };
        for (index, change) in changes.into_iter().enumerate() {
            match change {
                _ if kept != usize::MAX && index > kept => break,
                ContentChange::Write { offset, bytes } if kept == usize::MAX => {
                    // Sectors are those of the file: the first and the last may have little of the write.
                    let (mut from, mut rest) = (offset, &bytes[..]);
                    while !rest.is_empty() {
                        let (sector, more) = rest.split_at(rest.len().min(SECTOR_BYTES - from % SECTOR_BYTES));
                        if random.chance(0.5) {
                            put(&mut self.durable, from, sector);
                        }
                        (from, rest) = (from + sector.len(), more);
                    }
                }
                ContentChange::Write { offset, bytes } if index == kept => {
                    let torn = random.index(bytes.len() + 1);
                    put(&mut self.durable, offset, &bytes[..torn]);
                }
                ContentChange::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                ContentChange::Truncate { .. } if index == kept => {}
                ContentChange::Truncate { length } => self.durable.truncate(length),
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename { from, to } => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Unlink { path } => {
            names.remove(path);
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.alive()?;
        let inode = match (mode, state.names.get(path).copied()) {
            (OpenMode::CreateNew, Some(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.change_name(NameChange::Link {
                    path: path.to_owned(),
                    inode,
                })?;
                inode
            }
            (_, Some(inode)) => inode,
            (_, None) => return Err(ErrorKind::NotFound.into()),
        };
        let opened = self::inode(&mut state, inode);
        opened.open += 1;
        let end = match mode {
            OpenMode::Reuse => 0,
            OpenMode::Read | OpenMode::Append | OpenMode::CreateNew => opened.content.len(),
        };
        Ok(Box::new(SimFile {
            state: self.state.clone(),
            inode,
            end,
            life: state.life,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Unlink { path: path.to_owned() })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        state.alive()?;
        let inside = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside
            .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
            .collect())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let dying = state.change()?;
        if dying {
            return state.finish();
        }
        if state.random.chance(state.faults.sync_error) {
            return Err(io::Error::other("simulated: directory sync failed"));
        }
        // Changes of other directories stay pending; a store uses one directory, so order between them is not modelled.
        let inside = |path: &Path| path.parent() == Some(directory);
        let (done, rest) = std::mem::take(&mut state.pending_names)
            .into_iter()
            .partition(|change| match change {
                NameChange::Link { path, .. } | NameChange::Unlink { path } => inside(path),
                NameChange::Rename { to, .. } => inside(to),
            });
        let done: Vec<NameChange> = done;
        state.pending_names = rest;
        for change in done {
            apply_name(&mut state.durable_names, &change);
        }
        state.free_inodes();
        Ok(())
    }

    fn create_directory(&self, _directory: &Path) -> io::Result<()> {
        self.state.lock().alive()
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        state.alive()?;
        Ok(state
            .faults
            .capacity_bytes
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used_bytes())))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state.lock();
        state.alive()?;
        if !state.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            state: self.state.clone(),
            path: path.to_owned(),
            life: state.life,
        }))
    }
}

struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    /// Where the next append goes.
    end: usize,
    life: u64,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(inode) = self.state.lock().inodes.get_mut(&self.inode) {
            inode.open -= 1;
        }
    }
}

impl SimFile {
    /// Runs `change` on the inode of a file that is still of this life.
    fn with<T>(&self, change: impl FnOnce(&mut State, u64) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("simulated: a file of a dead process"));
        }
        change(&mut state, self.inode)
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.with(|state, number| {
            let dying = state.change()?;
            let more = (offset + bytes.len()).saturating_sub(inode(state, number).content.len());
            let full = state
                .faults
                .capacity_bytes
                .is_some_and(|room| state.used_bytes() + more as u64 > room);
            let full = more > 0 && (full || state.random.chance(state.faults.no_space));
            let failing = state.random.chance(state.faults.write_error);
            let length = if dying || full || failing {
                state.random.index(bytes.len() + 1)
            } else {
                bytes.len()
            };
            inode(state, number).write(offset, &bytes[..length]);
            state.finish()?;
            if full {
                Err(ErrorKind::StorageFull.into())
            } else if failing {
                Err(io::Error::other("simulated: write failed"))
            } else {
                Ok(())
            }
        })
    }
}

fn inode(state: &mut State, number: u64) -> &mut Inode {
    state
        .inodes
        .get_mut(&number)
        .expect("invariant: an inode that is named or open is there")
}

impl DiskFile for SimFile {
    fn append_with_room(&mut self, bytes: &[u8], room: usize) -> io::Result<()> {
        self.write(self.end, bytes)?;
        self.end += bytes.len() - room;
        Ok(())
    }

    fn make_room(&mut self, from: u64, content: &[u8]) -> io::Result<()> {
        self.write(from as usize, content)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|state, number| {
            state.alive()?;
            let content = &inode(state, number).content;
            let rest = content.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|state, number| {
            state.alive()?;
            Ok(inode(state, number).content.len() as u64)
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.with(|state, number| {
            let dying = state.change()?;
            if !dying || state.random.chance(0.5) {
                let inode = inode(state, number);
                inode.content.truncate(length as usize);
                inode.pending.push(ContentChange::Truncate {
                    length: length as usize,
                });
            }
            state.finish()
        })?;
        self.end = self.end.min(length as usize);
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.with(|state, number| {
            let dying = state.change()?;
            if state.faults.syncs_lie && !dying {
                return Ok(());
            }
            let failing = state.random.chance(state.faults.sync_error);
            let random = state.random.clone();
            let inode = inode(state, number);
            let pending = std::mem::take(&mut inode.pending);
            if dying || failing {
                // Part of it reached the medium; the kernel considers all of it clean.
                inode.settle(pending, &random);
            } else {
                // Only what is pending: what an earlier failed sync covered stays lost.
                for change in pending {
                    match change {
                        ContentChange::Write { offset, bytes } => put(&mut inode.durable, offset, &bytes),
                        ContentChange::Truncate { length } => inode.durable.truncate(length),
                    }
                }
            }
            state.finish()?;
            if failing {
                Err(io::Error::other("simulated: sync failed"))
            } else {
                Ok(())
            }
        })
    }
}

struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
    life: u64,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
