//! A hundred thousand pods: all of them listed, a few of them selected, and the start of a server that has them.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Protocol;
use crate::get::pod;
use crate::list::{COLLECTION, fill, lists};
use crate::load::{self, Ask, End};
use crate::{figure, sized};

const PODS: u64 = 100_000;
/// How many list at once: the curve of what a stream costs.
const CLIENTS: [usize; 3] = [1, 8, 64];
/// One pod of so many has the label that is selected by.
const PICKED: u64 = 1000;
const SELECTORS: [(&str, &str); 2] = [
    ("label", "labelSelector=pick%3Dme"),
    ("node", "fieldSelector=spec.nodeName%3Dnone"),
];
/// How many select at once, and for how long.
const SELECTING: usize = 4;
const SPAN: Duration = Duration::from_secs(4);

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let (access, server, pods) = (cluster.access()?, cluster.server()?, sized(PODS));
    fill(&access, server, pods, labelled).await?;
    for clients in CLIENTS {
        lists("large", &access, server, pods, clients).await?;
    }
    for (name, selector) in SELECTORS {
        let connections = access.connect_many(SELECTING, Protocol::Http1).await?;
        let outcome = load::run(connections, server, End::Span(SPAN), move |_| Ask {
            method: Method::GET,
            path: format!("{COLLECTION}?{selector}"),
            body: Default::default(),
        })
        .await?;
        let conditions = format!(
            "{pods} pods, {selector}, {SELECTING} clients, HTTP/1.1 over TLS 1.3; answers p50 {:.1} ms, p99 {:.1} ms",
            outcome.p50_ms, outcome.p99_ms
        );
        figure(&format!("large.{name}.cpu"), outcome.cpu_us / 1000.0, &conditions);
    }
    cluster.trireme(&["down"]).await?;
    let begun = Instant::now();
    cluster.trireme(&["up", "--no-node", "--api-port", "0"]).await?;
    let first = format!("{COLLECTION}?limit=1");
    cluster.access()?.ask(Method::GET, &first, &Value::Null).await?;
    let conditions = format!("{pods} pods of 4 kB, from the command to the first pod's answer over TLS, files cached");
    figure("large.start", begun.elapsed().as_secs_f64(), &conditions);
    Ok(())
}

fn labelled(number: u64) -> Value {
    let mut pod = pod(&format!("pod-{number:06}"));
    if number.is_multiple_of(PICKED) {
        pod["metadata"]["labels"]["pick"] = "me".into();
    }
    pod
}
