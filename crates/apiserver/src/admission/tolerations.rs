//! PodTolerationRestriction, and how tolerations are added to a pod.
//!
//! A namespace's annotations (or the plug-in's configuration) say what its pods tolerate at least and at most.
//!
//! Source: `plugin/pkg/admission/podtolerationrestriction` and `pkg/util/tolerations`.

use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Operation, Plugin, Review};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";

/// The plug-in. Empty lists of the cluster say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTolerationRestriction {
    defaults: Vec<Value>,
    whitelist: Vec<Value>,
}

// === impl PodTolerationRestriction ===

impl PodTolerationRestriction {
    /// The plug-in as its configuration has it.
    ///
    /// # Errors
    /// It is of another kind.
    pub fn from_config(config: &Value) -> Result<PodTolerationRestriction, String> {
        let kind = (config["apiVersion"].as_str(), config["kind"].as_str());
        if kind
            != (
                Some("podtolerationrestriction.admission.k8s.io/v1alpha1"),
                Some("Configuration"),
            )
        {
            return Err("it must be Configuration of podtolerationrestriction.admission.k8s.io/v1alpha1".into());
        }
        let list = |field: &str| config[field].as_array().cloned().unwrap_or_default();
        Ok(PodTolerationRestriction {
            defaults: list("default"),
            whitelist: list("whitelist"),
        })
    }

    fn merge(&self, review: &Review, pod: &mut Value) -> Result<(), Status> {
        let mut added = Vec::new();
        if review.operation == Operation::Create {
            added = of_namespace(review, DEFAULTS)?.unwrap_or_else(|| self.defaults.clone());
        }
        if !quota::is_best_effort(pod) {
            added.push(json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}));
        }
        add(pod, added);
        Ok(())
    }

    fn check(&self, review: &Review, pod: &Value) -> Result<(), Status> {
        let (whitelist, scope) = match of_namespace(review, WHITELIST)? {
            Some(list) => (list, "namespace"),
            None => (self.whitelist.clone(), "cluster"),
        };
        let covered = |toleration: &Value| whitelist.iter().any(|one| is_superset(one, toleration));
        if whitelist.is_empty() || list(pod).iter().all(covered) {
            return Ok(());
        }
        Err(Status::internal(format_args!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        )))
    }
}

/// What an annotation of the namespace lists; `None`: it has none.
fn of_namespace(review: &Review, annotation: &str) -> Result<Option<Vec<Value>>, Status> {
    let namespaces = GroupResource {
        group: String::new(),
        resource: "namespaces".into(),
    };
    let Some(namespace) = review.cluster.get(&namespaces, "", &review.namespace) else {
        return Err(Status::not_found(&namespaces, &review.namespace));
    };
    match meta::annotation(&namespace.value(), annotation) {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => serde_json::from_str(text).map(Some).map_err(Status::internal),
    }
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let pod = object.as_mut().filter(|_| review.is_about("", "pods", ""));
        let verdict = pod.map_or(Ok(()), |pod| {
            self.merge(review, pod).and_then(|()| self.check(review, pod))
        });
        Box::pin(std::future::ready(verdict))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let pod = object.filter(|_| review.is_about("", "pods", ""));
        Box::pin(std::future::ready(pod.map_or(Ok(()), |pod| self.check(review, pod))))
    }
}

fn list(pod: &Value) -> &[Value] {
    pod["spec"]["tolerations"].as_array().map_or(&[], Vec::as_slice)
}

/// Adds tolerations to a pod; one that another covers is left out.
pub(super) fn add(pod: &mut Value, added: Vec<Value>) {
    if added.is_empty() {
        return;
    }
    let all: Vec<Value> = list(pod).iter().cloned().chain(added).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let later = all[index + 1..]
            .iter()
            .any(|other| other != one && is_superset(other, one));
        if !later && !merged.iter().any(|other| is_superset(other, one)) {
            merged.push(one.clone());
        }
    }
    pod["spec"]["tolerations"] = Value::Array(merged);
}

/// Whether whatever `one` tolerates is tolerated by `all`.
fn is_superset(all: &Value, one: &Value) -> bool {
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_owned();
    let operator = |of: &Value| match &*text(of, "operator") {
        "" => "Equal".to_owned(),
        operator => operator.to_owned(),
    };
    if all == one {
        return true;
    }
    let (key, exists) = (text(all, "key"), operator(all) == "Exists");
    if text(one, "key") != key && !(key.is_empty() && exists) {
        return false;
    }
    let effect = text(all, "effect");
    if text(one, "effect") != effect && !effect.is_empty() {
        return false;
    }
    if let Some(most) = all["tolerationSeconds"].as_i64().filter(|_| effect == "NoExecute")
        && one["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    exists || operator(one) == "Equal" && text(one, "value") == text(all, "value")
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::testing::World;
    use super::*;

    fn run(annotations: Value, config: &PodTolerationRestriction, tolerations: Value) -> Result<Value, String> {
        let namespace = json!({"metadata": {"name": "n", "annotations": annotations}});
        let world = World::new(&[("namespaces", namespace)]);
        let review = world.review(Operation::Create, "", "pods", "", "n", "a");
        let mut pod = Some(json!({"spec": {"tolerations": tolerations}}));
        let verdict = block_on(config.admit(&review, &mut pod, None));
        verdict.map_err(|status| status.message)?;
        Ok(pod.unwrap()["spec"]["tolerations"].take())
    }

    #[test]
    fn namespaces_say_what_is_tolerated() {
        let a = json!({"key": "a", "operator": "Exists"});
        let b = json!({"key": "b", "operator": "Equal", "value": "v", "effect": "NoSchedule"});
        let cluster = PodTolerationRestriction {
            defaults: vec![b.clone()],
            whitelist: vec![a.clone(), json!({"key": "b", "operator": "Exists"})],
        };
        let none = PodTolerationRestriction::default();
        let text = |list: Value| list.to_string();
        let conflict = |scope: &str| {
            Err(format!(
                "Internal error occurred: pod tolerations (possibly merged with namespace default tolerations) conflict \
                 with its {scope} whitelist"
            ))
        };
        let other = json!({"key": "c", "operator": "Exists"});
        for (annotations, config, given, expect) in [
            (json!({}), &none, json!([other]), Ok(json!([other]))),
            (json!({}), &cluster, json!([]), Ok(json!([b]))),
            (json!({}), &cluster, json!([other]), conflict("cluster")),
            (json!({DEFAULTS: text(json!([a]))}), &cluster, json!([]), Ok(json!([a]))),
            (json!({DEFAULTS: ""}), &cluster, json!([]), Ok(json!([]))),
            (
                json!({WHITELIST: text(json!([a]))}),
                &none,
                json!([b]),
                conflict("namespace"),
            ),
            (
                json!({WHITELIST: "", DEFAULTS: ""}),
                &cluster,
                json!([other]),
                Ok(json!([other])),
            ),
        ] {
            assert_eq!(run(annotations.clone(), config, given), expect, "{annotations}");
        }
    }

    #[test]
    fn what_another_covers_is_left_out() {
        let exists = |key: &str| json!({"key": key, "operator": "Exists"});
        let equal = |value: &str| json!({"key": "a", "value": value});
        let seconds = |seconds: i64| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (given, added, expect) in [
            (json!([equal("x")]), vec![exists("a")], json!([exists("a")])),
            (json!([exists("a")]), vec![equal("x")], json!([exists("a")])),
            (json!([equal("x")]), vec![equal("y")], json!([equal("x"), equal("y")])),
            (json!([exists("b")]), vec![exists("")], json!([exists("")])),
            (json!([seconds(5)]), vec![seconds(3)], json!([seconds(5)])),
            (json!([exists("a")]), vec![exists("a")], json!([exists("a")])),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            add(&mut pod, added);
            assert_eq!(pod["spec"]["tolerations"], expect);
        }
    }
}
