//! The status of a deployment: counts, conditions, and when it is stuck. Pure.
//!
//! Source of the rules and texts: `pkg/controller/deployment/sync.go`, `progress.go`.

use std::time::Duration;

use api::Value;
use client::Meta;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::sets::{Set, max_unavailable, replicas, sum, wanted};
use crate::replica_set::condition_value;
use crate::views::{Deployment, DeploymentStatus, WorkloadCondition};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
pub(super) const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
pub(super) const TIMED_OUT: &str = "ProgressDeadlineExceeded";
pub(super) const PAUSED: &str = "DeploymentPaused";

pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a WorkloadCondition> {
    status.conditions.iter().find(|condition| condition.kind == kind)
}

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Timestamp) -> WorkloadCondition {
    // Written times have whole seconds; more would never compare equal to what comes back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    WorkloadCondition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition; one of the same status and reason stays as it is.
fn set(status: &mut DeploymentStatus, mut new: WorkloadCondition) {
    if let Some(current) = find(status, &new.kind) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(status, &new.kind.clone());
    status.conditions.push(new);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.retain(|condition| condition.kind != kind);
}

/// Whether a deadline is set; the largest number means none.
pub(super) fn has_deadline(deployment: &Deployment) -> bool {
    deployment
        .spec
        .progress_deadline_seconds
        .is_some_and(|seconds| seconds != i32::MAX)
}

/// The status with a Progressing condition of this reason.
pub(super) fn progressing(
    deployment: &Deployment,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentStatus {
    let mut next = deployment.status.clone();
    set(&mut next, condition(PROGRESSING, status, reason, message, now));
    next
}

/// Notes that a deployment was paused or resumed, so that the time it stood still does not count. Source:
/// `checkPausedConditions`.
pub(super) fn pause(deployment: &Deployment, now: Timestamp) -> Option<DeploymentStatus> {
    let current = find(&deployment.status, PROGRESSING);
    if !has_deadline(deployment) || current.is_some_and(|condition| condition.reason == TIMED_OUT) {
        return None;
    }
    let noted = current.is_some_and(|condition| condition.reason == PAUSED);
    match (deployment.spec.paused, noted) {
        (true, false) => Some(progressing(
            deployment,
            "Unknown",
            PAUSED,
            "Deployment is paused".into(),
            now,
        )),
        (false, true) => Some(progressing(
            deployment,
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".into(),
            now,
        )),
        _ => None,
    }
}

/// The counts and the Available condition. Source: `calculateStatus`.
pub(super) fn counted(deployment: &Deployment, all: &[Set], current: Option<&Set>, now: Timestamp) -> DeploymentStatus {
    let available = sum(all, |set| set.status.available_replicas);
    let total = sum(all, replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation.unwrap_or(0),
        replicas: sum(all, |set| set.status.replicas),
        updated_replicas: current.map_or(0, |set| set.status.replicas),
        ready_replicas: sum(all, |set| set.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (total - available).max(0),
        terminating_replicas: Some(sum(all, |set| set.status.terminating_replicas.unwrap_or(0))),
        collision_count: deployment.status.collision_count,
        conditions: deployment.status.conditions.clone(),
    };
    let enough = available >= wanted(deployment) - max_unavailable(deployment);
    let (word, reason, text) = match enough {
        true => (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        ),
        false => (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        ),
    };
    set(&mut status, condition(AVAILABLE, word, reason, text.into(), now));
    status
}

/// Whether the rollout has ended well.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation.unwrap_or(0)
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// When the deadline is over, while the rollout goes on.
fn deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let current = find(status, PROGRESSING)?;
    let seconds = deployment.spec.progress_deadline_seconds?;
    let since = current
        .last_update_time
        .as_ref()
        .or(current.last_transition_time.as_ref())?
        .0;
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match find(status, PROGRESSING) {
        None => false,
        Some(current) if current.reason == NEW_SET_AVAILABLE => false,
        Some(current) if current.reason == TIMED_OUT => true,
        Some(_) => deadline(deployment, status).is_some_and(|deadline| deadline < now),
    }
}

/// The status during a rollout. Source: `syncRolloutStatus`.
pub(super) fn rollout(deployment: &Deployment, all: &[Set], current: Option<&Set>, now: Timestamp) -> DeploymentStatus {
    let mut status = counted(deployment, all, current, now);
    let subject = match current {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name()),
        None => format!("Deployment {:?}", deployment.metadata.name()),
    };
    if !has_deadline(deployment) {
        remove(&mut status, PROGRESSING);
    }
    let before = find(&deployment.status, PROGRESSING).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && before
            .as_ref()
            .is_some_and(|condition| condition.reason == NEW_SET_AVAILABLE);
    if has_deadline(deployment) && !was_complete {
        if is_complete(deployment, &status) {
            let text = format!("{subject} has successfully progressed.");
            set(
                &mut status,
                condition(PROGRESSING, "True", NEW_SET_AVAILABLE, text, now),
            );
        } else if has_progressed(&deployment.status, &status) {
            let mut new = condition(
                PROGRESSING,
                "True",
                "ReplicaSetUpdated",
                format!("{subject} is progressing."),
                now,
            );
            // The time of the update moves with each step, so that the deadline counts from the last one.
            if let Some(before) = &before {
                if before.status == "True" {
                    new.last_transition_time = before.last_transition_time.clone();
                }
                remove(&mut status, PROGRESSING);
            }
            set(&mut status, new);
        } else if has_timed_out(deployment, &status, now) {
            let text = format!("{subject} has timed out progressing.");
            set(&mut status, condition(PROGRESSING, "False", TIMED_OUT, text, now));
        }
    }
    match failure(all, current) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// What a set says goes wrong with its pods, the present set's word first.
fn failure(all: &[Set], current: Option<&Set>) -> Option<WorkloadCondition> {
    let of = |set: &Set| {
        set.status
            .conditions
            .iter()
            .find(|condition| condition.kind == REPLICA_FAILURE)
            .cloned()
    };
    let mut failure = current.and_then(of).or_else(|| all.iter().find_map(of))?;
    failure.last_update_time = failure.last_transition_time.clone();
    Some(failure)
}

/// When to look again whether the rollout is stuck. Source: `requeueStuckDeployment`.
pub(super) fn look_again(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let current = find(status, PROGRESSING)?;
    let over =
        is_complete(deployment, status) || matches!(current.reason.as_str(), TIMED_OUT | NEW_SET_AVAILABLE | PAUSED);
    if !has_deadline(deployment) || over {
        return None;
    }
    let left = deadline(deployment, status)?.duration_since(now);
    // One second more: times in conditions have whole seconds.
    Some(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1))
}

/// Whether both say the same; a server that does not know `terminatingReplicas` drops it.
pub(super) fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let known = |status: &DeploymentStatus| DeploymentStatus {
        terminating_replicas: Some(status.terminating_replicas.unwrap_or(0)),
        ..status.clone()
    };
    known(a) == known(b)
}

/// Whether only numbers differ: news that can wait a moment.
pub(super) fn only_counts_differ(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let words = |status: &DeploymentStatus| -> Vec<(String, String, String)> {
        let words = |one: &WorkloadCondition| (one.kind.clone(), one.status.clone(), one.reason.clone());
        let mut all: Vec<_> = status.conditions.iter().map(words).collect();
        all.sort();
        all
    };
    a.observed_generation == b.observed_generation && a.collision_count == b.collision_count && words(a) == words(b)
}

/// The edit of the status, and of the revision when one is given.
pub(super) fn edit(deployment: &Deployment, status: &DeploymentStatus, revision: Option<&str>) -> Value {
    let mut edit = json!({
        "metadata": {"resourceVersion": deployment.metadata.resource_version(), "uid": deployment.metadata.uid()},
        "status": {
            "observedGeneration": status.observed_generation, "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas, "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas, "unavailableReplicas": status.unavailable_replicas,
            "terminatingReplicas": status.terminating_replicas, "collisionCount": status.collision_count,
            "conditions": status.conditions.iter().map(condition_value).collect::<Vec<_>>(),
        },
    });
    if let Some(revision) = revision {
        edit["metadata"]["annotations"] = json!({super::sets::REVISION: revision});
    }
    edit
}
