//! Pods that the node itself ends for good: past their deadline, or using more of the disk than they may.
//!
//! Invariant: a verdict stands for ever. A kubelet that is started again finds it in the pod's status.

use std::collections::BTreeMap;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::worker::{Worker, grace_seconds};
use super::{full_name, reference};
use crate::config::{identity, log_directory};
use crate::cri::LABEL_CONTAINER_NAME;
use crate::observed::{Observed, Run};
use crate::plan::Facts;
use crate::storage::{self, Usage};

/// Between two looks at what a pod with limits has on disk: the kernel tells nobody of it.
/// Source: upstream's `evictionMonitoringPeriod`.
const STORAGE_CHECK_EVERY: Duration = Duration::from_secs(10);
/// What is over is asked for again after this long when the runtime did not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The grace of pods that the node cannot bear any longer. Source: `immediateEvictionGracePeriodSeconds`.
const EVICTION_GRACE_SECONDS: i64 = 1;
/// The reason of a pod that used too much.
const EVICTED: &str = "Evicted";
/// The reason and message of a pod past its deadline. Source: `pkg/kubelet/active_deadline.go`.
const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
const DEADLINE_MESSAGE: &str = "Pod was active on the node longer than the specified deadline";

/// Why a pod is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) reason: String,
    pub(super) message: String,
}

// === impl Verdict ===

impl Verdict {
    /// What an earlier kubelet said of a pod.
    pub(super) fn of_status(pod: &Pod) -> Option<Verdict> {
        let status = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Failed"))?;
        let reason = status.reason.clone()?;
        matches!(&*reason, EVICTED | DEADLINE_EXCEEDED).then(|| Verdict {
            reason,
            message: status.message.clone().unwrap_or_default(),
        })
    }

    fn grace_seconds(&self, pod: &Pod) -> i64 {
        match &*self.reason {
            EVICTED => EVICTION_GRACE_SECONDS,
            _ => grace_seconds(pod),
        }
    }
}

impl Worker {
    /// Looks whether the pod is over by the node's own will. Answers when to look again.
    pub(super) async fn judge(&mut self, observed: &Observed) -> Option<Instant> {
        if self.verdict.is_some() {
            return None;
        }
        let deadline = self.deadline();
        if deadline.is_some_and(|at| at <= Instant::now()) {
            let recorder = &self.shared.recorder;
            recorder.normal(reference(&self.pod), DEADLINE_EXCEEDED, DEADLINE_MESSAGE);
            self.verdict = Some(Verdict {
                reason: DEADLINE_EXCEEDED.into(),
                message: DEADLINE_MESSAGE.into(),
            });
            return None;
        }
        let check = self.check_storage(observed).await;
        [deadline, check].into_iter().flatten().min()
    }

    /// When the pod's `activeDeadlineSeconds` are over, counted from what its status tells.
    fn deadline(&self) -> Option<Instant> {
        let seconds = self.pod.spec.as_ref()?.active_deadline_seconds?;
        let started = self.pod.status.as_ref()?.start_time.as_ref()?.0;
        let ago = self.shared.clock.now().duration_since(started);
        let ago = Duration::try_from(ago).unwrap_or_default();
        let allowed = Duration::from_secs(seconds.max(0).unsigned_abs());
        Some(Instant::now() + allowed.saturating_sub(ago))
    }

    async fn check_storage(&mut self, observed: &Observed) -> Option<Instant> {
        if !storage::is_limited(&self.pod) || !observed.is_running() {
            return None;
        }
        let now = Instant::now();
        if let Some(next) = self.next_storage_check.filter(|next| *next > now) {
            return Some(next);
        }
        match self.usage().await {
            Ok(usage) => {
                if let Some(message) = storage::verdict(&self.pod, &usage) {
                    let recorder = &self.shared.recorder;
                    recorder.warning(reference(&self.pod), EVICTED, message.clone());
                    self.verdict = Some(Verdict {
                        reason: EVICTED.into(),
                        message,
                    });
                    return None;
                }
            }
            Err(error) => tracing::warn!(pod = %full_name(&self.pod), %error, "the pod's use of the disk is not known"),
        }
        let next = now + STORAGE_CHECK_EVERY;
        self.next_storage_check = Some(next);
        Some(next)
    }

    /// What the pod has on disk now.
    async fn usage(&self) -> crate::cri::Result<Usage> {
        let stats = self.shared.cri.stats_of_pod(identity(&self.pod).2).await?;
        let mut containers: BTreeMap<String, u64> = BTreeMap::new();
        for stat in &stats {
            let labels = stat.attributes.as_ref().map(|attributes| &attributes.labels);
            let Some(name) = labels.and_then(|labels| labels.get(LABEL_CONTAINER_NAME)) else {
                continue;
            };
            let layer = stat.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref());
            *containers.entry(name.clone()).or_default() += layer.map_or(0, |bytes| bytes.value);
        }
        let volumes = self.volumes.clone().unwrap_or_default();
        let empty_dirs = self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let empty_dirs: Vec<_> = empty_dirs
            .filter(|volume| volume.empty_dir.is_some())
            .filter_map(|volume| Some((volume.name.clone(), volumes.volumes.get(&volume.name)?.path.clone())))
            .collect();
        let logs = log_directory(&self.pod, &self.shared.node);
        let measured = tokio::task::spawn_blocking(move || {
            for (name, bytes) in &mut containers {
                *bytes += sys::disk::usage(&logs.join(name)).0;
            }
            let sizes = empty_dirs
                .into_iter()
                .map(|(name, path)| (name, sys::disk::usage(&path).0));
            Usage {
                empty_dirs: sizes.collect(),
                containers,
            }
        });
        Ok(measured.await.unwrap_or_default())
    }

    /// Ends what runs of a pod that is over, gives its disk back, and tells why.
    pub(super) async fn carry_out(&mut self, verdict: &Verdict, observed: &Observed) -> Option<Instant> {
        self.probes.keep(&[]);
        self.work.abort_all();
        self.busy.clear();
        let running: Vec<Run> = observed.all_runs().filter(|run| run.is_running()).cloned().collect();
        if !running.is_empty() {
            self.tell_stopping(&running);
            self.end_runs(observed, &running, verdict.grace_seconds(&self.pod))
                .await;
        }
        let pod = self.pod.clone();
        let (_, _, uid) = identity(&pod);
        let observed = match self.stop_sandboxes(uid).await {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(pod = %full_name(&self.pod), %error, "the pod is not ended yet");
                return Some(Instant::now() + RETRY);
            }
        };
        self.read_last_words(&observed);
        if self.asked_volumes || self.volumes.is_some() {
            if let Err(error) = self.shared.volumes.teardown(uid).await {
                tracing::warn!(pod = %full_name(&self.pod), %error, "the pod's volumes are not removed yet");
                return Some(Instant::now() + RETRY);
            }
            (self.volumes, self.asked_volumes) = (None, false);
        }
        self.write_status(&observed, &Facts::default(), true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_verdict_outlives_the_kubelet() {
        let check = |status: Value, expect: Option<i64>| {
            let spec = json!({"containers": [], "terminationGracePeriodSeconds": 7});
            let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": status})).unwrap();
            let verdict = Verdict::of_status(&pod);
            assert_eq!(verdict.map(|verdict| verdict.grace_seconds(&pod)), expect, "{status}");
        };
        check(json!({"phase": "Failed", "reason": "Evicted", "message": "m"}), Some(1));
        check(json!({"phase": "Failed", "reason": "DeadlineExceeded"}), Some(7));
        check(json!({"phase": "Running", "reason": "Evicted"}), None);
        check(json!({"phase": "Failed", "reason": "Other"}), None);
        check(json!({"phase": "Failed"}), None);
    }
}
