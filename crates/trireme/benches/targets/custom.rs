//! Five hundred CustomResourceDefinitions: what they cost, and how soon each is served.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::{Access, Connection, Protocol};
use crate::load::percentile;
use crate::usage::{Memory, cpu_seconds};
use crate::{figure, sized};

const DEFINITIONS: u64 = 500;
/// Operators bring about ten kinds each.
const KINDS_A_GROUP: u64 = 10;
/// How many clients create them.
const CLIENTS: [(&str, usize); 2] = [("alone", 1), ("burst", 8)];
/// The fields of a definition's spec, and of each of the objects in it.
const FIELDS: usize = 16;
const FIELDS_BELOW: usize = 5;
/// Discovery, the garbage collector and the quota controller follow within a second or two.
const SETTLE: Duration = Duration::from_secs(4);
const COLLECTION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    for (name, clients) in CLIENTS {
        let cluster = Cluster::control_plane().await?;
        let (access, server, count) = (cluster.access()?, cluster.server()?, sized(DEFINITIONS));
        tokio::time::sleep(SETTLE).await;
        let (before, cpu) = (Memory::of(&[server]).total(), cpu_seconds(&[server]));
        let mut served = create(&access, count, clients).await?;
        tokio::time::sleep(SETTLE).await;
        let bytes = definition(0).to_string().len();
        let conditions = format!(
            "{count} definitions of {bytes} bytes, {KINDS_A_GROUP} a group, by {clients} clients, HTTP/1.1 over TLS 1.3"
        );
        let each = (cpu_seconds(&[server]) - cpu) * 1000.0 / count as f64;
        figure(
            &format!("custom.{name}.cpu"),
            each,
            &format!("{conditions}; the controllers' watches included"),
        );
        let waited = format!(
            "{conditions}; from the create's answer until the objects are listed, begun when Established is seen through a watch"
        );
        figure(
            &format!("custom.{name}.p50"),
            percentile(&mut served, 50) * 1000.0,
            &waited,
        );
        figure(
            &format!("custom.{name}.p99"),
            percentile(&mut served, 99) * 1000.0,
            &waited,
        );
        if clients > 1 {
            continue;
        }
        let grown = |since: u64| (Memory::of(&[server]).total() as f64 - since as f64) / 1e6;
        let conditions = format!("{count} definitions of {bytes} bytes, anonymous memory, page tables and stacks");
        figure("custom.memory", grown(before), &conditions);
        openapi(&access, count, bytes).await?;
        let read = format!("{conditions}; after OpenAPI v2 and all documents of v3 were read");
        figure("custom.openapi.memory", grown(before), &read);
        first(&access, count).await?;
        again(&cluster, count).await?;
    }
    Ok(())
}

/// Creates the definitions; how long each took to be served after its answer.
async fn create(access: &Access, count: u64, clients: usize) -> anyhow::Result<Vec<Duration>> {
    let waiting: Arc<Mutex<HashMap<String, oneshot::Sender<()>>>> = Arc::default();
    let mut events = access.watch(&format!("{COLLECTION}?watch=true")).await?;
    let told = waiting.clone();
    let watching = tokio::spawn(async move {
        while let Ok(event) = events.next().await {
            let object = &event["object"];
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let name = object["metadata"]["name"].as_str().unwrap_or("");
            if conditions
                .clone()
                .any(|own| own["type"] == "Established" && own["status"] == "True")
                && let Some(waiter) = told.lock().remove(name)
            {
                // Who waited may have failed.
                let _ = waiter.send(());
            }
        }
    });
    let tasks: Vec<_> = (0..clients as u64)
        .map(|client| {
            let (access, waiting) = (access.clone(), waiting.clone());
            tokio::spawn(async move {
                let mut connection = access.connect(Protocol::Http1).await?;
                let mut took = Vec::new();
                for number in (client..count).step_by(clients) {
                    took.push(one(&mut connection, number, &waiting).await?);
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    watching.abort();
    Ok(took)
}

async fn one(
    connection: &mut Connection,
    number: u64,
    waiting: &Mutex<HashMap<String, oneshot::Sender<()>>>,
) -> anyhow::Result<Duration> {
    let definition = definition(number);
    let name = definition["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (waiter, established) = oneshot::channel();
    waiting.lock().insert(name, waiter);
    let body = Bytes::from(definition.to_string());
    connection.send(Method::POST, COLLECTION, body).await?;
    let answered = Instant::now();
    established.await.context("the watch of definitions ended")?;
    connection.send(Method::GET, &objects(number), Bytes::new()).await?;
    Ok(answered.elapsed())
}

/// What somebody reads who wants to know every type, and what `kubectl` reads first.
async fn openapi(access: &Access, count: u64, bytes: usize) -> anyhow::Result<()> {
    let conditions = format!("{count} definitions of {bytes} bytes, on a connection of its own");
    let begun = Instant::now();
    let index = access.ask(Method::GET, "/openapi/v3", &Value::Null).await?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1000.0;
    figure("custom.openapi.index", milliseconds, &conditions);
    let begun = Instant::now();
    let mut connection = access.connect(Protocol::Http1).await?;
    let mut documents = 0;
    let places = index["paths"].as_object().context("an index without paths")?;
    for place in places.values() {
        let path = place["serverRelativeURL"]
            .as_str()
            .context("a document without a place")?;
        documents += connection.count(Method::GET, path, Bytes::new()).await?;
    }
    let all = format!(
        "{conditions}; {} documents of {:.1} MB together",
        places.len(),
        documents as f64 / 1e6
    );
    figure("custom.openapi.v3", begun.elapsed().as_secs_f64(), &all);
    let begun = Instant::now();
    let size = connection.count(Method::GET, "/openapi/v2", Bytes::new()).await?;
    let whole = format!("{conditions}; {:.1} MB", size as f64 / 1e6);
    figure("custom.openapi.v2", begun.elapsed().as_secs_f64(), &whole);
    Ok(())
}

/// The first object of each kind.
async fn first(access: &Access, count: u64) -> anyhow::Result<()> {
    let mut connection = access.connect(Protocol::Http1).await?;
    let mut took = Vec::new();
    for number in 0..count {
        let object = json!({
            "apiVersion": format!("{}/v1", group(number)), "kind": kind(number),
            "metadata": {"name": "first"},
            "spec": {"part0": {"size0": 3, "name1": "a"}, "min": 1, "max": 2},
        });
        let begun = Instant::now();
        let body = Bytes::from(object.to_string());
        connection.send(Method::POST, &objects(number), body).await?;
        took.push(begun.elapsed());
    }
    let conditions = format!(
        "the first object of each of {count} kinds; answers p99 {:.1} ms",
        percentile(&mut took, 99) * 1000.0
    );
    figure("custom.first", percentile(&mut took, 50) * 1000.0, &conditions);
    Ok(())
}

/// The start of a server that has all of them.
async fn again(cluster: &Cluster, count: u64) -> anyhow::Result<()> {
    cluster.trireme(&["down"]).await?;
    let begun = Instant::now();
    cluster.trireme(&["up", "--no-node", "--api-port", "0"]).await?;
    cluster
        .access()?
        .ask(Method::GET, &objects(count - 1), &Value::Null)
        .await?;
    let conditions =
        format!("{count} definitions, from the command to a list of the last one's objects over TLS, files cached");
    figure("custom.start", begun.elapsed().as_secs_f64(), &conditions);
    Ok(())
}

fn group(number: u64) -> String {
    format!("group{:02}.bench.example.com", number / KINDS_A_GROUP)
}

fn kind(number: u64) -> String {
    format!("Thing{number:03}")
}

fn objects(number: u64) -> String {
    format!("/apis/{}/v1/namespaces/default/thing{number:03}s", group(number))
}

/// About 40 named fields of all types, with what people write about them: 10 kB.
fn definition(number: u64) -> Value {
    let parts: Map<String, Value> = (0..4).map(|part| (format!("part{part}"), object_field(part))).collect();
    let mut properties: Map<String, Value> = (parts.len()..FIELDS)
        .map(|field| (name_of(field), scalar_field(field)))
        .collect();
    properties.extend(parts);
    properties.insert(
        "min".into(),
        json!({"type": "integer", "default": 0, "description": described("min")}),
    );
    properties.insert(
        "max".into(),
        json!({"type": "integer", "default": 10, "description": described("max")}),
    );
    properties.insert(
        "selector".into(),
        json!({"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic", "description": described("selector")}),
    );
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let condition = json!({"type": "object", "required": ["type", "status"], "properties": {
        "type": {"type": "string", "maxLength": 316, "description": described("type")},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": described("status")},
        "reason": {"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "description": described("reason")},
        "message": {"type": "string", "maxLength": 32768, "description": described("message")},
        "lastTransitionTime": {"type": "string", "format": "date-time", "description": described("lastTransitionTime")}}});
    let schema = json!({"type": "object", "description": described("kind"), "properties": {
        "apiVersion": {"type": "string", "description": described("apiVersion")},
        "kind": {"type": "string", "description": described("kind")},
        "metadata": {"type": "object"},
        "spec": {"type": "object", "description": described("spec"), "properties": properties,
            "x-kubernetes-validations": [{"rule": "self.min <= self.max", "message": "min must not be above max"}]},
        "status": {"type": "object", "description": described("status"), "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": {"type": "array", "items": condition,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}}}}});
    let (plural, kind) = (format!("thing{number:03}s"), kind(number));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{}", group(number)), "annotations": {"controller-gen.kubebuilder.io/version": "v0.16.5"}},
        "spec": {
            "group": group(number), "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": [format!("t{number}")], "categories": ["things"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
                    column("Min", "integer", ".spec.min"),
                    column("Age", "date", ".metadata.creationTimestamp")],
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}

/// A sentence or two, as generators take them from comments.
fn described(field: &str) -> String {
    format!(
        "{field} is what the controller looks at first. It may be changed at any time; what follows is told in the status."
    )
}

fn name_of(field: usize) -> String {
    let word = ["size", "name", "enabled", "port", "interval"][field % 5];
    format!("{word}{field}")
}

fn scalar_field(field: usize) -> Value {
    let mut schema = match field % 5 {
        0 => json!({"type": "integer", "minimum": 0, "maximum": 1000, "default": 3}),
        1 => json!({"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}),
        2 => json!({"type": "boolean", "default": true}),
        3 => json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
        _ => json!({"type": "string", "enum": ["Fast", "Slow", "Never"], "default": "Slow"}),
    };
    schema["description"] = described(&name_of(field)).into();
    schema
}

fn object_field(part: usize) -> Value {
    let properties: Map<String, Value> = (0..FIELDS_BELOW)
        .map(|field| (name_of(field), scalar_field(field)))
        .collect();
    json!({"type": "object", "description": described(&format!("part{part}")), "properties": properties})
}
