//! `up --demo`, as `./demo` runs it: it ends well only when the workload was seen answering, and its end leaves nothing.

use crate::cluster::{Cluster, succeed};
use crate::traces::{Marks, Traces};

#[test]
fn the_demo_shows_itself_and_leaves_nothing_behind() {
    let before = Traces::of_machine();
    let cluster = Cluster::prepare();
    let output = cluster.trireme(&["up", "--demo", "--api-port", "0"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    succeed(&output);
    for step in [
        "kubectl sees the node Ready",
        "3 pods Running on ",
        "10 answers through the cluster IP, from ",
        "10 answers through the DNS name, from ",
        "update 1 of 3 rolled out under load",
        "update 3 of 3 rolled out under load",
        ", 0 failures, ",
        "pods' counters add up",
        "Try:",
    ] {
        assert!(told.contains(step), "{step}: {told}");
    }

    let (dir, marks) = (cluster.dir.clone(), Marks::of(&cluster));
    let seen = Traces::of_machine().of(&marks);
    assert!(seen.len() > 10, "a cluster that runs is seen: {seen:?}");
    succeed(&cluster.trireme(&["--quiet", "reset", "--yes"]));
    let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap_or_default();
    assert!(!config.contains("trireme"), "{config}");
    assert!(!dir.join("data").exists() && !dir.join("run").exists());
    let after = Traces::of_machine();
    assert_eq!(after.of(&marks), Vec::<String>::new());
    assert_eq!(after.changes_since(&before), Vec::<String>::new());
}
