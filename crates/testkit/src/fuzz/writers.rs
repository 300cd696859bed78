//! What is written for people and tools from objects and schemas of others: the cells of Tables, and OpenAPI documents.

use std::sync::{Arc, LazyLock};

use api::codec::{Limits, json as json_codec};
use api::normalize::{UnknownFields, normalize};
use api::openapi::{self, CustomSchema, OpenApiResource, OpenApiSubresource, Source, undescribed};
use api::schema::SchemaRef;
use api::testing::{Fill, object};
use api::{GroupVersionKind, Value};
use base::Random;
use kinds::row::{PrintContext, StorageKind};
use serde_json::json;

use super::decoders::normal;

static ROWS: LazyLock<Vec<Arc<StorageKind>>> = LazyLock::new(kinds::rows);

/// When tables are printed.
const NOW_SECONDS: i64 = 1_767_323_045;

/// The first byte chooses the row, the second one its version.
fn chosen(input: &[u8]) -> (&'static StorageKind, usize, &[u8]) {
    let byte = |at: usize| usize::from(input.get(at).copied().unwrap_or_default());
    let row = &ROWS[byte(0) % ROWS.len()];
    (row, byte(1) % row.served.len(), input.get(2..).unwrap_or_default())
}

pub fn make_table(random: &Random) -> Vec<u8> {
    let mut input = random.bytes::<2>().to_vec();
    let (row, version, _) = chosen(&input);
    let served = &row.served[version];
    let gvk = GroupVersionKind::new(&served.group, &served.version, &row.kind);
    let schema = SchemaRef::builtin(&gvk).expect("invariant: served kinds have a schema");
    input.extend(json_codec::encode(&normal(
        object(&gvk, schema.node(), Fill::Pointers),
        &schema,
    )));
    input
}

/// Each column gets a cell, and a cell is a word or a number.
pub fn table(input: &[u8]) -> String {
    let (row, version, document) = chosen(input);
    let served = &row.served[version];
    let gvk = GroupVersionKind::new(&served.group, &served.version, &row.kind);
    let schema = SchemaRef::builtin(&gvk).expect("invariant: served kinds have a schema");
    let mut shown = match json_codec::decode(document, &Limits::default()) {
        Err(error) => return error.to_string(),
        Ok(decoded) => decoded.value,
    };
    if let Err(error) = normalize(&mut shown, &schema, UnknownFields::Ignore) {
        return error.to_string();
    }
    // The server's own fields for selectors are read from any object, too.
    served
        .selectable_fields
        .iter()
        .for_each(|(_, field)| drop(field(&shown)));
    let Some(columns) = &served.columns else {
        return "no columns of its own".into();
    };
    let context = PrintContext {
        now_seconds: NOW_SECONDS,
    };
    let cells = (columns.cells)(&shown, &context);
    assert_eq!(cells.len(), columns.definitions.len(), "{gvk}");
    assert!(
        !cells.iter().any(|cell| cell.is_object() || cell.is_array()),
        "{gvk}: {cells:?}"
    );
    let of_words = cells.iter().filter(|cell| cell.is_string()).count();
    format!("{} {}", row.kind, "word ".repeat(of_words))
}

/// The schema of a custom resource with one of all that OpenAPI writes.
pub fn make_openapi(random: &Random) -> Vec<u8> {
    let text =
        json!({"type": "string", "description": "a \"text\"", "pattern": "^a*$", "maxLength": 5, "enum": ["a", null]});
    let schemas = [
        json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["a"], "properties": {"a": text},
            "x-kubernetes-preserve-unknown-fields": true}, "status": {"x-kubernetes-int-or-string": true}}}),
        json!({"type": "object", "properties": {"list": {"type": "array", "items": text, "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"]}, "map": {"type": "object", "additionalProperties": {"type": "integer",
            "format": "int64", "minimum": 1, "exclusiveMinimum": true, "multipleOf": 0.5}}}}),
        json!({"anyOf": [{"type": "number"}, {"not": {"nullable": true}}], "oneOf": [], "default": {"a": [1]}, "example": 1.5,
            "externalDocs": {"url": "u"}, "x-kubernetes-validations": [{"rule": "self.a == 1", "message": "m"}]}),
    ];
    json_codec::encode(&schemas[random.index(schemas.len())])
}

/// Both versions of the document are written, the older one in both encodings, whatever a schema says.
pub fn openapi(input: &[u8]) -> String {
    let schema = match json_codec::decode(input, &Limits::default()) {
        Err(error) => return error.to_string(),
        Ok(decoded) => decoded.value,
    };
    let gvk = GroupVersionKind::new("example.com", "v1", "Boat");
    let verbs = |verbs: &[&str]| verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let boats = OpenApiResource {
        gvk: gvk.clone(),
        plural: "boats".into(),
        namespaced: true,
        verbs: verbs(&["get", "list", "create", "patch", "deletecollection"]),
        subresources: vec![OpenApiSubresource {
            name: "status".into(),
            gvk: gvk.clone(),
            verbs: verbs(&["get", "patch"]),
        }],
        custom: Some(CustomSchema {
            text: schema.to_string().into(),
            list_kind: "BoatList".into(),
            selectable: vec![".spec.oars".into()],
        }),
    };
    let source = Source {
        resources: &[boats],
        version: "v1.36.0",
        is_issuer: true,
        describe: &undescribed,
    };
    let newer = openapi::v3(&source, &gvk.group_version());
    let older = openapi::v2(&source);
    let bytes = openapi::v2_protobuf(&older);
    assert!(!bytes.is_empty(), "the document has its paths in any case");
    format!("{} {}", shape(&newer), shape(&older))
}

/// How far a schema got: the kinds of its values, without their names.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(map) if map.contains_key("properties") => {
            let inside = map["properties"].as_object().into_iter().flatten();
            format!("{{{}}}", inside.map(|(_, value)| shape(value)).collect::<String>())
        }
        Value::Object(map) => map.get("type").and_then(Value::as_str).unwrap_or("-").to_owned(),
        _ => ".".into(),
    }
}
