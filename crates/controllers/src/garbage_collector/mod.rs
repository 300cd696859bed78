//! The garbage collector: what nobody owns any more goes, and what waits for its dependents goes after them.
//!
//! It watches the metadata of everything that can be deleted and keeps a graph of owners. Source:
//! `pkg/controller/garbagecollector/garbagecollector.go`. Invariants: nothing is deleted because an owner is missing from
//! the graph, only because the server said that it is not there; a delete names the object's uid and revision, so that an
//! object that changed meanwhile (a new owner) is looked at again.

mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::Shutdown;
use client::discovery::Discovered;
use client::events::ObjectReference;
use client::informer::{Delta, Informer, Selection};
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{DeleteParams, Error, Meta, PartialObject, Patch, Preconditions, Propagation, Resource};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::context::Context;
use crate::parallel;
use graph::{FOREGROUND, Graph, Node, ORPHAN, OwnerState, Verdict, Work, judge, names};

/// Objects that are worked on side by side. Source: `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// After a change of custom resources the server's discovery follows within this time.
const DISCOVERY_DELAY: Duration = Duration::from_secs(1);
/// Before discovery is tried again after it failed.
const DISCOVERY_RETRY: Duration = Duration::from_secs(5);

/// How long all is waited for until the garbage collector goes on with what it knows: another server's resources may never
/// come, and an owner that is not known is asked for before anything is deleted.
/// Source: `period` of `Sync` in `pkg/controller/garbagecollector`.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let collector = Arc::new(Collector {
        context: context.clone(),
        graph: Mutex::default(),
        queue: WorkQueue::new().named("garbage_collector_attempt_to_delete"),
        kinds: Mutex::default(),
        monitors: Mutex::default(),
        rediscover: Notify::new(),
    });
    context.shutdown.spawn(async move {
        let stop = collector.context.shutdown.clone();
        let mut working = false;
        loop {
            let delay = match stop.until(collector.discover()).await {
                None => return,
                Some(Ok(())) => None,
                Some(Err(error)) => {
                    tracing::warn!(%error, "discovery failed, will be tried again");
                    Some(DISCOVERY_RETRY)
                }
            };
            if !working && delay.is_none() {
                working = true;
                let worker = collector.clone();
                let work = move |item| {
                    let collector = worker.clone();
                    async move { collector.work(item).await }
                };
                stop.spawn(run(collector.queue.clone(), WORKERS, stop.clone(), work));
            }
            let wake = async {
                match delay {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => {
                        collector.rediscover.notified().await;
                        tokio::time::sleep(DISCOVERY_DELAY).await;
                    }
                }
            };
            if stop.until(wake).await.is_none() {
                return;
            }
        }
    });
}

struct Collector {
    context: Context,
    graph: Mutex<Graph>,
    queue: WorkQueue<Work>,
    /// Resources by apiVersion and kind.
    kinds: Mutex<HashMap<(String, String), Resource>>,
    monitors: Mutex<HashMap<Resource, Shutdown>>,
    /// Told when the set of resources may have changed.
    rediscover: Notify,
}

/// What is watched: everything that can be listed, watched and deleted, but events, which nobody owns and which are many.
fn watched(found: &Discovered) -> Vec<Resource> {
    let mut resources = found.preferred(&["delete", "list", "watch"]);
    resources.retain(|resource| resource.plural != "events" || !matches!(&*resource.group, "" | "events.k8s.io"));
    resources
}

impl Collector {
    /// Watches what is served now; returns when the graph holds all of it.
    async fn discover(self: &Arc<Self>) -> Result<(), Error> {
        let found = self.context.informers.client().discover().await?;
        let wanted = watched(&found);
        *self.kinds.lock() = found
            .resources
            .iter()
            .map(|served| {
                (
                    (served.resource.api_version(), served.resource.kind.to_string()),
                    served.resource.clone(),
                )
            })
            .collect();
        let new: Vec<Resource> = {
            let mut monitors = self.monitors.lock();
            let there: HashSet<&Resource> = wanted.iter().collect();
            // A group that cannot be told now (its server is away) is not gone.
            let unknown = |resource: &Resource| found.failed.iter().any(|(group, _)| *group == resource.api_version());
            monitors.retain(|resource, shutdown| {
                let keep = there.contains(resource) || unknown(resource);
                if !keep {
                    shutdown.trigger();
                }
                keep
            });
            let new = wanted.iter().filter(|resource| !monitors.contains_key(*resource));
            new.cloned().collect()
        };
        let filled: Vec<watch::Receiver<bool>> = new.into_iter().map(|resource| self.monitor(resource)).collect();
        let all = async {
            for mut filled in filled {
                // An error means that the monitor ended: the resource went, or everything does.
                let _ = filled.wait_for(|filled| *filled).await;
            }
        };
        if tokio::time::timeout(SYNC_LIMIT, all).await.is_err() {
            tracing::warn!("some resources cannot be listed yet; the others are looked after without them");
        }
        // Owners that were unknown may be of kinds that are known now.
        let unseen = self.graph.lock().virtual_nodes();
        unseen.into_iter().for_each(|work| self.queue.add(work));
        Ok(())
    }

    /// Starts to watch a resource; the receiver says when the graph holds all its objects.
    fn monitor(self: &Arc<Self>, resource: Resource) -> watch::Receiver<bool> {
        let shutdown = self.context.shutdown.child();
        self.monitors.lock().insert(resource.clone(), shutdown.clone());
        let informer = Informer::<PartialObject>::start(
            self.context.informers.client().clone(),
            resource.clone(),
            Selection::all(),
            self.context.random.fork(),
            shutdown.clone(),
        );
        let mut events = informer.subscribe();
        let (filled, receiver) = watch::channel(false);
        let collector = self.clone();
        let defines_kinds = matches!(&*resource.kind, "CustomResourceDefinition" | "APIService");
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            while let Some(Some(delta)) = stop.until(events.next()).await {
                let work = match &delta {
                    Delta::Added(object) | Delta::Updated { new: object, .. } => {
                        collector.graph.lock().observe(&resource, &object.metadata)
                    }
                    Delta::Deleted(object) => collector.graph.lock().gone(object.metadata.uid()),
                    Delta::Synced => {
                        filled.send_replace(true);
                        continue;
                    }
                };
                work.into_iter().for_each(|work| collector.queue.add(work));
                if defines_kinds {
                    collector.rediscover.notify_one();
                }
            }
        });
        receiver
    }

    async fn work(&self, work: Work) -> Result<Next, Error> {
        let uid = match &work {
            Work::Delete(uid) | Work::Orphan(uid) => uid,
            Work::Misplaced { dependent, owner } => {
                self.tell_misplaced(dependent, owner);
                return Ok(Next::Wait);
            }
        };
        let Some(node) = self.graph.lock().get(uid).cloned() else {
            return Ok(Next::Wait);
        };
        let outcome = match work {
            Work::Orphan(_) => self.orphan(&node).await,
            Work::Misplaced { .. } => Ok(Next::Wait),
            Work::Delete(_) if node.is_virtual() => self.verify(&node).await,
            Work::Delete(_) if node.is_foreground() => self.wait_for_dependents(&node).await,
            Work::Delete(_) if node.deleting => Ok(Next::Wait),
            Work::Delete(_) => self.attempt(&node).await,
        };
        match outcome {
            // Changed or gone meanwhile: what the graph hears of it next decides.
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            outcome => outcome,
        }
    }

    /// Source: `reportInvalidNamespaceOwnerRef`.
    fn tell_misplaced(&self, dependent: &str, owner: &str) {
        let graph = self.graph.lock();
        let Some(node) = graph.get(dependent) else { return };
        let Some(named) = node.owners.iter().find(|one| one.uid == owner) else {
            return;
        };
        let about = ObjectReference {
            api_version: node.api_version.clone(),
            kind: node.kind.clone(),
            namespace: node.namespace.clone(),
            name: node.name.clone(),
            uid: node.uid.clone(),
            ..ObjectReference::default()
        };
        let place = &node.namespace;
        let text = format!(
            "ownerRef [{}/{}, namespace: {place}, name: {}, uid: {owner}] does not exist in namespace {place:?}",
            named.api_version, named.kind, named.name,
        );
        self.context.recorder.warning(about, "OwnerRefInvalidNamespace", text);
    }

    /// Asks the server about an object that was only named.
    async fn verify(&self, node: &Node) -> Result<Next, Error> {
        let reference = OwnerReference {
            api_version: node.api_version.clone(),
            kind: node.kind.clone(),
            name: node.name.clone(),
            uid: node.uid.clone(),
            ..Default::default()
        };
        if self.ask(&reference, &node.namespace).await? == Some(OwnerState::Absent) {
            let work = self.graph.lock().gone(&node.uid);
            work.into_iter().for_each(|work| self.queue.add(work));
        }
        Ok(Next::Wait)
    }

    /// What the server says about an owner; `None` when its kind is not served (its objects may well be there).
    async fn ask(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<OwnerState>, Error> {
        let kind = (owner.api_version.clone(), owner.kind.clone());
        let Some(resource) = self.kinds.lock().get(&kind).cloned() else {
            return Ok(None);
        };
        if resource.namespaced && namespace.is_empty() {
            // An object in no namespace cannot be owned by one in a namespace.
            self.graph.lock().note_absent(&owner.uid);
            return Ok(Some(OwnerState::Absent));
        }
        match self
            .context
            .client
            .get_in::<PartialObject>(&resource, namespace, &owner.name)
            .await
        {
            Ok(found) if found.metadata.uid() == owner.uid => {
                let foreground = found.metadata.finalizers.iter().flatten().any(|one| one == FOREGROUND);
                let waiting = found.metadata.is_deleting() && foreground;
                Ok(Some(if waiting {
                    OwnerState::Waiting
                } else {
                    OwnerState::Solid
                }))
            }
            Ok(_) => Ok(Some(OwnerState::Absent)),
            Err(error) if error.is_not_found() => Ok(Some(OwnerState::Absent)),
            Err(error) => Err(error),
        }
    }

    async fn owner_state(&self, node: &Node, owner: &OwnerReference) -> Result<OwnerState, Error> {
        {
            let graph = self.graph.lock();
            if let Some(found) = graph.get(&owner.uid).filter(|found| !found.is_virtual()) {
                return Ok(match (names(owner, &node.namespace, found), found.is_foreground()) {
                    (false, _) => OwnerState::Absent,
                    (true, true) => OwnerState::Waiting,
                    (true, false) => OwnerState::Solid,
                });
            }
            if graph.is_absent(&owner.uid) {
                return Ok(OwnerState::Absent);
            }
        }
        Ok(self.ask(owner, &node.namespace).await?.unwrap_or(OwnerState::Solid))
    }

    /// Looks whether an object still has an owner, and deletes it when not.
    async fn attempt(&self, node: &Node) -> Result<Next, Error> {
        let mut states = Vec::with_capacity(node.owners.len());
        for owner in &node.owners {
            states.push(self.owner_state(node, owner).await?);
        }
        let dependents_wait = {
            let graph = self.graph.lock();
            node.dependents
                .iter()
                .filter_map(|uid| graph.get(uid))
                .any(Node::is_foreground)
        };
        match judge(node, &states, dependents_wait) {
            Verdict::Keep => {}
            Verdict::KeepOwners(kept) => {
                let owners = kept.into_iter().map(|at| node.owners[at].clone()).collect();
                self.set_owners(node, owners).await?;
            }
            Verdict::Delete { policy, unblock } => {
                if unblock {
                    let owners = node.owners.iter().cloned();
                    let owners = owners.map(|owner| OwnerReference {
                        block_owner_deletion: Some(false),
                        ..owner
                    });
                    self.set_owners(node, owners.collect()).await?;
                    return Ok(Next::Retry);
                }
                self.delete(node, policy).await?;
            }
        }
        Ok(Next::Wait)
    }

    async fn delete(&self, node: &Node, policy: Propagation) -> Result<(), Error> {
        let resource = node
            .resource
            .as_ref()
            .expect("invariant: only what was seen is deleted");
        let preconditions = Preconditions {
            uid: Some(node.uid.clone()),
            resource_version: Some(node.resource_version.clone()),
        };
        let params = DeleteParams {
            preconditions,
            propagation: Some(policy),
            grace_seconds: None,
        };
        self.context
            .client
            .delete(resource, &node.namespace, &node.name, &params)
            .await
            .map(drop)
    }

    /// An object that waits for its dependents: those that block it are looked at; without any it goes.
    async fn wait_for_dependents(&self, node: &Node) -> Result<Next, Error> {
        // `None`: nobody blocks.
        let blocking: Option<Vec<Work>> = {
            let graph = self.graph.lock();
            let dependents = node.dependents.iter().filter_map(|uid| graph.get(uid));
            let blocking: Vec<&Node> = dependents.filter(|one| one.blocks(&node.uid)).collect();
            let idle = blocking.iter().filter(|one| !one.is_foreground() && !one.deleting);
            (!blocking.is_empty()).then(|| idle.map(|one| Work::Delete(one.uid.clone())).collect())
        };
        let Some(blocking) = blocking else {
            self.remove_finalizer(node, FOREGROUND).await?;
            return Ok(Next::Wait);
        };
        blocking.into_iter().for_each(|work| self.queue.add(work));
        Ok(Next::Wait)
    }

    /// Takes the object out of its dependents' owners, then lets it go.
    async fn orphan(&self, node: &Node) -> Result<Next, Error> {
        let dependents: Vec<Node> = {
            let graph = self.graph.lock();
            node.dependents
                .iter()
                .filter_map(|uid| graph.get(uid).cloned())
                .collect()
        };
        let edits: Vec<(Node, Vec<OwnerReference>)> = dependents
            .into_iter()
            .map(|dependent| {
                let mut owners = dependent.owners.clone();
                owners.retain(|owner| owner.uid != node.uid);
                (dependent, owners)
            })
            .collect();
        let (_, error) = parallel::all(edits, |(dependent, owners)| async move {
            match self.set_owners(&dependent, owners).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        })
        .await;
        if let Some(error) = error {
            return Err(error);
        }
        self.remove_finalizer(node, ORPHAN).await?;
        Ok(Next::Wait)
    }

    async fn set_owners(&self, node: &Node, owners: Vec<OwnerReference>) -> Result<(), Error> {
        let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
        self.edit(node, json!({"ownerReferences": owners})).await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), Error> {
        let kept: Vec<&String> = node.finalizers.iter().filter(|one| *one != finalizer).collect();
        let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
        self.edit(node, json!({"finalizers": kept})).await
    }

    /// Edits the metadata of an object as it was seen.
    async fn edit(&self, node: &Node, mut metadata: Value) -> Result<(), Error> {
        let resource = node.resource.as_ref().expect("invariant: only what was seen is edited");
        metadata["uid"] = node.uid.as_str().into();
        metadata["resourceVersion"] = node.resource_version.as_str().into();
        let body = json!({"metadata": metadata});
        let client = &self.context.client;
        client
            .patch(resource, &node.namespace, &node.name, None, &Patch::Merge, &body)
            .await
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
