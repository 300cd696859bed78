//! What the API says of pods: `test/e2e/common/node/sysctl.go`, `test/e2e/common/node/runtimeclass.go`,
//! `test/e2e/storage/csi_inline.go`.

use serde_json::{Value, json};

use crate::kinds::{PODS, RUNTIME_CLASSES};
use crate::place::{name_of, place, refusal};

/// Sysctls [LinuxOnly] should reject invalid sysctls
pub async fn invalid_sysctls() {
    let place = place("sysctls").await;
    let pod = json!({
        "metadata": {"name": "sysctl"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "test-container", "image": "example.com/busybox"}],
            "securityContext": {"sysctls": [
                {"name": "foo-", "value": "bar"},
                {"name": "kernel.shmmax", "value": "100000000"},
                {"name": "safe-and-unsafe", "value": "100000000"},
                {"name": "bar..", "value": "42"},
            ]},
        },
    });
    let message = refusal(place.of(&PODS).create(pod).await).message;
    assert!(message.contains(r#"Invalid value: "foo-""#), "{message}");
    assert!(message.contains(r#"Invalid value: "bar..""#), "{message}");
    assert!(!message.contains("safe-and-unsafe"), "{message}");
    assert!(!message.contains("kernel.shmmax"), "{message}");
}

/// RuntimeClass should schedule a Pod requesting a RuntimeClass and initialize its Overhead
pub async fn overhead_of_a_runtime_class() {
    let place = place("overhead").await;
    let class = json!({
        "metadata": {"name": "conformance-overhead"}, "handler": "test-handler",
        "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}},
    });
    place.of(&RUNTIME_CLASSES).create(class).await.unwrap();
    let pod = json!({
        "metadata": {"generateName": "test-runtimeclass-"},
        "spec": {
            "runtimeClassName": "conformance-overhead", "restartPolicy": "Never",
            "containers": [{"name": "test", "image": "example.com/busybox", "command": ["true"]}],
            "automountServiceAccountToken": false,
        },
    });
    let created = place.of(&PODS).create(pod).await.unwrap();
    let scheduled = |items: &[Value]| items.iter().all(|pod| pod["spec"]["nodeName"].is_string());
    let pods = place.of(&PODS).until("", "the scheduled pod", scheduled).await;
    assert_eq!(pods.len(), 1);
    assert_eq!(name_of(&pods[0]), name_of(&created));
    assert_eq!(pods[0]["spec"]["overhead"], json!({"cpu": "10m", "memory": "1Mi"}));
    place.of(&RUNTIME_CLASSES).delete("conformance-overhead").await.unwrap();
}

/// CSIInlineVolumes should support CSIVolumeSource in Pod API
pub async fn inline_volumes() {
    let place = place("csi-inline").await;
    let pods = place.of(&PODS);
    let name = "pod-csi-inline-volumes";
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "volumes": [
                {"name": "csi-inline-vol1", "csi": {"driver": "e2e.example.com"}},
                {"name": "csi-inline-vol2", "csi": {"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}},
            ],
            "containers": [{
                "name": name, "image": "example.com/busybox", "command": ["sh", "-c", "ls /mnt/*"],
                "volumeMounts": [
                    {"name": "csi-inline-vol1", "mountPath": "/mnt/vol1"},
                    {"name": "csi-inline-vol2", "mountPath": "/mnt/vol2"},
                ],
            }],
        },
    });
    let created = pods.create(pod.clone()).await.unwrap();
    let status = refusal(pods.create(pod).await);
    assert!(status.is_already_exists(), "{status:?}");
    let read = pods.get(name).await.unwrap();
    assert_eq!(read["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(pods.list("").await.len(), 1);
    let patched = pods
        .merge(name, json!({"metadata": {"annotations": {"patched": "true"}}}))
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    pods.delete(name).await.unwrap();
    match pods.get(name).await {
        Ok(pod) => assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}"),
        gone => crate::place::not_found(gone),
    }
}
