//! `test/e2e/dra/dra.go`: the tests of the API.

use serde_json::{Value, json};

use crate::kinds::{DEVICE_CLASSES, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS, RESOURCE_SLICES};
use crate::place::place;
use crate::resource::{Resource, walk};

/// [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass
pub async fn device_class() {
    let resource = Resource {
        object: json!({"spec": {"selectors": [{"cel": {"expression": "false"}}]}}),
        spec: json!({"spec": {"selectors": [{"cel": {"expression": "1 == 0"}}]}}),
        json_patch: Value::Null,
        status: Value::Null,
    };
    walk(&place("device-class").await, &DEVICE_CLASSES, resource).await;
}

/// [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim
pub async fn claim() {
    let resource = Resource {
        object: json!({"spec": claimed()}),
        spec: label(),
        json_patch: json!([{"op": "add", "path": "/metadata/labels/test.dra.example.com", "value": "test"}]),
        status: json!({"status": {"allocation": {}}}),
    };
    walk(&place("resource-claim").await, &RESOURCE_CLAIMS, resource).await;
}

/// [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate
pub async fn claim_template() {
    let resource = Resource {
        object: json!({"spec": {"spec": claimed()}}),
        spec: label(),
        json_patch: Value::Null,
        status: Value::Null,
    };
    walk(
        &place("resource-claim-template").await,
        &RESOURCE_CLAIM_TEMPLATES,
        resource,
    )
    .await;
}

/// [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice
pub async fn slice() {
    let resource = Resource {
        object: json!({"spec": {
            "driver": "dra.example.com", "nodeName": "no-such-node",
            "pool": {"name": "cluster", "generation": 1, "resourceSliceCount": 1},
        }}),
        spec: json!({"spec": {"devices": [{"name": "device-0"}]}}),
        json_patch: Value::Null,
        status: Value::Null,
    };
    walk(&place("resource-slice").await, &RESOURCE_SLICES, resource).await;
}

fn claimed() -> Value {
    json!({"devices": {"requests": [{"name": "req-0", "exactly": {"deviceClassName": "dra.example.com"}}]}})
}

/// A claim's spec does not change: its label does.
fn label() -> Value {
    json!({"metadata": {"labels": {"test.dra.example.com": "test"}}})
}
