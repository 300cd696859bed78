//! What the command line says when something is wrong: each text whole, as people read it.
//!
//! `DIR` stands for the cluster's directory, `PORT` for a port, `PID` for a process.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use regex::Regex;

use crate::cluster::{Cluster, TRIREME, fail, succeed};
use crate::node_cluster::kill;

/// The user and group that have no rights: Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// Compares exit code and text of a command that fails.
#[track_caller]
fn check(cluster: &Cluster, words: &str, code: i32, expect: &str) {
    let words = words.replace("DIR", &cluster.dir.display().to_string());
    let arguments: Vec<&str> = words.split_whitespace().collect();
    let output = cluster.trireme(&arguments);
    let error = fail(&output);
    assert_eq!(shown(cluster, &error), expect.trim_start(), "trireme {words}");
    assert_eq!(output.status.code(), Some(code), "trireme {words}: {error}");
}

fn shown(cluster: &Cluster, text: &str) -> String {
    let text = text.replace(&cluster.dir.display().to_string(), "DIR");
    let text = Regex::new(r"127\.0\.0\.1:\d+|\bport \d{2,}|sport = :\d+")
        .unwrap()
        .replace_all(&text, |found: &regex::Captures| {
            let text = &found[0];
            let digits = text.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
            format!("{}PORT", &text[..digits])
        });
    let text = Regex::new(r"process \d+").unwrap().replace_all(&text, "process PID");
    // What tells that it takes long is no error.
    let lines = text.lines().filter(|line| !line.ends_with(" ..."));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn where_no_cluster_is() {
    let cluster = Cluster::prepare();
    let none = "error[NO_CLUSTER]: no cluster is running from DIR/data\nhint: start one: trireme --dir DIR up\n";
    for words in [
        "status",
        "status -o json",
        "kubeconfig",
        "kubeconfig --merge",
        "image ls",
        "history pod a",
        "backup a",
    ] {
        check(&cluster, words, 69, none);
    }
    // These are as wanted already.
    for words in [&["down"][..], &["reset", "--yes"]] {
        succeed(&cluster.trireme(words));
    }
    check(
        &cluster,
        "up --no-node --demo",
        64,
        "error[NO_NODE]: the demo needs a node\nhint: leave out --no-node: trireme --dir DIR up --demo\n",
    );
    check(
        &cluster,
        "restore DIR/none",
        71,
        "error[NO_FILE]: DIR/none: No such file or directory\nhint: look whether the name is right\n",
    );
    check(
        &cluster,
        "server --etcd-servers a:1 --etcd-compaction-interval soon",
        64,
        "error[DURATION]: --etcd-compaction-interval soon is not a duration\nhint: write it like 5m0s\n",
    );
    for words in [
        "up --no-such-flag",
        "nothing",
        "image import",
        "up --api-port x",
        "backup",
        "history pod",
    ] {
        let output = cluster.trireme(&words.split_whitespace().collect::<Vec<_>>());
        let error = fail(&output);
        assert!(
            error.starts_with("error: ") && error.contains("--help"),
            "trireme {words}: {error}"
        );
        assert_eq!(output.status.code(), Some(64), "trireme {words}");
    }
}

#[test]
fn where_something_else_is() {
    let cluster = Cluster::prepare();
    std::fs::create_dir(cluster.dir.join("data")).unwrap();
    std::fs::write(cluster.dir.join("data/thesis.tex"), "years of work").unwrap();
    check(
        &cluster,
        "up --no-node",
        64,
        "error[NOT_A_CLUSTER]: DIR/data has files in it that are not a cluster's\n\
         hint: name another directory: trireme --dir DIR; or move away what is there\n",
    );
    succeed(&cluster.trireme(&["reset", "--yes"]));
    assert!(cluster.dir.join("data/thesis.tex").exists());

    let cluster = Cluster::prepare();
    std::fs::write(cluster.dir.join("data"), "a file").unwrap();
    check(
        &cluster,
        "up --no-node",
        71,
        "error[FILE]: DIR/data/settings.json: Not a directory\nhint: a file is where a directory has to be: move it away\n",
    );
}

#[test]
fn a_cluster_that_runs() {
    let cluster = Cluster::start();
    check(
        &cluster,
        "up --no-node --api-port 1",
        64,
        "error[SHAPE]: the API listens on port PORT already\n\
         hint: start it anew: trireme --dir DIR down; trireme --dir DIR up --api-port 1\n",
    );
    check(
        &cluster,
        "up",
        64,
        "error[SHAPE]: this cluster was started without a node\n\
         hint: go on without one: trireme --dir DIR up --no-node; or start it anew with one: trireme --dir DIR down; \
         trireme --dir DIR up\n",
    );
    check(
        &cluster,
        "server --api-port 0",
        71,
        "error[ALREADY_RUNNING]: a control plane is running already from DIR/data (process PID)\n\
         hint: look at it: trireme --dir DIR status; end it: trireme --dir DIR down\n",
    );
    check(
        &cluster,
        "restore x",
        64,
        "error[RUNNING]: the control plane is running (process PID)\nhint: end it first: trireme --dir DIR down\n",
    );
    check(
        &cluster,
        "image ls",
        69,
        "error[NO_NODE]: this cluster has no node to keep images\n\
         hint: start it with one: trireme --dir DIR down; trireme --dir DIR up\n",
    );
    check(
        &cluster,
        "history nosuch a",
        64,
        "error[NO_SUCH_KIND]: the server has no kind \"nosuch\"\nhint: see which it has: kubectl api-resources\n",
    );
    check(
        &cluster,
        "backup - --every 1h",
        64,
        "error[USAGE]: standard output takes one backup: --every and --keep need more\nhint: name a directory\n",
    );

    // It hangs.
    let pid = rustix::process::Pid::from_raw(cluster.server_pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    check(
        &cluster,
        "status",
        71,
        "error[NOT_WELL]: the control plane does not work: it does not answer within 5 s\n\
         hint: see its log: DIR/data/log/server.log; if that stays so, start it anew: trireme --dir DIR down; \
         trireme --dir DIR up\n",
    );
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    succeed(&cluster.trireme(&["status"]));

    // Nobody starts it again.
    cluster.supervisors().into_iter().for_each(kill);
    kill(pid.as_raw_nonzero().get());
    let output = cluster.trireme(&["status"]);
    let state = shown(&cluster, &String::from_utf8_lossy(&output.stdout));
    let why = "not running: its supervisor (process PID) was killed, or the machine was started anew\n";
    assert!(state.contains(why), "{state}");
    assert!(fail(&output).starts_with("error[NO_CLUSTER]: "));
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let cluster = Cluster::prepare();
    check(
        &cluster,
        &format!("up --no-node --api-port {port}"),
        71,
        "error[PORT_TAKEN]: the control plane did not start: the API cannot listen on 127.0.0.1:PORT: Address already in use\n\
         hint: see who has it: ss -ltnp sport = :PORT; or take a free one: --api-port 0; its log: DIR/data/log/server.log\n",
    );
    let state = String::from_utf8_lossy(&cluster.trireme(&["status"]).stdout).into_owned();
    assert!(
        state.contains("not running: the last start failed, PORT_TAKEN: the API cannot listen on "),
        "{state}"
    );
    check(
        &cluster,
        &format!("server --api-port {port}"),
        71,
        "error[PORT_TAKEN]: the API cannot listen on 127.0.0.1:PORT: Address already in use\n\
         hint: see who has it: ss -ltnp sport = :PORT; or take a free one: --api-port 0\n",
    );
    // The advice works.
    succeed(&cluster.trireme(&["up", "--no-node", "--api-port", "0"]));
}

#[test]
fn files_that_are_broken() {
    let cluster = Cluster::start();
    succeed(&cluster.trireme(&["down"]));
    let place = |name: &str| cluster.dir.join("data").join(name);
    let spoil = |name: &str, text: &str| {
        let good = std::fs::read(place(name)).unwrap();
        std::fs::write(place(name), text).unwrap();
        good
    };
    let key = spoil("pki/ca.key", "no key");
    let error = shown(&cluster, &fail(&cluster.trireme(&["up", "--no-node"])));
    assert!(
        error.starts_with(
            "error[PKI_BROKEN]: the control plane did not start: the certificate ca in DIR/data/pki cannot be used: "
        ),
        "{error}"
    );
    assert!(error.contains("\nhint: restore the directory from a backup"), "{error}");
    std::fs::write(place("pki/ca.key"), key).unwrap();

    let good = spoil("settings.json", "garbage");
    let broken = "error[SETTINGS_BROKEN]: DIR/data/settings.json: expected value at line 1 column 1\n\
        hint: remove that file, then: trireme --dir DIR up with the flags you want; nothing else is lost\n";
    for words in ["status", "up --no-node", "image ls"] {
        check(&cluster, words, 71, broken);
    }
    std::fs::write(place("settings.json"), good).unwrap();

    std::fs::write(cluster.kubeconfig(), "{broken: [").unwrap();
    let error = fail(&cluster.trireme(&["up", "--no-node"]));
    assert!(error.contains("error[KUBECONFIG_BROKEN]: "), "{error}");
    assert!(
        error.ends_with("hint: mend or move that file, or name another one: KUBECONFIG=FILE trireme up\n"),
        "{error}"
    );
    // What cannot be read does not keep the cluster from being removed.
    spoil("settings.json", "garbage");
    let pid = cluster.server_pid();
    let error = fail(&cluster.trireme(&["reset", "--yes"]));
    assert!(
        error.contains("error[KUBECONFIG_BROKEN]") && error.contains("hint: data and keys are removed; mend "),
        "{error}"
    );
    assert!(!Path::new(&format!("/proc/{pid}")).exists() && !place("").exists());
    assert_eq!(std::fs::read_to_string(cluster.kubeconfig()).unwrap(), "{broken: [");
}

/// Runs the program as `nobody`, who may not even go where it lies: it is opened before.
fn as_nobody(cluster: &Cluster, words: &str) -> std::process::Output {
    let script = r#"exec 9<"$0"; exec setpriv --reuid "$1" --regid "$1" --clear-groups /proc/self/fd/9 --dir "$2" $3"#;
    Command::new("/bin/sh")
        .args(["-c", script, TRIREME, &NOBODY.to_string()])
        .arg(&cluster.dir)
        .arg(words)
        .env("HOME", &cluster.dir)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env_remove("SUDO_UID")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn without_root() {
    let cluster = Cluster::prepare();
    let error = fail(&as_nobody(&cluster, "up"));
    assert_eq!(
        shown(&cluster, &error),
        "error[NEEDS_ROOT]: a node needs root: it makes namespaces and containers\n\
         hint: run it with sudo, or start the control plane alone, as yourself: trireme --dir DIR up --no-node\n"
    );
    let error = fail(&as_nobody(&cluster, "up --no-node"));
    assert_eq!(
        shown(&cluster, &error),
        "error[NO_PERMISSION]: DIR/data: Permission denied\n\
         hint: run this as root (sudo), or name a place of your own: trireme --dir DIR\n"
    );
    chown(&cluster.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    succeed(&as_nobody(&cluster, "up --no-node --api-port 0"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.server_pid())).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}")), "{status}");
    assert_eq!(
        cluster.kubectl_ok(&["get", "namespace", "default", "-o", "name"]),
        "namespace/default\n"
    );
    succeed(&as_nobody(&cluster, "status"));
    succeed(&as_nobody(&cluster, "down"));
    succeed(&as_nobody(&cluster, "up --no-node"));
    succeed(&as_nobody(&cluster, "reset --yes"));
    let left: Vec<_> = std::fs::read_dir(&cluster.dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(left.iter().all(|name| name == ".kube"), "{left:?}");
}

#[test]
fn the_kubeconfig_of_the_user_behind_sudo() {
    use std::os::unix::fs::MetadataExt as _;
    let cluster = Cluster::prepare();
    chown(&cluster.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let config = cluster.dir.join("home/.kube/config");
    std::fs::create_dir(cluster.dir.join("home")).unwrap();
    let sudo = [
        ("SUDO_UID", NOBODY.to_string()),
        ("SUDO_GID", NOBODY.to_string()),
        ("KUBECONFIG", format!("/no/such:{}", config.display())),
    ];
    let sudo: Vec<(&str, &str)> = sudo.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // As that user, who may not write there yet.
    let error = fail(&cluster.trireme_with(&["up", "--no-node", "--api-port", "0"], &sudo));
    assert!(
        error.contains("error[NO_PERMISSION]: ") && error.contains("(as user 65534, who is behind sudo)"),
        "{error}"
    );
    chown(cluster.dir.join("home"), Some(NOBODY), Some(NOBODY)).unwrap();
    succeed(&cluster.trireme_with(&["up", "--no-node"], &sudo));
    let file = std::fs::metadata(&config).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (NOBODY, NOBODY, 0o600));
    let state = succeed(&cluster.trireme(&["status"]));
    assert!(state.contains("home/.kube/config, context trireme"), "{state}");
    succeed(&cluster.trireme(&["reset", "--yes"]));
    assert!(!config.parent().unwrap().exists() && cluster.dir.join("home").exists());
}
