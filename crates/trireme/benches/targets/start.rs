//! From the command to a cluster that works.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::figure;
use crate::load::percentile;

/// The middle one of this many counts.
const ROUNDS: usize = 3;
/// What the demo tells when it has seen both ways to its pods.
const DEMO_ANSWERS: &str = "answers through the DNS name";

/// Measures.
pub async fn measure() -> anyhow::Result<()> {
    let conditions = "until a GET over TLS is answered; keys and first objects are made in a cold one";
    starts("control", &["up", "--no-node", "--api-port", "0"], conditions).await?;
    let conditions = "until the node's condition Ready is seen over TLS; no pods";
    starts("up", &["up", "--api-port", "0"], conditions).await?;
    let conditions = "until three pods have answered ten times each through cluster IP and DNS; cold, the image's import and kubectl's own start included";
    figure("up.demo", demo().await?, conditions);
    Ok(())
}

/// A cluster's first start, and its start from what it left.
async fn starts(name: &str, command: &[&str], conditions: &str) -> anyhow::Result<()> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let cluster = Cluster::prepare()?;
        for times in [&mut cold, &mut warm] {
            let begun = Instant::now();
            cluster.trireme(command).await?;
            let access = cluster.access()?;
            match command.contains(&"--no-node") {
                true => drop(
                    access
                        .ask(Method::GET, "/api/v1/namespaces/default", &Value::Null)
                        .await?,
                ),
                false => access.node_ready().await?,
            }
            times.push(begun.elapsed());
            cluster.trireme(&["down"]).await?;
        }
    }
    let conditions = format!("{conditions}; the middle of {ROUNDS}");
    figure(&format!("{name}.cold"), percentile(&mut cold, 50), &conditions);
    figure(&format!("{name}.warm"), percentile(&mut warm, 50), &conditions);
    Ok(())
}

/// Seconds until the demo has told that its pods answer.
async fn demo() -> anyhow::Result<f64> {
    let cluster = Cluster::prepare()?;
    let begun = Instant::now();
    let mut child = cluster.start(&["up", "--demo", "--api-port", "0"], Stdio::piped())?;
    let stderr = child.stderr.take().context("the demo's words")?;
    let seen = tokio::task::spawn_blocking(move || {
        let mut seen: Option<Duration> = None;
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            eprintln!("  {line}");
            if line.contains(DEMO_ANSWERS) {
                seen = Some(begun.elapsed());
            }
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("the demo failed: {status}");
        }
        seen.context("the demo told of no answers")
    });
    Ok(seen.await??.as_secs_f64())
}
