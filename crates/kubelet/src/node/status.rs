//! The node's status: what there is, and whether it is ready.
//!
//! Source of reasons and messages: `pkg/kubelet/nodestatus/setters.go`.

use std::collections::BTreeMap;
use std::time::Duration;

use api::quantity::{Format, Quantity};
use base::Shutdown;
use client::resources;
use serde_json::{Value, json};

use super::{Images, NodeKeeper, facts};
use crate::cri::Abilities;
use crate::status::time;

/// A status that did not change is written again after this long, so that its heartbeat times say something.
/// Source: upstream's `nodeStatusReportFrequency`.
const REPORT_EVERY: Duration = Duration::from_secs(5 * 60);
/// A status that was not written is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);
/// For how long a node that starts says nothing rather than that it is not ready. A kubelet that is started again would
/// otherwise take its pods out of their Services for the moment that it needs, though they never stopped.
/// Upstream likewise hurries the first Ready (`fastNodeStatusUpdate`).
const START_LIMIT: Duration = Duration::from_secs(10);

/// What this kubelet does of what not all kubelets of a cluster may do, in order.
/// Source: `k8s.io/component-helpers/nodedeclaredfeatures`.
const DECLARED_FEATURES: [&str; 3] = [
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];

/// What the runtime can do, for each kind of pods and for all.
fn of_runtime(abilities: &Abilities) -> (Value, Value) {
    let handlers = abilities.handlers.iter().map(|handler| {
        let features = handler.features.unwrap_or_default();
        json!({"name": handler.name, "features": {
            "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
            "userNamespaces": features.user_namespaces,
        }})
    });
    let groups = abilities.features.supplemental_groups_policy;
    (handlers.collect(), json!({"supplementalGroupsPolicy": groups}))
}

/// Bytes as a quantity.
fn binary(bytes: i64) -> Value {
    json!(Quantity::new(bytes, Format::BinarySi).to_string())
}

impl NodeKeeper {
    /// Writes the status when it changes, and now and then when it does not.
    pub(super) async fn keep_status(&self, mut images: Images, shutdown: Shutdown) {
        let mut ready = self.ready.clone();
        let mut transitions = Transitions::default();
        if let Some(node) = shutdown.until(self.read()).await {
            transitions = Transitions::of(&node);
        }
        // A node that is not ready in time says so below.
        let _ = shutdown
            .until(tokio::time::timeout(START_LIMIT, ready.wait_for(Result::is_ok)))
            .await
            .map(|r| r.is_ok());
        loop {
            ready.mark_unchanged();
            images.changes.mark_unchanged();
            let before = transitions.clone();
            let mut status = self.status(&mut transitions);
            if let Some(told) = images.told().await {
                status["images"] = told;
            }
            if let Ok(abilities) = images.cri.abilities().await {
                (status["runtimeHandlers"], status["features"]) = of_runtime(&abilities);
            }
            let patch = json!({"status": status});
            let name = &self.config.name;
            let written = self.client.patch_status(&resources::NODES, "", name, &patch).await;
            let wait = match written {
                Ok(_) => {
                    for reason in transitions.news(&before) {
                        let text = format!("Node {name} status is now: {reason}");
                        self.recorder.normal(self.reference(), reason, text);
                    }
                    REPORT_EVERY
                }
                Err(error) if error.is_not_found() => {
                    // Somebody deleted the node while its kubelet lives: it comes back, as upstream's does.
                    if let Err(error) = self.register().await {
                        tracing::warn!(%error, "the node was not registered again");
                    }
                    RETRY
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's status was not written");
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = ready.changed() => if changed.is_err() {
                    return;
                },
                Ok(()) = images.changes.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The node as the API has it; an empty object if it has none.
    async fn read(&self) -> Value {
        loop {
            let read = self.client.get_in(&resources::NODES, "", &self.config.name).await;
            match read {
                Ok(node) => return node,
                Err(error) if error.is_not_found() => return json!({}),
                Err(error) => tracing::warn!(%error, "the node's status was not read"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// The whole status.
    pub(super) fn status(&self, transitions: &mut Transitions) -> Value {
        let (config, facts) = (&self.config, &self.config.facts);
        let amounts = json!({
            "cpu": facts.cpus.to_string(), "memory": format!("{}Ki", facts.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", facts.disk_bytes / 1024), "pods": config.pods_max.to_string(),
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        });
        let mut allocatable = amounts.clone();
        allocatable["memory"] = binary(facts.memory_allocatable_bytes());
        allocatable["ephemeral-storage"] = binary(facts.disk_allocatable_bytes());
        json!({
            "capacity": amounts,
            "allocatable": allocatable,
            "addresses": [
                {"type": "InternalIP", "address": config.address},
                {"type": "Hostname", "address": config.name},
            ],
            "declaredFeatures": DECLARED_FEATURES,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
            "conditions": self.conditions(transitions),
            "nodeInfo": {
                "machineID": facts.machine_id, "systemUUID": facts.system_uuid, "bootID": facts.boot_id,
                "kernelVersion": facts.kernel_version, "osImage": facts.os_image,
                "containerRuntimeVersion": config.runtime_version, "kubeletVersion": config.kubelet_version,
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": facts::architecture(),
            },
        })
    }

    fn conditions(&self, transitions: &mut Transitions) -> Value {
        let now = time(self.clock.now());
        let (ready, reason, message) = match &*self.ready.borrow() {
            Ok(()) => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
            Err(why) => ("False", "KubeletNotReady", why.clone()),
        };
        // The pressures never change in this version.
        let fine = |kind, reason, message: &str| (kind, "False", reason, message.to_owned());
        let all = [
            fine(
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            fine(
                "DiskPressure",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ),
            fine(
                "PIDPressure",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
            ("Ready", ready, reason, message),
        ];
        let conditions = all.into_iter().map(|(kind, status, reason, message)| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": message, "lastHeartbeatTime": now,
                "lastTransitionTime": transitions.since(kind, status, &now),
            })
        });
        conditions.collect()
    }
}

/// When each condition took its present state. What the API says of it counts: a kubelet that was started again tells of no
/// change that was none. Source: `nodestatus/setters.go` (`currentReadyCondition`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Transitions(BTreeMap<String, (String, String)>);

// === impl Transitions ===

impl Transitions {
    /// The reasons of the events that tell what changed since then. Source: `setters.go` (`recordEventFunc`).
    fn news(&self, before: &Transitions) -> Vec<&'static str> {
        let changed = self.0.iter().filter(|(kind, (state, _))| {
            let old = before.0.get(*kind).map(|(state, _)| state);
            old != Some(state)
        });
        let reason = |(kind, (state, _)): (&String, &(String, String))| match (kind.as_str(), state.as_str()) {
            ("Ready", "True") => Some("NodeReady"),
            ("Ready", _) => Some("NodeNotReady"),
            ("MemoryPressure", "False") => Some("NodeHasSufficientMemory"),
            ("DiskPressure", "False") => Some("NodeHasNoDiskPressure"),
            ("PIDPressure", "False") => Some("NodeHasSufficientPID"),
            _ => None,
        };
        changed.filter_map(reason).collect()
    }

    fn of(node: &Value) -> Transitions {
        let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let parts = conditions.filter_map(|condition| {
            let state = (text(&condition["status"])?, text(&condition["lastTransitionTime"])?);
            Some((text(&condition["type"])?, state))
        });
        Transitions(parts.collect())
    }

    /// Since when the condition is as it is now.
    fn since(&mut self, kind: &str, status: &str, now: &str) -> String {
        let known = self.0.get(kind).filter(|(was, _)| was == status);
        let since = known.map_or_else(|| now.to_owned(), |(_, since)| since.clone());
        self.0.insert(kind.to_owned(), (status.to_owned(), since.clone()));
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_stays_keeps_its_time() {
        let node = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "yesterday"},
            {"type": "DiskPressure", "status": "Unknown", "lastTransitionTime": "yesterday"},
        ]}});
        let mut transitions = Transitions::of(&node);
        for (kind, status, now, expect) in [
            ("Ready", "True", "today", "yesterday"),
            ("Ready", "False", "noon", "noon"),
            ("Ready", "False", "evening", "noon"),
            ("DiskPressure", "False", "today", "today"),
            ("PIDPressure", "False", "today", "today"),
        ] {
            assert_eq!(transitions.since(kind, status, now), expect, "{kind} {status}");
        }
    }

    #[test]
    fn changes_are_told_once() {
        let at = |ready: &str| {
            Transitions(
                [("Ready", ready), ("PIDPressure", "False")]
                    .map(|(kind, state)| (kind.to_owned(), (state.to_owned(), "now".to_owned())))
                    .into(),
            )
        };
        for (before, after, expect) in [
            (
                Transitions::default(),
                at("True"),
                &["NodeHasSufficientPID", "NodeReady"][..],
            ),
            (at("True"), at("True"), &[]),
            (at("True"), at("False"), &["NodeNotReady"]),
        ] {
            assert_eq!(after.news(&before), expect, "{before:?} {after:?}");
        }
    }
}
