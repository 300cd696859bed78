//! One ResourceQuota, read, and the words for what it refuses.
//!
//! Sources: `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go` and `pkg/quota/v1`.

use std::collections::{BTreeMap, BTreeSet};

use api::quantity::Quantity;
use api::{GroupResource, Value};

use crate::amounts::{self, Amounts, List};
use crate::charge::of_lists;
use crate::names::tracks;
use crate::scopes::{Scopes, Selector};

/// What a pod has to say for each container when its quota limits it. Upstream calls it a mistake that it keeps: nothing
/// is added to it.
const REQUIRED: [&str; 6] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];

/// A quota: what it limits, and of which objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// `spec.hard`.
    pub wanted: Amounts,
    /// `status.hard`: what is in force.
    pub hard: Amounts,
    /// `status.used`.
    pub used: Amounts,
    /// `spec.scopes` and `spec.scopeSelector`: an object has to match all of them.
    pub selectors: Vec<Selector>,
}

impl Quota {
    /// Reads the object.
    pub fn of(object: &Value) -> Quota {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let list = |value: &Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
        let scopes = list(&spec["scopes"]).into_iter().map(|scope| Selector {
            scope: text(&scope),
            operator: "Exists".into(),
            values: Vec::new(),
        });
        let expressions = list(&spec["scopeSelector"]["matchExpressions"]);
        let expressions = expressions.iter().map(|expression| Selector {
            scope: text(&expression["scopeName"]),
            operator: text(&expression["operator"]),
            values: list(&expression["values"]).iter().map(text).collect(),
        });
        Quota {
            wanted: amounts::amounts(&spec["hard"]),
            hard: amounts::amounts(&object["status"]["hard"]),
            used: amounts::amounts(&object["status"]["used"]),
            selectors: scopes.chain(expressions).collect(),
        }
    }

    /// Whether the object is in all scopes of the quota.
    pub fn selects(&self, scopes: &Scopes) -> bool {
        self.selectors.iter().all(|selector| scopes.matches(selector))
    }

    /// The names in force that are about objects of a resource.
    pub fn tracked(&self, resource: &GroupResource) -> Vec<&str> {
        self.hard
            .keys()
            .map(String::as_str)
            .filter(|name| tracks(resource, name))
            .collect()
    }

    /// What is used once `more` is taken too: only of what is in force.
    ///
    /// # Errors
    /// Why it is too much: `requested: …, used: …, limited: …`.
    pub fn take(&self, more: &Amounts) -> Result<Amounts, String> {
        let requested: Amounts = only(more, |name| self.hard.contains_key(name));
        let mut used = self.used.clone();
        amounts::add(&mut used, &requested);
        let exceeds = |name: &str| requested.contains_key(name) && used[name] > self.hard[name];
        let exceeded: BTreeSet<&str> = self
            .hard
            .keys()
            .map(String::as_str)
            .filter(|name| exceeds(name))
            .collect();
        if exceeded.is_empty() {
            return Ok(used);
        }
        let shown = |list: &Amounts| pretty(&only(list, |name| exceeded.contains(name)));
        Err(format!(
            "requested: {}, used: {}, limited: {}",
            shown(&requested),
            shown(&self.used),
            shown(&self.hard)
        ))
    }
}

fn only(list: &Amounts, keep: impl Fn(&str) -> bool) -> Amounts {
    let kept = list.iter().filter(|(name, _)| keep(name));
    kept.map(|(name, amount): (&String, &Quantity)| (name.clone(), amount.clone()))
        .collect()
}

/// `cpu=1,memory=1Gi`.
pub fn pretty(list: &Amounts) -> String {
    let parts: Vec<String> = list.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}

/// `cpu,memory`.
pub fn pretty_names(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.join(",")
}

/// What a pod has to say and does not, when a quota limits these names: `must specify cpu for: a,b; memory for: a`.
/// A pod that says anything for itself as a whole need not say it for its containers.
pub fn constraints(names: &[&str], pod: &Value) -> Result<(), String> {
    let stated = |resources: &Value| {
        let list = |list: List| amounts::amounts(&resources[list.field()]);
        of_lists(&list(List::Requests), &list(List::Limits))
    };
    if !stated(&pod["spec"]["resources"]).is_empty() {
        return Ok(());
    }
    let required = REQUIRED.into_iter().filter(|name| names.contains(name));
    let required: Vec<&str> = required.collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in amounts::containers(pod) {
        let own = stated(&container["resources"]);
        for name in required.iter().filter(|name| !own.contains_key(**name)) {
            let names = missing.entry(name).or_default();
            names.insert(container["name"].as_str().unwrap_or(""));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let parts = missing.into_iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.into_iter().collect();
        format!("{name} for: {}", containers.join(","))
    });
    Err(format!("must specify {}", parts.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn too_much_is_told_by_name() {
        let quota = Quota::of(&json!({"status": {
            "hard": {"cpu": "2", "memory": "1Gi", "pods": "3"}, "used": {"cpu": "1500m", "memory": "1Gi", "pods": "1"}}}));
        let take = |more: Value| quota.take(&amounts::amounts(&more)).map(|used| pretty(&used));
        for (more, expect) in [
            (json!({"cpu": "500m", "x": "7"}), Ok("cpu=2,memory=1Gi,pods=2")),
            (
                json!({"cpu": "1", "memory": "1", "pods": "1"}),
                Err("requested: cpu=1,memory=1, used: cpu=1500m,memory=1Gi, limited: cpu=2,memory=1Gi"),
            ),
        ] {
            let mut more = more;
            more["pods"] = "1".into();
            assert_eq!(take(more.clone()).as_deref().map_err(String::as_str), expect, "{more}");
        }
        // What is over already is nobody's fault who takes nothing of it.
        let over =
            Quota::of(&json!({"status": {"hard": {"cpu": "1", "pods": "5"}, "used": {"cpu": "2", "pods": "0"}}}));
        assert!(over.take(&amounts::amounts(&json!({"pods": "1"}))).is_ok());
    }

    #[test]
    fn containers_say_what_is_limited() {
        let container = |name: &str, resources: Value| json!({"name": name, "resources": resources});
        let (cpu, none) = (json!({"requests": {"cpu": "1"}}), json!({}));
        for (pod, names, expect) in [
            (
                json!({"spec": {"containers": [container("a", cpu.clone())]}}),
                &["cpu", "pods"][..],
                Ok(()),
            ),
            (
                json!({"spec": {"containers": [container("b", none.clone()), container("a", none.clone())],
                    "initContainers": [container("i", cpu)]}}),
                &["requests.cpu", "limits.memory", "ephemeral-storage"],
                Err("must specify limits.memory for: a,b,i; requests.cpu for: a,b"),
            ),
            (
                json!({"spec": {"resources": {"limits": {"memory": "1"}}, "containers": [container("a", none)]}}),
                &["limits.memory", "requests.cpu"],
                Ok(()),
            ),
        ] {
            let got = constraints(names, &pod);
            assert_eq!(got.as_ref().map_err(|why| &**why).copied(), expect, "{pod}");
        }
    }

    #[test]
    fn every_scope_has_to_match() {
        let pods = GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let quota = Quota::of(
            &json!({"spec": {"scopes": ["NotTerminating"], "scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}},
            "status": {"hard": {"pods": "1", "services": "1"}}}),
        );
        for (spec, expect) in [
            (json!({"priorityClassName": "high"}), true),
            (json!({"priorityClassName": "low"}), false),
            (json!({"priorityClassName": "high", "activeDeadlineSeconds": 5}), false),
        ] {
            assert_eq!(quota.selects(&Scopes::of(&pods, &json!({"spec": spec}))), expect);
        }
        assert_eq!(quota.tracked(&pods), ["pods"]);
    }
}
