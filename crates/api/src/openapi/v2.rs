//! OpenAPI 2 (swagger), one document for everything.

use std::collections::BTreeSet;
use std::io;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Answer, Body, Operation, Query};
use super::types::{self, Dialect, META};

/// A part of the document.
pub(super) enum Part {
    Path(String, Value),
    Definition(String, Value),
}

/// Everything around paths and definitions.
pub(super) fn frame(source: &Source<'_>) -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": {},
        "definitions": {},
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

/// The whole as a tree.
pub(super) fn document(source: &Source<'_>) -> Value {
    let (mut items, mut definitions) = (Map::new(), Map::new());
    each_part(source, &mut |part| match part {
        Part::Path(path, item) => drop(items.insert(path, item)),
        Part::Definition(name, schema) => drop(definitions.insert(name, schema)),
    });
    let mut document = frame(source);
    document["paths"] = Value::Object(items);
    document["definitions"] = Value::Object(definitions);
    document
}

/// Writes the whole as JSON, without ever having all of it.
pub(super) fn write(source: &Source<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let frame = frame(source);
    let text = |value: &Value| value.to_string();
    write!(
        out,
        r#"{{"swagger":{},"info":{},"#,
        text(&frame["swagger"]),
        text(&frame["info"])
    )?;
    let (security, definitions) = (text(&frame["security"]), text(&frame["securityDefinitions"]));
    write!(
        out,
        r#""security":{security},"securityDefinitions":{definitions},"paths":{{"#
    )?;
    let mut writer = Writer {
        out,
        in_paths: true,
        is_first: true,
    };
    let mut outcome = Ok(());
    each_part(source, &mut |part| {
        if outcome.is_ok() {
            outcome = writer.part(part);
        }
    });
    outcome?;
    write!(writer.out, "}}}}")
}

struct Writer<'w> {
    out: &'w mut dyn io::Write,
    in_paths: bool,
    /// Of the paths, or of the definitions.
    is_first: bool,
}

impl Writer<'_> {
    fn part(&mut self, part: Part) -> io::Result<()> {
        let (name, value) = match part {
            Part::Path(path, item) => (path, item),
            Part::Definition(name, schema) => {
                if std::mem::take(&mut self.in_paths) {
                    self.is_first = true;
                    write!(self.out, r#"}},"definitions":{{"#)?;
                }
                (name, schema)
            }
        };
        let comma = if std::mem::take(&mut self.is_first) { "" } else { "," };
        write!(self.out, "{comma}{}:", Value::from(name))?;
        Ok(serde_json::to_writer(&mut *self.out, &value)?)
    }
}

/// Hands out all paths, and then all definitions.
pub(super) fn each_part(source: &Source<'_>, each: &mut dyn FnMut(Part)) {
    let mut roots = BTreeSet::new();
    for path in paths::paths(source, None) {
        let mut item = Map::new();
        let mut parameters: Vec<Value> = Vec::new();
        for parameter in &path.path_parameters {
            parameters.push(
                json!({"name": parameter.name, "in": "path", "required": true, "type": "string",
                "uniqueItems": true, "description": parameter.description}),
            );
        }
        let common = path.common();
        parameters.extend(common.iter().map(query_parameter));
        if !parameters.is_empty() {
            parameters.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
            item.insert("parameters".into(), Value::Array(parameters));
        }
        for operation in &path.operations {
            item.insert(operation.method.into(), render(operation, &common, &mut roots));
        }
        each(Part::Path(path.path, Value::Object(item)));
    }
    types::each_schema(source, Dialect::V2, None, roots, &mut |name, schema| {
        each(Part::Definition(name, schema))
    });
}

fn query_parameter(query: &Query) -> Value {
    json!({"name": query.name, "in": "query", "type": query.ty, "uniqueItems": true,
        "description": query.description})
}

fn render(operation: &Operation, common: &[Query], roots: &mut BTreeSet<String>) -> Value {
    let mut refer = |name: String| {
        let reference = Dialect::V2.reference(&name);
        roots.insert(name);
        reference
    };
    let kind = types::name_of_kind(&operation.gvk);
    let own = operation.query.iter();
    let own = own.filter(|query| !common.iter().any(|shared| shared.name == query.name));
    let mut parameters: Vec<Value> = own.map(query_parameter).collect();
    let body = match operation.body {
        Body::None => None,
        Body::Object => Some((true, refer(kind.clone()))),
        Body::DeleteOptions => Some((false, refer(format!("{META}.DeleteOptions")))),
        Body::Patch => Some((true, refer(format!("{META}.Patch")))),
    };
    if let Some((required, schema)) = body {
        let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
        if required {
            parameter["required"] = true.into();
        }
        parameters.insert(0, parameter);
    }
    let schema = types::answer(operation, refer);
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        responses.insert((*code).into(), json!({"description": description, "schema": schema}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let consumes: &[&str] = match (operation.body, operation.answer) {
        (Body::Patch, _) => operation.patches(),
        (_, Answer::Resources) => operation.media(),
        _ => &["*/*"],
    };
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "consumes": consumes,
        "produces": operation.media(),
        "schemes": ["https"],
        "responses": responses,
    });
    types::say_action(operation, &mut out);
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    out
}
