//! The replica set controller: as many pods of a template as asked for. ReplicationControllers, its forerunners, are kept
//! by a second one, which differs in the kind only.
//!
//! Invariant: a set is looked at again only when the copy of the pods shows everything this controller wrote for it, so
//! that it never counts a pod twice or misses one it made (upstream's "expectations"). A create whose answer was lost is
//! looked up by the name it was given before the next decision.

mod decide;

use std::collections::HashMap;
use std::sync::Arc;

use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Kind, ListParams, Meta, Patch, resources};
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::{Context, Name, Pace, name_of, synced};
use crate::owners::{self, ORPHAN_INDEX, controller_of};
use crate::parallel;
use crate::pods::is_active;
use crate::views::{Pod, ReplicaSet, ReplicationController};
use decide::Scale;
pub(crate) use decide::condition_value;

/// Sets that are worked on side by side; waiting for the pods' copy takes a place too.
const WORKERS: usize = 32;
/// Letters of a pod's generated suffix, as upstream's `generateName`.
const SUFFIX_LETTERS: usize = 5;
/// A name may be this long; longer prefixes are cut as `generateName` does.
const NAME_PREFIX_MAX: usize = 63 - SUFFIX_LETTERS;

/// A kind that asks for a number of pods.
pub(crate) trait Replicas: Kind {
    /// Whether its status tells how many of its pods are terminating.
    const TELLS_TERMINATING: bool;

    /// What it asks for.
    fn set(&self) -> &ReplicaSet;
}

impl Replicas for ReplicaSet {
    const TELLS_TERMINATING: bool = true;

    fn set(&self) -> &ReplicaSet {
        self
    }
}

impl Replicas for ReplicationController {
    const TELLS_TERMINATING: bool = false;

    fn set(&self) -> &ReplicaSet {
        &self.0
    }
}

/// Starts the controller of a kind.
pub(crate) fn start<S: Replicas>(context: Context) {
    let sets = context.informers.informer::<S>();
    let pods = context.informers.informer::<Pod>();
    add_orphan_index(&pods);
    let queue = WorkQueue::<Name>::new().named("replicaset");
    context.watch(&sets, {
        let queue = queue.clone();
        move |delta| {
            if let Some(set) = delta.object() {
                queue.add(name_of(&**set));
            }
        }
    });
    context.watch(&pods, {
        let (queue, sets) = (queue.clone(), sets.clone());
        move |delta| on_pod(&queue, &sets, delta)
    });
    let ready = vec![synced(&sets), synced(&pods)];
    let unsettled = Arc::default();
    let controller = Arc::new(Controller {
        context: context.clone(),
        sets,
        pods,
        unsettled,
        pace: Pace::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// Indexes pods without a controller by namespace.
pub(crate) fn add_orphan_index(pods: &Informer<Pod>) {
    pods.add_index(ORPHAN_INDEX, |pod, add| {
        if controller_of(&pod.metadata).is_none() {
            add(pod.metadata.namespace());
        }
    });
}

/// Asks for work on the sets that the news about a pod concerns.
fn on_pod<S: Replicas>(queue: &WorkQueue<Name>, sets: &Informer<S>, delta: Delta<Pod>) {
    let enqueue = |pod: &Pod| {
        let namespace = pod.metadata.namespace();
        match controller_of(&pod.metadata) {
            Some(owner) if owner.kind == S::RESOURCE.kind => queue.add((namespace.to_string(), owner.name.clone())),
            Some(_) => {}
            None if pod.metadata.is_deleting() => {}
            None => {
                let sets = sets.list_namespace(namespace);
                for set in sets.iter().filter(|set| set.set().spec.selector.matches(&pod.metadata)) {
                    queue.add(name_of(&**set));
                }
            }
        }
    };
    match delta {
        Delta::Added(pod) | Delta::Deleted(pod) => enqueue(&pod),
        Delta::Updated { old, new } => {
            let owner = |pod: &Pod| controller_of(&pod.metadata).map(|owner| owner.uid.clone());
            if owner(&old) != owner(&new) && owner(&old).is_some() {
                enqueue(&old);
            }
            // An orphan concerns new sets only when its labels or its owner changed.
            let changed = old.metadata.labels != new.metadata.labels || owner(&old) != owner(&new);
            if owner(&new).is_some() || changed {
                enqueue(&new);
            }
        }
        Delta::Synced => {}
    }
}

struct Controller<S: Replicas> {
    context: Context,
    sets: Informer<S>,
    pods: Informer<Pod>,
    /// Names of pods whose creation may or may not have happened, by set.
    unsettled: Arc<Mutex<HashMap<Name, Vec<String>>>>,
    pace: Pace,
}

impl<S: Replicas> Controller<S> {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        self.settle(key).await?;
        let Some(set) = self.sets.get(&key.0, &key.1) else {
            self.pace.forget(key);
            return Ok(Next::Wait);
        };
        let set = set.set();
        let (uid, version) = (set.metadata.uid(), set.metadata.resource_version());
        tracing::trace!(target: "walk", ?key, version, "the replica set controller");
        let owned = self.pods.owned_by(uid);
        let terminating = owned
            .iter()
            .filter(|pod| pod.metadata.is_deleting() && !crate::pods::is_terminal(pod) && is_mine(pod, uid))
            .count();
        let orphans = self.pods.indexed(ORPHAN_INDEX, &key.0);
        let candidates = owned.into_iter().chain(orphans).filter(|pod| is_active(pod));
        let claims = owners::claim(&set.metadata, &set.spec.selector, candidates, |pod: &Pod| &pod.metadata);
        if !claims.adopt.is_empty() || !claims.release.is_empty() {
            self.reown(set, claims.adopt, claims.release).await?;
            return Ok(Next::Retry);
        }
        let active = claims.own;
        let now = self.context.clock.now();
        let scale = decide::scale(set, &active, &self.related(set, &active), now);
        let (failure, error) = match self.scale(key, set, scale).await {
            Ok(()) => (None, None),
            Err((reason, error)) => (Some((reason, error.to_string())), Some(error)),
        };
        let status = decide::status(set, &active, S::TELLS_TERMINATING.then_some(terminating), failure, now);
        let counts =
            status.observed_generation == set.status.observed_generation && status.conditions == set.status.conditions;
        if error.is_none()
            && counts
            && !decide::same_status(&status, &set.status)
            && let Some(wait) = self.pace.wait(key, active.len())
        {
            return Ok(Next::After(wait));
        }
        if !decide::same_status(&status, &set.status) {
            let body = decide::status_edit(set, &status);
            let written = self
                .context
                .client
                .patch(&S::RESOURCE, &key.0, &key.1, Some("status"), &Patch::Merge, &body)
                .await;
            match written {
                Ok(written) => drop(self.sets.seen(api::meta::resource_version(&written)).await),
                Err(gone) if gone.is_not_found() => return Ok(Next::Wait),
                Err(lost) if lost.is_conflict() && error.is_none() => return Ok(Next::Retry),
                Err(other) => return Err(error.unwrap_or(other)),
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        Ok(match decide::next_available(set, &active, now) {
            Some(at) => Next::After((at.duration_since(now)).try_into().unwrap_or_default()),
            None => Next::Wait,
        })
    }

    /// Finds out about creates whose answers were lost.
    async fn settle(&self, key: &Name) -> Result<(), Error> {
        let names = self.unsettled.lock().get(key).cloned().unwrap_or_default();
        for name in names {
            // By name, but as a list: this controller's role has no `get` of pods, as upstream's has none.
            let by_name = ListParams::fields(format!("metadata.name={name}"));
            let found = self.context.client.list::<Pod>(&key.0, &by_name).await?;
            for pod in found.items {
                self.pods.seen(pod.metadata.resource_version()).await;
            }
            let mut unsettled = self.unsettled.lock();
            if let Some(names) = unsettled.get_mut(key) {
                names.retain(|other| *other != name);
                if names.is_empty() {
                    unsettled.remove(key);
                }
            }
        }
        Ok(())
    }

    /// The active pods of all sets with the same controller: a node with several of them can spare one.
    fn related(&self, set: &ReplicaSet, active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
        let Some(controller) = controller_of(&set.metadata) else {
            return active.to_vec();
        };
        let siblings = self.sets.owned_by(&controller.uid);
        siblings
            .iter()
            .flat_map(|sibling| self.pods.owned_by(sibling.meta().uid()))
            .collect()
    }

    async fn reown(&self, set: &ReplicaSet, adopt: Vec<Arc<Pod>>, release: Vec<Arc<Pod>>) -> Result<(), Error> {
        let namespace = set.metadata.namespace();
        if !adopt.is_empty() {
            // The copy may show a set that is gone or another one of its name: ask the server before taking pods.
            let live: S = self.context.client.get(namespace, set.metadata.name()).await?;
            let live = &live.set().metadata;
            if live.uid() != set.metadata.uid() || live.is_deleting() {
                return Ok(());
            }
        }
        let edit = |pod: &Arc<Pod>, body: Value| (pod.metadata.name().to_string(), body);
        let mut edits = Vec::new();
        for pod in &adopt {
            edits.push(edit(pod, owners::adoption(&S::RESOURCE, &set.metadata, &pod.metadata)));
        }
        for pod in &release {
            edits.push(edit(pod, owners::release(set.metadata.uid(), &pod.metadata)));
        }
        let (written, error) = parallel::all(edits, |(name, body)| async move {
            let outcome = self
                .context
                .client
                .patch(&resources::PODS, namespace, &name, None, &Patch::Strategic, &body)
                .await;
            match outcome {
                Ok(written) => Ok(api::meta::resource_version(&written).to_string()),
                // Gone meanwhile (404), or another pod of that name (422: the uid differs): nothing to own.
                Err(error) if error.is_not_found() || error.is_invalid() => Ok(String::new()),
                Err(error) => Err(error),
            }
        })
        .await;
        self.wait_for(written).await;
        error.map_or(Ok(()), Err)
    }

    async fn scale(&self, key: &Name, set: &ReplicaSet, scale: Scale) -> Result<(), (&'static str, Error)> {
        match scale {
            Scale::Nothing => Ok(()),
            Scale::Create(count) => {
                let (written, error) = parallel::slow_start(count, |_| self.create(key, set)).await;
                self.wait_for(written).await;
                error.map_or(Ok(()), |error| Err(("FailedCreate", error)))
            }
            Scale::Delete(pods) => {
                let (gone, error) = parallel::all(&pods, |pod| self.delete(set, pod)).await;
                for pod in gone {
                    let is_going = |seen: Option<&Pod>| {
                        seen.is_none_or(|seen| seen.metadata.is_deleting() || seen.metadata.uid != pod.metadata.uid)
                    };
                    self.pods
                        .until(pod.metadata.namespace(), pod.metadata.name(), is_going)
                        .await;
                }
                error.map_or(Ok(()), |error| Err(("FailedDelete", error)))
            }
        }
    }

    /// Creates one pod; returns its revision.
    async fn create(&self, key: &Name, set: &ReplicaSet) -> Result<String, Error> {
        let about = || ObjectReference::to(&S::RESOURCE, &set.metadata);
        let mut prefix = format!("{}-", set.metadata.name());
        prefix.truncate(NAME_PREFIX_MAX);
        loop {
            let name = format!("{prefix}{}", self.context.random.suffix(SUFFIX_LETTERS));
            let pod = decide::new_pod(&S::RESOURCE, set, &name);
            match self.context.client.create_in(&resources::PODS, &key.0, &pod).await {
                Ok(created) => {
                    self.context
                        .recorder
                        .normal(about(), "SuccessfulCreate", format!("Created pod: {name}"));
                    return Ok(api::meta::resource_version(&created).to_string());
                }
                Err(error) if error.is_already_exists() => {}
                Err(error) if error.is_namespace_terminating() => return Ok(String::new()),
                Err(error) => {
                    if matches!(error, Error::Transport(_)) {
                        self.unsettled.lock().entry(key.clone()).or_default().push(name);
                    }
                    self.context
                        .recorder
                        .warning(about(), "FailedCreate", format!("Error creating: {error}"));
                    return Err(error);
                }
            }
        }
    }

    async fn delete<'a>(&self, set: &ReplicaSet, pod: &'a Arc<Pod>) -> Result<&'a Arc<Pod>, Error> {
        let about = ObjectReference::to(&S::RESOURCE, &set.metadata);
        let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
        let params = DeleteParams::uid(pod.metadata.uid());
        match self
            .context
            .client
            .delete(&resources::PODS, namespace, name, &params)
            .await
        {
            Ok(_) => {
                self.context
                    .recorder
                    .normal(about, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(pod)
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(pod),
            Err(error) => {
                self.context
                    .recorder
                    .warning(about, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }

    async fn wait_for(&self, revisions: Vec<String>) {
        let newest = revisions
            .iter()
            .filter_map(|revision| revision.parse::<u64>().ok())
            .max();
        if let Some(newest) = newest {
            self.pods.seen(&newest.to_string()).await;
        }
    }
}

fn is_mine(pod: &Pod, uid: &str) -> bool {
    controller_of(&pod.metadata).is_some_and(|owner| owner.uid == uid)
}

#[cfg(test)]
mod tests;
