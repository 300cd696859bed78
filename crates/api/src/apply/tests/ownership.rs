//! Who owns what after a sequence of writes.

use serde_json::json;

use super::*;

#[test]
fn a_created_object_is_owned_as_upstream_owns_it() {
    let mut world = World::new("apps", "v1", "Deployment");
    let mut object = deployment(3, "web:1");
    object["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}});
    object["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1"}});
    object["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP".into();
    object["metadata"]["finalizers"] = json!(["a/b"]);
    world.update("kubectl-create", object);
    assert_eq!(
        *world.managed("kubectl-create"),
        json!({
            "f:metadata": {
                "f:finalizers": {".": {}, "v:\"a/b\"": {}},
                "f:labels": {".": {}, "f:app": {}}
            },
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {},
                        "f:image": {},
                        "f:name": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                        "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}}
                    }}}
                }
            }
        })
    );
    let entry = &world.object["metadata"]["managedFields"][0];
    assert_eq!(
        (
            &entry["apiVersion"],
            &entry["operation"],
            &entry["time"],
            &entry["fieldsType"]
        ),
        (
            &json!("apps/v1"),
            &json!("Update"),
            &json!("2020-01-01T00:00:01Z"),
            &json!("FieldsV1")
        )
    );
}

#[test]
fn an_applied_configuration_owns_what_it_names() {
    let mut world = World::new("apps", "v1", "Deployment");
    world.apply("alice", deployment(3, "web:1"));
    assert_eq!(
        *world.managed("alice"),
        json!({
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                        ".": {},
                        "f:image": {},
                        "f:name": {},
                        // The key that was not given is its default, and not owned.
                        "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}
                    }}}
                }
            }
        })
    );
}

#[test]
fn force_takes_fields_and_equal_values_are_shared() {
    let mut world = config_map();
    world.apply("a", json!({"data": {"x": "1", "y": "1"}}));
    world.apply("b", json!({"data": {"y": "1"}}));
    // The second apply changed nothing, so it has no time.
    assert_eq!(world.owners(), ["b Apply -: .data.y", "a Apply 1: .data.x .data.y"]);
    let error = world.try_apply("b", json!({"data": {"y": "2"}}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\": .data.y"
    );
    world.try_apply("b", json!({"data": {"y": "2"}}), true).expect("forced");
    assert_eq!(world.owners(), ["a Apply 1: .data.x", "b Apply 4: .data.y"]);
    assert_eq!(world.object["data"], json!({"x": "1", "y": "2"}));
}

#[test]
fn fields_that_are_no_longer_applied_go_unless_others_own_them() {
    let mut world = config_map();
    world.apply("a", json!({"data": {"mine": "1", "shared": "1", "updated": "1"}}));
    world.apply("b", json!({"data": {"shared": "1"}}));
    let mut data = world.object["data"].clone();
    data["updated"] = "2".into();
    data["theirs"] = "1".into();
    let mut new = world.object.clone();
    new["data"] = data;
    world.update("u", new);
    world.apply("a", json!({"data": {}}));
    assert_eq!(
        world.object["data"],
        json!({"shared": "1", "theirs": "1", "updated": "2"})
    );
    assert_eq!(
        world.owners(),
        [
            "b Apply -: .data.shared",
            "a Apply 4: .data",
            "u Update 3: .data.theirs .data.updated"
        ]
    );
    world.apply("b", json!({}));
    assert_eq!(world.object["data"], json!({"theirs": "1", "updated": "2"}));
}

#[test]
fn items_of_lists_go_with_their_owner() {
    let mut world = World::new("", "v1", "Pod");
    let containers = |items: Value| json!({"spec": {"containers": items}});
    world.apply(
        "a",
        containers(json!([{"name": "x", "image": "i"}, {"name": "y", "image": "i"}])),
    );
    world.apply("b", containers(json!([{"name": "z", "image": "i"}])));
    world.apply("a", containers(json!([{"name": "x", "image": "j"}])));
    let names: Vec<_> = world.object["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| &c["name"])
        .collect();
    assert_eq!(names, ["x", "z"]);
    // A field inside an item is removed without the item.
    world.apply("a", containers(json!([{"name": "x"}])));
    assert_eq!(world.object["spec"]["containers"][0].get("image"), None);
}

#[test]
fn default_keys_tell_ports_apart() {
    let mut world = World::new("", "v1", "Service");
    let ports = |items: Value| json!({"spec": {"ports": items}});
    world.apply(
        "a",
        ports(json!([{"port": 53, "name": "tcp"}, {"port": 53, "protocol": "UDP", "name": "udp"}])),
    );
    world.object["spec"]["ports"][0]["protocol"] = "TCP".into();
    world.apply(
        "a",
        ports(json!([{"port": 53, "protocol": "UDP", "name": "udp2"}, {"port": 53, "name": "tcp2"}])),
    );
    assert_eq!(
        world.object["spec"]["ports"],
        json!([
            {"name": "udp2", "port": 53, "protocol": "UDP", "targetPort": 0},
            {"name": "tcp2", "port": 53, "protocol": "TCP", "targetPort": 0}
        ])
    );
    let error = world
        .try_apply(
            "a",
            ports(json!([{"port": 53}, {"port": 53, "protocol": "TCP"}])),
            false,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/x; /v1, Kind=Service): .spec.ports: duplicate entries for key [port=53,protocol=\"TCP\"]"
    );
}

#[test]
fn objects_without_managers_start_with_before_first_apply() {
    let mut world = config_map();
    world.object = world.complete(json!({"metadata": {"uid": "u"}, "data": {"old": "1"}}));
    let mut new = world.object.clone();
    new["data"]["newer"] = "1".into();
    world.update("u", new);
    assert_eq!(world.owners(), Vec::<String>::new());
    world.apply("a", json!({"data": {"mine": "1"}}));
    assert_eq!(
        world.owners(),
        [
            "a Apply 2: .data.mine",
            "before-first-apply Update 2: .data .data.newer .data.old"
        ]
    );
}

#[test]
fn times_change_only_with_the_fields() {
    let mut world = config_map();
    world.apply("a", json!({"data": {"x": "1"}}));
    let before = world.object.clone();
    world.apply("a", json!({"data": {"x": "1"}}));
    assert_eq!(world.object, before);
    let same = world.object.clone();
    world.update("u", same);
    assert_eq!(world.object, before);
    let mut new = world.object.clone();
    new["data"]["y"] = "1".into();
    world.update("u", new);
    let mut new = world.object.clone();
    new["data"]["z"] = "1".into();
    world.update("u", new);
    assert_eq!(world.owners(), ["a Apply 1: .data.x", "u Update 5: .data.y .data.z"]);
}

#[test]
fn updates_take_fields_and_removals_are_forgotten() {
    let mut world = config_map();
    world.apply("a", json!({"data": {"x": "1", "y": "1"}}));
    let object = world.object.clone();
    let mut new = object.clone();
    new["data"] = json!({"x": "2"});
    world.update("u", new);
    assert_eq!(world.owners(), ["u Update 2: .data.x"]);
    // Clients that drop managedFields do no harm.
    let mut new = world.object.clone();
    new["metadata"]["managedFields"] = Value::Null;
    new["data"]["z"] = "1".into();
    world.update("u", new);
    assert_eq!(world.owners(), ["u Update 3: .data.x .data.z"]);
    // One empty entry forgets everything.
    let mut new = world.object.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    world.update("u", new);
    assert_eq!(world.owners(), Vec::<String>::new());
}

#[test]
fn subresources_and_reset_fields_have_their_own_rules() {
    let mut world = World::new("apps", "v1", "Deployment");
    world.apply("a", deployment(1, "web:1"));
    let mut new = world.object.clone();
    new["status"] = json!({"replicas": 1});
    // What a client says about managers does not count here.
    new["metadata"]["managedFields"] = json!([{}]);
    world.update_through("controller", "status", new);
    assert_eq!(world.owners()[1], "controller/status Update 2: .status.replicas");

    let config = world.complete(json!({"status": {"replicas": 7}, "spec": {"replicas": 1}}));
    let reset = FieldSet::of_fields(&["status"]);
    let new = world.with("b", "", |live, request| {
        let request = Request {
            reset: Some(&reset),
            ..*request
        };
        apply(live, &config, &request, false)
    });
    // The caller puts the old status back; nobody was robbed of it and nobody owns it.
    let entries = new.expect("no conflict")["metadata"]["managedFields"].clone();
    let owners = Managers::decode(&entries).expect("managers");
    let b = &owners.fields[&ManagerId::new("b", Operation::Apply, "", "")];
    assert_eq!(b.set, FieldSet::of_fields(&["spec.replicas"]));
    let controller = &owners.fields[&ManagerId::new("controller", Operation::Update, "apps/v1", "status")];
    assert_eq!(controller.set, FieldSet::of_fields(&["status.replicas"]));
}

#[test]
fn kubectl_takes_over_from_its_client_side_apply() {
    let last =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"x": "1", "y": "1"}});
    let mut world = config_map();
    let object = json!({"metadata": {"annotations": {LAST_APPLIED: last.to_string()}}, "data": {"x": "1", "y": "1"}});
    world.update("kubectl-client-side-apply", object.clone());
    // Another manager's change since then is a conflict all the same.
    let mut new = world.object.clone();
    new["data"]["y"] = "other".into();
    world.update("other", new);
    let error = world
        .try_apply("kubectl", json!({"data": {"x": "2", "y": "2"}}), false)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.y"
    );
    world.apply("kubectl", json!({"data": {"x": "2<"}}));
    assert_eq!(world.object["data"], json!({"x": "2<", "y": "other"}));
    let annotation = meta::annotation(&world.object, LAST_APPLIED);
    let expect =
        "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"2\\u003c\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"}}\n";
    assert_eq!(annotation, Some(expect));
    // Nobody but kubectl may.
    let error = world.try_apply("me", json!({"data": {"y": "2"}}), false);
    assert!(matches!(error, Err(ApplyError::Conflicts(_))));
}

/// Version `v2` of a kind that has `data.count` where `v1` has `data.size`.
struct Renamed;

impl Versions for Renamed {
    fn convert(&self, object: &Value, api_version: &str) -> Option<(Value, SchemaRef)> {
        let (from, to) = match api_version {
            "v2" => ("size", "count"),
            "v1" => ("count", "size"),
            _ => return None,
        };
        let mut object = object.clone();
        object["apiVersion"] = api_version.into();
        if let Some(data) = object["data"].as_object_mut()
            && let Some(value) = data.remove(from)
        {
            data.insert(to.into(), value);
        }
        Some((
            object,
            SchemaRef::builtin(&GroupVersionKind::new("", "v1", "ConfigMap"))?,
        ))
    }
}

#[test]
fn managers_own_fields_in_the_version_they_wrote() {
    let mut world = config_map();
    let entry = |manager: &str, version: &str, field: &str| {
        json!({"manager": manager, "operation": "Apply", "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {field: {}}}})
    };
    let live = world.complete(json!({
        "metadata": {"uid": "u", "managedFields": [entry("old", "v0", "f:size"), entry("new", "v2", "f:count")]},
        "data": {"size": "1"}
    }));
    let attempt = |world: &mut World, manager: &str, data: Value, force: bool| {
        let config = world.complete(json!({"data": data}));
        world.object = live.clone();
        world.with(manager, "", |live, request| {
            apply(
                live,
                &config,
                &Request {
                    versions: Some(&Renamed),
                    ..*request
                },
                force,
            )
        })
    };
    let error = attempt(&mut world, "me", json!({"size": "2"}), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"new\": .data.count"
    );
    let forced = attempt(&mut world, "me", json!({"size": "2"}), true).expect("forced");
    let owners = Managers::decode(&forced["metadata"]["managedFields"]).expect("managers");
    let names: Vec<&str> = owners.fields.keys().map(|id| &*id.manager).collect();
    assert_eq!(names, ["me"]);
    // The same manager applies in another version now, without what it had: the field goes.
    let pruned = attempt(&mut world, "new", json!({"other": "1"}), false).expect("its own");
    assert_eq!(pruned["data"], json!({"other": "1"}));
}

#[test]
fn ownership_follows_fields_that_became_atomic() {
    let mut world = World::new("apps", "v1", "Deployment");
    world.apply("a", deployment(1, "web:1"));
    let fields = &mut world.object["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    fields["f:selector"] = json!({"f:matchLabels": {"f:app": {}}});
    world.apply("b", json!({"spec": {"replicas": 1}}));
    assert_eq!(world.managed("a")["f:spec"]["f:selector"], json!({}));
}

#[test]
fn elements_that_are_there_twice_are_owned_as_one() {
    let mut world = World::new("", "v1", "Pod");
    let env = |items: &[(&str, &str)]| {
        let items: Vec<Value> = items
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        json!({"spec": {"containers": [{"name": "x", "image": "i", "env": items}]}})
    };
    let in_object = |world: &World| world.object["spec"]["containers"][0]["env"].clone();
    world.update("u", env(&[("A", "1"), ("A", "2"), ("B", "1")]));
    let owned = &world.managed("u")["f:spec"]["f:containers"]["k:{\"name\":\"x\"}"]["f:env"];
    assert_eq!(
        *owned,
        json!({".": {}, "k:{\"name\":\"A\"}": {}, "k:{\"name\":\"B\"}": {".": {}, "f:name": {}, "f:value": {}}})
    );
    // Who applies something else keeps both, who applies that name makes it one.
    world.apply("a", env(&[("C", "1")]));
    assert_eq!(
        in_object(&world),
        env(&[("A", "1"), ("A", "2"), ("B", "1"), ("C", "1")])["spec"]["containers"][0]["env"]
    );
    let error = world.try_apply("a", env(&[("A", "3")]), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"u\" using v1: .spec.containers[name=\"x\"].env[name=\"A\"]"
    );
    world.try_apply("a", env(&[("A", "3")]), true).expect("forced");
    assert_eq!(
        in_object(&world),
        env(&[("A", "3"), ("B", "1")])["spec"]["containers"][0]["env"]
    );
    let twice = world.try_apply("a", env(&[("D", "1"), ("D", "2")]), true).unwrap_err();
    assert!(
        twice
            .to_string()
            .ends_with("env: duplicate entries for key [name=\"D\"]"),
        "{twice}"
    );
}

#[test]
fn versions_and_owners_meet_in_a_long_history() {
    let mut world = config_map();
    world.apply("one", json!({"data": {"a": "1", "b": "1"}}));
    world.apply("two", json!({"data": {"b": "1", "c": "1"}}));
    world.apply("three", json!({"data": {"c": "1"}}));
    // Each one lets go of what it does not name any more; the last owner takes the field along.
    world.apply("one", json!({"data": {"a": "1"}}));
    assert_eq!(world.object["data"], json!({"a": "1", "b": "1", "c": "1"}));
    world.apply("two", json!({"data": {"c": "1"}}));
    assert_eq!(world.object["data"], json!({"a": "1", "c": "1"}));
    world.apply("two", json!({}));
    world.apply("three", json!({}));
    assert_eq!(world.object["data"], json!({"a": "1"}));
    let names: Vec<String> = world.owners().iter().map(|line| line[..3].to_string()).collect();
    assert_eq!(names, ["one"]);
}

#[test]
fn entries_stay_as_they_are_when_nothing_changes() {
    let mut world = config_map();
    world.update("u", json!({"data": {"x": "1"}}));
    // Not as this server would write it, and not readable either.
    world.object["metadata"]["managedFields"] = json!([{"operation": "Update", "fieldsV1": {"f:data": {}}}, {"x": 1}]);
    let entries = world.object["metadata"]["managedFields"].clone();
    let update_with = |world: &mut World, given: Value, value: &str| {
        let mut new = world.object.clone();
        new["metadata"]["managedFields"] = given;
        new["data"]["x"] = value.into();
        world.with("u", "", |live, request| update(live, &mut new, request));
        new["metadata"]["managedFields"].clone()
    };
    assert_eq!(update_with(&mut world, Value::Null, "1"), entries);
    assert_eq!(update_with(&mut world, entries.clone(), "1"), entries);
    assert_eq!(update_with(&mut world, Value::Null, "2"), Value::Null);
    assert_eq!(update_with(&mut world, json!([{}]), "1"), Value::Null);
}
