//! The `scale` subresource: `autoscaling/v1 Scale` over `spec.replicas`, for any row that has it.

use std::sync::Arc;

use http::Response;
use serde_json::json;

use api::codec::MediaType;
use api::field::{Error, Path};
use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Reason, Status, Value, meta};
use client::Body;
use kinds::age;
use kinds::custom::ScalePaths;
use kinds::row::PrintContext;

use crate::call::{Call, RequestBody, read_body, rfc3339};
use crate::decode;
use crate::managed;
use crate::options::WriteOptions;
use crate::registry::Served;
use crate::respond;
use crate::respond::negotiate::Form;

use super::mutate::{Document, apply_config, patch_type};
use super::read;
use super::write::Write;

/// The kind of what is read and written here.
pub fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

fn schema() -> SchemaRef {
    SchemaRef::builtin(&kind()).expect("invariant: the schema has autoscaling/v1 Scale")
}

/// GET.
pub async fn get(call: &Call, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let object = read::fetch(call, served).await?;
    let object = object.value();
    if let Some(paths) = paths(served)
        && replicas(paths, &object)?.0.is_none()
    {
        let why = format!(
            "the spec replicas field {} does not exist",
            api::field::quote(&paths.spec)
        );
        return Err(Status::internal(why));
    }
    let scale = scale_in(served, &object)?;
    if let Form::Table(version) = call.output.form {
        let context = PrintContext {
            now_seconds: call.now_seconds(),
        };
        return Ok(respond::tree(call, &scale_table(&scale, version, &context), 200));
    }
    Ok(respond::tree(call, &scale, 200))
}

/// What `kubectl get --subresource=scale` shows. Source: kubernetes/pkg/printers/internalversion (printScale).
fn scale_table(scale: &Value, version: &str, context: &PrintContext) -> Value {
    let column = |name: &str, kind: &str, format: &str| json!({"name": name, "type": kind, "format": format, "priority": 0, "description": ""});
    let cells = json!([
        meta::name(scale),
        scale["spec"]["replicas"],
        scale["status"]["replicas"],
        age(scale, context)
    ]);
    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": scale["metadata"]});
    json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {"resourceVersion": meta::resource_version(scale)},
        "columnDefinitions": [column("Name", "string", "name"), column("Desired", "integer", ""),
            column("Available", "integer", ""), column("Age", "string", "")],
        "rows": [{"cells": cells, "object": object}]})
}

/// PUT.
pub async fn update(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "UpdateOptions", false)?;
    let scale = decode::object(call, &bytes, &kind(), &schema(), options.field_validation)?;
    write(call, served, &options, &|_| Ok(scale.clone())).await
}

/// PATCH.
pub async fn patch(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let media = patch_type(call)?;
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "PatchOptions", media == MediaType::ApplyYaml)?;
    let document = Document::read(media, &bytes, &options)?;
    if media == MediaType::ApplyYaml {
        return apply(call, served, &options, &document).await;
    }
    let make = |live: &Value| document.patch(call, &schema(), live, &options);
    write(call, served, &options, &make).await
}

/// Server-side apply of a Scale: of the one field that it sets in the scaled object, which is owned there, so that whoever else
/// owns it is told. Source: apimachinery/pkg/util/managedfields/scalehandler.go.
async fn apply(
    call: &Call,
    served: &Arc<Served>,
    options: &WriteOptions,
    document: &Document,
) -> Result<Response<Body>, Status> {
    let config = apply_config(&kind(), document.value())?;
    check_fields(config)?;
    let write = writer(call, served, options);
    let mut of_parent = json!({"apiVersion": served.gvk.api_version(), "kind": served.gvk.kind, "metadata": {}});
    for field in ["name", "uid", "resourceVersion"] {
        meta::set_text(&mut of_parent, field, meta::text(config, field));
    }
    if let Some(replicas) = config.pointer("/spec/replicas") {
        of_parent["spec"] = json!({"replicas": replicas});
    }
    let now = rfc3339(call.server.clock.now());
    let make = |live: Option<&Value>| {
        let live = live.ok_or_else(|| Status::not_found(&served.resource(), write.name))?;
        let object = managed::apply(served, "scale", Some(live), &of_parent, options, &now)?;
        document.report_applied(call, options)?;
        let mut written = replicas_set(live, &object)?;
        written["metadata"]["managedFields"] = object["metadata"]["managedFields"].clone();
        Ok(written)
    };
    let written = write.update(&make, false).await?;
    Ok(respond::tree(call, &scale_of(&written.object.value())?, 200))
}

/// An apply configuration is typed: what its type does not have is an error, whatever the field validation.
fn check_fields(config: &Value) -> Result<(), Status> {
    let why = match normalize(&mut config.clone(), &schema(), UnknownFields::Report) {
        Err(error) => error.to_string(),
        Ok(unknown) => match unknown.first() {
            None => return Ok(()),
            Some(field) => format!(".{}: field not declared in schema", field.path),
        },
    };
    let (namespace, name, kind) = (meta::namespace(config), meta::name(config), kind());
    let message = format!("failed to create typed patch object ({namespace}/{name}; {kind}): {why}");
    Err(Status::failure(Reason::Unknown, message))
}

fn writer<'a>(call: &'a Call, served: &'a Arc<Served>, options: &'a WriteOptions) -> Write<'a> {
    Write {
        call,
        served,
        subresource: "scale",
        name: &call.attributes.name,
        options,
        internal: false,
    }
}

async fn write(
    call: &Call,
    served: &Arc<Served>,
    options: &WriteOptions,
    make_scale: &(dyn Fn(&Value) -> Result<Value, Status> + Send + Sync),
) -> Result<Response<Body>, Status> {
    let write = writer(call, served, options);
    let now = rfc3339(call.server.clock.now());
    let make = |live: Option<&Value>| {
        let live = live.ok_or_else(|| Status::not_found(&served.resource(), write.name))?;
        let scale = make_scale(&scale_in(served, live)?)?;
        let mut object = replicas_set_in(served, live, &scale)?;
        managed::update(served, "scale", Some(live), &mut object, &options.manager, &now)?;
        Ok(object)
    };
    let written = write.update(&make, false).await?;
    Ok(respond::tree(call, &scale_in(served, &written.object.value())?, 200))
}

/// Where a custom resource keeps its replicas.
fn paths(served: &Served) -> Option<&ScalePaths> {
    served.version().custom.as_ref()?.scale.as_ref()
}

/// The replicas that are wanted and those that are there.
fn replicas(paths: &ScalePaths, object: &Value) -> Result<(Option<i64>, i64), Status> {
    paths.replicas(object).map_err(Status::internal)
}

/// The Scale of an object, wherever its kind keeps the replicas.
pub fn scale_in(served: &Served, object: &Value) -> Result<Value, Status> {
    let mut scale = scale_of(object)?;
    if let Some(paths) = paths(served) {
        let (wanted, there) = replicas(paths, object)?;
        let selector = paths.selector(object).map_err(Status::internal)?;
        scale["spec"] = json!({"replicas": wanted.unwrap_or(0)});
        scale["status"] = json!({"replicas": there, "selector": selector});
        normalize(&mut scale, &schema(), UnknownFields::Ignore).map_err(Status::internal)?;
    }
    Ok(scale)
}

/// The object with the Scale's replicas, wherever its kind keeps them.
pub fn replicas_set_in(served: &Served, live: &Value, scale: &Value) -> Result<Value, Status> {
    let mut object = replicas_set(live, scale)?;
    if let Some(paths) = paths(served) {
        // What the general way sets is no field of this kind.
        object["spec"] = live["spec"].clone();
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        paths.set_replicas(&mut object, replicas).map_err(Status::bad_request)?;
    }
    Ok(object)
}

/// The object with the Scale's replicas; the Scale's version and uid have to be the object's.
pub fn replicas_set(live: &Value, scale: &Value) -> Result<Value, Status> {
    let name = meta::name(scale);
    if !name.is_empty() && name != meta::name(live) {
        let expected = meta::name(live);
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let errors = [Error::invalid(&path, replicas, "must be greater than or equal to 0")];
        return Err(Status::invalid(&kind().group_kind(), name, &errors));
    }
    let mut object = live.clone();
    object["spec"]["replicas"] = replicas.into();
    for field in ["resourceVersion", "uid"] {
        meta::set_text(&mut object, field, meta::text(scale, field));
    }
    Ok(object)
}

/// The Scale of a hub object.
pub fn scale_of(object: &Value) -> Result<Value, Status> {
    let metadata = json!({
        "name": meta::name(object), "namespace": meta::namespace(object), "uid": meta::uid(object),
        "resourceVersion": meta::resource_version(object),
        "creationTimestamp": object["metadata"]["creationTimestamp"],
    });
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector_text(object)},
    });
    normalize(&mut scale, &schema(), UnknownFields::Ignore).map_err(Status::internal)?;
    Ok(scale)
}

/// The selector as the text that a list takes. ReplicationControllers have a plain map, the others a LabelSelector.
fn selector_text(object: &Value) -> String {
    let selector = &object["spec"]["selector"];
    let is_object = selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some();
    let parsed = if is_object {
        api::selector::LabelSelector::from_object(selector).ok()
    } else {
        selector.as_object().map(|labels| {
            let pairs = labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or("")));
            api::selector::LabelSelector::from_labels(pairs)
        })
    };
    parsed.map(|selector| selector.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_row_of_a_table() {
        let scale = json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"replicas": 3}, "status": {"replicas": 2}});
        let table = scale_table(&scale, "v1", &PrintContext { now_seconds: 60 });
        assert_eq!(table["rows"][0]["cells"], json!(["web", 3, 2, "60s"]));
    }

    #[test]
    fn scales_show_the_replicas_and_the_selector() {
        for (selector, expect) in [
            (json!({"matchLabels": {"app": "web"}}), "app=web"),
            (json!({"app": "web", "tier": "a"}), "app=web,tier=a"),
        ] {
            let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7"},
                "spec": {"replicas": 3, "selector": selector}, "status": {"replicas": 2}});
            let scale = scale_of(&object).unwrap();
            assert_eq!(
                (&scale["spec"]["replicas"], &scale["status"]["replicas"]),
                (&json!(3), &json!(2))
            );
            assert_eq!(scale["status"]["selector"], expect);
        }
    }

    #[test]
    fn replicas_are_written_back() {
        let live = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 3}});
        let scale = |replicas: i64| json!({"metadata": {"name": "a"}, "spec": {"replicas": replicas}});
        let object = replicas_set(&live, &scale(5)).unwrap();
        assert_eq!(
            (&object["spec"]["replicas"], meta::resource_version(&object)),
            (&json!(5), "")
        );
        assert_eq!(replicas_set(&live, &scale(-1)).unwrap_err().code, 422);
    }
}
