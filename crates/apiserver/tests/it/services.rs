//! Cluster IPs: given once, kept, given back, and recovered by the next server over the same store.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::world::World;

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
