//! Lists of ten thousand pods: how long they take, and what they cost in memory while they stream.

use http::Method;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::{Connection, Protocol};
use crate::figure;
use crate::get::pod;
use crate::load::{self, Ask, End};
use crate::usage::{Peak, cpu_seconds};

const PODS: u64 = 10_000;
const WRITERS: usize = 32;
/// How many list at once.
const CLIENTS: [usize; 2] = [1, 16];
const COLLECTION: &str = "/api/v1/namespaces/default/pods";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let (access, server) = (cluster.access()?, cluster.server()?);
    let writers = access.connect_many(WRITERS, Protocol::Http1).await?;
    load::run(writers, server, End::Count(PODS), |number| Ask {
        method: Method::POST,
        path: COLLECTION.into(),
        body: pod(&format!("pod-{number:05}")).to_string().into(),
    })
    .await?;
    for clients in CLIENTS {
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
            "{PODS} pods, {:.1} MB a list, {clients} clients at once, HTTP/1.1 over TLS 1.3, {:.2} s of server CPU a list",
            bytes as f64 / clients as f64 / 1e6,
            (cpu_seconds(&[server]) - cpu) / clients as f64
        );
        figure(&format!("list.{clients}.seconds"), seconds, &conditions);
        figure(
            &format!("list.{clients}.rate"),
            bytes as f64 / seconds / 1e6,
            &conditions,
        );
        let growth = peak.growth() as f64 / 1024.0 / clients as f64;
        figure(&format!("list.{clients}.growth"), growth, &conditions);
    }
    Ok(())
}

async fn list(mut connection: Connection) -> anyhow::Result<usize> {
    connection.count(Method::GET, COLLECTION, Default::default()).await
}
