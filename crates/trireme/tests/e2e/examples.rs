//! The files in `examples/`, as users try them.

use std::path::Path;

use crate::cluster::{Cluster, PATIENCE};
use crate::node_cluster;

fn directory() -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    directory.canonicalize().unwrap().display().to_string()
}

#[test]
fn every_example_runs() {
    let place = node_cluster::shared().workplace("examples");
    // Of the level that its comment promises; the others do not fit it.
    place.kubectl_ok(&[
        "label",
        "namespace",
        "examples",
        "pod-security.kubernetes.io/warn=restricted",
    ]);
    let applied = place.kubectl(&["apply", "-f", &format!("{}/restricted.yaml", directory())]);
    assert_eq!(String::from_utf8_lossy(&applied.stderr), "", "restricted.yaml fits");
    place.kubectl_ok(&["apply", "-f", &directory()]);
    for deployment in place.kubectl_ok(&["get", "deployments", "-o", "name"]).lines() {
        place.kubectl_ok(&["rollout", "status", deployment, PATIENCE]);
    }
    place.kubectl_ok(&["wait", "--for=condition=Ready", "pod", "--all", PATIENCE]);
    assert_eq!(place.kubectl_ok(&["logs", "prepared"]), "made by the first\n");
    assert_eq!(
        place.kubectl_ok(&["exec", "configured", "--", "printenv", "GREETING"]),
        "hello\n"
    );
    place.kubectl_ok(&["delete", "-f", &directory(), "--grace-period=1", PATIENCE]);
}

#[test]
fn every_example_is_applied() {
    let directory = directory();
    let directory = directory.as_str();
    let place = Cluster::shared().workplace("examples");
    let tried = place.kubectl_ok(&["apply", "--dry-run=server", "-f", directory]);
    assert!(
        tried.lines().count() >= 10 && tried.lines().all(|line| line.ends_with("created (server dry run)")),
        "{tried}"
    );
    let applied = place.kubectl_ok(&["apply", "-f", directory]);
    assert_eq!(applied.lines().count(), tried.lines().count());
    let again = place.kubectl_ok(&["apply", "-f", directory]);
    assert!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    assert_eq!(place.kubectl_ok(&["diff", "-f", directory]), "");
    place.kubectl_ok(&["rollout", "status", "deployment/hello", PATIENCE]);
    place.kubectl_ok(&["apply", "--server-side", "--force-conflicts", "-f", directory]);
    let account = format!("--as=system:serviceaccount:{}:reader", place.namespace);
    assert_eq!(place.kubectl_ok(&["auth", "can-i", "list", "pods", &account]), "yes\n");
    place.kubectl_ok(&["delete", "-f", directory, PATIENCE]);
    assert_eq!(place.kubectl_ok(&["get", "all", "-o", "name"]), "");
}
