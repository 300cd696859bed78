//! `test/e2e/storage/persistent_volumes.go`: the tests of the API.

use serde_json::{Value, json};

use crate::kinds::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use crate::lifecycle::walk;
use crate::place::{Place, name_of, place, push};

/// PersistentVolumes CSI Conformance should apply changes to a pv/pvc status
pub async fn status() {
    let place = place("volume-status").await;
    let (volumes, claims) = (place.of(&PERSISTENT_VOLUMES), place.of(&PERSISTENT_VOLUME_CLAIMS));
    let volume = volumes.create(volume(&place)).await.unwrap();
    let claim = claims.create(claim(&place)).await.unwrap();
    let (volume, claim) = (name_of(&volume), name_of(&claim));
    let phase = claims.get_status(claim).await.unwrap()["status"]["phase"].clone();
    assert!(["Pending", "Bound"].map(Value::from).contains(&phase), "{phase}");
    let phase = volumes.get_status(volume).await.unwrap()["status"]["phase"].clone();
    assert!(
        ["Available", "Bound", "Pending"].map(Value::from).contains(&phase),
        "{phase}"
    );

    let condition = json!({
        "type": "StatusPatched", "status": "True", "reason": "E2E patchedStatus", "message": "Set from e2e test",
    });
    let patched = claims
        .merge_status(claim, json!({"status": {"conditions": [condition]}}))
        .await
        .unwrap();
    assert!(has_condition(&patched, &condition), "{patched}");
    let status = json!({"message": "StatusPatched", "reason": "E2E patchStatus"});
    let patched = volumes.merge_status(volume, json!({"status": status})).await.unwrap();
    assert_eq!(patched["status"]["reason"], "E2E patchStatus");
    assert_eq!(patched["status"]["message"], "StatusPatched");

    let condition = json!({
        "type": "StatusUpdated", "status": "True", "reason": "E2E updateStatus", "message": "Set from e2e test",
    });
    let add = |claim: &mut Value| push(claim, "/status/conditions", condition.clone());
    let updated = claims.change_status(claim, add).await.unwrap();
    assert!(has_condition(&updated, &condition), "{updated}");
    let change = |volume: &mut Value| {
        volume["status"]["reason"] = "E2E updateStatus".into();
        volume["status"]["message"] = "StatusUpdated".into();
    };
    let updated = volumes.change_status(volume, change).await.unwrap();
    assert_eq!(updated["status"]["reason"], "E2E updateStatus");
    assert_eq!(updated["status"]["message"], "StatusUpdated");
}

/// PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC
pub async fn lifecycle() {
    let place = place("volume").await;
    walk(&place, &PERSISTENT_VOLUMES, volume(&place), volume(&place)).await;
    walk(&place, &PERSISTENT_VOLUME_CLAIMS, claim(&place), claim(&place)).await;
}

/// A volume for [`claim`], with a name that the server makes.
fn volume(place: &Place) -> Value {
    json!({
        "metadata": {"generateName": format!("{}-", place.namespace)},
        "spec": {
            "persistentVolumeReclaimPolicy": "Retain", "capacity": {"storage": "2Gi"},
            "csi": {"driver": "e2e-driver", "volumeHandle": "e2e-status-conformance"},
            "accessModes": ["ReadWriteOnce"], "storageClassName": place.namespace,
        },
    })
}

fn claim(place: &Place) -> Value {
    json!({
        "metadata": {"generateName": "pvc-"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": place.namespace,
            "resources": {"requests": {"storage": "2Gi"}},
        },
    })
}

fn has_condition(object: &Value, expected: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter().any(|condition| {
            ["type", "reason", "message"]
                .iter()
                .all(|field| condition[field] == expected[field])
        })
    })
}
