//! One resource's entries: reads now, at a snapshot, and at an old revision.

use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::watch::{Cursor, Interest, WatchError};
use super::{Entry, Handle, State, TableCore, Value};
use crate::engine::{KeyRange, Revision};
use crate::map::{Iter, Map};

/// A table of a replica. Cheap to clone.
pub struct Table<V> {
    pub(super) handle: Arc<Handle<V>>,
    pub(super) core: Arc<TableCore<V>>,
}

impl<V> Clone for Table<V> {
    fn clone(&self) -> Self {
        Self {
            handle: self.handle.clone(),
            core: self.core.clone(),
        }
    }
}

/// A table at a revision: immutable, O(1) to take and to clone.
pub struct Snapshot<V> {
    revision: Revision,
    map: Map<Arc<Entry<V>>>,
}

impl<V> Clone for Snapshot<V> {
    fn clone(&self) -> Self {
        Self {
            revision: self.revision,
            map: self.map.clone(),
        }
    }
}

impl<V: Value> Table<V> {
    pub(super) fn new(handle: Arc<Handle<V>>, core: Arc<TableCore<V>>) -> Self {
        Self { handle, core }
    }

    pub(super) fn of(&self, state: &State<V>) -> Option<Snapshot<V>> {
        let root = state.tables.get(&self.core.slot)?;
        Some(Snapshot {
            revision: state.revision,
            map: root.map.clone(),
        })
    }

    /// The prefix of all its keys.
    pub fn prefix(&self) -> &Bytes {
        &self.core.prefix
    }

    /// A key's entry now.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry<V>>> {
        let state = self.handle.shared.state.load();
        state.tables.get(&self.core.slot)?.map.get(key).cloned()
    }

    /// The table now. A removed table is empty.
    pub fn snapshot(&self) -> Snapshot<V> {
        let state = self.handle.shared.state.load();
        self.of(&state).unwrap_or(Snapshot {
            revision: state.revision,
            map: Map::new(),
        })
    }

    /// The table at an older revision: from a kept root, or undone from the recent events. None: it is in the future, or
    /// too long ago (the API's 410). What was rebuilt is kept for the next page.
    pub fn snapshot_at(&self, revision: Revision) -> Option<Snapshot<V>> {
        let now = self.snapshot();
        if revision >= now.revision {
            return (revision == now.revision).then_some(now);
        }
        let shared = &self.handle.shared;
        if revision < shared.age.lock().oldest(shared.clock.now_ms()) {
            return None;
        }
        let kept = self.core.roots.lock().at_or_after(revision);
        let (from, mut map) = kept.unwrap_or((now.revision, now.map));
        if from != revision {
            let events = self.core.ring.lock().between(revision, from)?;
            for event in events.iter().rev() {
                match &event.before {
                    Some(entry) => map.insert(entry.clone()),
                    None => map.remove(event.key()),
                };
            }
        }
        let snapshot = Snapshot { revision, map };
        self.keep(&snapshot);
        Some(snapshot)
    }

    /// Keeps a snapshot for [`Table::snapshot_at`] (a continue token was handed out), within the ring's limits.
    pub fn keep(&self, snapshot: &Snapshot<V>) {
        let total_bytes = self.core.ring.lock().total_bytes();
        let now_ms = self.handle.shared.clock.now_ms();
        self.core
            .roots
            .lock()
            .keep(snapshot.revision, snapshot.map.clone(), now_ms, total_bytes);
    }

    /// The oldest revision from which a watch can start.
    pub fn oldest_revision(&self) -> Revision {
        self.core.ring.lock().start_revision()
    }

    /// How many events there were since it was opened.
    pub fn events(&self) -> u64 {
        self.core.ring.lock().total_events()
    }

    /// Ends the watches that there are, with [`WatchError::Closed`]. They can begin again where they were.
    pub fn end_watches(&self) {
        let mut wake = Vec::new();
        self.core.ring.lock().end_watches(&mut wake);
        wake.iter().for_each(|notify| notify.notify_waiters());
    }

    /// Watches what happens after a revision. A future revision waits for it.
    ///
    /// # Errors
    /// `Expired`: the history does not reach back that far. `Closed`: the table was removed.
    pub fn watch_from(&self, revision: Revision, interest: Interest) -> Result<Cursor<V>, WatchError> {
        Cursor::open(self.clone(), revision, interest)
    }
}

impl<V: Value> Snapshot<V> {
    /// The store's revision this is the table of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A key's entry.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry<V>>> {
        self.map.get(key)
    }

    /// All entries in key order.
    pub fn iter(&self) -> Iter<'_, Arc<Entry<V>>> {
        self.map.iter()
    }

    /// The entries whose key starts with `prefix`, in key order.
    pub fn prefix(&self, prefix: &[u8]) -> impl Iterator<Item = &Arc<Entry<V>>> + use<'_, V> {
        self.at(self.places(&KeyRange::prefix(prefix)))
    }

    /// The places of a range's entries among all of them, without walking it.
    pub fn places(&self, range: &KeyRange) -> Range<usize> {
        let (lower, upper) = range.bounds();
        let start = self.map.count(Bound::Unbounded, before(lower));
        start..start + self.map.count(lower, upper)
    }

    /// The entries at these places, in key order: for a stream that walks a part, lets go, and goes on behind it. No key is
    /// looked at.
    pub fn at(&self, places: Range<usize>) -> impl Iterator<Item = &Arc<Entry<V>>> + use<'_, V> {
        self.map.from_place(places.start).take(places.len())
    }
}

/// Where the keys end that are below a lower bound.
fn before(lower: Bound<&[u8]>) -> Bound<&[u8]> {
    match lower {
        Bound::Included(key) => Bound::Excluded(key),
        Bound::Excluded(key) => Bound::Included(key),
        // No key is below the empty one.
        Bound::Unbounded => Bound::Excluded(&[]),
    }
}
