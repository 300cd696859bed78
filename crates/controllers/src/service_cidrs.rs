//! The service CIDR controller: a ServiceCIDR is told to be ready, and one that is deleted stays until no address depends
//! on it.
//!
//! Source: `pkg/controller/servicecidrs`.

use std::net::IpAddr;
use std::time::Duration;

use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, Metadata, Patch, resources, view_kind};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::context::{Context, synced};

/// Upstream's `--concurrent-service-cidr-syncs`: five.
const WORKERS: usize = 5;
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGER: &str = "service-cidr-controller";
/// Label and value of the IPAddresses that belong to Services.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Nothing is removed sooner: every server has heard by then that the range gives no more addresses (upstream:
/// `deletionGracePeriod`).
const DELETION_GRACE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceCidr {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    cidrs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<crate::views::Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct IpAddress {
    metadata: Metadata,
}

view_kind!(ServiceCidr, resources::SERVICE_CIDRS);
view_kind!(IpAddress, resources::IP_ADDRESSES);

impl ServiceCidr {
    fn ranges(&self) -> impl Iterator<Item = IpNet> {
        self.spec.cidrs.iter().filter_map(|range| range.parse().ok())
    }

    /// Whether one of its ranges gives such an address: the first one of IPv4 ranges is never given, nor the last.
    fn gives(&self, address: IpAddr) -> bool {
        self.ranges().any(|range| {
            let ends = range.network() == address || address.is_ipv4() && range.broadcast() == address;
            range.contains(&address) && !ends
        })
    }

    /// Whether one of its ranges holds all of another.
    fn covers(&self, other: IpNet) -> bool {
        self.ranges().any(|range| range.contains(&other))
    }

    fn overlaps(&self, other: &ServiceCidr) -> bool {
        let overlap = |a: IpNet, b: IpNet| a.contains(&b) || b.contains(&a);
        self.ranges().any(|own| other.ranges().any(|range| overlap(own, range)))
    }
}

/// The address that the allocator has given.
fn given(object: &IpAddress) -> Option<IpAddr> {
    let labels = object.metadata.labels.as_ref()?;
    let ours = labels.get(MANAGED_BY).is_some_and(|by| by == ALLOCATOR);
    ours.then(|| object.metadata.name().parse().ok()).flatten()
}

/// Whether no address would be left without a range: each of its ranges lies within another ServiceCIDR's, or no given
/// address is in it alone.
fn may_go(cidr: &ServiceCidr, all: &[impl AsRef<ServiceCidr>], mut addresses: impl Iterator<Item = IpAddr>) -> bool {
    let others = || {
        let all = all.iter().map(AsRef::as_ref);
        all.filter(|other| other.metadata.name() != cidr.metadata.name())
    };
    let covered = |range: IpNet| others().any(|other| other.covers(range));
    if cidr.ranges().all(covered) {
        return true;
    }
    !addresses.any(|address| cidr.gives(address) && !others().any(|other| other.gives(address)))
}

/// What is to be done about a ServiceCIDR.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    AddFinalizer,
    RemoveFinalizer,
    Later(Duration),
    /// Its condition becomes this: a status, a reason and a message.
    Tell(&'static str, &'static str, &'static str),
}

const READY: Step = Step::Tell("True", "", "Kubernetes Service CIDR is ready");
const BLOCKED: Step = Step::Tell(
    "False",
    "Terminating",
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
);

fn decide(cidr: &ServiceCidr, may_go: impl FnOnce() -> bool, now: Timestamp) -> Step {
    let kept = cidr.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
    let told = |step: Step| {
        let Step::Tell(status, reason, message) = step else {
            return step;
        };
        let mut conditions = cidr.status.conditions.iter().flatten();
        let same = conditions.any(|condition| {
            condition.kind == "Ready"
                && (&*condition.status, &*condition.reason, &*condition.message) == (status, reason, message)
        });
        if same { Step::Nothing } else { step }
    };
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        return if kept { told(READY) } else { Step::AddFinalizer };
    };
    if !may_go() {
        return told(BLOCKED);
    }
    let waited = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    match DELETION_GRACE.checked_sub(waited).filter(|left| !left.is_zero()) {
        Some(left) => Step::Later(left),
        None if kept => Step::RemoveFinalizer,
        None => Step::Nothing,
    }
}

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let cidrs = context.informers.informer::<ServiceCidr>();
    let addresses = context.informers.informer::<IpAddress>();
    let queue = WorkQueue::<String>::new().named("ipaddresses");
    context.watch(&cidrs, {
        let (queue, cidrs) = (queue.clone(), cidrs.clone());
        move |delta| {
            let Some(cidr) = delta.object() else { return };
            queue.add(cidr.metadata.name().into());
            // One that comes may be what another one needs to go.
            if matches!(delta, Delta::Added(_)) {
                for other in cidrs.list().iter().filter(|other| other.overlaps(cidr)) {
                    queue.add(other.metadata.name().into());
                }
            }
        }
    });
    context.watch(&addresses, {
        let (queue, cidrs) = (queue.clone(), cidrs.clone());
        move |delta| {
            let address = match &delta {
                Delta::Added(address) | Delta::Deleted(address) => given(address),
                Delta::Updated { .. } | Delta::Synced => None,
            };
            let Some(address) = address else { return };
            // Only one that is to go waits for addresses.
            let going = |cidr: &ServiceCidr| cidr.metadata.deletion_timestamp.is_some() && cidr.gives(address);
            for cidr in cidrs.list().iter().filter(|cidr| going(cidr)) {
                queue.add(cidr.metadata.name().into());
            }
        }
    });
    let shell = context.clone();
    let ready = vec![synced(&cidrs), synced(&addresses)];
    context.work(queue, ready, WORKERS, move |name| {
        let (context, cidrs, addresses) = (shell.clone(), cidrs.clone(), addresses.clone());
        async move { sync(&context, &cidrs, &addresses, &name).await }
    });
}

async fn sync(
    context: &Context,
    cidrs: &Informer<ServiceCidr>,
    addresses: &Informer<IpAddress>,
    name: &str,
) -> Result<Next, Error> {
    let Some(cidr) = cidrs.get("", name) else {
        return Ok(Next::Wait);
    };
    let free = || {
        may_go(
            &cidr,
            &cidrs.list(),
            addresses.list().iter().filter_map(|object| given(object)),
        )
    };
    let resource = resources::SERVICE_CIDRS;
    let written = match decide(&cidr, free, context.clock.now()) {
        Step::Nothing => return Ok(Next::Wait),
        Step::Later(left) => return Ok(Next::After(left)),
        step @ (Step::AddFinalizer | Step::RemoveFinalizer) => {
            let field = match step {
                Step::AddFinalizer => "finalizers",
                _ => "$deleteFromPrimitiveList/finalizers",
            };
            let patch = json!({"metadata": {field: [FINALIZER]}});
            let how = Patch::Strategic;
            context.client.patch(&resource, "", name, None, &how, &patch).await
        }
        Step::Tell(status, reason, message) => {
            let condition = json!({
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": context.now_text(),
            });
            let body = json!({
                "apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": name},
                "status": {"conditions": [condition]},
            });
            let how = Patch::apply(MANAGER);
            let outcome = context
                .client
                .patch(&resource, "", name, Some("status"), &how, &body)
                .await;
            if outcome.is_err() && status == "True" {
                let about = client::events::ObjectReference::to(&resource, &cidr.metadata);
                let message = "The ServiceCIDR Status can not be set to Ready=True";
                context.recorder.warning(about, "KubernetesServiceCIDRError", message);
            }
            outcome
        }
    };
    match written {
        Ok(_) => Ok(Next::Wait),
        Err(error) if error.is_not_found() => Ok(Next::Wait),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testkit::Bench;

    fn cidr(name: &str, ranges: &[&str]) -> Arc<ServiceCidr> {
        let object = json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}});
        Arc::new(ServiceCidr::deserialize(object).unwrap())
    }

    #[test]
    fn a_range_goes_when_its_addresses_have_another() {
        for (others, addresses, expect) in [
            (vec![], vec![], true),
            (vec![], vec!["10.0.0.5"], false),
            (vec![], vec!["10.0.1.5"], true),
            // It gives neither of its ends.
            (vec![], vec!["10.0.0.0", "10.0.0.255"], true),
            (vec!["10.0.0.0/24"], vec!["10.0.0.5"], true),
            (vec!["10.0.0.0/16"], vec!["10.0.0.5"], true),
            (vec!["10.0.0.0/28"], vec!["10.0.0.5"], true),
            (vec!["10.0.0.0/28"], vec!["10.0.0.5", "10.0.0.77"], false),
            (
                vec!["10.0.0.0/25", "10.0.0.128/25"],
                vec!["10.0.0.5", "10.0.0.200"],
                true,
            ),
            // Of the smaller one it is an end.
            (vec!["10.0.0.0/25", "10.0.0.128/25"], vec!["10.0.0.128"], false),
        ] {
            let own = cidr("own", &["10.0.0.0/24"]);
            let mut all: Vec<_> = others.iter().map(|range| cidr(range, &[range])).collect();
            all.push(own.clone());
            let given = addresses.iter().map(|address| address.parse().unwrap());
            assert_eq!(may_go(&own, &all, given), expect, "{others:?} {addresses:?}");
        }
        let two = cidr("two", &["10.0.0.0/24", "fd00::/112"]);
        let all = [two.clone(), cidr("four", &["10.0.0.0/16"])];
        let six = || std::iter::once("fd00::5".parse().unwrap());
        assert!(!may_go(&two, &all, six()), "the other family's is alone");
    }

    fn seen(bench: &Bench, name: &str) -> Option<(bool, String)> {
        let object = bench.api.get(&resources::SERVICE_CIDRS, "", name)?;
        let condition = &object["status"]["conditions"][0];
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        let text = |field: &str| condition[field].as_str().unwrap_or("-").to_owned();
        Some((finalizers > 0, format!("{} {}", text("status"), text("reason"))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_in_use_stays() {
        let bench = Bench::new();
        let api = "networking.k8s.io/v1";
        let put = |name: &str, range: &str| {
            bench.api.put(
                json!({"apiVersion": api, "kind": "ServiceCIDR", "metadata": {"name": name},
                "spec": {"cidrs": [range]}}),
            );
        };
        put("a", "10.0.0.0/24");
        bench.api.put(json!({"apiVersion": api, "kind": "IPAddress",
            "metadata": {"name": "10.0.0.9", "labels": {MANAGED_BY: ALLOCATOR}}}));
        start(bench.context("service-cidrs-controller"));
        bench.idle().await;
        assert_eq!(seen(&bench, "a"), Some((true, "True ".into())));
        let delete = |name: &str| {
            let now = bench.api.clock().now();
            bench.api.edit(&resources::SERVICE_CIDRS, "", name, |cidr| {
                cidr["metadata"]["deletionTimestamp"] = crate::context::time_text(now).into();
            });
        };
        delete("a");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(seen(&bench, "a"), Some((true, "False Terminating".into())));
        // A range around it takes its addresses over.
        put("b", "10.0.0.0/16");
        bench.idle().await;
        assert_eq!(seen(&bench, "b"), Some((true, "True ".into())));
        assert_eq!(seen(&bench, "a"), None);
        // Without addresses it goes, but not before all servers know.
        put("c", "10.9.0.0/24");
        bench.idle().await;
        delete("c");
        bench.idle().await;
        assert!(seen(&bench, "c").is_some(), "within the grace period");
        tokio::time::sleep(DELETION_GRACE).await;
        assert_eq!(seen(&bench, "c"), None);
        bench.end().await;
    }
}
