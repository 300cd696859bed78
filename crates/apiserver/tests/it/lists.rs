//! LIST: selectors, pages, versions, shapes.

use serde_json::{Value, json};

use crate::rows::boats;
use crate::world::{Api, World};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn fill(api: &Api) {
    for (name, labels) in [
        ("a", json!({"app": "web", "tier": "1"})),
        ("b", json!({"app": "web", "tier": "2"})),
        ("c", json!({"app": "db"})),
        ("d", json!({})),
    ] {
        api.config_map(name, labels).await;
    }
}

#[tokio::test]
async fn selectors_select() {
    let world = World::start().await;
    fill(&world.api()).await;
    for api in world.both().await {
        for (query, expect) in [
            ("", vec!["a", "b", "c", "d"]),
            ("labelSelector=app%3Dweb", vec!["a", "b"]),
            ("labelSelector=app%3Dweb,tier!%3D1", vec!["b"]),
            ("labelSelector=app+in+(db,x)", vec!["c"]),
            ("labelSelector=!app", vec!["d"]),
            ("fieldSelector=metadata.name%3Db", vec!["b"]),
            ("fieldSelector=metadata.name!%3Db", vec!["a", "c", "d"]),
            ("fieldSelector=metadata.namespace%3Dother", vec![]),
            ("labelSelector=app&limit=1", vec!["a"]),
        ] {
            let list = api.get(&format!("/api/v1/configmaps?{query}")).await.ok();
            assert_eq!(names(&list), expect, "{query}");
            assert_eq!(
                (&list["kind"], &list["apiVersion"]),
                (&json!("ConfigMapList"), &json!("v1"))
            );
        }
        assert!(names(&api.get("/api/v1/namespaces/other/configmaps").await.ok()).is_empty());
    }
}

#[tokio::test]
async fn pods_are_selected_by_their_fields() {
    let world = World::start().await;
    let api = world.api();
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let pod = json!({"metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        api.post("/api/v1/namespaces/default/pods", &pod).await.ok();
    }
    for (query, expect) in [
        ("spec.nodeName%3Dn1", vec!["a"]),
        ("status.phase%3DPending", vec!["a", "b"]),
        ("status.phase%3DRunning", vec![]),
        ("spec.nodeName%3Dn2,status.phase!%3DRunning", vec!["b"]),
    ] {
        let list = api.get(&format!("/api/v1/pods?fieldSelector={query}")).await.ok();
        assert_eq!(names(&list), expect, "{query}");
    }
}

#[tokio::test]
async fn pages_are_of_one_moment() {
    let world = World::start().await;
    fill(&world.api()).await;
    for api in world.both().await {
        let first = api.get("/api/v1/configmaps?limit=2").await.ok();
        assert_eq!(
            (names(&first), &first["metadata"]["remainingItemCount"]),
            (vec!["a".into(), "b".into()], &json!(2))
        );
        // What happens between two pages is on neither.
        api.delete("/api/v1/namespaces/default/configmaps/c").await.ok();
        api.config_map("cc", json!({})).await;
        let next = first["metadata"]["continue"].as_str().unwrap();
        let second = api
            .get(&format!("/api/v1/configmaps?limit=2&continue={next}"))
            .await
            .ok();
        assert_eq!(names(&second), ["c", "d"]);
        assert_eq!(
            second["metadata"]["resourceVersion"],
            first["metadata"]["resourceVersion"]
        );
        assert!(second["metadata"]["continue"].is_null() && second["metadata"]["remainingItemCount"].is_null());
        let version = first["metadata"]["resourceVersion"].as_str().unwrap();
        let exact = api
            .get(&format!(
                "/api/v1/configmaps?resourceVersion={version}&resourceVersionMatch=Exact"
            ))
            .await
            .ok();
        assert_eq!(names(&exact), ["a", "b", "c", "d"]);
        let newer = api
            .get(&format!(
                "/api/v1/configmaps?resourceVersion={version}&resourceVersionMatch=NotOlderThan"
            ))
            .await
            .ok();
        assert_eq!(names(&newer), ["a", "b", "cc", "d"]);
        api.get(&format!("/api/v1/configmaps?resourceVersion={version}&continue={next}"))
            .await
            .refused(400, "not allowed when using continue");
        api.delete("/api/v1/namespaces/default/configmaps/cc").await.ok();
        api.config_map("c", json!({})).await;
    }
}

#[tokio::test]
async fn versions_and_limits_go_together_as_upstream_has_them() {
    let world = World::start().await;
    fill(&world.api()).await;
    let api = world.api();
    let first = api.get("/api/v1/configmaps?limit=3").await.ok();
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    api.delete("/api/v1/namespaces/default/configmaps/a").await.ok();
    let path = |query: &str| format!("/api/v1/configmaps?{}", query.replace("RV", version));
    for (query, expect) in [
        // Any version: what is there now, and never in pages.
        ("resourceVersion=0", vec!["b", "c", "d"]),
        ("resourceVersion=0&limit=2", vec!["b", "c", "d"]),
        (
            "resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=2",
            vec!["b", "c", "d"],
        ),
        ("resourceVersion=RV", vec!["b", "c", "d"]),
        // With a limit and without a match it is exactly that version.
        ("resourceVersion=RV&limit=2", vec!["a", "b"]),
        (
            "resourceVersion=RV&resourceVersionMatch=NotOlderThan&limit=2",
            vec!["b", "c"],
        ),
        (
            "resourceVersion=RV&resourceVersionMatch=Exact",
            vec!["a", "b", "c", "d"],
        ),
        ("limit=-1", vec!["b", "c", "d"]),
    ] {
        assert_eq!(names(&api.get(&path(query)).await.ok()), expect, "{query}");
    }
    for (query, code, message) in [
        (
            "resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersion=1&resourceVersionMatch=Some",
            422,
            "resourceVersionMatch: Unsupported value: \"Some\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "resourceVersion=x",
            400,
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (
            "sendInitialEvents=true",
            422,
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        api.get(&path(query)).await.refused(code, message);
    }
}

#[tokio::test(start_paused = true)]
async fn versions_of_the_future_are_waited_for_and_then_refused() {
    let world = World::start().await;
    let answer = world
        .api()
        .get("/api/v1/configmaps?resourceVersion=999999&resourceVersionMatch=NotOlderThan")
        .await;
    answer.refused(504, "Too large resource version: 999999");
    assert_eq!(
        answer.value()["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn tables_and_partial_metadata() {
    let world = World::start().await;
    fill(&world.api()).await;
    for api in world.both().await {
        let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = api
            .call("GET /api/v1/namespaces/default/configmaps", &accept, "")
            .await
            .ok();
        assert_eq!(
            (&table["kind"], table["rows"].as_array().unwrap().len()),
            (&json!("Table"), 4)
        );
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        assert_eq!(
            (&table["rows"][0]["cells"][0], &table["rows"][0]["object"]["kind"]),
            (&json!("a"), &json!("PartialObjectMetadata"))
        );
        let table = api
            .call(
                "GET /api/v1/namespaces/default/configmaps/a?includeObject=None",
                &accept,
                "",
            )
            .await
            .ok();
        assert!(table["rows"][0]["object"].is_null());
        let table = api
            .call(
                "GET /api/v1/namespaces/default/configmaps/a?includeObject=Object",
                &accept,
                "",
            )
            .await
            .ok();
        assert_eq!(table["rows"][0]["object"]["data"], json!({"k": "v"}));
        let accept = [(
            "accept",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        )];
        let list = api.call("GET /api/v1/configmaps", &accept, "").await.ok();
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert_eq!((names(&list).len(), &list["items"][0]["data"]), (4, &Value::Null));
        let accept = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
        let object = api
            .call("GET /api/v1/namespaces/default/configmaps/a", &accept, "")
            .await
            .ok();
        assert_eq!(
            (&object["kind"], &object["metadata"]["labels"]["app"]),
            (&json!("PartialObjectMetadata"), &json!("web"))
        );
        api.call("GET /api/v1/configmaps", &accept, "")
            .await
            .refused(406, "the requested object is a list");
    }
}

#[tokio::test]
async fn two_served_versions_are_one_stored_kind() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("e{index}");
        let event = json!({"metadata": {"name": name}, "reason": "Tested", "type": "Normal", "message": "m",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reportingComponent": "c", "source": {"component": "c"}});
        api.post("/api/v1/namespaces/default/events", &event).await.ok();
        let path = format!("/apis/events.k8s.io/v1/namespaces/default/events/{name}");
        let seen = api.get(&path).await.ok();
        assert_eq!(
            (&seen["apiVersion"], &seen["regarding"]["name"], &seen["note"]),
            (&json!("events.k8s.io/v1"), &json!("p"), &json!("m"))
        );
        let list = api
            .get("/api/v1/events?fieldSelector=involvedObject.name%3Dp")
            .await
            .ok();
        assert_eq!(names(&list).len(), index + 1);
        let hpa = json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
        api.post("/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers", &hpa)
            .await
            .ok();
        let seen = api
            .get(&format!(
                "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/{name}"
            ))
            .await
            .ok();
        assert_eq!(
            seen["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
            50
        );
    }
}

#[tokio::test]
async fn long_lists_are_of_one_moment_too() {
    let world = World::start().await;
    let api = world.api();
    let makers = (0..700).map(|index| {
        let api = api.clone();
        async move {
            api.config_map(&format!("m{index:03}"), json!({"odd": (index % 2).to_string()}))
                .await
        }
    });
    futures::StreamExt::collect::<Vec<_>>(futures::StreamExt::buffer_unordered(futures::stream::iter(makers), 32))
        .await;
    for api in world.both().await {
        let response = api.open("GET /api/v1/configmaps", &[], "").await;
        // What is deleted while the answer is read is in it all the same.
        api.delete("/api/v1/namespaces/default/configmaps/m699").await.ok();
        let bytes = http_body_util::BodyExt::collect(response.into_body())
            .await
            .unwrap()
            .to_bytes();
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (names(&list).len(), names(&list).last().unwrap().as_str()),
            (700, "m699")
        );
        let odd = api
            .get("/api/v1/namespaces/default/configmaps?labelSelector=odd%3D1")
            .await
            .ok();
        assert_eq!(names(&odd).len(), 349);
        let accept = [
            (
                "accept",
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            ),
            ("accept-encoding", "gzip"),
        ];
        let answer = api.call("GET /api/v1/configmaps", &accept, "").await;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*answer.bytes), &mut text).unwrap();
        assert_eq!(names(&serde_json::from_str(&text).unwrap()).len(), 699);
        api.config_map("m699", json!({"odd": "1"})).await;
    }
}

/// Upstream's typed lists say what their items are once; lists of custom resources and of metadata say it of each item.
#[tokio::test]
async fn items_say_what_they_are_where_upstreams_do() {
    let world = World::start().await;
    fill(&world.api()).await;
    let (row, schema) = boats();
    world.running.add_row(row, schema).await.unwrap();
    let boats = "/apis/sea.example/v1/namespaces/default/boats";
    let boat = json!({"apiVersion": "sea.example/v1", "kind": "Boat", "metadata": {"name": "b"}, "spec": {"oars": 3}});
    world.api().post(boats, &boat).await.ok();
    let event =
        json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    world.api().post("/api/v1/namespaces/default/events", &event).await.ok();
    let maps = "/api/v1/namespaces/default/configmaps";
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    for api in world.both().await {
        for (path, accept, expect) in [
            (maps.to_owned(), "application/json", json!([null, null])),
            (format!("{maps}?limit=2"), "application/json", json!([null, null])),
            (
                format!("{maps}?labelSelector=tier"),
                "application/json",
                json!([null, null]),
            ),
            (format!("{maps}?pretty=1"), "application/json", json!([null, null])),
            ("/api/v1/events".to_owned(), "application/json", json!([null, null])),
            // In a version that is not the stored one.
            (
                "/apis/events.k8s.io/v1/events".to_owned(),
                "application/json",
                json!([null, null]),
            ),
            (boats.to_owned(), "application/json", json!(["sea.example/v1", "Boat"])),
            (
                maps.to_owned(),
                partial,
                json!(["meta.k8s.io/v1", "PartialObjectMetadata"]),
            ),
        ] {
            let list = api.call(&format!("GET {path}"), &[("accept", accept)], "").await.ok();
            let items = list["items"].as_array().unwrap();
            assert!(!items.is_empty(), "{path}");
            for item in items {
                assert_eq!(
                    json!([item["apiVersion"], item["kind"]]),
                    expect,
                    "{path} {accept}: {item}"
                );
            }
        }
        let yaml = api
            .call(&format!("GET {maps}"), &[("accept", "application/yaml")], "")
            .await;
        let text = String::from_utf8_lossy(&yaml.bytes).into_owned();
        // Deeper ones are of managed fields.
        let types = text.lines().map(|line| line.trim_start_matches(['-', ' ']));
        let outer = text.lines().zip(types).filter(|(line, types)| {
            line.len() - types.len() <= "- ".len() && (types.starts_with("apiVersion:") || types.starts_with("kind:"))
        });
        let outer: Vec<&str> = outer.map(|(line, _)| line).collect();
        assert_eq!(outer, ["apiVersion: v1", "kind: ConfigMapList"], "{text}");
        // What a watch begins with are events.
        let watch = format!(
            "GET {maps}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
        );
        let frames = api.call(&watch, &[], "").await;
        let first: Value = serde_json::from_slice(frames.bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
        assert_eq!(
            json!([first["object"]["apiVersion"], first["object"]["kind"]]),
            json!(["v1", "ConfigMap"])
        );
        let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = api
            .call(&format!("GET {maps}?includeObject=Object"), &table, "")
            .await
            .ok();
        assert_eq!(table["rows"][0]["object"]["kind"], "ConfigMap");
    }
}

/// Tables are made as a whole: those that are being sent leave no room for another, until they are gone.
#[tokio::test]
async fn large_tables_wait_for_each_other() {
    let world = World::with(|config| config.whole_answers_bytes = 4 * 1024 * 1024).await;
    let api = world.api();
    for name in ["a", "b", "c", "d"] {
        let data = json!({"metadata": {"name": name}, "data": {"k": "x".repeat(300_000)}});
        api.post("/api/v1/namespaces/default/configmaps", &data).await.ok();
    }
    let table = [("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")];
    let path = "GET /api/v1/configmaps";
    let first = api.open(path, &table, "").await;
    assert_eq!(first.status(), 200);
    let refused = api.open(path, &table, "").await;
    assert_eq!(
        (refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()),
        (429, &b"1"[..])
    );
    // What is encoded while it is sent is not counted.
    assert_eq!(api.call(path, &[], "").await.code, 200);
    drop(first);
    assert_eq!(api.call(path, &table, "").await.code, 200);
}
