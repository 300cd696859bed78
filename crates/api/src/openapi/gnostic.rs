//! The v2 document in gnostic's protobuf (`openapi.v2.Document`), as client-go asks for it.
//!
//! Source of the tags: `github.com/google/gnostic-models/openapiv2/OpenAPIv2.proto`. Only what our documents hold is
//! written; extensions are YAML texts, and JSON is YAML.

use std::io;

use serde_json::Value;

use super::Source;
use super::v2::{self, Part, Section};

/// Writes a document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut parts = Parts::default();
    parts.paths.named(2, &document["paths"], path_item);
    parts.definitions.named(1, &document["definitions"], schema);
    parts.parameters.named(1, &document["parameters"], parameter);
    let mut bytes = Vec::new();
    whole(document, &parts, &mut |part| bytes.extend_from_slice(part));
    bytes
}

/// Makes a document part by part and writes it.
pub(super) fn write(source: &Source<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut parts = Parts::default();
    v2::each_part(source, &mut |Part { section, name, value }| match section {
        Section::Paths => parts.paths.pair(2, &name, &value, path_item),
        Section::Definitions => parts.definitions.pair(1, &name, &value, schema),
        Section::Parameters => parts.parameters.pair(1, &name, &value, parameter),
    });
    let mut outcome = Ok(());
    whole(&v2::frame(source), &parts, &mut |part| {
        if outcome.is_ok() {
            outcome = out.write_all(part);
        }
    });
    outcome
}

#[derive(Default)]
struct Parts {
    paths: Message,
    definitions: Message,
    parameters: Message,
}

/// Hands out a document around its parts.
fn whole(document: &Value, parts: &Parts, write: &mut dyn FnMut(&[u8])) {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    for (tag, part) in [(8, &parts.paths), (9, &parts.definitions), (10, &parts.parameters)] {
        out.head(tag, part.bytes.len());
        write(&std::mem::take(&mut out.bytes));
        write(&part.bytes);
    }
    for requirement in list(&document["security"]) {
        out.message(12, |security| {
            security.named(1, requirement, |scopes, names| scopes.texts(1, names));
        });
    }
    out.message(13, |definitions| {
        definitions.named(1, &document["securityDefinitions"], |item, value| {
            // The second of the six alternatives: an API key.
            item.message(2, |key| {
                key.text(1, &value["type"]);
                key.text(2, &value["name"]);
                key.text(3, &value["in"]);
                key.text(4, &value["description"]);
            });
        });
    });
    write(&out.bytes);
}

fn path_item(out: &mut Message, item: &Value) {
    let methods = [
        ("get", 2),
        ("put", 3),
        ("post", 4),
        ("delete", 5),
        ("options", 6),
        ("head", 7),
        ("patch", 8),
    ];
    for (method, tag) in methods {
        if let Some(found) = item.get(method) {
            out.message(tag, |out| operation(out, found));
        }
    }
    for found in list(&item["parameters"]) {
        out.message(9, |out| parameter_item(out, found));
    }
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for found in list(&operation["parameters"]) {
        out.message(8, |out| parameter_item(out, found));
    }
    out.message(9, |responses| {
        responses.named(1, &operation["responses"], |value, found| {
            value.message(1, |response| {
                response.text(1, &found["description"]);
                if let Some(of) = found.get("schema") {
                    response.message(2, |item| item.message(1, |out| schema(out, of)));
                }
            });
        });
    });
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

/// A parameter, or a reference to one that is shared.
fn parameter_item(out: &mut Message, item: &Value) {
    match item.get("$ref") {
        Some(reference) => out.message(2, |out| out.text(1, reference)),
        None => out.message(1, |out| parameter(out, item)),
    }
}

fn parameter(out: &mut Message, parameter: &Value) {
    match parameter["in"].as_str() {
        Some("body") => out.message(1, |body| {
            body.text(1, &parameter["description"]);
            body.text(2, &parameter["name"]);
            body.text(3, &parameter["in"]);
            body.flag(4, &parameter["required"]);
            body.message(5, |out| schema(out, &parameter["schema"]));
        }),
        place => out.message(2, |out| {
            let is_query = place == Some("query");
            out.message(if is_query { 3 } else { 4 }, |out| {
                out.flag(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(3, &parameter["description"]);
                out.text(4, &parameter["name"]);
                // A query parameter may be empty, which takes a tag that a path parameter does not have.
                out.text(if is_query { 6 } else { 5 }, &parameter["type"]);
                out.flag(if is_query { 20 } else { 19 }, &parameter["uniqueItems"]);
            });
        }),
    }
}

fn schema(out: &mut Message, of: &Value) {
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(3, &of["title"]);
    out.text(4, &of["description"]);
    out.any(5, of.get("default"));
    out.double(6, &of["multipleOf"]);
    out.double(7, &of["maximum"]);
    out.flag(8, &of["exclusiveMaximum"]);
    out.double(9, &of["minimum"]);
    out.flag(10, &of["exclusiveMinimum"]);
    out.integer(11, &of["maxLength"]);
    out.integer(12, &of["minLength"]);
    out.text(13, &of["pattern"]);
    out.integer(14, &of["maxItems"]);
    out.integer(15, &of["minItems"]);
    out.flag(16, &of["uniqueItems"]);
    out.integer(17, &of["maxProperties"]);
    out.integer(18, &of["minProperties"]);
    out.texts(19, &of["required"]);
    for value in list(&of["enum"]) {
        out.any(20, Some(value));
    }
    match of.get("additionalProperties") {
        Some(Value::Bool(allowed)) => out.message(21, |item| item.varint_field(2, u64::from(*allowed))),
        Some(values) => out.message(21, |item| item.message(1, |out| schema(out, values))),
        None => {}
    }
    if of.get("type").is_some() {
        out.message(22, |item| item.text(1, &of["type"]));
    }
    if let Some(items) = of.get("items") {
        out.message(23, |item| item.message(1, |out| schema(out, items)));
    }
    for part in list(&of["allOf"]) {
        out.message(24, |out| schema(out, part));
    }
    if let Some(properties) = of.get("properties") {
        out.message(25, |out| out.named(1, properties, schema));
    }
    out.any(30, of.get("example"));
    out.extensions(31, of);
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A message that is being written. What is absent, empty or zero is left out, as proto3 does.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn head(&mut self, tag: u64, len: usize) {
        self.varint(tag << 3 | 2);
        self.varint(len as u64);
    }

    fn raw(&mut self, tag: u64, bytes: &[u8]) {
        self.head(tag, bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn message(&mut self, tag: u64, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.raw(tag, &inner.bytes);
    }

    fn text(&mut self, tag: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.raw(tag, text.as_bytes());
        }
    }

    fn texts(&mut self, tag: u64, values: &Value) {
        for text in list(values).iter().filter_map(Value::as_str) {
            self.raw(tag, text.as_bytes());
        }
    }

    fn varint_field(&mut self, tag: u64, number: u64) {
        if number != 0 {
            self.varint(tag << 3);
            self.varint(number);
        }
    }

    fn flag(&mut self, tag: u64, value: &Value) {
        self.varint_field(tag, u64::from(value.as_bool().unwrap_or(false)));
    }

    fn integer(&mut self, tag: u64, value: &Value) {
        self.varint_field(tag, value.as_i64().unwrap_or(0) as u64);
    }

    fn double(&mut self, tag: u64, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.varint(tag << 3 | 1);
            self.bytes.extend_from_slice(&number.to_bits().to_le_bytes());
        }
    }

    fn any(&mut self, tag: u64, value: Option<&Value>) {
        if let Some(value) = value {
            self.message(tag, |any| any.raw(2, format!("{value}\n").as_bytes()));
        }
    }

    /// A map as a list of pairs.
    fn named(&mut self, tag: u64, map: &Value, write: impl Fn(&mut Message, &Value)) {
        for (name, value) in map.as_object().into_iter().flatten() {
            self.pair(tag, name, value, &write);
        }
    }

    fn pair(&mut self, tag: u64, name: &str, value: &Value, write: impl Fn(&mut Message, &Value)) {
        self.message(tag, |pair| {
            pair.raw(1, name.as_bytes());
            pair.message(2, |out| write(out, value));
        });
    }

    fn extensions(&mut self, tag: u64, of: &Value) {
        for (name, value) in of.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                self.message(tag, |pair| {
                    pair.raw(1, name.as_bytes());
                    pair.any(2, Some(value));
                });
            }
        }
    }
}
