//! A kind comes and goes while the server runs: router, discovery, OpenAPI, authorization and watches follow.

use std::sync::Arc;

use api::GroupResource;
use api::schema::SchemaRef;
use apiserver::server::StartError;
use kinds::row::{DeletePolicy, Propagation, ServedVersion, StorageKind, Strategy};
use serde_json::json;

use crate::world::World;

struct Plain;

impl Strategy for Plain {}

/// `boats.sea.example/v1`, which no generated table knows.
pub fn boats() -> (Arc<StorageKind>, SchemaRef) {
    let served = ServedVersion {
        group: "sea.example".into(),
        version: "v1".into(),
        conversion: None,
        verbs: &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
        subresources: Vec::new(),
        selectable_fields: &[],
        short_names: &["bt"],
        categories: &[],
        columns: None,
        custom: None,
    };
    let row = StorageKind {
        group: "sea.example".into(),
        hub: "v1".into(),
        kind: "Boat".into(),
        plural: "boats".into(),
        singular: "boat".into(),
        namespaced: true,
        key_prefix: "/registry/sea.example/boats".into(),
        strategy: Arc::new(Plain),
        name_rule: api::validation::name_is_dns_subdomain,
        delete: DeletePolicy {
            default_propagation: Propagation::Background,
            graceful: false,
            returns_object: false,
        },
        ttl_seconds: None,
        create_on_update: false,
        unconditional_update: true,
        has_generation: true,
        trigger: None,
        read_fields: Some(&[]),
        served: vec![served],
    };
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"name": {"type": "string"}, "oars": {"type": "integer"}}}}});
    (Arc::new(row), SchemaRef::from_json_schema(&schema).unwrap())
}

#[tokio::test]
async fn a_row_is_added_and_removed() {
    let world = World::start().await;
    let path = "/apis/sea.example/v1/namespaces/default/boats";
    let resource = GroupResource {
        group: "sea.example".into(),
        resource: "boats".into(),
    };
    for (round, api) in world.both().await.into_iter().enumerate() {
        assert_eq!(api.get(path).await.code, 404);
        assert_eq!(api.get("/apis/sea.example/v1").await.code, 404);
        let before = api.get("/openapi/v3").await.headers["etag"].clone();

        let (row, schema) = boats();
        world.running.add_row(row, schema).await.unwrap();
        let (row, schema) = boats();
        assert!(matches!(
            world.running.add_row(row, schema).await,
            Err(StartError::Registry(_))
        ));

        let list = api.get("/apis/sea.example/v1").await.ok();
        assert_eq!(
            (&list["resources"][0]["kind"], &list["resources"][0]["shortNames"]),
            (&json!("Boat"), &json!(["bt"]))
        );
        let groups = api.get("/apis").await.ok();
        assert!(
            groups["groups"]
                .as_array()
                .unwrap()
                .iter()
                .any(|group| group["name"] == "sea.example")
        );
        let after = api.get("/openapi/v3").await;
        assert_ne!(after.headers["etag"], before);
        assert!(after.ok()["paths"]["apis/sea.example/v1"].is_object());

        let mut watch = api.watch("/apis/sea.example/v1/boats?watch=1").await;
        if round > 0 {
            // What was stored when the row went is there again.
            assert_eq!(watch.word().await, "ADDED argo0");
        }
        let name = format!("argo{round}");
        let boat = json!({"metadata": {"name": name}, "spec": {"oars": 50, "sails": 1}});
        let answer = api.post(path, &boat).await;
        assert_eq!(answer.warnings(), ["299 - \"unknown field \\\"spec.sails\\\"\""]);
        let made = answer.ok();
        assert_eq!(
            (&made["kind"], &made["spec"], &made["metadata"]["generation"]),
            (&json!("Boat"), &json!({"oars": 50}), &json!(1))
        );
        assert_eq!(watch.word().await, format!("ADDED {name}"));
        let patched = api
            .patch(&format!("{path}/{name}"), "merge", &json!({"spec": {"oars": 52}}))
            .await
            .ok();
        assert_eq!(patched["metadata"]["generation"], 2);
        assert_eq!(watch.word().await, format!("MODIFIED {name}"));
        let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
        let table = api.call(&format!("GET {path}"), &accept, "").await.ok();
        assert_eq!(table["rows"][round]["cells"][0], json!(name));
        let answer = api.patch(&format!("{path}/{name}"), "strategic", &json!({})).await;
        answer.refused(415, "the body of the request was in an unknown format");

        assert!(world.running.remove_row(&resource).await);
        assert!(!world.running.remove_row(&resource).await);
        assert_eq!(watch.word().await, "END");
        assert_eq!(api.get(path).await.code, 404);
        assert_eq!(api.get("/openapi/v3").await.headers["etag"], before);
    }
}
