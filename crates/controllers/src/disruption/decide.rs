//! What a budget allows, from the pods that it selects and the scale of what controls them. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Value;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use client::{Meta, Metadata};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use crate::context::time_text;
use crate::pods::{is_ready, is_terminal};
use crate::views::{Condition, IntOrPercent, Pod, Selector, condition, selector};

/// A pod whose eviction was allowed is expected to be deleted within this time (upstream: `DeletionTimeout`).
pub(super) const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// A pod that says it is disrupted and is not deleted within this time was not (upstream: `stalePodDisruptionTimeout`).
const STALE_AFTER: Duration = Duration::from_secs(120);
/// The condition that says whether a budget allows anything.
const ALLOWED: &str = "DisruptionAllowed";
/// The condition of pods that are being disrupted.
pub(super) const TARGET: &str = "DisruptionTarget";

/// A budget, as this controller reads it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Budget {
    pub metadata: Metadata,
    pub spec: BudgetSpec,
    pub status: BudgetStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BudgetSpec {
    pub min_available: Option<IntOrPercent>,
    pub max_unavailable: Option<IntOrPercent>,
    #[serde(deserialize_with = "selector")]
    pub selector: Selector,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BudgetStatus {
    pub observed_generation: i64,
    pub disrupted_pods: Option<BTreeMap<String, Time>>,
    pub disruptions_allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected_pods: i32,
    pub conditions: Option<Vec<BudgetCondition>>,
}

/// `metav1.Condition`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BudgetCondition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    pub reason: String,
    pub message: String,
    pub observed_generation: i64,
    pub last_transition_time: Option<Time>,
}

client::view_kind!(Budget, client::resources::POD_DISRUPTION_BUDGETS);

impl Budget {
    pub(super) fn selects(&self, pod: &Pod) -> bool {
        self.spec.selector.matches(&pod.metadata)
    }

    /// Whether its count needs the scale of what controls the pods.
    pub(super) fn needs_scale(&self) -> bool {
        let percent = |amount: &Option<IntOrPercent>| matches!(amount, Some(IntOrPercent::Percent(_)));
        self.spec.max_unavailable.is_some() || percent(&self.spec.min_available)
    }

    /// How many pods there should be, and how many of them healthy; `scale` is what their controllers ask for.
    pub(super) fn expects(&self, pods: usize, scale: i32) -> (i32, i32) {
        let pods = i32::try_from(pods).unwrap_or(i32::MAX);
        match (&self.spec.max_unavailable, &self.spec.min_available) {
            (Some(most), _) => (scale, scale.saturating_sub(most.of(scale, true)).max(0)),
            (None, Some(IntOrPercent::Int(least))) => (pods, *least),
            (None, Some(least)) => (scale, least.of(scale, true)),
            (None, None) => (0, 0),
        }
    }
}

/// The pods whose eviction was allowed and that are not deleted yet; those that should be by now; and how long until the
/// first one of the others should.
pub(super) struct Disrupted {
    pub awaited: BTreeMap<String, Time>,
    pub overdue: Vec<String>,
    pub next: Option<Duration>,
}

pub(super) fn disrupted(budget: &Budget, pods: &[impl AsRef<Pod>], now: Timestamp) -> Disrupted {
    let mut found = Disrupted {
        awaited: BTreeMap::new(),
        overdue: Vec::new(),
        next: None,
    };
    let Some(known) = &budget.status.disrupted_pods else {
        return found;
    };
    for pod in pods.iter().map(AsRef::as_ref) {
        let name = pod.metadata.name();
        let Some(since) = known.get(name).filter(|_| !pod.metadata.is_deleting()) else {
            continue;
        };
        let waited = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        match DELETION_TIMEOUT.checked_sub(waited) {
            None => found.overdue.push(name.to_owned()),
            Some(left) => {
                // At the very end of its time it still counts; a moment later it does not.
                let left = left + Duration::from_millis(1);
                found.next = Some(found.next.map_or(left, |next| next.min(left)));
                found.awaited.insert(name.to_owned(), since.clone());
            }
        }
    }
    found
}

/// How many pods are ready and expected to stay.
pub(super) fn healthy(pods: &[impl AsRef<Pod>], awaited: &BTreeMap<String, Time>) -> i32 {
    let stays = |pod: &&Pod| !pod.metadata.is_deleting() && !awaited.contains_key(pod.metadata.name()) && is_ready(pod);
    let count = pods.iter().map(AsRef::as_ref).filter(stays).count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn set_allowed(
    status: &mut BudgetStatus,
    (value, reason, message): (&str, &str, &str),
    generation: i64,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let index = conditions.iter().position(|condition| condition.kind == ALLOWED);
    let index = index.unwrap_or_else(|| {
        conditions.push(BudgetCondition {
            kind: ALLOWED.into(),
            ..BudgetCondition::default()
        });
        conditions.len() - 1
    });
    let condition = &mut conditions[index];
    if condition.status != value {
        condition.status = value.into();
        condition.last_transition_time = Some(Time(now));
    }
    condition.reason = reason.into();
    condition.message = message.into();
    condition.observed_generation = generation;
}

/// The status that a count comes to.
pub(super) fn counted(
    budget: &Budget,
    (expected, desired): (i32, i32),
    healthy: i32,
    awaited: BTreeMap<String, Time>,
    now: Timestamp,
) -> BudgetStatus {
    // A budget that selects nothing yet allows nothing: its first pods come before it is counted again.
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let generation = budget.metadata.generation.unwrap_or(0);
    let mut status = BudgetStatus {
        observed_generation: generation,
        disrupted_pods: (!awaited.is_empty()).then_some(awaited),
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        conditions: budget.status.conditions.clone(),
    };
    let told = match allowed > 0 {
        true => ("True", "SufficientPods", ""),
        false => ("False", "InsufficientPods", ""),
    };
    set_allowed(&mut status, told, generation, now);
    status
}

/// The status when it could not be counted: nothing is allowed.
pub(super) fn failed(budget: &Budget, why: &str, now: Timestamp) -> BudgetStatus {
    let mut status = budget.status.clone();
    status.disruptions_allowed = 0;
    let generation = status.observed_generation;
    set_allowed(&mut status, ("False", "SyncFailed", why), generation, now);
    status
}

/// A status as the API has it.
pub(super) fn status_value(status: &BudgetStatus) -> Value {
    let time = |time: &Time| Value::from(time_text(time.0));
    let conditions = status.conditions.iter().flatten().map(|condition| {
        let mut value = json!({
            "type": condition.kind, "status": condition.status, "reason": condition.reason, "message": condition.message,
            "lastTransitionTime": condition.last_transition_time.as_ref().map(time),
        });
        if condition.observed_generation != 0 {
            value["observedGeneration"] = condition.observed_generation.into();
        }
        value
    });
    let mut value = json!({
        "disruptionsAllowed": status.disruptions_allowed, "currentHealthy": status.current_healthy,
        "desiredHealthy": status.desired_healthy, "expectedPods": status.expected_pods,
        "observedGeneration": status.observed_generation, "conditions": conditions.collect::<Vec<_>>(),
    });
    for (pod, since) in status.disrupted_pods.iter().flatten() {
        value["disruptedPods"][pod] = time(since);
    }
    value
}

/// How long until a pod's word that it is disrupted is stale; zero when it is; `None` when it will not be. What the
/// kubelet says may take any time to come true.
pub(super) fn stale_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    if pod.metadata.is_deleting() || is_terminal(pod) {
        return None;
    }
    let told: &Condition = condition(&pod.status.conditions, TARGET)?;
    if told.status != "True" || told.reason == "TerminationByKubelet" {
        return None;
    }
    let since = told.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(STALE_AFTER.saturating_sub(waited))
}

/// A selector as upstream's messages write it.
pub(super) fn selector_text(selector: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expressions: String = expressions
        .map(|expression| {
            let values = expression["values"].as_array().into_iter().flatten();
            let values: Vec<String> = values.map(text).collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(&expression["key"]),
                text(&expression["operator"]),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(spec: Value, status: Value) -> Budget {
        let object =
            json!({"metadata": {"name": "b", "namespace": "n", "generation": 3}, "spec": spec, "status": status});
        Budget::deserialize(object).unwrap()
    }

    #[test]
    fn expectations_follow_the_amounts() {
        for (spec, pods, scale, expect) in [
            (json!({"minAvailable": 2}), 5, 0, (5, 2)),
            (json!({"minAvailable": "50%"}), 5, 5, (5, 3)),
            (json!({"maxUnavailable": 1}), 5, 7, (7, 6)),
            (json!({"maxUnavailable": 9}), 5, 7, (7, 0)),
            (json!({"maxUnavailable": "30%"}), 5, 10, (10, 7)),
            (json!({"maxUnavailable": "25%"}), 5, 10, (10, 7)),
            (json!({}), 5, 5, (0, 0)),
        ] {
            let found = budget(spec.clone(), json!({})).expects(pods, scale);
            assert_eq!(found, expect, "{spec}");
        }
    }

    fn pod(name: &str, ready: bool, deleting: bool) -> std::sync::Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let mut object =
            json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": status}]}});
        if deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        std::sync::Arc::new(Pod::deserialize(object).unwrap())
    }

    #[test]
    fn evicted_pods_count_as_gone_for_a_while() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let status = json!({"disruptedPods": {
            "late": "2026-01-01T00:07:59Z", "awaited": "2026-01-01T00:08:00Z", "new": "2026-01-01T00:09:00Z",
            "going": "2026-01-01T00:09:00Z", "gone": "2026-01-01T00:09:00Z",
        }});
        let budget = budget(json!({"minAvailable": 1}), status);
        let pods = [
            pod("late", true, false),
            pod("awaited", true, false),
            pod("new", true, false),
            pod("going", true, true),
            pod("other", true, false),
            pod("unready", false, false),
        ];
        let found = disrupted(&budget, &pods, now);
        assert_eq!(found.awaited.keys().collect::<Vec<_>>(), ["awaited", "new"]);
        assert_eq!(found.overdue, ["late"]);
        assert_eq!(found.next, Some(Duration::from_millis(1)));
        assert_eq!(healthy(&pods, &found.awaited), 2);
    }

    #[test]
    fn statuses_say_what_is_allowed() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let budget = budget(json!({"minAvailable": 1}), json!({}));
        for (expects, healthy, allowed, reason) in [
            ((3, 1), 3, 2, "SufficientPods"),
            ((3, 3), 3, 0, "InsufficientPods"),
            ((3, 3), 2, 0, "InsufficientPods"),
            ((0, 0), 1, 0, "InsufficientPods"),
        ] {
            let status = counted(&budget, expects, healthy, BTreeMap::new(), now);
            let condition = &status.conditions.as_ref().unwrap()[0];
            assert_eq!((status.disruptions_allowed, &*condition.reason), (allowed, reason));
            assert_eq!((status.observed_generation, condition.observed_generation), (3, 3));
        }
        let counted = counted(&budget, (3, 1), 3, BTreeMap::new(), now);
        let mut later = budget.clone();
        later.status = counted;
        let status = failed(&later, "no scale", now);
        assert_eq!(
            status_value(&status),
            json!({
                "disruptionsAllowed": 0, "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3,
                "observedGeneration": 3, "conditions": [{
                    "type": ALLOWED, "status": "False", "reason": "SyncFailed", "message": "no scale",
                    "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3,
                }],
            })
        );
    }

    #[test]
    fn words_about_disruptions_go_stale() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        for (status, reason, phase, since, expect) in [
            ("True", "EvictionByEvictionAPI", "Running", "00:09:00", Some(60)),
            ("True", "EvictionByEvictionAPI", "Running", "00:08:00", Some(0)),
            ("True", "EvictionByEvictionAPI", "Running", "00:01:00", Some(0)),
            ("True", "TerminationByKubelet", "Running", "00:01:00", None),
            ("True", "EvictionByEvictionAPI", "Failed", "00:01:00", None),
            ("False", "", "Running", "00:01:00", None),
        ] {
            let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase, "conditions": [
                {"type": TARGET, "status": status, "reason": reason, "lastTransitionTime": format!("2026-01-01T{since}Z")},
            ]}});
            let found = stale_in(&Pod::deserialize(&pod).unwrap(), now);
            assert_eq!(found, expect.map(Duration::from_secs), "{pod}");
        }
    }

    #[test]
    fn selectors_are_written_as_upstream_does() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]});
        assert_eq!(
            selector_text(&selector),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
