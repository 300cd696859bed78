//! Watching a table: a cursor into its ring.

use std::sync::Arc;

use bytes::Bytes;

use super::ring::Position;
use super::table::Table;
use super::{Event, Value};
use crate::engine::Revision;
use crate::mutation::{Mutation, mutated};

/// Events handed over at once. Larger batches save wakes, smaller ones keep the ring's lock short.
const BATCH_EVENTS_MAX: usize = 256;

/// What a watcher wants to be woken for. It may still see less: a field or label selector is the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// The whole table.
    All,
    /// One key.
    Key(Bytes),
    /// The keys directly under a prefix that ends with a slash (`/registry/pods/default/`).
    Namespace(Bytes),
    /// Entries whose value has, or had before the event, this [`Value::trigger`].
    Trigger(String),
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Its next event is gone: it started too far back or was too slow. The API's 410.
    #[error("the history needed for this watch is gone; the oldest revision is {oldest}")]
    Expired {
        /// The oldest revision from which a watch can start.
        oldest: Revision,
    },
    /// The table was removed, its watches were ended, or the replica ended.
    #[error("the table is closed")]
    Closed,
}

/// What a watch delivers at once.
#[derive(Debug)]
pub struct WatchBatch<V> {
    /// In order; all events of a revision are in one batch. Never empty.
    pub events: Vec<Arc<Event<V>>>,
    /// Every event up to this revision has been delivered: resume from here.
    pub revision: Revision,
    /// Whether others are there already.
    pub more: bool,
}

/// A watch of a table. Costs its position and nothing else.
pub struct Cursor<V: Value> {
    table: Table<V>,
    interest: Interest,
    position: Position,
    revision: Revision,
}

impl<V: Value> Cursor<V> {
    pub(super) fn open(table: Table<V>, revision: Revision, interest: Interest) -> Result<Self, WatchError> {
        let position = table.core.ring.lock().register(revision, &interest)?;
        Ok(Self {
            table,
            interest,
            position,
            revision,
        })
    }

    /// Waits for the next events. Cancel-safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// `Expired` and `Closed`; both are final.
    pub async fn next(&mut self) -> Result<WatchBatch<V>, WatchError> {
        let notify = self.position.notify.clone();
        loop {
            let woken = notify.notified();
            tokio::pin!(woken);
            // Registered before looking, so that nothing falls in between.
            woken.as_mut().enable();
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            woken.await;
        }
    }

    /// The next events if there are some now.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    pub fn try_next(&mut self) -> Result<Option<WatchBatch<V>>, WatchError> {
        // In this order: everything up to what is visible is in the ring.
        let visible = self.table.handle.shared.state.load().revision;
        let ring = self.table.core.ring.lock();
        let (events, drained) = ring.take(&mut self.position, &self.interest, visible, BATCH_EVENTS_MAX)?;
        drop(ring);
        if drained {
            self.revision = self.revision.max(visible);
        } else if let Some(last) = events.last() {
            self.revision = last.revision;
        }
        Ok((!events.is_empty()).then_some(WatchBatch {
            events,
            revision: self.revision,
            more: !drained,
        }))
    }

    /// How far this watch is, for a bookmark: the revision readers see, when no event up to it is waiting here. None:
    /// take the waiting events first, or the watch begins in the future.
    ///
    /// # Errors
    /// As [`Cursor::next`].
    pub fn progress(&mut self) -> Result<Option<Revision>, WatchError> {
        let visible = self.table.handle.shared.state.load().revision;
        if visible < self.revision && !mutated(Mutation::FutureWatchNotified) {
            return Ok(None);
        }
        let mut ahead = Position {
            generation: self.position.generation,
            next: self.position.next,
            after: self.position.after,
            notify: self.position.notify.clone(),
        };
        let (waiting, _) = self
            .table
            .core
            .ring
            .lock()
            .take(&mut ahead, &self.interest, visible, 1)?;
        if !waiting.is_empty() {
            return Ok(mutated(Mutation::ProgressBeforeEvents).then_some(visible));
        }
        self.position.next = ahead.next;
        self.revision = self.revision.max(visible);
        Ok(Some(self.revision))
    }

    /// Every event up to here was delivered: resume from here.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What it watches for.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }
}

impl<V: Value> Drop for Cursor<V> {
    fn drop(&mut self) {
        self.table.core.ring.lock().deregister(&self.interest);
    }
}
