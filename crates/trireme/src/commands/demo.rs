//! `trireme up --demo`: a workload on the cluster, looked at from the outside.
//!
//! What is told was seen through the real `kubectl` and HTTP, not taken from the program's own state; anything that was
//! not seen ends the command with an error.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;
use crate::progress::{Progress, seconds};
use crate::settings::Settings;

use super::image;

/// The demo's image: made from the program's own small static executable, there being no registry.
const IMAGE: &str = "trireme.local/demo:1";
/// The demo's objects.
const MANIFEST: &str = include_str!("../../../../examples/demo.yaml");
/// How many pods it has.
const REPLICAS: usize = 3;
/// How many answers are looked at.
const ANSWERS: usize = 10;
/// How long the pods may take.
const ROLLOUT_LIMIT: &str = "60s";

/// Runs it.
pub async fn run(layout: &Layout, settings: &Settings, progress: &mut Progress) -> Result {
    let node = settings.node.as_deref().ok_or_else(|| {
        CliError::new(Kind::Usage, "NO_NODE", "the demo needs a node").hint("trireme up --demo, without --no-node")
    })?;
    let kubectl = Kubectl { kubeconfig: layout.admin_kubeconfig().display().to_string() };
    let archive = runtime::image::demo_image(IMAGE);
    image::import_bytes(layout, node, archive).await?;
    progress.done("demo image made and imported");

    kubectl.run(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=30s"])?;
    progress.done("kubectl sees the node Ready");
    kubectl.feed(&["apply", "-f", "-"], MANIFEST)?;
    kubectl.run(&["rollout", "status", "deployment/demo", "--timeout", ROLLOUT_LIMIT])?;
    let pods = kubectl.json(&["get", "pods", "-l", "app=demo", "-o", "json"])?;
    let ips = addresses(&pods);
    if ips.len() != REPLICAS {
        return Err(unseen(&format!("{REPLICAS} pods running on {REPLICAS} addresses, but {ips:?}")));
    }
    progress.done(&format!("{REPLICAS} pods running on {}", ips.join(", ")));

    let service = kubectl.json(&["get", "service", "demo", "-o", "json"])?;
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap_or("").to_owned();
    for (what, url) in [
        ("cluster IP", format!("http://{cluster_ip}/")),
        ("DNS name", "http://demo.default.svc.cluster.local/".to_owned()),
    ] {
        let seen = answers(&kubectl, &url)?;
        progress.done(&format!("{ANSWERS} answers through the {what} from {} pods", seen.len()));
    }
    eprintln!("the demo answers, {} after the start. Try:", seconds(progress.total()));
    for line in ["kubectl get all", "kubectl logs -l app=demo --prefix", "kubectl exec deploy/demo -- /bin/demo get http://demo/"] {
        eprintln!("  {line}");
    }
    Ok(())
}

/// Asks the Service from inside of the cluster, through `kubectl exec`: there is no way to it from the machine.
fn answers(kubectl: &Kubectl, url: &str) -> Result<BTreeSet<String>> {
    let mut seen = BTreeSet::new();
    for _ in 0..ANSWERS {
        let text = kubectl.run(&["exec", "deploy/demo", "--", "/bin/demo", "get", url])?;
        let pod = text.split_whitespace().find(|word| word.starts_with("demo-")).unwrap_or("").to_owned();
        if pod.is_empty() {
            return Err(unseen(&format!("a pod's name in the answer of {url}, but {text:?}")));
        }
        seen.insert(pod);
    }
    if seen.len() < 2 {
        return Err(unseen(&format!("different pods answering at {url}, but only {seen:?}")));
    }
    Ok(seen)
}

fn addresses(pods: &Value) -> Vec<String> {
    let running = pods["items"].as_array().into_iter().flatten().filter(|pod| pod["status"]["phase"] == "Running");
    let ips: BTreeSet<String> = running.filter_map(|pod| pod["status"]["podIP"].as_str()).map(str::to_owned).collect();
    ips.into_iter().collect()
}

fn unseen(what: &str) -> CliError {
    CliError::new(Kind::Internal, "DEMO_FAILED", format!("expected to see {what}"))
        .hint("look: kubectl get all; kubectl describe pods -l app=demo; trireme status")
}

/// The real kubectl.
struct Kubectl {
    kubeconfig: String,
}

// === impl Kubectl ===

impl Kubectl {
    fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, "")
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.run(arguments)?).doing("reading kubectl's answer")
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        use std::io::Write as _;
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            CliError::new(Kind::Missing, "NO_KUBECTL", format!("kubectl cannot be started: {error}"))
                .hint("install it: https://kubernetes.io/docs/tasks/tools/")
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).doing("speaking to kubectl")?;
        }
        let output = child.wait_with_output().doing("waiting for kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(unseen(&format!("`kubectl {}` succeed, but it said: {said}", arguments.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
