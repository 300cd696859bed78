//! OpenAPI of all group versions: v2 is one document, into which those of other servers are merged; v3 is a document each, and
//! those of other servers are handed through.
//!
//! A server that knows v2 only has that converted. What a server said last stays until it says something else.
//! Source: `k8s.io/kube-aggregator/pkg/controllers/{openapi,openapiv3}`, and `k8s.io/kube-openapi/pkg/{aggregator,openapiconv}`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Map, Value};
use base::Shutdown;
use bytes::Bytes;
use client::queue::WorkQueue;
use client::worker::Next;
use http::header::ETAG;
use http::response::Parts;
use parking_lot::Mutex;
use serde_json::json;

use super::remote::{Question, Remote};
use super::service::ApiService;
use super::{Aggregation, Table};
use crate::request::UserInfo;

/// Documents are asked for one after another, as upstream does: they are large.
const WORKERS: usize = 1;
/// How often a server is asked for what may have changed. Source: `successfulUpdateDelay`.
const REFRESH: Duration = Duration::from_secs(60);
/// The longest pause after failures. Source: `failedUpdateMaxExpDelay`.
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// How long it may take to answer. Source: `specDownloadTimeout`.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest document: all of this server's own kinds take a tenth of that.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// As whom the server asks.
const USER: &str = "system:aggregator";
/// What references to definitions begin with, in both versions.
const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const SCHEMAS: &str = "#/components/schemas/";
/// Which kinds a definition is the one of.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What other servers' group versions look like.
#[derive(Default)]
pub(crate) struct Specs {
    epoch: AtomicU64,
    by_name: Mutex<BTreeMap<String, Spec>>,
}

/// What one server says of one group version.
#[derive(Clone, Default, PartialEq)]
struct Spec {
    /// The whole v2 document's tag.
    etag: String,
    /// What is of the group version in the v2 document.
    v2: Option<Arc<Value>>,
    /// Where its v3 document is.
    v3: Option<String>,
    /// The v3 document made of v2, when the server knows no v3.
    converted: Option<Arc<Value>>,
}

/// Starts to ask the servers of APIServices.
pub(super) fn start(aggregation: &Arc<Aggregation>, shutdown: &Shutdown) {
    let queue = WorkQueue::<String>::with_retry(REFRESH, RETRY_MAX).named("open_api_aggregation_controller");
    aggregation.work(queue, WORKERS, shutdown, sync);
}

async fn sync(aggregation: Arc<Aggregation>, name: String) -> Result<Next, String> {
    let name = &*name;
    let table = aggregation.table();
    aggregation.specs.keep_only(&table);
    let entry = table.get(name).cloned();
    let Some((service, remote)) = entry
        .as_ref()
        .and_then(|entry| Some((&entry.service, entry.remote.as_ref()?)))
    else {
        return Ok(Next::Wait);
    };
    if !service.is_available {
        // When it is, that is told.
        return Ok(Next::Wait);
    }
    let old = aggregation.specs.by_name.lock().get(name).cloned().unwrap_or_default();
    let new = fetch(service, remote, &old).await?;
    aggregation.specs.put(name, new);
    Ok(Next::After(REFRESH))
}

async fn ask(remote: &Remote, path: &str, etag: &str) -> Result<(Parts, Bytes), String> {
    let endpoint = remote.endpoint()?;
    let question = Question {
        path,
        accept: "application/json",
        etag,
        user: UserInfo {
            name: USER.into(),
            ..UserInfo::default()
        },
        bytes_max: DOCUMENT_BYTES_MAX,
    };
    let asked = tokio::time::timeout(TIMEOUT, remote.ask(&endpoint, &question)).await;
    asked.unwrap_or_else(|_| Err("request timed out".into()))
}

async fn fetch(service: &ApiService, remote: &Remote, old: &Spec) -> Result<Spec, String> {
    let mut spec = old.clone();
    let mut whole = None;
    let (head, body) = ask(remote, "/openapi/v2", &old.etag).await?;
    match head.status.as_u16() {
        304 if !old.etag.is_empty() => {}
        200 => {
            let document: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok());
            spec.etag = etag.unwrap_or("").to_owned();
            let prefix = format!("/apis/{}/{}/", service.group, service.version);
            let part = Arc::new(filtered(&document, &prefix));
            whole = Some(part.clone());
            spec.v2 = Some(part);
        }
        404 => (spec.etag, spec.v2) = (String::new(), None),
        code => {
            let said = String::from_utf8_lossy(&body);
            return Err(format!("failed to retrieve openAPI spec, http error: {code} {said}"));
        }
    }
    let (head, body) = ask(remote, "/openapi/v3", "").await?;
    match head.status.as_u16() {
        200 => {
            let index: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            spec.v3 = place_of(&index, service);
            spec.converted = None;
        }
        404 => {
            spec.v3 = None;
            if let Some(part) = whole {
                spec.converted = Some(Arc::new(to_v3(&part)));
            } else if spec.v2.is_none() {
                spec.converted = None;
            }
        }
        _ => return Err("Error, could not get list of group versions for APIService".into()),
    }
    Ok(spec)
}

/// Where a server's index of v3 has the document of a group version.
fn place_of(index: &Value, service: &ApiService) -> Option<String> {
    let item = &index["paths"][path_of(service)];
    Some(item["serverRelativeURL"].as_str()?.to_owned())
}

/// Below `/openapi/v3/`.
fn path_of(service: &ApiService) -> String {
    format!("apis/{}/{}", service.group, service.version)
}

// === impl Specs ===

impl Specs {
    /// Raised with every change.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Whether the server of an APIService has a v3 document of its group version.
    pub fn has_document(&self, name: &str) -> bool {
        let specs = self.by_name.lock();
        specs.get(name).is_some_and(|spec| spec.v3.is_some())
    }

    fn put(&self, name: &str, spec: Spec) {
        let mut specs = self.by_name.lock();
        if specs.get(name) != Some(&spec) {
            specs.insert(name.to_owned(), spec);
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn keep_only(&self, table: &Table) {
        let mut specs = self.by_name.lock();
        let before = specs.len();
        specs.retain(|name, _| table.get(name).is_some_and(|entry| entry.remote.is_some()));
        if specs.len() != before {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Aggregation ===

impl Aggregation {
    /// Whether others have anything to say in the v2 document.
    pub fn has_v2(&self) -> bool {
        let specs = self.specs.by_name.lock();
        specs.values().any(|spec| spec.v2.is_some())
    }

    /// Our own v2 document with those of others in it.
    pub fn merge_v2(&self, mut own: Value) -> Value {
        let table = self.table();
        let specs = self.specs.by_name.lock();
        let mut parts: Vec<(&ApiService, &Arc<Value>)> = Vec::new();
        for entry in table.all() {
            let spec = specs.get(&entry.service.name);
            if let Some(part) = spec.and_then(|spec| spec.v2.as_ref()) {
                parts.push((&entry.service, part));
            }
        }
        // What comes first has its names. Source: `sortByPriority`.
        parts.sort_by_key(|(service, _)| {
            let (group, version) = (service.group_priority, service.version_priority);
            (std::cmp::Reverse((group, version)), service.name.clone())
        });
        for (_, part) in parts {
            merge(&mut own, part);
        }
        own
    }

    /// Where v3 documents of other servers are, by their paths below `/openapi/v3/`; and those that are made here, without a
    /// place.
    pub fn v3_paths(&self) -> BTreeMap<String, Option<String>> {
        let table = self.table();
        let specs = self.specs.by_name.lock();
        let mut paths = BTreeMap::new();
        for (name, spec) in specs.iter() {
            let Some(entry) = table.get(name) else { continue };
            let path = path_of(&entry.service);
            match &spec.v3 {
                Some(url) => drop(paths.insert(path, Some(url.clone()))),
                None if spec.converted.is_some() => drop(paths.insert(path, None)),
                None => {}
            }
        }
        paths
    }

    /// The v3 document that was made of another server's v2.
    pub fn converted(&self, path: &str) -> Option<Arc<Value>> {
        let mut steps = path.split('/');
        let (Some("apis"), Some(group), Some(version), None) = (steps.next(), steps.next(), steps.next(), steps.next())
        else {
            return None;
        };
        let entry = self.table().remote(group, version)?;
        let specs = self.specs.by_name.lock();
        specs.get(&entry.service.name)?.converted.clone()
    }
}

/// What of a v2 document is under a prefix of paths: these, and the definitions that they need. Parameters that are named once
/// and referred to stand where they are needed.
/// Source: `FilterSpecByPathsWithoutSideEffects`.
fn filtered(document: &Value, prefix: &str) -> Value {
    let paths = document["paths"].as_object().into_iter().flatten();
    let paths: Map = paths
        .filter(|(path, _)| path.starts_with(prefix) || **path == prefix[..prefix.len() - 1])
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let mut paths = Value::Object(paths);
    for (_, item) in paths.as_object_mut().into_iter().flatten() {
        put_parameters(item, &document["parameters"]);
        let operations = item.as_object_mut().into_iter().flatten();
        operations.for_each(|(_, operation)| put_parameters(operation, &document["parameters"]));
    }
    let mut definitions = Map::new();
    let mut open: Vec<String> = Vec::new();
    visit(&mut paths, &mut |reference| open.push(reference.clone()));
    while let Some(reference) = open.pop() {
        let Some(name) = reference
            .strip_prefix(DEFINITIONS)
            .filter(|name| !definitions.contains_key(*name))
        else {
            continue;
        };
        if let Some(found) = document["definitions"].get(name) {
            let mut found = found.clone();
            visit(&mut found, &mut |reference| open.push(reference.clone()));
            definitions.insert(name.to_owned(), found);
        }
    }
    json!({"paths": paths, "definitions": definitions})
}

/// Puts parameters where they are referred to.
fn put_parameters(at: &mut Value, named: &Value) {
    let parameters = at.get_mut("parameters").and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["$ref"]
            .as_str()
            .and_then(|reference| reference.strip_prefix(PARAMETERS));
        if let Some(found) = name.and_then(|name| named.get(name)) {
            *parameter = found.clone();
        }
    }
}

/// Looks at every `$ref` of a tree. A document is as deep as the parser let it be.
fn visit(tree: &mut Value, look: &mut impl FnMut(&mut String)) {
    match tree {
        Value::Object(fields) => {
            for (field, value) in fields.iter_mut() {
                match value {
                    Value::String(reference) if field == "$ref" => look(reference),
                    value => visit(value, look),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, look)),
        _ => {}
    }
}

/// Merges a part into a whole. A path that is there stays; a definition of the same name that says something else gets
/// another name. Source: `MergeSpecsIgnorePathConflictRenamingDefinitionsAndParameters`.
fn merge(whole: &mut Value, part: &Value) {
    let mut part = part.clone();
    let definitions = part["definitions"].as_object().into_iter().flatten();
    let renamed = definitions.filter_map(|(name, item)| {
        let fresh = name_for(&whole["definitions"], name, item);
        (fresh != *name).then(|| (format!("{DEFINITIONS}{name}"), format!("{DEFINITIONS}{fresh}")))
    });
    let renamed: BTreeMap<String, String> = renamed.collect();
    if !renamed.is_empty() {
        visit(&mut part, &mut |reference| {
            if let Some(other) = renamed.get(reference) {
                reference.clone_from(other);
            }
        });
    }
    if let Value::Object(definitions) = part["definitions"].take() {
        for (name, item) in definitions {
            let other = renamed.get(&format!("{DEFINITIONS}{name}"));
            let name = other.map_or(&*name, |other| &other[DEFINITIONS.len()..]).to_owned();
            match whole["definitions"].get_mut(&name) {
                Some(there) => add_kinds(there, &item),
                None => whole["definitions"][name] = item,
            }
        }
    }
    if let Value::Object(paths) = part["paths"].take() {
        for (path, item) in paths {
            if whole["paths"].get(&path).is_none() {
                whole["paths"][path] = item;
            }
        }
    }
}

/// The name under which an item can stand among others: its own when there is none of it or the same one, else one with a
/// number behind it.
fn name_for(others: &Value, name: &str, item: &Value) -> String {
    let free = |name: &str| others.get(name).is_none_or(|there| is_same(there, item));
    if free(name) {
        return name.to_owned();
    }
    let mut number = 2;
    loop {
        let other = format!("{name}_v{number}");
        // Names are taken by as many items as there are, so that one of them is free.
        if free(&other) {
            return other;
        }
        number += 1;
    }
}

/// Whether two definitions say the same, whichever kinds they are those of.
fn is_same(one: &Value, other: &Value) -> bool {
    let (Some(one), Some(other)) = (one.as_object(), other.as_object()) else {
        return one == other;
    };
    let fields = |of: &Map| of.keys().filter(|field| *field != KINDS).count();
    let mut said = one.iter().filter(|(field, _)| *field != KINDS);
    fields(one) == fields(other) && said.all(|(field, value)| other.get(field) == Some(value))
}

fn add_kinds(there: &mut Value, item: &Value) {
    if !there.is_object() {
        return;
    }
    for kind in item[KINDS].as_array().into_iter().flatten() {
        match there[KINDS].as_array_mut() {
            Some(kinds) if kinds.contains(kind) => {}
            Some(kinds) => kinds.push(kind.clone()),
            None => there[KINDS] = json!([kind]),
        }
    }
}

/// A v2 document as v3, as far as v2 tells. Source: `ConvertV2ToV3`.
fn to_v3(document: &Value) -> Value {
    let mut paths = document["paths"].clone();
    for (_, item) in paths.as_object_mut().into_iter().flatten() {
        path_to_v3(item);
    }
    let mut v3 = json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths, "components": {"schemas": document["definitions"]},
    });
    visit(&mut v3, &mut |reference| {
        if let Some(name) = reference.strip_prefix(DEFINITIONS) {
            *reference = format!("{SCHEMAS}{name}");
        }
    });
    v3
}

fn path_to_v3(item: &mut Value) {
    let Some(item) = item.as_object_mut() else { return };
    for (name, value) in item.iter_mut() {
        match &**name {
            "get" | "put" | "post" | "delete" | "options" | "head" | "patch" => operation_to_v3(value),
            "parameters" => drop(parameters_to_v3(value)),
            _ => {}
        }
    }
}

fn operation_to_v3(operation: &mut Value) {
    let list = |field: &str, operation: &Value| -> Vec<String> {
        let items = operation[field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (consumes, produces) = (list("consumes", operation), list("produces", operation));
    let contents = |media: &[String], schema: &Value| -> Value {
        let media = media.iter().map(|media| (media.clone(), json!({"schema": schema})));
        Value::Object(media.collect())
    };
    let Some(fields) = operation.as_object_mut() else {
        return;
    };
    for gone in ["consumes", "produces", "schemes"] {
        fields.remove(gone);
    }
    let body = fields.get_mut("parameters").and_then(parameters_to_v3);
    if let Some(body) = body {
        let consumes = match consumes.as_slice() {
            [] => vec!["*/*".to_owned()],
            _ => consumes,
        };
        let mut request = json!({"content": contents(&consumes, &body["schema"])});
        for field in ["description", "required"] {
            if !body[field].is_null() {
                request[field] = body[field].clone();
            }
        }
        fields.insert("requestBody".into(), request);
    }
    let responses = fields.get_mut("responses").and_then(Value::as_object_mut);
    for (_, response) in responses.into_iter().flatten() {
        let Some(response) = response.as_object_mut() else {
            continue;
        };
        if let Some(schema) = response.remove("schema") {
            response.insert("content".into(), contents(&produces, &schema));
        }
    }
}

/// Converts parameters in place; the one that is the body is taken out.
fn parameters_to_v3(parameters: &mut Value) -> Option<Value> {
    const OF_SCHEMA: [&str; 13] = [
        "type",
        "format",
        "items",
        "default",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "enum",
        "uniqueItems",
    ];
    let list = parameters.as_array_mut()?;
    let position = list.iter().position(|parameter| parameter["in"] == "body");
    let body = position.map(|position| list.remove(position));
    for parameter in list.iter_mut().filter_map(Value::as_object_mut) {
        let of_schema = OF_SCHEMA
            .iter()
            .filter_map(|field| Some(((*field).to_owned(), parameter.remove(*field)?)));
        let schema: Map = of_schema.collect();
        if !schema.is_empty() {
            parameter.insert("schema".into(), Value::Object(schema));
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> Value {
        json!({
            "paths": {
                "/apis/wardle.example.com/v1/flunders": {"post": {
                    "consumes": ["application/json"], "produces": ["application/json"],
                    "parameters": [
                        {"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/Flunder"}},
                        {"$ref": "#/parameters/dryRun-1"},
                    ],
                    "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Flunder"}}},
                }},
                "/apis/other.example.com/v1/x": {"get": {"schema": {"$ref": "#/definitions/Other"}}},
            },
            "parameters": {"dryRun-1": {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true}},
            "definitions": {
                "Flunder": {"properties": {"metadata": {"$ref": "#/definitions/Meta"}, "time": {"$ref": "#/definitions/Time"}}},
                "Meta": {"type": "object", "description": "another one"},
                "Time": {"type": "string", KINDS: [{"group": "wardle.example.com", "kind": "Time", "version": "v1"}]},
                "Other": {"type": "object"},
            },
        })
    }

    #[test]
    fn a_group_version_is_cut_out_with_what_it_needs() {
        let part = filtered(&remote(), "/apis/wardle.example.com/v1/");
        let names = |section: &str| -> Vec<String> { part[section].as_object().unwrap().keys().cloned().collect() };
        assert_eq!(names("paths"), ["/apis/wardle.example.com/v1/flunders"]);
        assert_eq!(names("definitions"), ["Flunder", "Meta", "Time"]);
    }

    #[test]
    fn definitions_of_one_name_get_two() {
        let mut whole = json!({
            "paths": {"/apis/apps/v1/": {"get": {}}},
            "definitions": {
                "Meta": {"type": "object", "description": "ours"},
                "Time": {"type": "string", KINDS: [{"group": "", "kind": "Time", "version": "v1"}]},
            },
        });
        let part = filtered(&remote(), "/apis/wardle.example.com/v1/");
        merge(&mut whole, &part);
        assert_eq!(whole["definitions"]["Meta"]["description"], "ours");
        assert_eq!(whole["definitions"]["Meta_v2"]["description"], "another one");
        let flunder = &whole["definitions"]["Flunder"]["properties"];
        assert_eq!(flunder["metadata"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(flunder["time"]["$ref"], "#/definitions/Time");
        assert_eq!(whole["definitions"]["Time"][KINDS].as_array().unwrap().len(), 2);
        assert_eq!(whole["paths"].as_object().unwrap().len(), 2);
        merge(&mut whole, &part);
        assert!(
            whole["definitions"].get("Meta_v3").is_none(),
            "the same is there already"
        );
    }

    #[test]
    fn v2_becomes_v3() {
        let v3 = to_v3(&filtered(&remote(), "/apis/wardle.example.com/v1/"));
        let post = &v3["paths"]["/apis/wardle.example.com/v1/flunders"]["post"];
        let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Flunder"}}});
        assert_eq!(
            *post,
            json!({
                "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
                "requestBody": {"required": true, "content": content},
                "responses": {"200": {"description": "OK", "content": content}},
            })
        );
        assert!(v3["components"]["schemas"]["Flunder"].is_object());
    }
}
