//! What a node does not let pods do: stay past their deadline, or fill its disk.

use serde_json::json;

use crate::node_cluster::{create, name, shared, until, until_event, until_pods};

#[test]
fn pods_that_last_too_long_or_use_too_much_are_ended() {
    let place = shared().workplace("node-limits");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {activeDeadlineSeconds: 2, terminationGracePeriodSeconds: 1,
    containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sleep, inf]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: volume}, spec: {
    containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sh, -c, 'write /v/a x; write /v/b x; write /v/c x; sleep inf'],
        volumeMounts: [{name: v, mountPath: /v}]}],
    volumes: [{name: v, emptyDir: {sizeLimit: 8Ki}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: layer}, spec: {
    containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sh, -c, 'write /a x; write /b x; write /c x; sleep inf'],
        resources: {limits: {ephemeral-storage: 8Ki}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: modest}, spec: {
    containers: [{name: c, image: 'IMAGE', resources: {limits: {ephemeral-storage: 10Mi}}, volumeMounts: [{name: v, mountPath: /v}]}],
    volumes: [{name: v, emptyDir: {sizeLimit: 8Mi}}]}}",
    );
    for (pod, reason, message) in [
        (
            "late",
            "DeadlineExceeded",
            "Pod was active on the node longer than the specified deadline",
        ),
        (
            "volume",
            "Evicted",
            "Usage of EmptyDir volume \"v\" exceeds the limit \"8Ki\". ",
        ),
        (
            "layer",
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 8Ki. ",
        ),
    ] {
        let status = until_pods(shared(), &place, &format!("{pod} as {reason}"), || {
            let pod = place.get(&["pod", pod]);
            (pod["status"]["phase"] == "Failed").then(|| pod["status"].clone())
        });
        assert_eq!(
            (&status["reason"], &status["message"]),
            (&json!(reason), &json!(message))
        );
        let container = &status["containerStatuses"][0];
        assert!(container["state"]["terminated"].is_object(), "{container}");
        until_event(&place, pod, message.trim_end());
    }
    let modest = place.get(&["pod", "modest"]);
    assert_eq!(modest["status"]["phase"], "Running");
    // Some of the node is nobody's.
    let node = shared().kubectl_ok(&["get", "node", &name(shared()), "-o", "json"]);
    let node: serde_json::Value = serde_json::from_str(&node).unwrap();
    let memory = |field: &str| {
        let text = node["status"][field]["memory"].as_str().unwrap();
        text.strip_suffix("Ki").unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(memory("capacity") - memory("allocatable"), 100 * 1024);
}

#[test]
fn a_log_that_grows_is_rotated_and_loses_nothing() {
    let place = shared().workplace("node-logs");
    // Some 15 MB of log.
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [
            {name: c, image: 'IMAGE', command: [/bin/demo, sh, -c, 'spam 300000; sleep inf']}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let uid = place.get(&["pod", "p"])["metadata"]["uid"].as_str().unwrap().to_owned();
    let data = shared().dir.join("data/nodes").join(name(shared()));
    let directory = data.join(format!("logs/{}_p_{uid}/c", place.namespace));
    until("a renamed log", || {
        let entries = std::fs::read_dir(&directory).ok()?.flatten();
        let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.any(|name| name.starts_with("0.log.2")).then_some(())
    });
    // It goes on writing after that.
    until("every line, once", || {
        let (count, _) = place.shell("kubectl logs p | wc -l");
        (count.trim() == "300001").then_some(())
    });
}

#[test]
fn pods_have_the_names_and_the_resolver_they_ask_for() {
    let place = shared().workplace("node-names");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostname: h, subdomain: s, setHostnameAsFQDN: true,
            dnsPolicy: None, dnsConfig: {nameservers: [10.0.0.1, 10.0.0.2, 10.0.0.3], searches: [a]},
            containers: [{name: c, image: 'IMAGE'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: many}, spec: {dnsConfig: {nameservers: [10.0.0.1, 10.0.0.2, 10.0.0.3]},
            containers: [{name: c, image: 'IMAGE'}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    place.wait("pod/many", "condition=Ready");
    let run = |pod: &str, words: &[&str]| place.kubectl_ok(&[&["exec", pod, "--", "/bin/demo"], words].concat());
    assert_eq!(run("p", &["hostname"]), "h.s.node-names.svc.cluster.local\n");
    assert_eq!(
        run("p", &["cat", "/etc/resolv.conf"]),
        "search a\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
    );
    let expect = "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: \
                  10.96.0.10 10.0.0.1 10.0.0.2";
    until_event(&place, "many", expect);
    let path = format!("/api/v1/nodes/{}/proxy/metrics", name(shared()));
    for (of, line) in [
        (
            "resource",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"node-names\",pod=\"p\"}",
        ),
        ("cadvisor", "container_memory_working_set_bytes{container=\"c\",id="),
    ] {
        let metrics = shared().kubectl_ok(&["get", "--raw", &format!("{path}/{of}")]);
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}
