//! The files in `examples/`, as users try them.

use std::path::Path;

use crate::cluster::{Cluster, PATIENCE};

#[test]
fn every_example_is_applied() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .canonicalize()
        .unwrap();
    let directory = directory.to_str().unwrap();
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
