//! Watchers: what one costs while it waits, and what a delivery costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::connection::{Access, Protocol};
use crate::create::config_map;
use crate::events::Events;
use crate::load::{self, Ask, End};
use crate::usage::{Memory, cpu_seconds};
use crate::{figure, sized};

/// With the names around it an event has 1 kB.
const PAYLOAD_BYTES: usize = 500;

/// Watchers of one collection.
pub struct Crowd {
    /// What its figures begin with.
    name: &'static str,
    watchers: u64,
    /// How many events, and by how many writers at once: one makes each event come alone.
    rounds: [(&'static str, u64, usize); 2],
}

/// As many as one kind has in a large cluster.
pub const THOUSAND: Crowd = Crowd {
    name: "watch",
    watchers: 1000,
    rounds: [("alone", 300, 1), ("burst", 1000, 64)],
};
/// As many as there are nodes in the largest.
pub const TEN_THOUSAND: Crowd = Crowd {
    name: "fanout",
    watchers: 10_000,
    rounds: [("alone", 30, 1), ("burst", 300, 64)],
};
/// Until the allocator and the kernel have settled after the connections were made.
const SETTLE: Duration = Duration::from_secs(1);
const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";

/// What all watchers have read.
#[derive(Default)]
struct Read {
    events: AtomicU64,
    bytes: AtomicU64,
    some: Notify,
}

/// Measures.
pub async fn measure(crowd: &Crowd) -> anyhow::Result<()> {
    let cluster = Cluster::control_plane().await?;
    let (access, server) = (cluster.access()?, cluster.server()?);
    let before = Memory::of(&[server]);
    let read = Arc::new(Read::default());
    let (name, count) = (crowd.name, sized(crowd.watchers));
    let watchers = watchers(&access, count, &read).await?;
    tokio::time::sleep(SETTLE).await;
    let grown = Memory::of(&[server]).total().saturating_sub(before.total());
    let conditions = format!("{count} connections with one watch each, HTTP/1.1 over TLS 1.3; sockets not counted");
    figure(
        &format!("{name}.memory"),
        grown as f64 / count as f64 / 1024.0,
        &conditions,
    );

    for (round, events, writers) in crowd.rounds {
        let connections = access.connect_many(writers, Protocol::Http1).await?;
        let (cpu, bytes) = (cpu_seconds(&[server]), read.bytes.load(Ordering::Relaxed));
        let expected = read.events.load(Ordering::Relaxed) + events * count;
        let begun = tokio::time::Instant::now();
        load::run(connections, server, End::Count(events), move |number| Ask {
            method: Method::POST,
            path: COLLECTION.into(),
            body: config_map(&format!("{round}-{number}"), PAYLOAD_BYTES)
                .to_string()
                .into(),
        })
        .await?;
        while read.events.load(Ordering::Relaxed) < expected {
            read.some.notified().await;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let deliveries = (events * count) as f64;
        let cpu = cpu_seconds(&[server]) - cpu;
        let conditions = format!(
            "{count} watchers x {events} events of {:.0} bytes from {writers} writers, HTTP/1.1 over TLS 1.3; {:.0} deliveries/s beside the readers, the writes' CPU included",
            (read.bytes.load(Ordering::Relaxed) - bytes) as f64 / deliveries,
            deliveries / seconds
        );
        figure(&format!("{name}.{round}"), deliveries / cpu, &conditions);
    }
    watchers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

async fn watchers(access: &Access, count: u64, read: &Arc<Read>) -> anyhow::Result<Vec<tokio::task::JoinHandle<()>>> {
    let list = access.ask(Method::GET, COLLECTION, &serde_json::Value::Null).await?;
    let revision = list["metadata"]["resourceVersion"]
        .as_str()
        .context("a list without a revision")?;
    let path = format!("{COLLECTION}?watch=true&resourceVersion={revision}");
    let mut watchers = Vec::new();
    for _ in 0..count {
        let events = access.watch(&path).await?;
        watchers.push(tokio::spawn(skim(events, read.clone())));
    }
    Ok(watchers)
}

/// Counts until the watch ends; a watch that ends early is missed in the sum, and the measurement runs into its limit.
async fn skim(mut events: Events, read: Arc<Read>) {
    while let Ok((count, bytes)) = events.skim().await {
        read.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        read.events.fetch_add(count as u64, Ordering::Relaxed);
        read.some.notify_one();
    }
}
