//! OpenAPI 2 (swagger), one document for everything.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Answer, Body, Operation, PRETTY, Query};
use super::types::{self, Dialect};
use crate::schema::SchemaRef;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

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
        parameters.push(query_parameter(&PRETTY));
        item.insert("parameters".into(), Value::Array(parameters));
        for operation in &path.operations {
            item.insert(operation.method.into(), render(operation, &mut roots));
        }
        items.insert(path.path, Value::Object(item));
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": items,
        "definitions": types::schemas(source, Dialect::V2, roots),
        "securityDefinitions": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
            "description": "Bearer Token authentication"}},
        "security": [{"BearerToken": []}],
    })
}

fn query_parameter(query: &Query) -> Value {
    json!({"name": query.name, "in": "query", "type": query.ty, "uniqueItems": true,
        "description": query.description})
}

fn render(operation: &Operation, roots: &mut BTreeSet<String>) -> Value {
    let mut refer = |name: String| {
        let reference = Dialect::V2.reference(&name);
        roots.insert(name);
        reference
    };
    let kind = types::name_of_kind(&operation.gvk);
    let mut parameters: Vec<Value> = operation.query.iter().map(query_parameter).collect();
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
    let schema = match operation.answer {
        Answer::Object => refer(kind),
        Answer::List => refer(format!("{kind}List")),
        Answer::Status => refer(format!("{META}.Status")),
        Answer::Text => json!({"type": "string"}),
    };
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        responses.insert((*code).into(), json!({"description": description, "schema": schema}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let consumes: &[&str] = match operation.body {
        // Strategic merge needs types that a custom resource does not have.
        Body::Patch if SchemaRef::builtin(&operation.gvk).is_none() => &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ],
        Body::Patch => &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/apply-patch+yaml",
        ],
        _ => &["*/*"],
    };
    let produces: &[&str] = match operation.answer {
        Answer::Text => &["*/*"],
        Answer::List => &["application/json", "application/json;stream=watch"],
        Answer::Object | Answer::Status => &["application/json"],
    };
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "consumes": consumes,
        "produces": produces,
        "schemes": ["https"],
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": operation.gvk.group, "version": operation.gvk.version,
            "kind": operation.gvk.kind},
    });
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    out
}
