//! Checks a recorded history against the guarantees: linearizable writes and reads, and the guarantees of a watch.
//!
//! Revisions give the total order, so the check is per operation: each acknowledged write is the change at its revision,
//! its guards held in the state before, real time agrees with the order of revisions, each read is the state at its
//! revision, which is not older than anything acknowledged before it began. Every written value is unique, so that a value
//! names its transaction. A watch must have delivered exactly the changes it asked for, in order, revision by revision.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use store::{Committed, Guard, Interest, Operation, Revision, Transaction};

/// Key to (value, revision of its write).
pub type State = BTreeMap<Bytes, (Bytes, Revision)>;

/// A moment of the whole run: counts up with every recorded one.
pub type Moment = u64;

#[derive(Clone, Debug)]
pub enum Outcome {
    Committed {
        revision: Revision,
        changed: bool,
    },
    GuardFailed {
        key: Bytes,
        current: Option<(Bytes, Revision)>,
        revision: Revision,
    },
    /// It promises that it did not happen.
    Refused,
    /// Nothing is known; also when the asker died.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub transaction: Transaction,
    pub invoked: Moment,
    pub returned: Moment,
    pub outcome: Outcome,
}

/// A whole table read at once.
#[derive(Clone, Debug)]
pub struct Read {
    pub prefix: Bytes,
    pub revision: Revision,
    pub content: Vec<(Bytes, Bytes, Revision)>,
    pub invoked: Moment,
    pub returned: Moment,
}

/// An event as a watcher saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub revision: Revision,
    pub key: Bytes,
    pub before: Option<Bytes>,
    pub after: Option<Bytes>,
}

/// A watch without a gap, possibly resumed: what it saw of the revisions after `start` up to `end`.
#[derive(Clone, Debug)]
pub struct Watch {
    pub prefix: Bytes,
    pub interest: Interest,
    pub start: Revision,
    pub end: Revision,
    /// In batches as delivered.
    pub batches: Vec<Vec<Seen>>,
}

#[derive(Default)]
pub struct History {
    pub now: Moment,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub watches: Vec<Watch>,
    /// When a watch delivered which revision: nobody reads an older one afterwards.
    pub deliveries: Vec<(Moment, Revision)>,
    /// What was committed, from the engine's own stream.
    pub truth: BTreeMap<Revision, Vec<(Bytes, Option<Bytes>)>>,
    pub violations: Vec<String>,
    /// Whether there are revisions of others, which are not in the truth.
    pub has_foreign_revisions: bool,
}

impl History {
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Notes a revision from the engine's stream; each has one content for good.
    pub fn commit(&mut self, commit: &Committed) {
        let change = |change: &store::Change| {
            (
                change.key.clone(),
                change.after.as_ref().map(|after| after.value.clone()),
            )
        };
        let changes: Vec<_> = commit.changes.iter().map(change).collect();
        let revision = commit.revision;
        match self.truth.get(&revision) {
            Some(known) if *known != changes => self.violation(format!("revision {revision} has two contents")),
            Some(_) => {}
            None => {
                let last = self.truth.keys().next_back().copied().unwrap_or(0);
                if revision <= last || (revision != last + 1 && !self.has_foreign_revisions) {
                    self.violation(format!("revision {revision} follows {last}"));
                }
                self.truth.insert(revision, changes);
            }
        }
    }

    /// Everything that is wrong.
    pub fn check(mut self) -> Vec<String> {
        let mut found = std::mem::take(&mut self.violations);
        let states = self.states();
        self.check_writes(&states, &mut found);
        self.check_order(&mut found);
        self.check_reads(&states, &mut found);
        for watch in &self.watches {
            self.check_watch(watch, &states, &mut found);
        }
        found
    }

    /// The state at a revision; a revision of others changes nothing.
    fn state_at<'a>(&self, states: &'a BTreeMap<Revision, State>, revision: Revision) -> Option<&'a State> {
        match self.has_foreign_revisions {
            true => states.range(..=revision).next_back().map(|(_, state)| state),
            false => states.get(&revision),
        }
    }

    /// The state after each revision.
    fn states(&self) -> BTreeMap<Revision, State> {
        let mut states = BTreeMap::from([(0, State::new())]);
        let mut state = State::new();
        for (revision, changes) in &self.truth {
            for (key, value) in changes {
                match value {
                    Some(value) => state.insert(key.clone(), (value.clone(), *revision)),
                    None => state.remove(key),
                };
            }
            states.insert(*revision, state.clone());
        }
        states
    }

    fn check_writes(&self, states: &BTreeMap<Revision, State>, found: &mut Vec<String>) {
        let mut owner: HashMap<&Bytes, usize> = HashMap::new();
        for (index, write) in self.writes.iter().enumerate() {
            for operation in &write.transaction.operations {
                if let Operation::Put(put) = operation {
                    owner.insert(&put.value, index);
                }
            }
        }
        // Who made each revision, as far as its values or its acknowledgement tell.
        let mut maker: BTreeMap<Revision, usize> = BTreeMap::new();
        for (revision, changes) in &self.truth {
            let owners: HashSet<_> = changes
                .iter()
                .filter_map(|(_, value)| owner.get(value.as_ref()?))
                .collect();
            match owners.len() {
                0 => {}
                1 => drop(maker.insert(*revision, *owners.into_iter().next().unwrap())),
                _ => found.push(format!("revision {revision} mixes transactions")),
            }
        }
        for (index, write) in self.writes.iter().enumerate() {
            match &write.outcome {
                Outcome::Committed {
                    revision,
                    changed: true,
                } => {
                    if maker.insert(*revision, index).is_some_and(|other| other != index) {
                        found.push(format!(
                            "revision {revision} was acknowledged to somebody else: {write:?}"
                        ));
                    }
                }
                Outcome::Committed {
                    revision,
                    changed: false,
                } => {
                    let Some(state) = self.state_at(states, *revision) else {
                        found.push(format!("no such revision: {write:?}"));
                        continue;
                    };
                    if !guards_hold(&write.transaction, state) || !effects(&write.transaction, state).is_empty() {
                        found.push(format!("not without effect at its revision: {write:?}"));
                    }
                }
                Outcome::GuardFailed { key, current, revision } => {
                    let Some(state) = self.state_at(states, *revision) else {
                        found.push(format!("refused at a revision that never was: {write:?}"));
                        continue;
                    };
                    if state.get(key) != current.as_ref() || guards_hold(&write.transaction, state) {
                        found.push(format!("refused for no reason: {write:?}"));
                    }
                }
                Outcome::Refused | Outcome::Unknown => {}
            }
        }
        for (revision, index) in &maker {
            let write = &self.writes[*index];
            if matches!(write.outcome, Outcome::Refused | Outcome::GuardFailed { .. }) {
                found.push(format!("revision {revision} is of a write that was refused: {write:?}"));
            }
            let Some(before) = self.state_at(states, revision - 1) else {
                found.push(format!("the state before revision {revision} is unknown"));
                continue;
            };
            if !guards_hold(&write.transaction, before) {
                found.push(format!("revision {revision} has guards that did not hold: {write:?}"));
            }
            if self.truth.get(revision) != Some(&effects(&write.transaction, before)) {
                found.push(format!("revision {revision} is not what was written: {write:?}"));
            }
        }
        let mut made: Vec<_> = maker.values().collect();
        made.sort_unstable();
        if made.windows(2).any(|pair| pair[0] == pair[1]) {
            found.push("a transaction happened twice".to_owned());
        }
    }

    /// What returned before another began has a lower revision than a write, and not a higher one than a read.
    fn check_order(&self, found: &mut Vec<String>) {
        // (invoked, returned, revision, must be above)
        let mut spans: Vec<(Moment, Moment, Revision, bool)> = Vec::new();
        for write in &self.writes {
            match &write.outcome {
                Outcome::Committed { revision, changed } => {
                    spans.push((write.invoked, write.returned, *revision, *changed))
                }
                Outcome::GuardFailed { revision, .. } => spans.push((write.invoked, write.returned, *revision, false)),
                Outcome::Refused | Outcome::Unknown => {}
            }
        }
        spans.extend(
            self.reads
                .iter()
                .map(|read| (read.invoked, read.returned, read.revision, false)),
        );
        let mut returns: Vec<(Moment, Revision)> = spans.iter().map(|span| (span.1, span.2)).collect();
        returns.extend(&self.deliveries);
        returns.sort_unstable();
        spans.sort_unstable();
        let mut newest = 0;
        let mut next = 0;
        for (invoked, _, revision, above) in spans {
            while next < returns.len() && returns[next].0 < invoked {
                newest = newest.max(returns[next].1);
                next += 1;
            }
            if revision < newest || (above && revision == newest) {
                found.push(format!("revision {revision} after {newest} had been answered"));
            }
        }
    }

    fn check_reads(&self, states: &BTreeMap<Revision, State>, found: &mut Vec<String>) {
        for read in &self.reads {
            let Some(state) = self.state_at(states, read.revision) else {
                found.push(format!("a read of a revision that never was: {}", read.revision));
                continue;
            };
            let table = state.iter().filter(|(key, _)| key.starts_with(&read.prefix));
            let expect: Vec<_> = table
                .map(|(key, (value, revision))| (key.clone(), value.clone(), *revision))
                .collect();
            if read.content != expect {
                found.push(format!("a read at revision {} is not its state", read.revision));
            }
        }
    }

    /// Ordered, unique, reliable (nothing missing), atomic (a revision in one batch), resumable (over its whole span) and
    /// bookmarkable (`end` is what it claimed to have delivered).
    fn check_watch(&self, watch: &Watch, states: &BTreeMap<Revision, State>, found: &mut Vec<String>) {
        if watch.end > *states.keys().next_back().unwrap() && !self.has_foreign_revisions {
            found.push(format!("a watch was told of revision {}, which never was", watch.end));
            return;
        }
        let mut expect: Vec<Vec<Seen>> = Vec::new();
        for (revision, changes) in self.truth.range(watch.start + 1..(watch.end + 1).max(watch.start + 1)) {
            let before = self.state_at(states, revision - 1).expect("the truth has no gap");
            let mut one = Vec::new();
            for (key, after) in changes.iter().filter(|(key, _)| key.starts_with(&watch.prefix)) {
                let before = before.get(key).map(|(value, _)| value.clone());
                let concerned = match &watch.interest {
                    Interest::All => true,
                    Interest::Key(wanted) => key == wanted,
                    Interest::Namespace(namespace) => {
                        key.starts_with(namespace) && !key[namespace.len()..].contains(&b'/')
                    }
                    Interest::Trigger(trigger) => {
                        let has = |value: &Option<Bytes>| value.as_ref().and_then(trigger_of).as_ref() == Some(trigger);
                        has(&before) || has(after)
                    }
                };
                if concerned {
                    one.push(Seen {
                        revision: *revision,
                        key: key.clone(),
                        before,
                        after: after.clone(),
                    });
                }
            }
            if !one.is_empty() {
                expect.push(one);
            }
        }
        let seen: Vec<Seen> = watch.batches.iter().flatten().cloned().collect();
        let wanted: Vec<Seen> = expect.into_iter().flatten().collect();
        if seen != wanted {
            let at = seen
                .iter()
                .zip(&wanted)
                .position(|(one, two)| one != two)
                .unwrap_or(seen.len().min(wanted.len()));
            let (one, two) = (seen.get(at), wanted.get(at));
            let span = (watch.start, watch.end);
            found.push(format!(
                "a watch of {:?} over {span:?} saw {one:?} instead of {two:?}",
                watch.interest
            ));
        }
        for pair in watch.batches.windows(2) {
            if let (Some(last), Some(first)) = (pair[0].last(), pair[1].first())
                && last.revision >= first.revision
            {
                found.push(format!("revision {} came in two batches", last.revision));
            }
        }
    }
}

fn guards_hold(transaction: &Transaction, state: &State) -> bool {
    transaction.guards.iter().all(|guard| match guard {
        Guard::Exists(key) => state.contains_key(key),
        Guard::Absent(key) => !state.contains_key(key),
        Guard::ModRevision(key, revision) => state.get(key).is_some_and(|(_, found)| found == revision),
    })
}

fn effects(transaction: &Transaction, state: &State) -> Vec<(Bytes, Option<Bytes>)> {
    let effect = |operation: &Operation| match operation {
        Operation::Put(put) => Some((put.key.clone(), Some(put.value.clone()))),
        Operation::Delete(key) => state.contains_key(key).then(|| (key.clone(), None)),
    };
    transaction.operations.iter().filter_map(effect).collect()
}

pub fn trigger_of(value: &Bytes) -> Option<String> {
    String::from_utf8_lossy(value)
        .split_once('@')
        .map(|(_, trigger)| trigger.to_owned())
}
