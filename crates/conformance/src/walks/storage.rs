//! `test/e2e/storage/`: the kinds of the group storage.k8s.io.

use serde_json::{Value, json};

use crate::kinds::{
    CSI_DRIVERS, CSI_NODES, CSI_STORAGE_CAPACITIES, STORAGE_CLASSES, VOLUME_ATTACHMENTS, VOLUME_ATTRIBUTES_CLASSES,
};
use crate::lifecycle::walk;
use crate::operations::{self, Operations};
use crate::place::{name_of, place};

/// StorageClasses CSI Conformance should run through the lifecycle of a StorageClass
pub async fn storage_class() {
    let class = |prefix: &str| json!({"metadata": {"generateName": prefix}, "provisioner": "e2e-fake-provisioner"});
    let place = place("storage-class").await;
    walk(&place, &STORAGE_CLASSES, class("e2e-"), class("e2e-v2-")).await;
}

/// VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass
pub async fn volume_attributes_class() {
    let class = |prefix: &str| {
        json!({
            "metadata": {"generateName": prefix}, "driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"},
        })
    };
    let place = place("volume-attributes-class").await;
    walk(&place, &VOLUME_ATTRIBUTES_CLASSES, class("e2e-"), class("e2e-v2-")).await;
}

/// CSINodes CSI Conformance should run through the lifecycle of a csinode
pub async fn csi_node() {
    // As client-go sends it: null, not absent.
    let node = |name: &str| json!({"metadata": {"name": name}, "spec": {"drivers": null}});
    let place = place("csi-node").await;
    walk(&place, &CSI_NODES, node("e2e-csinode-1"), node("e2e-csinode-2")).await;
}

/// CSIInlineVolumes should run through the lifecycle of a CSIDriver
pub async fn csi_driver() {
    let driver = |name: &str, modes: Value| {
        json!({
            "metadata": {"name": name},
            "spec": {"volumeLifecycleModes": modes, "fsGroupPolicy": "ReadWriteOnceWithFSType"},
        })
    };
    let place = place("csi-driver").await;
    let first = driver("inline-driver-one", json!(["Ephemeral"]));
    let second = driver("inline-driver-two", json!(["Persistent", "Ephemeral"]));
    walk(&place, &CSI_DRIVERS, first, second).await;
}

/// CSIStorageCapacity should support CSIStorageCapacities API operations
pub async fn csi_storage_capacity() {
    let operations = Operations {
        object: json!({"metadata": {"generateName": "csc-"}, "storageClassName": "e2e.example.com"}),
        patch: json!({"capacity": "10Gi"}),
        update: Some(("/capacity", json!("20Gi"))),
        status: false,
    };
    operations::walk(&place("csi-capacity").await, &CSI_STORAGE_CAPACITIES, operations).await;
}

/// VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment
pub async fn volume_attachment() {
    let place = place("volume-attachment").await;
    walk(&place, &VOLUME_ATTACHMENTS, attachment("va-e2e-1"), attachment("va-e2e-2")).await;
}

/// VolumeAttachment Conformance should apply changes to a volumeattachment status
pub async fn volume_attachment_status() {
    let place = place("volume-attachment-status").await;
    let attachments = place.of(&VOLUME_ATTACHMENTS);
    let name = "va-e2e-status";
    let created = attachments.create(attachment(name)).await.unwrap();
    assert_eq!(name_of(&created), name);
    let patch = json!({"metadata": {"labels": {name: "patched"}}});
    let patched = attachments.merge(name, patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    assert_eq!(attachments.get_status(name).await.unwrap()["status"]["attached"], false);
    let patch = json!({"status": {"attached": true}});
    let patched = attachments.merge_status(name, patch).await.unwrap();
    assert_eq!(patched["status"]["attached"], true);
    let detach = |object: &mut Value| object["status"]["attached"] = false.into();
    let updated = attachments.change_status(name, detach).await.unwrap();
    assert_eq!(updated["status"]["attached"], false);
    attachments.delete(name).await.unwrap();
    attachments.until_gone(&format!("{name}=patched")).await;
}

fn attachment(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "uid": name},
        "spec": {
            "attacher": "e2e-test.storage.k8s.io", "nodeName": "e2e-node",
            "source": {"persistentVolumeName": format!("pv-{name}")},
        },
        "status": {"attached": false},
    })
}
