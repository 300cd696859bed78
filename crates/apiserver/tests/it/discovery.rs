//! Discovery, OpenAPI, version, health and metrics.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn discovery_in_all_its_shapes() {
    let world = World::start().await;
    for api in world.both().await {
        assert_eq!(api.get("/api").await.ok()["versions"], json!(["v1"]));
        let groups = api.get("/apis").await.ok();
        let names: Vec<&str> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| g["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"apps") && !names.contains(&""), "{names:?}");
        let autoscaling = api.get("/apis/autoscaling").await.ok();
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        let core = api.get("/api/v1").await.ok();
        let resources = core["resources"].as_array().unwrap();
        let find = |name: &str| resources.iter().find(|resource| resource["name"] == name).unwrap();
        assert_eq!(
            (&find("pods")["shortNames"], &find("pods")["namespaced"]),
            (&json!(["po"]), &json!(true))
        );
        assert_eq!(
            (&find("pods/eviction")["group"], &find("pods/eviction")["kind"]),
            (&json!("policy"), &json!("Eviction"))
        );
        for path in ["/api", "/apis"] {
            {
                let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
                let answer = api.call(&format!("GET {path}"), &[("accept", accept)], "").await;
                let etag = answer.headers["etag"].to_str().unwrap().to_owned();
                let list = answer.ok();
                assert_eq!(
                    (&list["kind"], &list["apiVersion"]),
                    (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
                );
                let headers = [("accept", accept), ("if-none-match", &*etag)];
                assert_eq!(api.call(&format!("GET {path}"), &headers, "").await.code, 304);
                let accept = accept.replace("application/json;", "application/vnd.kubernetes.protobuf;");
                let message = api.call(&format!("GET {path}"), &[("accept", &accept)], "").await;
                assert!(message.bytes.starts_with(b"k8s\0") && message.headers["etag"] == *etag);
                let media = message.headers["content-type"].to_str().unwrap();
                assert_eq!(Some(media), accept.split(',').next());
            }
            // Upstream removed it in v1.33: who knows no other gets the older documents, or nothing.
            let removed = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
            for (accept, code) in [(removed.to_owned(), 406), (format!("{removed},application/json"), 200)] {
                let answer = api.call(&format!("GET {path}"), &[("accept", &accept)], "").await;
                assert_eq!(answer.code, code);
                assert_ne!(answer.value()["kind"], "APIGroupDiscoveryList");
            }
        }
        assert_eq!(api.get("/apis/none").await.code, 404);
        // What goes without saying is not said, as upstream.
        let accept = [(
            "accept",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        )];
        let apps = api.call("GET /apis", &accept, "").await.ok();
        let mut groups = apps["items"].as_array().unwrap().iter();
        let apps = groups.find(|group| group["metadata"]["name"] == "apps").unwrap();
        let mut resources = apps["versions"][0]["resources"].as_array().unwrap().iter();
        let deployments = resources.find(|own| own["resource"] == "deployments").unwrap();
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        assert_eq!(deployments["responseKind"], kind("", "", "Deployment"));
        let of = |index: usize| &deployments["subresources"][index]["responseKind"];
        assert_eq!(
            (of(0), of(1)),
            (&kind("autoscaling", "v1", "Scale"), &kind("", "", "Deployment"))
        );
    }
}

#[tokio::test]
async fn openapi_documents_have_hashes() {
    let world = World::start().await;
    let api = world.api();
    let index = api.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap()
        .to_owned();
    let document = api.get(&url).await;
    assert!(
        document.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let document = document.ok();
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"].is_object());
    let schema = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        schema["description"],
        "Deployment enables declarative updates for Pods and ReplicaSets."
    );
    assert_eq!(api.get("/openapi/v3/apis/apps/v1?hash=old").await.code, 301);
    assert_eq!(api.get("/openapi/v3/apis/none/v1").await.code, 404);
    for (name, id) in [
        ("api", "getCoreAPIVersions"),
        ("apis", "getAPIVersions"),
        ("apis/apps", "getAppsAPIGroup"),
        ("version", "getCodeVersion"),
    ] {
        let url = index["paths"][name]["serverRelativeURL"].as_str().unwrap();
        let document = api.get(url).await.ok();
        assert_eq!(document["paths"][format!("/{name}/")]["get"]["operationId"], id);
    }
    // Nobody verifies tokens here.
    assert!(index["paths"].get("openid/v1/jwks").is_none());
    assert_eq!(api.get("/openapi/v3/openid/v1/jwks").await.code, 404);
    let core = api.get("/openapi/v3/api/v1").await.ok();
    let proxy = &core["paths"]["/api/v1/nodes/{name}/proxy"];
    assert_eq!(proxy["options"]["operationId"], "connectCoreV1OptionsNodeProxy");
    let v2 = api.get("/openapi/v2").await;
    let etag = v2.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(v2.ok()["swagger"], "2.0");
    assert_eq!(
        api.call("GET /openapi/v2", &[("if-none-match", &etag)], "").await.code,
        304
    );
    let accept = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    assert_eq!(api.call("GET /openapi/v2", &accept, "").await.code, 200);
}

#[tokio::test]
async fn health_version_and_metrics() {
    let world = World::start().await;
    for api in world.both().await {
        let version = api.get("/version").await.ok();
        assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
        for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/healthz?exclude=etcd"] {
            assert_eq!(api.get(path).await.bytes, "ok", "{path}");
        }
        let verbose = api.get("/readyz?verbose").await.bytes;
        assert!(String::from_utf8_lossy(&verbose).contains("[+]etcd ok\n"));
        assert_eq!(api.get("/readyz/none").await.code, 404);
        api.get("/api/v1/namespaces/default/pods/secret-name").await;
        let metrics = String::from_utf8_lossy(&api.get("/metrics").await.bytes).into_owned();
        for line in [
            "apiserver_request_total{verb=\"GET\"",
            "apiserver_storage_revision",
            "apiserver_current_inflight_requests",
        ] {
            assert!(metrics.contains(line), "{line}");
        }
        assert!(!metrics.contains("secret-name"));
        assert!(
            api.get("/").await.ok()["paths"]
                .as_array()
                .unwrap()
                .contains(&json!("/apis/apps/v1"))
        );
        assert_eq!(api.get("/nonsense").await.code, 404);
    }
}

#[tokio::test]
async fn debug_is_off_unless_somebody_turns_it_on() {
    let path = |what: &str| format!("/debug/api_priority_and_fairness/{what}");
    let world = World::start().await;
    assert_eq!(world.api().get(&path("dump_priority_levels")).await.code, 404);
    let world = World::with(|config| config.debug = true).await;
    for api in world.both().await {
        let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
        let levels = text(&api.get(&path("dump_priority_levels")).await.bytes);
        let mut lines = levels.lines();
        let heading = lines.next().unwrap();
        assert!(
            heading.starts_with("PriorityLevelName, ActiveQueues, IsIdle, "),
            "{levels}"
        );
        let first: Vec<&str> = lines.next().unwrap().split(',').map(str::trim).collect();
        assert_eq!((first.len(), first[0]), (10, "catch-all"), "{levels}");
        let queues = text(&api.get(&path("dump_queues")).await.bytes);
        assert!(queues.starts_with("PriorityLevelName, Index,"), "{queues}");
        assert_eq!(api.get(&path("dump_nonsense")).await.code, 404);
    }
}

#[tokio::test]
async fn health_checks_are_counted() {
    let world = World::start().await;
    let api = world.api();
    api.get("/readyz").await;
    let text = String::from_utf8_lossy(&api.get("/metrics/slis").await.bytes).into_owned();
    let line = r#"kubernetes_healthchecks_total{name="etcd",type="readyz",status="success"} 1"#;
    assert!(
        text.contains(line) && text.contains("# TYPE kubernetes_healthcheck gauge"),
        "{text}"
    );
}

#[tokio::test]
async fn reviews_are_answered() {
    let world = World::start().await;
    for api in world.both().await {
        let me = api
            .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}))
            .await
            .ok();
        assert_eq!(me["status"]["userInfo"]["username"], "tester");
        let ask =
            |user: &str| json!({"spec": {"user": user, "resourceAttributes": {"verb": "get", "resource": "pods"}}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        assert_eq!(api.post(path, &ask("jane")).await.ok()["status"]["allowed"], true);
        let refused = api.post(path, &ask("mallory")).await.ok();
        assert_eq!(
            (&refused["status"]["allowed"], &refused["status"]["reason"]),
            (&json!(false), &json!("no rule"))
        );
        assert_eq!(api.post(path, &json!({"spec": {}})).await.code, 422);
        let own = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
        let answer = api
            .post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &own)
            .await
            .ok();
        assert_eq!(answer["status"]["allowed"], true);
        let local = "/apis/authorization.k8s.io/v1/namespaces/a/localsubjectaccessreviews";
        assert_eq!(
            api.post(local, &ask("jane")).await.code,
            422,
            "the namespace has to be the path's"
        );
        let rules = api
            .post(
                "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
                &json!({"spec": {"namespace": "a"}}),
            )
            .await
            .ok();
        assert_eq!(rules["status"]["resourceRules"][0]["verbs"], json!(["*"]));
        let review = "/apis/authentication.k8s.io/v1/tokenreviews";
        let token = api.post(review, &json!({"spec": {"token": "jane"}})).await.ok();
        assert_eq!(
            (&token["status"]["authenticated"], &token["status"]["user"]["username"]),
            (&json!(true), &json!("jane"))
        );
        let token = api.post(review, &json!({"spec": {"token": "bad"}})).await.ok();
        assert!(token["status"]["authenticated"].is_null() && token["status"]["error"].is_string());
        assert_eq!(api.get(review).await.code, 405);
        let table = [
            ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
            ("content-type", "application/json"),
        ];
        let answer = api
            .call("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", &table, "{}")
            .await;
        answer.refused(406, "only the following media types are accepted");
        let components = api.get("/api/v1/componentstatuses").await;
        assert_eq!(components.warnings().len(), 1);
        assert_eq!(components.ok()["items"].as_array().unwrap().len(), 3);
    }
}
