//! A resource that some quota counts: an informer of its own, started when the first quota asks for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use api::GroupResource;
use api::quantity::{Format, Quantity};
use client::informer::{Delta, Informer, Selection};
use client::{PartialObject, Resource};
use futures::future::BoxFuture;
use jiff::Timestamp;
use quota::{Amounts, Charge, Consumer, DeviceClasses, MadeFor, Quota, amounts, tracks};

use super::views::{Claims, Counted, Measured, Pods, ResourceClaims, Services};
use crate::context::Context;

/// What the controller asks of a resource, whatever its objects are.
pub(super) trait Monitor: Send + Sync {
    /// Returns when all objects are known.
    fn synced(&self) -> BoxFuture<'static, bool>;

    /// The revision up to which changes are known.
    fn revision(&self) -> u64;

    /// Returns when changes are known up to a revision.
    fn seen(&self, revision: u64) -> BoxFuture<'static, bool>;

    /// What the objects of a namespace take of what a quota limits.
    fn count(&self, namespace: &str, quota: &Quota, now: Timestamp, devices: &Devices<'_>) -> Count;

    /// A pod, when pods are what is watched.
    fn pod(&self, namespace: &str, name: &str) -> Option<Consumer>;
}

/// What has to be known to count claims for devices.
pub(super) struct Devices<'a> {
    /// What their classes stand for.
    pub classes: &'a DeviceClasses,
    /// The pods that they may have been made for.
    pub pods: Option<&'a dyn Monitor>,
}

/// What was counted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Count {
    /// Each name that the quota limits of the resource, zero included.
    pub used: Amounts,
    /// How many objects there are.
    pub objects: usize,
    /// When it is less without anything being written.
    pub until: Option<Timestamp>,
}

/// Starts to watch a resource; `changed` is called with the namespace of every object that takes something else than
/// before.
pub(super) fn start(
    context: &Context,
    resource: Resource,
    changed: impl Fn(&str) + Send + Sync + 'static,
) -> Arc<dyn Monitor> {
    let own = resource.group_resource();
    match (&*own.group, &*own.resource) {
        ("", "pods") => watch::<Measured<Pods>>(context, resource, changed),
        ("", "services") => watch::<Measured<Services>>(context, resource, changed),
        ("", "persistentvolumeclaims") => watch::<Measured<Claims>>(context, resource, changed),
        ("resource.k8s.io", "resourceclaims") => watch::<Measured<ResourceClaims>>(context, resource, changed),
        _ => watch::<PartialObject>(context, resource, changed),
    }
}

struct Watched<T> {
    informer: Informer<T>,
    resource: GroupResource,
    plain: Charge,
}

fn watch<T: Counted>(
    context: &Context,
    resource: Resource,
    changed: impl Fn(&str) + Send + Sync + 'static,
) -> Arc<dyn Monitor> {
    let own = resource.group_resource();
    let client = context.informers.client().clone();
    let stop = context.shutdown.child();
    let informer = Informer::<T>::start(client, resource, Selection::all(), context.random.fork(), stop);
    let counts_alike =
        |old: &T, new: &T| old.charge() == new.charge() && old.pod() == new.pod() && old.made_for() == new.made_for();
    context.watch(&informer, move |delta| match delta {
        Delta::Updated { old, new } if counts_alike(&old, &new) => {}
        Delta::Added(object) | Delta::Deleted(object) | Delta::Updated { new: object, .. } => {
            changed(object.meta().namespace());
        }
        Delta::Synced => {}
    });
    Arc::new(Watched {
        informer,
        plain: Charge::of(&own, &api::Value::Null),
        resource: own,
    })
}

impl<T: Counted> Monitor for Watched<T> {
    fn synced(&self) -> BoxFuture<'static, bool> {
        crate::context::synced(&self.informer)
    }

    fn revision(&self) -> u64 {
        self.informer.revision()
    }

    fn seen(&self, revision: u64) -> BoxFuture<'static, bool> {
        let informer = self.informer.clone();
        Box::pin(async move { informer.seen(&revision.to_string()).await })
    }

    fn count(&self, namespace: &str, quota: &Quota, now: Timestamp, devices: &Devices<'_>) -> Count {
        let objects = self.informer.list_namespace(namespace);
        // Of each pod's claims: one look at all of them, for there may be many.
        let mut first: HashMap<&str, &MadeFor> = HashMap::new();
        for made_for in objects.iter().filter_map(|object| object.made_for()) {
            let first = first.entry(&made_for.uid).or_insert(made_for);
            if made_for.is_before(first) {
                *first = made_for;
            }
        }
        let charges = objects.iter().map(|object| {
            let charge = object.charge().unwrap_or(&self.plain);
            if !T::TAKES_DEVICES {
                return Cow::Borrowed(charge);
            }
            let mut charge = charge.clone();
            let made_for = object.made_for();
            let pod = made_for.and_then(|made_for| devices.pods?.pod(namespace, &made_for.pod));
            let counted = made_for.zip(pod.as_ref());
            let counted = counted.and_then(|(made_for, pod)| made_for.counted(pod, first.get(&*made_for.uid).copied()));
            devices.classes.add_names(&mut charge, counted);
            Cow::Owned(charge)
        });
        let mut count = sum(&self.resource, charges, quota, now);
        count.objects = objects.len();
        count
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Consumer> {
        self.informer.get(namespace, name)?.pod()
    }
}

fn sum<'a>(
    resource: &GroupResource,
    charges: impl Iterator<Item = Cow<'a, Charge>>,
    quota: &Quota,
    now: Timestamp,
) -> Count {
    let zero = Quantity::new(0, Format::DecimalSi);
    let names = quota.wanted.keys().filter(|name| tracks(resource, name));
    let mut used: Amounts = names.map(|name| (name.clone(), zero.clone())).collect();
    let mut until: Option<Timestamp> = None;
    for charge in charges.filter(|charge| quota.selects(&charge.scopes)) {
        let mut taken = charge.at(resource, now);
        taken.retain(|name, _| used.contains_key(name));
        amounts::add(&mut used, &taken);
        if let Some(ends) = charge.ends.filter(|ends| *ends >= now) {
            until = Some(until.map_or(ends, |until| until.min(ends)));
        }
    }
    Count {
        used,
        objects: 0,
        until,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_the_scopes_is_summed() {
        let pods = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let pod = |cpu: &str, class: &str| {
            let pod = json!({"spec": {"priorityClassName": class, "containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
            Charge::of(&pods, &pod)
        };
        let mut leaving = pod("4", "high");
        leaving.ends = Some(Timestamp::from_second(20).unwrap());
        let charges = [pod("1", "high"), pod("2500m", "high"), pod("1", "low"), leaving];
        let quota = Quota::of(
            &json!({"spec": {"hard": {"pods": "9", "requests.cpu": "9", "services": "1"},
            "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}}),
        );
        for (now, expect, until) in [
            (10, json!({"pods": "3", "requests.cpu": "7500m"}), Some(20)),
            (21, json!({"pods": "2", "requests.cpu": "3500m"}), None),
        ] {
            let count = sum(
                &pods,
                charges.iter().map(Cow::Borrowed),
                &quota,
                Timestamp::from_second(now).unwrap(),
            );
            assert_eq!(count.used, amounts::amounts(&expect));
            assert_eq!(count.until.map(Timestamp::as_second), until);
        }
    }
}
