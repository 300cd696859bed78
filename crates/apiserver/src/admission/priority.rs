//! Priority: a pod's class becomes a number, and there is one default class.
//!
//! Source: `plugin/pkg/admission/priority/admission.go`.

use api::{GroupResource, Status, Value};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review};

const DEFAULT_PREEMPTION_POLICY: &str = "PreemptLowerPriority";

/// The plug-in.
pub struct Priority;

/// What a class says.
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let result = match object.as_mut().filter(|_| review.is_about("", "pods", "")) {
            Some(pod) => set(review, pod, old),
            None => Ok(()),
        };
        Box::pin(std::future::ready(result))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let about = review.is_about("scheduling.k8s.io", "priorityclasses", "");
        let result = match object.filter(|_| about) {
            Some(class) => only_one_default(review, class),
            None => Ok(()),
        };
        Box::pin(std::future::ready(result))
    }
}

fn set(review: &Review, pod: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if review.operation == Operation::Update {
        // Clients that do not know the fields leave them out; the pod keeps what it has.
        for field in ["priority", "preemptionPolicy"] {
            if let Some(old) = old.map(|old| &old["spec"][field]).filter(|old| !old.is_null())
                && pod["spec"][field].is_null()
            {
                pod["spec"][field] = old.clone();
            }
        }
        return Ok(());
    }
    let name = pod["spec"]["priorityClassName"].as_str().unwrap_or("").to_owned();
    let class = class_of(review, &name)?;
    let given = &pod["spec"]["priority"];
    if let Some(given) = given.as_i64().filter(|given| *given != class.value) {
        return Err(review.forbidden(&format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            class.value
        )));
    }
    let given = pod["spec"]["preemptionPolicy"].as_str();
    if let Some(given) = given.filter(|given| *given != class.preemption_policy) {
        return Err(review.forbidden(&format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {} from the given PriorityClass name",
            class.preemption_policy
        )));
    }
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else {
        return Ok(());
    };
    if !class.name.is_empty() {
        spec.insert("priorityClassName".into(), class.name.into());
    }
    spec.insert("priority".into(), class.value.into());
    spec.insert("preemptionPolicy".into(), class.preemption_policy.into());
    Ok(())
}

fn class_of(review: &Review, name: &str) -> Result<Class, Status> {
    let read = |object: &Value| Class {
        name: api::meta::name(object).into(),
        value: object["value"].as_i64().unwrap_or(0),
        preemption_policy: object["preemptionPolicy"]
            .as_str()
            .unwrap_or(DEFAULT_PREEMPTION_POLICY)
            .into(),
    };
    if !name.is_empty() {
        let object = review.cluster.get(&classes(), "", name);
        let missing = || review.forbidden(&format!("no PriorityClass with name {name} was found"));
        return object.map(|object| read(&object.value())).ok_or_else(missing);
    }
    // Two defaults can only come from a race: the lower one holds.
    let all = review.cluster.list(&classes(), None);
    let defaults = all
        .iter()
        .map(|object| object.value())
        .filter(|object| object["globalDefault"] == true);
    let lowest = defaults.min_by_key(|object| object["value"].as_i64());
    let none = Class {
        name: String::new(),
        value: 0,
        preemption_policy: DEFAULT_PREEMPTION_POLICY.into(),
    };
    Ok(lowest.map_or(none, |object| read(&object)))
}

fn only_one_default(review: &Review, class: &Value) -> Result<(), Status> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    let others = review.cluster.list(&classes(), None);
    let other = others
        .iter()
        .find(|object| object.name() != review.name && object.value()["globalDefault"] == true);
    match other {
        None => Ok(()),
        Some(other) => Err(review.forbidden(&format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            other.name()
        ))),
    }
}

fn classes() -> GroupResource {
    GroupResource {
        group: "scheduling.k8s.io".into(),
        resource: "priorityclasses".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use serde_json::json;

    const CLASSES: &str = "priorityclasses.scheduling.k8s.io";

    fn world() -> World {
        World::new(&[
            (
                CLASSES,
                json!({"metadata": {"name": "high"}, "value": 100, "preemptionPolicy": "Never"}),
            ),
            (
                CLASSES,
                json!({"metadata": {"name": "usual"}, "value": 7, "globalDefault": true}),
            ),
        ])
    }

    #[test]
    fn classes_become_numbers() {
        for (spec, expect) in [
            (
                json!({}),
                Ok(json!({"priorityClassName": "usual", "priority": 7, "preemptionPolicy": DEFAULT_PREEMPTION_POLICY})),
            ),
            (
                json!({"priorityClassName": "high"}),
                Ok(json!({"priorityClassName": "high", "priority": 100, "preemptionPolicy": "Never"})),
            ),
            (
                json!({"priorityClassName": "none"}),
                Err("no PriorityClass with name none was found"),
            ),
            (
                json!({"priority": 8}),
                Err("the integer value of priority (8) must not be provided"),
            ),
            (
                json!({"priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority"}),
                Err("the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided"),
            ),
        ] {
            let review = world().review(Operation::Create, "", "pods", "", "ns", "x");
            let mut pod = json!({"spec": spec});
            match (set(&review, &mut pod, None), expect) {
                (Ok(()), Ok(expect)) => assert_eq!(pod["spec"], expect),
                (Err(status), Err(expect)) => assert!(status.message.contains(expect), "{}", status.message),
                (got, expect) => panic!("{got:?} {expect:?}"),
            }
        }
    }

    #[test]
    fn there_is_one_default() {
        for (name, default, ok) in [("usual", true, true), ("other", true, false), ("other", false, true)] {
            let review = world().review(Operation::Create, "scheduling.k8s.io", "priorityclasses", "", "", name);
            let class = json!({"metadata": {"name": name}, "globalDefault": default});
            assert_eq!(only_one_default(&review, &class).is_ok(), ok, "{name} {default}");
        }
    }

    #[test]
    fn an_update_keeps_what_it_leaves_out() {
        let review = world().review(Operation::Update, "", "pods", "", "ns", "x");
        let mut pod = json!({"spec": {}});
        set(&review, &mut pod, Some(&json!({"spec": {"priority": 5}}))).unwrap();
        assert_eq!(pod["spec"], json!({"priority": 5}));
    }
}
