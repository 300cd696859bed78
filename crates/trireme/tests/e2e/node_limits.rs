//! What a node does not let pods do: stay past their deadline, or fill its disk.

use serde_json::json;

use crate::node_cluster::{create, name, shared, until_pods};

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
        let events = place.kubectl_ok(&["events", "--for", &format!("pod/{pod}")]);
        assert!(events.contains(message.trim_end()), "{events}");
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
