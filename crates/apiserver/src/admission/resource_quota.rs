//! ResourceQuota: what is written must fit into the quotas of its namespace, and is charged to them.
//!
//! Invariant: `status.used` of a quota changes in the transaction that writes the object, guarded by the quota's revision.
//! So two creates that race never pass the limit together, whichever servers they come through, and a write that fails
//! charges nothing. Only [`quota::Charge`]s that grow are charged here; the quota controller counts again what went.
//!
//! Some resources may be had where a quota covers them only: the [`Limited`] of a configuration.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go` (`CheckRequest`). Upstream charges before
//! it writes, and what it has charged for nothing stays until the controller's next count.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use api::field::{self, Error, ErrorList, Path};
use api::{GroupResource, Reason, Status, Value, meta};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quota::{
    Amounts, Charge, Consumer, DeviceClasses, MadeFor, Quota, Scopes, Selector, amounts, constraints, is_tracked,
    pretty_names,
};
use serde_json::json;

use crate::cluster::Object;
use crate::pipeline::{Operation, Plugin, Review, Step};

/// Writers of this many namespaces are remembered before those that nobody waits for are forgotten.
const TURNS_MAX: usize = 1024;

/// The plug-in.
#[derive(Default)]
pub struct ResourceQuota {
    limited: Vec<Limited>,
    /// Writers of a namespace with quotas go one after the other: they would lose the race for the quota's revision.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What nobody gets without a quota that covers it.
struct Limited {
    resource: GroupResource,
    /// Parts of the names of what objects take.
    contains: Vec<String>,
    scopes: Vec<Selector>,
}

impl Limited {
    fn read(limited: &Value) -> Limited {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let texts = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
        let scopes = limited["matchScopes"].as_array().into_iter().flatten();
        Limited {
            resource: GroupResource {
                group: text(&limited["apiGroup"]),
                resource: text(&limited["resource"]),
            },
            contains: texts(&limited["matchContains"]),
            scopes: scopes
                .map(|scope| Selector {
                    scope: text(&scope["scopeName"]),
                    operator: text(&scope["operator"]),
                    values: texts(&scope["values"]),
                })
                .collect(),
        }
    }
}

/// The kinds of a configuration. Source: `register.go` of `plugin/resourcequota/apis/resourcequota`.
const CONFIGURATIONS: [(&str, &str); 3] = [
    ("apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration"),
    ("resourcequota.admission.k8s.io/v1beta1", "Configuration"),
    ("resourcequota.admission.k8s.io/v1alpha1", "Configuration"),
];

impl ResourceQuota {
    /// The plug-in with what its configuration limits.
    ///
    /// # Errors
    /// The configuration is another one, or names no resource.
    pub fn from_config(config: &Value) -> Result<ResourceQuota, String> {
        let kind = |name: &str| config[name].as_str().unwrap_or("");
        if !CONFIGURATIONS.contains(&(kind("apiVersion"), kind("kind"))) {
            let (version, kind) = CONFIGURATIONS[0];
            return Err(format!("it must be {kind} of {version}"));
        }
        let limited = config["limitedResources"].as_array().into_iter().flatten();
        let limited: Vec<Limited> = limited.map(Limited::read).collect();
        let path = Path::new("limitedResources");
        let nameless = limited
            .iter()
            .enumerate()
            .filter(|(_, one)| one.resource.resource.is_empty());
        let errors: ErrorList = nameless
            .map(|(index, _)| Error::required(&path.index(index).child("resource"), ""))
            .collect();
        match errors.is_empty() {
            true => Ok(ResourceQuota {
                limited,
                turns: Mutex::default(),
            }),
            false => Err(field::aggregate(&errors)),
        }
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= TURNS_MAX {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let Some(object) = object.filter(|object| concerns(review, object, old)) else {
                return Ok(());
            };
            // Without a charge there is nothing to wait for.
            if self.charges(review, object, old)?.is_empty() || review.dry_run {
                return Ok(());
            }
            let turn = self.turn(&review.namespace).lock_owned().await;
            let charged = self.charges(review, object, old)?;
            let mut together = review.together.lock();
            together.turn = Some(turn);
            together.changes.extend(charged);
            Ok(())
        })
    }
}

/// Whether quotas look at the write: at new objects, and at changes of what objects take.
fn concerns(review: &Review, object: &Value, old: Option<&Value>) -> bool {
    let resource = review.resource.group_resource();
    if review.namespace.is_empty() || !is_tracked(&resource) {
        return false;
    }
    // A namespace is in itself, for admission, and in no quota.
    if resource.group.is_empty() && resource.resource == "namespaces" {
        return false;
    }
    let update = review.operation == Operation::Update;
    match (&*resource.group, &*resource.resource, &*review.subresource) {
        ("", "pods", "resize") => update,
        ("", "persistentvolumeclaims", "status") => {
            let now = |field: &dyn Fn(&Value) -> Value| old.is_some_and(|old| field(old) != field(object));
            now(&|claim| claim["status"]["allocatedResources"]["storage"].clone())
                || now(&|claim| json!(classes(&Charge::of(&resource, claim))))
        }
        ("", "services" | "persistentvolumeclaims", "") | ("resource.k8s.io", "resourceclaims", "") => true,
        (_, _, "") => !update,
        _ => false,
    }
}

fn classes(claim: &Charge) -> Vec<&str> {
    match &claim.scopes {
        quota::Scopes::Claim(classes) => classes.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

impl ResourceQuota {
    /// The quotas that the write changes.
    fn charges(
        &self,
        review: &Review,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Vec<(GroupResource, Arc<Object>, Value)>, Status> {
        let quotas = GroupResource {
            group: String::new(),
            resource: "resourcequotas".into(),
        };
        let found = review.cluster.list(&quotas, Some(&review.namespace));
        if found.is_empty() && self.limited.is_empty() {
            return Ok(Vec::new());
        }
        let resource = review.resource.group_resource();
        // The end of a pod that is being deleted does not matter here: it is not new and is not resized.
        let new = charge(review, &resource, object);
        let old = old.map(|old| charge(review, &resource, old));
        check_sign(review, &new.usage)?;
        let mut covered = Covered::default();
        let mut taken = Vec::new();
        for stored in found {
            let value = stored.value();
            let quota = Quota::of(&value);
            covered.scopes(&quota, &new.scopes);
            let tracked = quota.tracked(&resource);
            if tracked.is_empty() || !quota.selects(&new.scopes) {
                continue;
            }
            check_stated(review, object, stored.name(), &quota, &tracked)?;
            covered.names.extend(tracked.into_iter().map(str::to_owned));
            let more = match old.as_ref().filter(|old| quota.selects(&old.scopes)) {
                Some(old) => amounts::increase(&new.usage, &old.usage),
                None => amounts::increase(&new.usage, &Amounts::new()),
            };
            taken.push((stored, value, quota, more));
        }
        let takes_more = match (&taken[..], &old) {
            ([], Some(old)) => !amounts::increase(&new.usage, &old.usage).is_empty(),
            ([], None) => true,
            (taken, _) => taken.iter().any(|(.., more)| !more.is_empty()),
        };
        if takes_more {
            self.check_covered(review, &new, &covered)?;
        }
        let mut changed = Vec::new();
        for (stored, value, quota, more) in taken {
            let used = match quota.take(&more) {
                Ok(used) => used,
                // A status tells what happened already.
                Err(_) if review.subresource == "status" => added(&quota, &more),
                Err(why) => {
                    let name = stored.name();
                    return Err(review.forbidden(&format!("exceeded quota: {name}, {why}")));
                }
            };
            if used != quota.used {
                changed.push((quotas.clone(), stored.clone(), with_used(value, &used)));
            }
        }
        Ok(changed)
    }

    /// Refuses what a configuration limits and no quota covers.
    fn check_covered(&self, review: &Review, new: &Charge, covered: &Covered) -> Result<(), Status> {
        let resource = review.resource.group_resource();
        let mut names = BTreeSet::new();
        for limited in self.limited.iter().filter(|limited| limited.resource == resource) {
            let taken = new.usage.iter().filter(|(_, amount)| amount.sign() > 0);
            let named = |name: &str| limited.contains.iter().any(|part| name.contains(part.as_str()));
            names.extend(taken.map(|(name, _)| name.as_str()).filter(|name| named(name)));
        }
        names.retain(|name| !covered.names.contains(*name));
        if !names.is_empty() {
            let names = names.into_iter().collect::<Vec<_>>().join(",");
            return Err(review.forbidden(&format!("insufficient quota to consume: {names}")));
        }
        let limited = self.limited.iter().flat_map(|limited| &limited.scopes);
        let limited = limited.filter(|selector| new.scopes.matches(selector));
        let open: Vec<String> = limited
            .filter(|selector| !covered.scopes.contains(&selector.scope))
            .map(|selector| {
                format!(
                    "{{{} {} [{}]}}",
                    selector.scope,
                    selector.operator,
                    selector.values.join(" ")
                )
            })
            .collect();
        match open.is_empty() {
            true => Ok(()),
            // Upstream answers so without a reason, and with 500.
            false => Err(Status::failure(
                Reason::Unknown,
                format!("insufficient quota to match these scopes: [{}]", open.join(" ")),
            )),
        }
    }
}

/// What an object takes; claims for devices also by the names of extended resources that their classes stand for.
fn charge(review: &Review, resource: &GroupResource, object: &Value) -> Charge {
    let mut charge = Charge::of(resource, object);
    if (&*resource.group, &*resource.resource) != ("resource.k8s.io", "resourceclaims") {
        return charge;
    }
    let classes = GroupResource {
        group: resource.group.clone(),
        resource: "deviceclasses".into(),
    };
    let classes = review.cluster.list(&classes, None);
    let classes = DeviceClasses::of(classes.iter().map(|class| class.value()));
    let made_for = MadeFor::of(object);
    let pod = made_for.as_ref().and_then(|made_for| {
        let pods = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let pod = review.cluster.get(&pods, &review.namespace, &made_for.pod)?.value();
        let usage = Charge::of(&pods, &pod).usage;
        let claims = review.cluster.list(resource, Some(&review.namespace));
        let is_owned = |claim: &&Arc<Object>| claim.header().owners.iter().any(|owner| **owner == *made_for.uid);
        let owned = claims.iter().filter(is_owned);
        let others = owned.filter_map(|claim| MadeFor::of(&claim.value()));
        made_for.counted(&Consumer::of(&pod, usage), others).cloned()
    });
    classes.add_names(&mut charge, pod.as_ref());
    charge
}

/// What the quotas of a namespace say of an object.
#[derive(Default)]
struct Covered {
    /// What those that are about it limit.
    names: BTreeSet<String>,
    /// The scopes that any of them names and that it is in.
    scopes: BTreeSet<String>,
}

impl Covered {
    fn scopes(&mut self, quota: &Quota, scopes: &Scopes) {
        let matched = quota.selectors.iter().filter(|selector| scopes.matches(selector));
        self.scopes.extend(matched.map(|selector| selector.scope.clone()));
    }
}

/// Refuses what does not say what a quota limits, and what a quota that is not counted yet limits.
fn check_stated(review: &Review, object: &Value, name: &str, quota: &Quota, tracked: &[&str]) -> Result<(), Status> {
    if review.resource.group.is_empty() && review.resource.resource == "pods" {
        constraints(tracked, object).map_err(|why| review.forbidden(&format!("failed quota: {name}: {why}")))?;
    }
    if tracked.iter().any(|tracked| !quota.used.contains_key(*tracked)) {
        let names = pretty_names(tracked);
        return Err(review.forbidden(&format!("status unknown for quota: {name}, resources: {names}")));
    }
    Ok(())
}

/// What is used with `more`, even when that is too much.
fn added(quota: &Quota, more: &Amounts) -> Amounts {
    let mut used = quota.used.clone();
    let mut more = more.clone();
    more.retain(|name, _| quota.hard.contains_key(name));
    amounts::add(&mut used, &more);
    used
}

fn check_sign(review: &Review, usage: &Amounts) -> Result<(), Status> {
    let negative: Vec<&str> = usage
        .iter()
        .filter(|(_, amount)| amount.sign() < 0)
        .map(|(name, _)| name.as_str())
        .collect();
    match negative.is_empty() {
        true => Ok(()),
        false => {
            let names = pretty_names(&negative);
            Err(review.forbidden(&format!("quota usage is negative for resource(s): {names}")))
        }
    }
}

fn with_used(mut quota: Value, used: &Amounts) -> Value {
    let used = used
        .iter()
        .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
    quota["status"]["used"] = Value::Object(used.collect());
    meta::set_text(&mut quota, "resourceVersion", "");
    quota
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;

    fn quota(name: &str, spec: Value, hard: Value, used: Value) -> (&'static str, Value) {
        let quota = json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec,
            "status": {"hard": hard, "used": used}});
        ("resourcequotas", quota)
    }

    fn pod(cpu: &str) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"containers":
            [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    /// What the quotas become, or the refusal.
    async fn ask(
        world: &World,
        operation: Operation,
        about: (&str, &str, &str),
        new: &Value,
        old: Option<&Value>,
    ) -> Result<Vec<Value>, String> {
        let (group, resource, subresource) = about;
        let review = world.review(operation, group, resource, subresource, "n", "a");
        let plugin = ResourceQuota::default();
        plugin
            .validate(&review, Some(new), old)
            .await
            .map_err(|status| status.message)?;
        let together = review.together.lock();
        assert_eq!(together.turn.is_some(), !together.changes.is_empty());
        Ok(together
            .changes
            .iter()
            .map(|(_, _, quota)| quota["status"]["used"].clone())
            .collect())
    }

    const PODS: (&str, &str, &str) = ("", "pods", "");

    #[tokio::test]
    async fn what_is_made_is_charged_or_refused() {
        let world = World::new(&[
            quota(
                "a",
                json!({}),
                json!({"pods": "2", "requests.cpu": "1"}),
                json!({"pods": "1", "requests.cpu": "500m"}),
            ),
            quota(
                "b",
                json!({"scopes": ["BestEffort"]}),
                json!({"pods": "1"}),
                json!({"pods": "1"}),
            ),
        ]);
        let create = |pod: Value| async { ask(&world, Operation::Create, PODS, &{ pod }, None).await };
        let charged = json!({"pods": "2", "requests.cpu": "1"});
        assert_eq!(create(pod("500m")).await, Ok(vec![charged]));
        for (pod, why) in [
            (
                pod("501m"),
                "exceeded quota: a, requested: requests.cpu=501m, used: requests.cpu=500m, limited: requests.cpu=1",
            ),
            (
                json!({"spec": {"containers": [{"name": "c"}]}}),
                "failed quota: a: must specify requests.cpu for: c",
            ),
            (pod("-1"), "quota usage is negative for resource(s): cpu,requests.cpu"),
        ] {
            let refused = Err(format!("pods \"a\" is forbidden: {why}"));
            assert_eq!(create(pod).await, refused);
        }
        assert_eq!(
            ask(&world, Operation::Update, PODS, &pod("9"), Some(&pod("1"))).await,
            Ok(vec![]),
            "nothing of a pod changes but by its resize"
        );
        let resize = ("", "pods", "resize");
        let resized = ask(&world, Operation::Update, resize, &pod("600m"), Some(&pod("400m"))).await;
        assert_eq!(resized, Ok(vec![json!({"pods": "1", "requests.cpu": "700m"})]));
        let smaller = ask(&world, Operation::Update, resize, &pod("100m"), Some(&pod("400m"))).await;
        assert_eq!(smaller, Ok(vec![]));
    }

    #[tokio::test]
    async fn what_is_limited_takes_a_quota_that_covers_it() {
        let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "ResourceQuotaConfiguration",
            "limitedResources": [
                {"resource": "persistentvolumeclaims", "matchContains": [".storageclass.storage.k8s.io/requests.storage"]},
                {"resource": "pods", "matchContains": ["requests.memory"], "matchScopes":
                    [{"scopeName": "PriorityClass", "operator": "In", "values": ["cluster-services", "x"]}]}]});
        let plugin = ResourceQuota::from_config(&config).unwrap();
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        let critical = json!({"spec": {"priorityClassName": "cluster-services", "containers": [{"name": "c"}]}});
        let memory = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "1"}}}]}});
        let covers = "gold.storageclass.storage.k8s.io/requests.storage";
        let scoped =
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}});
        let bare = World::new(&[]);
        let full = World::new(&[
            quota(
                "a",
                json!({}),
                json!({covers: "2Gi", "requests.memory": "1"}),
                json!({covers: "0", "requests.memory": "0"}),
            ),
            quota("b", scoped, json!({"pods": "1"}), json!({"pods": "0"})),
        ]);
        let uncovered = "persistentvolumeclaims \"a\" is forbidden: insufficient quota to consume: \
                         gold.storageclass.storage.k8s.io/requests.storage";
        let scopes = "insufficient quota to match these scopes: [{PriorityClass In [cluster-services x]}]";
        let memory_less = "pods \"a\" is forbidden: insufficient quota to consume: requests.memory";
        for (world, resource, object, expect) in [
            (&bare, "persistentvolumeclaims", &claim, uncovered),
            (&full, "persistentvolumeclaims", &claim, ""),
            (&bare, "pods", &critical, scopes),
            (&bare, "pods", &memory, memory_less),
            (&full, "pods", &memory, ""),
            (&bare, "services", &json!({}), ""),
        ] {
            let review = world.review(Operation::Create, "", resource, "", "n", "a");
            let verdict = plugin.validate(&review, Some(object), None).await;
            assert_eq!(
                verdict.err().map_or(String::new(), |status| status.message),
                expect,
                "{resource}"
            );
        }
        // It covers the scope, and wants to know what is taken of memory.
        let review = full.review(Operation::Create, "", "pods", "", "n", "a");
        let mut sized = critical;
        sized["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "1"}});
        plugin.validate(&review, Some(&sized), None).await.unwrap();
    }

    #[test]
    fn configurations() {
        let config = |version: &str, kind: &str, limited: Value| json!({"apiVersion": version, "kind": kind, "limitedResources": limited});
        let v1 = "apiserver.config.k8s.io/v1";
        let old = "resourcequota.admission.k8s.io/v1beta1";
        for (config, expect) in [
            (config(v1, "ResourceQuotaConfiguration", json!([])), ""),
            (config(old, "Configuration", json!([{"resource": "pods"}])), ""),
            (
                config(v1, "Configuration", json!([])),
                "it must be ResourceQuotaConfiguration of apiserver.config.k8s.io/v1",
            ),
            (
                config(
                    old,
                    "Configuration",
                    json!([{"resource": "pods"}, {"apiGroup": "apps"}]),
                ),
                "limitedResources[1].resource: Required value",
            ),
        ] {
            let got = ResourceQuota::from_config(&config).err().unwrap_or_default();
            assert_eq!(got, expect);
        }
    }

    #[tokio::test]
    async fn objects_of_any_resource_are_counted() {
        let world = World::new(&[quota(
            "a",
            json!({}),
            json!({"count/deployments.apps": "1", "secrets": "1", "services.nodeports": "1", "cpu": "1"}),
            json!({"count/deployments.apps": "1", "secrets": "0", "services.nodeports": "1"}),
        )]);
        let object = json!({"metadata": {"name": "a", "namespace": "n"}});
        let create = Operation::Create;
        assert_eq!(
            ask(&world, create, ("apps", "deployments", ""), &object, None).await,
            Err(
                "deployments.apps \"a\" is forbidden: exceeded quota: a, requested: count/deployments.apps=1, \
                 used: count/deployments.apps=1, limited: count/deployments.apps=1"
                    .into()
            )
        );
        assert_eq!(
            ask(&world, create, ("apps", "deployments", "scale"), &object, None).await,
            Ok(vec![])
        );
        assert_eq!(ask(&world, create, ("", "events", ""), &object, None).await, Ok(vec![]));
        let secrets = ask(&world, create, ("", "secrets", ""), &object, None).await.unwrap();
        assert_eq!(secrets[0]["secrets"], "1");
        let unknown = "pods \"a\" is forbidden: status unknown for quota: a, resources: cpu";
        assert_eq!(ask(&world, create, PODS, &pod("1"), None).await, Err(unknown.into()));
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}]}});
        let services = ("", "services", "");
        let (plain, node_port) = (service("ClusterIP"), service("NodePort"));
        assert_eq!(
            ask(&world, Operation::Update, services, &plain, Some(&node_port)).await,
            Ok(vec![])
        );
        let refused = ask(&world, Operation::Update, services, &node_port, Some(&plain)).await;
        assert!(refused.unwrap_err().contains("requested: services.nodeports=1"));
    }

    #[tokio::test]
    async fn a_status_is_charged_and_never_refused() {
        let hard = json!({"requests.storage": "1Gi"});
        let world = World::new(&[quota("a", json!({}), hard.clone(), hard)]);
        let claim = |allocated: &str| {
            json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": allocated}}})
        };
        let about = ("", "persistentvolumeclaims", "status");
        let charged = ask(&world, Operation::Update, about, &claim("2Gi"), Some(&claim("1Gi"))).await;
        assert_eq!(charged, Ok(vec![json!({"requests.storage": "2Gi"})]));
    }
}
