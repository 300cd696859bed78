//! Backups and restores of a running cluster, and the history of an object, with the built program and `kubectl`.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use client::resource::resources::CONFIG_MAPS;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cluster::{Cluster, TRIREME, fail, succeed};

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn get(cluster: &Cluster, name: &str) -> Value {
    serde_json::from_str(&cluster.kubectl_ok(&["get", "configmap", name, "-o", "json"])).unwrap()
}

/// Writes without a pause until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Writer {
    fn start(cluster: &Cluster) -> Writer {
        let (client, stop) = (cluster.client(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut count = 0;
                while !stopped.load(Ordering::Relaxed) {
                    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": {"name": format!("busy-{count}")}, "data": {"text": "x".repeat(2000)}});
                    client.create_in(&CONFIG_MAPS, "default", &object).await.unwrap();
                    count += 1;
                }
                count
            })
        });
        Writer {
            stop,
            thread: Some(thread),
        }
    }

    fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_restored_cluster_has_everything_and_time_goes_on() {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "configmap", "kept", "--from-literal=a=1"]);
    cluster.kubectl_ok(&["create", "secret", "generic", "secret", "--from-literal=a=1"]);
    let token = cluster.account_token();
    let kept = get(&cluster, "kept");
    let file = cluster.dir.join("one.backup");
    let writer = Writer::start(&cluster);
    let told = cluster.trireme(&["backup", path(&file)]);
    succeed(&told);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("checked: "), "{told}");
    assert!(writer.finish() > 0);
    cluster.kubectl_ok(&["create", "configmap", "later"]);
    cluster.kubectl_ok(&["delete", "configmap", "kept"]);
    let last = revision(&get(&cluster, "later"));
    let seen = succeed(&cluster.trireme(&["restore", "--check", path(&file)]));
    assert!(seen.contains("revisions  ") && seen.contains("keys  "), "{seen}");
    // Secrets are sealed in it, by keys that are named and not there.
    assert!(seen.contains("sealed by  keys {1}"), "{seen}");

    let error = fail(&cluster.trireme(&["restore", path(&file), "--replace"]));
    assert!(
        error.contains("error[RUNNING]") && error.contains("hint: end it first: trireme "),
        "{error}"
    );
    succeed(&cluster.trireme(&["down"]));
    let error = fail(&cluster.trireme(&["restore", path(&file)]));
    assert!(
        error.contains("error[STORE_EXISTS]") && error.contains("--replace"),
        "{error}"
    );
    succeed(&cluster.trireme(&["restore", path(&file), "--replace"]));
    let aside = std::fs::read_dir(cluster.dir.join("data")).unwrap();
    let names: Vec<String> = aside
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("store.before-")), "{names:?}");
    cluster.up();

    let restored = get(&cluster, "kept");
    assert_eq!(restored["metadata"]["uid"], kept["metadata"]["uid"]);
    assert_eq!(restored["data"], kept["data"]);
    assert!(revision(&restored) > last, "{} after {last}", revision(&restored));
    fail(&cluster.kubectl(&["get", "configmap", "later"]));
    let secret = cluster.kubectl_ok(&["get", "secret", "secret", "-o", "jsonpath={.data.a}"]);
    assert_eq!(secret, "MQ==");
    // Writes that the backup has are whole; each of those before its revision is there.
    let busy = cluster.kubectl_ok(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]);
    let busy = busy.split(' ').filter(|name| name.starts_with("busy-")).count();
    for index in 0..busy {
        assert_eq!(
            get(&cluster, &format!("busy-{index}"))["data"]["text"]
                .as_str()
                .unwrap()
                .len(),
            2000
        );
    }
    // A client that goes on where it was is told to start anew.
    for old in [revision(&kept), last] {
        let watch = format!("/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion={old}");
        let event: Value = serde_json::from_str(&cluster.kubectl_ok(&["get", "--raw", &watch])).unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["code"]),
            (&json!("ERROR"), &json!(410)),
            "{event}"
        );
    }
    cluster.kubectl_ok(&["create", "configmap", "later"]);
    assert!(revision(&get(&cluster, "later")) > revision(&restored));
    let config = cluster.dir.join("by-token");
    let mut with_token = cluster.config();
    with_token["users"][0]["user"] = json!({"token": token.trim()});
    std::fs::write(&config, with_token.to_string()).unwrap();
    cluster.kubectl_ok(&["--kubeconfig", path(&config), "auth", "whoami"]);

    // The same elsewhere: a machine that has the file and the keys.
    let elsewhere = Cluster::prepare();
    succeed(&elsewhere.trireme(&["restore", path(&file)]));
    let (from, to) = (cluster.dir.join("data/pki"), elsewhere.dir.join("data/"));
    succeed(
        &Command::new("cp")
            .args(["-a", path(&from), path(&to)])
            .output()
            .unwrap(),
    );
    elsewhere.up();
    let secret = elsewhere.kubectl_ok(&["get", "secret", "secret", "-o", "jsonpath={.data.a}"]);
    assert_eq!(secret, "MQ==");
    assert_eq!(get(&elsewhere, "kept")["metadata"]["uid"], kept["metadata"]["uid"]);
}

#[test]
fn an_earlier_revision_is_restored() {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "configmap", "changed", "--from-literal=a=1"]);
    let first = revision(&get(&cluster, "changed"));
    cluster.kubectl_ok(&["patch", "configmap", "changed", "-p", r#"{"data":{"a":"2"}}"#]);
    let directory = cluster.dir.join("backups");
    let arguments = ["backup", path(&directory), "--keep", "2"];
    for _ in 0..3 {
        succeed(&cluster.trireme(&arguments));
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 2, "{files:?}");
    succeed(&cluster.trireme(&["down"]));
    let error = fail(&cluster.trireme(&["restore", path(&files[1]), "--replace", "--revision", "99999999"]));
    assert!(error.contains("error[NO_SUCH_REVISION]"), "{error}");
    let wanted = first.to_string();
    succeed(&cluster.trireme(&["restore", path(&files[1]), "--replace", "--revision", &wanted]));
    cluster.up();
    assert_eq!(get(&cluster, "changed")["data"]["a"], "1");
}

/// The next lines on standard error up to one that has a text in it; that one.
fn next_line(lines: &mut impl Iterator<Item = std::io::Result<String>>, text: &str) -> String {
    let line = lines.map(Result::unwrap).find(|line| line.contains(text));
    line.unwrap_or_else(|| panic!("it ended without {text:?}"))
}

#[test]
fn backups_on_schedule_go_on_over_an_outage_and_old_ones_go() {
    let cluster = Cluster::start();
    let directory = cluster.dir.join("scheduled");
    let mut child = Command::new(TRIREME)
        .args(["--dir", path(&cluster.dir), "backup", path(&directory)])
        .args(["--every", "1s", "--keep", "2"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let file = |line: String| PathBuf::from(line.split("checked: ").nth(1).unwrap());
    next_line(&mut lines, "checked: ");
    succeed(&cluster.trireme(&["down"]));
    next_line(&mut lines, "error[");
    cluster.up();
    let newest: Vec<PathBuf> = (0..3).map(|_| file(next_line(&mut lines, "checked: "))).collect();
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    // One more may have been taken before it heard.
    let last = lines
        .map(Result::unwrap)
        .filter(|line| line.contains("checked: "))
        .map(file);
    let mut made: Vec<PathBuf> = newest.into_iter().chain(last).collect();
    assert!(child.wait().unwrap().success());
    let files = std::fs::read_dir(&directory).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files, made.split_off(made.len() - 2));
    for file in &files {
        succeed(&cluster.trireme(&["restore", "--check", path(file)]));
    }
}

#[test]
fn a_bad_backup_is_refused_and_a_full_disk_told() {
    let cluster = Cluster::start();
    let output = cluster.trireme(&["backup", "-"]);
    assert!(output.status.success());
    let good = output.stdout;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(TRIREME)
        .args(["--dir", path(&cluster.dir), "backup", "-"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let error = fail(&output);
    assert!(
        error.contains("standard output: the disk is full\nhint: no backup was kept"),
        "{error}"
    );

    succeed(&cluster.trireme(&["down"]));
    let store = cluster.dir.join("data/store");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&store)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let cut = &good[..good.len() - 1];
    let before = names();
    for (bytes, why) in [
        (&flipped[..], "the backup is damaged at byte "),
        (cut, "the backup is cut off after "),
        (b"", "the backup is cut off after 0 bytes"),
        (b"PK\x03\x04", "this is not a backup of a store"),
    ] {
        let file = cluster.dir.join("bad.backup");
        std::fs::write(&file, bytes).unwrap();
        for arguments in [
            &["restore", path(&file), "--replace"][..],
            &["restore", "--check", path(&file)],
        ] {
            let error = fail(&cluster.trireme(arguments));
            assert!(
                error.contains("error[BACKUP_REFUSED]") && error.contains(why),
                "{error}"
            );
        }
    }
    assert!(names().len() >= before.len());
    assert!(!cluster.dir.join("data/store.restoring").exists());
    cluster.up();
    cluster.kubectl_ok(&["get", "namespace", "default"]);
}

#[test]
fn the_history_of_an_object_is_for_those_who_may_get_it() {
    let cluster = Cluster::start();
    cluster.kubectl_ok(&["create", "configmap", "seen", "--from-literal=a=1"]);
    let patch = [
        "patch",
        "configmap",
        "seen",
        "--field-manager=jane",
        "-p",
        r#"{"data":{"a":"2","b":"3"}}"#,
    ];
    cluster.kubectl_ok(&patch);
    cluster.kubectl_ok(&["delete", "configmap", "seen"]);
    let text = succeed(&cluster.trireme(&["history", "cm", "seen"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].ends_with("  created  by kubectl-create (Update)"), "{text}");
    assert!(lines[1].ends_with("  changed  by jane (Update)"), "{text}");
    assert_eq!(lines[2..4], [r#"    ~ data.a: "1" -> "2""#, r#"    + data.b: "3""#]);
    assert!(lines[4].ends_with("  deleted"), "{text}");

    cluster.kubectl_ok(&["create", "role", "reader", "--verb=get", "--resource=configmaps"]);
    cluster.kubectl_ok(&[
        "create",
        "rolebinding",
        "reader",
        "--role=reader",
        "--serviceaccount=default:default",
    ]);
    let token = cluster.account_token();
    let config = cluster.dir.join("reader");
    let mut reader = cluster.config();
    reader["users"][0]["user"] = json!({"token": token.trim()});
    std::fs::write(&config, reader.to_string()).unwrap();
    let ask = |kind: &str, name: &str| cluster.trireme(&["history", kind, name, "--kubeconfig", path(&config)]);
    assert_eq!(succeed(&ask("configmap", "seen")), text);
    let error = fail(&ask("secret", "seen"));
    assert!(
        error.contains("error[FORBIDDEN]") && error.contains("cannot get resource \"secrets\""),
        "{error}"
    );
    let error = fail(&ask("configmap", "never"));
    assert!(error.contains("error[NOT_FOUND]"), "{error}");
    let error = fail(&ask("nonsense", "seen"));
    assert!(error.contains("error[NO_SUCH_KIND]"), "{error}");
    let error = fail(&cluster.trireme(&["backup", "-", "--kubeconfig", path(&config)]));
    assert!(error.contains("error[FORBIDDEN]"), "{error}");
}
