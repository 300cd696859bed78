//! ConfigMap.
//!
//! Source of the rules: `ValidateConfigMap` in `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::field::ErrorList;
use api::validation::config_map_key;

use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// All values of a config map or secret together, in bytes.
pub const DATA_BYTES_MAX: usize = 1 << 20;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ConfigMap", "configmaps")
        .short(&["cm"])
        .strategy(ConfigMaps)
        .trigger(|object| Some(object.text("metadata.name").into()))
        .reads(&["metadata.name"])
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Data", "The number of values."), AGE],
    cells: |object, context| {
        let values = object.entries("data").count() + object.entries("binaryData").count();
        vec![name(object), values.into(), age(object, context)]
    },
};

struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            immutable(&object, old, &["data", "binaryData"]);
            validate(&object);
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let mut size = 0;
    for (key, value) in object.entries("data") {
        for message in config_map_key(key) {
            value.invalid_as(key, message);
        }
        if object.value.at("binaryData").get(key).is_some() {
            value.invalid_as(key, "duplicate of key present in binaryData");
        }
        size += value.text().len();
    }
    for (key, value) in object.entries("binaryData") {
        for message in config_map_key(key) {
            value.invalid_as(key, message);
        }
        size += decoded_length(value.text());
    }
    if size > DATA_BYTES_MAX {
        // Upstream names no field here.
        object.unnamed().too_long(DATA_BYTES_MAX);
    }
}

/// What was declared immutable stays, and stays immutable.
pub fn immutable(object: &At, old: &Value, fields: &[&str]) {
    if !old.flag("immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !object.value.flag("immutable") {
        object.get("immutable").forbidden(detail);
    }
    for field in fields {
        let entries = |value: &Value| value.at(field).as_object().cloned().unwrap_or_default();
        if entries(object.value) != entries(old) {
            object.get(field).forbidden(detail);
        }
    }
}

/// How many bytes a base64 text stands for.
pub fn decoded_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, check};

    #[test]
    fn create() {
        for case in [
            Case::new("valid").object("data: {a.b-c_D: x}\nbinaryData: {e: eA==}"),
            Case::new("bad key").object("data: {'a b': x}").errors(&[
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', \
                 '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
                 '[-._a-zA-Z0-9]+')",
            ]),
            Case::new("a key twice")
                .object("data: {a: x}\nbinaryData: {a: eA==}")
                .errors(&["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]),
        ] {
            check(&super::ConfigMaps, case);
        }
    }

    #[test]
    fn size() {
        let object = format!("data: {{a: {}}}", "x".repeat(super::DATA_BYTES_MAX + 1));
        let errors = ["[]: Too long: may not be more than 1048576 bytes"];
        check(
            &super::ConfigMaps,
            Case::new("too large").object(&object).errors(&errors),
        );
    }

    #[test]
    fn update() {
        for case in [
            Case::new("may change").old("data: {a: x}").object("data: {a: y}"),
            Case::new("immutable")
                .old("immutable: true\ndata: {a: x}")
                .object("data: {a: y}")
                .errors(&[
                    "immutable: Forbidden: field is immutable when `immutable` is set",
                    "data: Forbidden: field is immutable when `immutable` is set",
                ]),
        ] {
            check(&super::ConfigMaps, case);
        }
    }
}
