//! From a request to an answer of the fake server.

use std::collections::HashMap;

use api::{Reason, Status, Value};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use serde_json::json;

use super::selecting::Selecting;
use super::state::{Deletion, State};
use super::{FakeApi, Fault, Seen, patching, watching};
use crate::resource::{Resource, resources};
use crate::{Body, TransportError, body_of};

struct Target {
    resource: Resource,
    namespace: String,
    name: String,
    subresource: String,
}

pub(super) fn answer(api: &FakeApi, user: &str, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
    let (head, bytes) = request.into_parts();
    let path = head.uri.path().to_string();
    let query = query(head.uri.query().unwrap_or(""));
    if let Some(discovery) = discovery(api, &path) {
        return Ok(respond(StatusCode::OK, &discovery));
    }
    let Some(target) = target(api, &path) else {
        return Ok(failed(&Status::no_such_path()));
    };
    let body: Value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    };
    let watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    let verb = match (&head.method, target.name.is_empty()) {
        (&Method::GET, true) if watch => "watch",
        (&Method::GET, true) => "list",
        (&Method::GET, false) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, true) => "deletecollection",
        _ => "delete",
    };
    let seen = Seen {
        user: user.into(),
        verb,
        resource: target.resource.to_string(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        subresource: target.subresource.clone(),
        body: body.clone(),
    };
    api.shared.state.lock().requests.push(seen.clone());
    let lost = || Err(TransportError::Lost("sabotage".into()));
    let fault = api.fault(&seen);
    match &fault {
        Some(Fault::Refuse(status)) => return Ok(failed(status)),
        Some(Fault::LoseRequest) => return lost(),
        _ => {}
    }
    let served = api.shared.state.lock().served.iter().any(|(resource, verbs)| {
        *resource == target.resource && (verbs.contains(&verb) || !target.subresource.is_empty())
    });
    if !served {
        return Ok(failed(&Status::method_not_supported(
            &target.resource.group_resource(),
            verb,
        )));
    }
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    if verb == "watch" {
        let initial_events = text("sendInitialEvents") == "true";
        if initial_events && api.shared.valve.borrow().plain_lists {
            return Ok(failed(&Status::failure(
                Reason::Invalid,
                "sendInitialEvents is forbidden for watch",
            )));
        }
        let selecting = Selecting::new(&target.namespace, text("labelSelector"), text("fieldSelector"));
        let body = watching::open(
            api,
            &target.resource,
            selecting,
            text("resourceVersion").parse().ok(),
            initial_events,
        );
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        return Ok(response);
    }
    let patch_type = head
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let result = act(&mut api.shared.state.lock(), &target, verb, &query, patch_type, body);
    api.announce();
    if matches!(fault, Some(Fault::LoseAnswer)) {
        return lost();
    }
    Ok(match result {
        Ok(value) => respond(
            if verb == "create" {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            },
            &value,
        ),
        Err(status) => failed(&status),
    })
}

fn act(
    state: &mut State,
    target: &Target,
    verb: &str,
    query: &HashMap<String, String>,
    patch_type: &str,
    body: Value,
) -> Result<Value, Status> {
    let Target {
        resource,
        namespace,
        name,
        subresource,
    } = target;
    let text = |key: &str| query.get(key).map_or("", String::as_str);
    let live = |state: &State| {
        state
            .get(resource, namespace, name)
            .ok_or_else(|| Status::not_found(&resource.group_resource(), name))
    };
    match verb {
        "get" => live(state),
        "list" => {
            let selecting = Selecting::new(namespace, text("labelSelector"), text("fieldSelector"));
            let items: Vec<Value> = state
                .list(resource, namespace)
                .into_iter()
                .filter(|object| selecting.matches(object))
                .collect();
            Ok(json!({
                "apiVersion": resource.api_version(), "kind": format!("{}List", resource.kind),
                "metadata": {"resourceVersion": state.revision.to_string()}, "items": items,
            }))
        }
        "create" if subresource == "binding" => {
            let mut pod = live(state)?;
            if pod.pointer("/spec/nodeName").is_some() {
                let why = format!("pod {name} is already assigned to node");
                return Err(Status::conflict(&resource.group_resource(), name, &why));
            }
            pod["spec"]["nodeName"] = body["target"]["name"].clone();
            let condition = json!([{"type": "PodScheduled", "status": "True"}]);
            let mut status = pod.clone();
            status["status"]["conditions"] = condition;
            state.write(resource, namespace, name, "", pod)?;
            api::meta::set_text(&mut status, "resourceVersion", "");
            state.write(resource, namespace, name, "status", status)?;
            Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
        }
        "create" if subresource == "eviction" => {
            state.delete(resource, namespace, name, &deletion(&body["deleteOptions"]))
        }
        "create" if subresource == "token" => {
            live(state)?;
            let mut answer = body;
            answer["status"]["token"] = format!("token of {name}").into();
            Ok(answer)
        }
        "create" if !subresource.is_empty() => {
            live(state)?;
            Ok(body)
        }
        "create" => state.create(resource, namespace, body),
        "update" => state.write(resource, namespace, name, subresource, body),
        "patch" => {
            if patch_type == "application/apply-patch+yaml" && state.get(resource, namespace, name).is_none() {
                return state.create(resource, namespace, body);
            }
            let mut object = live(state)?;
            // A revision in the patch is a precondition; without one the patch goes on top of whatever is there.
            let revision = api::meta::resource_version(&object).to_string();
            match patch_type {
                "application/json-patch+json" => patching::json(&mut object, &body)?,
                "application/strategic-merge-patch+json" => patching::strategic(&mut object, &body),
                _ => patching::merge(&mut object, &body),
            }
            if api::meta::resource_version(&object).is_empty() {
                api::meta::set_text(&mut object, "resourceVersion", &revision);
            }
            state.write(resource, namespace, name, subresource, object)
        }
        "delete" => state.delete(resource, namespace, name, &deletion(&body)),
        _ => {
            let selecting = Selecting::new(namespace, text("labelSelector"), text("fieldSelector"));
            let how = deletion(&body);
            for object in state
                .list(resource, namespace)
                .into_iter()
                .filter(|object| selecting.matches(object))
            {
                state.delete(resource, api::meta::namespace(&object), api::meta::name(&object), &how)?;
            }
            Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200}))
        }
    }
}

fn deletion(options: &Value) -> Deletion {
    let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(String::from);
    Deletion {
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        propagation: text("/propagationPolicy"),
        grace_seconds: options.get("gracePeriodSeconds").and_then(Value::as_i64),
    }
}

fn target(api: &FakeApi, path: &str) -> Option<Target> {
    let mut parts = path.trim_matches('/').split('/').map(|part| part.replace("%2F", "/"));
    let (group, version) = match parts.next()?.as_str() {
        "api" => (String::new(), parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let mut rest: Vec<String> = parts.collect();
    let mut namespace = String::new();
    let scoped = rest.len() >= 3 && !matches!(rest[2].as_str(), "status" | "finalize");
    if rest.first().is_some_and(|part| part == "namespaces") && scoped {
        namespace = rest[1].clone();
        rest.drain(..2);
    }
    let mut rest = rest.into_iter();
    let plural = rest.next()?;
    let state = api.shared.state.lock();
    let served = state.served.iter().map(|(resource, _)| resource);
    let resource = served
        .filter(|resource| resource.group == group && resource.version == version)
        .find(|resource| resource.plural == plural)?
        .clone();
    Some(Target {
        resource,
        namespace,
        name: rest.next().unwrap_or_default(),
        subresource: rest.collect::<Vec<_>>().join("/"),
    })
}

/// Aggregated discovery.
fn discovery(api: &FakeApi, path: &str) -> Option<Value> {
    let core = match path {
        "/api" => true,
        "/apis" => false,
        _ => return None,
    };
    let state = api.shared.state.lock();
    let mut groups: Vec<(String, Vec<(String, Vec<Value>)>)> = Vec::new();
    for (resource, verbs) in state
        .served
        .iter()
        .filter(|(resource, _)| resource.group.is_empty() == core)
    {
        let row = json!({
            "resource": resource.plural, "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" }, "verbs": verbs,
            "subresources": if *resource == resources::PODS { json!([{"subresource": "status"}]) } else { json!([]) },
        });
        let at = groups
            .iter()
            .position(|(group, _)| *group == resource.group)
            .unwrap_or_else(|| {
                groups.push((resource.group.to_string(), Vec::new()));
                groups.len() - 1
            });
        let versions = &mut groups[at].1;
        match versions.iter_mut().find(|(version, _)| *version == resource.version) {
            Some((_, rows)) => rows.push(row),
            None => versions.push((resource.version.to_string(), vec![row])),
        }
    }
    let items: Vec<Value> = groups
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, resources)| json!({"version": version, "freshness": "Current", "resources": resources}))
                .collect();
            json!({"metadata": {"name": group}, "versions": versions})
        })
        .collect();
    Some(
        json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}),
    )
}

fn query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_string(), unescape(value))).collect()
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            .filter(|_| *first == b'%')
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn respond(code: StatusCode, value: &Value) -> Response<Body> {
    let bytes = serde_json::to_vec(value).expect("invariant: a Value has only text keys");
    let mut response = Response::new(body_of(bytes));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn failed(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(
        code,
        &serde_json::to_value(status).expect("invariant: a Status is a tree"),
    );
    if let Some(seconds) = status
        .details
        .as_ref()
        .map(|details| details.retry_after_seconds)
        .filter(|s| *s > 0)
    {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
