//! WATCH: order, selectors, resuming, bookmarks, ends.

use serde_json::json;

use crate::world::{Watch, World};

#[tokio::test]
async fn changes_arrive_once_and_in_order() {
    let world = World::start().await;
    for api in world.both().await {
        let list = api.get("/api/v1/configmaps").await.ok();
        let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let mut watch = api
            .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={from}"))
            .await;
        api.config_map("a", json!({})).await;
        api.patch(
            "/api/v1/namespaces/default/configmaps/a",
            "merge",
            &json!({"data": {"k": "w"}}),
        )
        .await
        .ok();
        let gone = api.delete("/api/v1/namespaces/default/configmaps/a").await.ok();
        assert_eq!(gone["status"], "Success");
        let mut versions = Vec::new();
        for expect in ["ADDED", "MODIFIED", "DELETED"] {
            let frame = watch.next().await.unwrap();
            assert_eq!(frame["type"], expect);
            versions.push(
                frame["object"]["metadata"]["resourceVersion"]
                    .as_str()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap(),
            );
        }
        assert!(
            versions.is_sorted() && versions[1] < versions[2],
            "a deletion has a version of its own: {versions:?}"
        );
        // Whoever was away gets the same again.
        let mut again = api
            .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={from}"))
            .await;
        assert_eq!(again.words(3).await, ["ADDED a", "MODIFIED a", "DELETED a"]);
        let mut later = api
            .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={}", versions[0]))
            .await;
        assert_eq!(later.words(2).await, ["MODIFIED a", "DELETED a"]);
    }
}

#[tokio::test]
async fn selectors_turn_changes_into_comings_and_goings() {
    let world = World::start().await;
    for api in world.both().await {
        let mut watch = api
            .watch("/api/v1/namespaces/default/configmaps?watch=1&labelSelector=app%3Dweb")
            .await;
        api.config_map("a", json!({})).await;
        for labels in [
            json!({"app": "web"}),
            json!({"app": "web", "x": "1"}),
            json!({"app": "db"}),
            json!({"app": "web"}),
        ] {
            let mut object = api.get("/api/v1/namespaces/default/configmaps/a").await.ok();
            object["metadata"]["labels"] = labels;
            api.put("/api/v1/namespaces/default/configmaps/a", &object).await.ok();
        }
        api.delete("/api/v1/namespaces/default/configmaps/a").await.ok();
        assert_eq!(watch.words(3).await, ["ADDED a", "MODIFIED a", "DELETED a"]);
        assert_eq!(watch.words(2).await, ["ADDED a", "DELETED a"]);
    }
}

#[tokio::test]
async fn watches_of_one_name_one_namespace_and_one_node() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let mut one = api
            .watch("/api/v1/namespaces/default/pods?watch=1&fieldSelector=metadata.name%3Db")
            .await;
        let mut old_form = api.watch("/api/v1/watch/namespaces/default/pods/b").await;
        let mut node = api.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn2").await;
        let mut other = api
            .watch("/api/v1/namespaces/other/pods?watch=1&timeoutSeconds=1")
            .await;
        for (name, on) in [("a", "n1"), ("b", "n2")] {
            let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": on, "containers": [{"name": "c", "image": "i"}]}});
            api.post("/api/v1/namespaces/default/pods", &pod).await.ok();
        }
        assert_eq!(
            [one.word().await, old_form.word().await, node.word().await],
            ["ADDED b", "ADDED b", "ADDED b"]
        );
        assert_eq!(other.word().await, "END", "transport {index}");
        for name in ["a", "b"] {
            api.delete(&format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0"))
                .await
                .ok();
        }
    }
}

#[tokio::test]
async fn a_watch_list_ends_its_beginning_with_a_bookmark() {
    let world = World::start().await;
    world.api().config_map("a", json!({})).await;
    world.api().config_map("b", json!({"x": "y"})).await;
    for api in world.both().await {
        let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
        let mut watch = api.watch(&format!("/api/v1/configmaps?{query}")).await;
        assert_eq!(watch.words(2).await, ["ADDED a", "ADDED b"]);
        let bookmark = watch.next().await.unwrap();
        assert_eq!(bookmark["type"], "BOOKMARK");
        assert_eq!(
            bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
        assert_eq!(bookmark["object"]["kind"], "ConfigMap");
        // From the bookmark on nothing is missing and nothing comes twice.
        let from = bookmark["object"]["metadata"]["resourceVersion"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut next = api
            .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={from}"))
            .await;
        api.config_map("c", json!({})).await;
        assert_eq!([watch.word().await, next.word().await], ["ADDED c", "ADDED c"]);
        api.delete("/api/v1/namespaces/default/configmaps/c").await.ok();
        // Nothing selected: the bookmark comes all the same.
        let mut none = api
            .watch(&format!("/api/v1/configmaps?{query}&labelSelector=none"))
            .await;
        assert_eq!(none.word().await, "BOOKMARK");
    }
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    let world = World::start().await;
    world.api().config_map("a", json!({})).await;
    let api = world.api();
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let answer = api
        .call("GET /api/v1/configmaps?watch=1&timeoutSeconds=1", &accept, "")
        .await;
    let first: serde_json::Value =
        serde_json::from_slice(answer.bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert!(
        first["object"]["columnDefinitions"]
            .as_array()
            .is_some_and(|columns| !columns.is_empty())
    );
    let accept = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let answer = api
        .call("GET /api/v1/configmaps?watch=1&timeoutSeconds=1", &accept, "")
        .await;
    let first: serde_json::Value =
        serde_json::from_slice(answer.bytes.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(
        (&first["object"]["kind"], &first["object"]["data"]),
        (&json!("PartialObjectMetadata"), &json!(null))
    );
}

#[tokio::test]
async fn bookmarks_are_objects_of_their_kind_in_every_shape() {
    let world = World::start().await;
    let api = world.api();
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let path = format!("GET /api/v1/pods?{query}");
    let mut plain = Watch::of(api.open(&path, &[], "").await);
    let bookmark = plain.next().await.unwrap();
    let metadata = &bookmark["object"]["metadata"];
    let version = metadata["resourceVersion"].clone();
    let expect = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "spec": {"containers": null},
        "status": {}, "metadata": {"resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}}}});
    assert_eq!(bookmark, expect);
    let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let mut watch = Watch::of(api.open(&path, &partial, "").await);
    let expect = json!({"type": "BOOKMARK", "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata}});
    assert_eq!(watch.next().await.unwrap(), expect);
    // Rows without objects would hide where the initial events end.
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let mut watch = Watch::of(api.open(&format!("{path}&includeObject=None"), &table, "").await);
    let frame = watch.next().await.unwrap();
    let row = &frame["object"]["rows"][0];
    assert_eq!(
        (&row["object"]["metadata"], &row["cells"][1]),
        (metadata, &json!("0/0"))
    );
    assert_eq!(
        (&frame["type"], &frame["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &version)
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_begin_says_so_in_an_event() {
    let world = World::start().await;
    let api = world.api();
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=999999";
    let mut watch = api.watch(&format!("/api/v1/configmaps?{query}")).await;
    let frame = watch.next().await.unwrap();
    assert_eq!(
        (&frame["type"], &frame["object"]["code"], &frame["object"]["reason"]),
        (&json!("ERROR"), &json!(504), &json!("Timeout"))
    );
    assert_eq!(
        frame["object"]["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(watch.word().await, "END");
    // What is no version at all is refused at once.
    api.get("/api/v1/configmaps?watch=1&resourceVersion=x").await.refused(
        400,
        "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
    );
}

#[tokio::test]
async fn a_watch_from_the_future_waits_for_it() {
    let world = World::start().await;
    let api = world.api();
    let now = api.config_map("a", json!({})).await["metadata"]["resourceVersion"].clone();
    let now: u64 = now.as_str().unwrap().parse().unwrap();
    let path = format!("/api/v1/configmaps?watch=1&resourceVersion={}", now + 1);
    let mut watch = api.watch(&path).await;
    for name in ["b", "c"] {
        api.config_map(name, json!({})).await;
    }
    assert_eq!(watch.word().await, "ADDED c");
}

#[tokio::test]
async fn a_start_that_is_too_old_is_gone() {
    let world = World::start().await;
    let api = world.api();
    // The store's history begins somewhere; a table that is loaded at a later revision has none before.
    let first = api.config_map("a", json!({})).await;
    let revision: u64 = first["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    for index in 0..10 {
        let body = json!({"data": {"k": index.to_string()}});
        api.patch("/api/v1/namespaces/default/configmaps/a", "merge", &body)
            .await
            .ok();
    }
    world.engine.compact(revision + 5).await.unwrap();
    let later = World::over(world.engine.clone(), Vec::new(), |_| {}).await;
    for api in later.both().await {
        let mut watch = api
            .watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={revision}"))
            .await;
        let frame = watch.next().await.unwrap();
        assert_eq!(
            (&frame["type"], &frame["object"]["code"], &frame["object"]["reason"]),
            (&json!("ERROR"), &json!(410), &json!("Expired"))
        );
        assert_eq!(watch.word().await, "END");
        let path = format!("/api/v1/configmaps?resourceVersion={revision}&resourceVersionMatch=Exact");
        api.get(&path)
            .await
            .refused(410, "The resourceVersion for the provided list is too old.");
        let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0";
        let answer = api.get(&format!("/api/v1/configmaps?continue={token}")).await;
        answer.refused(410, "The provided continue parameter is too old");
        let next = answer.value()["metadata"]["continue"].as_str().unwrap().to_owned();
        assert_eq!(api.get(&format!("/api/v1/configmaps?continue={next}")).await.code, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn bookmarks_say_how_far_a_quiet_watch_is() {
    let world = World::start().await;
    let api = world.api();
    let mut watch = api
        .watch("/api/v1/secrets?watch=1&resourceVersion=1&allowWatchBookmarks=true")
        .await;
    let other = api.config_map("a", json!({})).await;
    // What happens elsewhere moves the watch on, at the next minute.
    let frame = watch.next().await.unwrap();
    assert_eq!(frame["type"], "BOOKMARK");
    assert_eq!(
        frame["object"]["metadata"]["resourceVersion"],
        other["metadata"]["resourceVersion"]
    );
    assert!(frame["object"]["metadata"]["annotations"].is_null());
    // A watch without bookmarks ends by itself, after half an hour at least.
    let began = tokio::time::Instant::now();
    let mut plain = api.watch("/api/v1/secrets?watch=1").await;
    assert_eq!(plain.word().await, "END");
    assert!(began.elapsed() >= std::time::Duration::from_secs(1800));
}

#[tokio::test(start_paused = true)]
async fn events_do_not_keep_a_watch_beyond_its_time() {
    let world = World::start().await;
    let api = world.api();
    let mut watch = api.watch("/api/v1/configmaps?watch=1&timeoutSeconds=60").await;
    api.config_map("a", json!({})).await;
    assert_eq!(watch.word().await, "ADDED a");
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    api.config_map("b", json!({})).await;
    assert_eq!(watch.word().await, "END");
}

#[tokio::test(start_paused = true)]
async fn events_go_by_themselves() {
    let clock = base::Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap());
    let engine = store::testing::engine_in_memory(clock.clone(), base::Random::seeded(1)).await;
    let world = World::over(engine, Vec::new(), |config| config.clock = clock).await;
    let api = world.api();
    let event = json!({"metadata": {"name": "e"}, "reason": "Tested", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
    let made = api.post("/api/v1/namespaces/default/events", &event).await.ok();
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let began = tokio::time::Instant::now();
    let mut watch = api
        .watch("/apis/events.k8s.io/v1/events?watch=1&timeoutSeconds=7200")
        .await;
    assert_eq!(watch.words(2).await, ["ADDED e", "DELETED e"]);
    assert!(
        (3600..3700).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let world = World::start().await;
    let mut watch = world.https().await.watch("/api/v1/configmaps?watch=1").await;
    world.running.shutdown().await;
    assert_eq!(watch.word().await, "END");
}

/// How often frames of events were made, as `/metrics` counts them.
async fn frames_made(api: &crate::world::Api) -> u64 {
    let text = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("apiserver_watch_frames_total"));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_frame_is_made_once_for_all_who_watch() {
    let world = World::start().await;
    let api = world.api();
    let partial = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let path = "GET /api/v1/configmaps?watch=1";
    let mut watches = Vec::new();
    for index in 0..40 {
        let headers: &[(&str, &str)] = if index % 2 == 0 { &[] } else { &partial };
        watches.push(Watch::of(api.open(path, headers, "").await));
    }
    let selected = format!("{path}&labelSelector=app%3Dweb");
    watches.push(Watch::of(api.open(&selected, &[], "").await));
    // Large frames are not copied, small ones are.
    let data = "x".repeat(100_000);
    let object = json!({"metadata": {"name": "a", "labels": {"app": "web"}}, "data": {"k": data}});
    api.post("/api/v1/namespaces/default/configmaps", &object).await.ok();
    api.config_map("b", json!({"app": "web"})).await;
    let gone = "/api/v1/namespaces/default/configmaps/a";
    let moved = json!({"metadata": {"labels": {"app": "db"}}});
    let last = api.patch(gone, "merge", &moved).await.ok()["metadata"]["resourceVersion"].clone();
    api.delete(gone).await.ok();
    let everything = ["ADDED a", "ADDED b", "MODIFIED a", "DELETED a"];
    for (index, watch) in watches.iter_mut().enumerate() {
        if index < 40 {
            assert_eq!(watch.words(4).await, everything, "{index}");
            continue;
        }
        // Whoever selects sees it go with the state that was selected, at the revision that took it away.
        assert_eq!(watch.words(2).await, ["ADDED a", "ADDED b"]);
        let left = watch.next().await.unwrap();
        let metadata = &left["object"]["metadata"];
        assert_eq!(
            (&left["type"], &metadata["labels"]["app"], &metadata["resourceVersion"]),
            (&json!("DELETED"), &json!("web"), &last)
        );
    }
    // Four events in two shapes, and the one that only the selector makes.
    assert_eq!(frames_made(&api).await, 2 * 4 + 1);
}

#[tokio::test]
async fn nobody_waits_for_a_slow_watcher() {
    let world = World::with(|config| config.history.events_max = 8).await;
    let api = world.api();
    let from = api.config_map("a", json!({})).await["metadata"]["resourceVersion"].clone();
    let path = format!("/api/v1/configmaps?watch=1&resourceVersion={}", from.as_str().unwrap());
    let mut slow = api.watch(&path).await;
    for index in 0..20 {
        let body = json!({"data": {"k": index.to_string()}});
        let path = "/api/v1/namespaces/default/configmaps/a";
        api.patch(path, "merge", &body).await.ok();
    }
    let frame = slow.next().await.unwrap();
    let status = &frame["object"];
    assert_eq!((&frame["type"], &status["code"]), (&json!("ERROR"), &json!(410)));
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with("too old resource version: ")
    );
    assert_eq!(slow.word().await, "END");
}
