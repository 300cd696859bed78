//! Lists of ten thousand pods: how long they take, and what they cost in memory while they stream.

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::{Access, Connection, Protocol};
use crate::get::pod;
use crate::load::{self, Ask, End};
use crate::usage::{Peak, cpu_seconds};
use crate::{figure, sized};

const PODS: u64 = 10_000;
const WRITERS: usize = 32;
/// How many list at once.
const CLIENTS: [usize; 2] = [1, 16];
/// Where the pods are.
pub const COLLECTION: &str = "/api/v1/namespaces/default/pods";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let (access, server) = (cluster.access()?, cluster.server()?);
    let pods = sized(PODS);
    fill(&access, server, pods, |number| pod(&format!("pod-{number:05}"))).await?;
    for clients in CLIENTS {
        lists("list", &access, server, pods, clients).await?;
    }
    Ok(())
}

/// Makes pods.
pub async fn fill(access: &Access, server: i32, pods: u64, of: fn(u64) -> Value) -> anyhow::Result<()> {
    let writers = access.connect_many(WRITERS, Protocol::Http1).await?;
    let outcome = load::run(writers, server, End::Count(pods), move |number| Ask {
        method: Method::POST,
        path: COLLECTION.into(),
        body: of(number).to_string().into(),
    });
    outcome.await.map(drop)
}

/// All pods, listed by so many clients at once.
pub async fn lists(name: &str, access: &Access, server: i32, pods: u64, clients: usize) -> anyhow::Result<()> {
    let connections = access.connect_many(clients, Protocol::Http1).await?;
    let (peak, cpu, begun) = (Peak::begin(server), cpu_seconds(&[server]), Instant::now());
    let lists: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(list(connection)))
        .collect();
    let mut bytes = 0;
    for list in lists {
        bytes += list.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let conditions = format!(
        "{pods} pods, {:.1} MB a list, {clients} clients at once, HTTP/1.1 over TLS 1.3, {:.2} s of server CPU a list",
        bytes as f64 / clients as f64 / 1e6,
        (cpu_seconds(&[server]) - cpu) / clients as f64
    );
    figure(&format!("{name}.{clients}.seconds"), seconds, &conditions);
    figure(
        &format!("{name}.{clients}.rate"),
        bytes as f64 / seconds / 1e6,
        &conditions,
    );
    let growth = peak.growth() as f64 / 1024.0 / clients as f64;
    figure(&format!("{name}.{clients}.growth"), growth, &conditions);
    Ok(())
}

async fn list(mut connection: Connection) -> anyhow::Result<usize> {
    connection.count(Method::GET, COLLECTION, Default::default()).await
}
