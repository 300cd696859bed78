//! Keeps the node ports of Services and the keys that say whose they are together where a write did not: what an older version
//! or another program left, and what people changed in the store by hand.
//!
//! A port is looked at when who has it changes, and all of them when the server starts. Every correction is one transaction that
//! holds only for what was seen, so that it never undoes what somebody writes meanwhile; the event follows it.
//!
//! Source: `pkg/registry/core/service/portallocator/controller/repair.go`. Different from upstream: whose key there is keeps a
//! port that several Services have, where upstream takes the first by name; a key that is nobody's goes at once, where upstream's
//! bitmap cannot tell whether its Service is being written; and nothing is looked at, nor told, again while it stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::Arc;

use api::{Status, Value};
use base::Shutdown;
use bytes::Bytes;
use client::Client;
use client::events::Recorder;
use client::queue::WorkQueue;
use client::worker::{Next, run};
use parking_lot::Mutex;
use store::{Guard, KeyRange, Operation, Record, Transaction};

use super::repair::{Finding, record, services};
use super::{CLAIMED_PORTS, Given, claim, ports};
use crate::cluster::{Change, Cluster, Object};
use crate::server::Server;
use crate::storage::WriteError;

const COMPONENT: &str = "portallocator-repair-controller";
/// How many ports are looked at at a time.
const WORKERS: usize = 4;

/// A Service: namespace and name.
type Name = (String, String);

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// All that Services have, and all that there are keys of.
    All,
    Port(u16),
}

/// What is to be done about a port.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    /// It is this one's, and its key says so.
    Keep(Name),
    /// The same, but the key has to be written.
    Claim(Name, Finding),
    /// The key goes: nobody has the port.
    Free,
}

/// Pure: who has a port, against whom its key names. What there is to tell of whom comes with what is to be done.
fn judge(port: u16, range: &Range<u16>, holders: &BTreeSet<Name>, key: Option<&str>) -> (Vec<(Name, Finding)>, Step) {
    let finding = |reason, message| Finding { reason, message };
    let Some(first) = holders.first() else {
        let step = if key.is_some() { Step::Free } else { Step::Nothing };
        return (Vec::new(), step);
    };
    if !range.contains(&port) {
        let message = format!(
            "Port {port} is not within the port range {}-{}; please recreate service",
            range.start,
            range.end - 1
        );
        let told = holders
            .iter()
            .map(|name| (name.clone(), finding("PortOutOfRange", message.clone())));
        return (told.collect(), Step::Nothing);
    }
    let named = key.and_then(owner);
    let rightful = named.filter(|named| holders.contains(named));
    let is_named = rightful.is_some();
    let rightful = rightful.unwrap_or_else(|| first.clone());
    let message = format!("Port {port} was assigned to multiple services; please recreate service");
    let others = holders.iter().filter(|name| **name != rightful);
    let told = others.map(|name| (name.clone(), finding("PortAlreadyAllocated", message.clone())));
    let told = told.collect();
    let step = match is_named {
        true => Step::Keep(rightful),
        false => {
            let message = format!("Port {port} is not allocated; repairing");
            Step::Claim(rightful, finding("PortNotAllocated", message))
        }
    };
    (told, step)
}

/// Whom a key names.
fn owner(value: &str) -> Option<Name> {
    let (namespace, name) = value.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// Which Services have a port, for all ports that some have.
#[derive(Default)]
struct Holders(BTreeMap<u16, BTreeSet<Name>>);

impl Holders {
    fn of<'a>(all: impl IntoIterator<Item = &'a Arc<Object>>) -> Holders {
        let mut holders = Holders::default();
        for object in all {
            holders.changed(name(object), &[], &ports::of(&object.value()));
        }
        holders
    }

    /// A Service had these ports and has those now. The ports of which that makes a difference.
    fn changed(&mut self, name: Name, before: &[u16], now: &[u16]) -> Vec<u16> {
        let lost = before.iter().filter(|port| !now.contains(port));
        let won = now.iter().filter(|port| !before.contains(port));
        for port in lost.clone() {
            if let Some(names) = self.0.get_mut(port) {
                names.remove(&name);
                if names.is_empty() {
                    self.0.remove(port);
                }
            }
        }
        for port in won.clone() {
            self.0.entry(*port).or_default().insert(name.clone());
        }
        lost.chain(won).copied().collect()
    }
}

fn name(object: &Object) -> Name {
    (object.namespace().to_owned(), object.name().to_owned())
}

struct Repair {
    server: Arc<Server>,
    recorder: Recorder,
    holders: Mutex<Holders>,
    queue: WorkQueue<Key>,
}

impl Repair {
    fn heard(&self, change: Change) {
        match change {
            Change::Reset(all) => {
                *self.holders.lock() = Holders::of(&all);
                self.queue.add(Key::All);
            }
            Change::Changed { old, new } => {
                let Some(one) = new.as_ref().or(old.as_ref()) else {
                    return;
                };
                let of = |object: &Option<Arc<Object>>| object.as_ref().map(|object| ports::of(&object.value()));
                let (before, now) = (of(&old).unwrap_or_default(), of(&new).unwrap_or_default());
                let concerned = self.holders.lock().changed(name(one), &before, &now);
                concerned.into_iter().for_each(|port| self.queue.add(Key::Port(port)));
            }
        }
    }

    async fn look(&self, key: Key) -> Result<Next, String> {
        let outcome = match key {
            Key::All => self.all().await,
            Key::Port(port) => self.read_and_repair(port).await,
        };
        match outcome {
            Ok(()) => Ok(Next::Wait),
            Err(WriteError::Raced) => Ok(Next::Retry),
            Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => {
                self.server.allocator.metrics().port_repair_failed();
                Err(status.message)
            }
        }
    }

    async fn all(&self) -> Result<(), WriteError> {
        let stored = self.read(KeyRange::prefix(CLAIMED_PORTS.as_bytes())).await?;
        let mut ports: BTreeMap<u16, Option<Arc<Record>>> = BTreeMap::new();
        for record in stored {
            let port = record.key.strip_prefix(CLAIMED_PORTS.as_bytes());
            let port = port.and_then(|port| std::str::from_utf8(port).ok()?.parse().ok());
            if let Some(port) = port {
                ports.insert(port, Some(record));
            }
        }
        for port in self.holders.lock().0.keys() {
            ports.entry(*port).or_default();
        }
        for (port, record) in ports {
            match self.repair(port, record.as_deref()).await {
                // The others are not looked at again for this one.
                Err(WriteError::Raced) => self.queue.add(Key::Port(port)),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    async fn read_and_repair(&self, port: u16) -> Result<(), WriteError> {
        let key = claim(Given::Port(port));
        let one = KeyRange {
            lower: Bound::Included(key.clone()),
            upper: Bound::Included(key),
        };
        let stored = self.read(one).await?;
        self.repair(port, stored.first().map(Arc::as_ref)).await
    }

    async fn read(&self, range: KeyRange) -> Result<Vec<Arc<Record>>, WriteError> {
        self.server.storage.range(range).await.map_err(WriteError::Failed)
    }

    async fn repair(&self, port: u16, stored: Option<&Record>) -> Result<(), WriteError> {
        let holders = self.holders.lock().0.get(&port).cloned().unwrap_or_default();
        let value = stored.map(|record| String::from_utf8_lossy(&record.value).into_owned());
        let allocator = &self.server.allocator;
        let (told, step) = judge(port, allocator.node_ports(), &holders, value.as_deref());
        let owner = match step {
            Step::Nothing => None,
            Step::Keep(owner) => Some(owner),
            Step::Claim(owner, finding) => {
                if self.claim(port, &owner, stored).await? {
                    self.tell(&owner, finding);
                }
                Some(owner)
            }
            Step::Free => {
                if let Some(stored) = stored {
                    self.free(port, stored).await?;
                }
                None
            }
        };
        // A Service that had the same port may have given it back.
        if let Some((namespace, name)) = owner {
            allocator.hold_port(port, &namespace, &name);
        }
        told.into_iter().for_each(|(name, finding)| self.tell(&name, finding));
        Ok(())
    }

    fn get(&self, (namespace, name): &Name) -> Option<Arc<Object>> {
        Cluster::get(&*self.server.storage, &services(), namespace, name)
    }

    fn key(&self, (namespace, name): &Name) -> Result<Bytes, WriteError> {
        let registry = self.server.registry.load();
        let kind = registry
            .kind(&services())
            .ok_or_else(|| WriteError::Failed(Status::no_such_path()))?;
        Ok(kind.key(namespace, name).into())
    }

    /// Writes the key of a port. False: the Service has it no longer.
    async fn claim(&self, port: u16, owner: &Name, stored: Option<&Record>) -> Result<bool, WriteError> {
        let service = self.get(owner).filter(|service| has(service, port));
        let Some(service) = service else {
            return Ok(false);
        };
        let key = claim(Given::Port(port));
        let unchanged = match stored {
            Some(record) => Guard::ModRevision(key.clone(), record.mod_revision),
            None => Guard::Absent(key.clone()),
        };
        let (namespace, name) = owner;
        let transaction = Transaction::new()
            .guard(Guard::ModRevision(self.key(owner)?, service.revision()))
            .guard(unchanged)
            .put(key, format!("{namespace}/{name}"));
        self.server.storage.commit(transaction).await?;
        Ok(true)
    }

    /// Removes the key of a port, unless the Service that it names has the port after all.
    async fn free(&self, port: u16, stored: &Record) -> Result<(), WriteError> {
        let mut transaction = Transaction::new().guard(Guard::ModRevision(stored.key.clone(), stored.mod_revision));
        if let Some(owner) = owner(&String::from_utf8_lossy(&stored.value)) {
            transaction = transaction.guard(match self.get(&owner) {
                Some(service) if has(&service, port) => return Ok(()),
                Some(service) => Guard::ModRevision(self.key(&owner)?, service.revision()),
                None => Guard::Absent(self.key(&owner)?),
            });
        }
        let gone = Operation::Delete(stored.key.clone());
        self.server.storage.commit(transaction.operation(gone)).await?;
        self.server.allocator.metrics().found_of_ports("leak");
        tracing::warn!(port, "the node port appears to have leaked: cleaning up");
        Ok(())
    }

    fn tell(&self, name: &Name, finding: Finding) {
        self.server.allocator.metrics().found_of_ports(finding.kind());
        let service: Option<Value> = self.get(name).map(|service| service.value());
        if let Some(service) = service {
            record(
                &self.recorder,
                &client::resources::SERVICES,
                &service,
                finding,
                "node ports",
            );
        }
    }
}

fn has(service: &Object, port: u16) -> bool {
    ports::of(&service.value()).contains(&port)
}

/// Starts to keep them together.
pub(super) fn start(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) {
    if server.registry.load().kind(&services()).is_none() {
        return;
    }
    let queue = WorkQueue::<Key>::new().named("portallocator_repair");
    let repair = Arc::new(Repair {
        server: server.clone(),
        recorder: Recorder::start(client.clone(), COMPONENT, "", server.clock.clone(), shutdown),
        holders: Mutex::default(),
        queue: queue.clone(),
    });
    let mut changes = server.storage.changes(&services());
    let (stop, news) = (shutdown.clone(), repair.clone());
    shutdown.spawn(async move {
        while let Some(Some(change)) = stop.until(changes.next()).await {
            news.heard(change);
        }
    });
    let stop = shutdown.clone();
    shutdown.spawn(run(queue, WORKERS, stop, move |key| {
        let repair = repair.clone();
        async move { repair.look(key).await }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Name {
        ("n".into(), name.into())
    }

    #[test]
    fn a_port_is_one_services() {
        let told = |name: &str, reason, message: &str| {
            let message = message.to_owned();
            (named(name), Finding { reason, message })
        };
        let twice = |name: &str| {
            let message = "Port 30001 was assigned to multiple services; please recreate service";
            told(name, "PortAlreadyAllocated", message)
        };
        let outside = |name: &str| {
            let message = "Port 30001 is not within the port range 30100-30200; please recreate service";
            told(name, "PortOutOfRange", message)
        };
        let claim = |name: &str| {
            let (name, finding) = told(name, "PortNotAllocated", "Port 30001 is not allocated; repairing");
            Step::Claim(name, finding)
        };
        let (range, other) = (30_000..30_100, 30_100..30_201);
        for (holders, range, key, expect) in [
            (&[][..], &range, None, (vec![], Step::Nothing)),
            (&[], &range, Some("n/a"), (vec![], Step::Free)),
            (&[], &other, Some("n/a"), (vec![], Step::Free)),
            (&["a"], &range, Some("n/a"), (vec![], Step::Keep(named("a")))),
            (&["a"], &range, None, (vec![], claim("a"))),
            (&["a"], &range, Some("n/b"), (vec![], claim("a"))),
            (&["a"], &range, Some("nonsense"), (vec![], claim("a"))),
            (
                &["a", "b"],
                &range,
                Some("n/b"),
                (vec![twice("a")], Step::Keep(named("b"))),
            ),
            (
                &["a", "b", "c"],
                &range,
                None,
                (vec![twice("b"), twice("c")], claim("a")),
            ),
            (
                &["a", "b"],
                &other,
                Some("n/a"),
                (vec![outside("a"), outside("b")], Step::Nothing),
            ),
        ] {
            let names = holders.iter().map(|name| named(name)).collect();
            assert_eq!(judge(30_001, range, &names, key), expect, "{holders:?} {key:?}");
        }
    }

    #[test]
    fn who_has_a_port_is_followed() {
        let mut holders = Holders::default();
        assert_eq!(holders.changed(named("a"), &[], &[1, 2]), [1, 2]);
        assert_eq!(holders.changed(named("b"), &[], &[2]), [2]);
        assert!(holders.changed(named("b"), &[2], &[2]).is_empty());
        assert_eq!(holders.changed(named("a"), &[1, 2], &[2, 3]), [1, 3]);
        assert_eq!(holders.0.keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(holders.changed(named("a"), &[2, 3], &[]), [2, 3]);
        assert_eq!(holders.0[&2].first(), Some(&named("b")));
        assert_eq!(holders.0.len(), 1);
    }
}
