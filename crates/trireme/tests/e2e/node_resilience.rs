//! Deaths of daemons, reboots, `down` and `reset`: pods go on or come back, and nothing stays behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cluster::{Cluster, Workplace, succeed};
use crate::node_cluster::{
    cgroup, cgroup_directories, create, daemon, inside, kill, name, pods, process_of, ready, server_cgroup, start,
    until, until_pods, up,
};
use crate::traces::{Marks, Traces};

const WORK: &str = r#"
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}], ports: [{name: http, containerPort: 8080}],
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {round: '0'}}
---
{apiVersion: v1, kind: Pod, metadata: {name: talks, labels: {app: talks}}, spec: {terminationGracePeriodSeconds: 1, volumes: [{name: s, configMap: {name: settings}}],
  containers: [{name: c, image: 'IMAGE', command: [/bin/demo, spam, '100000', '10'], volumeMounts: [{name: s, mountPath: /settings}]}]}}
"#;

/// What of a pod has to stay as it is: its containers' processes with their start times, and how often they were started.
fn lives(place: &Workplace) -> BTreeMap<String, (String, Value)> {
    let mut all = pods(place, "app=web");
    all.extend(pods(place, "app=talks"));
    let life = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        (
            process_of(container["containerID"].as_str().unwrap()),
            container["restartCount"].clone(),
        )
    };
    all.iter().map(|(name, pod)| (name.clone(), life(pod))).collect()
}

/// How many lines `talks` has written; every one of them has to be there, in order.
fn lines(place: &Workplace) -> usize {
    let log = place.kubectl_ok(&["logs", "talks"]);
    for (index, line) in log.lines().enumerate() {
        assert_eq!(line, format!("line {index}"));
    }
    log.lines().count()
}

fn all_ready(place: &Workplace) {
    place.kubectl_ok(&["rollout", "status", "deployment/web", crate::cluster::PATIENCE]);
    place.wait("pod/talks", "condition=Ready");
}

fn restarts(place: &Workplace) -> BTreeMap<String, u64> {
    let mut all = pods(place, "app=web");
    all.extend(pods(place, "app=talks"));
    all.into_iter()
        .map(|(name, pod)| {
            (
                name,
                pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap(),
            )
        })
        .collect()
}

/// Since when the node is ready, as its condition says.
fn ready_since(place: &Workplace) -> Value {
    let nodes = place.get(&["nodes"]);
    let conditions = nodes["items"][0]["status"]["conditions"].as_array().unwrap();
    let ready = conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .unwrap();
    ready["lastTransitionTime"].clone()
}

#[test]
fn pods_survive_daemons_reboots_and_leave_nothing_behind() {
    let before = Traces::of_machine();
    let cluster = start();
    let place = cluster.workplace("survives");
    create(&place, WORK);
    all_ready(&place);

    let first = lives(&place);
    let mut written = lines(&place);
    let since = ready_since(&place);
    for (pid, group) in [
        (daemon(&cluster).unwrap(), cgroup(&cluster)),
        (cluster.server_pid(), server_cgroup(&cluster)),
    ] {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = format!("/{group}/daemon");
        assert!(groups.lines().any(|line| line.ends_with(&own)), "{own} in {groups}");
    }
    for (node, server) in [(true, false), (false, true), (true, true)] {
        if node {
            kill(daemon(&cluster).expect("the node's daemon"));
        }
        if server {
            kill(cluster.server_pid());
        }
        match (node, server) {
            // Nobody has to be called for one that died: its supervisor starts it again.
            (true, false) => until("another daemon of the node", || running(&cluster)),
            _ => up(&cluster),
        }
        ready(&cluster);
        all_ready(&place);
        assert_eq!(lives(&place), first, "node {node}, server {server}");
        assert_eq!(ready_since(&place), since, "the node was ready all the time");
        written = until("more lines", || Some(lines(&place)).filter(|count| *count > written));
        let round = written.to_string();
        place.kubectl_ok(&[
            "patch",
            "configmap",
            "settings",
            "-p",
            &format!(r#"{{"data":{{"round":"{round}"}}}}"#),
        ]);
        until("the news in the volume", || {
            (place.kubectl_ok(&["exec", "talks", "--", "/bin/demo", "cat", "/settings/round"]) == round).then_some(())
        });
    }
    place.kubectl_ok(&["delete", "pod", "-l", "app=web", "--wait=false"]);
    until_pods(&cluster, &place, "pods that were started by the new daemon", || {
        let names: BTreeSet<String> = pods(&place, "app=web").into_keys().collect();
        (names.len() == 2 && names.iter().all(|name| !first.contains_key(name))).then_some(())
    });
    all_ready(&place);
    let mut count = restarts(&place);

    for how in ["reboot", "down"] {
        match how {
            "reboot" => reboot(&cluster),
            _ => drop(succeed(&cluster.trireme(&["--quiet", "down"]))),
        }
        assert!(daemon(&cluster).is_none(), "after {how}");
        assert_eq!(
            cgroup_directories(&cgroup(&cluster)),
            Vec::<PathBuf>::new(),
            "after {how}"
        );
        let of_server = cgroup_directories(&server_cgroup(&cluster));
        assert!(how == "reboot" || of_server.is_empty(), "after {how}: {of_server:?}");
        up(&cluster);
        ready(&cluster);
        count.values_mut().for_each(|count| *count += 1);
        until_pods(&cluster, &place, &format!("the pods after {how}, {count:?},"), || {
            (restarts(&place) == count).then_some(())
        });
        all_ready(&place);
        let pod = count.keys().find(|name| name.starts_with("web-")).unwrap();
        let answer = until("an answer through the Service", || {
            let said = place.kubectl(&["exec", pod, "--", "/bin/demo", "get", "http://web/hostname"]);
            said.status
                .success()
                .then(|| String::from_utf8_lossy(&said.stdout).into_owned())
        });
        assert!(count.contains_key(answer.trim()), "{answer}");
    }

    let (dir, marks) = (cluster.dir.clone(), Marks::of(&cluster));
    assert!(
        Traces::of_machine().of(&marks).len() > 10,
        "a cluster that runs is seen"
    );
    succeed(&cluster.trireme(&["--quiet", "reset", "--yes"]));
    assert!(
        !cluster.kubeconfig().exists()
            || !std::fs::read_to_string(cluster.kubeconfig())
                .unwrap()
                .contains("trireme")
    );
    assert!(!dir.join("data").exists() && !dir.join("run").exists());
    let after = Traces::of_machine();
    assert_eq!(after.of(&marks), Vec::<String>::new());
    assert_eq!(after.changes_since(&before), Vec::<String>::new());
}

/// Whether the node's daemon was started again and answers.
fn running(cluster: &Cluster) -> Option<()> {
    let status = cluster.trireme(&["status", "-o", "json"]);
    let state: Value = serde_json::from_slice(&status.stdout).ok()?;
    let node = &state["processes"][format!("node/{}", name(cluster))];
    (node["restarts"] == 1 && node["health"] == "running" && node["lastDeath"]["why"] == "killed by signal 9")
        .then_some(())
}

/// Everything is killed, and what a reboot empties is emptied.
fn reboot(cluster: &Cluster) {
    let server = cluster.server_pid();
    // First, so that they start nothing again.
    cluster.supervisors().into_iter().for_each(kill);
    let inside = inside(cluster);
    assert!(inside.len() >= 3, "{inside:?}");
    let _ = name(cluster);
    kill(server);
    inside.into_iter().for_each(kill);
    until("the end of the node", || daemon(cluster).is_none().then_some(()));
    std::fs::remove_dir_all(cluster.dir.join("run")).unwrap();
    for group in cgroup_directories(&cgroup(cluster)) {
        until("the removal of a control group", || remove_group(&group).ok());
    }
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)?
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        remove_group(&entry.path())?;
    }
    std::fs::remove_dir(group)
}
