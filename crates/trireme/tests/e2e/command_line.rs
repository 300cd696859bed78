//! The commands of `trireme`: idempotent, and every error says what happened, why, and what to do.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::cluster::{Cluster, fail, succeed};
use crate::node_cluster::{kill, until};

fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_cluster_starts_once_ends_and_comes_back_with_its_data() {
    let cluster = Cluster::start();
    let (pid, server) = (cluster.server_pid(), cluster.server());
    cluster.kubectl_ok(&["create", "configmap", "kept", "--from-literal=a=1"]);
    let token = cluster.account_token();

    let again = cluster.trireme(&["up", "--no-node"]);
    let text = fail_free(&again);
    assert!(text.contains("the control plane is running already"), "{text}");
    // Any port is the one that it has.
    succeed(&cluster.trireme(&["up", "--no-node", "--api-port", "0"]));
    assert_eq!(cluster.server_pid(), pid, "`up` starts nothing twice");
    assert_eq!(cluster.server(), server);

    succeed(&cluster.trireme(&["down"]));
    assert!(!is_alive(pid));
    assert!(!cluster.dir.join("run/server.process").exists());
    let text = fail_free(&cluster.trireme(&["down"]));
    assert!(text.contains("is not running"), "{text}");
    let error = fail(&cluster.kubectl(&["get", "configmap", "kept"]));
    assert!(error.contains("refused"), "{error}");

    cluster.up();
    assert_ne!(cluster.server_pid(), pid);
    assert_eq!(
        cluster.server(),
        server,
        "the port stays, so that what people wrote down still works"
    );
    assert_eq!(
        cluster.kubectl_ok(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]),
        "1"
    );
    let config = cluster.dir.join("by-token");
    let mut with_token = cluster.config();
    with_token["users"][0]["user"] = serde_json::json!({"token": token.trim()});
    std::fs::write(&config, with_token.to_string()).unwrap();
    let who = cluster.kubectl_ok(&[
        "--kubeconfig",
        config.to_str().unwrap(),
        "auth",
        "whoami",
        "-o",
        "jsonpath={.status.userInfo.username}",
    ]);
    assert_eq!(who, "system:serviceaccount:default:default", "tokens outlive a restart");
}

#[test]
fn what_runs_is_told_to_people_and_programs() {
    let cluster = Cluster::start();
    let text = succeed(&cluster.trireme(&["status"]));
    let pid = cluster.server_pid();
    assert!(text.contains(&format!("control plane    {pid}")), "{text}");
    assert!(text.contains("ready") && text.contains(&cluster.server()), "{text}");
    let state: Value = serde_json::from_str(&succeed(&cluster.trireme(&["status", "-o", "json"]))).unwrap();
    assert_eq!(state["processes"]["server"]["pid"], pid);
    assert_eq!(state["processes"]["server"]["health"], "ready");
    assert_eq!(state["api"], cluster.server().as_str());

    succeed(&cluster.trireme(&["down"]));
    let output = cluster.trireme(&["status", "-o", "json"]);
    let state: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(state["processes"]["server"], Value::Null);
    assert_eq!(output.status.code(), Some(69));
    assert!(fail(&output).starts_with("error[NO_CLUSTER]: no cluster is running from "));
}

#[test]
fn a_control_plane_that_dies_is_started_again() {
    let cluster = Cluster::start();
    let status = |cluster: &Cluster| -> Value {
        serde_json::from_slice(&cluster.trireme(&["status", "-o", "json"]).stdout).unwrap()
    };
    let (first, server) = (cluster.server_pid(), cluster.server());
    assert_eq!(status(&cluster)["processes"]["server"]["restarts"], 0);
    kill(first);
    let state = until("another control plane", || {
        let state = status(&cluster)["processes"]["server"].clone();
        (state["health"] == "ready" && state["restarts"] == 1).then_some(state)
    });
    assert_ne!(state["pid"], first);
    assert_eq!(state["lastDeath"]["why"], "killed by signal 9");
    assert_eq!(cluster.server(), server, "on the same port");
    assert_eq!(cluster.kubectl_ok(&["get", "--raw", "/readyz"]), "ok");
    let text = succeed(&cluster.trireme(&["status"]));
    assert!(
        text.contains("started again once, last at ") && text.contains(": killed by signal 9"),
        "{text}"
    );

    // `up` at once after a death, also of both: it waits for what is coming up or going away, and never finds a taken port.
    for round in 0..4 {
        let supervisors = cluster.supervisors();
        let pid = rustix::process::Pid::from_raw(cluster.server_pid()).unwrap();
        if round % 2 == 1 {
            supervisors.into_iter().for_each(kill);
        }
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        cluster.up();
        assert_eq!(cluster.kubectl_ok(&["get", "--raw", "/readyz"]), "ok", "round {round}");
    }

    // Asked to end, it ends.
    let (pid, supervisors) = (cluster.server_pid(), cluster.supervisors());
    succeed(&cluster.trireme(&["down"]));
    assert!(!is_alive(pid) && !supervisors.into_iter().any(is_alive));
}

#[test]
fn reset_removes_what_up_made_and_nothing_else() {
    let cluster = Cluster::prepare();
    let theirs = r#"{"apiVersion":"v1","kind":"Config","current-context":"prod","preferences":{},
        "clusters":[{"name":"prod","cluster":{"server":"https://prod"}}],
        "contexts":[{"name":"prod","context":{"cluster":"prod","user":"me"}}],"users":[{"name":"me","user":{"token":"t"}}]}"#;
    std::fs::write(cluster.kubeconfig(), theirs).unwrap();
    std::fs::write(cluster.dir.join("a file of mine"), "").unwrap();
    cluster.up();
    let pid = cluster.server_pid();
    let mode = std::fs::metadata(cluster.kubeconfig()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(cluster.kubectl_ok(&["config", "current-context"]), "trireme\n");
    assert_eq!(
        cluster.kubectl_ok(&["config", "get-contexts", "-o", "name"]),
        "prod\ntrireme\n"
    );

    let error = fail(&cluster.trireme(&["reset"]));
    assert!(
        error.starts_with("error[NOT_CONFIRMED]: this removes the cluster in "),
        "{error}"
    );
    let call = format!(
        "hint: call it with --yes: trireme --dir {} reset --yes\n",
        cluster.dir.display()
    );
    assert!(error.ends_with(&call), "{error}");
    assert!(is_alive(pid));

    succeed(&cluster.trireme(&["reset", "--yes"]));
    assert!(!is_alive(pid));
    let mut left: Vec<String> = std::fs::read_dir(&cluster.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    // `.kube` is kubectl's own cache.
    left.retain(|name| name != ".kube");
    assert_eq!(left, ["a file of mine", "kubeconfig"]);
    assert_eq!(cluster.kubectl_ok(&["config", "get-contexts", "-o", "name"]), "prod\n");
    assert!(cluster.kubectl_ok(&["config", "view", "--raw"]).contains("token: t"));
    assert_eq!(
        cluster.kubectl_ok(&["config", "current-context"]),
        "prod\n",
        "as before"
    );

    let text = fail_free(&cluster.trireme(&["reset", "--yes"]));
    assert!(text.contains("there is no cluster in "), "{text}");
}

#[test]
fn a_kubeconfig_made_by_up_goes_with_reset() {
    let cluster = Cluster::start();
    assert!(cluster.kubeconfig().exists());
    let printed = succeed(&cluster.trireme(&["kubeconfig"]));
    let printed: Value = serde_saphyr::from_str(&printed).unwrap();
    assert_eq!(printed["users"], cluster.config()["users"]);
    succeed(&cluster.trireme(&["reset", "--yes"]));
    assert!(!cluster.kubeconfig().exists());
}

#[test]
fn the_users_kubeconfig_can_be_left_alone() {
    let cluster = Cluster::prepare();
    succeed(&cluster.trireme(&["up", "--no-node", "--api-port", "0", "--no-kubeconfig"]));
    assert!(!cluster.kubeconfig().exists());
    succeed(&cluster.trireme(&["kubeconfig", "--merge"]));
    assert_eq!(
        cluster.kubectl_ok(&["get", "namespace", "default", "-o", "name"]),
        "namespace/default\n"
    );
}

#[test]
fn a_second_server_on_one_directory_is_refused() {
    let cluster = Cluster::start();
    let output = cluster.trireme(&["server", "--api-port", "0"]);
    let error = fail(&output);
    assert!(
        error.starts_with("error[ALREADY_RUNNING]: a control plane is running already from "),
        "{error}"
    );
    assert!(error.contains("hint: look at it: trireme --dir "), "{error}");
    assert_eq!(cluster.kubectl_ok(&["get", "--raw", "/readyz"]), "ok");
}

#[test]
fn versions_are_told() {
    let cluster = Cluster::prepare();
    let text = succeed(&cluster.trireme(&["version"]));
    assert!(
        text.starts_with("trireme ") && text.contains("(Kubernetes v1.36."),
        "{text}"
    );
    let version: Value = serde_json::from_str(&succeed(&cluster.trireme(&["version", "-o", "json"]))).unwrap();
    assert!(version["kubernetes"].as_str().unwrap().starts_with("v1.36."));
}

/// What a successful command told people.
#[track_caller]
fn fail_free(output: &std::process::Output) -> String {
    succeed(output);
    String::from_utf8_lossy(&output.stderr).into_owned()
}
