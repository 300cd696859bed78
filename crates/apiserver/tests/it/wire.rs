//! What goes over the wire: media types, every kind in JSON and protobuf, streams, compression.

use std::io::Read;

use api::GroupVersionKind;
use api::codec::protobuf;
use api::schema::SchemaRef;
use api::testing::{Fill, object};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use kinds::row::StorageKind;
use serde_json::json;
use store::Transaction;

use crate::rows::boats;
use crate::world::{Answer, Api, World};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PARTIAL: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const PARTIAL_LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

async fn get_as(api: &Api, path: &str, accept: &str) -> Answer {
    let answer = api.call(&format!("GET {path}"), &[("accept", accept)], "").await;
    let text = String::from_utf8_lossy(&answer.bytes);
    assert_eq!(answer.code, 200, "{path} {accept}: {text}");
    answer
}

/// The path of all objects of a kind in the test's namespace.
fn collection(row: &StorageKind, group: &str, version: &str) -> String {
    let root = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    match row.namespaced {
        true => format!("{root}/namespaces/n/{}", row.plural),
        false => format!("{root}/{}", row.plural),
    }
}

/// The objects of a protobuf watch: frames of a length and an event.
fn events(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut events = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        // type (1), then object (2) with its raw bytes (1).
        let word_len = usize::from(message[1]);
        let word = String::from_utf8(message[2..2 + word_len].to_vec()).unwrap();
        let at = message
            .windows(4)
            .position(|window| window == protobuf::PREFIX)
            .unwrap();
        events.push((word, message[at..].to_vec()));
        bytes = rest;
    }
    events
}

#[tokio::test]
async fn every_kind_is_the_same_in_json_and_protobuf() {
    let world = World::start().await;
    let api = world.api();
    let mut versions = 0;
    // What custom resources are made of is written to by the server itself; `custom` has its test.
    for row in kinds::rows()
        .into_iter()
        .filter(|row| row.kind != "CustomResourceDefinition")
    {
        let hub = GroupVersionKind::new(&row.group, &row.hub, &row.kind);
        let schema = SchemaRef::builtin(&hub).unwrap();
        let mut full = object(&hub, schema.node(), Fill::Full);
        for (field, text) in [("name", "a"), ("namespace", "n"), ("resourceVersion", "")] {
            api::meta::set_text(&mut full, field, text);
        }
        if !row.namespaced {
            api::meta::set_text(&mut full, "namespace", "");
        }
        let place = if row.namespaced { "n/a" } else { "a" };
        let transaction = Transaction::create(format!("{}/{place}", row.key_prefix), full.to_string());
        let from = world.engine.commit(transaction).await.unwrap().revision;
        for version in &row.served {
            let path = collection(&row, &version.group, &version.version);
            let gvk = GroupVersionKind::new(&version.group, &version.version, &row.kind);
            let schema = SchemaRef::builtin(&gvk).unwrap();
            if !version.verbs.contains(&"watch") {
                continue;
            }
            versions += 1;
            // One object.
            let seen = get_as(&api, &format!("{path}/a?resourceVersion={from}"), "application/json")
                .await
                .value();
            let bytes = get_as(&api, &format!("{path}/a"), PROTOBUF).await;
            assert_eq!(bytes.headers["content-type"], PROTOBUF, "{gvk}");
            assert_eq!(bytes.bytes, protobuf::encode(&seen, &schema).unwrap(), "{gvk}");
            // A list.
            let list = get_as(&api, &path, "application/json").await.value();
            let list_gvk = GroupVersionKind::new(&version.group, &version.version, &format!("{}List", row.kind));
            let expect = protobuf::encode(&list, &SchemaRef::builtin(&list_gvk).unwrap()).unwrap();
            assert_eq!(get_as(&api, &path, PROTOBUF).await.bytes, expect, "{list_gvk}");
            // A watch, from its beginning.
            let watch = format!("GET {path}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Da");
            let response = api.open(&watch, &[("accept", PROTOBUF)], "").await;
            assert_eq!(response.headers()["content-type"], format!("{PROTOBUF};stream=watch"));
            let chunk = response
                .into_body()
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap();
            let (word, first) = events(&chunk).swap_remove(0);
            assert_eq!((&*word, &*first), ("ADDED", &*bytes.bytes), "{gvk}");
            // Metadata alone.
            let partial = get_as(&api, &format!("{path}/a"), PARTIAL).await.bytes;
            let (found, read) = protobuf::decode_as(&partial, &schema).unwrap();
            assert_eq!(found.api_version() + &found.kind, "meta.k8s.io/v1PartialObjectMetadata");
            let (_, whole) = protobuf::decode_as(&bytes.bytes, &schema).unwrap();
            assert_eq!(read["metadata"], whole["metadata"], "{gvk}");
            assert!(read.get("spec").is_none() && read.get("data").is_none(), "{gvk}");
        }
    }
    assert!(versions > 45, "{versions}");
}

#[tokio::test]
async fn long_lists_and_bodies_of_every_shape() {
    let world = World::start().await;
    let api = world.api();
    let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
    let list_schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "ConfigMapList")).unwrap();
    // More than are listed without walking, made in protobuf.
    for index in 0..600 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{index:03}")},
            "data": {"k": "v".repeat(300 + index)}});
        let body = protobuf::encode(&map, &schema).unwrap();
        let headers = [("content-type", PROTOBUF), ("accept", PROTOBUF)];
        let answer = api
            .call("POST /api/v1/namespaces/default/configmaps", &headers, body)
            .await;
        let (_, made) = protobuf::decode_as(&answer.bytes, &schema).unwrap();
        assert_eq!(answer.code, 201);
        assert_eq!(made["metadata"]["name"], map["metadata"]["name"]);
    }
    let path = "/api/v1/configmaps";
    for query in ["", "?limit=500", "?limit=20", "?labelSelector=none"] {
        let path = format!("{path}{query}");
        let expect = protobuf::encode(&get_as(&api, &path, "application/json").await.value(), &list_schema).unwrap();
        // The second time the lengths are known.
        for _ in 0..2 {
            assert_eq!(get_as(&api, &path, PROTOBUF).await.bytes, expect, "{query}");
        }
    }
    let partial = get_as(&api, path, PARTIAL_LIST).await.bytes;
    let (gvk, read) = protobuf::decode_as(&partial, &list_schema).unwrap();
    assert_eq!(
        (&*gvk.kind, read["items"].as_array().unwrap().len()),
        ("PartialObjectMetadataList", 600)
    );
    // Large answers are compressed for those who take it.
    for accept in [PROTOBUF, "application/json", "application/yaml"] {
        let plain = get_as(&api, path, accept).await.bytes;
        let headers = [("accept", accept), ("accept-encoding", "gzip")];
        let packed = api.call(&format!("GET {path}"), &headers, "").await;
        assert_eq!(packed.headers["content-encoding"], "gzip");
        let mut back = Vec::new();
        GzDecoder::new(&*packed.bytes).read_to_end(&mut back).unwrap();
        assert!(back == plain && packed.bytes.len() < plain.len() / 4, "{accept}");
    }
}

#[tokio::test]
async fn answers_come_in_the_type_that_was_asked_for() {
    let world = World::start().await;
    let (row, schema) = boats();
    world.running.add_row(row, schema).await.unwrap();
    let status = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "Status")).unwrap();
    for api in world.both().await {
        api.config_map("a", json!({})).await;
        let path = "/api/v1/namespaces/default/configmaps";
        let yaml = get_as(&api, &format!("{path}/a"), "application/yaml").await;
        assert_eq!(yaml.headers["content-type"], "application/yaml");
        assert!(
            yaml.bytes
                .starts_with(b"apiVersion: v1\ndata:\n  k: v\nkind: ConfigMap\n")
        );
        // Errors, reviews and deletions too.
        let accept = [("accept", PROTOBUF), ("content-type", "application/json")];
        let of = |answer: &Answer| protobuf::decode_as(&answer.bytes, &status).unwrap().1;
        let missing = api.call(&format!("GET {path}/none"), &accept, "").await;
        assert_eq!((missing.code, &of(&missing)["reason"]), (404, &json!("NotFound")));
        let refused = api.as_user("bad").call(&format!("GET {path}"), &accept, "").await;
        if api.token.is_some() {
            assert_eq!((refused.code, &of(&refused)["reason"]), (401, &json!("Unauthorized")));
        }
        let gone = api.call(&format!("DELETE {path}/a"), &accept, "").await;
        assert_eq!((gone.code, &of(&gone)["status"]), (200, &json!("Success")));
        let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}).to_string();
        let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = api.call(path, &accept, review).await;
        let (gvk, read) = protobuf::decode(&answer.bytes).unwrap();
        assert_eq!(
            (&*gvk.kind, &read["status"]["allowed"]),
            ("SelfSubjectAccessReview", &json!(true))
        );
        let groups = get_as(&api, "/apis", PROTOBUF).await;
        assert_eq!(protobuf::decode(&groups.bytes).unwrap().0.kind, "APIGroupList");
        let versions = get_as(&api, "/api", PROTOBUF).await;
        let envelope = protobuf::Envelope::open(&versions.bytes).unwrap();
        assert_eq!((&*envelope.api_version, &*envelope.kind), ("", "APIVersions"));
        let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "APIVersions")).unwrap();
        assert_eq!(
            protobuf::decode_raw(envelope.raw, &schema).unwrap()["versions"],
            json!(["v1"])
        );
        for path in ["/api/v1", "/apis/apps/v1"] {
            let resources = get_as(&api, path, PROTOBUF).await;
            let (gvk, read) = protobuf::decode(&resources.bytes).unwrap();
            assert_eq!(gvk.kind, "APIResourceList");
            assert!(
                read["resources"].as_array().is_some_and(|all| all.len() > 10),
                "{path}: {read}"
            );
        }
        // Custom resources have no message, but their metadata has.
        let boat = json!({"apiVersion": "sea.example/v1", "kind": "Boat", "metadata": {"name": "b"}});
        let boats = "/apis/sea.example/v1/namespaces/default/boats";
        api.post(boats, &boat).await.ok();
        let message = "only the following media types are accepted: application/json, application/yaml";
        let refused = api.call(&format!("GET {boats}/b"), &[("accept", PROTOBUF)], "").await;
        refused.refused(406, message);
        let either = format!("{PROTOBUF},application/json");
        assert_eq!(
            get_as(&api, &format!("{boats}/b"), &either).await.headers["content-type"],
            "application/json"
        );
        assert_eq!(
            get_as(&api, &format!("{boats}/b"), PARTIAL).await.headers["content-type"],
            PROTOBUF
        );
        api.delete(&format!("{boats}/b")).await.ok();
        // CBOR is nobody's.
        let cbor = [("accept", "application/cbor"), ("content-type", "application/cbor")];
        api.call(&format!("GET {boats}"), &cbor[..1], "")
            .await
            .refused(406, message);
        let body = api.call(&format!("POST {boats}"), &cbor[1..], "\u{1}").await;
        body.refused(
            415,
            "the body of the request was in an unknown format - accepted media types include:",
        );
    }
}
