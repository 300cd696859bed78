//! `migrate`, `backup` and `restore` killed at any moment: nothing is lost, nothing starts on what is half done, and the same
//! command again brings it to its end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use client::resource::resources::CONFIG_MAPS;
use serde_json::{Value, json};

use crate::cluster::{Cluster, TRIREME, fail, succeed};
use crate::etcd_server::Server;
use crate::migrate::{everything, same};

/// Objects that make the work last long enough to be met in the middle of it.
const OBJECTS: usize = 300;
/// Objects that are asked for at once.
const AT_ONCE: usize = 20;

/// When a command is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after it was started, wherever it is then: no event tells where.
    After(u64),
    /// When it has told this.
    Told(&'static str),
}

use Moment::{After, Told};

/// Runs a command and kills it; whether it had ended by itself.
fn killed(cluster: &Cluster, arguments: &[&str], moment: Moment) -> bool {
    let mut child = Command::new(TRIREME)
        .arg("--dir")
        .arg(&cluster.dir)
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    match moment {
        After(milliseconds) => std::thread::sleep(Duration::from_millis(milliseconds)),
        Told(text) => drop(lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(text)))),
    }
    child.kill().unwrap();
    child.wait().unwrap().success()
}

fn fill(cluster: &Cluster) {
    let (client, maps) = (cluster.client(), CONFIG_MAPS);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for begin in (0..OBJECTS).step_by(AT_ONCE) {
            let objects = (begin..begin + AT_ONCE).map(|number| {
                json!({"apiVersion": "v1", "kind": "ConfigMap",
                    "metadata": {"name": format!("many-{number}")}, "data": {"text": "x".repeat(4000)}})
            });
            let objects: Vec<Value> = objects.collect();
            let made = objects.iter().map(|object| client.create_in(&maps, "default", object));
            for made in futures::future::join_all(made).await {
                made.unwrap();
            }
        }
    });
}

fn held(etcd: &Server) -> String {
    succeed(&etcd.run(&["get", "", "--prefix"], ""))
}

#[test]
fn a_killed_migration_goes_on_and_loses_nothing() {
    let cluster = Cluster::start();
    fill(&cluster);
    let (before, _) = everything(&cluster);
    succeed(&cluster.trireme(&["down"]));
    let etcd = Server::real(tempfile::tempdir().unwrap());
    let into_etcd = ["migrate", "--to", "etcd", "--etcd-servers", etcd.address()];
    let mut ended = false;
    for moment in [
        After(0),
        After(20),
        Told("keys read"),
        After(60),
        Told("keys written"),
        After(120),
        Told("read back"),
    ] {
        ended |= killed(&cluster, &into_etcd, moment);
        if ended || held(&etcd).is_empty() {
            continue;
        }
        // Somebody else's control plane finds that it is not whole, or that it is.
        let elsewhere = Cluster::prepare();
        let started = elsewhere.trireme(&["up", "--no-node", "--api-port", "0", "--etcd-servers", etcd.address()]);
        if started.status.success() {
            ended = true;
            succeed(&elsewhere.trireme(&["down"]));
        } else {
            let error = fail(&started);
            assert!(error.contains("error[MIGRATION_UNFINISHED]"), "{moment:?}: {error}");
        }
    }
    succeed(&cluster.trireme(&into_etcd));
    cluster.up();
    same(&everything(&cluster).0, &before, "not everything arrived as it was");
    assert!(!held(&etcd).is_empty());
    cluster.kubectl_ok(&["create", "configmap", "made-in-etcd"]);
    let (before, _) = everything(&cluster);
    succeed(&cluster.trireme(&["down"]));

    let source = held(&etcd);
    let servers = ["--etcd-servers", etcd.address()];
    let into_embedded = [&["migrate", "--to", "embedded", "--replace"], &servers[..]].concat();
    let moments = [After(0), After(30), Told("keys read"), After(80), Told("in place")];
    let ended = moments.map(|moment| killed(&cluster, &into_embedded, moment));
    assert_eq!(held(&etcd), source, "the source was written to");
    let again = cluster.trireme(&into_embedded);
    if !again.status.success() {
        // The last one was whole before it died: the etcd holds what was before.
        let error = fail(&again);
        assert!(error.contains("error[STATE_MOVED]"), "{ended:?}: {error}");
    }
    cluster.up();
    same(&everything(&cluster).0, &before, "not everything came back as it was");
    assert_eq!(held(&etcd), source, "a control plane wrote to the etcd that was left");
    assert!(!cluster.dir.join("data/store.migrating").exists());
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn killed_backups_and_restores_leave_nothing_half_done() {
    let cluster = Cluster::start();
    fill(&cluster);
    cluster.kubectl_ok(&["create", "configmap", "kept"]);
    let directory = cluster.dir.join("backups");
    std::fs::create_dir(&directory).unwrap();
    let to = directory.to_str().unwrap();
    for moment in [0, 10, 20, 30, 40, 60, 80, 120] {
        killed(&cluster, &["backup", to], After(moment));
    }
    succeed(&cluster.trireme(&["backup", to]));
    let names = files(&directory);
    assert!(names.iter().all(|name| name.ends_with(".backup")), "{names:?}");
    // Whatever has its name is whole.
    for name in &names {
        succeed(&cluster.trireme(&["restore", "--check", directory.join(name).to_str().unwrap()]));
    }
    let newest = directory.join(names.iter().max().unwrap());
    cluster.kubectl_ok(&["create", "configmap", "later"]);
    succeed(&cluster.trireme(&["down"]));

    let restore = ["restore", newest.to_str().unwrap(), "--replace"];
    for moment in [0, 10, 20, 40, 60, 80, 120] {
        killed(&cluster, &restore, After(moment));
    }
    // One state or the other, and nothing in between.
    cluster.up();
    let names = cluster.kubectl_ok(&["get", "configmaps", "-o", "name"]);
    let many = names.lines().filter(|name| name.contains("/many-")).count();
    assert!(many == OBJECTS && names.contains("configmap/kept"), "{names}");
    succeed(&cluster.trireme(&["down"]));
    succeed(&cluster.trireme(&restore));
    cluster.up();
    let names = cluster.kubectl_ok(&["get", "configmaps", "-o", "name"]);
    assert!(!names.contains("configmap/later"), "{names}");
    assert_eq!(names.lines().filter(|name| name.contains("/many-")).count(), OBJECTS);
    let left: Vec<String> = files(&cluster.dir.join("data"))
        .into_iter()
        .filter(|name| name.contains("restoring"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
