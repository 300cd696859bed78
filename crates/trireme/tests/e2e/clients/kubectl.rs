//! One walk of commands with every kubectl that is there: what differs between versions is what the server must bear.
//!
//! `./test` installs those of Debian; a machine's own package may bring more, as `kubectl.1.NN` beside `kubectl`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{client, cluster};
use crate::cluster::{Workplace, kubectl_of};

/// Versions at least: as many as Debian has.
const VERSIONS_MIN: usize = 3;

/// What a Deployment of the steps looks like.
const DEPLOYMENT: &str = "\
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {app: web}}, spec: {replicas: 2,
 selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},
 spec: {containers: [{name: main, image: example.com/web:1}]}}}}";
/// The same with another number.
const SCALED: &str = "\
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, labels: {app: web}}, spec: {replicas: 4,
 selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},
 spec: {containers: [{name: main, image: example.com/web:1}]}}}}";
const SETTINGS: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {k: w}}";

/// The first minor version with a command, the command line, what it reads, and a text that its answer has.
struct Step(u32, &'static str, &'static str, &'static str);

/// In this order, in a namespace of the version's own.
const STEPS: &[Step] = &[
    Step(0, "version -o json", "", "\"gitVersion\": \"v1.36"),
    Step(0, "api-resources --api-group=apps -o name", "", "deployments.apps"),
    Step(0, "api-versions", "", "apps/v1"),
    Step(0, "cluster-info", "", "is running at"),
    Step(0, "explain deployment.spec.replicas", "", "Number of desired pods"),
    Step(0, "apply -f -", DEPLOYMENT, "deployment.apps/web created"),
    Step(0, "apply -f -", DEPLOYMENT, "deployment.apps/web unchanged"),
    Step(0, "apply --dry-run=server -f -", SCALED, "(server dry run)"),
    Step(0, "diff -f -", SCALED, "+  replicas: 4"),
    Step(
        0,
        "apply --server-side --force-conflicts -f -",
        DEPLOYMENT,
        "serverside-applied",
    ),
    Step(
        0,
        "rollout status deployment/web --timeout=60s",
        "",
        "successfully rolled out",
    ),
    Step(0, "get deployment web -o wide", "", "example.com/web:1"),
    Step(0, "get all", "", "deployment.apps/web"),
    Step(0, "get deployment web -o jsonpath={.spec.replicas}", "", "2"),
    Step(0, "get deployment web -o yaml", "", "image: example.com/web:1"),
    Step(0, "describe deployment web", "", "RollingUpdateStrategy"),
    Step(0, "describe pods", "", "Controlled By:"),
    Step(0, "scale deployment web --replicas=3", "", "scaled"),
    Step(
        0,
        "set image deployment/web main=example.com/web:2",
        "",
        "image updated",
    ),
    Step(
        0,
        "rollout status deployment/web --timeout=60s",
        "",
        "successfully rolled out",
    ),
    Step(0, "rollout history deployment/web", "", "REVISION"),
    Step(0, "rollout undo deployment/web", "", "rolled back"),
    Step(0, "get deployment web -o jsonpath={..image}", "", "example.com/web:1"),
    Step(0, "label deployment web tier=front", "", "labeled"),
    // 1.27 forgets the last letter.
    Step(
        0,
        "annotate deployment web note=yes",
        "",
        "deployment.apps/web annotate",
    ),
    Step(0, "patch deployment web -p {\"spec\":{\"paused\":true}}", "", "patched"),
    Step(
        0,
        "patch deployment web --type=merge -p {\"spec\":{\"paused\":null}}",
        "",
        "patched",
    ),
    Step(
        0,
        "patch deployment web --type=json -p [{\"op\":\"remove\",\"path\":\"/metadata/labels/tier\"}]",
        "",
        "patched",
    ),
    Step(0, "expose deployment web --port=80", "", "service/web exposed"),
    Step(0, "autoscale deployment web --max=5", "", "autoscaled"),
    Step(
        0,
        "create configmap settings --from-literal=k=v",
        "",
        "configmap/settings created",
    ),
    Step(
        0,
        "create secret generic keys --from-literal=k=v",
        "",
        "secret/keys created",
    ),
    Step(0, "create role reader --verb=get --resource=pods", "", "created"),
    Step(
        0,
        "create rolebinding readers --role=reader --user=somebody",
        "",
        "created",
    ),
    Step(0, "auth can-i get pods --as=somebody", "", "yes"),
    Step(24, "create token default", "", "."),
    Step(
        0,
        "create job once --image=example.com/web:1",
        "",
        "job.batch/once created",
    ),
    // Before v1.21 it is batch/v1beta1, which went in v1.25.
    Step(
        21,
        "create cronjob often --image=example.com/web:1 --schedule=0_*_*_*_*",
        "",
        "created",
    ),
    Step(0, "create quota few --hard=pods=50", "", "resourcequota/few created"),
    Step(0, "replace -f -", SETTINGS, "replaced"),
    Step(0, "get configmap settings -o yaml", "", "k: w"),
    Step(
        23,
        "wait --for=jsonpath={.data.k}=w configmap/settings --timeout=60s",
        "",
        "condition met",
    ),
    Step(0, "get events", "", "deployment/web"),
    Step(23, "events --for=deployment/web", "", "ScalingReplicaSet"),
    Step(0, "delete deployment,service,hpa --all", "", "deleted"),
    Step(0, "delete -f -", SETTINGS, "deleted"),
];

#[test]
fn the_same_commands_with_every_version() {
    let programs = programs();
    assert!(
        programs.len() >= VERSIONS_MIN,
        "kubectl of {:?} only: run ./test, which installs others",
        programs.keys()
    );
    let mut failed = Vec::new();
    for (minor, program) in &programs {
        let place = cluster().workplace(&format!("kubectl-1-{minor}"));
        let steps = STEPS.iter().filter(|step| step.0 <= *minor);
        let before = failed.len();
        for step in steps {
            if let Err(told) = walk(&place, program, step) {
                failed.push(format!("kubectl 1.{minor} {}: {told}", step.1));
            }
        }
        println!("kubectl 1.{minor}: {} failed", failed.len() - before);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn walk(place: &Workplace, program: &Path, Step(_, line, input, expect): &Step) -> Result<(), String> {
    // A schedule has spaces of its own.
    let words: Vec<String> = line.split(' ').map(|word| word.replace("_*", " *")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // kubectl takes a text that begins with a brace for JSON.
    let input = format!("# {line}\n{input}");
    let output = kubectl_of(program, &words, &place.dir, &place.dir.join("kubeconfig"), &input);
    let text = String::from_utf8_lossy(&output.stdout);
    // A difference is what `diff` ends with 1 for.
    let as_it_should = output.status.success() || words[0] == "diff" && output.status.code() == Some(1);
    match as_it_should && text.contains(expect) {
        true => Ok(()),
        false => Err(format!(
            "{}, expected {expect:?} in {text:?}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// The programs by their minor versions: those that `./test` installed, the one of the path, and those beside it.
fn programs() -> BTreeMap<u32, PathBuf> {
    let installed = client("kubectl", "./test, which installs several");
    let mut candidates = files(&installed);
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        // A package's own folder, where the one of the path is only a link.
        let own = std::fs::canonicalize(folder.join("kubectl")).ok();
        let own = own.and_then(|own| own.parent().map(files)).unwrap_or_default();
        let named = files(&folder).into_iter().chain(own);
        candidates
            .extend(named.filter(|path| path.file_name().is_some_and(|name| is_kubectl(&name.to_string_lossy()))));
    }
    let mut found = BTreeMap::new();
    for program in candidates {
        if let Some(minor) = minor_of(&program) {
            found.entry(minor).or_insert(program);
        }
    }
    found
}

/// What a folder has; nothing if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

fn is_kubectl(name: &str) -> bool {
    let minor = name.strip_prefix("kubectl.1.");
    name == "kubectl" || minor.is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What the program says of itself; nothing if it is no program.
fn minor_of(program: &Path) -> Option<u32> {
    let output = Command::new(program)
        .args(["version", "--client", "-o", "json"])
        .env("KUBECONFIG", "/dev/null")
        .output()
        .ok()?;
    let version: Value = serde_json::from_slice(&output.stdout).ok()?;
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor.trim_end_matches('+').parse().ok()
}

#[test]
fn versions_are_known_by_their_names() {
    for (name, expect) in [
        ("kubectl", true),
        ("kubectl.1.27", true),
        ("kubectl.1.", false),
        ("kubectl.1.x", false),
        ("kubectl-node", false),
        ("kubectx", false),
    ] {
        assert_eq!(is_kubectl(name), expect, "{name}");
    }
}
