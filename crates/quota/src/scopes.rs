//! The scopes of a quota: which objects it is about, besides their resource.
//!
//! Sources: `podMatchesScopeFunc` and `pvcMatchesScopeFunc` of `pkg/quota/v1/evaluator/core`.

use std::collections::BTreeSet;

use api::{GroupResource, Value};

use crate::amounts;

/// One condition of a quota on the objects it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The scope, such as `PriorityClass`.
    pub scope: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    /// For the first two operators.
    pub values: Vec<String>,
}

/// What of an object the scopes ask for. Objects of other resources are in no scope at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scopes {
    /// A pod.
    Pod {
        /// `activeDeadlineSeconds` is set.
        terminating: bool,
        /// Nothing of it is reserved or limited.
        best_effort: bool,
        /// The name of its priority class, or empty.
        priority_class: Box<str>,
        /// Its affinity names other namespaces.
        cross_namespace_affinity: bool,
    },
    /// A PersistentVolumeClaim, with every VolumeAttributesClass that it has, had or is to have.
    Claim(BTreeSet<String>),
    /// Anything else.
    #[default]
    Other,
}

impl Scopes {
    /// Reads an object of a resource.
    pub fn of(resource: &GroupResource, object: &Value) -> Scopes {
        match (&*resource.group, &*resource.resource) {
            ("", "pods") => Scopes::Pod {
                terminating: object["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0),
                best_effort: is_best_effort(object),
                priority_class: object["spec"]["priorityClassName"].as_str().unwrap_or("").into(),
                cross_namespace_affinity: has_cross_namespace_affinity(&object["spec"]["affinity"]),
            },
            ("", "persistentvolumeclaims") => {
                let status = &object["status"];
                let names = [
                    &object["spec"]["volumeAttributesClassName"],
                    &status["currentVolumeAttributesClassName"],
                    &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
                ];
                let names = names
                    .into_iter()
                    .filter_map(Value::as_str)
                    .filter(|name| !name.is_empty());
                Scopes::Claim(names.map(str::to_owned).collect())
            }
            _ => Scopes::Other,
        }
    }

    /// Whether the object is in a scope.
    pub fn matches(&self, selector: &Selector) -> bool {
        match (self, &*selector.scope) {
            (Scopes::Pod { terminating, .. }, "Terminating") => *terminating,
            (Scopes::Pod { terminating, .. }, "NotTerminating") => !terminating,
            (Scopes::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Scopes::Pod { best_effort, .. }, "NotBestEffort") => !best_effort,
            (Scopes::Pod { priority_class, .. }, "PriorityClass") => {
                selector.selects(Some(&**priority_class).filter(|name| !name.is_empty()))
            }
            (
                Scopes::Pod {
                    cross_namespace_affinity,
                    ..
                },
                "CrossNamespacePodAffinity",
            ) => *cross_namespace_affinity,
            (Scopes::Claim(classes), "VolumeAttributesClass") => match classes.is_empty() {
                true => selector.selects(None),
                false => classes.iter().any(|class| selector.selects(Some(class))),
            },
            _ => false,
        }
    }
}

impl Selector {
    /// As a label selector would, on a label of that value.
    fn selects(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|own| own == value);
        match &*self.operator {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "DoesNotExist" => value.is_none(),
            _ => value.is_some(),
        }
    }
}

/// Whether a pod is of the quality of service BestEffort, as its status tells, or as its resources make it.
pub fn is_best_effort(pod: &Value) -> bool {
    if let Some(class) = pod["status"]["qosClass"].as_str().filter(|class| !class.is_empty()) {
        return class == "BestEffort";
    }
    let counts = |resources: &Value| {
        let lists = [&resources["requests"], &resources["limits"]];
        let listed = lists.into_iter().flat_map(amounts::amounts);
        listed
            .into_iter()
            .any(|(name, amount)| matches!(&*name, "cpu" | "memory") && amount.sign() > 0)
    };
    !counts(&pod["spec"]["resources"]) && !amounts::containers(pod).any(|container| counts(&container["resources"]))
}

fn has_cross_namespace_affinity(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let list = |field: &str| affinity[kind][field].as_array().into_iter().flatten();
        list("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || list("preferredDuringSchedulingIgnoredDuringExecution").any(|term| crosses(&term["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(resource: &str, object: Value, scope: &str, operator: &str, values: &[&str], expect: bool) {
        let resource = GroupResource {
            group: String::new(),
            resource: resource.into(),
        };
        let selector = Selector {
            scope: scope.into(),
            operator: operator.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let got = Scopes::of(&resource, &object).matches(&selector);
        assert_eq!(got, expect, "{object} in {scope} {operator} {values:?}");
    }

    #[test]
    fn pods_are_in_scopes() {
        let container = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let term = |field: &str, term: Value| json!({"spec": {"affinity": {"podAffinity": {field: [term]}}}});
        let (required, preferred) = (
            "requiredDuringSchedulingIgnoredDuringExecution",
            "preferredDuringSchedulingIgnoredDuringExecution",
        );
        let deadline = json!({"spec": {"activeDeadlineSeconds": 0}});
        for (pod, scope, expect) in [
            (deadline.clone(), "Terminating", true),
            (deadline, "NotTerminating", false),
            (json!({}), "NotTerminating", true),
            (json!({}), "BestEffort", true),
            (container(json!({"limits": {"cpu": "0"}})), "BestEffort", true),
            (container(json!({"limits": {"cpu": "1"}})), "BestEffort", false),
            (container(json!({"requests": {"memory": "1"}})), "NotBestEffort", true),
            (
                json!({"spec": {"resources": {"requests": {"cpu": "1"}}}}),
                "BestEffort",
                false,
            ),
            (json!({"status": {"qosClass": "Burstable"}}), "BestEffort", false),
            (json!({"spec": {"priorityClassName": "high"}}), "PriorityClass", true),
            (json!({}), "PriorityClass", false),
            (
                term(required, json!({"topologyKey": "x"})),
                "CrossNamespacePodAffinity",
                false,
            ),
            (
                term(required, json!({"namespaces": ["x"]})),
                "CrossNamespacePodAffinity",
                true,
            ),
            (
                term(preferred, json!({"podAffinityTerm": {"namespaceSelector": {}}})),
                "CrossNamespacePodAffinity",
                true,
            ),
            (json!({}), "VolumeAttributesClass", false),
        ] {
            check("pods", pod, scope, "Exists", &[], expect);
        }
        let pod = |class: &str| json!({"spec": {"priorityClassName": class}});
        for (class, operator, values, expect) in [
            ("high", "In", &["high", "low"][..], true),
            ("mid", "In", &["high"], false),
            ("", "In", &["high"], false),
            ("high", "NotIn", &["high"], false),
            ("", "NotIn", &["high"], true),
            ("", "DoesNotExist", &[], true),
            ("high", "DoesNotExist", &[], false),
        ] {
            check("pods", pod(class), "PriorityClass", operator, values, expect);
        }
    }

    #[test]
    fn claims_are_in_the_scope_of_their_classes() {
        let claim = json!({
            "spec": {"volumeAttributesClassName": "gold"},
            "status": {"currentVolumeAttributesClassName": "silver"},
        });
        let scope = "VolumeAttributesClass";
        check("persistentvolumeclaims", claim.clone(), scope, "In", &["silver"], true);
        check("persistentvolumeclaims", claim.clone(), scope, "In", &["bronze"], false);
        check("persistentvolumeclaims", claim, scope, "Exists", &[], true);
        check("persistentvolumeclaims", json!({}), scope, "DoesNotExist", &[], true);
        check("services", json!({}), "Terminating", "Exists", &[], false);
    }
}
