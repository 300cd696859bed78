//! Subresources with handlers of their own: binding, eviction, tokens, logs, exec, attach, port-forward and proxies.

pub mod eviction;
pub mod kubelet;
mod links;
pub mod pods;
pub mod proxy;
pub mod tokens;
pub mod upgrade;
pub mod websocket;

use std::sync::Arc;

use http::Response;

use api::{GroupVersionKind, GroupVersionResource, Status, Value};
use client::Body;

use crate::call::{Call, RequestBody};
use crate::pipeline::{Operation, Review};
use crate::registry::Served;
use crate::verbs::{method_not_allowed, write};
use kubelet::Streamed;

/// Answers a request for a subresource that a handler serves.
pub async fn serve(call: &Arc<Call>, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    let verb = &*attributes.verb;
    match (&*attributes.resource, &*attributes.subresource) {
        ("pods", "binding") if verb == "create" => pods::bind(call, served, body).await,
        ("pods", "eviction") if verb == "create" => eviction::evict(call, served, body).await,
        ("pods", "log") if verb == "get" => kubelet::log(call, served).await,
        ("pods", "exec") => kubelet::stream(call, served, Streamed::Exec).await,
        ("pods", "attach") => kubelet::stream(call, served, Streamed::Attach).await,
        ("pods", "portforward") => kubelet::stream(call, served, Streamed::PortForward).await,
        ("pods" | "services" | "nodes", "proxy") => proxy::serve(call, served, body).await,
        ("serviceaccounts", "token") if verb == "create" => tokens::issue(call, served, body).await,
        _ => Err(method_not_allowed()),
    }
}

/// Runs both admission slots for a connection. The object is the options of the connection.
pub async fn admit(call: &Call, served: &Served, kind: &str, options: Value) -> Result<(), Status> {
    if call.query.has("dryRun") {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    let row = &served.kind.row;
    let review = Review {
        operation: Operation::Connect,
        kind: GroupVersionKind::new("", "v1", kind),
        resource: GroupVersionResource::new(&row.group, &row.hub, &row.plural),
        name: call.attributes.name.clone(),
        ..Review::of(call)
    };
    let mut slot = Some(options);
    write::run_admit(call, &review, &mut slot, None).await?;
    write::run_validate(call, &review, slot.as_ref(), None).await
}
