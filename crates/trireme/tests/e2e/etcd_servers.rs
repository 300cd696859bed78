//! Two control planes on one etcd, each a process of its own: what one was told, the other knows; one goes on alone.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use client::resource::resources::SERVICES;
use serde_json::{Value, json};

use crate::cluster::{Cluster, fail, succeed};
use crate::etcd_server::{Server, started};

/// So many Services are asked for at once.
const RACES: usize = 10;
/// How long a compaction each second may take to be seen, on a machine that is busy.
const COMPACTED_LIMIT: Duration = Duration::from_secs(60);

/// A control plane of the same cluster as others, ended with the test.
struct Plane {
    cluster: Cluster,
    process: Child,
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Plane {
    fn start(etcd: &Server, other: Option<&Plane>) -> Plane {
        let cluster = Cluster::prepare();
        let data = cluster.dir.join("data");
        if let Some(other) = other {
            // Servers of one cluster have the same keys.
            std::fs::create_dir_all(&data).unwrap();
            let mut copy = Command::new("cp");
            copy.arg("-a").args([&other.cluster.dir.join("data/pki"), &data]);
            succeed(&copy.output().unwrap());
        }
        let (port, forget) = (["--api-port", "0"], ["--etcd-compaction-interval", "1s"]);
        let flags = [&["server", "--etcd-servers", etcd.address()][..], &port, &forget].concat();
        let (process, _) = started(&cluster.dir, &flags);
        std::fs::copy(data.join("admin.kubeconfig"), cluster.kubeconfig()).unwrap();
        Plane { cluster, process }
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.cluster.kubectl_ok(&["get", "--raw", path])).unwrap()
    }
}

#[test]
fn two_servers_are_one_cluster() {
    let etcd = Server::real(tempfile::tempdir().unwrap());
    let begin = Instant::now();
    let one = Plane::start(&etcd, None);
    let two = Plane::start(&etcd, Some(&one));
    let maps = "/api/v1/namespaces/default/configmaps";

    // A watch at one is told what the other was asked.
    let from = two.get(maps)["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    std::thread::scope(|scope| {
        let watch = format!("{maps}?watch=1&timeoutSeconds=5&resourceVersion={from}");
        let at_two = &two.cluster;
        let watching = scope.spawn(move || at_two.kubectl_ok(&["get", "--raw", &watch]));
        one.cluster
            .kubectl_ok(&["create", "configmap", "shared", "--from-literal=a=1"]);
        let at_one = one.get(&format!("{maps}/shared"));
        assert_eq!(two.get(&format!("{maps}/shared")), at_one);
        let told = watching.join().unwrap();
        let event: Value = serde_json::from_str(told.lines().next().expect("an event")).unwrap();
        assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &at_one));
    });
    the_same_address_is_given_once(&one, &two);

    // Somebody forgets old history, and together they do it no more often than one.
    loop {
        let asked = etcd.run(&["get", "/registry", "--rev=2"], "");
        if String::from_utf8_lossy(&asked.stderr).contains("required revision has been compacted") {
            break;
        }
        assert!(begin.elapsed() < COMPACTED_LIMIT, "nobody compacts");
    }
    let turns = etcd.run(&["get", "compact_rev_key", "-w", "json"], "");
    let turns: Value = serde_json::from_str(&succeed(&turns)).unwrap();
    let turns = turns["kvs"][0]["version"].as_u64().unwrap();
    assert!(
        turns <= begin.elapsed().as_secs() + 1,
        "{turns} in {:?}",
        begin.elapsed()
    );

    // The first, whose controllers act, is killed: reads go on at once, and the other's controllers take over.
    drop(one);
    assert_eq!(two.get(&format!("{maps}/shared"))["data"]["a"], "1");
    two.cluster.kubectl_ok(&["create", "namespace", "after"]);
    two.cluster.has_account("after");
}

fn the_same_address_is_given_once(one: &Plane, two: &Plane) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let services = SERVICES;
    let clients = [&one.cluster, &two.cluster].map(Cluster::client);
    for round in 0..RACES {
        let service = |server: usize| {
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("race-{round}-{server}")},
                "spec": {"clusterIP": format!("10.96.0.{}", 100 + round), "ports": [{"port": 80}]}})
        };
        let (first, second) = (service(0), service(1));
        let outcomes = runtime.block_on(async {
            let (first, second) = tokio::join!(
                clients[0].create_in(&services, "default", &first),
                clients[1].create_in(&services, "default", &second)
            );
            [first.map(drop), second.map(drop)]
        });
        let refusals: Vec<String> = outcomes
            .iter()
            .filter_map(|outcome| outcome.as_ref().err().map(ToString::to_string))
            .collect();
        assert_eq!(refusals.len(), 1, "{outcomes:?}");
        assert!(refusals[0].contains("provided IP is already allocated"), "{refusals:?}");
    }
}

/// `up` on an etcd: `down` and the next `up` keep that, and `reset` removes nothing of what is in it.
#[test]
fn up_keeps_its_etcd() {
    let etcd = Server::real(tempfile::tempdir().unwrap());
    let cluster = Cluster::prepare();
    let on_etcd = ["up", "--no-node", "--api-port", "0", "--etcd-servers", etcd.address()];
    let error = fail(&cluster.trireme(&[&on_etcd[..], &["--etcd-listen", "127.0.0.1:0"]].concat()));
    assert!(error.contains("error[ETCD_LISTEN]"), "{error}");
    succeed(&cluster.trireme(&on_etcd));
    cluster.kubectl_ok(&["create", "configmap", "kept"]);
    let held = || succeed(&etcd.run(&["get", "/registry/configmaps/default/kept", "--keys-only"], ""));
    assert_eq!(held().trim(), "/registry/configmaps/default/kept");
    assert!(
        !cluster.dir.join("data/store").exists(),
        "there is an embedded store, too"
    );
    // The same again changes nothing; another place is refused while it runs.
    succeed(&cluster.trireme(&on_etcd));
    let elsewhere = ["up", "--no-node", "--etcd-servers", "http://127.0.0.1:1"];
    let error = fail(&cluster.trireme(&elsewhere));
    assert!(
        error.contains("error[SHAPE]") && error.contains("start it anew"),
        "{error}"
    );

    succeed(&cluster.trireme(&["down"]));
    succeed(&cluster.trireme(&["up", "--no-node"]));
    cluster.kubectl_ok(&["get", "configmap", "kept"]);

    let reset = cluster.trireme(&["reset", "--yes"]);
    succeed(&reset);
    let told = String::from_utf8_lossy(&reset.stderr).into_owned();
    assert!(
        told.contains("the state in the etcd stays as it is") && told.contains("del --prefix /registry/"),
        "{told}"
    );
    assert_eq!(held().trim(), "/registry/configmaps/default/kept");

    // A cluster that has its state in the embedded store does not become another one by a flag.
    let embedded = Cluster::start();
    succeed(&embedded.trireme(&["down"]));
    let error = fail(&embedded.trireme(&on_etcd));
    assert!(
        error.contains("error[SHAPE]") && error.contains("migrate --to etcd"),
        "{error}"
    );
    embedded.up();
}

/// An etcd that takes only clients with a certificate, under `trireme server` and under `up`.
#[test]
fn an_etcd_asks_for_certificates() {
    let keys = tempfile::tempdir().unwrap();
    let etcd = Server::real_for_certificates(keys.path());
    let file = |name: &str| keys.path().join(name).display().to_string();
    let authority = file("ca.crt");
    let reached = ["--etcd-servers", etcd.address(), "--etcd-cafile", &authority];
    let shown = |name: &str| {
        let [certificate, key] = ["crt", "key"].map(|end| file(&format!("{name}.{end}")));
        [
            "--etcd-certfile".to_owned(),
            certificate,
            "--etcd-keyfile".to_owned(),
            key,
        ]
    };
    let (client, stranger) = (shown("client"), shown("stranger"));
    let line = |first: &[&'static str], shown: &[String]| -> Vec<String> {
        let words = first.iter().chain(&reached).map(|word| (*word).to_owned());
        words.chain(shown.iter().cloned()).collect()
    };
    let server = ["server", "--api-port", "0"];

    // Without a certificate, or with another authority's, it is refused.
    let refused = Cluster::prepare();
    for line in [line(&server, &[]), line(&server, &stranger)] {
        let error = fail(&refused.trireme(&words(&line)));
        assert!(
            error.contains("error[ETCD]") && error.contains("the etcd of --etcd-servers"),
            "{error}"
        );
    }

    let held = |key: &str| assert_eq!(succeed(&etcd.run(&["get", key, "--keys-only"], "")).trim(), key);
    let cluster = Cluster::prepare();
    let (process, _) = started(&cluster.dir, &words(&line(&server, &client)));
    let plane = Plane { cluster, process };
    let data = plane.cluster.dir.join("data");
    std::fs::copy(data.join("admin.kubeconfig"), plane.cluster.kubeconfig()).unwrap();
    plane.cluster.kubectl_ok(&["create", "configmap", "by-server"]);
    held("/registry/configmaps/default/by-server");
    drop(plane);

    // `up` keeps the files' names: the next one needs no flags. Another prefix is another cluster.
    let cluster = Cluster::prepare();
    let up = ["up", "--no-node", "--api-port", "0", "--etcd-prefix", "/other"];
    succeed(&cluster.trireme(&words(&line(&up, &client))));
    cluster.kubectl_ok(&["create", "configmap", "by-up"]);
    held("/other/configmaps/default/by-up");
    succeed(&cluster.trireme(&["down"]));
    succeed(&cluster.trireme(&["up", "--no-node"]));
    cluster.kubectl_ok(&["get", "configmap", "by-up"]);
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}
