//! What the conditions and taints of a node should be. Pure.
//!
//! Source of the rules and texts: `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::HashMap;

use api::Value;
use client::Meta;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::Timestamp;
use serde_json::json;

use crate::context::time_text;
use crate::views::{Node, Taint, condition};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions a kubelet posts, and what a true one taints with.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that nobody knows when the kubelet is silent; the network's is posted by others.
const FROM_KUBELET: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// `True`, `False` or `Unknown`; a node that never said is unknown.
pub(super) fn readiness(node: &Node) -> &str {
    condition(&node.status.conditions, "Ready").map_or("Unknown", |ready| ready.status.as_str())
}

/// The conditions of a node whose kubelet is silent, where they differ from what they say.
pub(super) fn silent_conditions(node: &Node, now: Timestamp) -> Vec<Value> {
    let conditions = FROM_KUBELET
        .iter()
        .filter_map(|kind| match condition(&node.status.conditions, kind) {
            Some(known) if known.status == "Unknown" => None,
            Some(known) => {
                let mut value = json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.", "lastTransitionTime": time_text(now),
                });
                if let Some(at) = &known.last_heartbeat_time {
                    value["lastHeartbeatTime"] = time_text(at.0).into();
                }
                Some(value)
            }
            None => {
                let created = node.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
                Some(json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": time_text(created), "lastTransitionTime": time_text(now),
                }))
            }
        });
    conditions.collect()
}

/// Taints that keep new pods away, as the conditions ask for.
fn no_schedule(node: &Node) -> Vec<&'static str> {
    let mut keys = Vec::new();
    match condition(&node.status.conditions, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => keys.push(NOT_READY),
        Some("Unknown") => keys.push(UNREACHABLE),
        _ => {}
    }
    for (kind, key) in PRESSURES {
        if condition(&node.status.conditions, kind).is_some_and(|one| one.status == "True") {
            keys.push(key);
        }
    }
    if node.spec.unschedulable {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

/// The taint that makes pods leave; `None` when they may stay.
fn no_execute(node: &Node) -> Option<&'static str> {
    match condition(&node.status.conditions, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    }
}

/// What to do about a node's taints.
#[derive(Debug, PartialEq)]
pub(super) struct Taints {
    /// All taints, when they differ from those the node has.
    pub edit: Option<Vec<Taint>>,
    /// A taint that makes pods leave is missing, and may be added only when the zone's turn has come.
    pub waits_for_turn: bool,
}

/// Decides the taints. `evict`: pods may be made to leave at all (not when the whole cluster seems to be away: then it is
/// more likely that this process is); `turn`: one more node of the zone may lose its pods now.
pub(super) fn taints(node: &Node, evict: bool, turn: bool, now: Timestamp) -> Taints {
    let schedule = no_schedule(node);
    let managed_schedule: Vec<&str> = PRESSURES
        .iter()
        .map(|(_, key)| *key)
        .chain([NOT_READY, UNREACHABLE, UNSCHEDULABLE])
        .collect();
    let wanted = no_execute(node).filter(|_| evict);
    let has_either = node
        .spec
        .taints
        .iter()
        .any(|one| one.effect == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&one.key.as_str()));
    // From one to the other no turn is needed: the pods are leaving already.
    let granted = wanted.filter(|_| turn || has_either);
    let keep = |taint: &&Taint| match taint.effect.as_str() {
        "NoSchedule" if managed_schedule.contains(&taint.key.as_str()) => schedule.contains(&taint.key.as_str()),
        "NoExecute" if [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()) => granted == Some(taint.key.as_str()),
        _ => true,
    };
    let mut all: Vec<Taint> = node.spec.taints.iter().filter(keep).cloned().collect();
    let added = schedule
        .into_iter()
        .map(|key| (key, "NoSchedule"))
        .chain(granted.map(|key| (key, "NoExecute")));
    for (key, effect) in added {
        if !all.iter().any(|one| one.key == key && one.effect == effect) {
            let time_added = Some(Time(now));
            all.push(Taint {
                key: key.into(),
                value: String::new(),
                effect: effect.into(),
                time_added,
            });
        }
    }
    Taints {
        edit: (all != node.spec.taints).then_some(all),
        waits_for_turn: wanted.is_some() && granted.is_none(),
    }
}

/// Taints as they are written.
pub(super) fn taints_edit(node: &Node, taints: &[Taint]) -> Value {
    let values = taints.iter().map(|taint| {
        let mut value = json!({"key": taint.key, "effect": taint.effect});
        if !taint.value.is_empty() {
            value["value"] = taint.value.as_str().into();
        }
        if let Some(at) = &taint.time_added {
            value["timeAdded"] = time_text(at.0).into();
        }
        value
    });
    let values: Value = if taints.is_empty() {
        Value::Null
    } else {
        values.collect()
    };
    json!({
        "metadata": {"uid": node.metadata.uid(), "resourceVersion": node.metadata.resource_version()},
        "spec": {"taints": values},
    })
}

/// The state of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    /// More than half of its nodes are away.
    Partial,
    /// All of them are.
    Full,
}

/// A zone with so many nodes is large: it goes on evicting, slowly, when most of it is away.
const LARGE_ZONE: usize = 50;
/// Seconds between two nodes that lose their pods. Source: `--node-eviction-rate` 0.1/s.
const SECONDS_A_NODE: u64 = 10;
/// The same in a large zone that is mostly away. Source: `--secondary-node-eviction-rate` 0.01/s.
const SECONDS_A_NODE_SLOW: u64 = 100;
/// Source: `--unhealthy-zone-threshold`.
const UNHEALTHY_SHARE: f64 = 0.55;

/// Which nodes are ready, by zone.
#[derive(Debug, Default)]
pub(super) struct Zones {
    nodes: HashMap<String, (String, bool)>,
}

impl Zones {
    /// Notes a node; true when the state of a zone changed by it.
    pub(super) fn note(&mut self, node: &Node) -> bool {
        let before = self.states();
        let entry = (zone_of(node), readiness(node) == "True");
        self.nodes.insert(node.metadata.name().to_string(), entry);
        before != self.states()
    }

    /// Forgets a node; true when the state of a zone changed by it.
    pub(super) fn forget(&mut self, name: &str) -> bool {
        let before = self.states();
        self.nodes.remove(name);
        before != self.states()
    }

    fn states(&self) -> HashMap<String, ZoneState> {
        let mut counts: HashMap<&str, (usize, usize)> = HashMap::new();
        for (zone, ready) in self.nodes.values() {
            let (up, down) = counts.entry(zone).or_default();
            if *ready { *up += 1 } else { *down += 1 }
        }
        counts
            .into_iter()
            .map(|(zone, (up, down))| (zone.to_string(), zone_state(up, down)))
            .collect()
    }

    /// Whether pods may be made to leave nodes at all.
    pub(super) fn may_evict(&self) -> bool {
        self.states().values().any(|state| *state != ZoneState::Full)
    }

    /// Seconds between two nodes of the zone; `None`: no more nodes for now.
    pub(super) fn seconds_a_node(&self, zone: &str) -> Option<u64> {
        let size = self.nodes.values().filter(|(other, _)| other == zone).count();
        match self.states().get(zone) {
            Some(ZoneState::Partial) if size <= LARGE_ZONE => None,
            Some(ZoneState::Partial) => Some(SECONDS_A_NODE_SLOW),
            _ => Some(SECONDS_A_NODE),
        }
    }
}

fn zone_state(ready: usize, away: usize) -> ZoneState {
    let share = away as f64 / (ready + away).max(1) as f64;
    match (ready, away) {
        (0, 1..) => ZoneState::Full,
        (_, 3..) if share >= UNHEALTHY_SHARE => ZoneState::Partial,
        _ => ZoneState::Normal,
    }
}

/// Region and zone, as the node's labels say.
pub(super) fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.metadata.label(key).unwrap_or("").to_string();
    format!(
        "{}:{}",
        label("topology.kubernetes.io/region"),
        label("topology.kubernetes.io/zone")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: Value, taints: Value, unschedulable: bool) -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"taints": taints, "unschedulable": unschedulable}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    /// The taints afterwards as `key:effect` without their common prefix; `-` for no change.
    fn check(ready: &str, taints_now: &[&str], evict: bool, turn: bool, expect: &str, waits: bool) {
        let taints_now: Vec<Value> = taints_now
            .iter()
            .map(|text| {
                let (key, effect) = text.split_once(':').unwrap();
                json!({"key": format!("node.kubernetes.io/{key}"), "effect": effect})
            })
            .collect();
        let conditions = if ready.is_empty() {
            json!([])
        } else {
            json!([{"type": "Ready", "status": ready}])
        };
        let node = node(conditions, json!(taints_now), false);
        let got = taints(&node, evict, turn, "2026-01-01T00:00:00Z".parse().unwrap());
        let text = match &got.edit {
            None => "-".to_string(),
            Some(taints) => {
                let short = |taint: &Taint| {
                    format!(
                        "{}:{}",
                        taint.key.trim_start_matches("node.kubernetes.io/"),
                        taint.effect
                    )
                };
                taints.iter().map(short).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(
            (text.as_str(), got.waits_for_turn),
            (expect, waits),
            "{ready} {taints_now:?} {evict} {turn}"
        );
    }

    #[test]
    fn taints_follow_conditions() {
        check("True", &[], true, true, "-", false);
        check("", &["not-ready:NoSchedule"], true, true, "", false);
        check(
            "True",
            &["not-ready:NoSchedule", "unreachable:NoExecute", "custom:NoExecute"],
            true,
            true,
            "custom:NoExecute",
            false,
        );
        check(
            "False",
            &[],
            true,
            true,
            "not-ready:NoSchedule not-ready:NoExecute",
            false,
        );
        check("False", &[], true, false, "not-ready:NoSchedule", true);
        check("False", &["not-ready:NoSchedule"], false, false, "-", false);
        check(
            "Unknown",
            &["not-ready:NoSchedule", "not-ready:NoExecute"],
            true,
            false,
            "unreachable:NoSchedule unreachable:NoExecute",
            false,
        );
        check(
            "Unknown",
            &["unreachable:NoSchedule", "unreachable:NoExecute"],
            false,
            false,
            "unreachable:NoSchedule",
            false,
        );
    }

    #[test]
    fn pressure_and_cordon() {
        let conditions = json!([{"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "True"},
            {"type": "DiskPressure", "status": "False"}]);
        let got = taints(&node(conditions, json!([]), true), true, true, Timestamp::UNIX_EPOCH)
            .edit
            .unwrap();
        let keys: Vec<&str> = got.iter().map(|taint| taint.key.as_str()).collect();
        assert_eq!(
            keys,
            ["node.kubernetes.io/memory-pressure", "node.kubernetes.io/unschedulable"]
        );
    }

    #[test]
    fn zones() {
        for (ready, away, expect) in [
            (1, 0, ZoneState::Normal),
            (0, 1, ZoneState::Full),
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::Partial),
            (3, 3, ZoneState::Normal),
            (0, 0, ZoneState::Normal),
        ] {
            assert_eq!(zone_state(ready, away), expect, "{ready} {away}");
        }
    }

    #[test]
    fn a_silent_kubelet_is_told_once() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let fresh = node(json!([]), json!([]), false);
        let told = silent_conditions(&fresh, now);
        assert_eq!(told.len(), 4);
        assert_eq!(told[0]["reason"], "NodeStatusNeverUpdated");
        assert_eq!(told[0]["lastHeartbeatTime"], "2026-01-01T00:00:00Z");
        let known = node(
            json!([{"type": "Ready", "status": "True"}, {"type": "PIDPressure", "status": "Unknown"}]),
            json!([]),
            false,
        );
        let told = silent_conditions(&known, now);
        assert_eq!((told.len(), &told[0]["reason"]), (3, &json!("NodeStatusUnknown")));
        assert!(
            silent_conditions(&node(json!(told), json!([]), false), now)
                .iter()
                .all(|one| one["type"] == "PIDPressure")
        );
    }
}
