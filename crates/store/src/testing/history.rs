//! A recorded history and its check: linearizable writes and reads, and the guarantees of a watch.
//!
//! Works on any engine that was recorded as [`History`] says. Revisions give the total order, so the check is per
//! operation: each acknowledged write is the change at its revision, its guards held in the state before, real time agrees
//! with the order of revisions, each read is the state at its revision, which is not older than what it may not be older
//! than. Every written value is unique, so that a value names its transaction. A watch must have delivered exactly the
//! changes it asked for, in order, revision by revision: etcd's ordered, unique, reliable, atomic, resumable, bookmarkable.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;

use crate::engine::{Committed, Record, Revision};
use crate::replica::Interest;
use crate::transaction::{Guard, Operation, Transaction};

/// What a key has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its value.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that wrote the value.
    pub mod_revision: Revision,
    /// How often it was written since it was created.
    pub version: u64,
}

impl From<&Record> for Found {
    fn from(record: &Record) -> Self {
        Self {
            value: record.value.clone(),
            create_revision: record.create_revision,
            mod_revision: record.mod_revision,
            version: record.version,
        }
    }
}

/// All keys.
pub type State = BTreeMap<Bytes, Found>;

/// A moment of the whole run: counts up with every recorded one.
pub type Moment = u64;

/// How a write was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, or had nothing to do.
    Committed {
        /// The revision.
        revision: Revision,
        /// Whether it is its own.
        changed: bool,
    },
    /// A guard did not hold.
    GuardFailed {
        /// Whose.
        key: Bytes,
        /// What the key had.
        current: Option<Found>,
        /// When.
        revision: Revision,
    },
    /// It promises that it did not happen.
    Refused,
    /// Nothing is known; also when the asker died.
    Unknown,
}

/// Through what something was asked: a replica may be behind its engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// The engine itself, or a replica's consistent read: as new as anything acknowledged before.
    Engine,
    /// What a replica shows: as new as anything that this replica acknowledged or showed before.
    Replica,
}

/// A transaction and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// What was asked.
    pub transaction: Transaction,
    /// When it was asked.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
    /// Through what.
    pub through: Through,
    /// The answer.
    pub outcome: Outcome,
}

/// Keys with a prefix, read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The prefix.
    pub prefix: Bytes,
    /// The revision that was answered.
    pub revision: Revision,
    /// What was answered; none: only the revision was asked for.
    pub content: Option<Vec<(Bytes, Found)>>,
    /// When it was asked.
    pub invoked: Moment,
    /// When it was answered.
    pub returned: Moment,
    /// Through what; none: this very revision was asked for, however old it is.
    pub through: Option<Through>,
}

/// An event as a watcher saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The revision.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// What it had, if the watcher is told.
    pub before: Option<Bytes>,
    /// What it has since.
    pub after: Option<Bytes>,
}

/// A watch without a gap, possibly resumed: what it saw of the revisions after `start` up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The prefix of all keys it can see.
    pub prefix: Bytes,
    /// What it asked for among them.
    pub interest: Interest,
    /// It began after this revision.
    pub start: Revision,
    /// Up to here it was told to have everything.
    pub end: Revision,
    /// Whether events say what there was before.
    pub knows_before: bool,
    /// In batches as delivered.
    pub batches: Vec<Vec<Seen>>,
}

/// Everything that was asked, answered and delivered, and what an engine says it committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The last moment.
    pub now: Moment,
    /// The revision that the engine was at, empty, before all of this.
    pub start: Revision,
    /// All transactions.
    pub writes: Vec<Write>,
    /// All reads.
    pub reads: Vec<Read>,
    /// Watches that have ended.
    pub watches: Vec<Watch>,
    /// When a watch of the replica delivered which revision: nobody reads an older one there afterwards.
    pub deliveries: Vec<(Moment, Revision)>,
    /// What was committed, from the engine's own stream.
    pub truth: BTreeMap<Revision, Vec<(Bytes, Option<Bytes>)>>,
    /// Whether there are revisions of others, which are not in the truth: they change nothing here.
    pub has_foreign_revisions: bool,
    /// What was seen to be wrong while it happened.
    pub violations: Vec<String>,
}

impl History {
    /// The next moment.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// Notes something wrong.
    pub fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Notes what a watch delivers: nothing that it has said to have delivered before.
    pub fn delivery(&mut self, watch: &mut Watch, events: Vec<Seen>) {
        if let Some(late) = events.iter().find(|event| event.revision <= watch.end) {
            let end = watch.end;
            self.violation(format!("{late:?} came after the watch had been told of {end}"));
        }
        watch.batches.push(events);
    }

    /// The newest revision known from the engine's stream.
    pub fn newest(&self) -> Revision {
        self.truth.keys().next_back().copied().unwrap_or(self.start)
    }

    /// Notes a revision from the engine's stream; each has one content for good.
    pub fn commit(&mut self, commit: &Committed) {
        let change = |change: &crate::engine::Change| {
            let after = change.after.as_ref().map(|after| after.value.clone());
            (change.key.clone(), after)
        };
        let changes: Vec<_> = commit.changes.iter().map(change).collect();
        let revision = commit.revision;
        match self.truth.get(&revision) {
            Some(known) if *known != changes => self.violation(format!("revision {revision} has two contents")),
            Some(_) => {}
            None => {
                let last = self.newest();
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
        self.check_order(Through::Engine, &mut found);
        self.check_order(Through::Replica, &mut found);
        self.check_reads(&states, &mut found);
        for watch in &self.watches {
            self.check_watch(watch, &states, &mut found);
        }
        found
    }

    /// The state at a revision.
    fn state_at<'a>(&self, states: &'a BTreeMap<Revision, State>, revision: Revision) -> Option<&'a State> {
        if self.has_foreign_revisions {
            states.range(..=revision).next_back().map(|(_, state)| state)
        } else {
            states.get(&revision)
        }
    }

    /// The state after each revision.
    fn states(&self) -> BTreeMap<Revision, State> {
        let mut states = BTreeMap::from([(self.start, State::new())]);
        let mut state = State::new();
        for (revision, changes) in &self.truth {
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        let before = state.get(key);
                        let found = Found {
                            value: value.clone(),
                            create_revision: before.map_or(*revision, |before| before.create_revision),
                            mod_revision: *revision,
                            version: before.map_or(1, |before| before.version + 1),
                        };
                        state.insert(key.clone(), found)
                    }
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
            let values = changes.iter().filter_map(|(_, value)| owner.get(value.as_ref()?));
            let owners: HashSet<_> = values.copied().collect();
            let mut owners = owners.into_iter();
            if let Some(index) = owners.next() {
                maker.insert(*revision, index);
            }
            if owners.next().is_some() {
                found.push(format!("revision {revision} mixes transactions"));
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

    /// What was answered before another thing began has a lower revision than a write, and not a higher one than a read.
    /// For the engine everything that was answered counts; for what a replica shows, what that replica said.
    fn check_order(&self, through: Through, found: &mut Vec<String>) {
        // (invoked, returned, revision, must be above)
        let mut spans: Vec<(Moment, Moment, Revision, bool)> = Vec::new();
        let mut returns: Vec<(Moment, Revision)> = Vec::new();
        for write in &self.writes {
            let (revision, above) = match &write.outcome {
                Outcome::Committed { revision, changed } => (*revision, *changed),
                Outcome::GuardFailed { revision, .. } => (*revision, false),
                Outcome::Refused | Outcome::Unknown => continue,
            };
            // A write is decided by the engine, whoever carries it there.
            if through == Through::Engine {
                spans.push((write.invoked, write.returned, revision, above));
            }
            if through == Through::Engine || write.through == Through::Replica {
                returns.push((write.returned, revision));
            }
        }
        for read in &self.reads {
            let Some(by) = read.through else { continue };
            if by == through {
                spans.push((read.invoked, read.returned, read.revision, false));
            }
            if through == Through::Engine || by == Through::Replica {
                returns.push((read.returned, read.revision));
            }
        }
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
                found.push(format!(
                    "revision {revision} after {newest} had been answered ({through:?})"
                ));
            }
        }
    }

    fn check_reads(&self, states: &BTreeMap<Revision, State>, found: &mut Vec<String>) {
        for read in &self.reads {
            let Some(state) = self.state_at(states, read.revision) else {
                found.push(format!("a read of a revision that never was: {}", read.revision));
                continue;
            };
            let Some(content) = &read.content else { continue };
            let inside = state.iter().filter(|(key, _)| key.starts_with(&read.prefix));
            if !inside.eq(content.iter().map(|(key, found)| (key, found))) {
                found.push(format!("a read at revision {} is not its state", read.revision));
            }
        }
    }

    /// Ordered, unique, reliable (nothing missing), atomic (a revision in one batch), resumable (over its whole span) and
    /// bookmarkable (`end` is what it claimed to have delivered).
    fn check_watch(&self, watch: &Watch, states: &BTreeMap<Revision, State>, found: &mut Vec<String>) {
        let newest = states.keys().next_back().copied().unwrap_or(0);
        if watch.end > newest && watch.end > watch.start && !self.has_foreign_revisions {
            found.push(format!("a watch was told of revision {}, which never was", watch.end));
            return;
        }
        let mut wanted: Vec<Seen> = Vec::new();
        for (revision, changes) in self.truth.range(watch.start + 1..(watch.end + 1).max(watch.start + 1)) {
            let Some(state) = self.state_at(states, revision - 1) else {
                continue;
            };
            for (key, after) in changes.iter().filter(|(key, _)| key.starts_with(&watch.prefix)) {
                let before = state.get(key).map(|found| found.value.clone());
                if concerns(&watch.interest, key, before.as_ref(), after.as_ref()) {
                    wanted.push(Seen {
                        revision: *revision,
                        key: key.clone(),
                        before: before.filter(|_| watch.knows_before),
                        after: after.clone(),
                    });
                }
            }
        }
        let seen: Vec<Seen> = watch.batches.iter().flatten().cloned().collect();
        if seen != wanted {
            let same = seen.iter().zip(&wanted).take_while(|(one, two)| one == two).count();
            let (one, two) = (seen.get(same), wanted.get(same));
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
        Guard::ModRevision(key, revision) => state.get(key).is_some_and(|found| found.mod_revision == *revision),
    })
}

fn effects(transaction: &Transaction, state: &State) -> Vec<(Bytes, Option<Bytes>)> {
    let effect = |operation: &Operation| match operation {
        Operation::Put(put) => Some((put.key.clone(), Some(put.value.clone()))),
        Operation::Delete(key) => state.contains_key(key).then(|| (key.clone(), None)),
    };
    transaction.operations.iter().filter_map(effect).collect()
}

/// The trigger in a value: what follows an `@`.
pub fn trigger_of(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value)
        .ok()?
        .split_once('@')
        .map(|(_, trigger)| trigger)
}

fn concerns(interest: &Interest, key: &Bytes, before: Option<&Bytes>, after: Option<&Bytes>) -> bool {
    match interest {
        Interest::All => true,
        Interest::Key(wanted) => key == wanted,
        Interest::Namespace(namespace) => key.starts_with(namespace) && !key[namespace.len()..].contains(&b'/'),
        Interest::Trigger(trigger) => {
            let has = |value: Option<&Bytes>| value.and_then(|value| trigger_of(value)) == Some(trigger.as_str());
            has(before) || has(after)
        }
    }
}
