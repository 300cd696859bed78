//! Cluster IPs: given once, kept, given back, and recovered by the next server over the same store; their objects and ranges.

use std::collections::BTreeSet;

use apiserver::request::UserInfo;
use serde_json::{Value, json};

use crate::world::{Api, World};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, cluster_ip: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": cluster_ip, "ports": [{"port": 80}]}})
}

#[tokio::test]
async fn addresses_are_unique_under_races() {
    let world = World::with(|config| config.service_range = "10.96.0.0/27".parse().unwrap()).await;
    for api in world.both().await {
        let makers = (0..40).map(|index| {
            let api = api.clone();
            async move { api.post(SERVICES, &service(&format!("s{index}"), Value::Null)).await }
        });
        let answers = futures::future::join_all(makers).await;
        let made: Vec<Value> = answers
            .iter()
            .filter(|answer| answer.code == 201)
            .map(|answer| answer.value())
            .collect();
        let addresses: BTreeSet<_> = made
            .iter()
            .map(|service| service["spec"]["clusterIP"].to_string())
            .collect();
        assert_eq!(
            (made.len(), addresses.len()),
            (30, 30),
            "the range has thirty addresses"
        );
        assert!(answers.iter().any(|answer| answer.message().contains("range is full")));
        // Who wanted the same name got nothing, and took nothing.
        api.delete(&format!("{SERVICES}/s{}", made.len() - 1)).await;
        for answer in answers.iter().filter(|answer| answer.code == 201) {
            let name = answer.value()["metadata"]["name"].as_str().unwrap().to_owned();
            api.delete(&format!("{SERVICES}/{name}")).await;
        }
        let again = api.post(SERVICES, &service("again", Value::Null)).await.ok();
        assert!(again["spec"]["clusterIPs"][0].is_string());
        api.delete(&format!("{SERVICES}/again")).await.ok();
    }
}

#[tokio::test]
async fn chosen_addresses_are_honoured_and_recovered() {
    let world = World::start().await;
    let api = world.api();
    let made = api.post(SERVICES, &service("dns", json!("10.96.0.10"))).await.ok();
    assert_eq!(
        (
            &made["spec"]["clusterIPs"],
            &made["spec"]["ipFamilies"],
            &made["spec"]["ipFamilyPolicy"]
        ),
        (&json!(["10.96.0.10"]), &json!(["IPv4"]), &json!("SingleStack"))
    );
    let taken = "failed to allocate IP 10.96.0.10: provided IP is already allocated";
    api.post(SERVICES, &service("other", json!("10.96.0.10")))
        .await
        .refused(422, taken);
    let next = World::over(world.engine.clone(), Vec::new(), |_| {}).await;
    let api = next.api();
    api.post(SERVICES, &service("other", json!("10.96.0.10")))
        .await
        .refused(422, taken);
    let replaced = json!({"metadata": {"name": "dns"}, "spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    assert_eq!(
        api.put(&format!("{SERVICES}/dns"), &replaced).await.ok()["spec"]["clusterIP"],
        "10.96.0.10"
    );
    api.delete(&format!("{SERVICES}/dns")).await.ok();
    api.post(SERVICES, &service("other", json!("10.96.0.10"))).await.ok();
    let headless = api.post(SERVICES, &service("headless", json!("None"))).await.ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    // A name of something outside has no address; who becomes one gives it back.
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "db.example.org"}});
    let path = format!("{SERVICES}/other");
    for dry_run in ["?dryRun=All", ""] {
        let named = api.patch(&format!("{path}{dry_run}"), "merge", &outside).await.ok();
        assert_eq!(named["spec"]["externalName"], "db.example.org");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert!(named["spec"][field].is_null(), "{field} {named}");
        }
        let next = api
            .post(&format!("{SERVICES}?dryRun=All"), &service("next", json!("10.96.0.10")))
            .await;
        assert_eq!(next.code, if dry_run.is_empty() { 201 } else { 422 });
    }
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = api.patch(&path, "merge", &back).await.ok();
    assert!(back["spec"]["clusterIPs"][0].is_string(), "{back}");
    let mut named = json!({"metadata": {"name": "named"}});
    named["spec"] = outside["spec"].clone();
    let named = api.post(SERVICES, &named).await.ok();
    assert!(named["spec"]["clusterIP"].is_null(), "{named}");
}

#[tokio::test(start_paused = true)]
async fn node_ports_are_given_kept_and_given_back() {
    let world = World::with(|config| config.node_port_range = 30000..30002).await;
    let api = world.api();
    let published = |name: &str, kind: &str| {
        let mut service = service(name, Value::Null);
        service["spec"]["type"] = kind.into();
        service
    };
    let port = |service: &Value| service["spec"]["ports"][0]["nodePort"].as_u64().unwrap_or(0);
    let one = api.post(SERVICES, &published("one", "NodePort")).await.ok();
    let two = api.post(SERVICES, &published("two", "LoadBalancer")).await.ok();
    let mut given = [port(&one), port(&two)];
    given.sort_unstable();
    assert_eq!(given, [30000, 30001]);
    assert_eq!(two["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(two["status"]["loadBalancer"], json!({}));
    let full = "failed to allocate a nodePort: range is full";
    api.post(SERVICES, &published("three", "NodePort"))
        .await
        .refused(500, full);
    let mut same = published("three", "NodePort");
    same["spec"]["ports"][0]["nodePort"] = port(&one).into();
    let said = api.post(SERVICES, &same).await;
    said.refused(422, "spec.ports[0].nodePort: Invalid value");

    // A replace that does not repeat it keeps it; a dry run takes and gives nothing.
    let mut replaced = published("one", "NodePort");
    replaced["metadata"]["labels"] = json!({"a": "b"});
    let path = format!("{SERVICES}/one");
    assert_eq!(port(&api.put(&path, &replaced).await.ok()), port(&one));
    let inside = json!({"spec": {"type": "ClusterIP"}});
    let dry = api.patch(&format!("{path}?dryRun=All"), "merge", &inside).await.ok();
    assert_eq!(port(&dry), 0);
    api.post(SERVICES, &published("three", "NodePort"))
        .await
        .refused(500, full);
    let inside = api.patch(&path, "merge", &inside).await.ok();
    assert_eq!(port(&inside), 0);
    assert_eq!(inside["spec"]["clusterIP"], one["spec"]["clusterIP"]);
    let dry = api
        .post(&format!("{SERVICES}?dryRun=All"), &published("three", "NodePort"))
        .await
        .ok();
    assert_eq!(port(&dry), port(&one));
    let three = api.post(SERVICES, &published("three", "NodePort")).await.ok();
    assert_eq!(port(&three), port(&one));
    api.delete(&format!("{SERVICES}/two")).await.ok();
    let four = api.post(SERVICES, &published("four", "NodePort")).await.ok();
    assert_eq!(port(&four), port(&two));
}

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// Starts what keeps cluster IPs, as the composition root does.
fn keep(world: &World) -> base::Shutdown {
    let shutdown = base::Shutdown::new();
    let own = UserInfo::new("system:apiserver", ["system:masters"]);
    let client = client::Client::new(world.running.transport(own));
    world.running.keep_cluster_ips(&client, &shutdown);
    shutdown
}

/// Waits until a watched object is as wanted.
pub async fn until(api: &Api, path: &str, name: &str, enough: impl Fn(&str, &Value) -> bool) {
    let mut watch = api
        .watch(&format!("{path}?watch=1&fieldSelector=metadata.name%3D{name}"))
        .await;
    let wait = async {
        while let Some(frame) = watch.next().await {
            if enough(frame["type"].as_str().unwrap(), &frame["object"]) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("{path}/{name} never was as wanted"));
}

#[tokio::test]
async fn each_cluster_ip_has_an_object() {
    let world = World::start().await;
    let api = world.api();
    let made = api.post(SERVICES, &service("web", json!("10.96.0.7"))).await.ok();
    let path = format!("{ADDRESSES}/10.96.0.7");
    let object = api.get(&path).await.ok();
    assert_eq!(
        object["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"],
        "one transaction"
    );
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(
        object["spec"],
        json!({"parentRef": {"resource": "services", "namespace": "default", "name": "web"}})
    );
    assert_eq!(object["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
    for suffix in ["?dryRun=All", ""] {
        assert_eq!(api.get(&path).await.code, 200);
        api.delete(&format!("{SERVICES}/web{suffix}")).await.ok();
    }
    assert_eq!(api.get(&path).await.code, 404);
    // Somebody else's address is not given, whoever asks for it.
    let gateway =
        json!({"metadata": {"name": "10.96.0.7"}, "spec": {"parentRef": {"resource": "gateways", "name": "g"}}});
    api.post(ADDRESSES, &gateway).await.ok();
    api.post(SERVICES, &service("web", json!("10.96.0.7")))
        .await
        .refused(422, "failed to allocate IP 10.96.0.7: provided IP is already allocated");
}

#[tokio::test]
async fn what_went_apart_is_put_together() {
    let world = World::start().await;
    let api = world.api();
    api.post(SERVICES, &service("old", json!("10.96.0.7"))).await.ok();
    api.delete(&format!("{ADDRESSES}/10.96.0.7")).await.ok();
    // As an older version left it: a key of its own in place of the object.
    let old_claim = b"/registry/ranges/serviceips/10.96.0.7".as_slice();
    let claim = store::Transaction::create(old_claim, "default/old");
    world.engine.commit(claim).await.unwrap();
    api.post(SERVICES, &service("other", json!("10.96.0.7")))
        .await
        .refused(422, "already allocated");
    let shutdown = keep(&world);
    until(&api, CIDRS, "kubernetes", |_, object| {
        object["status"]["conditions"][0]["status"] == "True"
    })
    .await;
    let is_olds = |_: &str, object: &Value| object["spec"]["parentRef"]["name"] == "old";
    until(&api, ADDRESSES, "10.96.0.7", is_olds).await;
    let claim = store::Transaction::create(old_claim, "default/old");
    world.engine.commit(claim).await.expect("the older key is gone");

    // Removed by hand, and changed by hand: made again.
    let first = api.get(&format!("{ADDRESSES}/10.96.0.7")).await.ok();
    api.delete(&format!("{ADDRESSES}/10.96.0.7")).await.ok();
    let again = |kind: &str, object: &Value| kind != "DELETED" && object["metadata"]["uid"] != first["metadata"]["uid"];
    until(&api, ADDRESSES, "10.96.0.7", again).await;
    let labels = json!({"metadata": {"labels": {"ipaddress.kubernetes.io/managed-by": "me"}}});
    api.patch(&format!("{ADDRESSES}/10.96.0.7"), "merge", &labels)
        .await
        .ok();
    api.patch(
        &format!("{SERVICES}/old"),
        "merge",
        &json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await
    .ok();
    until(&api, ADDRESSES, "10.96.0.7", |kind, object| {
        kind != "DELETED" && object["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
    })
    .await;
    // The default range is made again too.
    let first = api.get(&format!("{CIDRS}/kubernetes")).await.ok();
    api.delete(&format!("{CIDRS}/kubernetes")).await.ok();
    until(&api, CIDRS, "kubernetes", |kind, object| {
        kind != "DELETED" && object["metadata"]["uid"] != first["metadata"]["uid"]
    })
    .await;
    shutdown.finish().await;
}

/// Waits until something is told of a Service.
async fn told(api: &Api, reason: &str, name: &str) -> String {
    let events = "/api/v1/namespaces/default/events";
    let selector = format!("reason%3D{reason},involvedObject.name%3D{name}");
    let mut watch = api.watch(&format!("{events}?watch=1&fieldSelector={selector}")).await;
    let frame = tokio::time::timeout(std::time::Duration::from_secs(60), watch.next()).await;
    let frame = frame.unwrap_or_else(|_| panic!("{reason} was never told of {name}"));
    let event = &frame.unwrap()["object"];
    assert_eq!(
        (&event["type"], &event["source"]["component"]),
        (&json!("Warning"), &json!("portallocator-repair-controller"))
    );
    event["message"].as_str().unwrap().to_owned()
}

/// Whose a node port is, by its key.
async fn owner(world: &World, port: u16) -> Option<String> {
    let key = format!("/registry/ranges/servicenodeports/{port}");
    let range = store::KeyRange::prefix(key.as_bytes());
    let found = world.engine.range(range, None).await.unwrap().records;
    found
        .first()
        .map(|record| String::from_utf8(record.value.to_vec()).unwrap())
}

#[tokio::test]
async fn node_ports_that_went_apart_are_put_together() {
    let world = World::start().await;
    let api = world.api();
    let on_port = |name: &str, port: u16| {
        let mut service = service(name, Value::Null);
        service["spec"]["type"] = "NodePort".into();
        service["spec"]["ports"][0]["nodePort"] = port.into();
        service
    };
    api.post(SERVICES, &on_port("one", 30_001)).await.ok();
    api.post(SERVICES, &on_port("two", 30_002)).await.ok();
    // As an older version left it, and as somebody's hand did.
    let by_hand = store::Transaction::new()
        .operation(store::Operation::Delete(
            "/registry/ranges/servicenodeports/30001".into(),
        ))
        .put("/registry/ranges/servicenodeports/30007", "default/gone");
    world.engine.commit(by_hand).await.unwrap();
    let shutdown = keep(&world);
    assert_eq!(
        told(&api, "PortNotAllocated", "one").await,
        "Port 30001 is not allocated; repairing"
    );
    assert_eq!(owner(&world, 30_001).await.as_deref(), Some("default/one"));
    while owner(&world, 30_007).await.is_some() {
        tokio::task::yield_now().await;
    }
    api.post(SERVICES, &on_port("seven", 30_007)).await.ok();
    assert_eq!(owner(&world, 30_007).await.as_deref(), Some("default/seven"));

    // Another program writes a Service that has the port of one that is there.
    let all = world
        .engine
        .range(store::KeyRange::prefix(b"/registry/services/specs/"), None);
    let all = all.await.unwrap().records;
    let two = all.iter().find(|record| record.key.ends_with(b"/two")).unwrap();
    let [key, value] = [&two.key, &two.value].map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let key = key.replace("/two", "/copy");
    let value = value.replace("\"two\"", "\"copy\"");
    world
        .engine
        .commit(store::Transaction::create(key, value))
        .await
        .unwrap();
    assert_eq!(
        told(&api, "PortAlreadyAllocated", "copy").await,
        "Port 30002 was assigned to multiple services; please recreate service"
    );
    assert_eq!(owner(&world, 30_002).await.as_deref(), Some("default/two"));
    // The copy gives back what was never its own.
    api.delete(&format!("{SERVICES}/copy")).await.ok();
    assert_eq!(
        told(&api, "PortNotAllocated", "two").await,
        "Port 30002 is not allocated; repairing"
    );
    assert_eq!(owner(&world, 30_002).await.as_deref(), Some("default/two"));
    api.post(SERVICES, &on_port("other", 30_002))
        .await
        .refused(422, "provided port is already allocated");
    for (what, count) in [("repair", 2.0), ("duplicate", 1.0), ("leak", 1.0)] {
        let series = format!("apiserver_nodeport_repair_port_errors_total{{type=\"{what}\"}}");
        assert_eq!(api.metric(&series).await, count, "{what}");
    }
    shutdown.finish().await;

    // The next server gives other ports.
    let next = World::over(world.engine.clone(), Vec::new(), |config| {
        config.node_port_range = 31_000..31_011;
    })
    .await;
    let shutdown = keep(&next);
    assert_eq!(
        told(&next.api(), "PortOutOfRange", "one").await,
        "Port 30001 is not within the port range 31000-31010; please recreate service"
    );
    shutdown.finish().await;
}

#[tokio::test]
async fn more_ranges_give_more_addresses() {
    let world = World::with(|config| config.service_range = "10.96.0.0/30".parse().unwrap()).await;
    let api = world.api();
    for name in ["a", "b"] {
        api.post(SERVICES, &service(name, Value::Null)).await.ok();
    }
    let full = "failed to allocate a serviceIP for Service \"c\": range is full";
    api.post(SERVICES, &service("c", Value::Null)).await.refused(500, full);
    let more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/30"]}});
    api.post(CIDRS, &more).await.ok();
    api.post(SERVICES, &service("c", Value::Null)).await.refused(500, full);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    api.patch(&format!("{CIDRS}/more/status"), "merge", &ready).await.ok();
    let made = api.post(SERVICES, &service("c", Value::Null)).await.ok();
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."));
    api.post(SERVICES, &service("d", json!("10.98.0.1"))).await.refused(
        422,
        "failed to allocate IP 10.98.0.1: the provided network does not match the current range",
    );
}
