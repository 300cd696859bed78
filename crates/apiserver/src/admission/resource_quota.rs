//! ResourceQuota: what is written must fit into the quotas of its namespace, and is charged to them.
//!
//! Invariant: `status.used` of a quota changes in the transaction that writes the object, guarded by the quota's revision.
//! So two creates that race never pass the limit together, whichever servers they come through, and a write that fails
//! charges nothing. Only [`quota::Charge`]s that grow are charged here; the quota controller counts again what went.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go` (`CheckRequest`). Upstream charges before
//! it writes, and what it has charged for nothing stays until the controller's next count.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quota::{Amounts, Charge, Quota, amounts, constraints, is_tracked, pretty_names};
use serde_json::json;

use crate::cluster::Object;
use crate::pipeline::{Operation, Plugin, Review};

/// Writers of this many namespaces are remembered before those that nobody waits for are forgotten.
const TURNS_MAX: usize = 1024;

/// The plug-in.
#[derive(Default)]
pub struct ResourceQuota {
    /// Writers of a namespace with quotas go one after the other: they would lose the race for the quota's revision.
    turns: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl ResourceQuota {
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
            if charges(review, object, old)?.is_empty() || review.dry_run {
                return Ok(());
            }
            let turn = self.turn(&review.namespace).lock_owned().await;
            let charged = charges(review, object, old)?;
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

/// The quotas that the write changes.
fn charges(
    review: &Review,
    object: &Value,
    old: Option<&Value>,
) -> Result<Vec<(GroupResource, Arc<Object>, Value)>, Status> {
    let quotas = GroupResource {
        group: String::new(),
        resource: "resourcequotas".into(),
    };
    let found = review.cluster.list(&quotas, Some(&review.namespace));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let resource = review.resource.group_resource();
    // The end of a pod that is being deleted does not matter here: it is not new and is not resized.
    let new = Charge::of(&resource, object);
    let old = old.map(|old| Charge::of(&resource, old));
    check_sign(review, &new.usage)?;
    let mut changed = Vec::new();
    for stored in found {
        let value = stored.value();
        let name = stored.name();
        let quota = Quota::of(&value);
        let tracked = quota.tracked(&resource);
        if tracked.is_empty() || !quota.selects(&new.scopes) {
            continue;
        }
        if resource.group.is_empty() && resource.resource == "pods" {
            constraints(&tracked, object).map_err(|why| review.forbidden(&format!("failed quota: {name}: {why}")))?;
        }
        if tracked.iter().any(|tracked| !quota.used.contains_key(*tracked)) {
            let names = pretty_names(&tracked);
            return Err(review.forbidden(&format!("status unknown for quota: {name}, resources: {names}")));
        }
        let more = match old.as_ref().filter(|old| quota.selects(&old.scopes)) {
            Some(old) => amounts::increase(&new.usage, &old.usage),
            None => amounts::increase(&new.usage, &Amounts::new()),
        };
        let used = match quota.take(&more) {
            Ok(used) => used,
            // A status tells what happened already.
            Err(_) if review.subresource == "status" => added(&quota, &more),
            Err(why) => return Err(review.forbidden(&format!("exceeded quota: {name}, {why}"))),
        };
        if used != quota.used {
            changed.push((quotas.clone(), stored.clone(), with_used(value, &used)));
        }
    }
    Ok(changed)
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
