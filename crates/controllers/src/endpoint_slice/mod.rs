//! The endpoint slice controller: where the pods of a service are, in pieces of at most a hundred.
//!
//! Invariant: slices are decided again only when the copy shows everything this controller wrote for the service.

mod decide;
mod trigger;

use std::sync::Arc;

use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::k8s_openapi::api::discovery::v1::EndpointSlice;
use client::queue::WorkQueue;
use client::worker::Next;
use client::{DeleteParams, Error, Meta, Patch, resources};

use crate::backends::{self, Service, service_of};
use crate::context::{Context, Name, Pace, name_of, synced};
use crate::parallel;
use crate::pod_gc::{NODE_INDEX, add_node_index};
use crate::pods::is_ready;
use crate::views::{Node, Pod};
use decide::{Action, MANAGER, decide};
use trigger::Triggers;

const WORKERS: usize = 16;
/// The index of this controller's slices by `namespace/service`.
const SERVICE_INDEX: &str = "service";
/// The label of a node that names its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let services = context.informers.informer::<Service>();
    let pods = context.informers.informer::<Pod>();
    let nodes = context.informers.informer::<Node>();
    let slices = context.informers.informer::<EndpointSlice>();
    add_node_index(&pods);
    slices.add_index(SERVICE_INDEX, |slice, add| {
        if let Some(service) = service_of(slice, MANAGER) {
            add(&format!("{}/{service}", slice.metadata.namespace()));
        }
    });
    let queue = WorkQueue::<Name>::new().named("endpoint_slice");
    backends::watch(&context, &services, &pods, &queue);
    backends::watch_slices(&context, &slices, MANAGER, &queue);
    context.watch(&nodes, {
        let (queue, services, pods) = (queue.clone(), services.clone(), pods.clone());
        // A node that moves to another zone changes what its pods' endpoints say.
        move |delta| {
            if let Delta::Updated { old, new } = delta
                && old.metadata.label(ZONE) != new.metadata.label(ZONE)
            {
                for pod in pods.indexed(NODE_INDEX, new.metadata.name()) {
                    let services = services.list_namespace(pod.metadata.namespace());
                    services
                        .iter()
                        .filter(|one| one.selects(&pod))
                        .for_each(|one| queue.add(name_of(&**one)));
                }
            }
        }
    });
    let ready = vec![synced(&services), synced(&pods), synced(&nodes), synced(&slices)];
    let controller = Arc::new(Controller {
        context: context.clone(),
        services,
        pods,
        nodes,
        slices,
        pace: Pace::default(),
        triggers: Triggers::default(),
    });
    context.work(queue, ready, WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    pace: Pace,
    triggers: Triggers,
}

impl Controller {
    async fn sync(&self, key: &Name) -> Result<Next, Error> {
        // The slices of a service that is gone go with it by their owner reference.
        let Some(service) = self.services.get(&key.0, &key.1) else {
            self.pace.forget(key);
            self.triggers.forget(key);
            return Ok(Next::Wait);
        };
        if !service.is_managed() || service.metadata.is_deleting() {
            return Ok(Next::Wait);
        }
        let pods = backends::selected(&service, &self.pods);
        let slices = self.slices.indexed(SERVICE_INDEX, &format!("{}/{}", key.0, key.1));
        let zone = |node: &str| Some(self.nodes.get("", node)?.metadata.label(ZONE)?.to_string());
        let actions = decide(&service, &pods, &slices, zone);
        if actions.is_empty() {
            return Ok(Next::Wait);
        }
        if let Some(wait) = self.pace.wait(key, pods.len()) {
            return Ok(Next::After(wait));
        }
        if pods.iter().any(|pod| is_ready(pod)) {
            tracing::trace!(target: "walk", ?key, "the ready addresses of a service");
        }
        let trigger = self.triggers.of_change(key, &service, &pods);
        let actions: Vec<_> = actions.into_iter().map(|action| action.with_trigger(trigger)).collect();
        let (_, error) = parallel::all(actions, |action| self.perform(&key.0, action)).await;
        match error {
            None => Ok(Next::Wait),
            Some(error) if error.is_namespace_terminating() => Ok(Next::Wait),
            Some(error) if error.is_conflict() || error.is_not_found() => Ok(Next::Retry),
            Some(error) => {
                let about = ObjectReference::to(&resources::SERVICES, &service.metadata);
                let text = format!(
                    "Error updating Endpoint Slices for Service {}/{}: {error}",
                    key.0, key.1
                );
                self.context
                    .recorder
                    .warning(about, "FailedToUpdateEndpointSlices", text);
                Err(error)
            }
        }
    }

    async fn perform(&self, namespace: &str, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let written = match action {
            Action::Create(body) => client.create_in(&resources::ENDPOINT_SLICES, namespace, &body).await?,
            Action::Edit { name, edit } => {
                client
                    .patch(
                        &resources::ENDPOINT_SLICES,
                        namespace,
                        &name,
                        None,
                        &Patch::Merge,
                        &edit,
                    )
                    .await?
            }
            Action::Delete { name, uid } => {
                let params = DeleteParams::uid(uid.clone());
                match client
                    .delete(&resources::ENDPOINT_SLICES, namespace, &name, &params)
                    .await
                {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
                let gone = |slice: Option<&EndpointSlice>| {
                    slice.is_none_or(|slice| slice.metadata.uid() != uid || slice.metadata.is_deleting())
                };
                self.slices.until(namespace, &name, gone).await;
                return Ok(());
            }
        };
        self.slices.seen(api::meta::resource_version(&written)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
