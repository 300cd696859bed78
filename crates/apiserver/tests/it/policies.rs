//! What a namespace allows: LimitRanges and Pod Security; and admission policies. Through the whole server.

use std::sync::Arc;

use apiserver::admission::{LimitRanger, MutatingPolicies, Optional, PodSecurity, ValidatingPolicies};
use apiserver::authorization::AlwaysAllow;
use serde_json::{Value, json};

use crate::custom::{WIDGETS, define, widgets};
use crate::custom_versions::versions;
use crate::webhooks::Service;
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
    let world = World::with_plugins(vec![Arc::new(PodSecurity::default())]).await;
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

/// CVE-2021-25735, CVE-2023-2727 and their like: what is checked of a container is checked of each sort of them, whichever
/// way it comes.
#[tokio::test]
async fn no_sort_of_container_slips_through() {
    let world = World::with_plugins(vec![
        Arc::new(PodSecurity::default()),
        Arc::new(Optional::ALWAYS_PULL_IMAGES),
    ])
    .await;
    for api in world.both().await {
        let level = json!({"pod-security.kubernetes.io/enforce": "baseline"});
        let namespace = json!({"metadata": {"name": "default", "labels": level}});
        api.post("/api/v1/namespaces", &namespace).await;
        let patch = json!({"metadata": {"labels": level}});
        api.patch("/api/v1/namespaces/default", "merge", &patch).await.ok();
        let privileged =
            json!({"name": "x", "image": "i", "imagePullPolicy": "Never", "securityContext": {"privileged": true}});
        for field in ["containers", "initContainers"] {
            let mut bad = pod("bad", &json!({}));
            let all = bad["spec"][field].take();
            let mut all = all.as_array().cloned().unwrap_or_default();
            all.push(privileged.clone());
            bad["spec"][field] = all.into();
            let why = "must not set securityContext.privileged=true";
            api.post(PODS, &bad).await.refused(403, why);
        }
        api.post(PODS, &pod("good", &json!({"imagePullPolicy": "IfNotPresent"})))
            .await
            .ok();
        let made = api.get(&format!("{PODS}/good")).await.ok();
        assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
        let debug = format!("{PODS}/good/ephemeralcontainers");
        let add = json!({"spec": {"ephemeralContainers": [privileged]}});
        for kind in ["strategic", "merge"] {
            api.patch(&debug, kind, &add)
                .await
                .refused(403, "must not set securityContext.privileged=true");
        }
        let add = json!([{"op": "add", "path": "/spec/ephemeralContainers", "value": [privileged]}]);
        api.patch(&debug, "json", &add)
            .await
            .refused(403, "must not set securityContext.privileged=true");
        let mut whole = made.clone();
        whole["spec"]["ephemeralContainers"] = json!([privileged]);
        api.put(&debug, &whole)
            .await
            .refused(403, "must not set securityContext.privileged=true");
        // Upstream's AlwaysPullImages looks at no subresource, and neither does ours.
        let harmless = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
        api.patch(&debug, "strategic", &harmless).await.ok();
        let now = api.get(&format!("{PODS}/good")).await.ok();
        assert!(!now.to_string().contains("privileged"), "{now}");
        api.delete(&format!("{PODS}/good?gracePeriodSeconds=0")).await.ok();
    }
}

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str, replicas: i64) -> Value {
    let labels = json!({"app": "web"});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn about_deployments() -> Value {
    json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["deployments"]}]})
}

#[tokio::test]
async fn policies_refuse_and_change() {
    let all = Arc::new(AlwaysAllow);
    let world = World::with_plugins(vec![
        Arc::new(MutatingPolicies::new(all.clone())),
        Arc::new(ValidatingPolicies::new(all)),
    ])
    .await;
    for api in world.both().await {
        let namespace = json!({"metadata": {"name": "default"}});
        api.post("/api/v1/namespaces", &namespace).await;
        let most = json!({"metadata": {"name": "most"}, "data": {"replicas": "3"}});
        api.post("/api/v1/namespaces/default/configmaps", &most).await.ok();
        let policy = json!({"metadata": {"name": "few"}, "spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": about_deployments(),
            "variables": [{"name": "most", "expression": "int(params.data.replicas)"}],
            "validations": [{"expression": "object.spec.replicas <= variables.most",
                "messageExpression": "'at most ' + string(variables.most) + ' replicas'"}]}});
        let made = api
            .post(&format!("{GROUP}/validatingadmissionpolicies"), &policy)
            .await
            .ok();
        assert_eq!(made["spec"]["failurePolicy"], "Fail");
        let reference = json!({"name": "most", "parameterNotFoundAction": "Deny"});
        let binding = json!({"metadata": {"name": "few-bound"},
            "spec": {"policyName": "few", "paramRef": reference, "validationActions": ["Deny"]}});
        api.post(DEPLOYMENTS, &deployment("many", 5)).await.ok();
        api.post(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding)
            .await
            .ok();
        let why = "deployments.apps \"more\" is forbidden: ValidatingAdmissionPolicy 'few' with binding 'few-bound' denied \
                   request: at most 3 replicas";
        api.post(DEPLOYMENTS, &deployment("more", 4)).await.refused(422, why);
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        api.patch(&format!("{DEPLOYMENTS}/many"), "merge", &label)
            .await
            .refused(422, "at most 3 replicas");

        let mutating = json!({"metadata": {"name": "marked"}, "spec": {
        "reinvocationPolicy": "Never",
        "matchConstraints": about_deployments(),
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{annotations: {'marked': request.userInfo.username}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'replace', path: '/spec/replicas', value: 2}]"}},
        ]}});
        api.post(&format!("{GROUP}/mutatingadmissionpolicies"), &mutating)
            .await
            .ok();
        let binding = json!({"metadata": {"name": "marked"}, "spec": {"policyName": "marked"}});
        api.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding)
            .await
            .ok();
        let made = api.post(DEPLOYMENTS, &deployment("more", 4)).await.ok();
        assert_eq!(made["spec"]["replicas"], 2, "it was changed before it was judged");
        assert_eq!(made["metadata"]["annotations"]["marked"], "tester");

        for policy in ["validatingadmissionpolicies/few", "mutatingadmissionpolicies/marked"] {
            api.delete(&format!("{GROUP}/{policy}")).await.ok();
        }
        let made = api.post(DEPLOYMENTS, &deployment("again", 4)).await.ok();
        assert_eq!(made["spec"]["replicas"], 4);
        for binding in [
            "validatingadmissionpolicybindings/few-bound",
            "mutatingadmissionpolicybindings/marked",
        ] {
            api.delete(&format!("{GROUP}/{binding}")).await.ok();
        }
        for name in ["many", "more", "again"] {
            api.delete(&format!("{DEPLOYMENTS}/{name}")).await.ok();
        }
        api.delete("/api/v1/namespaces/default/configmaps/most").await.ok();
    }
}

/// Parameters of a kind in several versions are seen in the one that the policy names, even if it takes a webhook to have them so.
#[tokio::test]
async fn parameters_come_in_the_version_of_their_param_kind() {
    let all = Arc::new(AlwaysAllow);
    let world = World::with_plugins(vec![
        Arc::new(MutatingPolicies::new(all.clone())),
        Arc::new(ValidatingPolicies::new(all)),
    ])
    .await;
    let api = world.api();
    let namespace = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces", &namespace).await;
    let service = Service::start().await;
    let mut crd = widgets(versions("v1"));
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": service.by_url("/convert")}});
    define(&api, &crd).await;
    let stored = json!({"metadata": {"name": "most"}, "spec": {"size": "3"}});
    api.post(WIDGETS, &stored).await.ok();
    assert!(service.asked().is_empty());

    let kind = json!({"apiVersion": "example.com/v1beta1", "kind": "Widget"});
    let policy = json!({"metadata": {"name": "few"}, "spec": {
        "paramKind": kind, "matchConstraints": about_deployments(),
        "validations": [{"expression": "object.spec.replicas <= int(params.spec.length)",
            "messageExpression": "'at most ' + params.spec.length + ' replicas'"}]}});
    api.post(&format!("{GROUP}/validatingadmissionpolicies"), &policy)
        .await
        .ok();
    let reference = json!({"name": "most", "parameterNotFoundAction": "Deny"});
    let binding = json!({"metadata": {"name": "few"},
        "spec": {"policyName": "few", "paramRef": reference, "validationActions": ["Deny"]}});
    let bindings = format!("{GROUP}/validatingadmissionpolicybindings");
    api.post(&bindings, &binding).await.ok();
    api.post(DEPLOYMENTS, &deployment("more", 4))
        .await
        .refused(422, "at most 3 replicas");
    api.post(DEPLOYMENTS, &deployment("few", 3)).await.ok();
    // What does not change is converted once.
    assert_eq!(service.asked().len(), 1);

    let mutating = json!({"metadata": {"name": "capped"}, "spec": {
        "reinvocationPolicy": "Never", "paramKind": kind, "matchConstraints": about_deployments(),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'replace', path: '/spec/replicas', value: int(params.spec.length)}]"}}]}});
    api.post(&format!("{GROUP}/mutatingadmissionpolicies"), &mutating)
        .await
        .ok();
    let binding = json!({"metadata": {"name": "capped"}, "spec": {"policyName": "capped", "paramRef": reference}});
    api.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding)
        .await
        .ok();
    let made = api.post(DEPLOYMENTS, &deployment("more", 4)).await.ok();
    assert_eq!(made["spec"]["replicas"], 3);
}
