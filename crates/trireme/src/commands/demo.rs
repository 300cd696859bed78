//! `trireme up --demo`: a workload on the cluster, looked at from the outside.
//!
//! What is told was seen through the real `kubectl` and HTTP, not taken from the program's own state; anything that was
//! not seen ends the command with an error.

mod kubectl;
mod load;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use self::kubectl::Kubectl;
use self::load::Load;
use super::image;
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::progress::{Progress, seconds};
use crate::settings::Settings;

/// The demo's image: made from the program's own small static executable, there being no registry.
const IMAGE: &str = "trireme.local/demo:1";
/// The demo's objects.
const MANIFEST: &str = include_str!("../../../../examples/demo.yaml");
/// How many pods it has.
const REPLICAS: usize = 3;
/// How many answers are looked at.
const ANSWERS: usize = 10;
/// How long a rollout may take.
const ROLLOUT_LIMIT: &str = "--timeout=90s";
/// How many updates are rolled out under load.
const UPDATES: usize = 3;

/// Runs it.
pub async fn run(layout: &Layout, settings: &Settings, progress: &mut Progress) -> Result {
    let node = settings.node.as_deref().ok_or_else(|| needs_node(layout))?;
    let kubectl = Kubectl::new(&layout.admin_kubeconfig());
    let archive = runtime::image::demo_image(IMAGE);
    image::import_bytes(layout, node, archive).await?;
    progress.done("demo image made and imported");

    kubectl
        .run(&[
            "wait",
            "--for=condition=Ready",
            &format!("node/{node}"),
            "--timeout=30s",
        ])
        .await?;
    progress.done("kubectl sees the node Ready");
    kubectl.feed(&["apply", "-f", "-"], MANIFEST).await?;
    kubectl
        .run(&["rollout", "status", "deployment/demo", ROLLOUT_LIMIT])
        .await?;
    let pods = kubectl.json(&["get", "pods", "-l", "app=demo", "-o", "json"]).await?;
    let ips = addresses(&pods);
    if ips.len() != REPLICAS {
        return Err(unseen(&format!(
            "{REPLICAS} pods running on {REPLICAS} addresses, but {ips:?}"
        )));
    }
    progress.done(&format!("{REPLICAS} pods Running on {}", ips.join(", ")));

    let service = kubectl.json(&["get", "service", "demo", "-o", "json"]).await?;
    let cluster_ip: IpAddr = service["spec"]["clusterIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| unseen("a cluster IP of the Service demo"))?;
    let by_name = "http://demo.default.svc.cluster.local/".to_owned();
    for (what, url) in [("cluster IP", format!("http://{cluster_ip}/")), ("DNS name", by_name)] {
        let seen = answers(&kubectl, &url).await?;
        progress.done(&format!(
            "{ANSWERS} answers through the {what}, from {} pods",
            seen.len()
        ));
    }
    updates(layout, &kubectl, SocketAddr::new(cluster_ip, 80), progress).await?;
    tell(settings, progress).await
}

/// The demo is pods, which run on a node.
pub fn needs_node(layout: &Layout) -> CliError {
    CliError::new(Kind::Usage, "NO_NODE", "the demo needs a node")
        .hint(format!("leave out --no-node: {}", layout.command("up --demo")))
}

/// Rolls updates out while connections come in, and looks whether one was lost.
async fn updates(layout: &Layout, kubectl: &Kubectl, service: SocketAddr, progress: &mut Progress) -> Result {
    let load = Load::start(layout, service);
    for round in 1..=UPDATES {
        kubectl
            .run(&[
                "set",
                "env",
                "deployment/demo",
                &format!("ROUND={}-{round}", std::process::id()),
            ])
            .await?;
        kubectl
            .run(&["rollout", "status", "deployment/demo", ROLLOUT_LIMIT])
            .await?;
        progress.done(&format!("update {round} of {UPDATES} rolled out under load"));
    }
    let seen = load.end().await;
    if let Some(failure) = seen.failures.first() {
        let count = seen.failures.len();
        return Err(unseen(&format!(
            "no failed connection, but {count} of {}: {failure}",
            seen.connections
        )));
    }
    if seen.connections < load::CONNECTIONS_MIN {
        let (least, count) = (load::CONNECTIONS_MIN, seen.connections);
        return Err(unseen(&format!("at least {least} connections, but {count}")));
    }
    if let Some(pod) = seen.does_not_add_up() {
        return Err(unseen(&format!("the counter of {pod} to tell each answer once")));
    }
    let (count, rate, pods) = (seen.connections, seen.per_second(), seen.pods());
    progress.done(&format!(
        "{count} connections, {rate:.0}/s, 0 failures, {pods} pods' counters add up"
    ));
    Ok(())
}

async fn tell(settings: &Settings, progress: &Progress) -> Result {
    eprintln!("the demo works, {} after the start.", seconds(progress.total()));
    if let Some(port) = settings.demo_port {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let answer = load::ask(tokio::net::TcpStream::connect(address).await)
            .await
            .map_err(|error| unseen(&format!("an answer at http://{address}/, but {error}")))?;
        eprintln!("http://{address}/ says: {}", answer.text);
    }
    eprintln!("Try:");
    for line in [
        "kubectl get all",
        "kubectl logs -l app=demo --prefix",
        "kubectl exec -it deploy/demo -- sh",
    ] {
        eprintln!("  {line}");
    }
    Ok(())
}

/// Asks the Service from inside of the cluster, through `kubectl exec`.
async fn answers(kubectl: &Kubectl, url: &str) -> Result<BTreeSet<String>> {
    let count = ANSWERS.to_string();
    let text = kubectl
        .run(&["exec", "deploy/demo", "--", "/bin/demo", "get", url, &count])
        .await?;
    let pods: Vec<String> = text
        .split_whitespace()
        .filter(|word| word.starts_with("demo-"))
        .map(str::to_owned)
        .collect();
    if pods.len() != ANSWERS {
        return Err(unseen(&format!("{ANSWERS} answers of {url}, but {text:?}")));
    }
    let seen: BTreeSet<String> = pods.into_iter().collect();
    if seen.len() < 2 {
        return Err(unseen(&format!("different pods answering at {url}, but only {seen:?}")));
    }
    Ok(seen)
}

fn addresses(pods: &Value) -> Vec<String> {
    let running = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["status"]["phase"] == "Running");
    let ips: BTreeSet<String> = running
        .filter_map(|pod| pod["status"]["podIP"].as_str())
        .map(str::to_owned)
        .collect();
    ips.into_iter().collect()
}

/// What was to be seen and was not.
fn unseen(what: &str) -> CliError {
    CliError::new(Kind::Internal, "DEMO_FAILED", format!("expected to see {what}"))
        .hint("look: kubectl get all; kubectl describe pods -l app=demo; trireme status")
}
