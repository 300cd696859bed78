//! `kill -9` of the control plane at twenty moments under writes.
//!
//! What has to hold: every acknowledged write is there after `up`; a watcher that resumes where it was sees each
//! revision exactly once and in order, and never has to list again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::Random;
use client::resource::resources::CONFIG_MAPS;
use client::{Client, DeleteParams, Event, ListParams, WatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// How often the control plane dies.
const CRASHES: u64 = 20;
/// Tasks that write through HTTPS.
const WRITERS: u64 = 4;
/// Names each writer writes to; few, so that creates, updates and deletes follow each other on one object.
const NAMES: u64 = 5;
/// A crash comes at most so long after the control plane has answered a write.
const CRASH_AFTER_MS_MAX: u64 = 80;
/// When a request failed though the control plane was not started again, the next one comes after so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
const NAMESPACE: &str = "default";

/// What the server acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    /// Creates and updates by the revision that the server told: the object's name and content.
    written: BTreeMap<u64, (String, String)>,
    /// The uids of objects that were deleted: the answer to a delete tells no revision.
    deleted: BTreeSet<String>,
    updates: u64,
}

/// What the watcher saw.
struct Seen {
    revision: u64,
    name: String,
    uid: String,
    /// `None`: the object is gone.
    value: Option<String>,
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn value_of(object: &Value) -> String {
    object["data"]["value"].as_str().unwrap_or("").to_owned()
}

#[test]
fn no_acknowledged_write_is_lost_and_no_event_repeated() {
    let seed = std::env::var("TRIREME_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20);
    println!("TRIREME_SEED={seed}");
    let cluster = Cluster::start_on(&free_port().to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(crash_and_check(&cluster, seed));
}

/// A port that no outgoing connection has: while the server is down, a client that connects to a port of that range can
/// be given it as its own, and then meets itself.
fn free_port() -> u16 {
    (20_000..32_000)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Kills the control plane and waits until the kernel has let go of all that it had.
fn kill(cluster: &Cluster) {
    let pid = rustix::process::Pid::from_raw(cluster.server_pid()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let mut gone = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut gone, None).unwrap();
}

async fn crash_and_check(cluster: &Cluster, seed: u64) {
    let random = Random::seeded(seed);
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    // Counts the answers.
    let (answers, mut answered) = watch::channel(0_u64);
    // The number of times the control plane was started; `u64::MAX` ends the writers.
    let (starts, started) = watch::channel(1_u64);

    let client = cluster.client();
    let present = client
        .list_in::<Value>(&CONFIG_MAPS, NAMESPACE, &ListParams::default())
        .await
        .unwrap();
    let watcher = tokio::spawn(record(
        client.clone(),
        present.resource_version.clone(),
        started.clone(),
    ));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let random = Random::seeded(seed * 1000 + writer);
            tokio::spawn(write(
                client.clone(),
                writer,
                random,
                acknowledged.clone(),
                answers.clone(),
                started.clone(),
            ))
        })
        .collect();
    let typist = tokio::spawn(type_kubectl(cluster.kubeconfig(), cluster.dir.clone(), started.clone()));

    for start in 2..=CRASHES + 1 {
        answered.mark_unchanged();
        answered.changed().await.expect("writers write to the end");
        tokio::time::sleep(Duration::from_millis(random.range(0..CRASH_AFTER_MS_MAX))).await;
        tokio::task::block_in_place(|| {
            kill(cluster);
            cluster.up();
        });
        starts.send(start).unwrap();
    }
    starts.send(u64::MAX).unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    let typed = typist.await.unwrap();
    // The last event that the watcher has to see.
    let end = client
        .create_in(&CONFIG_MAPS, NAMESPACE, &object("end", "end"))
        .await
        .unwrap();
    let events = tokio::time::timeout(Duration::from_secs(30), watcher)
        .await
        .expect("the watcher sees the end")
        .unwrap();

    let acknowledged = acknowledged.lock().unwrap().clone();
    let Acknowledged {
        written,
        deleted,
        updates,
    } = acknowledged;
    let counts = format!(
        "{} creates and updates, {updates} of them updates, {} deletes",
        written.len(),
        deleted.len()
    );
    assert!(
        written.len() as u64 > CRASHES && updates > 0 && !deleted.is_empty(),
        "only {counts}"
    );
    let mut seen: BTreeMap<u64, (String, Option<String>)> = BTreeMap::new();
    let mut gone: BTreeSet<String> = BTreeSet::new();
    let mut last = present.resource_version.parse::<u64>().unwrap();
    for Seen {
        revision,
        name,
        uid,
        value,
    } in &events
    {
        assert!(*revision > last, "revision {revision} after {last}");
        last = *revision;
        if value.is_none() {
            gone.insert(uid.clone());
        }
        seen.insert(*revision, (name.clone(), value.clone()));
    }
    for (revision, (name, value)) in written {
        let write = Some((name, Some(value)));
        assert_eq!(seen.get(&revision).cloned(), write, "acknowledged revision {revision}");
    }
    let kept: Vec<_> = deleted.difference(&gone).collect();
    assert!(
        kept.is_empty(),
        "deletes were acknowledged and did not happen: {kept:?}"
    );
    // The history of events leads to exactly the state that is there.
    let mut state: BTreeMap<String, String> = present
        .items
        .iter()
        .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), value_of(item)))
        .collect();
    for (name, value) in seen.into_values() {
        match value {
            Some(value) => state.insert(name, value),
            None => state.remove(&name),
        };
    }
    let list = client
        .list_in::<Value>(&CONFIG_MAPS, NAMESPACE, &ListParams::default())
        .await
        .unwrap();
    let there: BTreeMap<String, String> = list
        .items
        .iter()
        .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), value_of(item)))
        .collect();
    assert_eq!(there, state);
    for name in &typed {
        assert!(there.contains_key(name), "kubectl was told that {name} is created");
    }
    assert_eq!(last, revision(&end));
    println!(
        "acknowledged: {counts}, {} by kubectl; {} events",
        typed.len(),
        events.len()
    );
}

fn object(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

/// Waits until the control plane was started again after `seen`. What failed for another reason is tried again too.
async fn next_start(started: &mut watch::Receiver<u64>, seen: u64) {
    let again = started.wait_for(|start| *start != seen);
    // Elapsed or not: the caller tries again.
    let _ = tokio::time::timeout(RETRY_AFTER, again).await;
}

/// Creates, updates and deletes, and keeps what was acknowledged. A write without an answer is unknown, and forgotten.
async fn write(
    client: Client,
    writer: u64,
    random: Random,
    acknowledged: Arc<Mutex<Acknowledged>>,
    answers: watch::Sender<u64>,
    mut started: watch::Receiver<u64>,
) {
    for number in 0_u64.. {
        let seen = *started.borrow();
        if seen == u64::MAX {
            return;
        }
        let (name, value) = (
            format!("w{writer}-{}", random.range(0..NAMES)),
            format!("{writer}.{number}"),
        );
        let kind = random.range(0..4);
        let answer = match kind {
            0 => {
                client
                    .delete(&CONFIG_MAPS, NAMESPACE, &name, &DeleteParams::default())
                    .await
            }
            1 => client.create_in(&CONFIG_MAPS, NAMESPACE, &object(&name, &value)).await,
            _ => {
                client
                    .update(&CONFIG_MAPS, NAMESPACE, &name, None, &object(&name, &value))
                    .await
            }
        };
        match answer {
            Ok(answer) => {
                let mut acknowledged = acknowledged.lock().unwrap();
                if kind == 0 {
                    acknowledged
                        .deleted
                        .insert(answer["details"]["uid"].as_str().unwrap().to_owned());
                } else {
                    acknowledged.written.insert(revision(&answer), (name, value));
                    acknowledged.updates += u64::from(kind > 1);
                }
                answers.send_modify(|answers| *answers += 1);
            }
            // It exists already, or it does not: both are answers.
            Err(error) if error.status().is_some_and(|status| matches!(status.code, 404 | 409)) => {}
            Err(error) => {
                assert!(error.status().is_none_or(|status| status.code >= 500), "{error}");
                next_start(&mut started, seen).await;
            }
        }
    }
}

/// What `kubectl create` said to have created.
async fn type_kubectl(
    kubeconfig: std::path::PathBuf,
    home: std::path::PathBuf,
    started: watch::Receiver<u64>,
) -> BTreeSet<String> {
    let mut created = BTreeSet::new();
    for number in 0_u64.. {
        if *started.borrow() == u64::MAX {
            break;
        }
        let name = format!("typed-{number}");
        let status = tokio::process::Command::new("kubectl")
            .args(["create", "configmap", &name])
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", &home)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .await
            .unwrap();
        if status.success() {
            created.insert(name);
        }
    }
    created
}

/// Watches from a revision, through every crash, to the object `end`. A 410 or any other refusal fails.
async fn record(client: Client, from: String, mut started: watch::Receiver<u64>) -> Vec<Seen> {
    let mut events = Vec::new();
    let mut from = from;
    loop {
        let params = WatchParams {
            resource_version: from.clone(),
            ..WatchParams::default()
        };
        // Taken before the request: a start that comes while it fails is not missed.
        let seen = *started.borrow();
        match client.watch_in::<Value>(&CONFIG_MAPS, NAMESPACE, &params).await {
            Ok(mut watch) => {
                while let Some(event) = watch.next().await {
                    let (object, gone) = match event {
                        Ok(Event::Added(object) | Event::Modified(object)) => (object, false),
                        Ok(Event::Deleted(object)) => (object, true),
                        Ok(Event::Bookmark { .. }) => continue,
                        Err(error) => {
                            assert!(error.status().is_none(), "the watch at {from} was refused: {error}");
                            break;
                        }
                    };
                    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                    let value = (!gone).then(|| value_of(&object));
                    from = revision(&object).to_string();
                    let is_end = name == "end";
                    events.push(Seen {
                        revision: revision(&object),
                        uid: object["metadata"]["uid"].as_str().unwrap().to_owned(),
                        name,
                        value,
                    });
                    if is_end {
                        return events;
                    }
                }
            }
            Err(error) => assert!(
                error.status().is_none_or(|status| status.code >= 500),
                "the watch at {from} was refused: {error}"
            ),
        }
        next_start(&mut started, seen).await;
    }
}
