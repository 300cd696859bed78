//! `test/e2e/network/service_cidrs.go`.

use kube::api::ListParams;
use serde_json::{Value, json};

use crate::kinds::{IP_ADDRESSES, SERVICE_CIDRS};
use crate::place::{place, revision_of};

/// ServiceCIDR and IPAddress API should support ServiceCIDR API operations
pub async fn service_cidr() {
    let place = place("service-cidr").await;
    let cidrs = place.of(&SERVICE_CIDRS);
    let default = cidrs.get("kubernetes").await.unwrap();
    let status = cidrs.get_status("kubernetes").await.unwrap();
    assert_eq!(status["apiVersion"], "networking.k8s.io/v1");
    assert_eq!(status["kind"], "ServiceCIDR");
    assert_eq!(status["metadata"]["uid"], default["metadata"]["uid"]);
    let list = cidrs.page(&ListParams::default()).await.unwrap();
    assert!(!list.items.is_empty());
    cidrs.watch("", &list.resource_version).await;
}

/// ServiceCIDR and IPAddress API should support IPAddress API operations
pub async fn ip_address() {
    let place = place("ip-address").await;
    let addresses = place.of(&IP_ADDRESSES);
    let address = |name: &str, kind: &str| {
        json!({
            "metadata": {"name": name, "labels": {"type": kind}},
            "spec": {"parentRef": {
                "group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar",
            }},
        })
    };
    let name = "255.255.255.255";
    let created = addresses.create(address(name, "broadcast")).await.unwrap();
    let other = address("fe80::42:1dff:fe84:f9e2", "link-local");
    addresses.create(other).await.unwrap();
    let patched = addresses
        .merge(name, json!({"metadata": {"annotations": {"patched": "true"}}}))
        .await
        .unwrap();
    assert_eq!(patched["metadata"]["annotations"]["patched"], "true");
    assert!(revision_of(&created) < revision_of(&patched));
    let annotate = |object: &mut Value| object["metadata"]["annotations"]["updated"] = "true".into();
    let updated = addresses.change(name, annotate).await.unwrap();
    assert_eq!(updated["metadata"]["annotations"]["updated"], "true");
    addresses.get(name).await.unwrap();
    let list = addresses
        .page(&ListParams::default().labels("type=broadcast"))
        .await
        .unwrap();
    assert_eq!(list.items.len(), 1);
    addresses.watch("type=broadcast", &list.resource_version).await;
    addresses.delete(name).await.unwrap();
    addresses.delete_collection("type=link-local").await.unwrap();
    assert_eq!(addresses.list("type=link-local").await, Vec::<Value>::new());
}
