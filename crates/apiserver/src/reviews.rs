//! Virtual resources: questions that are answered and not stored (`SubjectAccessReview` and its kin, `TokenReview`,
//! `SelfSubjectReview`), the old `bindings`, and `componentstatuses`.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/authorization` and `pkg/registry/authentication`.

mod selectors;

use std::sync::Arc;

use http::Response;
use serde_json::json;

use api::field::{Error, ErrorList, Path};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Map, Status, Value, meta};
use client::Body;

use crate::call::{Call, RequestBody, read_body};
use crate::connect::pods;
use crate::decode;
use crate::options::WriteOptions;
use crate::pipeline::{Decision, Review, Told};
use crate::request::{Attributes, UserInfo};
use crate::respond;
use crate::respond::negotiate::{Form, Offers, negotiate};
use crate::verbs;
use crate::verbs::write::{run_admit, run_validate};
use crate::virtuals::Virtual;
use selectors::Selectors;

/// Answers a request for a virtual resource.
pub async fn serve(call: &Arc<Call>, entry: &Virtual, body: RequestBody) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    let placed = entry.namespaced != attributes.namespace.is_empty();
    if !entry.verbs.contains(&&*attributes.verb) || !attributes.subresource.is_empty() || !placed {
        return Err(verbs::method_not_allowed());
    }
    if entry.plural == "componentstatuses" {
        return component_statuses(call);
    }
    // What is not stored has no metadata to show: no Table, no PartialObjectMetadata.
    negotiate(&call.headers, &call.query, Offers::PLAIN)?;
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "CreateOptions", false)?;
    let gvk = GroupVersionKind::new(entry.group, entry.version, entry.kind);
    let schema = SchemaRef::builtin(&gvk).ok_or_else(|| Status::internal(format_args!("no schema for {gvk}")))?;
    let mut object = decode::object(call, &bytes, &gvk, &schema, options.field_validation)?;
    if entry.plural == "bindings" {
        return pods::bind_by_body(call, object, &options).await;
    }
    object = admitted(call, object, &gvk, &options).await?;
    match entry.plural {
        "tokenreviews" => token_review(call, &mut object).await?,
        "selfsubjectreviews" => object["status"] = json!({"userInfo": call.user.to_value()}),
        "selfsubjectrulesreviews" => rules_review(call, &mut object)?,
        "selfsubjectaccessreviews" => access_review(call, &mut object, Some(&call.user), None, &gvk).await?,
        "localsubjectaccessreviews" => {
            access_review(call, &mut object, None, Some(&attributes.namespace), &gvk).await?
        }
        _ => access_review(call, &mut object, None, None, &gvk).await?,
    }
    Ok(respond::tree(call, &object, 201))
}

/// The question after both admission slots: what is not stored is created all the same.
async fn admitted(call: &Call, object: Value, gvk: &GroupVersionKind, options: &WriteOptions) -> Result<Value, Status> {
    let review = Review {
        kind: gvk.clone(),
        name: meta::name(&object).to_owned(),
        dry_run: options.dry_run,
        options: options.to_value("CreateOptions"),
        ..Review::of(call)
    };
    let mut slot = Some(object);
    run_admit(call, &review, &mut slot, None).await?;
    run_validate(call, &review, slot.as_ref(), None).await?;
    slot.ok_or_else(|| Status::internal("an admission plug-in removed the object"))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or("")
}

async fn token_review(call: &Call, review: &mut Value) -> Result<(), Status> {
    let token = text(&review["spec"], "token").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let audiences: Vec<String> = strings(&review["spec"]["audiences"]);
    let outcome = call.server.authenticator.authenticate_token(&token, &audiences).await;
    let mut status = Map::new();
    match outcome {
        Ok(Some(identity)) => {
            tell(call, identity.told);
            status.insert("authenticated".into(), true.into());
            status.insert("user".into(), identity.user.to_value());
            if !identity.audiences.is_empty() {
                status.insert("audiences".into(), json!(identity.audiences));
            }
        }
        Ok(None) => {
            status.insert("user".into(), json!({}));
        }
        Err(refusal) => {
            tell(call, refusal.told);
            status.insert("user".into(), json!({}));
            status.insert("error".into(), refusal.why.into());
        }
    }
    review["status"] = Value::Object(status);
    Ok(())
}

/// What there is to tell of a token is told to whoever asks about it, as if it was theirs: upstream's authenticators know
/// the request only.
fn tell(call: &Call, told: Told) {
    if let Some(trail) = &call.audit {
        told.notes.iter().for_each(|(key, value)| trail.annotate(key, value));
    }
    told.warnings.into_iter().for_each(|text| call.warn(text));
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn rules_review(call: &Call, review: &mut Value) -> Result<(), Status> {
    let namespace = text(&review["spec"], "namespace").to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = call.server.authorizer.rules(&call.user, &namespace);
    let mut status = json!({
        "resourceRules": rules.resource_rules,
        "nonResourceRules": rules.non_resource_rules,
        "incomplete": rules.incomplete,
    });
    if !rules.evaluation_error.is_empty() {
        status["evaluationError"] = rules.evaluation_error.into();
    }
    review["status"] = status;
    Ok(())
}

/// Answers an access review: for the user that asks (`own`), or for the one that it names.
async fn access_review(
    call: &Call,
    review: &mut Value,
    own: Option<&UserInfo>,
    namespace: Option<&str>,
    gvk: &GroupVersionKind,
) -> Result<(), Status> {
    let spec = &review["spec"];
    let mut errors = check_spec(spec, own.is_none());
    if let Some(namespace) = namespace {
        let asked = spec["resourceAttributes"]["namespace"].as_str().unwrap_or("");
        if !meta::namespace(review).is_empty() && meta::namespace(review) != namespace {
            let path = Path::new("metadata").child("namespace");
            errors.push(Error::invalid(
                &path,
                meta::namespace(review),
                "must match the request's namespace",
            ));
        }
        if asked != namespace {
            let path = Path::new("spec").child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, asked, "must match metadata.namespace"));
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&gvk.group_kind(), "", &errors));
    }
    let user = match own {
        Some(user) => user.clone(),
        None => UserInfo {
            name: text(spec, "user").into(),
            uid: text(spec, "uid").into(),
            groups: strings(&spec["groups"]),
            extra: spec["extra"]
                .as_object()
                .map(|extra| {
                    extra
                        .iter()
                        .map(|(key, values)| (key.clone(), strings(values)))
                        .collect()
                })
                .unwrap_or_default(),
        },
    };
    let (attributes, ignored) = attributes_of(spec);
    let decision = call.server.authorizer.authorize(&user, &attributes).await;
    let mut status = Map::new();
    let (allowed, denied, reason, error) = match decision {
        Decision::Allow(reason) => (true, false, reason, String::new()),
        Decision::Deny(reason) => (false, true, reason, String::new()),
        Decision::NoOpinion(reason) => (false, false, reason, String::new()),
        Decision::Failed { denies, reason, error } => (false, denies, reason, error),
    };
    status.insert("allowed".into(), allowed.into());
    if denied {
        status.insert("denied".into(), true.into());
    }
    if !reason.is_empty() {
        status.insert("reason".into(), reason.into());
    }
    let mut errors = vec![error];
    errors.extend(ignored);
    errors.retain(|error| !error.is_empty());
    if !errors.is_empty() {
        status.insert("evaluationError".into(), errors.join("; ").into());
    }
    review["status"] = Value::Object(status);
    Ok(())
}

fn check_spec(spec: &Value, names_user: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let path = Path::new("spec");
    let resource = spec["resourceAttributes"].is_object();
    let other = spec["nonResourceAttributes"].is_object();
    match (resource, other) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(Error::invalid(
                &path.child("nonResourceAttributes"),
                spec["nonResourceAttributes"].clone(),
                why,
            ));
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(Error::invalid(
                &path.child("resourceAttributes"),
                spec["nonResourceAttributes"].clone(),
                why,
            ));
        }
        _ => {}
    }
    if names_user && text(spec, "user").is_empty() && strings(&spec["groups"]).is_empty() {
        errors.push(Error::invalid(
            &path.child("user"),
            text(spec, "user"),
            "at least one of user or group must be specified",
        ));
    }
    errors.append(&mut selectors::check(
        &spec["resourceAttributes"],
        &path.child("resourceAttributes"),
    ));
    errors
}

/// What is asked, and what of it was left out.
fn attributes_of(spec: &Value) -> (Attributes, Vec<String>) {
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        let field = |name: &str| text(resource, name).to_owned();
        let version = match &*field("version") {
            "" => "*".to_owned(),
            version => version.to_owned(),
        };
        let selectors = Selectors::of(resource);
        let attributes = Attributes {
            verb: field("verb"),
            group: field("group"),
            version,
            resource: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
            is_resource: true,
            field_selector: selectors.fields,
            label_selector: selectors.labels,
            ..Attributes::default()
        };
        return (attributes, selectors.ignored);
    }
    let other = &spec["nonResourceAttributes"];
    let attributes = Attributes {
        verb: text(other, "verb").into(),
        path: text(other, "path").into(),
        ..Attributes::default()
    };
    (attributes, Vec::new())
}

/// Deprecated upstream since v1.19 and still asked for by `kubectl get cs`.
fn component_statuses(call: &Call) -> Result<Response<Body>, Status> {
    call.warn("v1 ComponentStatus is deprecated in v1.19+");
    let etcd = call.server.store_health();
    let components = [("controller-manager", Ok(())), ("scheduler", Ok(())), ("etcd-0", etcd)];
    let items: Vec<Value> = components
        .into_iter()
        .map(|(name, health): (&str, Result<(), String>)| {
            let condition = match health {
                Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
                Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
            };
            json!({"kind": "ComponentStatus", "apiVersion": "v1",
                "metadata": {"name": name}, "conditions": [condition]})
        })
        .collect();
    if call.attributes.verb == "get" {
        let name = &call.attributes.name;
        let found = items.into_iter().find(|item| meta::name(item) == name);
        let found = found.ok_or_else(|| Status::not_found(&call.attributes.group_resource(), name))?;
        if let Form::Table(version) = call.output.form {
            return Ok(respond::tree(call, &component_table(&[found], version), 200));
        }
        return Ok(respond::tree(call, &found, 200));
    }
    if let Form::Table(version) = call.output.form {
        return Ok(respond::tree(call, &component_table(&items, version), 200));
    }
    let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
    Ok(respond::tree(call, &list, 200))
}

fn component_table(items: &[Value], version: &str) -> Value {
    let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "priority": 0, "description": ""});
    let row = |item: &Value| {
        let condition = &item["conditions"][0];
        let state = if condition["status"] == "True" {
            "Healthy"
        } else {
            "Unhealthy"
        };
        let cells = json!([item["metadata"]["name"], state, condition["message"], ""]);
        json!({"cells": cells, "object": {"kind": "PartialObjectMetadata",
            "apiVersion": format!("meta.k8s.io/{version}"), "metadata": item["metadata"]}})
    };
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
        "columnDefinitions": [column("Name", "name"), column("Status", ""), column("Message", ""), column("Error", "")],
        "rows": items.iter().map(row).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_ask_exactly_one_question() {
        let resource = json!({"resourceAttributes": {"verb": "get", "resource": "pods"}});
        let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/"}});
        for (spec, names_user, count) in [
            (resource.clone(), false, 0),
            (path.clone(), false, 0),
            (resource.clone(), true, 1),
            (json!({}), false, 1),
            (
                json!({"resourceAttributes": {}, "nonResourceAttributes": {}, "user": "a"}),
                true,
                1,
            ),
        ] {
            assert_eq!(check_spec(&spec, names_user).len(), count, "{spec}");
        }
        let (attributes, _) = attributes_of(&resource);
        assert!(attributes.is_resource && attributes.resource == "pods" && attributes.version == "*");
        assert!(!attributes_of(&path).0.is_resource);
    }
}
