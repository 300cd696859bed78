//! RuntimeClass: a pod that names one gets its overhead and goes where it runs; one that names none that exists is refused.
//!
//! Source: `plugin/pkg/admission/runtimeclass/admission.go` and `pkg/util/tolerations/tolerations.go`.

use api::quantity::Quantity;
use api::{GroupResource, Status, Value};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review};
use quota::amounts::amounts;

const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The plug-in.
pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let pod = object.as_mut().filter(|_| review.is_about("", "pods", ""));
        Box::pin(std::future::ready(pod.map_or(Ok(()), |pod| admit(review, pod))))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let pod = object.filter(|_| review.is_about("", "pods", ""));
        Box::pin(std::future::ready(pod.map_or(Ok(()), |pod| check(review, pod))))
    }
}

/// The class that a pod names; none when it names none.
fn class_of(review: &Review, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str() else {
        return Ok(None);
    };
    let classes = GroupResource {
        group: "node.k8s.io".into(),
        resource: "runtimeclasses".into(),
    };
    match review.cluster.get(&classes, "", name) {
        Some(class) => Ok(Some(class.value())),
        None => {
            let name = api::field::quote(name);
            Err(review.forbidden(&format!("pod rejected: RuntimeClass {name} not found")))
        }
    }
}

fn admit(review: &Review, pod: &mut Value) -> Result<(), Status> {
    let Some(class) = class_of(review, pod)? else {
        return Ok(());
    };
    if let Some(fixed) = overhead_of(&class) {
        let own = &pod["spec"]["overhead"];
        if own.is_object() && !same(own, fixed) {
            return Err(review.forbidden(OTHER_OVERHEAD));
        }
        pod["spec"]["overhead"] = fixed.clone();
    }
    let scheduling = &class["scheduling"];
    for (label, wanted) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let own = &mut pod["spec"]["nodeSelector"][label];
        if !own.is_null() && own != wanted {
            let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{label}] = {}; pod.spec.nodeSelector[{label}] = {}",
                text(wanted),
                text(own)
            );
            return Err(review.forbidden(&why));
        }
        *own = wanted.clone();
    }
    if let Some(more) = scheduling["tolerations"].as_array() {
        let own = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        pod["spec"]["tolerations"] = merged(own.iter().chain(more)).into();
    }
    Ok(())
}

fn check(review: &Review, pod: &Value) -> Result<(), Status> {
    let class = class_of(review, pod)?;
    let own = &pod["spec"]["overhead"];
    match class.as_ref().and_then(overhead_of) {
        Some(fixed) if !same(own, fixed) => Err(review.forbidden(OTHER_OVERHEAD)),
        None if own.is_object() => {
            Err(review.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
        }
        _ => Ok(()),
    }
}

fn overhead_of(class: &Value) -> Option<&Value> {
    class["overhead"].is_object().then(|| &class["overhead"]["podFixed"])
}

/// Whether two lists of amounts say the same, however they write it.
fn same(one: &Value, other: &Value) -> bool {
    let (one, other) = (amounts(one), amounts(other));
    let equal = |(name, amount): (&String, &Quantity)| other.get(name).is_some_and(|own| own == amount);
    one.len() == other.len() && one.iter().all(equal)
}

/// Tolerations without those that another one covers.
fn merged<'a>(all: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let all: Vec<&Value> = all.collect();
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|before| covers(before, toleration));
        // Of equal ones the first stays.
        let later = all[index + 1..].iter();
        if !covered
            && !later
                .clone()
                .any(|later| later != toleration && covers(later, toleration))
        {
            merged.push((*toleration).clone());
        }
    }
    merged
}

/// Whether whatever `narrow` tolerates is tolerated by `wide` too.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |of: &Value, field: &str| of[field].as_str().unwrap_or("").to_owned();
    let every_key = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    let effect = text(wide, "effect");
    if (text(wide, "key") != text(narrow, "key") && !every_key)
        || (!effect.is_empty() && effect != text(narrow, "effect"))
    {
        return false;
    }
    let seconds = |of: &Value| of["tolerationSeconds"].as_i64();
    if effect == "NoExecute"
        && let Some(most) = seconds(wide)
        && seconds(narrow).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match &*text(wide, "operator") {
        "Exists" => true,
        "" | "Equal" => text(narrow, "operator") != "Exists" && text(wide, "value") == text(narrow, "value"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    fn ask(class: Value, spec: Value) -> Result<Value, String> {
        let mut class = class;
        class["metadata"] = json!({"name": "kata"});
        let world = World::new(&[("runtimeclasses.node.k8s.io", class)]);
        let review = world.review(Operation::Create, "", "pods", "", "n", "a");
        let mut pod = json!({"spec": spec});
        let verdict = admit(&review, &mut pod).and_then(|()| check(&review, &pod));
        verdict
            .map(|()| pod["spec"].take())
            .map_err(|status| status.message.replace("pods \"a\" is forbidden: ", ""))
    }

    #[test]
    fn a_class_says_what_it_costs_and_where_it_runs() {
        let overhead = json!({"overhead": {"podFixed": {"cpu": "250m"}}});
        let placed = json!({"scheduling": {"nodeSelector": {"vm": "yes"},
            "tolerations": [{"key": "vm", "operator": "Exists"}]}});
        let named = |more: Value| {
            let mut spec = json!({"runtimeClassName": "kata"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        for (class, spec, expect) in [
            (json!({}), json!({}), Ok(json!({}))),
            (json!({}), named(json!({})), Ok(named(json!({})))),
            (
                json!({}),
                json!({"runtimeClassName": "none"}),
                Err("pod rejected: RuntimeClass \"none\" not found"),
            ),
            (
                overhead.clone(),
                named(json!({})),
                Ok(named(json!({"overhead": {"cpu": "250m"}}))),
            ),
            (
                overhead.clone(),
                named(json!({"overhead": {"cpu": "0.25"}})),
                Ok(named(json!({"overhead": {"cpu": "250m"}}))),
            ),
            (overhead, named(json!({"overhead": {"cpu": "1"}})), Err(OTHER_OVERHEAD)),
            (
                json!({}),
                json!({"overhead": {"cpu": "1"}}),
                Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"),
            ),
            (
                placed.clone(),
                named(json!({"nodeSelector": {"a": "b"}})),
                Ok(named(
                    json!({"nodeSelector": {"a": "b", "vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}),
                )),
            ),
            (
                placed,
                named(json!({"nodeSelector": {"vm": "no"}})),
                Err("conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"),
            ),
        ] {
            assert_eq!(ask(class, spec.clone()), expect.map_err(str::to_owned), "{spec}");
        }
    }

    #[test]
    fn tolerations_that_others_cover_go() {
        let all = json!([
            {"key": "a", "operator": "Equal", "value": "1", "effect": "NoSchedule"},
            {"key": "a", "operator": "Exists"},
            {"key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
            {"key": "b", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9},
            {"key": "a", "operator": "Exists"},
        ]);
        let kept = merged(all.as_array().unwrap().iter());
        assert_eq!(kept, [all[1].clone(), all[3].clone()]);
        let everything = json!([{"operator": "Exists"}, {"key": "x", "value": "y"}]);
        assert_eq!(merged(everything.as_array().unwrap().iter()).len(), 1);
    }
}
