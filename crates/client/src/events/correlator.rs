//! Which events are written, and which only raise the count of one that is. Pure.
//!
//! Upstream's rules (client-go `tools/record/events_cache.go`): the same event again raises its count; many similar events
//! with different messages become one "(combined from similar events)"; an object that makes too many is silenced.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{ObjectReference, Occurrence};

/// Events, groups and objects that are remembered; the ones not used for longest are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// So many similar events are told apart, then they are combined.
const SIMILAR_MAX: usize = 10;
/// Similar events are combined while no more than this is between them.
const SIMILAR_SECONDS: i64 = 600;
/// An object may make so many events at once ...
const BURST: f64 = 25.0;
/// ... and then one in so many seconds.
const REFILL_SECONDS: f64 = 300.0;
/// What stands before the message of a combined event.
const COMBINED: &str = "(combined from similar events): ";

/// What to write for an occurrence.
pub(super) struct Write {
    /// To be handed to [`Correlator::written`].
    pub key: Occurrence,
    pub namespace: String,
    /// The whole event.
    pub body: Value,
    /// The name of the event whose count is raised.
    pub existing: Option<String>,
}

pub(super) struct Correlator {
    component: String,
    host: String,
    seen: Remembered<Occurrence, Seen>,
    similar: Remembered<Occurrence, Similar>,
    buckets: Remembered<ObjectReference, Bucket>,
    /// The time in the last event's name; names must differ even within one tick of the clock.
    last_name: i128,
}

struct Seen {
    name: String,
    count: u64,
    first: Timestamp,
}

struct Similar {
    messages: Vec<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

impl Correlator {
    pub(super) fn new(component: &str, host: &str) -> Self {
        Correlator {
            component: component.into(),
            host: host.into(),
            seen: Remembered::default(),
            similar: Remembered::default(),
            buckets: Remembered::default(),
            last_name: 0,
        }
    }

    /// Decides about an occurrence; `None`: it is not told.
    pub(super) fn observe(&mut self, occurrence: &Occurrence, now: Timestamp) -> Option<Write> {
        // The revision of the object is no part of what makes events the same.
        let mut about = occurrence.about.clone();
        about.resource_version = String::new();
        let key = Occurrence {
            about: about.clone(),
            ..occurrence.clone()
        };
        let (key, message) = self.combine(key, occurrence.message.clone(), now);
        if !self.allowed(about, now) {
            return None;
        }
        let (count, first, existing) = match self.seen.get(&key) {
            Some(seen) => {
                seen.count += 1;
                (seen.count, seen.first, Some(seen.name.clone()))
            }
            None => (1, now, None),
        };
        let namespace = match occurrence.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        self.last_name = now.as_nanosecond().max(self.last_name + 1);
        let name = format!("{}.{:x}", occurrence.about.name, self.last_name);
        let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        let body = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": occurrence.about.to_json(),
            "reason": occurrence.reason, "message": message, "type": occurrence.event_type.as_str(),
            "count": count, "firstTimestamp": time(first), "lastTimestamp": time(now), "eventTime": null,
            "source": source, "reportingComponent": self.component, "reportingInstance": self.host,
        });
        if existing.is_none() {
            self.seen.insert(
                key.clone(),
                Seen {
                    name: String::new(),
                    count,
                    first,
                },
            );
        }
        let existing = existing.filter(|name| !name.is_empty());
        Some(Write {
            key,
            namespace: namespace.into(),
            body,
            existing,
        })
    }

    /// An event was created under this name; repeats will raise its count.
    pub(super) fn written(&mut self, key: Occurrence, name: &str) {
        if let Some(seen) = self.seen.get(&key) {
            seen.name = name.into();
        }
    }

    /// The key under which the occurrence is counted, and its message.
    fn combine(&mut self, key: Occurrence, message: String, now: Timestamp) -> (Occurrence, String) {
        let group = Occurrence {
            message: String::new(),
            ..key.clone()
        };
        match self.similar.get(&group) {
            Some(similar) if now.duration_since(similar.last).as_secs() <= SIMILAR_SECONDS => {
                similar.last = now;
                if !similar.messages.contains(&message) && similar.messages.len() < SIMILAR_MAX {
                    similar.messages.push(message.clone());
                }
                if similar.messages.len() >= SIMILAR_MAX && !similar.messages[..SIMILAR_MAX - 1].contains(&message) {
                    return (group, format!("{COMBINED}{message}"));
                }
            }
            _ => self.similar.insert(
                group,
                Similar {
                    messages: vec![message.clone()],
                    last: now,
                },
            ),
        }
        (key, message)
    }

    fn allowed(&mut self, about: ObjectReference, now: Timestamp) -> bool {
        match self.buckets.get(&about) {
            Some(bucket) => {
                let seconds = now.duration_since(bucket.last).as_secs_f64().max(0.0);
                bucket.tokens = (bucket.tokens + seconds / REFILL_SECONDS).min(BURST);
                bucket.last = now;
                let allowed = bucket.tokens >= 1.0;
                if allowed {
                    bucket.tokens -= 1.0;
                }
                allowed
            }
            None => {
                self.buckets.insert(
                    about,
                    Bucket {
                        tokens: BURST - 1.0,
                        last: now,
                    },
                );
                true
            }
        }
    }
}

/// A map that forgets: when it is full, the half that was not used for longest goes.
struct Remembered<K, V> {
    entries: HashMap<K, (u64, V)>,
    uses: u64,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Remembered {
            entries: HashMap::new(),
            uses: 0,
        }
    }
}

impl<K: Hash + Eq, V> Remembered<K, V> {
    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.uses += 1;
        let (used, value) = self.entries.get_mut(key)?;
        *used = self.uses;
        Some(value)
    }

    fn insert(&mut self, key: K, value: V) {
        self.uses += 1;
        if self.entries.len() >= REMEMBERED_MAX {
            let mut uses: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
            uses.sort_unstable();
            let middle = uses[uses.len() / 2];
            self.entries.retain(|_, (used, _)| *used > middle);
        }
        self.entries.insert(key, (self.uses, value));
    }
}
