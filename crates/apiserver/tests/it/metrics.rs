//! Metrics that say something only after a whole request.

use apiserver::pki::Authority;
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use base::{Clock, Random};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{Client, resources};
use serde_json::{Value, json};

use crate::world::World;

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[tokio::test]
async fn what_the_server_asks_itself_is_counted() {
    let world = World::start().await;
    let [api, https] = world.both().await;
    let own = UserInfo::new("system:apiserver", [SYSTEM_MASTERS]);
    let client = Client::new(world.running.transport(own));
    let series = |verb: &str| {
        format!("apiserver_selfrequest_total{{verb=\"{verb}\",group=\"\",resource=\"configmaps\",subresource=\"\"}}")
    };
    for (verb, count) in [("POST", 1.0), ("DELETE", 1.0)] {
        let before = api.metric(&series(verb)).await;
        if verb == "POST" {
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
            client
                .create_in(&resources::CONFIG_MAPS, "default", &map)
                .await
                .unwrap();
        } else {
            let how = client::DeleteParams::default();
            client
                .delete(&resources::CONFIG_MAPS, "default", "a", &how)
                .await
                .unwrap();
        }
        assert_eq!(api.metric(&series(verb)).await, before + count, "{verb}");
    }
    // Others are not the server, whatever they are called.
    let namesake = https.as_user("system:apiserver");
    for api in [&api, &namesake] {
        api.config_map("b", json!({})).await;
        api.delete("/api/v1/namespaces/default/configmaps/b").await.ok();
    }
    assert_eq!(api.metric(&series("POST")).await, 1.0);
    assert_eq!(api.metric(&series("DELETE")).await, 1.0);
}

#[tokio::test]
async fn certificates_are_compared_with_the_time_that_was_asked_for() {
    let now = Clock::real().now();
    let authority = Authority::generate("ca", now, Random::real()).unwrap();
    let authority = authority.with_leaf_seconds(7200);
    let issued = authority.issue_client("jane", None, now).unwrap().certificate_pem;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, "jane");
    let wanted = BASE64.encode(wanted.serialize_request(&key).unwrap().pem().unwrap());
    let world = World::start().await;
    for (at, api) in world.both().await.into_iter().enumerate() {
        // Nobody else in this program uses this signer with a time, nor any that is not Kubernetes' own.
        for (signer, seconds, counted) in [
            ("kubernetes.io/kube-apiserver-client-kubelet", json!(7200), [1.0, 1.0]),
            ("kubernetes.io/kube-apiserver-client-kubelet", json!(86_400), [1.0, 0.0]),
            ("kubernetes.io/kube-apiserver-client-kubelet", Value::Null, [0.0, 0.0]),
            ("example.com/signer", json!(7200), [1.0, 1.0]),
        ] {
            let label = if signer.starts_with("kubernetes.io/") {
                signer
            } else {
                "other"
            };
            let series = ["requested", "honored"].map(|what| {
                format!("apiserver_certificates_registry_csr_{what}_duration_total{{signerName=\"{label}\"}}")
            });
            let before = [api.metric(&series[0]).await, api.metric(&series[1]).await];
            let name = format!("{at}-{label}-{seconds}").replace(['/', '.'], "-");
            let request = json!({"metadata": {"name": name}, "spec": {"request": wanted, "signerName": signer,
                "usages": ["client auth"], "expirationSeconds": seconds}});
            let mut request = api.post(REQUESTS, &request).await.ok();
            request["status"]["conditions"] =
                json!([{"type": "Approved", "status": "True", "reason": "x", "message": "x"}]);
            let path = format!("{REQUESTS}/{name}");
            let mut approved = api.put(&format!("{path}/approval"), &request).await.ok();
            approved["status"]["certificate"] = BASE64.encode(&issued).into();
            let signed = api.put(&format!("{path}/status"), &approved).await.ok();
            // Only what is new counts.
            api.put(&format!("{path}/status"), &signed).await.ok();
            for (series, (before, counted)) in series.iter().zip(before.iter().zip(counted)) {
                assert_eq!(api.metric(series).await - before, counted, "{name} {series}");
            }
        }
    }
}
