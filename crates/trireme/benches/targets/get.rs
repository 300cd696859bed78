//! Reads of one object.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::figure;
use crate::load::{self, Ask, End};

const CONNECTIONS: usize = 16;
/// Requests at a time on each connection of HTTP/2.
const STREAMS: usize = 8;
const SPAN: Duration = Duration::from_secs(4);
/// With defaults and managers the stored pod has 4 kB.
const ENVIRONMENT: usize = 12;
const COLLECTION: &str = "/api/v1/namespaces/default/pods";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let access = cluster.access()?;
    let stored = access.ask(Method::POST, COLLECTION, &pod("read")).await?;
    let bytes = stored.to_string().len();
    for (name, protocol) in [("get", Protocol::Http1), ("get.http2", Protocol::Http2)] {
        let mut connections = access.connect_many(CONNECTIONS, protocol).await?;
        let shared: Vec<_> = connections
            .iter()
            .flat_map(|connection| (1..STREAMS).filter_map(|_| connection.share()))
            .collect();
        connections.extend(shared);
        let (clients, version) = (connections.len(), if protocol == Protocol::Http1 { "1.1" } else { "2" });
        let outcome = load::run(connections, cluster.server()?, End::Span(SPAN), |_| Ask {
            method: Method::GET,
            path: format!("{COLLECTION}/read"),
            body: Default::default(),
        })
        .await?;
        let conditions = format!(
            "a pod of {bytes} bytes, {CONNECTIONS} connections, {clients} requests at a time, HTTP/{version} over TLS 1.3; answers p50 {:.2} ms, p99 {:.2} ms",
            outcome.p50_ms, outcome.p99_ms
        );
        figure(&format!("{name}.cpu"), outcome.cpu_us, &conditions);
        figure(&format!("{name}.rate"), outcome.rate(), &conditions);
    }
    Ok(())
}

/// A pod of 4 kB that nobody schedules.
pub fn pod(name: &str) -> Value {
    let environment: Vec<Value> = (0..ENVIRONMENT)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("the value of setting number {number}")}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench", "tier": "none"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main", "image": "example.com/bench:1", "env": environment,
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }],
        },
    })
}
