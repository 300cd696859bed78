//! The deployment controller: replica sets of one template after the other.
//!
//! Invariant: a step is decided only when the copies show the step before, so that a rollout never overshoots its limits
//! because of an old picture. A set that was made but whose creation was not seen (a crash, a lost answer) is found again by
//! its name, which its template's hash decides.

mod decide;
mod hash;
mod sets;
mod status;

use std::sync::Arc;

use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, Patch, Preconditions, resources};
use serde_json::Value;

use crate::context::{Context, Name, Pace, name_of, synced};
use crate::owners::{self, ORPHAN_INDEX, controller_of};
use crate::parallel;
use crate::views::{Deployment, DeploymentStatus, Pod, ReplicaSet};
use decide::{Action, Snapshot, decide};

/// Deployments that are worked on side by side.
const WORKERS: usize = 16;

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let deployments = context.informers.informer::<Deployment>();
    let sets = context.informers.informer::<ReplicaSet>();
    let pods = context.informers.informer::<Pod>();
    sets.add_index(ORPHAN_INDEX, |set, add| {
        if controller_of(&set.metadata).is_none() {
            add(set.metadata.namespace());
        }
    });
    let queue = WorkQueue::<Name>::new().named("deployment");
    context.watch(&deployments, {
        let queue = queue.clone();
        move |delta| {
            if let Some(deployment) = delta.object() {
                queue.add(name_of(&**deployment));
            }
        }
    });
    context.watch(&sets, {
        let (queue, deployments) = (queue.clone(), deployments.clone());
        move |delta| {
            if let Delta::Updated { old, new } = &delta
                && controller_of(&old.metadata) != controller_of(&new.metadata)
            {
                on_set(&queue, &deployments, old);
            }
            if let Some(set) = delta.object() {
                on_set(&queue, &deployments, set);
            }
        }
    });
    context.watch(&pods, {
        let (queue, deployments, sets) = (queue.clone(), deployments.clone(), sets.clone());
        // A deployment that recreates waits for the last pod of its old sets to go or to end.
        move |delta| {
            let pod = match &delta {
                Delta::Deleted(pod) => pod,
                Delta::Updated { new, .. } if crate::pods::is_terminal(new) => new,
                _ => return,
            };
            let namespace = pod.metadata.namespace();
            let set = controller_of(&pod.metadata).and_then(|owner| sets.get(namespace, &owner.name));
            let owner = set.as_ref().and_then(|set| controller_of(&set.metadata));
            if let Some(deployment) = owner.and_then(|owner| deployments.get(namespace, &owner.name))
                && !sets::is_rolling(&deployment)
            {
                queue.add(name_of(&*deployment));
            }
        }
    });
    let ready = vec![synced(&deployments), synced(&sets), synced(&pods)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        deployments,
        sets,
        pods,
        pace: Pace::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn on_set(queue: &WorkQueue<Name>, deployments: &Informer<Deployment>, set: &ReplicaSet) {
    let namespace = set.metadata.namespace();
    match controller_of(&set.metadata) {
        Some(owner) if owner.kind == "Deployment" => queue.add((namespace.to_string(), owner.name.clone())),
        Some(_) => {}
        None if set.metadata.is_deleting() => {}
        None => {
            let deployments = deployments.list_namespace(namespace);
            for deployment in deployments
                .iter()
                .filter(|one| one.spec.selector.matches(&set.metadata))
            {
                queue.add(name_of(&**deployment));
            }
        }
    }
}

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    pace: Pace,
}

impl Controller {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        let Some(deployment) = self.deployments.get(&key.0, &key.1) else {
            self.pace.forget(key);
            return Ok(Next::Wait);
        };
        let version = deployment.metadata.resource_version();
        tracing::trace!(target: "walk", ?key, version, "the deployment controller");
        let owned = self.sets.owned_by(deployment.metadata.uid());
        let orphans = self.sets.indexed(ORPHAN_INDEX, &key.0);
        let candidates = owned.into_iter().chain(orphans);
        let claims = owners::claim(
            &deployment.metadata,
            &deployment.spec.selector,
            candidates,
            |set: &ReplicaSet| &set.metadata,
        );
        if !claims.adopt.is_empty() || !claims.release.is_empty() {
            self.reown(&deployment, claims.adopt, claims.release).await?;
            return Ok(Next::Retry);
        }
        let pods: Vec<Arc<Pod>> = match sets::is_rolling(&deployment) {
            true => Vec::new(),
            false => claims
                .own
                .iter()
                .flat_map(|set| self.pods.owned_by(set.metadata.uid()))
                .collect(),
        };
        let now = self.context.clock.now();
        let plan = decide(&Snapshot {
            deployment: &deployment,
            sets: &claims.own,
            pods: &pods,
            now,
        });
        if let [Action::Status { status, revision: None }] = plan.actions.as_slice()
            && status::only_counts_differ(status, &deployment.status)
            && let Some(wait) = self.pace.wait(key, status.replicas.unsigned_abs() as usize)
        {
            return Ok(Next::After(wait));
        }
        for action in plan.actions {
            match self.perform(&deployment, action).await {
                Ok(()) => {}
                // What was seen is no longer so; the news of that is on its way.
                Err(error) if error.is_conflict() => return Ok(Next::Retry),
                Err(error) if error.is_not_found() || error.is_namespace_terminating() => return Ok(Next::Wait),
                Err(error) => return Err(error),
            }
        }
        Ok(plan.look_again.map_or(Next::Wait, Next::After))
    }

    async fn perform(&self, deployment: &Deployment, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let namespace = deployment.metadata.namespace();
        let about = || ObjectReference::to(&resources::DEPLOYMENTS, &deployment.metadata);
        match action {
            Action::Create { name, body, replicas } => self.create(deployment, &name, &body, replicas).await,
            Action::Scale { set, from, to, edit } => {
                self.edit_set(namespace, &set, &edit).await?;
                let direction = if to > from { "up" } else { "down" };
                let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
                self.context.recorder.normal(about(), "ScalingReplicaSet", message);
                Ok(())
            }
            Action::Edit { set, edit } => self.edit_set(namespace, &set, &edit).await,
            Action::Delete {
                set,
                uid,
                resource_version,
            } => {
                let preconditions = Preconditions {
                    uid: Some(uid),
                    resource_version: Some(resource_version),
                };
                let params = DeleteParams {
                    preconditions,
                    ..Default::default()
                };
                match client.delete(&resources::REPLICA_SETS, namespace, &set, &params).await {
                    Ok(_) => {
                        self.sets
                            .until(namespace, &set, |set| set.is_none_or(|set| set.metadata.is_deleting()))
                            .await;
                        Ok(())
                    }
                    Err(error) if error.is_not_found() => Ok(()),
                    Err(error) => Err(error),
                }
            }
            Action::Status { status, revision } => self.write_status(deployment, &status, revision.as_deref()).await,
            Action::WarnSelectsAll => {
                let text = "This deployment is selecting all pods. A non-empty selector is required.";
                self.context.recorder.warning(about(), "SelectingAll", text);
                Ok(())
            }
        }
    }

    async fn edit_set(&self, namespace: &str, set: &str, edit: &Value) -> Result<(), Error> {
        let written = self
            .context
            .client
            .patch(&resources::REPLICA_SETS, namespace, set, None, &Patch::Merge, edit)
            .await?;
        self.sets.seen(api::meta::resource_version(&written)).await;
        Ok(())
    }

    async fn create(&self, deployment: &Deployment, name: &str, body: &Value, replicas: i32) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace();
        let about = || ObjectReference::to(&resources::DEPLOYMENTS, &deployment.metadata);
        match self
            .context
            .client
            .create_in(&resources::REPLICA_SETS, namespace, body)
            .await
        {
            Ok(created) => {
                self.sets.seen(api::meta::resource_version(&created)).await;
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.context.recorder.normal(about(), "ScalingReplicaSet", message);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let found: ReplicaSet = self.context.client.get(namespace, name).await?;
                let ours = controller_of(&found.metadata).is_some_and(|owner| owner.uid == deployment.metadata.uid());
                if ours && sets::same_template(&found.spec.template, &deployment.spec.template) {
                    // Made before, but not seen: a crash or a lost answer.
                    self.sets.seen(found.metadata.resource_version()).await;
                    return Ok(());
                }
                // Another template has the same hash: the next name is another one.
                let collisions = deployment.status.collision_count.unwrap_or(0) + 1;
                let status = DeploymentStatus {
                    collision_count: Some(collisions),
                    ..deployment.status.clone()
                };
                self.write_status(deployment, &status, None).await?;
                Err(error)
            }
            Err(error) if error.is_namespace_terminating() => Err(error),
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {error}");
                self.context
                    .recorder
                    .warning(about(), "ReplicaSetCreateError", message.clone());
                if status::has_deadline(deployment) {
                    let now = self.context.clock.now();
                    let status = status::progressing(deployment, "False", "ReplicaSetCreateError", message, now);
                    self.write_status(deployment, &status, None).await?;
                }
                Err(error)
            }
        }
    }

    /// Writes the status on top of the deployment as the copy shows it now: this step may have noted a revision before.
    async fn write_status(
        &self,
        deployment: &Deployment,
        status: &DeploymentStatus,
        revision: Option<&str>,
    ) -> Result<(), Error> {
        let (namespace, name) = (deployment.metadata.namespace(), deployment.metadata.name());
        let now = self.deployments.get(namespace, name);
        let base = now.filter(|now| {
            now.metadata.uid == deployment.metadata.uid && now.metadata.generation == deployment.metadata.generation
        });
        let edit = status::edit(base.as_deref().unwrap_or(deployment), status, revision);
        let written = self
            .context
            .client
            .patch(
                &resources::DEPLOYMENTS,
                namespace,
                name,
                Some("status"),
                &Patch::Merge,
                &edit,
            )
            .await?;
        self.deployments.seen(api::meta::resource_version(&written)).await;
        Ok(())
    }

    async fn reown(
        &self,
        deployment: &Deployment,
        adopt: Vec<Arc<ReplicaSet>>,
        release: Vec<Arc<ReplicaSet>>,
    ) -> Result<(), Error> {
        let namespace = deployment.metadata.namespace();
        if !adopt.is_empty() {
            let live: Deployment = self.context.client.get(namespace, deployment.metadata.name()).await?;
            if live.metadata.uid() != deployment.metadata.uid() || live.metadata.is_deleting() {
                return Ok(());
            }
        }
        let edit = |set: &Arc<ReplicaSet>, body: Value| (set.metadata.name().to_string(), body);
        let mut edits = Vec::new();
        for set in &adopt {
            edits.push(edit(
                set,
                owners::adoption(&resources::DEPLOYMENTS, &deployment.metadata, &set.metadata),
            ));
        }
        for set in &release {
            edits.push(edit(set, owners::release(deployment.metadata.uid(), &set.metadata)));
        }
        let (_, error) = parallel::all(edits, |(name, body)| async move {
            let client = &self.context.client;
            match client
                .patch(
                    &resources::REPLICA_SETS,
                    namespace,
                    &name,
                    None,
                    &Patch::Strategic,
                    &body,
                )
                .await
            {
                Ok(written) => {
                    self.sets.seen(api::meta::resource_version(&written)).await;
                    Ok(())
                }
                Err(error) if error.is_not_found() || error.is_invalid() => Ok(()),
                Err(error) => Err(error),
            }
        })
        .await;
        error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
