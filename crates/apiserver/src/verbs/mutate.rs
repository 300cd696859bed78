//! POST, PUT and PATCH over any row and its view subresources: what is special to each verb before the common stages.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;

use api::codec::MediaType;
use api::field::{Error, Path, aggregate};
use api::normalize::{UnknownFields, normalize};
use api::patch;
use api::schema::SchemaRef;
use api::{GroupVersionKind, Status, Value, meta};
use client::Body;

use crate::call::{Call, RequestBody, read_body, rfc3339};
use crate::decode;
use crate::managed;
use crate::options::{FieldValidation, WriteOptions};
use crate::registry::Served;
use crate::respond::{self, view};

use super::read::scope;
use super::write::{Write, Written, check_name, ensure_namespace};

/// What a patch may be (upstream's list and order).
const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

/// POST.
pub async fn create(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "CreateOptions", false)?;
    let make = || {
        let object = decode::object(call, &bytes, &served.gvk, &served.schema, options.field_validation)?;
        view::to_hub(served, object)
    };
    let write = Write {
        call,
        served,
        subresource: "",
        name: "",
        options: &options,
        internal: false,
    };
    respond::object(call, served, &write.create(&make).await?.object, 201)
}

/// PUT.
pub async fn update(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "UpdateOptions", false)?;
    let object = decode::object(call, &bytes, &served.gvk, &served.schema, options.field_validation)?;
    let mut object = view::to_hub(served, object)?;
    let write = writer(call, served, &options);
    ensure_namespace(&mut object, scope(&served.kind, &call.attributes.namespace))?;
    check_name(&object, write.name)?;
    let now = rfc3339(call.server.clock.now());
    let make = |live: Option<&Value>| {
        let mut object = object.clone();
        served.kind.row.set_defaults(&mut object);
        if let Some(live) = live {
            managed::update(
                served,
                write.subresource,
                Some(live),
                &mut object,
                &options.manager,
                &now,
            )?;
        }
        Ok(object)
    };
    let allow_create = served.kind.row.create_on_update && write.subresource.is_empty();
    let written = write.update(&make, allow_create).await?;
    answer(call, served, &written)
}

fn writer<'a>(call: &'a Call, served: &'a Arc<Served>, options: &'a WriteOptions) -> Write<'a> {
    let attributes = &call.attributes;
    Write {
        call,
        served,
        subresource: &attributes.subresource,
        name: &attributes.name,
        options,
        internal: false,
    }
}

fn answer(call: &Call, served: &Served, written: &Written) -> Result<Response<Body>, Status> {
    respond::object(call, served, &written.object, if written.created { 201 } else { 200 })
}

/// Which patch a request is.
pub fn patch_type(call: &Call) -> Result<MediaType, Status> {
    let text = call
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    match MediaType::parse(text) {
        Some(
            media @ (MediaType::JsonPatch
            | MediaType::MergePatch
            | MediaType::StrategicMergePatch
            | MediaType::ApplyYaml),
        ) => Ok(media),
        _ => Err(decode::unsupported_media_type(PATCH_TYPES)),
    }
}

/// PATCH.
pub async fn patch(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    tracing::trace!(target: "walk", "the verb");
    let media = patch_type(call)?;
    // Strategic merge needs the types of built-in kinds (upstream: custom resources do not take it).
    if media == MediaType::StrategicMergePatch && SchemaRef::builtin(&served.gvk).is_none() {
        return Err(decode::unsupported_media_type(
            &PATCH_TYPES.replace("application/strategic-merge-patch+json, ", ""),
        ));
    }
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "PatchOptions", media == MediaType::ApplyYaml)?;
    let write = writer(call, served, &options);
    let now = rfc3339(call.server.clock.now());
    let document = Document::read(media, &bytes, &options)?;
    let written = match media {
        MediaType::ApplyYaml => {
            let config = apply_config(&served.gvk, &document.value)?;
            let make = |live: Option<&Value>| {
                let mut object = managed::apply(served, write.subresource, live, config, &options, &now)?;
                document.report_applied(call, &options)?;
                served.kind.row.set_defaults(&mut object);
                Ok(object)
            };
            write.update(&make, write.subresource.is_empty()).await?
        }
        _ => {
            let make = |live: Option<&Value>| {
                let live = live.ok_or_else(|| Status::not_found(&served.resource(), write.name))?;
                let seen = view::seen(served, live)?;
                let patched = document.patch(call, &served.schema, &seen, &options)?;
                let mut object = view::to_hub(served, patched)?;
                served.kind.row.set_defaults(&mut object);
                managed::update(
                    served,
                    write.subresource,
                    Some(live),
                    &mut object,
                    &options.manager,
                    &now,
                )?;
                Ok(object)
            };
            write.update(&make, false).await?
        }
    };
    answer(call, served, &written)
}

/// A decoded patch.
pub struct Document {
    media: MediaType,
    value: Value,
    strict: Vec<String>,
}

impl Document {
    /// Reads a patch of that type.
    pub fn read(media: MediaType, bytes: &Bytes, options: &WriteOptions) -> Result<Document, Status> {
        let (value, mut strict) = match media {
            MediaType::ApplyYaml => decode::apply_document(bytes)?,
            _ => decode::json_document(media, bytes)?,
        };
        if options.field_validation == FieldValidation::Ignore {
            strict.clear();
        }
        Ok(Document { media, value, strict })
    }

    /// Refuses or warns about keys that an apply configuration has twice, once it is known that it applies. Source:
    /// `applyPatcher` of apiserver/pkg/endpoints/handlers/patch.go.
    pub fn report_applied(&self, call: &Call, options: &WriteOptions) -> Result<(), Status> {
        match options.field_validation {
            FieldValidation::Strict if !self.strict.is_empty() => {
                let why = self.strict.join(", ");
                Err(Status::bad_request(format!("error strict decoding YAML: {why}")))
            }
            validation => decode::report(call, &self.strict, validation).map_err(Status::bad_request),
        }
    }

    /// The decoded tree.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Applies the patch to an object of that schema; the result is normal, and what strict validation finds is told.
    pub fn patch(
        &self,
        call: &Call,
        schema: &SchemaRef,
        seen: &Value,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let mut patched = self.apply(seen, schema)?;
        match self.media {
            // Upstream makes an object of the same type of it, whatever it says of itself.
            MediaType::StrategicMergePatch => {
                let kind = meta::gvk(seen);
                view::set_kind(&mut patched, &kind.api_version(), &kind.kind);
            }
            _ => unchanged_kind(&patched, seen).map_err(|why| invalid_patch(&self.shown(&patched), &why))?,
        }
        let mut normal = patched.clone();
        let unknown = normalize(&mut normal, schema, UnknownFields::Report)
            .map_err(|error| invalid_patch(&self.shown(&patched), &self.why(&error.to_string())))?;
        let strict: Vec<String> = self
            .strict
            .iter()
            .cloned()
            .chain(unknown.iter().map(|field| field.to_string()))
            .collect();
        decode::report(call, &strict, options.field_validation)
            .map_err(|why| invalid_patch(&self.shown(&patched), &why))?;
        Ok(normal)
    }

    /// Why the patched tree is no object, as upstream's way of decoding it says.
    fn why(&self, decoder_text: &str) -> String {
        let strategic = self.media == MediaType::StrategicMergePatch;
        let converted = strategic.then(|| converter_text(decoder_text)).flatten();
        converted.unwrap_or_else(|| decoder_text.to_owned())
    }

    /// What an error shows: the patch itself when it is a strategic one, else what it made. Source: `applyPatchToObject` and
    /// `jsonPatcher` of apiserver/pkg/endpoints/handlers/patch.go.
    fn shown(&self, patched: &Value) -> String {
        match self.media {
            MediaType::StrategicMergePatch => go_text(&self.value),
            _ => serde_json::to_string(patched).unwrap_or_default(),
        }
    }

    /// Applies the patch to any tree with a schema.
    fn apply(&self, seen: &Value, schema: &SchemaRef) -> Result<Value, Status> {
        let patched = match self.media {
            MediaType::JsonPatch => patch::json_patch(seen, &self.value),
            MediaType::MergePatch => patch::merge_patch(seen, &self.value),
            _ => patch::strategic_merge_patch(seen, &self.value, schema),
        };
        patched.map_err(|error| error.to_status())
    }
}

/// Why a strategic patch makes no object, in the words of Go's converter of trees, from the words of its JSON decoder.
/// Source: apimachinery/pkg/runtime/converter.go (`fromUnstructured`).
fn converter_text(decoder_text: &str) -> Option<String> {
    let rest = decoder_text.strip_prefix("json: cannot unmarshal ")?;
    let (found, _) = rest.split_once(' ')?;
    let (_, wanted) = rest.rsplit_once(" of type ")?;
    let found = match found {
        "object" => "map",
        "array" => "slice",
        "number" => "int64",
        other => other,
    };
    Some(if wanted.starts_with("[]") {
        format!("cannot restore slice from {found}")
    } else if wanted.starts_with("map[") {
        format!("cannot restore map from {found}")
    } else if wanted.contains('.') {
        format!("cannot restore struct from: {found}")
    } else {
        format!("unrecognized type: {wanted}")
    })
}

/// A tree as Go prints it with `%+v`: a patch is shown so in errors.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{}", go_text(value)))
                .collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// 422 for a patch whose result is no object of the kind.
fn invalid_patch(patched: &str, why: &str) -> Status {
    let errors = [Error::invalid(&Path::new("patch"), patched, why)];
    let mut status = Status::failure(
        api::Reason::Invalid,
        format!(" \"\" is invalid: {}", aggregate(&errors)),
    );
    status.details = Some(api::StatusDetails {
        causes: errors.iter().map(Error::cause).collect(),
        ..api::StatusDetails::default()
    });
    status
}

/// A patch cannot make an object one of another kind. Source: `DecodeInto` of apimachinery/pkg/runtime.
fn unchanged_kind(patched: &Value, seen: &Value) -> Result<(), String> {
    let (now, before) = (meta::gvk(patched), meta::gvk(seen));
    match now == before {
        true => Ok(()),
        false => Err(decode::no_conversion(&now, &before)),
    }
}

/// An apply configuration: of the right kind, with only known fields (others are refused by their path).
pub fn apply_config<'v>(expected: &GroupVersionKind, config: &'v Value) -> Result<&'v Value, Status> {
    if !config.is_object() {
        return Err(Status::bad_request(
            "error decoding YAML: the apply configuration is no object",
        ));
    }
    let found = meta::gvk(config);
    if config.get("kind").and_then(Value::as_str).unwrap_or("").is_empty() {
        return Err(Status::bad_request("invalid object type: Object 'Kind' is missing"));
    }
    if found != *expected {
        return Err(Status::bad_request(format!(
            "invalid object type: {found}, expected {expected}"
        )));
    }
    let metadata = &config["metadata"];
    if metadata["managedFields"]
        .as_array()
        .is_some_and(|fields| !fields.is_empty())
    {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patches_are_shown_as_go_prints_them() {
        for (patch, expect) in [
            (
                json!({"spec": {"replicas": 0, "b": null, "a": true}}),
                "map[spec:map[a:true b:<nil> replicas:0]]",
            ),
            (json!({"l": ["x", 1.5, {}]}), "map[l:[x 1.5 map[]]]"),
        ] {
            assert_eq!(go_text(&patch), expect);
        }
    }

    #[test]
    fn wrong_types_of_strategic_patches_are_told_by_the_converter() {
        for (decoder, expect) in [
            (
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
                Some("unrecognized type: int32"),
            ),
            (
                "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
                Some("cannot restore map from slice"),
            ),
            (
                "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
                Some("cannot restore slice from string"),
            ),
            (
                "json: cannot unmarshal number into Go struct field Deployment.spec of type v1.DeploymentSpec",
                Some("cannot restore struct from: int64"),
            ),
            ("illegal base64 data at input byte 0", None),
        ] {
            assert_eq!(converter_text(decoder).as_deref(), expect, "{decoder}");
        }
    }
}
