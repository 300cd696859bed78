//! The recent events of one table, indexed for those who watch it.
//!
//! A watcher is a position here, not a queue: ten thousand of them cost ten thousand positions, and one that is too slow
//! finds that its next event is gone. For each key, namespace and trigger that somebody watches there is a list of the
//! matching events' sequence numbers, so that a watcher touches only what it asked for. Invariants:
//! - events are in revision order; every event after `start_revision` is here;
//! - a topic lists exactly the matching events that are here, and remembers the newest it lost.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Event, Interest, Value, WatchError, Watches};
use crate::engine::Revision;
use crate::mutation::{Mutation, mutated};

/// Limits of a table's history. The first one reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// Events at most. At 10,000 events a second this is six seconds for a slow watcher.
    pub events_max: usize,
    /// Bytes of old values pinned at most; 80 busy tables stay near 1 GB in the worst case, a usual cluster below 20 MB.
    pub bytes_max: usize,
    /// Age at most: etcd's compaction interval in Kubernetes, so clients already live with it.
    pub window_ms: i64,
    /// Roots of old revisions kept for continue tokens at most.
    pub roots_max: usize,
}

impl Default for RingLimits {
    fn default() -> Self {
        Self {
            events_max: 65_536,
            bytes_max: 16 * 1024 * 1024,
            window_ms: 5 * 60 * 1000,
            roots_max: 64,
        }
    }
}

/// What an event costs beside the bytes it pins.
const EVENT_OVERHEAD_BYTES: usize = 160;

pub(crate) struct Ring<V> {
    limits: RingLimits,
    events: VecDeque<Arc<Event<V>>>,
    /// The sequence number of the first event here.
    first: u64,
    bytes: usize,
    start_revision: Revision,
    /// Bytes of all events that were ever here; kept roots measure by it what they pin.
    total_bytes: u64,
    /// Raised when the history is lost as a whole; cursors of an older one are expired.
    generation: u64,
    /// Cursors of a generation before this one are over, whatever they have missed.
    ended: u64,
    closed: bool,
    everything: Arc<Notify>,
    keys: HashMap<Bytes, Topic>,
    namespaces: HashMap<Bytes, Topic>,
    triggers: HashMap<String, Topic>,
}

#[derive(Default)]
struct Topic {
    watchers: usize,
    sequences: VecDeque<u64>,
    /// One past the newest matching event that was evicted.
    lost: u64,
    notify: Arc<Notify>,
}

/// Where a watcher is.
pub(crate) struct Position {
    pub(crate) generation: u64,
    /// The sequence number of the first event it may not have seen.
    pub(crate) next: u64,
    /// It wants only events after this one.
    pub(crate) after: Revision,
    pub(crate) notify: Arc<Notify>,
}

/// The namespace part of a key: up to and with its last slash.
pub(crate) fn namespace_of(key: &[u8]) -> &[u8] {
    let end = key.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    &key[..end]
}

impl<V: Value> Event<V> {
    fn cost(&self) -> usize {
        let before = self.before.as_ref().map_or(0, |entry| entry.bytes().len());
        EVENT_OVERHEAD_BYTES + self.key().len() + before
    }

    fn triggers(&self) -> [Option<&str>; 2] {
        let before = self.before.as_ref().and_then(|entry| entry.value.trigger());
        let after = self.after.as_ref().and_then(|entry| entry.value.trigger());
        [before, after.filter(|after| before != Some(after))]
    }

    /// Whether a watcher with this interest sees the event.
    pub(crate) fn concerns(&self, interest: &Interest) -> bool {
        match interest {
            Interest::All => true,
            Interest::Key(key) => self.key() == key,
            Interest::Namespace(namespace) => namespace_of(self.key()) == namespace.as_ref(),
            Interest::Trigger(trigger) => self.triggers().contains(&Some(trigger.as_str())),
        }
    }
}

impl<V: Value> Ring<V> {
    pub(crate) fn new(limits: RingLimits, start_revision: Revision) -> Self {
        Self {
            limits,
            events: VecDeque::new(),
            first: 0,
            bytes: 0,
            start_revision,
            total_bytes: 0,
            generation: 0,
            ended: 0,
            closed: false,
            everything: Arc::default(),
            keys: HashMap::new(),
            namespaces: HashMap::new(),
            triggers: HashMap::new(),
        }
    }

    pub(crate) fn start_revision(&self) -> Revision {
        self.start_revision
    }

    /// How many events were ever here.
    pub(crate) fn total_events(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Appends events in order and collects whom to wake once they are visible.
    pub(crate) fn append(&mut self, events: Vec<Arc<Event<V>>>, now_ms: i64, wake: &mut Vec<Arc<Notify>>) {
        for event in events {
            let sequence = self.first + self.events.len() as u64;
            self.each_topic(&event, |topic| {
                topic.sequences.push_back(sequence);
                wake.push(topic.notify.clone());
            });
            let cost = event.cost();
            self.bytes += cost;
            self.total_bytes += cost as u64;
            self.events.push_back(event);
        }
        wake.push(self.everything.clone());
        self.evict(now_ms);
    }

    fn evict(&mut self, now_ms: i64) {
        while let Some(oldest) = self.events.front() {
            let aged = oldest.time_ms < now_ms.saturating_sub(self.limits.window_ms);
            if self.events.len() <= self.limits.events_max && self.bytes <= self.limits.bytes_max && !aged {
                return;
            }
            let event = self.events.pop_front().expect("invariant: it has a front");
            let sequence = self.first;
            self.first += 1;
            self.bytes -= event.cost();
            self.start_revision = event.revision;
            self.each_topic(&event, |topic| {
                topic.sequences.pop_front();
                topic.lost = sequence + 1;
            });
        }
    }

    fn each_topic(&mut self, event: &Event<V>, mut visit: impl FnMut(&mut Topic)) {
        let key = event.key();
        if let Some(topic) = self.keys.get_mut(key) {
            visit(topic);
        }
        if let Some(topic) = self.namespaces.get_mut(namespace_of(key)) {
            visit(topic);
        }
        if !self.triggers.is_empty() {
            for trigger in event.triggers().into_iter().flatten() {
                if let Some(topic) = self.triggers.get_mut(trigger) {
                    visit(topic);
                }
            }
        }
    }

    /// The event of a key at a revision.
    pub(crate) fn find(&self, revision: Revision, key: &[u8]) -> Option<Arc<Event<V>>> {
        let start = self.events.partition_point(|event| event.revision < revision);
        let same = self
            .events
            .range(start..)
            .take_while(|event| event.revision == revision);
        same.into_iter().find(|event| event.key() == key).cloned()
    }

    /// The events of the revisions after `after` up to `last`, oldest first; none when some of them are gone.
    pub(crate) fn between(&self, after: Revision, last: Revision) -> Option<Vec<Arc<Event<V>>>> {
        if after < self.start_revision {
            return None;
        }
        let start = self.events.partition_point(|event| event.revision <= after);
        let end = self.events.partition_point(|event| event.revision <= last);
        Some(self.events.range(start..end.max(start)).cloned().collect())
    }

    /// Registers a watcher that has seen everything up to `after`.
    pub(crate) fn register(&mut self, after: Revision, interest: &Interest) -> Result<Position, WatchError> {
        if self.closed {
            return Err(WatchError::Closed);
        }
        if after < self.start_revision {
            return Err(WatchError::Expired {
                oldest: self.start_revision,
            });
        }
        let next = self.first + self.events.partition_point(|event| event.revision <= after) as u64;
        let (events, first) = (&self.events, self.first);
        let fill = || {
            let matching = events.iter().enumerate().filter(|(_, event)| event.concerns(interest));
            let sequences = matching.map(|(index, _)| first + index as u64).collect();
            Topic {
                watchers: 0,
                sequences,
                lost: 0,
                notify: Arc::default(),
            }
        };
        let notify = match interest {
            Interest::All => self.everything.clone(),
            Interest::Key(key) => join(&mut self.keys, key.clone(), fill),
            Interest::Namespace(namespace) => join(&mut self.namespaces, namespace.clone(), fill),
            Interest::Trigger(trigger) => join(&mut self.triggers, trigger.clone(), fill),
        };
        Ok(Position {
            generation: self.generation,
            next,
            after,
            notify,
        })
    }

    /// Takes a watcher back.
    pub(crate) fn deregister(&mut self, interest: &Interest) {
        match interest {
            Interest::All => {}
            Interest::Key(key) => leave(&mut self.keys, key),
            Interest::Namespace(namespace) => leave(&mut self.namespaces, namespace),
            Interest::Trigger(trigger) => leave(&mut self.triggers, trigger),
        }
    }

    /// Moves a watcher over at most `limit` matching events up to `visible` (and over the rest of the last one's revision)
    /// and returns them. True: there is no other one up to `visible`.
    pub(crate) fn take(
        &self,
        position: &mut Position,
        interest: &Interest,
        visible: Revision,
        limit: usize,
    ) -> Result<(Vec<Arc<Event<V>>>, bool), WatchError> {
        let expired = WatchError::Expired {
            oldest: self.start_revision,
        };
        if position.generation < self.ended || (self.closed && position.generation != self.generation) {
            return Err(WatchError::Closed);
        }
        if position.generation != self.generation {
            return Err(expired);
        }
        let topic = match interest {
            Interest::All => None,
            Interest::Key(key) => self.keys.get(key),
            Interest::Namespace(namespace) => self.namespaces.get(namespace),
            Interest::Trigger(trigger) => self.triggers.get(trigger),
        };
        let lost = topic.map_or(self.first, |topic| topic.lost);
        if lost > position.next && !mutated(Mutation::SlowWatchSkips) {
            return Err(expired);
        }
        let start = position.next.max(if mutated(Mutation::SlowWatchSkips) {
            self.first
        } else {
            0
        });
        let mut taken: Vec<Arc<Event<V>>> = Vec::new();
        let mut drained = true;
        let mut visit = |sequence: u64| {
            let event = &self.events[(sequence - self.first) as usize];
            if event.revision > visible {
                return false;
            }
            if taken.len() >= limit && taken.last().is_some_and(|last| last.revision != event.revision) {
                drained = false;
                return false;
            }
            position.next = sequence + 1;
            if event.revision > position.after || mutated(Mutation::FutureWatchSeesThePast) {
                taken.push(event.clone());
            }
            true
        };
        match topic {
            None => {
                let end = self.first + self.events.len() as u64;
                (start..end).all(&mut visit);
            }
            Some(topic) => {
                let index = topic.sequences.partition_point(|sequence| *sequence < start);
                topic.sequences.range(index..).copied().all(&mut visit);
            }
        }
        match taken.last() {
            Some(last) => position.after = last.revision,
            // What happened before the end was told.
            None if self.closed => return Err(WatchError::Closed),
            None => {}
        }
        Ok((taken, drained))
    }

    /// Loses the history: the state jumped to `revision`.
    pub(crate) fn reset(&mut self, revision: Revision, watches: Watches, wake: &mut Vec<Arc<Notify>>) {
        self.first += self.events.len() as u64;
        self.events.clear();
        self.bytes = 0;
        self.start_revision = revision;
        self.generation += 1;
        if watches == Watches::End {
            self.ended = self.generation;
        }
        for topic in self
            .keys
            .values_mut()
            .chain(self.namespaces.values_mut())
            .chain(self.triggers.values_mut())
        {
            topic.sequences.clear();
        }
        self.wake_all(wake);
    }

    /// Ends all watches that there are; others can begin where they were.
    pub(crate) fn end_watches(&mut self, wake: &mut Vec<Arc<Notify>>) {
        self.generation += 1;
        self.ended = self.generation;
        self.wake_all(wake);
    }

    /// Ends all watches for good, each once it was told what has happened until now.
    pub(crate) fn close(&mut self, wake: &mut Vec<Arc<Notify>>) {
        self.closed = true;
        self.wake_all(wake);
    }

    fn wake_all(&self, wake: &mut Vec<Arc<Notify>>) {
        wake.push(self.everything.clone());
        let topics = self
            .keys
            .values()
            .chain(self.namespaces.values())
            .chain(self.triggers.values());
        wake.extend(topics.map(|topic| topic.notify.clone()));
    }
}

fn join<K: Hash + Eq>(topics: &mut HashMap<K, Topic>, key: K, fill: impl FnOnce() -> Topic) -> Arc<Notify> {
    let topic = topics.entry(key).or_insert_with(fill);
    topic.watchers += 1;
    topic.notify.clone()
}

fn leave<K, Q>(topics: &mut HashMap<K, Topic>, key: &Q)
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if let Some(topic) = topics.get_mut(key) {
        topic.watchers -= 1;
        if topic.watchers == 0 {
            topics.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Entry;
    use super::*;
    use crate::engine::Record;
    use crate::transaction::Stamp;

    struct Node(Option<&'static str>);

    impl Value for Node {
        fn trigger(&self) -> Option<&str> {
            self.0
        }
    }

    fn entry(key: &'static str, node: Option<&'static str>) -> Option<Arc<Entry<Node>>> {
        let record = Record {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(b"0123456789"),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            stamp: Stamp::default(),
            expires_at_ms: None,
        };
        Some(Arc::new(Entry {
            record: Arc::new(record),
            value: Node(node),
        }))
    }

    const KEYS: [&str; 4] = ["/a/n1/x", "/a/n1/y", "/a/n2/x", "/a/z"];
    const NODES: [Option<&str>; 3] = [None, Some("one"), Some("two")];

    fn interests() -> Vec<Interest> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        vec![
            Interest::All,
            Interest::Key(bytes("/a/n1/x")),
            Interest::Namespace(bytes("/a/n1/")),
            Interest::Namespace(bytes("/a/")),
            Interest::Trigger("one".to_owned()),
        ]
    }

    proptest! {
        /// Watchers that begin at any time and look at any time see what a filter over all events gives, or are expired,
        /// and only those are who really missed one.
        #[test]
        fn indexes_agree_with_a_filter(
            steps in prop::collection::vec((0..4usize, 0..3usize, 0..3usize, any::<bool>(), 0..5usize, any::<bool>()), 1..80),
            events_max in 1..12usize,
        ) {
            let limits = RingLimits { events_max, ..RingLimits::default() };
            let mut ring = Ring::new(limits, 0);
            let mut all: Vec<Arc<Event<Node>>> = Vec::new();
            let mut watchers: Vec<(Interest, Position, Revision)> = Vec::new();
            let mut revision = 0;
            for (key, before, after, same_revision, which, look) in steps {
                revision += u64::from(!same_revision || revision == 0);
                let (before, after) = (entry(KEYS[key], NODES[before]), entry(KEYS[key], NODES[after]));
                let event = Arc::new(Event { revision, time_ms: 0, before, after });
                ring.append(vec![event.clone()], 0, &mut Vec::new());
                all.push(event);
                let visible = revision - 1;
                if look && !watchers.is_empty() {
                    let index = which % watchers.len();
                    let (interest, position, seen) = &mut watchers[index];
                    let wanted = |event: &&Arc<Event<Node>>| event.revision > *seen && event.concerns(interest);
                    let missed = all[..ring.first as usize].iter().any(|event| wanted(&event));
                    match ring.take(position, interest, visible, usize::MAX) {
                        Ok((events, drained)) => {
                            prop_assert!(drained && !missed);
                            let expect = all.iter().filter(wanted).filter(|event| event.revision <= visible);
                            let revisions = |events: Vec<&Arc<Event<Node>>>| events.iter().map(|event| Arc::as_ptr(event)).collect::<Vec<_>>();
                            prop_assert_eq!(revisions(events.iter().collect()), revisions(expect.collect()));
                            *seen = visible.max(*seen);
                        }
                        Err(error) => {
                            prop_assert!(missed, "{error}");
                            let (interest, _, _) = watchers.swap_remove(index);
                            ring.deregister(&interest);
                        }
                    }
                } else {
                    let interest = interests().swap_remove(which);
                    match ring.register(visible, &interest) {
                        Ok(position) => watchers.push((interest, position, visible)),
                        Err(error) => prop_assert!(visible < ring.start_revision, "{error}"),
                    }
                }
            }
            for (interest, _, _) in watchers {
                ring.deregister(&interest);
            }
            prop_assert!(ring.keys.is_empty() && ring.namespaces.is_empty() && ring.triggers.is_empty());
        }
    }

    #[test]
    fn bounded_by_bytes_and_age() {
        let pins = |limits| {
            let mut ring = Ring::new(limits, 0);
            for revision in 1..=10 {
                let event = Event {
                    revision,
                    time_ms: revision as i64,
                    before: entry(KEYS[0], None),
                    after: None,
                };
                ring.append(vec![Arc::new(event)], revision as i64, &mut Vec::new());
            }
            ring.events.len()
        };
        let each = EVENT_OVERHEAD_BYTES + KEYS[0].len() + 10;
        assert_eq!(pins(RingLimits::default()), 10);
        assert_eq!(
            pins(RingLimits {
                bytes_max: 3 * each,
                ..RingLimits::default()
            }),
            3
        );
        assert_eq!(
            pins(RingLimits {
                window_ms: 4,
                ..RingLimits::default()
            }),
            5
        );
    }
}
