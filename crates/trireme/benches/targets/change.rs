//! Durable changes of objects that are there: an update, and a server-side apply.

use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::create::config_map;
use crate::load::{self, Ask, End};
use crate::{figure, sized};

const CLIENTS: usize = 64;
/// So many that no two clients meet at one.
const OBJECTS: u64 = 4096;
const SPAN: Duration = Duration::from_secs(6);
/// With the names around it the stored object has 2 kB.
const PAYLOAD_BYTES: usize = 1800;
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let (access, server) = (cluster.access()?, cluster.server()?);
    let objects = sized(OBJECTS).max(CLIENTS as u64);
    let connections = access.connect_many(CLIENTS, Protocol::Http1).await?;
    load::run(connections, server, End::Count(objects), move |number| Ask {
        method: Method::POST,
        path: COLLECTION.into(),
        body: config_map(&name(number, objects), PAYLOAD_BYTES).to_string().into(),
    })
    .await?;
    for (verb, method, query) in [
        ("update", Method::PUT, ""),
        ("apply", Method::PATCH, "?fieldManager=bench&force=true"),
    ] {
        let connections = access.connect_many(CLIENTS, Protocol::Http1).await?;
        let outcome = load::run(connections, server, End::Span(SPAN), move |number| {
            let name = name(number, objects);
            let mut body = config_map(&name, PAYLOAD_BYTES);
            body["data"]["changed"] = json!(format!("{verb}-{number}"));
            Ask {
                method: method.clone(),
                path: format!("{COLLECTION}/{name}{query}"),
                body: body.to_string().into(),
            }
        })
        .await?;
        let conditions = format!(
            "{objects} ConfigMaps of 2 kB, each time another one, {CLIENTS} connections with a client certificate, HTTP/1.1 over TLS 1.3; answers p50 {:.1} ms, p99 {:.1} ms",
            outcome.p50_ms, outcome.p99_ms
        );
        figure(&format!("{verb}.cpu"), outcome.cpu_us, &conditions);
        figure(&format!("{verb}.rate"), outcome.rate(), &conditions);
    }
    Ok(())
}

fn name(number: u64, objects: u64) -> String {
    format!("changed-{}", number % objects)
}
