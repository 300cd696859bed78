//! `immutable` of ConfigMaps and Secrets (`test/e2e/common/storage/configmap_volume.go`, `secrets_volume.go`).

use serde_json::{Value, json};

use crate::kinds::{CONFIG_MAPS, Kind, SECRETS};
use crate::place::{place, refusal};

/// ConfigMap should be immutable if `immutable` field is set
pub async fn config_map() {
    let data = json!({"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"});
    walk("immutable-config-map", &CONFIG_MAPS, data, "value-4").await;
}

/// Secrets should be immutable if `immutable` field is set
pub async fn secret() {
    let data = json!({"data-1": "dmFsdWUtMQ0K", "data-2": "dmFsdWUtMg0K", "data-3": "dmFsdWUtMw0K"});
    walk("immutable-secret", &SECRETS, data, "dmFsdWUtNAo=").await;
}

async fn walk(name: &str, kind: &Kind, data: Value, value: &str) {
    let place = place(name).await;
    let things = place.of(kind);
    let object = json!({"metadata": {"name": "immutable"}, "data": data});
    let mut object = things.create(object).await.unwrap();
    object["data"]["data-4"] = value.into();
    let mut object = things.replace(object).await.unwrap();
    object["immutable"] = true.into();
    let mut object = things.replace(object).await.unwrap();

    object["data"]["data-5"] = value.into();
    let status = refusal(things.replace(object).await);
    assert!(status.is_invalid(), "{status:?}");
    let mut object = things.get("immutable").await.unwrap();
    assert_eq!(object["immutable"], true);
    object["immutable"] = false.into();
    let status = refusal(things.replace(object).await);
    assert!(status.is_invalid(), "{status:?}");

    let mut object = things.get("immutable").await.unwrap();
    object["metadata"]["labels"] = json!({"label1": "value1"});
    things.replace(object).await.unwrap();
    things.delete("immutable").await.unwrap();
}
