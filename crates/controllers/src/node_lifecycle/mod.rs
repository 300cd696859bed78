//! The node lifecycle controller: notices nodes whose kubelet is silent, and keeps conditions and taints of nodes together.
//!
//! A heartbeat is a changed lease or a changed status; how old it is, is measured by this process's own clock from when
//! it was seen. Upstream looks at all nodes every five seconds; here each node has one timer that goes off when its last
//! heartbeat is too old.

mod decide;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Metadata;
use client::events::ObjectReference;
use client::informer::{Delta, Informer, Selection};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, Patch, resources, view_kind};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Context, synced};
use crate::parallel;
use crate::pod_gc::{NODE_INDEX, add_node_index};
use crate::views::{Node, Pod, condition};
use decide::{Zones, readiness, silent_conditions, taints, taints_edit, zone_of};

const WORKERS: usize = 8;
/// A node that is silent for so long is unknown. Source: `--node-monitor-grace-period`, 50 s since v1.32.
const GRACE: Duration = Duration::from_secs(50);
/// A node that never said anything has so long. Source: `--node-startup-grace-period`.
const STARTUP_GRACE: Duration = Duration::from_secs(60);
/// Where kubelets renew their leases.
const LEASES: &str = "kube-node-lease";

/// A lease, as far as it is a heartbeat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Heartbeat {
    metadata: Metadata,
    spec: HeartbeatSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HeartbeatSpec {
    renew_time: String,
}

view_kind!(Heartbeat, resources::LEASES);

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let nodes = context.informers.informer::<Node>();
    let pods = context.informers.informer::<Pod>();
    let leases = context.informers.selected::<Heartbeat>(Selection::namespace(LEASES));
    add_node_index(&pods);
    let queue = WorkQueue::<String>::new().named("node_lifecycle_controller");
    let state = Arc::new(Mutex::new(State::default()));
    context.watch(&nodes, {
        let (queue, nodes, state, context) = (queue.clone(), nodes.clone(), state.clone(), context.clone());
        move |delta| {
            let zones_changed = match &delta {
                Delta::Added(node) => {
                    node_event(&context, node, "RegisteredNode", "Registered Node", "in Controller");
                    state.lock().zones.note(node)
                }
                Delta::Updated { new, .. } => state.lock().zones.note(new),
                Delta::Deleted(node) => {
                    node_event(&context, node, "RemovingNode", "Removing Node", "from Controller");
                    state.lock().forget(node.metadata.name())
                }
                Delta::Synced => return,
            };
            if zones_changed {
                nodes
                    .list()
                    .iter()
                    .for_each(|node| queue.add(node.metadata.name().to_string()));
            }
            if let Some(node) = delta.object() {
                let heard = heartbeat(node);
                let worth = state.lock().hear(node.metadata.name(), Heard::Status(heard));
                let changed = match &delta {
                    Delta::Updated { old, new } => {
                        readiness(old) != readiness(new)
                            || old.spec.taints != new.spec.taints
                            || old.spec.unschedulable != new.spec.unschedulable
                            || pressures(old) != pressures(new)
                    }
                    _ => true,
                };
                if changed || worth {
                    queue.add(node.metadata.name().to_string());
                }
            }
        }
    });
    context.watch(&leases, {
        let (queue, state) = (queue.clone(), state.clone());
        move |delta| {
            if let Delta::Added(lease) | Delta::Updated { new: lease, .. } = delta {
                let name = lease.metadata.name();
                if state.lock().hear(name, Heard::Lease(lease.spec.renew_time.clone())) {
                    queue.add(name.to_string());
                }
            }
        }
    });
    let ready = vec![synced(&nodes), synced(&pods), synced(&leases)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        nodes,
        pods,
        state,
    });
    context.work(queue, ready, WORKERS, move |name| {
        let controller = controller.clone();
        async move { controller.sync(&name).await }
    });
}

fn node_event(context: &Context, node: &Node, reason: &str, what: &str, rest: &str) {
    let name = node.metadata.name();
    let about = ObjectReference::to(&resources::NODES, &node.metadata);
    context
        .recorder
        .normal(about, reason, format!("Node {name} event: {what} {name} {rest}"));
}

/// The times at which the kubelet says it posted the node's conditions.
fn heartbeat(node: &Node) -> String {
    let ready = condition(&node.status.conditions, "Ready");
    // What this controller writes for a silent kubelet is no sign of life.
    ready
        .filter(|ready| !matches!(ready.reason.as_str(), "NodeStatusUnknown" | "NodeStatusNeverUpdated"))
        .map_or(String::new(), |ready| {
            format!(
                "{:?} {}",
                ready.last_heartbeat_time.as_ref().map(|time| time.0),
                ready.status
            )
        })
}

fn pressures(node: &Node) -> Vec<(&str, &str)> {
    let others = node
        .status
        .conditions
        .iter()
        .filter(|condition| condition.kind != "Ready");
    others
        .map(|condition| (condition.kind.as_str(), condition.status.as_str()))
        .collect()
}

enum Heard {
    Status(String),
    Lease(String),
}

/// What is remembered of nodes; all of it can be lost.
#[derive(Default)]
struct State {
    heard: HashMap<String, LastHeard>,
    zones: Zones,
    /// When one more node of a zone may lose its pods.
    next_turn: HashMap<String, Instant>,
    /// Nodes whose pods were marked as not ready.
    marked: HashSet<String>,
}

#[derive(Default)]
struct LastHeard {
    status: String,
    lease: String,
    at: Option<Instant>,
    /// The node was found silent; the next sign of life is news.
    silent: bool,
}

impl State {
    /// Notes a sign of life; true when the node was silent before, or is new.
    fn hear(&mut self, node: &str, heard: Heard) -> bool {
        let last = self.heard.entry(node.to_string()).or_default();
        let (slot, text) = match heard {
            Heard::Status(text) => (&mut last.status, text),
            Heard::Lease(text) => (&mut last.lease, text),
        };
        let new = last.at.is_none();
        if (*slot != text && !text.is_empty()) || new {
            *slot = text;
            last.at = Some(Instant::now());
            return std::mem::take(&mut last.silent) || new;
        }
        false
    }

    fn forget(&mut self, node: &str) -> bool {
        self.heard.remove(node);
        self.marked.remove(node);
        self.zones.forget(node)
    }

    /// Takes the zone's turn if it has come; otherwise how long to wait, when it will come at all.
    fn take_turn(&mut self, zone: &str) -> Result<(), Option<Duration>> {
        let seconds = self.zones.seconds_a_node(zone).ok_or(None)?;
        let now = Instant::now();
        match self.next_turn.get(zone) {
            Some(at) if *at > now => Err(Some(*at - now)),
            _ => {
                self.next_turn
                    .insert(zone.to_string(), now + Duration::from_secs(seconds));
                Ok(())
            }
        }
    }
}

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    state: Arc<Mutex<State>>,
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Next, Error> {
        let Some(node) = self.nodes.get("", name) else {
            return Ok(Next::Wait);
        };
        let now = self.context.clock.now();
        let grace = if condition(&node.status.conditions, "Ready").is_some() {
            GRACE
        } else {
            STARTUP_GRACE
        };
        let left = {
            let mut state = self.state.lock();
            let last = state.heard.entry(name.to_string()).or_default();
            let at = *last.at.get_or_insert_with(Instant::now);
            let left = (at + grace).saturating_duration_since(Instant::now());
            last.silent = left.is_zero();
            left
        };
        if left.is_zero() {
            let conditions = silent_conditions(&node, now);
            if !conditions.is_empty() {
                let edit = json!({
                    "metadata": {"uid": node.metadata.uid(), "resourceVersion": node.metadata.resource_version()},
                    "status": {"conditions": conditions},
                });
                return self
                    .write(name, Some("status"), &Patch::Strategic, &edit, Next::Retry)
                    .await;
            }
        }
        // A silent node needs no timer: its next sign of life is news.
        let mut look_again = (!left.is_zero()).then_some(left);
        let zone = zone_of(&node);
        let (evict, turn) = {
            let mut state = self.state.lock();
            let evict = state.zones.may_evict();
            let needs_turn = taints(&node, evict, false, now).waits_for_turn;
            let turn = if needs_turn { state.take_turn(&zone) } else { Err(None) };
            (evict, turn)
        };
        let decided = taints(&node, evict, turn.is_ok(), now);
        if decided.waits_for_turn
            && let Err(Some(wait)) = turn
        {
            look_again = Some(look_again.map_or(wait, |look| look.min(wait)));
        }
        if let Some(all) = decided.edit {
            let edit = taints_edit(&node, &all);
            self.write(name, None, &Patch::Merge, &edit, Next::Wait).await?;
        }
        self.mark_pods(&node).await?;
        Ok(look_again.map_or(Next::Wait, Next::After))
    }

    async fn write(
        &self,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
        edit: &api::Value,
        then: Next,
    ) -> Result<Next, Error> {
        match self
            .context
            .client
            .patch(&resources::NODES, "", name, subresource, patch, edit)
            .await
        {
            Ok(written) => {
                self.nodes.seen(api::meta::resource_version(&written)).await;
                Ok(then)
            }
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) => Err(error),
        }
    }

    /// Pods of a node that is not ready are not ready either: services must not send anybody there. Once each time.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        let name = node.metadata.name();
        let Some(ready) = condition(&node.status.conditions, "Ready") else {
            return Ok(());
        };
        if ready.status == "True" {
            self.state.lock().marked.remove(name);
            return Ok(());
        }
        if self.state.lock().marked.contains(name) {
            return Ok(());
        }
        let about = ObjectReference::to(&resources::NODES, &node.metadata);
        self.context.recorder.normal(
            about,
            "NodeNotReady",
            format!("Node {name} status is now: NodeNotReady"),
        );
        let mut pods = self.pods.indexed(NODE_INDEX, name);
        pods.retain(|pod| crate::pods::is_ready(pod));
        let now = self.context.now_text();
        let (_, error) = parallel::all(pods, |pod| {
            let now = now.clone();
            async move { self.mark_pod(&pod, now).await }
        })
        .await;
        match error {
            Some(error) => Err(error),
            None => {
                self.state.lock().marked.insert(name.to_string());
                Ok(())
            }
        }
    }

    async fn mark_pod(&self, pod: &Pod, now: String) -> Result<(), Error> {
        let about = ObjectReference::to(&resources::PODS, &pod.metadata);
        self.context
            .recorder
            .warning(about, "NodeNotReady", "Node is not ready");
        let edit = json!({
            "metadata": {"uid": pod.metadata.uid()},
            "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}]},
        });
        let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
        let client = &self.context.client;
        match client.patch_status(&resources::PODS, namespace, name, &edit).await {
            // Gone, or another pod of that name.
            Err(error) if !error.is_not_found() && !error.is_conflict() && !error.is_invalid() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
