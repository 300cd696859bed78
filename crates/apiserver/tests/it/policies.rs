//! What a namespace allows: LimitRanges and Pod Security, through the whole server.

use std::sync::Arc;

use apiserver::admission::{LimitRanger, PodSecurity};
use serde_json::{Value, json};

use crate::world::World;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, container: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in container.as_object().into_iter().flatten() {
        pod["spec"]["containers"][0][field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn limit_ranges_fill_in_and_bound() {
    let world = World::with_plugins(vec![Arc::new(LimitRanger)]).await;
    for api in world.both().await {
        let limits = json!([{"type": "Container", "max": {"memory": "1Gi"}, "defaultRequest": {"memory": "64Mi"}}]);
        let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
        let ranges = "/api/v1/namespaces/default/limitranges";
        let made = api.post(ranges, &range).await.ok();
        assert_eq!(made["spec"]["limits"][0]["default"], json!({"memory": "1Gi"}));
        let given = api.post(PODS, &pod("a", &json!({}))).await.ok();
        assert_eq!(
            given["spec"]["containers"][0]["resources"],
            json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "64Mi"}})
        );
        let large = json!({"resources": {"limits": {"memory": "2Gi"}}});
        let why = "pods \"b\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi";
        api.post(PODS, &pod("b", &large)).await.refused(403, why);
        api.delete(&format!("{ranges}/r")).await.ok();
        api.post(PODS, &pod("b", &large)).await.ok();
        for name in ["a", "b"] {
            api.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await.ok();
        }
    }
}

#[tokio::test]
async fn a_namespace_says_which_pods_it_takes() {
    let world = World::with_plugins(vec![Arc::new(PodSecurity)]).await;
    for api in world.both().await {
        let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
        let mut namespace = label("privileged");
        namespace["metadata"]["name"] = "default".into();
        api.post("/api/v1/namespaces", &namespace).await;
        api.patch("/api/v1/namespaces/default", "merge", &label("privileged"))
            .await
            .ok();
        let privileged = json!({"securityContext": {"privileged": true}});
        api.post(PODS, &pod("a", &privileged)).await.ok();
        let stricter = api
            .patch("/api/v1/namespaces/default", "merge", &label("baseline"))
            .await;
        assert_eq!(
            stricter.warnings(),
            [
                "299 - \"existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
                "299 - \"a: privileged\"",
            ]
        );
        let why = "pods \"b\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)";
        api.post(PODS, &pod("b", &privileged)).await.refused(403, why);
        api.post(PODS, &pod("b", &json!({}))).await.ok();
        api.patch("/api/v1/namespaces/default", "merge", &label("strict"))
            .await
            .refused(422, "must be one of privileged, baseline, restricted");
        for name in ["a", "b"] {
            api.delete(&format!("{PODS}/{name}?gracePeriodSeconds=0")).await.ok();
        }
    }
}
