//! The node's status: what there is, and whether it is ready.
//!
//! Source of reasons and messages: `pkg/kubelet/nodestatus/setters.go`.

use std::time::Duration;

use base::Shutdown;
use client::{Patch, resources};
use serde_json::{Value, json};

use super::{NodeKeeper, facts};
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

impl NodeKeeper {
    /// Writes the status when it changes, and now and then when it does not.
    pub(super) async fn keep_status(&self, shutdown: Shutdown) {
        let mut ready = self.ready.clone();
        let mut since: Option<(bool, String)> = None;
        // A node that is not ready in time says so below.
        let _ = shutdown
            .until(tokio::time::timeout(START_LIMIT, ready.wait_for(Result::is_ok)))
            .await
            .map(|r| r.is_ok());
        loop {
            ready.mark_unchanged();
            let now = ready.borrow().is_ok();
            if since.as_ref().is_none_or(|(was, _)| *was != now) {
                since = Some((now, time(self.clock.now())));
            }
            let patch = json!({"status": self.status(since.as_ref().map(|(_, since)| since.as_str()))});
            let name = &self.config.name;
            let written = self
                .client
                .patch(&resources::NODES, "", name, Some("status"), &Patch::Strategic, &patch)
                .await;
            let wait = match written {
                Ok(_) => REPORT_EVERY,
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
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// The whole status; `since`: when the condition Ready took its present state.
    pub(super) fn status(&self, since: Option<&str>) -> Value {
        let (config, facts) = (&self.config, &self.config.facts);
        let amounts = json!({
            "cpu": facts.cpus.to_string(), "memory": format!("{}Ki", facts.memory_bytes / 1024),
            "ephemeral-storage": format!("{}Ki", facts.disk_bytes / 1024), "pods": config.pods_max.to_string(),
            "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        });
        json!({
            "capacity": amounts,
            "allocatable": amounts,
            "addresses": [
                {"type": "InternalIP", "address": config.address},
                {"type": "Hostname", "address": config.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
            "conditions": self.conditions(since),
            "nodeInfo": {
                "machineID": facts.machine_id, "systemUUID": facts.system_uuid, "bootID": facts.boot_id,
                "kernelVersion": facts.kernel_version, "osImage": facts.os_image,
                "containerRuntimeVersion": config.runtime_version, "kubeletVersion": config.kubelet_version,
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": facts::architecture(),
            },
        })
    }

    fn conditions(&self, since: Option<&str>) -> Value {
        let now = time(self.clock.now());
        let since = since.unwrap_or(&now);
        let fine = |kind: &str, reason: &str, message: &str| {
            json!({
                "type": kind, "status": "False", "reason": reason, "message": message, "lastHeartbeatTime": now,
                // The pressures never change in this version.
                "lastTransitionTime": self.started,
            })
        };
        let ready = match &*self.ready.borrow() {
            Ok(()) => ("True", "KubeletReady", "kubelet is posting ready status".to_owned()),
            Err(why) => ("False", "KubeletNotReady", why.clone()),
        };
        let mut list = vec![
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
        ];
        list.push(json!({
            "type": "Ready", "status": ready.0, "reason": ready.1, "message": ready.2, "lastHeartbeatTime": now,
            "lastTransitionTime": since,
        }));
        Value::Array(list)
    }
}
