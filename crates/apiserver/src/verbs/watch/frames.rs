//! Frames of events, made once by the first who asks and shared by everybody who watches the same thing (D1).
//!
//! Watchers of a kind meet an event within moments of each other, so only the newest frames are kept: a table of them for
//! each served version. It is empty while fewer than two watchers are open: a cache that nobody shares costs nothing.
//! Invariants:
//! - a frame's key says everything that its bytes depend on: the object (by address: the cache holds it, so the address is
//!   not given to another), the revision it is shown with, the event's word, the shape. The schema's epoch and the served
//!   version are those of the [`Frames`] itself: a changed row has another one;
//! - what is kept never passes the limits, one frame apart: the newest is always kept, however large.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;

use api::Status;

use crate::cluster::Object;
use crate::respond::item::Item;
use crate::respond::negotiate::Media;

/// Frames kept at once: a few times what a watcher takes from the ring at a time, so that slower ones still find them.
const FRAMES_MAX: usize = 1024;
/// Bytes of frames kept at once. It bounds what a kind that was busy costs afterwards while watchers are open.
const BYTES_MAX: usize = 1024 * 1024;

/// The word of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The object came, or came into the selector.
    Added,
    /// It changed.
    Modified,
    /// It went, or left the selector.
    Deleted,
}

impl Word {
    /// As the wire has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Word::Added => "ADDED",
            Word::Modified => "MODIFIED",
            Word::Deleted => "DELETED",
        }
    }
}

/// What a frame depends on, beside the served version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    object: usize,
    revision: u64,
    word: Word,
    shape: Shape,
}

/// The object tells most frames apart, and each delivery asks.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.object);
    }
}

/// What of an object is shown, and in which media type.
type Shape = (Item, Media);

/// A frame, made or in the making.
type Slot = Arc<OnceLock<Result<Bytes, Status>>>;

/// The newest frames of one served version.
#[derive(Default)]
pub struct Frames {
    watchers: AtomicUsize,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    slots: HashMap<Key, Slot>,
    /// Oldest first, each with the object whose address its key is.
    order: VecDeque<(Key, Arc<Object>)>,
    /// What the objects of all kept frames are in JSON: frames are about as large.
    bytes: usize,
}

/// A watcher, until it is dropped.
pub struct Open(Arc<Frames>);

impl Open {
    /// Counts a watcher in.
    pub fn new(frames: &Arc<Frames>) -> Open {
        frames.watchers.fetch_add(1, Ordering::Relaxed);
        Open(frames.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.watchers.fetch_sub(1, Ordering::Relaxed) <= 2 {
            *self.0.recent.lock() = Recent::default();
        }
    }
}

impl Frames {
    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.watchers.load(Ordering::Relaxed)
    }

    /// Whether anybody else could use a frame.
    pub fn are_shared(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 1
    }

    /// The frame of an event; `make` runs only for the first who asks, and the others wait for it.
    pub fn get(
        &self,
        object: &Arc<Object>,
        revision: u64,
        word: Word,
        shape: Shape,
        make: impl FnOnce() -> Result<Bytes, Status>,
    ) -> Result<Bytes, Status> {
        let key = Key {
            object: Arc::as_ptr(object).addr(),
            revision,
            word,
            shape,
        };
        let slot = self.recent.lock().slot(key, object);
        slot.get_or_init(make).clone()
    }
}

impl Recent {
    fn slot(&mut self, key: Key, object: &Arc<Object>) -> Slot {
        if let Some(slot) = self.slots.get(&key) {
            return slot.clone();
        }
        let slot = Slot::default();
        self.slots.insert(key, slot.clone());
        self.order.push_back((key, object.clone()));
        self.bytes += object.json_len();
        while self.order.len() > 1 && (self.order.len() > FRAMES_MAX || self.bytes > BYTES_MAX) {
            let (oldest, object) = self.order.pop_front().expect("invariant: there is more than one");
            self.slots.remove(&oldest);
            self.bytes -= object.json_len();
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Texts;

    const PLAIN: Shape = (Item::Object, Media::Json);

    fn object(size: usize) -> Arc<Object> {
        let value = json!({"metadata": {"name": "a"}, "data": "x".repeat(size)});
        Arc::new(Object::from_value(&value, 7, Texts::default()).unwrap())
    }

    #[test]
    fn a_frame_is_made_once_for_each_thing_it_depends_on() {
        let frames = Arc::new(Frames::default());
        let _both = [Open::new(&frames), Open::new(&frames)];
        let (a, b) = (object(1), object(1));
        let mut made = 0;
        let mut get = |object: &Arc<Object>, revision, word, shape| {
            let text = format!("{revision} {word:?} {shape:?}");
            let frame = frames.get(object, revision, word, shape, || {
                made += 1;
                Ok(text.clone().into())
            });
            assert_eq!(frame.unwrap(), text);
            made
        };
        assert_eq!(get(&a, 7, Word::Added, PLAIN), 1);
        assert_eq!(get(&a, 7, Word::Added, PLAIN), 1);
        assert_eq!(get(&b, 7, Word::Added, PLAIN), 2);
        assert_eq!(get(&a, 9, Word::Deleted, PLAIN), 3);
        assert_eq!(get(&a, 7, Word::Deleted, PLAIN), 4);
        assert_eq!(get(&a, 7, Word::Added, (Item::Partial("v1"), Media::Json)), 5);
        assert_eq!(get(&a, 7, Word::Added, (Item::Object, Media::Protobuf)), 6);
        assert_eq!(get(&b, 7, Word::Added, PLAIN), 6);
    }

    #[test]
    fn what_is_kept_is_bounded_and_goes_with_the_watchers() {
        let frames = Arc::new(Frames::default());
        let first = Open::new(&frames);
        assert!(!frames.are_shared());
        let second = Open::new(&frames);
        assert!(frames.are_shared());
        let ask = |object: &Arc<Object>| {
            let frame = frames.get(object, 7, Word::Added, PLAIN, || Ok(Bytes::new()));
            frame.unwrap();
        };
        for _ in 0..2 * FRAMES_MAX {
            ask(&object(1));
        }
        assert_eq!(frames.recent.lock().order.len(), FRAMES_MAX);
        for size in [BYTES_MAX / 2, BYTES_MAX / 3, BYTES_MAX / 2] {
            ask(&object(size));
        }
        assert_eq!(frames.recent.lock().order.len(), 2);
        ask(&object(2 * BYTES_MAX));
        let recent = frames.recent.lock();
        assert_eq!((recent.order.len(), recent.slots.len()), (1, 1));
        drop(recent);
        drop(second);
        assert!(frames.recent.lock().order.is_empty() && frames.recent.lock().bytes == 0);
        drop(first);
    }
}
