//! OpenAPI 2 (swagger), one document for everything.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Answer, Body, Operation, Query};
use super::types::{self, Dialect, META};

pub(super) fn document(source: &Source<'_>) -> Value {
    let mut roots = BTreeSet::new();
    let mut items = Map::new();
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
        items.insert(path.path, Value::Object(item));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": items,
        "definitions": types::schemas(source, Dialect::V2, None, roots),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
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
