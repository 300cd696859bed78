//! Clients that are not ours: a kube-rs program (`crates/conformance`), the Python package, and kubectl in several versions.
//! `./test` installs them, `cargo xtask clients` builds the first.

mod kubectl;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use testkit::HollowNode;

use crate::cluster::{Cluster, TRIREME, isolated, succeed};

/// The cluster of all clients, with a node that reports pods as running: what they make of cluster-wide kinds, and how much
/// they ask for, is in no other test's way.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<(Cluster, HollowNode)> = OnceLock::new();
    &CLUSTER.get_or_init(Cluster::start_with_node).0
}

/// Where clients lie: `clients` in the folder of all builds, of which our program's triple and profile are two.
fn clients() -> PathBuf {
    let target = Path::new(TRIREME).ancestors().nth(3);
    target.expect("a target folder").join("clients")
}

/// A client by its path below [`clients`]; `hint` is how it gets there.
fn client(path: &str, hint: &str) -> PathBuf {
    let client = clients().join(path);
    assert!(client.exists(), "{} is not there: run {hint}", client.display());
    client
}

/// Runs a client as the administrator. It tells of each of its tests; all of it is shown when one failed.
fn run(program: &Path, arguments: &[&Path], environment: &[(&str, &Path)]) {
    let cluster = cluster();
    let mut command = Command::new(program);
    let command = isolated(command.args(arguments), &cluster.dir, &cluster.kubeconfig());
    let output = command
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    print!("{}", succeed(&output));
}

#[test]
fn conformance_walks_of_a_kube_rs_program() {
    let program = client("x86_64-unknown-linux-gnu/debug/conformance", "cargo xtask clients");
    run(&program, &[], &[]);
}

#[test]
fn the_python_package_s_own_calls() {
    let packages = client("python", "./test, which installs it");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clients/python_client.py");
    // Debian's interpreter, for which the packages were installed.
    run(
        Path::new("/usr/bin/python3"),
        &[Path::new("-B"), &program],
        &[("PYTHONPATH", &packages)],
    );
}
