//! OpenAPI 3.0: a document for each group version, and for each path of none.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Body, Operation, Path, Query};
use super::types::{self, Dialect, META};
use crate::GroupVersion;

pub(super) fn document(source: &Source<'_>, group_version: &GroupVersion) -> Value {
    let paths = paths::paths(source, Some(group_version));
    with_paths(source, paths, Some(group_version))
}

/// The document of a path of no group version.
pub(super) fn general(source: &Source<'_>, path: Path) -> Value {
    with_paths(source, vec![path], None)
}

fn with_paths(source: &Source<'_>, paths: Vec<Path>, group_version: Option<&GroupVersion>) -> Value {
    let mut roots = BTreeSet::new();
    let mut items = Map::new();
    for path in paths {
        let mut item = Map::new();
        let mut parameters: Vec<Value> = Vec::new();
        for parameter in &path.path_parameters {
            parameters.push(json!({"name": parameter.name, "in": "path", "required": true,
                "description": parameter.description, "schema": {"type": "string", "uniqueItems": true}}));
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
    let mut document = json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": items,
        "components": {
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
                "description": "Bearer Token authentication"}},
        },
    });
    let schemas = types::schemas(source, Dialect::V3, group_version, roots);
    if !schemas.is_empty() {
        document["components"]["schemas"] = Value::Object(schemas);
    }
    document
}

fn query_parameter(query: &Query) -> Value {
    json!({"name": query.name, "in": "query", "description": query.description,
        "schema": {"type": query.ty, "uniqueItems": true}})
}

fn render(operation: &Operation, common: &[Query], roots: &mut BTreeSet<String>) -> Value {
    let mut refer = |name: String| {
        let reference = Dialect::V3.reference(&name);
        roots.insert(name);
        reference
    };
    let own = operation.query.iter();
    let own = own.filter(|query| !common.iter().any(|shared| shared.name == query.name));
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
    });
    types::say_action(operation, &mut out);
    let parameters: Vec<Value> = own.map(query_parameter).collect();
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    match operation.body {
        Body::None => {}
        Body::Object => {
            out["requestBody"] =
                json!({"required": true, "content": {"*/*": {"schema": refer(types::name_of_kind(&operation.gvk))}}});
        }
        Body::DeleteOptions => {
            let schema = refer(format!("{META}.DeleteOptions"));
            out["requestBody"] = json!({"content": {"*/*": {"schema": schema}}});
        }
        Body::Patch => {
            let schema = refer(format!("{META}.Patch"));
            let types = operation.patches().iter();
            let content: Map<String, Value> = types.map(|ty| (ty.to_string(), json!({"schema": schema}))).collect();
            out["requestBody"] = json!({"required": true, "content": content});
        }
    }
    let schema = types::answer(operation, refer);
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        let types = operation.media().iter();
        let content: Map<String, Value> = types.map(|ty| (ty.to_string(), json!({"schema": schema}))).collect();
        responses.insert((*code).into(), json!({"description": description, "content": content}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    out["responses"] = Value::Object(responses);
    out
}
