//! The next step of a deployment: which replica set to make, scale or remove. Pure.
//!
//! One step is decided at a time from what the copies show; performing it makes news, which leads to the next step.
//! Source of the rules: `pkg/controller/deployment` (`sync.go`, `rolling.go`, `recreate.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use client::{Meta, resources};
use jiff::Timestamp;
use serde_json::{Map, json};

use super::hash::template_hash;
use super::sets::*;
use super::status::{self, PROGRESSING};
use crate::owners::controller_reference;
use crate::views::{Deployment, DeploymentStatus, Pod};

/// What a decision looks at.
pub(super) struct Snapshot<'a> {
    pub deployment: &'a Deployment,
    /// The deployment's own sets.
    pub sets: &'a [Set],
    /// The pods of those sets.
    pub pods: &'a [Arc<Pod>],
    pub now: Timestamp,
}

/// What to do.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Make the set of the present template.
    Create { name: String, body: Value, replicas: i32 },
    /// Change a set's replicas and annotations.
    Scale {
        set: String,
        from: i32,
        to: i32,
        edit: Value,
    },
    /// Change a set in a way nobody needs to hear of.
    Edit { set: String, edit: Value },
    /// Remove a set that history has no room for.
    Delete {
        set: String,
        uid: String,
        resource_version: String,
    },
    /// Write the status, and note the revision at the deployment when it is another. Both in one write of the status, as
    /// upstream: an annotation written elsewhere would raise the deployment's generation.
    Status {
        status: Box<DeploymentStatus>,
        revision: Option<String>,
    },
    /// Tell people that the selector selects everything.
    WarnSelectsAll,
}

/// The step, and when to look again if nothing happens.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub actions: Vec<Action>,
    pub look_again: Option<std::time::Duration>,
}

impl Plan {
    fn of(actions: Vec<Action>) -> Plan {
        Plan {
            actions,
            look_again: None,
        }
    }
}

/// Decides the next step.
pub(super) fn decide(snapshot: &Snapshot<'_>) -> Plan {
    let mut plan = step(snapshot);
    let (mut last, mut noted) = (None, None);
    plan.actions.retain(|action| match action {
        Action::Status { status, revision } => {
            noted = noted.take().or(revision.clone());
            last = Some(status.clone());
            false
        }
        _ => true,
    });
    // One write, after everything else, of the last word on the status.
    plan.actions.extend(last.map(|status| Action::Status {
        status,
        revision: noted,
    }));
    plan
}

fn write(status: DeploymentStatus) -> Action {
    Action::Status {
        status: Box::new(status),
        revision: None,
    }
}

fn step(snapshot: &Snapshot<'_>) -> Plan {
    let Snapshot {
        deployment, sets, now, ..
    } = *snapshot;
    if deployment.spec.selector.parsed.is_everything() {
        let mut actions = vec![Action::WarnSelectsAll];
        let generation = deployment.metadata.generation.unwrap_or(0);
        if deployment.status.observed_generation < generation {
            let status = DeploymentStatus {
                observed_generation: generation,
                ..deployment.status.clone()
            };
            actions.push(write(status));
        }
        return Plan::of(actions);
    }
    let current = current(deployment, sets);
    if deployment.metadata.is_deleting() {
        let status = status::counted(deployment, sets, current.as_ref(), now);
        return Plan::of(status_action(deployment, status));
    }
    if let Some(status) = status::pause(deployment, now) {
        return Plan::of(vec![write(status)]);
    }
    let step = Step {
        snapshot,
        current,
        old: old(deployment, sets),
    };
    if deployment.spec.paused || step.was_rescaled() {
        return step.rescale();
    }
    if is_rolling(deployment) {
        step.roll()
    } else {
        step.recreate()
    }
}

/// The sets other than the present one, oldest first.
fn old(deployment: &Deployment, sets: &[Set]) -> Vec<Set> {
    let present = current(deployment, sets);
    let mut old: Vec<Set> = sets.to_vec();
    old.retain(|set| {
        present
            .as_ref()
            .is_none_or(|present| present.metadata.uid != set.metadata.uid)
    });
    by_age(&mut old);
    old
}

fn status_action(deployment: &Deployment, status: DeploymentStatus) -> Vec<Action> {
    if status::same(&status, &deployment.status) {
        Vec::new()
    } else {
        vec![write(status)]
    }
}

struct Step<'a> {
    snapshot: &'a Snapshot<'a>,
    current: Option<Set>,
    old: Vec<Set>,
}

impl Step<'_> {
    fn deployment(&self) -> &Deployment {
        self.snapshot.deployment
    }

    fn all(&self) -> &[Set] {
        self.snapshot.sets
    }

    /// Whether the wanted number changed since the sets were last scaled. Source: `isScalingEvent`.
    fn was_rescaled(&self) -> bool {
        let active = self.all().iter().filter(|set| replicas(set) > 0);
        let mut desired = active.filter_map(|set| number_annotation(set, DESIRED_REPLICAS));
        desired.any(|desired| desired != wanted(self.deployment()))
    }

    /// While paused, or right after the wanted number changed: sizes follow, templates do not.
    fn rescale(&self) -> Plan {
        let mut actions = self.note_revision(false);
        actions.extend(self.proportional());
        if actions.is_empty() && self.deployment().spec.paused {
            actions.extend(self.clean_up());
        }
        let status = status::counted(self.deployment(), self.all(), self.current.as_ref(), self.snapshot.now);
        actions.extend(status_action(self.deployment(), status));
        Plan::of(actions)
    }

    fn roll(&self) -> Plan {
        let Some(current) = &self.current else {
            return self.make_current();
        };
        let mut actions = self.note_revision(true);
        let scaling = self
            .grow(current)
            .map(|action| vec![action])
            .unwrap_or_else(|| self.shrink_old(current));
        let settled = scaling.is_empty();
        actions.extend(scaling);
        self.finish(actions, settled)
    }

    fn recreate(&self) -> Plan {
        let mut actions = self.note_revision(true);
        let down: Vec<Action> = self
            .old
            .iter()
            .filter(|set| replicas(set) > 0)
            .filter_map(|set| self.scale(set, 0))
            .collect();
        if !down.is_empty() {
            actions.extend(down);
            return self.finish(actions, false);
        }
        if self.old_pods_run() {
            return self.finish(actions, false);
        }
        let Some(current) = &self.current else {
            return self.make_current();
        };
        let up = self.scale(current, wanted(self.deployment()));
        let settled = up.is_none();
        actions.extend(up);
        self.finish(actions, settled)
    }

    /// Whether pods of old sets are still there. Source: `oldPodsRunning`.
    fn old_pods_run(&self) -> bool {
        let present = self.current.as_ref().map(|set| set.metadata.uid());
        self.snapshot.pods.iter().any(|pod| {
            let owner = crate::owners::controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
            owner != present && !crate::pods::is_terminal(pod)
        })
    }

    /// The end of each step: history, status, and when to look again.
    fn finish(&self, mut actions: Vec<Action>, settled: bool) -> Plan {
        let deployment = self.deployment();
        if settled && status::is_complete(deployment, &deployment.status) {
            actions.extend(self.clean_up());
        }
        // What was noted so far is part of the status that is written now.
        let mut base = deployment.clone();
        for action in &actions {
            if let Action::Status { status, revision: None } = action {
                base.status = (**status).clone();
            }
        }
        let status = status::rollout(&base, self.all(), self.current.as_ref(), self.snapshot.now);
        let look_again = status::look_again(deployment, &status, self.snapshot.now);
        actions.retain(|action| !matches!(action, Action::Status { revision: None, .. }));
        actions.extend(status_action(deployment, status));
        Plan { actions, look_again }
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1
    }

    /// Brings the present set's annotations, and what the deployment says about it, up to date. Source:
    /// `getNewReplicaSet` for a set that exists.
    fn note_revision(&self, note_progress: bool) -> Vec<Action> {
        let Some(set) = &self.current else { return Vec::new() };
        let deployment = self.deployment();
        let mut actions = Vec::new();
        let annotations = set.metadata.annotations.clone().unwrap_or_default();
        let mut changed: Map<String, Value> = copied_annotations(deployment)
            .into_iter()
            .filter(|(key, value)| annotations.get(key) != Some(value))
            .map(|(key, value)| (key, Value::String(value)))
            .collect();
        let mut own = revision(set);
        if own < self.next_revision() {
            if own > 0 {
                let history = annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or("");
                let history = if history.is_empty() {
                    own.to_string()
                } else {
                    format!("{history},{own}")
                };
                changed.insert(REVISION_HISTORY.into(), history.into());
            }
            own = self.next_revision();
            changed.insert(REVISION.into(), own.to_string().into());
        }
        let mut edit = json!({});
        if !changed.is_empty() {
            edit["metadata"]["annotations"] = Value::Object(changed);
        }
        if set.spec.min_ready_seconds != deployment.spec.min_ready_seconds {
            edit["spec"]["minReadySeconds"] = deployment.spec.min_ready_seconds.into();
        }
        if edit != json!({}) {
            actions.push(Action::Edit {
                set: set.metadata.name().into(),
                edit: guarded(set, edit),
            });
        }
        if annotation(&deployment.metadata.annotations, REVISION) != Some(own.to_string().as_str()) {
            actions.push(Action::Status {
                status: Box::new(deployment.status.clone()),
                revision: Some(own.to_string()),
            });
        }
        if note_progress && status::has_deadline(deployment) && status::find(&deployment.status, PROGRESSING).is_none()
        {
            let text = format!("Found new replica set {:?}", set.metadata.name());
            let status = status::progressing(deployment, "True", "FoundNewReplicaSet", text, self.snapshot.now);
            actions.push(write(status));
        }
        actions
    }

    /// Makes the set of the present template, as large as it may be now.
    fn make_current(&self) -> Plan {
        let deployment = self.deployment();
        let hash = template_hash(&deployment.spec.template, deployment.status.collision_count);
        let name = format!("{}-{hash}", deployment.metadata.name());
        let size = current_size(deployment, sum(self.all(), replicas), 0);
        let mut template = deployment.spec.template.clone();
        template["metadata"]["labels"][HASH_LABEL] = hash.as_str().into();
        let mut selector = deployment.spec.selector.written.clone();
        selector["matchLabels"][HASH_LABEL] = hash.as_str().into();
        let mut annotations: BTreeMap<String, String> = copied_annotations(deployment);
        annotations.insert(REVISION.into(), self.next_revision().to_string());
        annotations.insert(DESIRED_REPLICAS.into(), wanted(deployment).to_string());
        annotations.insert(
            MAX_REPLICAS.into(),
            (wanted(deployment) + max_surge(deployment)).to_string(),
        );
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": deployment.metadata.namespace(), "annotations": annotations,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [controller_reference(&resources::DEPLOYMENTS, &deployment.metadata)],
            },
            "spec": {
                "replicas": size, "minReadySeconds": deployment.spec.min_ready_seconds,
                "selector": selector, "template": template,
            },
        });
        let mut actions = vec![Action::Create {
            name: name.clone(),
            body,
            replicas: size,
        }];
        let revision = self.next_revision().to_string();
        if annotation(&deployment.metadata.annotations, REVISION) != Some(revision.as_str()) {
            actions.push(Action::Status {
                status: Box::new(deployment.status.clone()),
                revision: Some(revision),
            });
        }
        if status::has_deadline(deployment) {
            let text = format!("Created new replica set {name:?}");
            let status = status::progressing(deployment, "True", "NewReplicaSetCreated", text, self.snapshot.now);
            actions.push(write(status));
        }
        Plan::of(actions)
    }

    /// Lets the present set grow as far as it may. Source: `reconcileNewReplicaSet`.
    fn grow(&self, current: &Set) -> Option<Action> {
        let have = replicas(current);
        let deployment = self.deployment();
        let size = match have.cmp(&wanted(deployment)) {
            std::cmp::Ordering::Equal => have,
            std::cmp::Ordering::Greater => wanted(deployment),
            std::cmp::Ordering::Less => current_size(deployment, sum(self.all(), replicas), have),
        };
        self.scale(current, size)
    }

    /// Lets the old sets shrink as far as they may: unhealthy pods first, then healthy ones as long as enough are
    /// available. Source: `reconcileOldReplicaSets`.
    fn shrink_old(&self, current: &Set) -> Vec<Action> {
        let old_total = sum(&self.old, replicas);
        if old_total == 0 {
            return Vec::new();
        }
        let deployment = self.deployment();
        let min_available = wanted(deployment) - max_unavailable(deployment);
        let current_unavailable = replicas(current) - current.status.available_replicas;
        let max_shrink = sum(self.all(), replicas) - min_available - current_unavailable;
        if max_shrink <= 0 {
            return Vec::new();
        }
        let mut sizes: Vec<i32> = self.old.iter().map(|set| replicas(set)).collect();
        let mut unhealthy_left = max_shrink;
        for (set, size) in self.old.iter().zip(&mut sizes) {
            let unhealthy = (*size - set.status.available_replicas).max(0);
            let shrink = unhealthy.min(unhealthy_left);
            *size -= shrink;
            unhealthy_left -= shrink;
        }
        let available = sum(self.all(), |set| set.status.available_replicas);
        let mut healthy_left = (available - min_available).max(0);
        for size in &mut sizes {
            let shrink = (*size).min(healthy_left);
            *size -= shrink;
            healthy_left -= shrink;
        }
        self.old
            .iter()
            .zip(sizes)
            .filter_map(|(set, size)| self.scale(set, size))
            .collect()
    }

    /// Spreads a changed number over the sets. Source: `scale`.
    fn proportional(&self) -> Vec<Action> {
        let deployment = self.deployment();
        let total = wanted(deployment);
        let mut active: Vec<Set> = self.all().iter().filter(|set| replicas(set) > 0).cloned().collect();
        by_age(&mut active);
        let only = match active.as_slice() {
            [] => self.current.clone().or_else(|| self.old.last().cloned()),
            [one] => Some(one.clone()),
            _ => None,
        };
        if let Some(only) = only {
            return self.scale(&only, total).into_iter().collect();
        }
        if let Some(current) = &self.current
            && replicas(current) == total
            && number_annotation(current, DESIRED_REPLICAS) == Some(total)
            && current.status.available_replicas == total
        {
            let old = self.old.iter().filter(|set| replicas(set) > 0);
            return old.filter_map(|set| self.scale(set, 0)).collect();
        }
        if !is_rolling(deployment) {
            return Vec::new();
        }
        let allowed = if total > 0 { total + max_surge(deployment) } else { 0 };
        let to_add = allowed - sum(&active, replicas);
        // The largest gets what division leaves over; of equal ones the newer when growing, the older when shrinking.
        if to_add > 0 {
            active.reverse();
        }
        active.sort_by_key(|set| std::cmp::Reverse(replicas(set)));
        let mut added = 0;
        let mut sizes = Vec::new();
        for set in &active {
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push(replicas(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        active
            .iter()
            .zip(sizes)
            .filter_map(|(set, size)| self.resize(set, size))
            .collect()
    }

    /// A set's part of `to_add`, of which `added` is given away. Source: `GetReplicaSetProportion`.
    fn share(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        let have = replicas(set);
        if have == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let deployment = self.deployment();
        let fraction = if wanted(deployment) == 0 {
            -have
        } else {
            let now = f64::from(wanted(deployment) + max_surge(deployment));
            let before = number_annotation(set, MAX_REPLICAS)
                .unwrap_or(deployment.status.replicas)
                .max(1);
            (f64::from(have) * now / f64::from(before)).round() as i32 - have
        };
        let allowed = to_add - added;
        if to_add > 0 {
            fraction.min(allowed)
        } else {
            fraction.max(allowed)
        }
    }

    /// Scales a set when its size differs.
    fn scale(&self, set: &Set, size: i32) -> Option<Action> {
        if replicas(set) == size {
            None
        } else {
            self.resize(set, size)
        }
    }

    /// Brings a set's size and the annotations about it up to date. Source: `scaleReplicaSet`.
    fn resize(&self, set: &Set, size: i32) -> Option<Action> {
        let deployment = self.deployment();
        let desired = wanted(deployment);
        let most = desired + max_surge(deployment);
        let have = replicas(set);
        let noted = number_annotation(set, DESIRED_REPLICAS) == Some(desired)
            && number_annotation(set, MAX_REPLICAS) == Some(most);
        if have == size && noted {
            return None;
        }
        let mut edit = json!({"metadata": {"annotations": {
            DESIRED_REPLICAS: desired.to_string(), MAX_REPLICAS: most.to_string(),
        }}});
        let name = set.metadata.name().to_string();
        if have == size {
            return Some(Action::Edit {
                set: name,
                edit: guarded(set, edit),
            });
        }
        edit["spec"]["replicas"] = size.into();
        Some(Action::Scale {
            set: name,
            from: have,
            to: size,
            edit: guarded(set, edit),
        })
    }

    /// Removes the oldest empty sets beyond the limit of history. Source: `cleanupDeployment`.
    fn clean_up(&self) -> Vec<Action> {
        let Some(limit) = self
            .deployment()
            .spec
            .revision_history_limit
            .filter(|limit| *limit != i32::MAX)
        else {
            return Vec::new();
        };
        let mut old: Vec<&Set> = self.old.iter().filter(|set| !set.metadata.is_deleting()).collect();
        old.sort_by_key(|set| revision(set));
        let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let empty = |set: &&Set| {
            set.status.replicas == 0
                && replicas(set) == 0
                && set.metadata.generation.unwrap_or(0) <= set.status.observed_generation
        };
        let gone = old.into_iter().take(excess).filter(empty);
        gone.map(|set| Action::Delete {
            set: set.metadata.name().into(),
            uid: set.metadata.uid().into(),
            resource_version: set.metadata.resource_version().into(),
        })
        .collect()
    }
}

/// Adds to an edit that the set must be as it was seen.
fn guarded(set: &Set, mut edit: Value) -> Value {
    edit["metadata"]["resourceVersion"] = set.metadata.resource_version().into();
    edit
}
