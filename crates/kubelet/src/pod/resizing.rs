//! Giving a pod's containers what its definition asks for, while they run.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use rpc::cri::LinuxContainerResources;
use tokio::time::Instant;

use super::worker::{START_RETRY, Worker};
use super::{full_name, reference};
use crate::config::whole::{self, Amounts};
use crate::config::{self, identity};
use crate::cri::LABEL_CONTAINER_NAME;
use crate::observed::{Observed, Run};
use crate::plan::{Condemned, Role, defined};
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
    /// What the pod's group was given last.
    group: Option<Group>,
    /// Whether the group does not have yet what it is to get.
    group_is_behind: bool,
}

/// The limits of a pod's control group.
#[derive(Debug)]
struct Group {
    /// Whose group it is.
    sandbox: String,
    limits: LinuxContainerResources,
}

/// What the status tells of a resize.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What containers were promised, where that is not what the definition asks for.
    pub allocated: BTreeMap<String, ResourceRequirements>,
    /// What containers have, where that is not what they were promised.
    pub actual: BTreeMap<String, ResourceRequirements>,
    /// What the pod as a whole was promised, and has.
    pub whole: Option<Whole>,
    /// Reason and message of a wish that waits.
    pub pending: Option<(String, String)>,
    /// Reason and message of a resize that goes on.
    pub in_progress: Option<(String, String)>,
}

/// What a pod as a whole was given.
#[derive(Clone, Debug, Default)]
pub struct Whole {
    /// What it was promised.
    pub allocated: Amounts,
    /// What it has.
    pub requests: Amounts,
    /// And may have at most.
    pub limits: Amounts,
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
        let mut error = self.fit_group(&promised, observed, Step::Widen).await.err();
        for defined in defined(&promised).iter().filter(|d| d.role != Role::Ephemeral) {
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
        if error.is_none() && self.resizing.behind.is_empty() {
            error = self.fit_group(&promised, observed, Step::Fit).await.err();
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
        if self.resizing.begun && self.resizing.behind.is_empty() && !self.resizing.group_is_behind {
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
        if shrinks(has, &gets) {
            self.is_above_usage(gets.memory_limit_in_bytes, Some(&run.name)).await?;
        }
        let updated = self.shared.cri.update_container(&run.id, gets).await;
        updated.map_err(|error| error.description)
    }

    /// Gives the pod's group what it is to have. What it has more of it gets before its containers do, and the rest after
    /// them: the limits of a group may not be below those of its children.
    async fn fit_group(&mut self, promised: &Pod, observed: &Observed, step: Step) -> Result<(), String> {
        let (Some(target), Some(sandbox)) = (whole::group(promised), observed.ready_sandbox()) else {
            self.resizing.group_is_behind = false;
            return Ok(());
        };
        let has = self.resizing.group.as_ref().filter(|group| group.sandbox == sandbox.id);
        let gets = match (step, has) {
            (Step::Widen, Some(has)) => resize::wider(&has.limits, &target),
            _ => target.clone(),
        };
        if !has.is_some_and(|has| resize::is_same(&has.limits, &gets)) {
            self.resizing.group_is_behind = true;
            if has.is_some_and(|has| shrinks(&has.limits, &gets)) {
                self.is_above_usage(gets.memory_limit_in_bytes, None).await?;
            }
            let updated = self.shared.cri.update_sandbox(&sandbox.id, gets.clone()).await;
            updated.map_err(|error| error.description)?;
        }
        self.resizing.group_is_behind = !resize::is_same(&gets, &target);
        self.resizing.group = Some(Group {
            sandbox: sandbox.id.clone(),
            limits: gets,
        });
        Ok(())
    }

    /// A limit below what is used now would end a container, with the newer kind of control groups. Of one container, or of all.
    async fn is_above_usage(&self, limit: i64, container: Option<&str>) -> Result<(), String> {
        let stats = self.shared.cri.stats_of_pod(identity(&self.pod).2).await;
        let stats = stats.map_err(|error| error.to_string())?;
        let of = stats.iter().filter(|stat| {
            let labels = stat.attributes.as_ref().map(|attributes| &attributes.labels);
            let name = labels.and_then(|labels| labels.get(LABEL_CONTAINER_NAME));
            container.is_none_or(|container| name.is_some_and(|name| name == container))
        });
        let memory = of.filter_map(|stat| stat.memory.as_ref()?.working_set_bytes.as_ref());
        let used: u64 = memory.map(|bytes| bytes.value).sum();
        if i64::try_from(used).unwrap_or(i64::MAX) > limit {
            return Err(format!(
                "attempting to set pod memory limit ({limit}) below current usage ({used})"
            ));
        }
        Ok(())
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
        let goes_on = !self.resizing.behind.is_empty() || self.resizing.group_is_behind;
        let before = goes_on.then(|| resize::allocated(&self.pod));
        let has = before.as_ref().unwrap_or(&self.promised);
        Told {
            whole: Some(Whole {
                allocated: whole::requests(&self.promised),
                requests: whole::requests(has),
                limits: whole::declared_limits(has),
            }),
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

/// Which part of a change of the pod's group.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// What it gets more of.
    Widen,
    /// All of it.
    Fit,
}

fn shrinks(has: &LinuxContainerResources, gets: &LinuxContainerResources) -> bool {
    let (has, gets) = (has.memory_limit_in_bytes, gets.memory_limit_in_bytes);
    gets > 0 && (has == 0 || gets < has)
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
