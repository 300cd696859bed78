//! The pods that wait: for their turn, for the end of a back-off, or for something to change.
//!
//! Pure: time is handed in. Invariant: every pod is in exactly one place, told by its entry; what the heaps still say of
//! it elsewhere is recognised by its turn number and skipped.
//! Source: `pkg/scheduler/backend/queue/scheduling_queue.go`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::pod::{Pod, PodKey};

/// The first back-off of a pod, doubled for each further attempt.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// The longest back-off.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod is tried again after this long, even when nothing seemed to change.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// A pod that is to be scheduled now.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The pod.
    pub pod: Arc<Pod>,
    /// How often it was tried, this time included.
    pub number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    /// Something changed that may help: its turn comes when nobody else waits for one, or when its back-off is over.
    Backoff(Instant),
    /// The attempt itself failed: nothing comes before the end of the back-off.
    ErrorBackoff(Instant),
    /// Nothing that is known can help, until something changes.
    Unschedulable(Instant),
    /// Behind a gate.
    Gated,
    /// Handed out by [`Queue::pop`], not yet settled.
    InFlight,
}

struct Entry {
    pod: Arc<Pod>,
    place: Place,
    turn: u64,
    attempts: u32,
    tried: Option<Instant>,
    arrived: u64,
    /// Something changed while the pod was in flight: its verdict may be stale.
    stale: bool,
}

/// The queue of one scheduler.
#[derive(Default)]
pub struct Queue {
    entries: HashMap<PodKey, Entry>,
    /// Priority first, then who came earlier.
    active: BinaryHeap<(i32, Reverse<u64>, u64, PodKey)>,
    backoff: BTreeMap<(Instant, u64), PodKey>,
    error_backoff: BTreeMap<(Instant, u64), PodKey>,
    unschedulable: BTreeMap<(Instant, u64), PodKey>,
    turns: u64,
}

// === impl Queue ===

impl Queue {
    /// Takes a pod that waits, or its new state.
    pub fn put(&mut self, pod: Arc<Pod>, now: Instant) {
        let key = pod.key.clone();
        let known = self.entries.get_mut(&key).filter(|entry| entry.pod.uid == pod.uid);
        let Some(entry) = known else {
            self.turns += 1;
            let place = if pod.gates.is_empty() {
                Place::Active
            } else {
                Place::Gated
            };
            let entry = Entry {
                pod,
                place,
                turn: 0,
                attempts: 0,
                tried: None,
                arrived: self.turns,
                stale: false,
            };
            self.entries.insert(key.clone(), entry);
            self.move_to(&key, place);
            return;
        };
        let same = entry.pod.asks_the_same(&pod);
        entry.pod = pod;
        let gated = !entry.pod.gates.is_empty();
        match entry.place {
            Place::InFlight => entry.stale |= !same,
            _ if gated => self.move_to(&key, Place::Gated),
            Place::Gated => self.move_to(&key, Place::Active),
            _ if same => {}
            Place::Active => self.move_to(&key, Place::Active), // Its priority may have changed.
            Place::ErrorBackoff(_) => {}
            _ => self.wake(&key, now),
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, key: &PodKey) {
        self.entries.remove(key);
    }

    /// The pod whose turn it is. Without any, one that backs off because nothing fitted: waiting would help nobody.
    /// Source: KEP-5142 (`SchedulerPopFromBackoffQ`).
    pub fn pop(&mut self, now: Instant) -> Option<Attempt> {
        self.advance(now);
        while let Some((_, _, turn, key)) = self.active.pop() {
            if self.is_at(&key, turn, |place| place == Place::Active) {
                return self.hand_out(&key, now);
            }
        }
        while let Some(((at, turn), key)) = self.backoff.pop_first() {
            if self.is_at(&key, turn, |place| place == Place::Backoff(at)) {
                return self.hand_out(&key, now);
            }
        }
        None
    }

    fn is_at(&self, key: &PodKey, turn: u64, place: impl Fn(Place) -> bool) -> bool {
        let entry = self.entries.get(key);
        entry.is_some_and(|entry| entry.turn == turn && place(entry.place))
    }

    fn hand_out(&mut self, key: &PodKey, now: Instant) -> Option<Attempt> {
        let entry = self.entries.get_mut(key)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        entry.tried = Some(now);
        entry.stale = false;
        Some(Attempt {
            pod: entry.pod.clone(),
            number: entry.attempts,
        })
    }

    /// No node fits the pod: it waits for a change.
    pub fn unschedulable(&mut self, key: &PodKey, now: Instant) {
        match self.entries.get(key) {
            Some(entry) if entry.stale => self.wake(key, now),
            Some(_) => self.move_to(key, Place::Unschedulable(now + UNSCHEDULABLE_MAX)),
            None => {}
        }
    }

    /// The attempt failed for a reason of its own (a binding that was refused): it is tried again after its back-off.
    pub fn failed(&mut self, key: &PodKey, now: Instant) {
        match self.backs_off_until(key, now) {
            Some(until) => self.move_to(key, Place::ErrorBackoff(until)),
            None => self.move_to(key, Place::Active),
        }
    }

    /// Something changed: wakes the pods it may help. Pods in flight are tried again if they fail.
    pub fn wake_where(&mut self, now: Instant, may_help: impl Fn(&Pod) -> bool) {
        let mut keys = Vec::new();
        for (key, entry) in &mut self.entries {
            match entry.place {
                Place::Unschedulable(_) if may_help(&entry.pod) => keys.push(key.clone()),
                Place::InFlight if may_help(&entry.pod) => entry.stale = true,
                _ => {}
            }
        }
        keys.iter().for_each(|key| self.wake(key, now));
    }

    /// When something will happen by itself.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = |map: &BTreeMap<(Instant, u64), PodKey>| map.keys().next().map(|(at, _)| *at);
        let all = [&self.backoff, &self.error_backoff, &self.unschedulable];
        all.into_iter().filter_map(first).min()
    }

    /// Whether a pod can be popped now.
    pub fn has_work(&self) -> bool {
        !self.active.is_empty() || !self.backoff.is_empty()
    }

    /// How many pods wait, in whatever place.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no pod waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets those whose time has come become active.
    fn advance(&mut self, now: Instant) {
        while let Some(due) = self.backoff.first_entry().filter(|due| due.key().0 <= now) {
            let ((at, turn), key) = due.remove_entry();
            if self.is_at(&key, turn, |place| place == Place::Backoff(at)) {
                self.move_to(&key, Place::Active);
            }
        }
        while let Some(due) = self.error_backoff.first_entry().filter(|due| due.key().0 <= now) {
            let ((at, turn), key) = due.remove_entry();
            if self.is_at(&key, turn, |place| place == Place::ErrorBackoff(at)) {
                self.move_to(&key, Place::Active);
            }
        }
        while let Some(due) = self.unschedulable.first_entry().filter(|due| due.key().0 <= now) {
            let ((at, turn), key) = due.remove_entry();
            if self.is_at(&key, turn, |place| place == Place::Unschedulable(at)) {
                self.wake(&key, now);
            }
        }
    }

    fn wake(&mut self, key: &PodKey, now: Instant) {
        let until = self.backs_off_until(key, now);
        self.move_to(key, until.map_or(Place::Active, Place::Backoff));
    }

    /// The end of the pod's back-off, when that is still to come.
    fn backs_off_until(&self, key: &PodKey, now: Instant) -> Option<Instant> {
        let entry = self.entries.get(key)?;
        let until = entry.tried? + backoff(entry.attempts);
        (until > now).then_some(until)
    }

    fn move_to(&mut self, key: &PodKey, place: Place) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.turns += 1;
        (entry.place, entry.turn) = (place, self.turns);
        match place {
            Place::Active => {
                self.active
                    .push((entry.pod.priority, Reverse(entry.arrived), entry.turn, key.clone()));
            }
            Place::Backoff(at) => drop(self.backoff.insert((at, entry.turn), key.clone())),
            Place::ErrorBackoff(at) => drop(self.error_backoff.insert((at, entry.turn), key.clone())),
            Place::Unschedulable(at) => drop(self.unschedulable.insert((at, entry.turn), key.clone())),
            Place::Gated | Place::InFlight => {}
        }
    }
}

fn backoff(attempts: u32) -> Duration {
    let doubled = BACKOFF_INITIAL.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::PodView;
    use serde_json::json;

    fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<Pod> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let view: PodView = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "schedulingGates": gates},
        }))
        .unwrap();
        Arc::new(Pod::of_view(&view))
    }

    fn pop(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|attempt| attempt.pod.key.name.to_string())
    }

    #[tokio::test]
    async fn the_important_and_the_early_come_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.put(pod(name, priority, &[]), now);
        }
        let order: Vec<String> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[tokio::test]
    async fn a_failed_pod_backs_off() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0, &[]), start);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 10, 10] {
            let key = queue.pop(now).unwrap().pod.key.clone();
            queue.failed(&key, now);
            assert_eq!(pop(&mut queue, now), None);
            now += Duration::from_secs(seconds);
            assert_eq!(queue.next_deadline(), Some(now), "{seconds}");
        }
    }

    #[tokio::test]
    async fn an_unschedulable_pod_waits_for_what_helps() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0, &[]), now);
        let key = queue.pop(now).unwrap().pod.key.clone();
        queue.unschedulable(&key, now);
        queue.wake_where(now, |_| false);
        assert_eq!(pop(&mut queue, now + Duration::from_secs(60)), None);
        queue.wake_where(now, |pod| &*pod.key.name == "a");
        queue.put(pod("b", 0, &[]), now);
        assert_eq!(pop(&mut queue, now), Some("b".into()), "it backs off while others wait");
        assert_eq!(pop(&mut queue, now), Some("a".into()));
        assert_eq!(pop(&mut queue, now), None);
        // And without any change it is tried again some day.
        queue.unschedulable(&key, now);
        assert_eq!(pop(&mut queue, now + UNSCHEDULABLE_MAX + BACKOFF_MAX), Some("a".into()));
    }

    #[tokio::test]
    async fn what_changes_in_flight_is_not_missed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0, &[]), now);
        let key = queue.pop(now).unwrap().pod.key.clone();
        queue.wake_where(now, |_| true);
        queue.unschedulable(&key, now);
        assert_eq!(queue.next_deadline(), Some(now + BACKOFF_INITIAL));
        assert!(queue.has_work());
    }

    #[tokio::test]
    async fn gates_keep_pods_out() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0, &["g"]), now);
        assert_eq!(pop(&mut queue, now), None);
        queue.put(pod("a", 0, &[]), now);
        assert_eq!(pop(&mut queue, now), Some("a".into()));
    }

    #[tokio::test]
    async fn a_removed_or_replaced_pod_is_not_handed_out() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(pod("a", 0, &[]), now);
        queue.remove(&pod("a", 0, &[]).key);
        assert_eq!(pop(&mut queue, now), None);
        queue.put(pod("a", 0, &[]), now);
        queue.put(pod("a", 3, &[]), now);
        assert_eq!(queue.pop(now).unwrap().pod.priority, 3);
        assert_eq!(pop(&mut queue, now), None);
    }
}
