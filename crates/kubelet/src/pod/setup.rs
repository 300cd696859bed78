//! What a pod needs before its containers: its volumes and its sandbox, tried again with growing pauses.

use std::sync::Arc;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Pod, ProjectedVolumeSource};
use tokio::time::Instant;

use super::kill::Ending;
use super::worker::Worker;
use super::{full_name, reference};
use crate::config;
use crate::observed::Observed;
use crate::volumes::PodVolumes;

/// Volumes and sandboxes that failed are tried again after this long, doubled up to the maximum.
const SETUP_RETRY: Duration = Duration::from_millis(500);
const SETUP_RETRY_MAX: Duration = Duration::from_secs(122);
/// What every namespace has for the tokens of its pods.
const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";

impl Worker {
    pub(super) async fn make_sandbox(&mut self, attempt: u32, observed: &Observed) -> Option<Instant> {
        if let Some((at, _)) = self.setup_retry
            && Instant::now() < at
        {
            return Some(at);
        }
        let claims = self.pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
        if claims.is_some_and(|claims| !claims.is_empty()) {
            // The scheduler sends none here, but somebody may.
            let text = "Failed to prepare dynamic resources: this node has no drivers for resource claims";
            let recorder = &self.shared.recorder;
            recorder.warning(reference(&self.pod), "FailedPrepareDynamicResources", text);
            return Some(self.retry_setup());
        }
        let early = volumes_can_wait(&self.pod);
        if !early {
            self.prepare().await.as_ref()?;
        }
        for run in observed.all_runs().filter(|run| !run.is_over()) {
            let ending = Ending {
                container: None,
                run: &run.id,
                address: None,
                grace_seconds: 0,
            };
            ending.kill(&self.shared, &self.pod).await;
        }
        for old in &observed.sandboxes {
            if let Err(error) = self.shared.cri.stop_sandbox(&old.id).await {
                tracing::warn!(pod = %full_name(&self.pod), %error, "an old sandbox was not ended");
            }
        }
        if attempt > 0 {
            self.shared.recorder.normal(
                reference(&self.pod),
                "SandboxChanged",
                "Pod sandbox changed, it will be killed and re-created.",
            );
        }
        for warning in config::dns_warnings(&self.pod, &self.shared.node) {
            self.shared
                .recorder
                .warning(reference(&self.pod), "DNSConfigForming", warning);
        }
        if let Err(why) = config::hostname(&self.pod, &self.shared.node) {
            let text = format!("Failed to create pod sandbox: {why}");
            let recorder = &self.shared.recorder;
            recorder.warning(reference(&self.pod), "FailedCreatePodSandBox", text);
            return Some(self.retry_setup());
        }
        let config = config::sandbox(&self.pod, attempt, &self.shared.node);
        let shared = self.shared.clone();
        let handler = "";
        let sandbox = shared.cri.run_sandbox(config, handler);
        let made = if early {
            // Neither needs the other, and both take their time.
            tokio::join!(sandbox, self.prepare()).0
        } else {
            sandbox.await
        };
        match made {
            Ok(_) => {
                if self.volumes.is_some() {
                    self.setup_retry = None;
                }
                Some(Instant::now())
            }
            Err(error) => {
                let text = format!("Failed to create pod sandbox: {error}");
                self.shared
                    .recorder
                    .warning(reference(&self.pod), "FailedCreatePodSandBox", text);
                Some(self.retry_setup())
            }
        }
    }

    fn retry_setup(&mut self) -> Instant {
        let delay = self
            .setup_retry
            .map_or(SETUP_RETRY, |(_, delay)| (delay * 2).min(SETUP_RETRY_MAX));
        let at = Instant::now() + delay;
        self.setup_retry = Some((at, delay));
        at
    }

    /// The pod's volumes, made when they are not.
    pub(super) async fn prepare(&mut self) -> Option<Arc<PodVolumes>> {
        if let Some(volumes) = &self.volumes {
            return Some(volumes.clone());
        }
        if self.setup_retry.is_some_and(|(at, _)| Instant::now() < at) {
            return None;
        }
        self.asked_volumes = true;
        match self.shared.volumes.prepare(&self.pod).await {
            Ok(volumes) => {
                self.tell_warnings(&volumes);
                let volumes = Arc::new(volumes);
                self.volumes = Some(volumes.clone());
                self.setup_retry = None;
                Some(volumes)
            }
            Err(error) => {
                self.shared
                    .recorder
                    .warning(reference(&self.pod), error.reason(), error.to_string());
                self.retry_setup();
                None
            }
        }
    }

    /// What a volume shows changed: show it anew.
    pub(super) async fn refresh(&mut self) {
        // Something that was missing may be there now: no need to wait for the retry.
        self.setup_retry = None;
        if self.volumes.is_none() {
            return;
        }
        match self.shared.volumes.prepare(&self.pod).await {
            Ok(volumes) => {
                self.tell_warnings(&volumes);
                self.volumes = Some(Arc::new(volumes));
            }
            Err(error) => {
                self.shared
                    .recorder
                    .warning(reference(&self.pod), error.reason(), error.to_string());
            }
        }
    }

    fn tell_warnings(&self, volumes: &PodVolumes) {
        for warning in &volumes.warnings {
            self.shared
                .recorder
                .warning(reference(&self.pod), warning.reason(), warning.to_string());
        }
    }
}

/// Whether the pod's volumes are all of sorts that are made from what is there: then the sandbox need not wait to see that
/// they can be. Otherwise a pod whose ConfigMap is missing would have a sandbox, and say so in its conditions.
fn volumes_can_wait(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let named = |projected: &ProjectedVolumeSource| {
        let mut sources = projected.sources.iter().flatten();
        sources.any(|source| {
            let config_map = source.config_map.as_ref().filter(|map| map.name != ROOT_CA_CONFIG_MAP);
            config_map.is_some_and(|map| map.optional != Some(true))
                || source
                    .secret
                    .as_ref()
                    .is_some_and(|secret| secret.optional != Some(true))
        })
    };
    volumes.into_iter().all(|volume| {
        volume.empty_dir.is_some()
            || volume.downward_api.is_some()
            || volume.projected.as_ref().is_some_and(|projected| !named(projected))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_sandbox_waits_for_volumes_that_may_be_missing() {
        let token = json!({"serviceAccountToken": {"path": "token"}});
        let map = |name: &str, optional: bool| json!({"configMap": {"name": name, "optional": optional}});
        let check = |volumes: Value, expect: bool| {
            let spec = json!({"containers": [], "volumes": volumes});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(volumes_can_wait(&pod), expect, "{volumes}");
        };
        check(json!([]), true);
        let usual = json!({"name": "t", "projected": {"sources": [token, map("kube-root-ca.crt", false)]}});
        check(
            json!([usual, {"name": "e", "emptyDir": {}}, {"name": "d", "downwardAPI": {}}]),
            true,
        );
        check(
            json!([{"name": "p", "projected": {"sources": [token, map("mine", false)]}}]),
            false,
        );
        check(
            json!([{"name": "p", "projected": {"sources": [map("mine", true)]}}]),
            true,
        );
        check(json!([usual, {"name": "s", "secret": {"secretName": "s"}}]), false);
        check(json!([{"name": "c", "configMap": {"name": "c"}}]), false);
        check(
            json!([{"name": "h", "hostPath": {"path": "/none", "type": "File"}}]),
            false,
        );
    }
}
