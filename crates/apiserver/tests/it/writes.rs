//! Create, update, patch, apply, delete: what is stored, and what is refused.

use serde_json::{Value, json};

use crate::world::{Api, World};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn revision(api: &Api) -> String {
    api.get("/api/v1/configmaps").await.ok()["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn created_objects_have_what_the_server_gives() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("a{index}");
        let object = json!({"metadata": {"name": name, "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}});
        let answer = api.post(MAPS, &object).await;
        assert_eq!(answer.code, 201);
        let made = answer.ok();
        let metadata = &made["metadata"];
        assert_eq!(
            (&made["kind"], &made["apiVersion"], &metadata["namespace"]),
            (&json!("ConfigMap"), &json!("v1"), &json!("default"))
        );
        assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
        assert_ne!(metadata["creationTimestamp"], "2001-01-01T00:00:00Z");
        assert_eq!(api.get(&format!("{MAPS}/{name}")).await.ok(), made);
        api.post(MAPS, &object)
            .await
            .refused(409, &format!("configmaps \"{name}\" already exists"));
        let made = api
            .post(MAPS, &json!({"metadata": {"generateName": "web-"}}))
            .await
            .ok();
        assert!(made["metadata"]["name"].as_str().unwrap().starts_with("web-"));
        api.post(MAPS, &made)
            .await
            .refused(500, "resourceVersion should not be set on objects to be created");
    }
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let world = World::start().await;
    for api in world.both().await {
        let before = revision(&api).await;
        let made = api
            .post(&format!("{MAPS}?dryRun=All"), &json!({"metadata": {"name": "dry"}}))
            .await
            .ok();
        assert!(made["metadata"]["uid"].is_string() && made["metadata"]["resourceVersion"].is_null());
        assert_eq!(api.get(&format!("{MAPS}/dry")).await.code, 404);
        assert_eq!(revision(&api).await, before);
        let service =
            json!({"metadata": {"name": "dry"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
        for _ in 0..2 {
            api.post("/api/v1/namespaces/default/services?dryRun=All", &service)
                .await
                .ok();
        }
    }
}

#[tokio::test]
async fn updates_need_the_version_they_saw() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let path = format!("{MAPS}/a{index}");
        let first = api
            .post(
                MAPS,
                &json!({"metadata": {"name": format!("a{index}")}, "data": {"k": "1"}}),
            )
            .await
            .ok();
        let mut second = first.clone();
        second["data"]["k"] = "2".into();
        let second = api.put(&path, &second).await.ok();
        assert_ne!(
            first["metadata"]["resourceVersion"],
            second["metadata"]["resourceVersion"]
        );
        let mut stale = first.clone();
        stale["data"]["k"] = "3".into();
        api.put(&path, &stale).await.refused(
            409,
            "the object has been modified; please apply your changes to the latest version and try again",
        );
        let mut other = second.clone();
        other["metadata"]["uid"] = "11111111-1111-4111-8111-111111111111".into();
        api.put(&path, &other)
            .await
            .refused(409, "Precondition failed: UID in precondition");
        let mut unconditional = second.clone();
        unconditional["metadata"]["resourceVersion"] = Value::Null;
        unconditional["data"]["k"] = "4".into();
        assert_eq!(api.put(&path, &unconditional).await.ok()["data"]["k"], "4");
        api.put(&format!("{MAPS}/other"), &unconditional)
            .await
            .refused(400, "does not match the name on the URL (other)");
        let absent = json!({"metadata": {"name": "absent"}});
        api.put(&format!("{MAPS}/absent"), &absent)
            .await
            .refused(404, "configmaps \"absent\" not found");
    }
}

#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let world = World::start().await;
    let api = world.api();
    let made = api.post(DEPLOYMENTS, &deployment("a")).await.ok();
    let before = revision(&api).await;
    let path = format!("{DEPLOYMENTS}/a");
    assert_eq!(api.put(&path, &made).await.ok(), made);
    api.patch(&path, "merge", &json!({"spec": {"replicas": 1}})).await.ok();
    api.patch(
        &path,
        "strategic",
        &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
    .await
    .ok();
    api.patch(
        &path,
        "json",
        &json!([{"op": "replace", "path": "/spec/replicas", "value": 1}]),
    )
    .await
    .ok();
    let mut config = deployment("a");
    config["apiVersion"] = "apps/v1".into();
    config["kind"] = "Deployment".into();
    let apply = format!("{path}?fieldManager=m&force=true");
    let applied = api.patch(&apply, "apply", &config).await.ok();
    let after = revision(&api).await;
    assert_ne!(before, after, "the first apply records its manager");
    assert_eq!(api.patch(&apply, "apply", &config).await.ok(), applied);
    assert_eq!(revision(&api).await, after);
}

#[tokio::test]
async fn patches_of_all_kinds() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let path = format!("{DEPLOYMENTS}/d{index}");
        api.post(DEPLOYMENTS, &deployment(&format!("d{index}"))).await.ok();
        let patched = api.patch(&path, "strategic", &json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}]}}}})).await.ok();
        let container = &patched["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            (&container["image"], &container["env"][0]["value"]),
            (&json!("i"), &json!("1"))
        );
        assert_eq!(patched["metadata"]["generation"], 2);
        let patched = api
            .patch(
                &path,
                "merge",
                &json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 2}}),
            )
            .await
            .ok();
        assert_eq!(
            (&patched["spec"]["replicas"], &patched["metadata"]["labels"]["x"]),
            (&json!(2), &json!("y"))
        );
        let patched = api
            .patch(&path, "json", &json!([{"op": "remove", "path": "/metadata/labels/x"}]))
            .await
            .ok();
        assert!(patched["metadata"]["labels"]["x"].is_null());
        assert_eq!(
            patched["metadata"]["generation"], 3,
            "metadata alone raises no generation"
        );
        for (kind, patch, code, message) in [
            (
                "json",
                json!([{"op": "test", "path": "/spec/replicas", "value": 9}]),
                422,
                "the server rejected our request",
            ),
            ("json", json!({"op": "x"}), 400, ""),
            ("merge", json!([1]), 400, "error decoding patch"),
            (
                "merge",
                json!({"spec": {"replicas": "many"}}),
                422,
                "cannot unmarshal string into Go struct field",
            ),
            (
                "merge",
                json!({"metadata": {"name": "other"}}),
                400,
                "does not match the name on the URL",
            ),
            (
                "merge",
                json!({"metadata": {"resourceVersion": "1"}}),
                409,
                "the object has been modified",
            ),
            (
                "merge",
                json!({"kind": "Pod", "apiVersion": "v1"}),
                422,
                "converting (v1.Pod) to (apps.Deployment): unknown conversion",
            ),
            (
                "merge",
                json!({"kind": "Boat"}),
                422,
                "no kind \"Boat\" is registered for version \"apps/v1\"",
            ),
            (
                "strategic",
                json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}}),
                422,
                "spec.selector: Invalid value",
            ),
        ] {
            let answer = api.patch(&path, kind, &patch).await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert!(
                answer.code == code && answer.message().contains(message),
                "{kind} {patch}: {text}"
            );
        }
        api.patch(&format!("{DEPLOYMENTS}/none"), "merge", &json!({}))
            .await
            .refused(404, "not found");
    }
}

#[tokio::test]
async fn applied_fields_have_owners() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("a{index}");
        let path = format!("{MAPS}/{name}");
        let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}});
        api.patch(&path, "apply", &config("1"))
            .await
            .refused(422, "fieldManager: Required value: is required for apply patch");
        let answer = api
            .patch(&format!("{path}?fieldManager=one"), "apply", &config("1"))
            .await;
        assert_eq!(answer.code, 201);
        let made = answer.ok();
        assert_eq!(
            (
                &made["metadata"]["managedFields"][0]["manager"],
                &made["metadata"]["managedFields"][0]["operation"]
            ),
            (&json!("one"), &json!("Apply"))
        );
        let answer = api
            .patch(&format!("{path}?fieldManager=two"), "apply", &config("2"))
            .await;
        answer.refused(409, "conflict with \"one\"");
        let forced = api
            .patch(&format!("{path}?fieldManager=two&force=true"), "apply", &config("2"))
            .await
            .ok();
        assert_eq!(forced["data"]["k"], "2");
        // What its owner leaves out goes.
        let without = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let answer = api
            .patch(&format!("{path}?fieldManager=two"), "apply", &without)
            .await
            .ok();
        assert!(answer["data"]["k"].is_null(), "{answer}");
        let wrong = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        assert_eq!(
            api.patch(&format!("{path}?fieldManager=two"), "apply", &wrong)
                .await
                .code,
            400
        );
    }
}

#[tokio::test]
async fn owners_remember_the_version_they_wrote() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("h{index}");
        let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
        let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
        let config = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
            "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}});
        let apply = format!("{}/{name}?fieldManager=one", path("v1"));
        let made = api.patch(&apply, "apply", &config).await.ok();
        assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
        let patched = api
            .patch(
                &format!("{}/{name}?fieldManager=two", path("v2")),
                "merge",
                &json!({"spec": {"minReplicas": 2}}),
            )
            .await
            .ok();
        let owners: Vec<String> = patched["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                format!(
                    "{} {}",
                    entry["manager"].as_str().unwrap(),
                    entry["apiVersion"].as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(owners, ["one autoscaling/v1", "two autoscaling/v2"]);
        // The owner of v1 still owns the field that is a list of metrics in v2.
        let metrics = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
            "spec": {"maxReplicas": 9, "scaleTargetRef": target}});
        let answer = api
            .patch(&format!("{}/{name}?fieldManager=three", path("v2")), "apply", &metrics)
            .await;
        answer.refused(409, "conflict with \"one\": .spec.maxReplicas");
    }
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("d{index}");
        let path = format!("{DEPLOYMENTS}/{name}");
        let mut object = deployment(&name);
        object["status"] = json!({"replicas": 9});
        let made = api.post(DEPLOYMENTS, &object).await.ok();
        assert!(made["status"]["replicas"].is_null());
        let mut both = made.clone();
        both["status"]["replicas"] = 3.into();
        both["spec"]["replicas"] = 5.into();
        let updated = api.put(&format!("{path}/status"), &both).await.ok();
        assert_eq!(
            (&updated["status"]["replicas"], &updated["spec"]["replicas"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(updated["metadata"]["generation"], 1);
        let entries = updated["metadata"]["managedFields"].as_array().unwrap();
        assert!(
            entries.iter().any(|entry| entry["subresource"] == "status"),
            "{entries:?}"
        );
        let patched = api
            .patch(
                &format!("{path}/status"),
                "merge",
                &json!({"status": {"readyReplicas": 2}}),
            )
            .await
            .ok();
        assert_eq!(patched["status"]["readyReplicas"], 2);
        let updated = api
            .patch(
                &path,
                "merge",
                &json!({"status": {"replicas": 7}, "spec": {"replicas": 4}}),
            )
            .await
            .ok();
        assert_eq!(
            (&updated["status"]["replicas"], &updated["spec"]["replicas"]),
            (&json!(3), &json!(4))
        );
    }
}

#[tokio::test]
async fn scales_scale() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let path = format!("{DEPLOYMENTS}/d{index}");
        api.post(DEPLOYMENTS, &deployment(&format!("d{index}"))).await.ok();
        let mut scale = api.get(&format!("{path}/scale")).await.ok();
        assert_eq!(
            (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
            (&json!("Scale"), &json!(1), &json!("app=web"))
        );
        scale["spec"]["replicas"] = 6.into();
        assert_eq!(
            api.put(&format!("{path}/scale"), &scale).await.ok()["spec"]["replicas"],
            6
        );
        api.put(&format!("{path}/scale"), &scale)
            .await
            .refused(409, "the object has been modified");
        let patched = api
            .patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 0}}))
            .await
            .ok();
        assert_eq!(patched["spec"]["replicas"].as_i64().unwrap_or(0), 0);
        assert_eq!(api.get(&path).await.ok()["spec"]["replicas"], 0);
        let answer = api
            .patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": -1}}))
            .await;
        assert_eq!(answer.code, 422);
    }
}

#[tokio::test]
async fn deletions_respect_preconditions_and_finalizers() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let name = format!("a{index}");
        let path = format!("{MAPS}/{name}");
        let object = json!({"metadata": {"name": name, "finalizers": ["example.com/hold"]}});
        let made = api.post(MAPS, &object).await.ok();
        let json_type = [("content-type", "application/json")];
        let wrong = json!({"preconditions": {"uid": "x"}}).to_string();
        api.call(&format!("DELETE {path}"), &json_type, wrong)
            .await
            .refused(409, "the UID in the precondition (x) does not match");
        let dry = api.delete(&format!("{path}?dryRun=All")).await.ok();
        assert!(dry["metadata"]["deletionTimestamp"].is_string());
        let right =
            json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": made["metadata"]["uid"]}})
                .to_string();
        let marked = api.call(&format!("DELETE {path}"), &json_type, right).await.ok();
        assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
        api.post(MAPS, &object)
            .await
            .refused(409, "object is being deleted: configmaps");
        let gone = api
            .patch(&path, "merge", &json!({"metadata": {"finalizers": null}}))
            .await;
        assert_eq!(gone.code, 200);
        assert_eq!(api.get(&path).await.code, 404);
        let policy = "propagationPolicy=Foreground";
        api.post(MAPS, &json!({"metadata": {"name": name}})).await.ok();
        let marked = api.delete(&format!("{path}?{policy}")).await.ok();
        assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
        api.patch(
            &path,
            "json",
            &json!([{"op": "remove", "path": "/metadata/finalizers"}]),
        )
        .await
        .ok();
        assert_eq!(api.get(&path).await.code, 404);
        api.delete(&path).await.refused(404, "not found");
    }
}

#[tokio::test]
async fn pods_go_gracefully() {
    let world = World::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    for (index, api) in world.both().await.into_iter().enumerate() {
        let pod = |name: &str, node: Value| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        let (bound, free) = (format!("bound{index}"), format!("free{index}"));
        api.post(pods, &pod(&bound, json!("n"))).await.ok();
        api.post(pods, &pod(&free, Value::Null)).await.ok();
        api.delete(&format!("{pods}/{free}")).await.ok();
        assert_eq!(
            api.get(&format!("{pods}/{free}")).await.code,
            404,
            "a pod without a node goes at once"
        );
        let marked = api.delete(&format!("{pods}/{bound}")).await.ok();
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        let shorter = api.delete(&format!("{pods}/{bound}?gracePeriodSeconds=5")).await.ok();
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
        let longer = api.delete(&format!("{pods}/{bound}?gracePeriodSeconds=60")).await.ok();
        assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
        api.delete(&format!("{pods}/{bound}?gracePeriodSeconds=0")).await.ok();
        assert_eq!(api.get(&format!("{pods}/{bound}")).await.code, 404);
    }
}

#[tokio::test]
async fn namespaces_wait_until_they_are_empty() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let path = format!("/api/v1/namespaces/n{index}");
        let made = api
            .post(
                "/api/v1/namespaces",
                &json!({"metadata": {"name": format!("n{index}")}}),
            )
            .await
            .ok();
        assert_eq!(
            (&made["spec"]["finalizers"], &made["status"]["phase"]),
            (&json!(["kubernetes"]), &json!("Active"))
        );
        let marked = api.delete(&path).await.ok();
        assert_eq!(marked["status"]["phase"], "Terminating");
        api.delete(&path).await.ok();
        let mut empty = api.get(&path).await.ok();
        empty["spec"]["finalizers"] = json!([]);
        api.put(&format!("{path}/finalize"), &empty).await.ok();
        assert_eq!(api.get(&path).await.code, 404);
    }
}

#[tokio::test]
async fn a_put_creates_where_the_kind_says_so() {
    let world = World::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    for (index, api) in world.both().await.into_iter().enumerate() {
        let lease = json!({"metadata": {"name": format!("l{index}")}, "spec": {"holderIdentity": "me"}});
        let answer = api.put(&format!("{leases}/l{index}"), &lease).await;
        assert_eq!(answer.code, 201);
        assert_eq!(answer.ok()["metadata"]["managedFields"][0]["operation"], "Update");
        // A Lease is what elections are made of: whoever changes it has to have seen it.
        let answer = api.put(&format!("{leases}/l{index}"), &lease).await;
        answer.refused(
            422,
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
        );
    }
}

#[tokio::test]
async fn options_of_a_deletion_in_protobuf() {
    let world = World::start().await;
    let schema = api::schema::SchemaRef::builtin_type("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").unwrap();
    for (index, api) in world.both().await.into_iter().enumerate() {
        for (round, version) in ["v1", "meta.k8s.io/v1", "apps/v1"].into_iter().enumerate() {
            let name = format!("a{index}{round}");
            api.config_map(&name, json!({})).await;
            let options = json!({"kind": "DeleteOptions", "apiVersion": version, "preconditions": {"uid": "wrong"}});
            let bytes = api::codec::protobuf::encode(&options, &schema).unwrap();
            let media = [("content-type", "application/vnd.kubernetes.protobuf")];
            let answer = api.call(&format!("DELETE {MAPS}/{name}"), &media, bytes).await;
            answer.refused(409, "the UID in the precondition (wrong)");
        }
    }
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let world = World::start().await;
    for api in world.both().await {
        for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
            api.config_map(name, json!({"l": label})).await;
        }
        let list = api.delete(&format!("{MAPS}?labelSelector=l%3Dx&dryRun=All")).await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), 2);
        api.delete(&format!("{MAPS}?labelSelector=l%3Dx")).await.ok();
        let left = api.get(MAPS).await.ok();
        assert_eq!(left["items"].as_array().unwrap().len(), 1);
        api.delete(MAPS).await.ok();
        assert_eq!(api.get(MAPS).await.ok()["items"], json!([]));
    }
}

#[tokio::test]
async fn races_lose_no_update() {
    let world = World::start().await;
    for api in world.both().await {
        api.post(MAPS, &json!({"metadata": {"name": "race"}, "data": {}}))
            .await
            .ok();
        let writers = (0..20).map(|index| {
            let api = api.clone();
            async move {
                let patch = json!({"data": {format!("k{index}"): "v"}});
                api.patch(&format!("{MAPS}/race"), "merge", &patch).await.ok()
            }
        });
        futures::future::join_all(writers).await;
        let object = api.get(&format!("{MAPS}/race")).await.ok();
        assert_eq!(object["data"].as_object().unwrap().len(), 20);
        let creators = (0..10).map(|_| {
            let api = api.clone();
            async move { api.post(MAPS, &json!({"metadata": {"name": "once"}})).await.code }
        });
        let codes = futures::future::join_all(creators).await;
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| **code == 409).count(), 9, "{codes:?}");
        api.delete(MAPS).await.ok();
    }
}

/// A Scale is applied to the one field that it shows, which whoever set it before owns in the scaled object.
#[tokio::test]
async fn scales_are_applied_with_conflicts() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let path = "/apis/apps/v1/namespaces/default/deployments";
        let name = format!("scaled{index}");
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let deployment = json!({"metadata": {"name": name},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
        api.post(&format!("{path}?fieldManager=maker"), &deployment).await.ok();
        let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name}, "spec": {"replicas": replicas}});
        let at = format!("{path}/{name}/scale");
        let refused = api
            .patch(&format!("{at}?fieldManager=scaler"), "apply", &scale(5))
            .await;
        refused.refused(
            409,
            "Apply failed with 1 conflict: conflict with \"maker\" using apps/v1: .spec.replicas",
        );
        let applied = api
            .patch(&format!("{at}?fieldManager=scaler&force=true"), "apply", &scale(5))
            .await
            .ok();
        assert_eq!(
            (&applied["kind"], &applied["spec"]["replicas"]),
            (&json!("Scale"), &json!(5))
        );
        let seen = api.get(&format!("{path}/{name}")).await.ok();
        let owners: Vec<_> = seen["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["fieldsV1"]["f:spec"]["f:replicas"].is_object())
            .map(|entry| (&entry["manager"], &entry["operation"], &entry["subresource"]))
            .collect();
        assert_eq!(owners, [(&json!("scaler"), &json!("Apply"), &json!("scale"))]);
        // Whoever owns it may change it.
        api.patch(&format!("{at}?fieldManager=scaler"), "apply", &scale(6))
            .await
            .ok();
        let mut odd = scale(6);
        odd["spec"]["more"] = 1.into();
        let refused = api.patch(&format!("{at}?fieldManager=scaler"), "apply", &odd).await;
        refused.refused(500, ".spec.more: field not declared in schema");
        odd = scale(-1);
        let refused = api.patch(&format!("{at}?fieldManager=scaler"), "apply", &odd).await;
        refused.refused(
            422,
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        );
        let unknown = api
            .patch(
                &format!("{at}?fieldValidation=Strict"),
                "merge",
                &json!({"spec": {"more": 1}}),
            )
            .await;
        unknown.refused(422, "strict decoding error: unknown field \"spec.more\"");
    }
}
