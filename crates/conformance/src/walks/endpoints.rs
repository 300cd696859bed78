//! `test/e2e/network/endpoints.go`, `endpointslice.go`, `endpointslicemirroring.go`, `apiserver.go`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use crate::operations::{Operations, walk};
use crate::place::{Place, name_of, place};

/// EndpointSlice should support creating EndpointSlice API operations
pub async fn slices() {
    let object = json!({
        "metadata": {"generateName": "e2e-example-ing"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}, {"addresses": ["2.2.3.4", "6.6.7.8"]}],
    });
    let operations = Operations {
        object,
        patch: json!({}),
        update: None,
        status: false,
    };
    walk(&place("endpoint-slice").await, &ENDPOINT_SLICES, operations).await;
}

/// EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods
pub async fn slices_of_no_pods() {
    let place = place("slices-of-no-pods").await;
    empty_service(&place).await;
    let selector = "kubernetes.io/service-name=example-empty-selector";
    let slices = place.of(&ENDPOINT_SLICES);
    let made = slices.until(selector, "the slice", |items| !items.is_empty()).await;
    assert_eq!(
        made[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert!(list(&made[0]["endpoints"]).is_empty(), "{}", made[0]);
    place.of(&SERVICES).delete("example-empty-selector").await.unwrap();
    slices.until_gone(selector).await;
}

/// EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods
pub async fn endpoints_of_no_pods() {
    let place = place("endpoints-of-no-pods").await;
    empty_service(&place).await;
    let endpoints = place.of(&ENDPOINTS);
    let made = |items: &[Value]| items.iter().any(|item| name_of(item) == "example-empty-selector");
    endpoints.until("", "the endpoints", made).await;
    place.of(&SERVICES).delete("example-empty-selector").await.unwrap();
    endpoints.until("", "their end", |items| !made(items)).await;
}

/// EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete
pub async fn mirroring() {
    let place = place("mirroring").await;
    let name = "example-custom-endpoints";
    let service = json!({
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "example", "port": 80, "protocol": "TCP"}]},
    });
    place.of(&SERVICES).create(service).await.unwrap();
    let object = |address: &str| {
        json!({
            "metadata": {"name": name},
            "subsets": [{"ports": [{"port": 80}], "addresses": [{"ip": address}]}],
        })
    };
    let slices = place.of(&ENDPOINT_SLICES);
    let selector = format!("kubernetes.io/service-name={name}");
    let mirrored = |items: &[Value], address: &str| {
        items.iter().all(|slice| {
            let endpoints = list(&slice["endpoints"]);
            list(&slice["ports"]).len() == 1
                && slice["ports"][0]["port"] == 80
                && endpoints.len() == 1
                && endpoints[0]["addresses"] == json!([address])
        })
    };
    place.of(&ENDPOINTS).create(object("10.1.2.3")).await.unwrap();
    let made = slices.until(&selector, "the slice", |items| !items.is_empty()).await;
    assert!(mirrored(&made, "10.1.2.3"), "{made:?}");
    place.of(&ENDPOINTS).replace(object("10.2.3.4")).await.unwrap();
    let changed = |items: &[Value]| items.len() == 1 && mirrored(items, "10.2.3.4");
    slices.until(&selector, "the changed slice", changed).await;
    place.of(&ENDPOINTS).delete(name).await.unwrap();
    slices.until_gone(&selector).await;
}

/// API Server should have Endpoints and EndpointSlices pointing to API Server
pub async fn of_the_api_server() {
    let place = place("api-server-endpoints").await;
    place
        .of_namespace(&SERVICES, "default")
        .get("kubernetes")
        .await
        .unwrap();
    let endpoints = place
        .of_namespace(&ENDPOINTS, "default")
        .get("kubernetes")
        .await
        .unwrap();
    let subsets = list(&endpoints["subsets"]);
    assert!(!subsets.is_empty(), "{endpoints}");
    let slices = place.of_namespace(&ENDPOINT_SLICES, "default");
    let slices = slices.list("kubernetes.io/service-name=kubernetes").await;
    assert!(!slices.is_empty());
    let text = |value: &Value| value.to_string();
    let addresses: BTreeSet<String> = subsets
        .iter()
        .flat_map(|subset| [list(&subset["addresses"]), list(&subset["notReadyAddresses"])].concat())
        .map(|address| text(&address["ip"]))
        .collect();
    let ports: BTreeSet<String> = subsets
        .iter()
        .flat_map(|subset| list(&subset["ports"]))
        .map(|port| text(&port["port"]))
        .collect();
    let slice_addresses = slices
        .iter()
        .flat_map(|slice| list(&slice["endpoints"]))
        .flat_map(|endpoint| list(&endpoint["addresses"]))
        .map(|address| text(&address))
        .collect();
    let slice_ports = slices
        .iter()
        .flat_map(|slice| list(&slice["ports"]))
        .map(|port| text(&port["port"]))
        .collect();
    assert_eq!(addresses, slice_addresses);
    assert_eq!(ports, slice_ports);
}

async fn empty_service(place: &Place) {
    let service = json!({
        "metadata": {"name": "example-empty-selector"},
        "spec": {
            "selector": {"does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created"},
            "ports": [{"name": "example", "port": 80, "protocol": "TCP"}],
        },
    });
    place.of(&SERVICES).create(service).await.unwrap();
}

/// A list that may be absent or null.
fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}
