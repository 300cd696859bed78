//! What slices say, and how few of them a change touches.

use std::collections::BTreeMap;

use api::Value;
use client::Object;
use serde_json::json;

use super::*;
use crate::backends::{MANAGED_BY, SERVICE_NAME};
use crate::testkit::Bench;

fn service(spec: Value) -> Service {
    let mut whole = json!({"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let value = json!({"metadata": {"name": "web", "namespace": "default", "uid": "s1"}, "spec": whole});
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, ip: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {"app": "web"}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn read(pods: &[Value]) -> Vec<Arc<Pod>> {
    pods.iter()
        .map(|pod| Arc::new(serde_json::from_value(pod.clone()).unwrap()))
        .collect()
}

/// The endpoints of the only action, a create, as `address ready serving terminating`.
fn endpoints(service: &Service, pods: &[Value]) -> Vec<String> {
    let actions = decide(service, &read(pods), &[], |node| {
        (node == "n1").then(|| "z1".to_string())
    });
    let [Action::Create(slice)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    let flag = |endpoint: &Value, key: &str| endpoint["conditions"][key].as_bool().unwrap();
    let line = |endpoint: &Value| {
        let [ready, serving, terminating] = ["ready", "serving", "terminating"].map(|key| flag(endpoint, key));
        format!(
            "{} {ready} {serving} {terminating}",
            endpoint["addresses"][0].as_str().unwrap()
        )
    };
    slice["endpoints"].as_array().unwrap().iter().map(line).collect()
}

#[test]
fn conditions_of_endpoints() {
    let mut terminating = pod("t", "10.0.0.3", true);
    terminating["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let mut ended = pod("e", "10.0.0.4", true);
    ended["status"]["phase"] = "Succeeded".into();
    let pods = [
        pod("a", "10.0.0.1", true),
        pod("b", "10.0.0.2", false),
        terminating,
        ended,
        pod("c", "", true),
    ];
    let plain = service(json!({}));
    assert_eq!(
        endpoints(&plain, &pods),
        [
            "10.0.0.1 true true false",
            "10.0.0.2 false false false",
            "10.0.0.3 false true true"
        ]
    );
    let publishing = service(json!({"publishNotReadyAddresses": true}));
    assert_eq!(
        endpoints(&publishing, &pods),
        [
            "10.0.0.1 true true false",
            "10.0.0.2 true false false",
            "10.0.0.3 true true true"
        ]
    );
}

#[test]
fn labels_owner_zone_and_hostname() {
    let mut named = pod("a", "10.0.0.1", true);
    named["spec"]["hostname"] = "first".into();
    named["spec"]["subdomain"] = "web".into();
    let headless = service(json!({"clusterIP": "None"}));
    let actions = decide(&headless, &read(&[named]), &[], |_| Some("z1".into()));
    let [Action::Create(slice)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        slice["metadata"]["labels"],
        json!({SERVICE_NAME: "web", MANAGED_BY: MANAGER, "service.kubernetes.io/headless": ""})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s1");
    assert_eq!(
        (&slice["endpoints"][0]["zone"], &slice["endpoints"][0]["hostname"]),
        (&json!("z1"), &json!("first"))
    );
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 80, "protocol": "TCP"}]));
}

#[test]
fn named_ports_may_differ_between_pods() {
    let service = service(json!({"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}));
    let with_port = |name: &str, ip: &str, number: i32| {
        let mut pod = pod(name, ip, true);
        pod["spec"]["containers"] = json!([{"ports": [{"name": "web", "containerPort": number}]}]);
        pod
    };
    let pods = [
        with_port("a", "10.0.0.1", 8080),
        with_port("b", "10.0.0.2", 9090),
        with_port("c", "10.0.0.3", 8080),
    ];
    let actions = decide(&service, &read(&pods), &[], |_| None);
    let slices: BTreeMap<i64, usize> = actions
        .iter()
        .map(|action| match action {
            Action::Create(slice) => (
                slice["ports"][0]["port"].as_i64().unwrap(),
                slice["endpoints"].as_array().unwrap().len(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slices, [(8080, 2), (9090, 1)].into());
}

/// Applies actions to slices, as the server would.
fn apply(slices: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Create(mut slice) => {
                let name = format!("s{}", slices.len());
                slice["metadata"]["name"] = name.as_str().into();
                slice["metadata"]["uid"] = name.into();
                slices.push(Arc::new(serde_json::from_value(slice).unwrap()));
            }
            Action::Edit { name, edit } => {
                let slice = slices.iter_mut().find(|slice| slice.metadata.name() == name).unwrap();
                let mut value = serde_json::to_value(&**slice).unwrap();
                if let Some(endpoints) = edit.get("endpoints") {
                    value["endpoints"] = endpoints.clone();
                }
                *slice = Arc::new(EndpointSlice::decode(value.to_string().as_bytes()).unwrap());
            }
            Action::Delete { name, .. } => slices.retain(|slice| slice.metadata.name() != name),
        }
    }
}

#[test]
fn endpoints_hint_whom_they_are_for() {
    let (in_zone, mut elsewhere, unready) = (
        pod("a", "10.0.0.1", true),
        pod("b", "10.0.0.2", true),
        pod("c", "10.0.0.3", false),
    );
    elsewhere["spec"]["nodeName"] = "n2".into();
    let pods = [in_zone, elsewhere, unready];
    let zones = json!({"forZones": [{"name": "z1"}]});
    for (distribution, expect) in [
        ("", [Value::Null, Value::Null, Value::Null]),
        ("PreferClose", [zones.clone(), Value::Null, Value::Null]),
        ("PreferSameZone", [zones, Value::Null, Value::Null]),
        (
            "PreferSameNode",
            [
                json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]}),
                json!({"forNodes": [{"name": "n2"}]}),
                Value::Null,
            ],
        ),
    ] {
        let service = service(json!({"trafficDistribution": distribution}));
        let zone = |node: &str| (node == "n1").then(|| "z1".to_string());
        let [Action::Create(slice)] = &decide(&service, &read(&pods), &[], zone)[..] else {
            panic!()
        };
        let hints: Vec<&Value> = (0..3).map(|at| &slice["endpoints"][at]["hints"]).collect();
        assert_eq!(hints, expect.iter().collect::<Vec<_>>(), "{distribution}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_told() {
    let bench = Bench::new();
    bench.api.sabotage(|seen| {
        let refused = client::testing::Fault::Refuse(api::Status::internal("no"));
        seen.line().starts_with("create endpointslices").then_some(refused)
    });
    start(bench.context("endpointslice-controller"));
    bench.api.put(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    let text = "FailedToUpdateEndpointSlices: Error updating Endpoint Slices for Service default/web: ";
    bench
        .until(|_| bench.events().iter().any(|event| event.starts_with(text)))
        .await;
    bench.end().await;
}

#[test]
fn a_change_touches_few_slices() {
    let service = service(json!({}));
    let mut pods: Vec<Value> = (0..250)
        .map(|n| pod(&format!("p{n:03}"), &format!("10.0.{}.{}", n / 200, n % 200), true))
        .collect();
    let mut slices = Vec::new();
    let sizes = |slices: &[Arc<EndpointSlice>]| -> Vec<usize> {
        slices
            .iter()
            .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
            .collect()
    };
    apply(&mut slices, decide(&service, &read(&pods), &[], |_| None));
    assert_eq!(sizes(&slices), [100, 100, 50]);
    assert_eq!(
        decide(&service, &read(&pods), &slices, |_| None),
        [],
        "nothing changed, nothing to do"
    );
    pods.remove(120);
    let actions = decide(&service, &read(&pods), &slices, |_| None);
    assert_eq!(actions.len(), 1);
    apply(&mut slices, actions);
    assert_eq!(sizes(&slices), [100, 99, 50]);
    pods.push(pod("new", "10.0.9.9", true));
    let actions = decide(&service, &read(&pods), &slices, |_| None);
    assert_eq!(actions.len(), 1);
    apply(&mut slices, actions);
    assert_eq!(sizes(&slices), [100, 100, 50]);
    pods.clear();
    let actions = decide(&service, &read(&pods), &slices, |_| None);
    apply(&mut slices, actions);
    assert_eq!(sizes(&slices), [0], "one empty slice stays");
}

#[tokio::test(start_paused = true)]
async fn follows_pods_within_one_write() {
    let bench = Bench::new();
    start(bench.context("endpointslice-controller"));
    bench.api.put(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.96.0.5", "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    bench.idle().await;
    for name in ["a", "b"] {
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n"},
            "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}}}));
    }
    bench.run_pod("default", "a", "10.0.0.1");
    bench.run_pod("default", "b", "10.0.0.2");
    bench.idle().await;
    let slices = bench.api.list(&resources::ENDPOINT_SLICES);
    assert_eq!((slices.len(), slices[0]["endpoints"].as_array().unwrap().len()), (1, 2));
    bench.api.take_requests();
    bench.api.edit(&resources::PODS, "default", "a", |pod| {
        pod["status"]["conditions"][0]["status"] = "False".into()
    });
    bench.idle().await;
    assert_eq!(bench.api.take_writes().len(), 1);
    let slice = &bench.api.list(&resources::ENDPOINT_SLICES)[0];
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], false);
    // Somebody takes the slice away: it comes back.
    bench
        .api
        .remove(&resources::ENDPOINT_SLICES, "default", api::meta::name(slice));
    bench.idle().await;
    assert_eq!(bench.api.list(&resources::ENDPOINT_SLICES).len(), 1);
    bench.end().await;
}
