//! A work queue of keys: each key waits at most once, is worked on by one worker at a time, and comes back after a while
//! when it failed.
//!
//! Invariants: a key added while it is worked on is given out once more after that work is done, never during it; a key
//! is given out at the earliest of the moments it was asked for. The queue holds each key once, so it is bounded by the
//! number of objects.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::{self, QueueMetrics, Unfinished};

/// The delay after the first failure of a key. Source: client-go `DefaultTypedControllerRateLimiter`.
pub const RETRY_INITIAL: Duration = Duration::from_millis(5);
/// The longest delay after failures of a key.
pub const RETRY_MAX: Duration = Duration::from_secs(1000);

/// What a key may be.
pub trait Key: Clone + Eq + Hash + Ord + Send + Sync + 'static {}
impl<K: Clone + Eq + Hash + Ord + Send + Sync + 'static> Key for K {}

/// The queue. Cheap to clone; clones are the same queue.
pub struct WorkQueue<K: Key> {
    shared: Arc<Shared<K>>,
}

impl<K: Key> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue {
            shared: self.shared.clone(),
        }
    }
}

struct Shared<K: Key> {
    state: Mutex<State<K>>,
    /// Told when something becomes ready, when an earlier deadline appears, and at the end.
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and since when they are.
    queued: HashMap<K, Instant>,
    /// Keys given out.
    working: HashMap<K, Working>,
    delayed: BTreeSet<(Instant, K)>,
    deadlines: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    retry: (Duration, Duration),
    shut: bool,
    metrics: Option<QueueMetrics>,
}

/// Work on a key.
struct Working {
    since: Instant,
    /// Whether the key was added again meanwhile.
    again: bool,
}

impl<K: Key> Unfinished for Shared<K> {
    fn unfinished(&self) -> Vec<Duration> {
        let state = self.state.lock();
        state.working.values().map(|work| work.since.elapsed()).collect()
    }
}

impl<K: Key> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Key> WorkQueue<K> {
    /// A queue with the usual delays after failures.
    pub fn new() -> Self {
        Self::with_retry(RETRY_INITIAL, RETRY_MAX)
    }

    /// A queue whose delays after failures start at `initial` and double up to `max`.
    pub fn with_retry(initial: Duration, max: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashMap::new(),
            working: HashMap::new(),
            delayed: BTreeSet::new(),
            deadlines: HashMap::new(),
            failures: HashMap::new(),
            retry: (initial, max),
            shut: false,
            metrics: None,
        };
        WorkQueue {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// The same queue, counted in the process's metrics under a name: upstream's, where it has such a queue.
    pub fn named(self, name: &str) -> Self {
        let metrics = metrics::of_process();
        self.shared.state.lock().metrics = Some(metrics.queue(name));
        let shared: Weak<Shared<K>> = Arc::downgrade(&self.shared);
        metrics.follow(name, shared);
        self
    }

    /// Asks for work on a key now.
    pub fn add(&self, key: K) {
        let mut state = self.shared.state.lock();
        state.add(key);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Asks for work on a key after a delay; an earlier wish for the same key stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        if state.shut {
            return;
        }
        let at = Instant::now() + delay;
        match state.deadlines.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => {
                let later = *later;
                state.delayed.remove(&(later, key.clone()));
            }
            None => {}
        }
        state.deadlines.insert(key.clone(), at);
        state.delayed.insert((at, key));
        drop(state);
        self.shared.changed.notify_one();
    }

    /// The work on a key failed: asks for it again, later the more often it failed. Returns the delay.
    pub fn add_rate_limited(&self, key: K) -> Duration {
        let delay = {
            let mut state = self.shared.state.lock();
            let (initial, max) = state.retry;
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay = initial
                .saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX))
                .min(max);
            *failures = failures.saturating_add(1);
            if let Some(metrics) = &state.metrics {
                metrics.retries.inc();
            }
            delay
        };
        self.add_after(key, delay);
        delay
    }

    /// The work on a key succeeded (or is given up): the next failure waits the initial delay again.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often the work on a key failed since it last succeeded.
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key to work on; `None` after [`WorkQueue::shut_down`]. Dropping the item says that the work is done.
    /// Cancel-safe.
    pub async fn next(&self) -> Option<Item<K>> {
        loop {
            let notified = self.shared.changed.notified();
            let deadline = {
                let mut state = self.shared.state.lock();
                if state.shut {
                    self.shared.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                state.promote(now);
                if let Some(key) = state.ready.pop_front() {
                    let since = state.queued.remove(&key);
                    let work = Working {
                        since: now,
                        again: false,
                    };
                    state.working.insert(key.clone(), work);
                    let more = !state.ready.is_empty();
                    if let Some(metrics) = &state.metrics {
                        metrics.depth.dec();
                        let waited = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
                        metrics.waited.observe(waited.as_secs_f64());
                    }
                    drop(state);
                    if more {
                        self.shared.changed.notify_one();
                    }
                    return Some(Item {
                        key,
                        since: now,
                        shared: self.shared.clone(),
                    });
                }
                state.delayed.first().map(|(at, _)| *at)
            };
            match deadline {
                None => notified.await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, notified).await;
                }
            }
        }
    }

    /// Keys that are ready now.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing is ready or worked on; keys that wait for their time do not count.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.ready.is_empty() && state.working.is_empty()
    }

    /// Nothing more is given out.
    pub fn shut_down(&self) {
        self.shared.state.lock().shut = true;
        self.shared.changed.notify_one();
    }
}

impl<K: Key> State<K> {
    fn add(&mut self, key: K) {
        if self.shut {
            return;
        }
        if let Some(work) = self.working.get_mut(&key) {
            let already = std::mem::replace(&mut work.again, true);
            if let Some(metrics) = self.metrics.as_ref().filter(|_| !already) {
                metrics.adds.inc();
            }
        } else if !self.queued.contains_key(&key) {
            if let Some(metrics) = &self.metrics {
                metrics.adds.inc();
            }
            self.make_ready(key);
        }
    }

    fn make_ready(&mut self, key: K) {
        if let Some(metrics) = &self.metrics {
            metrics.depth.inc();
        }
        self.queued.insert(key.clone(), Instant::now());
        self.ready.push_back(key);
    }

    /// Moves the keys whose time has come.
    fn promote(&mut self, now: Instant) {
        while let Some((at, _)) = self.delayed.first()
            && *at <= now
        {
            let (_, key) = self.delayed.pop_first().expect("invariant: looked at above");
            self.deadlines.remove(&key);
            self.add(key);
        }
    }
}

/// A key to work on; dropping it says that the work is done.
pub struct Item<K: Key> {
    key: K,
    since: Instant,
    shared: Arc<Shared<K>>,
}

impl<K: Key> Item<K> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Key> std::ops::Deref for Item<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.key
    }
}

impl<K: Key> Drop for Item<K> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(metrics) = &state.metrics {
            metrics.worked.observe(self.since.elapsed().as_secs_f64());
        }
        let done = state.working.remove(&self.key);
        if done.is_some_and(|work| work.again) && !state.shut {
            state.make_ready(self.key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
