//! Patches of every type, applied to an object that the input chooses (see [`super::decoders`]).

use api::apply::{Request, apply as apply_configuration};
use api::codec::{Limits, json as json_codec, yaml as yaml_codec};
use api::normalize::{UnknownFields, normalize};
use api::patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Value};
use base::Random;
use serde_json::json;

use super::decoders::{make, normal, split};

/// A JSON patch with one of each operation.
pub fn make_json(random: &Random) -> Vec<u8> {
    make(random, |_, _| {
        let patch = json!([
            {"op": "test", "path": "/kind", "value": "x"}, {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"},
            {"op": "copy", "from": "/metadata", "path": "/spec/x"}, {"op": "move", "from": "/kind", "path": "/a/0"},
            {"op": "replace", "path": "/spec/containers/-", "value": [1]}, {"op": "remove", "path": "/metadata/name"},
        ]);
        let operations = patch.as_array().expect("invariant: a list");
        let from = random.index(operations.len());
        json_codec::encode(&Value::from(operations[from..].to_vec()))
    })
}

/// Another object of the kind as the patch.
pub fn make_object(random: &Random) -> Vec<u8> {
    make(random, |object, _| json_codec::encode(&object))
}

pub fn json(input: &[u8]) -> String {
    patched(input, |live, patch, _| json_patch(live, patch))
}

pub fn merge(input: &[u8]) -> String {
    patched(input, |live, patch, _| merge_patch(live, patch))
}

pub fn strategic(input: &[u8]) -> String {
    patched(input, strategic_merge_patch)
}

/// Applies a patch; what comes out goes through the normal form, as in the API server.
fn patched(input: &[u8], patch: impl Fn(&Value, &Value, &SchemaRef) -> Result<Value, PatchError>) -> String {
    let (object, _, schema, document) = split(input);
    let live = normal(object, &schema);
    let document = match json_codec::decode(document, &Limits::default()) {
        Err(error) => return error.to_string(),
        Ok(document) => document.value,
    };
    match patch(&live, &document, &schema) {
        Err(error) => error.to_status().message,
        Ok(mut made) => match normalize(&mut made, &schema, UnknownFields::Ignore) {
            Err(error) => error.to_string(),
            Ok(_) if made == live => "nothing changed".into(),
            Ok(_) => "changed".into(),
        },
    }
}

/// Server-side apply: applying the same again changes nothing.
pub fn apply(input: &[u8]) -> String {
    let (object, gvk, schema, document) = split(input);
    let live = normal(object, &schema);
    let mut config = match yaml_codec::decode(document, &Limits::default()) {
        Err(error) => return error.to_string(),
        Ok(decoded) if !decoded.value.is_object() => return "no object".into(),
        Ok(decoded) => decoded.value,
    };
    // Who owns what stands in the metadata; lists and options have none and are never applied.
    if live.pointer("/metadata").is_none() || schema.node().field("items").is_some() {
        return "not a kind that is stored".into();
    }
    // Another kind is refused before.
    config["apiVersion"] = live["apiVersion"].clone();
    config["kind"] = live["kind"].clone();
    let request = request(gvk, &schema);
    let mut once = match apply_configuration(&live, &config, &request, true) {
        Err(error) => return error.to_status().message,
        Ok(made) => made,
    };
    if let Err(error) = normalize(&mut once, &schema, UnknownFields::Ignore) {
        return error.to_string();
    }
    match apply_configuration(&once, &config, &request, false) {
        Err(error) => panic!("an apply of the same conflicts with itself: {error:?}"),
        Ok(mut twice) => {
            normalize(&mut twice, &schema, UnknownFields::Ignore).expect("an apply of the same was refused");
            assert_eq!(twice, once, "an apply of the same changed something");
            "applied".into()
        }
    }
}

fn request<'a>(kind: &'a GroupVersionKind, schema: &'a SchemaRef) -> Request<'a> {
    Request {
        kind,
        schema,
        manager: "fuzz",
        subresource: "",
        now: "2026-01-02T03:04:05Z",
        reset: None,
        versions: None,
    }
}
