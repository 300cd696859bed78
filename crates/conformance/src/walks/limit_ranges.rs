//! `test/e2e/scheduling/limit_range.go`.

use serde_json::{Value, json};

use crate::kinds::{LIMIT_RANGES, NAMESPACES};
use crate::place::{place, revision_of};

/// LimitRange should list, patch and delete a LimitRange by collection
pub async fn collection() {
    let place = place("limit-range").await;
    let ranges = place.of(&LIMIT_RANGES);
    let name = "e2e-limitrange";
    let amounts =
        |cpu: &str, memory: &str, storage: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage});
    let range = json!({
        "metadata": {"name": name, "labels": {"e2e-test": name, name: "created"}},
        "spec": {"limits": [{
            "type": "Container",
            "min": amounts("50m", "100Mi", "100Gi"), "max": amounts("500m", "500Mi", "500Gi"),
            "default": amounts("500m", "500Mi", "500Gi"), "defaultRequest": amounts("100m", "200Mi", "200Gi"),
            "maxLimitRequestRatio": {},
        }]},
    });
    let created = ranges.create(range.clone()).await.unwrap();
    let other = "conformance-limit-range-other";
    let namespace = json!({"metadata": {"name": other}});
    place.of(&NAMESPACES).create(namespace).await.unwrap();
    place.of_namespace(&LIMIT_RANGES, other).create(range).await.unwrap();
    let everywhere = place.everywhere(&LIMIT_RANGES);
    let selector = format!("e2e-test={name}");
    assert_eq!(everywhere.list(&selector).await.len(), 2);

    let mut limits = created["spec"]["limits"].clone();
    limits[0]["min"] = amounts("9m", "49Mi", "49Gi");
    let patch = json!({
        "metadata": {
            "creationTimestamp": created["metadata"]["creationTimestamp"], "labels": {name: "patched"},
        },
        "spec": {"limits": limits},
    });
    let patched = ranges.strategic(name, patch).await.unwrap();
    assert_eq!(patched["metadata"]["labels"][name], "patched");
    assert_eq!(patched["spec"]["limits"][0]["min"], limits[0]["min"]);
    assert!(revision_of(&created) < revision_of(&patched));
    let patched = format!("{name}=patched");
    ranges.delete_collection(&patched).await.unwrap();
    assert_eq!(ranges.list(&patched).await, Vec::<Value>::new());
    assert_eq!(everywhere.list(&selector).await.len(), 1);
}
