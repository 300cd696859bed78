//! Keeps Services and IPAddresses together where a write did not: what an older version left, and what people deleted or
//! changed by hand.
//!
//! Both are looked at when they change, and all of them when a range does and every few minutes. Every correction is one transaction that holds
//! only for the objects as they were seen, so that it never undoes what somebody writes meanwhile; the event follows it.
//!
//! Source: `pkg/registry/core/service/ipallocator/controller/repairip.go`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{GroupResource, Status, Value, meta};
use base::Shutdown;
use client::events::{ObjectReference, Recorder};
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Metadata, Resource, resources};
use serde::Deserialize as _;
use store::{Guard, Operation, Transaction};

use super::{Given, claim, objects, ranges};
use crate::cluster::{Change, Cluster, Object};
use crate::server::Server;
use crate::storage::WriteError;

const COMPONENT: &str = "ipallocator-repair-controller";
/// How often everything is looked at (upstream: `repairLoopInterval`).
const PERIOD: Duration = Duration::from_secs(180);
/// Upstream's workers, for each of the two kinds.
const WORKERS: usize = 10;
/// A Service may still come to its address in this time: the default deadline of a request.
const LEAK_SECONDS: i64 = 60;
/// And an address to its Service.
const YOUNG_SECONDS: i64 = 5;

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Service(String, String),
    Address(String),
}

pub(super) fn services() -> GroupResource {
    GroupResource {
        group: String::new(),
        resource: "services".into(),
    }
}

/// What is wrong: a reason and a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub reason: &'static str,
    pub message: String,
}

impl Finding {
    /// What it is among upstream's metrics of its older repair, which has fewer words, and of ports.
    pub(super) fn kind(&self) -> &'static str {
        match self.reason {
            "ClusterIPOutOfRange" | "PortOutOfRange" => "outOfRange",
            "ClusterIPNotAllocated" | "PortNotAllocated" => "repair",
            "ClusterIPAlreadyAllocated" | "PortAlreadyAllocated" => "duplicate",
            "IPAddressNotAllocated" => "leak",
            _ => "invalid",
        }
    }
}

/// What is to be done about one address of a Service.
#[derive(Debug, PartialEq)]
enum OfService {
    Fine,
    /// Nothing can be done.
    Tell(Finding),
    /// Its IPAddress is made, or made anew; without a finding only its labels are wrong.
    Make(Option<Finding>),
}

/// Pure: an address of a Service against its IPAddress. `holder` finds the Service that an IPAddress names.
fn judge_service(
    service: &Value,
    address: IpAddr,
    in_range: bool,
    object: Option<&Value>,
    holder: impl FnOnce(&str, &str) -> Option<Value>,
) -> OfService {
    let family = objects::family(address);
    let (namespace, name) = (meta::namespace(service), meta::name(service));
    if !in_range {
        return OfService::Tell(Finding {
            reason: "ClusterIPOutOfRange",
            message: format!(
                "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
            ),
        });
    }
    let Some(object) = object else {
        return OfService::Make(Some(Finding {
            reason: "ClusterIPNotAllocated",
            message: format!("Cluster IP [{family}]: {address} is not allocated; repairing"),
        }));
    };
    let wrong = || {
        OfService::Make(Some(Finding {
            reason: "ClusterIPNotAllocated",
            message: format!(
                "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
            ),
        }))
    };
    let parent = Parent::of(object);
    if !parent.is_service() {
        return wrong();
    }
    let mut told = None;
    if (parent.namespace, parent.name) != (namespace, name) {
        let Some(holder) = holder(parent.namespace, parent.name) else {
            return wrong();
        };
        if addresses(&holder).contains(&address) {
            told = Some(Finding {
                reason: "ClusterIPAlreadyAllocated",
                message: format!(
                    "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
                ),
            });
        }
    }
    match (told, objects::has_labels(object, address)) {
        (Some(finding), _) => OfService::Tell(finding),
        (None, true) => OfService::Fine,
        (None, false) => OfService::Make(None),
    }
}

/// What is to be done about an IPAddress.
#[derive(Debug, PartialEq)]
enum OfAddress {
    Fine,
    /// It goes.
    Remove(Finding),
    /// To be looked at again after this many seconds.
    Later(i64),
}

/// Pure: an IPAddress against the Service that it names. `age_seconds` says how old an object is.
fn judge_address(object: &Value, service: Option<&Value>, age_seconds: impl Fn(&Value) -> i64) -> OfAddress {
    if !objects::is_ours(object) {
        return OfAddress::Fine;
    }
    let (address, parent) = (meta::name(object), Parent::of(object));
    let Parent { namespace, name, .. } = parent;
    let not_allocated = |message| {
        OfAddress::Remove(Finding {
            reason: "IPAddressNotAllocated",
            message,
        })
    };
    if !parent.is_service() {
        let Parent { group, resource, .. } = parent;
        return not_allocated(format!(
            "IPAddress {address} appears to have been modified, not referencing a Service &ParentReference{{Group:{group},\
             Resource:{resource},Namespace:{namespace},Name:{name},}}: cleaning up"
        ));
    }
    let age = age_seconds(object);
    let Some(service) = service else {
        if age <= LEAK_SECONDS {
            return OfAddress::Later(LEAK_SECONDS - age + 1);
        }
        return not_allocated(format!(
            "IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up"
        ));
    };
    if addresses(service).iter().any(|own| own.to_string() == address) {
        return OfAddress::Fine;
    }
    if service["spec"]["type"] == "ExternalName" && age < LEAK_SECONDS {
        return OfAddress::Later(LEAK_SECONDS - age);
    }
    if age < age_seconds(service) && age < YOUNG_SECONDS {
        return OfAddress::Later(YOUNG_SECONDS);
    }
    OfAddress::Remove(Finding {
        reason: "IPAddressWrongReference",
        message: format!("IPAddress: {address} for Service {namespace}/{name} has a wrong reference; cleaning up"),
    })
}

/// Whose an IPAddress is.
struct Parent<'a> {
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

impl Parent<'_> {
    fn of(object: &Value) -> Parent<'_> {
        let text = |field: &str| object["spec"]["parentRef"][field].as_str().unwrap_or("");
        Parent {
            group: text("group"),
            resource: text("resource"),
            namespace: text("namespace"),
            name: text("name"),
        }
    }

    fn is_service(&self) -> bool {
        self.group.is_empty() && self.resource == "services"
    }
}

/// The addresses of a Service that are ones.
fn addresses(service: &Value) -> Vec<IpAddr> {
    let has_some = service["spec"]["type"] != "ExternalName" && service["spec"]["clusterIP"] != "None";
    let listed = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
    let listed = listed.filter(|_| has_some).filter_map(Value::as_str);
    listed.filter_map(|text| text.parse().ok()).collect()
}

struct Repair {
    server: Arc<Server>,
    recorder: Recorder,
}

impl Repair {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        Cluster::get(&*self.server.storage, resource, namespace, name)
    }

    async fn look(&self, key: &Key) -> Result<Next, String> {
        let outcome = match key {
            Key::Service(namespace, name) => self.service(namespace, name).await,
            Key::Address(name) => self.address(name).await,
        };
        match outcome {
            Ok(next) => Ok(next),
            Err(WriteError::Raced) => Ok(Next::Retry),
            Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => {
                self.server.allocator.metrics().repair_failed();
                Err(status.message)
            }
        }
    }

    async fn service(&self, namespace: &str, name: &str) -> Result<Next, WriteError> {
        let Some(found) = self.get(&services(), namespace, name) else {
            return Ok(Next::Wait);
        };
        let service = found.value();
        let cidrs = Cluster::list(&*self.server.storage, &ranges::service_cidrs(), None);
        // Everything is looked at again when it is there, as upstream waits for it.
        if !cidrs.iter().any(|cidr| cidr.name() == ranges::DEFAULT) {
            return Ok(Next::Wait);
        }
        let cidrs: Vec<_> = cidrs.iter().flat_map(|cidr| ranges::of(&cidr.value())).collect();
        for address in addresses(&service) {
            let in_range = cidrs.iter().any(|range| ranges::holds(*range, address));
            let object = self.get(&objects::ip_addresses(), "", &address.to_string());
            let value = object.as_ref().map(|object| object.value());
            let holder = |namespace: &str, name: &str| Some(self.get(&services(), namespace, name)?.value());
            let finding = match judge_service(&service, address, in_range, value.as_ref(), holder) {
                OfService::Fine => None,
                OfService::Tell(finding) => Some(finding),
                OfService::Make(finding) => {
                    self.make(&found, address, object.as_deref()).await?;
                    finding
                }
            };
            if let Some(finding) = finding {
                self.tell(&resources::SERVICES, &service, finding);
            }
        }
        Ok(Next::Wait)
    }

    /// Makes the IPAddress of a Service, in the place of the one that is there. Who reads them sees the old one go.
    async fn make(&self, service: &Object, address: IpAddr, old: Option<&Object>) -> Result<(), WriteError> {
        if let Some(old) = old {
            self.remove(old, address).await?;
        }
        let key = self.key(&services(), service.namespace(), service.name())?;
        let mut transaction = Transaction::new().guard(Guard::ModRevision(key, service.revision()));
        let owner = (service.namespace(), service.name());
        objects::add(&self.server, &mut transaction, address, owner).map_err(WriteError::Failed)?;
        if let IpAddr::V4(address) = address {
            transaction
                .operations
                .push(Operation::Delete(claim(Given::Address(address))));
        }
        self.server.storage.commit(transaction).await.map(drop)
    }

    async fn remove(&self, object: &Object, address: IpAddr) -> Result<(), WriteError> {
        let key = self.key(&objects::ip_addresses(), "", object.name())?;
        let mut transaction = Transaction::new().guard(Guard::ModRevision(key, object.revision()));
        objects::remove(&self.server, &mut transaction, address);
        self.server.storage.commit(transaction).await.map(drop)
    }

    fn key(&self, resource: &GroupResource, namespace: &str, name: &str) -> Result<bytes::Bytes, WriteError> {
        let registry = self.server.registry.load();
        let kind = registry
            .kind(resource)
            .ok_or_else(|| WriteError::Failed(Status::no_such_path()))?;
        Ok(kind.key(namespace, name).into())
    }

    async fn address(&self, name: &str) -> Result<Next, WriteError> {
        let Some(found) = self.get(&objects::ip_addresses(), "", name) else {
            return Ok(Next::Wait);
        };
        let object = found.value();
        let Ok(address) = name.parse() else {
            return Ok(Next::Wait);
        };
        let parent = Parent::of(&object);
        let service = self
            .get(&services(), parent.namespace, parent.name)
            .map(|service| service.value());
        let now = self.server.clock.now();
        let age = |object: &Value| {
            let made: Option<jiff::Timestamp> = meta::text(object, "creationTimestamp").parse().ok();
            made.map_or(i64::MAX, |made| now.as_second() - made.as_second())
        };
        match judge_address(&object, service.as_ref(), age) {
            OfAddress::Fine => Ok(Next::Wait),
            OfAddress::Later(seconds) => Ok(Next::After(Duration::from_secs(seconds.unsigned_abs()))),
            OfAddress::Remove(finding) => {
                self.remove(&found, address).await?;
                self.tell(&resources::IP_ADDRESSES, &object, finding);
                Ok(Next::Wait)
            }
        }
    }

    fn tell(&self, resource: &Resource, object: &Value, finding: Finding) {
        self.server.allocator.metrics().found(finding.kind());
        record(&self.recorder, resource, object, finding, "cluster IPs");
    }
}

/// An event, and a line of the log.
pub(super) fn record(recorder: &Recorder, resource: &Resource, object: &Value, finding: Finding, of: &str) {
    let metadata = Metadata::deserialize(&object["metadata"]).unwrap_or_default();
    let about = ObjectReference::to(resource, &metadata);
    tracing::warn!(object = %meta::name(object), message = finding.message, "{of}");
    recorder.warning(about, finding.reason, finding.message);
}

/// Starts to keep them together.
pub(super) fn start(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) {
    let registry = server.registry.load();
    let served = [services(), objects::ip_addresses(), ranges::service_cidrs()];
    if served.iter().any(|resource| registry.kind(resource).is_none()) {
        return;
    }
    let queue = WorkQueue::<Key>::new().named("ipallocator_repair");
    let service = |object: &Object| Key::Service(object.namespace().to_owned(), object.name().to_owned());
    let address = |object: &Object| Key::Address(object.name().to_owned());
    follow(server, shutdown, &queue, services(), service);
    follow(server, shutdown, &queue, objects::ip_addresses(), address);
    let (all, again, stop) = (server.clone(), queue.clone(), shutdown.clone());
    let mut cidrs = server.storage.changes(&ranges::service_cidrs());
    shutdown.spawn(async move {
        loop {
            // A range that comes or goes concerns every Service.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
                change = cidrs.next() => if change.is_none() {
                    return;
                },
            }
            let found = Cluster::list(&*all.storage, &services(), None);
            found.iter().for_each(|object| again.add(service(object)));
            let found = Cluster::list(&*all.storage, &objects::ip_addresses(), None);
            found.iter().for_each(|object| again.add(address(object)));
        }
    });
    let repair = Arc::new(Repair {
        server: server.clone(),
        recorder: Recorder::start(client.clone(), COMPONENT, "", server.clock.clone(), shutdown),
    });
    let stop = shutdown.clone();
    shutdown.spawn(run(queue, WORKERS, stop, move |key| {
        let repair = repair.clone();
        async move { repair.look(&key).await }
    }));
}

/// Notes the keys of everything that changes. An IPAddress that goes may be one that a Service should have, and a Service
/// that goes may leave one.
fn follow(
    server: &Arc<Server>,
    shutdown: &Shutdown,
    queue: &WorkQueue<Key>,
    resource: GroupResource,
    key: impl Fn(&Object) -> Key + Send + 'static,
) {
    let mut changes = server.storage.changes(&resource);
    let (queue, stop) = (queue.clone(), shutdown.clone());
    shutdown.spawn(async move {
        while let Some(Some(change)) = stop.until(changes.next()).await {
            match change {
                Change::Reset(all) => all.iter().for_each(|object| queue.add(key(object))),
                Change::Changed { new: Some(new), .. } => queue.add(key(&new)),
                Change::Changed { old: Some(old), .. } => related(&old).into_iter().for_each(|key| queue.add(key)),
                Change::Changed { .. } => {}
            }
        }
    });
}

/// What the object that is gone was tied to.
fn related(gone: &Object) -> Vec<Key> {
    let gone = gone.value();
    if gone["spec"]["parentRef"].is_object() {
        let parent = Parent::of(&gone);
        return match parent.is_service() {
            true => vec![Key::Service(parent.namespace.to_owned(), parent.name.to_owned())],
            false => Vec::new(),
        };
    }
    let left = addresses(&gone).into_iter();
    left.map(|address| Key::Address(address.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, address: &str) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address]},
        })
    }

    fn object(parent: Value) -> Value {
        json!({
            "metadata": {"name": "10.0.0.1", "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            }},
            "spec": {"parentRef": parent},
        })
    }

    fn parent(name: &str) -> Value {
        json!({"resource": "services", "namespace": "n", "name": name})
    }

    #[test]
    fn findings_have_upstreams_words() {
        for (reason, expect) in [
            ("ClusterIPNotAllocated", "repair"),
            ("ClusterIPOutOfRange", "outOfRange"),
            ("ClusterIPAlreadyAllocated", "duplicate"),
            ("IPAddressNotAllocated", "leak"),
            ("IPAddressWrongReference", "invalid"),
            ("PortNotAllocated", "repair"),
            ("PortOutOfRange", "outOfRange"),
            ("PortAlreadyAllocated", "duplicate"),
        ] {
            let finding = Finding {
                reason,
                message: String::new(),
            };
            assert_eq!(finding.kind(), expect);
        }
    }

    #[test]
    fn a_services_address_has_its_object() {
        let own = service("a", "10.0.0.1");
        let wrong = "the ClusterIP [IPv4]: 10.0.0.1 for Service n/a has a wrong reference; repairing";
        let make = |message: &str| {
            OfService::Make(Some(Finding {
                reason: "ClusterIPNotAllocated",
                message: message.into(),
            }))
        };
        let tell = |reason, message: &str| {
            OfService::Tell(Finding {
                reason,
                message: message.into(),
            })
        };
        let mut unlabelled = object(parent("a"));
        unlabelled["metadata"]["labels"] = json!({});
        for (in_range, object, holder, expect) in [
            (true, Some(object(parent("a"))), None, OfService::Fine),
            (true, Some(unlabelled), None, OfService::Make(None)),
            (
                true,
                None,
                None,
                make("Cluster IP [IPv4]: 10.0.0.1 is not allocated; repairing"),
            ),
            (
                false,
                None,
                None,
                tell(
                    "ClusterIPOutOfRange",
                    "Cluster IP [IPv4]: 10.0.0.1 is not within any configured Service CIDR; please recreate service",
                ),
            ),
            (
                true,
                Some(object(json!({"resource": "gateways", "name": "g"}))),
                None,
                make(wrong),
            ),
            (true, Some(object(parent("b"))), None, make(wrong)),
            (
                true,
                Some(object(parent("b"))),
                Some(service("b", "10.0.0.1")),
                tell(
                    "ClusterIPAlreadyAllocated",
                    "Cluster IP [IPv4]:10.0.0.1 was assigned to multiple services; please recreate service",
                ),
            ),
            // That one's IPAddress goes first.
            (
                true,
                Some(object(parent("b"))),
                Some(service("b", "10.0.0.2")),
                OfService::Fine,
            ),
        ] {
            let address = "10.0.0.1".parse().unwrap();
            let found = judge_service(&own, address, in_range, object.as_ref(), |_, _| holder);
            assert_eq!(found, expect, "{object:?}");
        }
    }

    #[test]
    fn an_object_has_its_service() {
        let remove = |reason, message: &str| {
            OfAddress::Remove(Finding {
                reason,
                message: message.into(),
            })
        };
        let mut foreign = object(parent("a"));
        foreign["metadata"]["labels"] = json!({});
        let outside = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"type": "ExternalName"}});
        for (object, service, ages, expect) in [
            (foreign, None, (100, 100), OfAddress::Fine),
            (
                object(parent("a")),
                Some(service("a", "10.0.0.1")),
                (100, 100),
                OfAddress::Fine,
            ),
            (
                object(json!({"group": "g", "resource": "gateways", "name": "x"})),
                None,
                (0, 0),
                remove(
                    "IPAddressNotAllocated",
                    "IPAddress 10.0.0.1 appears to have been modified, not referencing a Service \
                     &ParentReference{Group:g,Resource:gateways,Namespace:,Name:x,}: cleaning up",
                ),
            ),
            (object(parent("a")), None, (60, 0), OfAddress::Later(1)),
            (
                object(parent("a")),
                None,
                (61, 0),
                remove(
                    "IPAddressNotAllocated",
                    "IPAddress: 10.0.0.1 for Service n/a appears to have leaked: cleaning up",
                ),
            ),
            (
                object(parent("a")),
                Some(outside.clone()),
                (20, 90),
                OfAddress::Later(40),
            ),
            (
                object(parent("a")),
                Some(service("a", "10.0.0.2")),
                (2, 90),
                OfAddress::Later(5),
            ),
            (
                object(parent("a")),
                Some(service("a", "10.0.0.2")),
                (90, 90),
                remove(
                    "IPAddressWrongReference",
                    "IPAddress: 10.0.0.1 for Service n/a has a wrong reference; cleaning up",
                ),
            ),
        ] {
            let age = |one: &Value| match one["spec"]["parentRef"].is_object() {
                true => ages.0,
                false => ages.1,
            };
            assert_eq!(
                judge_address(&object, service.as_ref(), age),
                expect,
                "{object} {service:?}"
            );
        }
    }
}
