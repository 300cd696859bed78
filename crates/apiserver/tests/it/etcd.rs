//! Several servers on one store: what one was answered, another knows when it is asked.
//!
//! Once over an engine that delivers late, where every stale answer would show; once over Debian's etcd.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use apiserver::admission::ResourceQuota;
use apiserver::pipeline::Plugin;
use base::{Clock, Random};
use serde_json::{Value, json};
use store::testing::{EngineFaults, FaultyEngine, engine_in_memory};
use store::{Engine, Etcd, EtcdOptions};

use crate::world::{Api, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const ROUNDS: usize = 12;

fn map(name: &str, value: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": value.to_string()}})
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Each step is asked of one server, and what follows from it of the other.
async fn agree(one: &Api, two: &Api) {
    let start = two.get(MAPS).await.ok();
    let mut watch = two
        .watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&start)))
        .await;
    let mut expect = Vec::new();
    for round in 0..ROUNDS {
        let (writer, other) = if round % 2 == 0 { (one, two) } else { (two, one) };
        let name = format!("m{round}");
        let path = format!("{MAPS}/{name}");
        let namespace = format!("n{round}");

        // A namespace that another server has just made is there for what is put into it.
        writer
            .post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}}))
            .await
            .ok();
        other
            .post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map("inside", 0))
            .await
            .ok();

        let created = writer.post(MAPS, &map(&name, 1)).await.ok();
        expect.push(("ADDED", version(&created)));
        assert_eq!(version(&other.get(&path).await.ok()), version(&created));
        let listed = other.get(MAPS).await.ok();
        assert!(
            listed["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|item| item["metadata"]["name"] == *name)
        );
        other.post(MAPS, &map(&name, 2)).await.refused(409, "already exists");

        let updated = other.put(&path, &map(&name, 2)).await.ok();
        expect.push(("MODIFIED", version(&updated)));
        // The first one's replica may still have the value that it asks for: that is no reason to write nothing.
        let back = writer.put(&path, &map(&name, 1)).await.ok();
        assert!(version(&back) > version(&updated), "the update was lost");
        expect.push(("MODIFIED", version(&back)));
        let mut stale = map(&name, 3);
        stale["metadata"]["resourceVersion"] = version(&updated).to_string().into();
        other
            .put(&path, &stale)
            .await
            .refused(409, "the object has been modified");
        let mut exact = map(&name, 3);
        exact["metadata"]["resourceVersion"] = version(&back).to_string().into();
        let exact = other.put(&path, &exact).await.ok();
        expect.push(("MODIFIED", version(&exact)));

        writer.delete(&path).await.ok();
        other.get(&path).await.refused(404, "not found");
        other.delete(&path).await.refused(404, "not found");
        let again = other.post(MAPS, &map(&name, 4)).await.ok();
        expect.push(("DELETED", 0));
        expect.push(("ADDED", version(&again)));
    }
    for (kind, version) in expect {
        let frame = watch.next().await.expect("the watch goes on");
        assert_eq!(frame["type"], kind, "{frame}");
        if version > 0 {
            assert_eq!(self::version(&frame["object"]), version);
        }
    }
    addresses_differ(one, two).await;
    quotas_agree(one, two).await;
}

/// A quota that has just got room, by another server's word, refuses nothing; one that another server has just filled does.
async fn quotas_agree(one: &Api, two: &Api) {
    let namespace = json!({"metadata": {"name": "limited"}});
    one.post("/api/v1/namespaces", &namespace).await.ok();
    let [quotas, maps] = ["resourcequotas", "configmaps"].map(|name| format!("/api/v1/namespaces/limited/{name}"));
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "0"}}});
    one.post(&quotas, &quota).await.ok();
    let counted = |used: usize, hard: usize| {
        let amount = |count: usize| json!({"configmaps": count.to_string()});
        json!({"status": {"hard": amount(hard), "used": amount(used)}})
    };
    let status = format!("{quotas}/q/status");
    one.patch(&status, "merge", &counted(0, 0)).await.ok();
    // A server that has not heard of a quota at all has nothing to guard: only what is known is never passed.
    two.get(&format!("{quotas}/q")).await.ok();
    for round in 0..ROUNDS {
        let (writer, other) = if round % 2 == 0 { (one, two) } else { (two, one) };
        let full = format!("requested: configmaps=1, used: configmaps={round}, limited: configmaps={round}");
        other.post(&maps, &map("refused", 0)).await.refused(403, &full);
        writer.patch(&status, "merge", &counted(round, round + 1)).await.ok();
        other.post(&maps, &map(&format!("m{round}"), 0)).await.ok();
        writer
            .post(&maps, &map("refused", 0))
            .await
            .refused(403, "exceeded quota: q");
    }
}

/// Addresses of Services are given out by all servers.
async fn addresses_differ(one: &Api, two: &Api) {
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    let mut address = String::new();
    for (index, api) in [one, two].into_iter().cycle().take(4).enumerate() {
        let mut wanted = service(&format!("fixed{index}"));
        if !address.is_empty() {
            wanted["spec"]["clusterIP"] = address.clone().into();
            // The table follows the watch: once the other's Service is seen, its address is taken.
            api.get(&format!("{services}/fixed{}", index - 1)).await.ok();
            let refused = api.post(services, &wanted).await;
            assert_eq!(refused.code, 422, "{}", refused.message());
            wanted["spec"]["clusterIP"] = "".into();
        }
        let made = api.post(services, &wanted).await.ok();
        address = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    }
    // Both are asked for the same one within the same moment: one gives it, the other says what upstream's says.
    for round in 0..ROUNDS {
        let wanted = |server: &str| {
            let mut wanted = service(&format!("{server}{round}"));
            wanted["spec"]["clusterIP"] = format!("10.96.0.{}", 100 + round).into();
            wanted
        };
        let (first, second) = (wanted("one"), wanted("two"));
        let (first, second) = tokio::join!(one.post(services, &first), two.post(services, &second));
        let (given, refused) = if first.code == 201 {
            (first, second)
        } else {
            (second, first)
        };
        assert_eq!((given.code, refused.code), (201, 422), "{}", refused.message());
        assert!(
            refused.message().contains("provided IP is already allocated"),
            "{}",
            refused.message()
        );
        // One that goes gives it back, to whichever server.
        let name = given.ok()["metadata"]["name"].as_str().unwrap().to_owned();
        two.delete(&format!("{services}/{name}")).await.ok();
        one.get(&format!("{services}/{name}")).await;
        one.post(services, &wanted("three")).await.ok();
    }
}

fn quota() -> Vec<Arc<dyn Plugin>> {
    vec![Arc::new(ResourceQuota::default())]
}

#[tokio::test(start_paused = true)]
async fn servers_agree_however_late_they_hear() {
    for seed in 0..4 {
        let random = Random::seeded(seed);
        let engine = engine_in_memory(Clock::real(), random.fork()).await;
        let late = EngineFaults {
            lag_max: Duration::from_millis(200),
            progress_held: 0.3,
            ..EngineFaults::default()
        };
        let server = || FaultyEngine::new(engine.clone(), random.fork(), late).with_other_writers();
        let one = World::over(Arc::new(server()), quota(), |_| {}).await;
        let two = World::over(Arc::new(server()), quota(), |_| {}).await;
        agree(&one.api(), &two.api()).await;
    }
}

/// A real etcd with one member; ends with the test.
struct Member {
    process: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Member {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (client, peer) = (free(), free());
        let [client, peer] = [client, peer].map(|socket| format!("http://{}", socket.local_addr().unwrap()));
        let process = Command::new("etcd")
            .args(["--data-dir", directory.path().to_str().unwrap()])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd of the Debian package etcd-server");
        Self {
            process,
            address: client,
            _directory: directory,
        }
    }

    /// Opens an engine as soon as it answers.
    async fn open(&self) -> Arc<dyn Engine> {
        let opened = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                match Etcd::open(EtcdOptions::new([self.address.clone()])).await {
                    Ok(engine) => return engine,
                    Err(error) => eprintln!("not yet: {error}"),
                }
            }
        });
        Arc::new(opened.await.expect("etcd answers in time"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_agree_on_a_real_etcd() {
    let member = Member::start();
    let one = World::over(member.open().await, quota(), |_| {}).await;
    let two = World::over(member.open().await, quota(), |_| {}).await;
    agree(&one.api(), &two.api()).await;
    // What is in etcd is where upstream puts it, and a server that starts later has all of it.
    let records = one
        .engine
        .range(store::KeyRange::prefix(b"/registry/configmaps/default/"), None)
        .await
        .unwrap();
    assert_eq!(records.records.len(), ROUNDS);
    let late = World::over(member.open().await, quota(), |_| {}).await;
    let listed = late.api().get(MAPS).await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), ROUNDS);
}
