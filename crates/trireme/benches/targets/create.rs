//! Durable writes through the whole API.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::figure;
use crate::load::{self, Ask, End};

const CLIENTS: usize = 64;
const SPAN: Duration = Duration::from_secs(6);
/// With the names around it the stored object has 2 kB.
const PAYLOAD_BYTES: usize = 1800;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let access = cluster.access()?;
    let first = config_map("first", PAYLOAD_BYTES);
    let stored = access.ask(Method::POST, COLLECTION, &first).await?;
    let connections = access.connect_many(CLIENTS, Protocol::Http1).await?;
    let outcome = load::run(connections, cluster.server()?, End::Span(SPAN), |number| Ask {
        method: Method::POST,
        path: COLLECTION.into(),
        body: config_map(&format!("load-{number}"), PAYLOAD_BYTES).to_string().into(),
    })
    .await?;
    let conditions = format!(
        "ConfigMaps of {} bytes, {CLIENTS} connections with a client certificate, HTTP/1.1 over TLS 1.3; answers p50 {:.1} ms, p99 {:.1} ms",
        stored.to_string().len(),
        outcome.p50_ms,
        outcome.p99_ms
    );
    figure("create.cpu", outcome.cpu_us, &conditions);
    figure("create.rate", outcome.rate(), &conditions);
    Ok(())
}

/// A ConfigMap with that much in it.
pub fn config_map(name: &str, payload_bytes: usize) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"payload": "x".repeat(payload_bytes)},
    })
}
