//! The generic verbs: written once, over rows.

pub mod delete;
pub mod history;
pub mod mutate;
pub mod read;
pub mod scale;
pub mod watch;
pub mod write;

use std::sync::Arc;

use futures::future::BoxFuture;
use http::Response;
use http_body_util::{BodyExt, Full};

use api::{Reason, Status};
use client::Body;
use kinds::row::SubresourceRole;

use crate::call::{Call, RequestBody, read_body};
use crate::connect;
use crate::registry::Served;

/// 405, as upstream's router answers it.
pub fn method_not_allowed() -> Status {
    Status::failure(
        Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
}

/// Answers a request for a served resource. A write that is refused for what this server knows, while other servers write to
/// the same store, is judged again when the store turns out to be further on.
pub async fn serve(call: &Arc<Call>, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let storage = &call.server.storage;
    let reads = matches!(&*call.attributes.verb, "get" | "list" | "watch");
    if !storage.is_shared() || reads || call.is_long_running() {
        return judge(call, served, body).await;
    }
    let bytes = read_body(body).await?;
    let again = || Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync();
    let seen = storage.revision();
    match judge(call, served, again()).await {
        Err(status) if (400..500).contains(&status.code) => {
            storage.fresh().await?;
            match storage.revision() == seen {
                true => Err(status),
                false => judge(call, served, again()).await,
            }
        }
        answer => answer,
    }
}

async fn judge(call: &Arc<Call>, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    if let Some(warning) = served
        .version()
        .custom
        .as_ref()
        .and_then(|custom| custom.warning.as_ref())
    {
        call.warn(warning.as_str());
    }
    if served.kind.row.namespaced && attributes.namespace.is_empty() && needs_namespace(call) {
        return Err(if attributes.name.is_empty() {
            method_not_allowed()
        } else {
            Status::no_such_path()
        });
    }
    if !served.kind.row.namespaced && !attributes.namespace.is_empty() && attributes.resource != "namespaces" {
        return Err(Status::no_such_path());
    }
    if attributes.subresource.is_empty() {
        return main(call, served, body).await;
    }
    let Some(subresource) = served.subresource(&attributes.subresource) else {
        return Err(Status::no_such_path());
    };
    if subresource.role == SubresourceRole::Handler {
        return Box::pin(connect::serve(call, served, body)).await;
    }
    if !subresource.verbs.contains(&&*attributes.verb) {
        return Err(method_not_allowed());
    }
    let answer: Answer = match (subresource.role, &*attributes.verb) {
        (SubresourceRole::View, "get") => Box::pin(read::get(call, served)),
        (SubresourceRole::View, "update") => Box::pin(mutate::update(call, served, body)),
        (SubresourceRole::View, "patch") => Box::pin(mutate::patch(call, served, body)),
        (SubresourceRole::Scale, "get") => Box::pin(scale::get(call, served)),
        (SubresourceRole::Scale, "update") => Box::pin(scale::update(call, served, body)),
        (SubresourceRole::Scale, "patch") => Box::pin(scale::patch(call, served, body)),
        _ => refused(method_not_allowed()),
    };
    answer.await
}

/// Whether the verb is only there inside a namespace: lists, watches and nothing else may span all of them.
fn needs_namespace(call: &Call) -> bool {
    !matches!(&*call.attributes.verb, "list" | "watch")
}

/// What every request for core `endpoints` is told. Source: `APILifecycleDeprecated` of `k8s.io/api/core/v1`, in the words of
/// apiserver/pkg/endpoints/deprecation.
const ENDPOINTS_WARNING: &str = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";

/// A verb at work. Each has memory of its own: as a part of the request's the largest of them would be there, and moved, for
/// all of them.
type Answer<'a> = BoxFuture<'a, Result<Response<Body>, Status>>;

fn refused(status: Status) -> Answer<'static> {
    Box::pin(std::future::ready(Err(status)))
}

fn main<'a>(call: &'a Arc<Call>, served: &'a Arc<Served>, body: RequestBody) -> Answer<'a> {
    let verb = &*call.attributes.verb;
    if call.attributes.group.is_empty() && call.attributes.resource == "endpoints" {
        call.warn(ENDPOINTS_WARNING);
    }
    if !served.allows(verb) {
        return refused(method_not_allowed());
    }
    let named = !call.attributes.name.is_empty();
    match verb {
        "get" if history::is_asked(call) => Box::pin(history::get(call, served)),
        "get" => Box::pin(read::get(call, served)),
        "list" => Box::pin(read::list(call, served)),
        "watch" => Box::pin(watch::watch(call, served)),
        "create" if !named => Box::pin(mutate::create(call, served, body)),
        "update" if named => Box::pin(mutate::update(call, served, body)),
        "patch" if named => Box::pin(mutate::patch(call, served, body)),
        "delete" => Box::pin(delete::delete(call, served, body)),
        "deletecollection" => Box::pin(delete::delete_collection(call, served, body)),
        _ => refused(method_not_allowed()),
    }
}
