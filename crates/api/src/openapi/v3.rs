//! OpenAPI 3.0, one document a group version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Source;
use super::paths::{self, Answer, Body, Operation, PRETTY, Query};
use super::types::{self, Dialect};
use crate::GroupVersion;
use crate::schema::SchemaRef;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

pub(super) fn document(source: &Source<'_>, group_version: &GroupVersion) -> Value {
    let mut roots = BTreeSet::new();
    let mut items = Map::new();
    for path in paths::paths(source, Some(group_version)) {
        let mut item = Map::new();
        let mut parameters: Vec<Value> = Vec::new();
        for parameter in &path.path_parameters {
            parameters.push(json!({"name": parameter.name, "in": "path", "required": true,
                "description": parameter.description, "schema": {"type": "string", "uniqueItems": true}}));
        }
        parameters.push(query_parameter(&PRETTY));
        item.insert("parameters".into(), Value::Array(parameters));
        for operation in &path.operations {
            item.insert(operation.method.into(), render(operation, &mut roots));
        }
        items.insert(path.path, Value::Object(item));
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": source.version},
        "paths": items,
        "components": {
            "schemas": types::schemas(source, Dialect::V3, roots),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "in": "header", "name": "authorization",
                "description": "Bearer Token authentication"}},
        },
    })
}

fn query_parameter(query: &Query) -> Value {
    json!({"name": query.name, "in": "query", "description": query.description,
        "schema": {"type": query.ty, "uniqueItems": true}})
}

fn render(operation: &Operation, roots: &mut BTreeSet<String>) -> Value {
    let mut refer = |name: String| {
        let reference = Dialect::V3.reference(&name);
        roots.insert(name);
        reference
    };
    let kind = types::name_of_kind(&operation.gvk);
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": operation.gvk.group, "version": operation.gvk.version,
            "kind": operation.gvk.kind},
    });
    if !operation.query.is_empty() {
        out["parameters"] = operation.query.iter().map(query_parameter).collect();
    }
    match operation.body {
        Body::None => {}
        Body::Object => {
            out["requestBody"] = json!({"required": true, "content": {"*/*": {"schema": refer(kind.clone())}}});
        }
        Body::DeleteOptions => {
            let schema = refer(format!("{META}.DeleteOptions"));
            out["requestBody"] = json!({"content": {"*/*": {"schema": schema}}});
        }
        Body::Patch => {
            let schema = refer(format!("{META}.Patch"));
            // Strategic merge needs types that a custom resource does not have.
            let custom = SchemaRef::builtin(&operation.gvk).is_none();
            let content: Map<String, Value> = PATCHES
                .into_iter()
                .filter(|ty| !custom || !ty.contains("strategic"))
                .map(|ty| (ty.to_string(), json!({"schema": schema})))
                .collect();
            out["requestBody"] = json!({"required": true, "content": content});
        }
    }
    let (types, schema): (&[&str], Value) = match operation.answer {
        Answer::Object => (&["application/json"], refer(kind)),
        Answer::List => (
            &["application/json", "application/json;stream=watch"],
            refer(format!("{kind}List")),
        ),
        Answer::Status => (&["application/json"], refer(format!("{META}.Status"))),
        Answer::Text => (&["*/*"], json!({"type": "string"})),
    };
    let mut responses = Map::new();
    for (code, description) in operation.codes {
        let content: Map<String, Value> = types
            .iter()
            .map(|ty| (ty.to_string(), json!({"schema": schema})))
            .collect();
        responses.insert((*code).into(), json!({"description": description, "content": content}));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    out["responses"] = Value::Object(responses);
    out
}
