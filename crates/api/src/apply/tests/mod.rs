//! Server-side apply as a whole: what stands in objects and in `managedFields` after sequences of writes.

mod lists;
mod properties;

use serde_json::json;

use super::*;
use crate::normalize::{UnknownFields, normalize};

/// One object and those who write it.
struct World {
    kind: GroupVersionKind,
    schema: SchemaRef,
    object: Value,
    seconds: u32,
}

impl World {
    fn new(group: &str, version: &str, kind: &str) -> World {
        let kind = GroupVersionKind::new(group, version, kind);
        let schema = SchemaRef::builtin(&kind).expect("a built-in kind");
        World {
            kind,
            schema,
            object: Value::Null,
            seconds: 0,
        }
    }

    fn complete(&self, mut object: Value) -> Value {
        object["apiVersion"] = self.kind.api_version().into();
        object["kind"] = self.kind.kind.clone().into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = "x".into();
        }
        object
    }

    fn with<T>(&mut self, manager: &str, subresource: &str, run: impl FnOnce(&Value, &Request<'_>) -> T) -> T {
        self.seconds += 1;
        let now = format!("2020-01-01T00:00:{:02}Z", self.seconds);
        let request = Request {
            kind: &self.kind,
            schema: &self.schema,
            manager,
            subresource,
            now: &now,
            reset: None,
            versions: None,
        };
        run(&self.object, &request)
    }

    fn store(&mut self, mut new: Value) {
        normalize(&mut new, &self.schema, UnknownFields::Ignore).expect("an object of the kind");
        new["metadata"]["uid"] = "u".into();
        ignore_time_changes(&mut new, &self.object);
        self.object = new;
    }

    fn update_through(&mut self, manager: &str, subresource: &str, new: Value) {
        let mut new = self.complete(new);
        new["metadata"]["uid"] = self.object["metadata"]["uid"].clone();
        normalize(&mut new, &self.schema, UnknownFields::Ignore).expect("an object of the kind");
        self.with(manager, subresource, |live, request| update(live, &mut new, request));
        self.store(new);
    }

    fn update(&mut self, manager: &str, new: Value) {
        self.update_through(manager, "", new);
    }

    fn try_apply(&mut self, manager: &str, config: Value, force: bool) -> Result<(), ApplyError> {
        let config = self.complete(config);
        let new = self.with(manager, "", |live, request| apply(live, &config, request, force))?;
        self.store(new);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: Value) {
        self.try_apply(manager, config, false)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// `manager operation [subresource] second: fields`, one for each entry.
    fn owners(&self) -> Vec<String> {
        let entries = self.object["metadata"]["managedFields"].as_array();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_string();
        let entries = entries.into_iter().flatten().map(|entry| {
            let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).expect("a set");
            let paths: Vec<String> = set.paths().iter().map(|path| path_text(path)).collect();
            let subresource = entry["subresource"]
                .as_str()
                .map(|s| format!("/{s}"))
                .unwrap_or_default();
            let time = text(&entry["time"]);
            let second = time.get(17..19).unwrap_or("-").trim_start_matches('0');
            let (manager, operation) = (text(&entry["manager"]), text(&entry["operation"]));
            format!("{manager}{subresource} {operation} {second}: {}", paths.join(" "))
        });
        entries.collect()
    }

    fn managed(&self, manager: &str) -> &Value {
        let mut entries = self.object["metadata"]["managedFields"]
            .as_array()
            .into_iter()
            .flatten();
        let entry = entries
            .find(|entry| entry["manager"] == manager)
            .expect("an entry of the manager");
        &entry["fieldsV1"]
    }
}

fn config_map() -> World {
    World::new("", "v1", "ConfigMap")
}

fn deployment(replicas: u32, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image, "ports": [{"containerPort": 80}]}]}
            }
        }
    })
}

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
fn conflicts_are_worded_as_upstream_words_them() {
    let mut world = World::new("apps", "v1", "Deployment");
    world.update("kubectl-create", deployment(3, "web:1"));
    let error = world
        .try_apply("bob", json!({"spec": {"replicas": 5}}), false)
        .unwrap_err();
    let status = error.to_status();
    assert_eq!(
        (status.code, &*status.reason, &*status.message),
        (
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
        )
    );
    let causes = status.details.expect("details").causes;
    assert_eq!(
        causes,
        [crate::StatusCause {
            reason: "FieldManagerConflict".into(),
            message: "conflict with \"kubectl-create\" using apps/v1".into(),
            field: ".spec.replicas".into(),
        }]
    );

    world.update_through("scaler", "scale", deployment(4, "web:1"));
    world.try_apply("carol", deployment(4, "web:2"), true).expect("forced");
    let error = world.try_apply("bob", deployment(5, "web:3"), false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 3 conflicts: conflicts with \"carol\":\n- .spec.replicas\n- .spec.template.spec.containers[name=\"web\"].image\nconflicts with \"scaler\" with subresource \"scale\" using apps/v1:\n- .spec.replicas"
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
fn what_does_not_fit_the_schema_is_refused_in_upstreams_words() {
    let mut world = World::new("apps", "v1", "Deployment");
    let container = |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
    for (config, expect) in [
        (
            json!({"spec": {"replicas": "3"}}),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"spec": {"bogus": 1}}),
            ".spec.bogus: field not declared in schema",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            json!({"spec": {"paused": "x"}}),
            ".spec.paused: expected boolean, got &{x}",
        ),
        (json!({"spec": []}), ".spec: expected map, got &{[]}"),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            ".spec.template.spec.containers: expected list, got &{map[]}",
        ),
        (
            container(json!({"name": "a", "env": [{"name": "K", "value": 8080}]})),
            ".spec.template.spec.containers[name=\"a\"].env[name=\"K\"].value: expected string, got &value.valueUnstructured{Value:8080}",
        ),
        (
            container(json!("x")),
            ".spec.template.spec.containers: element 0: associative list with keys may not have non-map elements",
        ),
        (
            json!({"spec": {"replicas": "x", "paused": 1}}),
            "errors:\n  .spec.paused: expected boolean, got &{1}\n  .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            json!({"metadata": {"finalizers": ["a", null]}}),
            ".metadata.finalizers: element 1: associative list without keys has an element that's an explicit null",
        ),
    ] {
        let error = world.try_apply("a", config, false).unwrap_err();
        let start = "failed to create typed patch object (/x; apps/v1, Kind=Deployment): ";
        assert_eq!(error, ApplyError::Internal(format!("{start}{expect}")));
        assert_eq!(error.to_status().code, 500);
    }
    assert_eq!(world.object, Value::Null);
}

#[test]
fn configurations_of_other_kinds_are_refused() {
    let mut world = config_map();
    for (config, expect) in [
        (
            json!({"apiVersion": "v1", "kind": "Secret"}),
            "invalid object type: /v1, Kind=Secret",
        ),
        (json!({}), "invalid object type: /, Kind="),
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
    ] {
        let error = world
            .with("a", "", |live, request| apply(live, &config, request, false))
            .unwrap_err();
        assert_eq!(error, ApplyError::BadRequest(expect.into()));
    }
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
fn the_deepest_tree_fits_a_tasks_stack() {
    // A custom resource definition's schema nests as deep as a decoder reads; tokio's stacks have 2 MiB.
    let work = || {
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let mut world = World::new(&kind.group, &kind.version, &kind.kind);
        let levels = TRACKED_DEPTH_MAX / 2 - 5;
        let schema = |leaf: &str, levels: usize| {
            (0..levels).fold(json!({"type": leaf}), |inner, _| json!({"properties": {"p": inner}}))
        };
        let nested = |leaf: &str, levels: usize| json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema(leaf, levels)}}]}});
        let definition = |leaf: &str| nested(leaf, levels);
        world.update("u", definition("string"));
        assert_eq!(world.owners().len(), 1);
        world.try_apply("a", definition("integer"), true).expect("forced");
        // What is stored can be read again.
        let text = world.object.to_string();
        crate::codec::json::decode(text.as_bytes(), &Default::default()).expect("within the decoder's depth");
        world.apply("a", json!({}));
        let patch = definition("boolean");
        let schema = world.schema.clone();
        crate::patch::strategic_merge_patch(&world.object, &patch, &schema).expect("a patch");
        crate::patch::merge_patch(&world.object, &patch).expect("a patch");
        // Deeper objects have no managers, and deeper configurations are refused.
        let error = world.try_apply("a", nested("string", levels + 4), false).unwrap_err();
        assert!(error.to_string().ends_with(": exceeded max depth"), "{error}");
        world.update("u", nested("string", levels + 4));
        assert_eq!(world.owners(), Vec::<String>::new());
    };
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work);
    thread.expect("a thread").join().expect("no overflow");
}
