//! Giving a pod's containers what its definition asks for, while they run.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use rpc::cri::LinuxContainerResources;
use tokio::time::Instant;

use super::worker::{START_RETRY, Worker};
use super::{full_name, reference};
use crate::config::{self, identity};
use crate::cri::LABEL_CONTAINER_NAME;
use crate::observed::{Observed, Run};
use crate::plan::{Condemned, defined};
use crate::resize::{self, Outcome};

/// How far a resize has come.
#[derive(Debug, Default)]
pub(super) struct Resizing {
    outcome: Outcome,
    /// Whether it goes on.
    begun: bool,
    /// The generation of the pod whose resize people were told of.
    told: Option<i64>,
    /// Why it does not go on.
    error: Option<String>,
    /// Runs that have to be started anew.
    pub(super) condemned: BTreeMap<String, Condemned>,
    /// Containers that do not have yet what they are to get.
    behind: BTreeMap<String, ResourceRequirements>,
}

/// What the status tells of a resize.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What containers were promised, where that is not what the definition asks for.
    pub allocated: BTreeMap<String, ResourceRequirements>,
    /// What containers have, where that is not what they were promised.
    pub actual: BTreeMap<String, ResourceRequirements>,
    /// Reason and message of a wish that waits.
    pub pending: Option<(String, String)>,
    /// Reason and message of a resize that goes on.
    pub in_progress: Option<(String, String)>,
}

impl Worker {
    /// Looks what the pod is to get, and gives it. Answers when to look again.
    pub(super) async fn resize(&mut self, observed: &Observed) -> Option<Instant> {
        let (_, _, uid) = identity(&self.pod);
        let others: Vec<Arc<Pod>> = self.shared.pods.list();
        let others: Vec<Arc<Pod>> = others
            .into_iter()
            .filter(|pod| identity(pod).2 != uid && !is_over(pod))
            .collect();
        let outcome = resize::assess(&self.pod, &others, &self.shared.facts.allocatable);
        self.tell_pending(&outcome);
        let waits = outcome.pending().is_some();
        self.promised = if waits {
            Arc::new(resize::allocated(&self.pod))
        } else {
            self.pod.clone()
        };
        if matches!(outcome, Outcome::Deferred(_)) {
            self.shared.deferred.lock().insert(uid.to_owned());
        } else {
            self.shared.deferred.lock().remove(uid);
        }
        // Until the status is written, the wish looks as if it was not fulfilled yet.
        let is_new = outcome == Outcome::Fits && self.resizing.told != self.pod.metadata.generation;
        self.resizing.outcome = outcome;
        if is_new {
            self.resizing.begun = true;
            self.resizing.told = self.pod.metadata.generation;
            let text = resize::message("Pod resize started", &self.pod, "");
            self.shared.recorder.normal(reference(&self.pod), "ResizeStarted", text);
        }
        self.actuate(observed).await
    }

    async fn actuate(&mut self, observed: &Observed) -> Option<Instant> {
        let (promised, before) = (self.promised.clone(), resize::allocated(&self.pod));
        self.resizing.condemned.clear();
        self.resizing.behind.clear();
        let mut error = None;
        for defined in defined(&promised).iter().filter(|defined| defined.role.serves()) {
            let container = &defined.container;
            let Some(run) = observed.latest(&container.name).filter(|run| run.is_running()) else {
                continue;
            };
            let Some(has) = &run.resources else { continue };
            let gets = config::resources(&promised, container, self.shared.node.memory_bytes);
            if resize::is_same(has, &gets) {
                continue;
            }
            let given = if resize::needs_restart(container, has, &gets) {
                let condemned = Condemned {
                    why: format!("Container {} resize requires restart", container.name),
                    grace_seconds: None,
                };
                self.resizing.condemned.insert(run.id.clone(), condemned);
                false
            } else {
                match self.give(run, has, gets).await {
                    Ok(()) => true,
                    Err(why) => {
                        error = Some(why);
                        false
                    }
                }
            };
            if !given {
                let all = crate::plan::defined(&before);
                let old = all.iter().find(|d| d.container.name == container.name);
                let old = old.and_then(|d| d.container.resources.clone()).unwrap_or_default();
                self.resizing.behind.insert(container.name.clone(), old);
            }
        }
        if let Some(why) = &error
            && self.resizing.error.as_ref() != Some(why)
        {
            tracing::warn!(pod = %full_name(&self.pod), why, "a container was not resized");
            let text = resize::message("Pod resize error", &self.pod, why);
            self.shared.recorder.warning(reference(&self.pod), "ResizeError", text);
        }
        let again = error.is_some().then(|| Instant::now() + START_RETRY);
        self.resizing.error = error;
        if self.resizing.begun && self.resizing.behind.is_empty() {
            self.resizing.begun = false;
            let text = resize::message("Pod resize completed", &self.pod, "");
            self.shared
                .recorder
                .normal(reference(&self.pod), "ResizeCompleted", text);
        }
        again
    }

    /// Changes the limits of a run.
    async fn give(
        &self,
        run: &Run,
        has: &LinuxContainerResources,
        gets: LinuxContainerResources,
    ) -> Result<(), String> {
        let limit = gets.memory_limit_in_bytes;
        let shrinks = limit > 0 && (has.memory_limit_in_bytes == 0 || limit < has.memory_limit_in_bytes);
        if shrinks {
            // The kernel of version 2 would end the container.
            let stats = self.shared.cri.stats_of_pod(identity(&self.pod).2).await;
            let stats = stats.map_err(|error| error.to_string())?;
            let own = stats.iter().find(|stat| {
                let labels = stat.attributes.as_ref().map(|attributes| &attributes.labels);
                labels.and_then(|labels| labels.get(LABEL_CONTAINER_NAME)) == Some(&run.name)
            });
            let memory = own.and_then(|stat| stat.memory.as_ref()?.working_set_bytes.as_ref());
            let used = memory.map_or(0, |bytes| bytes.value);
            if i64::try_from(used).unwrap_or(i64::MAX) > limit {
                return Err(format!(
                    "attempting to set pod memory limit ({limit}) below current usage ({used})"
                ));
            }
        }
        let updated = self.shared.cri.update_container(&run.id, gets).await;
        updated.map_err(|error| error.description)
    }

    /// People are told once of a wish that has to wait.
    fn tell_pending(&self, outcome: &Outcome) {
        let Some((reason, why)) = outcome.pending() else { return };
        if self.resizing.outcome == *outcome || has_condition(&self.pod, "PodResizePending", reason, why) {
            return;
        }
        let words = format!("Pod resize {reason}");
        let text = resize::message(&words, &self.pod, why);
        let event = match outcome {
            Outcome::Infeasible(_) => "ResizeInfeasible",
            _ => "ResizeDeferred",
        };
        self.shared.recorder.warning(reference(&self.pod), event, text);
    }

    /// For the status.
    pub(super) fn told_resize(&self) -> Told {
        let pending = self.resizing.outcome.pending();
        let all = defined(&self.promised);
        let allocated = all.iter().filter(|_| pending.is_some()).map(|defined| {
            let resources = defined.container.resources.clone().unwrap_or_default();
            (defined.container.name.clone(), resources)
        });
        let goes_on = !self.resizing.behind.is_empty();
        Told {
            allocated: allocated.collect(),
            actual: self.resizing.behind.clone(),
            pending: pending.map(|(reason, why)| (reason.to_owned(), why.to_owned())),
            in_progress: goes_on.then(|| match &self.resizing.error {
                Some(why) => ("Error".to_owned(), why.clone()),
                None => Default::default(),
            }),
        }
    }
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_condition(pod: &Pod, kind: &str, reason: &str, message: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|own| own.type_ == kind && own.reason.as_deref() == Some(reason))
        .any(|own| own.message.as_deref() == Some(message))
}
