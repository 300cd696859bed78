//! `pods/binding`.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage/storage.go`.

use std::sync::Arc;

use http::Response;

use api::field::{Error, ErrorList, Path};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Status, Value, meta};
use client::Body;

use crate::call::{Call, RequestBody, read_body, rfc3339};
use crate::decode;
use crate::options::WriteOptions;
use crate::pipeline::Review;
use crate::registry::Served;
use crate::respond;
use crate::verbs::write::{Write, run_admit, run_validate};

/// `POST pods/<name>/binding`.
pub async fn bind(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "CreateOptions", false)?;
    let gvk = GroupVersionKind::new("", "v1", "Binding");
    let schema = SchemaRef::builtin(&gvk).expect("invariant: the schema has v1 Binding");
    let binding = decode::object(call, &bytes, &gvk, &schema, options.field_validation)?;
    bind_pod(call, served, &call.attributes.name, &binding, &options).await
}

/// `POST bindings`: the same, with the pod's name in the body.
pub async fn bind_by_body(call: &Call, binding: Value, options: &WriteOptions) -> Result<Response<Body>, Status> {
    let served = call
        .registry
        .find("", "v1", "pods")
        .ok_or_else(Status::no_such_path)?
        .clone();
    let name = meta::name(&binding).to_owned();
    bind_pod(call, &served, &name, &binding, options).await
}

async fn bind_pod(
    call: &Call,
    served: &Arc<Served>,
    name: &str,
    binding: &Value,
    options: &WriteOptions,
) -> Result<Response<Body>, Status> {
    let gvk = GroupVersionKind::new("", "v1", "Binding");
    if meta::name(binding) != name && !meta::name(binding).is_empty() {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or("");
    let node = target["name"].as_str().unwrap_or("").to_owned();
    let mut errors = ErrorList::new();
    let path = Path::new("target");
    if !matches!(kind, "" | "Node") {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid(&gvk.group_kind(), name, &errors));
    }
    let binding = &admit_binding(call, served, name, binding, options).await?;
    let write = Write {
        call,
        served,
        subresource: "binding",
        name,
        options,
        internal: true,
    };
    let now = rfc3339(call.server.clock.now());
    let make = |live: Option<&Value>| {
        let pod = live.ok_or_else(|| Status::not_found(&served.resource(), name))?;
        assign(pod, binding, &node, &now, &served.resource())
    };
    write.update(&make, false).await?;
    let mut status = Status::success(None);
    status.code = 201;
    Ok(respond::success(call, &status))
}

/// Admission sees the binding, not the pod (upstream: `pods/binding` is created).
async fn admit_binding(
    call: &Call,
    served: &Served,
    name: &str,
    binding: &Value,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let review = Review {
        kind: GroupVersionKind::new("", "v1", "Binding"),
        resource: served.gvr.clone(),
        subresource: "binding".into(),
        name: name.into(),
        dry_run: options.dry_run,
        options: options.to_value("CreateOptions"),
        ..Review::of(call)
    };
    let mut slot = Some(binding.clone());
    run_admit(call, &review, &mut slot, None).await?;
    run_validate(call, &review, slot.as_ref(), None).await?;
    Ok(slot.unwrap_or_default())
}

/// The pod on its node. Pure.
fn assign(pod: &Value, binding: &Value, node: &str, now: &str, resource: &api::GroupResource) -> Result<Value, Status> {
    let name = meta::name(pod);
    let conflict = |why: String| {
        Status::conflict(
            &api::GroupResource {
                resource: "pods/binding".into(),
                ..resource.clone()
            },
            name,
            &why,
        )
    };
    let uid = meta::uid(binding);
    if !uid.is_empty() && uid != meta::uid(pod) {
        let found = meta::uid(pod);
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"
        )));
    }
    if meta::is_deleting(pod) {
        return Err(conflict(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        )));
    }
    let current = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if !current.is_empty() {
        return Err(conflict(format!(
            "pod {name} is already assigned to node {}",
            api::field::quote(current)
        )));
    }
    if pod["spec"]["schedulingGates"]
        .as_array()
        .is_some_and(|gates| !gates.is_empty())
    {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut pod = pod.clone();
    pod["spec"]["nodeName"] = node.into();
    for field in ["annotations", "labels"] {
        let added = binding["metadata"][field].as_object().cloned().unwrap_or_default();
        if added.is_empty() {
            continue;
        }
        let all = meta::metadata_mut(&mut pod)
            .entry(field)
            .or_insert_with(|| Value::Object(Default::default()));
        if let Some(all) = all.as_object_mut() {
            all.extend(added);
        }
    }
    set_condition(&mut pod, "PodScheduled", "True", now);
    Ok(pod)
}

fn set_condition(pod: &mut Value, kind: &str, status: &str, now: &str) {
    let condition = serde_json::json!({
        "type": kind, "status": status, "lastProbeTime": null, "lastTransitionTime": now,
        "observedGeneration": pod["metadata"]["generation"],
    });
    let mut condition = condition;
    if condition["observedGeneration"].is_null()
        && let Some(fields) = condition.as_object_mut()
    {
        fields.remove("observedGeneration");
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = Value::Array(Vec::new());
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else {
        return;
    };
    conditions.retain(|own| own["type"] != kind);
    conditions.push(condition);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_bound_once() {
        let resource = api::GroupResource {
            group: String::new(),
            resource: "pods".into(),
        };
        let pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {}, "status": {}});
        let binding = json!({"metadata": {"name": "a", "annotations": {"k": "v"}}, "target": {"name": "n1"}});
        let bound = assign(&pod, &binding, "n1", "now", &resource).unwrap();
        assert_eq!(
            (&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["k"]),
            (&json!("n1"), &json!("v"))
        );
        assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
        let again = assign(&bound, &binding, "n2", "now", &resource).unwrap_err();
        assert_eq!(
            (again.code, &*again.message),
            (
                409,
                r#"Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1""#
            )
        );
        let deleting = json!({"metadata": {"name": "a", "deletionTimestamp": "x"}, "spec": {}});
        assert_eq!(
            assign(&deleting, &binding, "n1", "now", &resource).unwrap_err().code,
            409
        );
        let gated = json!({"metadata": {"name": "a"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        assert_eq!(assign(&gated, &binding, "n1", "now", &resource).unwrap_err().code, 409);
    }
}
