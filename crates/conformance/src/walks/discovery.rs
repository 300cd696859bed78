//! `test/e2e/apimachinery/discovery.go` and `aggregated_discovery.go`.

use http::Request;
use serde_json::Value;

use crate::place::place;

/// What upstream's tests look for, and is served here (`docs/kinds.md`): group, version, resource.
const RESOURCES: [(&str, &str, &str); 16] = [
    ("", "v1", "namespaces"),
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
    ("resource.k8s.io", "v1", "deviceclasses"),
];

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Discovery should locate the groupVersion and a resource within each APIGroup
pub async fn resources_of_each_group() {
    let place = place("discovery").await;
    for (group, version, resource) in RESOURCES {
        let (path, name) = match group {
            "" => (format!("/api/{version}"), version.to_owned()),
            group => (format!("/apis/{group}/{version}"), format!("{group}/{version}")),
        };
        let list = place.get(&path).await.unwrap();
        assert_eq!(list["groupVersion"], *name, "{path}");
        let resources = list["resources"].as_array().unwrap();
        assert!(resources.iter().any(|entry| entry["name"] == resource), "{path} {resource}");
    }
}

/// AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers
pub async fn aggregated_documents() {
    let place = place("aggregated-documents").await;
    let mut groups = Vec::new();
    for path in ["/apis", "/api"] {
        let request = Request::get(path).header(http::header::ACCEPT, AGGREGATED);
        let document: Value = place.client.request(request.body(Vec::new()).unwrap()).await.unwrap();
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        groups.extend(document["items"].as_array().unwrap().clone());
    }
    for (group, version, resource) in RESOURCES {
        let own = groups
            .iter()
            .filter(|item| item["metadata"]["name"].as_str().unwrap_or_default() == group);
        let mut versions = own.flat_map(|item| item["versions"].as_array().unwrap());
        let found = versions.any(|entry| {
            let resources = entry["resources"].as_array().unwrap();
            entry["version"] == version && resources.iter().any(|entry| entry["resource"] == resource)
        });
        assert!(found, "{group} {version} {resource}");
    }
}

/// AggregatedDiscovery should support aggregated discovery interface
pub async fn aggregated_client() {
    let place = place("aggregated-client").await;
    let discovery = kube::Discovery::new(place.client.clone())
        .run_aggregated()
        .await
        .unwrap();
    for (group, version, resource) in RESOURCES {
        let group_found = discovery.get(group);
        let resources = group_found.map(|found| found.versioned_resources(version));
        let found = resources.is_some_and(|all| all.iter().any(|(entry, _)| entry.plural == resource));
        // kube-rs lists no resources that can only be created.
        let is_only_created = matches!(resource, "tokenreviews" | "selfsubjectaccessreviews");
        assert!(found || is_only_created, "{group} {version} {resource}");
    }
}
