//! What holds for any sequence of writes.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A pod or a part of one, as a configuration.
fn config() -> impl Strategy<Value = Value> {
    let text = || prop::sample::select(vec!["1", "2"]);
    let labels = prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), text(), 0..3);
    let port = (
        80..82u16,
        prop::option::of(prop::sample::select(vec!["TCP", "UDP"])),
        text(),
    );
    let ports = prop::collection::vec(port, 0..3);
    let container = (
        prop::sample::select(vec!["x", "y", "z"]),
        prop::option::of(text()),
        ports,
    );
    let containers = prop::collection::vec(container, 0..3);
    let finalizers = prop::collection::btree_set(prop::sample::select(vec!["f/a", "f/b", "f/c"]), 0..3);
    (labels, containers, finalizers, prop::option::of(text())).prop_map(|(labels, containers, finalizers, host)| {
        let mut seen = Vec::new();
        let containers: Vec<Value> = containers
            .into_iter()
            .filter(|(name, ..)| {
                !seen.contains(name) && {
                    seen.push(*name);
                    true
                }
            })
            .map(|(name, image, ports)| {
                let mut seen = Vec::new();
                let ports: Vec<Value> = ports
                    .into_iter()
                    .filter(|(port, protocol, _)| {
                        let key = (*port, protocol.unwrap_or("TCP"));
                        !seen.contains(&key) && {
                            seen.push(key);
                            true
                        }
                    })
                    .map(|(port, protocol, name)| match protocol {
                        Some(protocol) => json!({"containerPort": port, "protocol": protocol, "name": name}),
                        None => json!({"containerPort": port, "name": name}),
                    })
                    .collect();
                let mut container = json!({"name": name});
                if !ports.is_empty() {
                    container["ports"] = ports.into();
                }
                if let Some(image) = image {
                    container["image"] = image.into();
                }
                container
            })
            .collect();
        let mut spec = json!({"containers": containers});
        if let Some(host) = host {
            spec["hostname"] = host.into();
        }
        let mut config = json!({"spec": spec});
        // Empty maps can be owned and are left out of objects, which conflicts with itself (upstream too).
        if !labels.is_empty() {
            config["metadata"]["labels"] = json!(labels);
        }
        if !finalizers.is_empty() {
            config["metadata"]["finalizers"] = json!(finalizers);
        }
        config
    })
}

#[derive(Clone, Debug)]
enum Write {
    Apply(&'static str, Value, bool),
    Update(&'static str, Value),
}

fn write() -> impl Strategy<Value = Write> {
    let manager = || prop::sample::select(vec!["a", "b", "c"]);
    prop_oneof![
        3 => (manager(), config(), any::<bool>()).prop_map(|(m, c, f)| Write::Apply(m, c, f)),
        1 => (manager(), config()).prop_map(|(m, c)| Write::Update(m, c)),
    ]
}

fn pod() -> World {
    World::new("", "v1", "Pod")
}

/// Gives ports the protocol that defaulting would give them.
fn default_protocols(object: &mut Value) {
    let containers = object.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        let ports = container.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter(|port| port["protocol"].is_null()) {
            port["protocol"] = "TCP".into();
        }
    }
}

fn perform(world: &mut World, write: &Write) -> Result<(), ApplyError> {
    match write.clone() {
        Write::Apply(manager, config, force) => world.try_apply(manager, config, force)?,
        Write::Update(manager, new) => world.update(manager, new),
    }
    default_protocols(&mut world.object);
    Ok(())
}

fn fields_of(world: &World, object: &Value) -> FieldSet {
    field_set(object, Type::Node(world.schema.node()))
}

proptest! {
    #[test]
    fn writes_keep_their_promises(writes in prop::collection::vec(write(), 1..8)) {
        let mut world = pod();
        for write in &writes {
            let before = world.object.clone();
            if perform(&mut world, write).is_err() {
                prop_assert_eq!(&world.object, &before);
                continue;
            }
            // Whatever is owned is there.
            let managers = Managers::decode(&world.object["metadata"]["managedFields"]).expect("managers");
            let there = fields_of(&world, &world.object);
            let structure = crate::apply::merge::with_named_fields(&there, Some(Type::Node(world.schema.node())));
            for owned in managers.fields.values() {
                let missing = owned.set.difference(&structure).paths();
                // Maps and lists that became empty stay owned, and are left out of objects.
                let emptied = |path: &Vec<PathElement>| {
                    [".labels", ".finalizers", ".ports"].iter().any(|end| path_text(path).ends_with(end))
                };
                prop_assert!(missing.iter().all(emptied), "{:?} in {}", missing, world.object);
            }
            if let Write::Apply(manager, config, _) = write {
                // The configuration is in force: merging it once more changes nothing.
                let mut wanted = world.complete(config.clone());
                default_protocols(&mut wanted);
                let merged = crate::apply::merge::merge(&world.object, &wanted, Type::Node(world.schema.node()));
                let mut merged_object = merged;
                normalize(&mut merged_object, &world.schema, UnknownFields::Ignore).expect("a pod");
                prop_assert_eq!(&merged_object, &world.object);
                // And applying it again is no change, forced or not.
                let once = world.object.clone();
                world.apply(manager, config.clone());
                default_protocols(&mut world.object);
                prop_assert_eq!(&world.object, &once);
            }
        }
    }

    #[test]
    fn applying_nothing_takes_back_what_only_i_own(first in config(), second in config()) {
        let mut world = pod();
        world.apply("base", json!({}));
        perform(&mut world, &Write::Apply("a", first, false)).expect("nobody else");
        let before = world.object.clone();
        if perform(&mut world, &Write::Apply("b", second, false)).is_ok() {
            perform(&mut world, &Write::Apply("b", json!({}), false)).expect("own fields only");
            let strip = |object: &Value| {
                let mut object = object.clone();
                object["metadata"]["managedFields"] = Value::Null;
                normalize(&mut object, &world.schema, UnknownFields::Ignore).expect("a pod");
                object
            };
            let (now, then) = (strip(&world.object), strip(&before));
            // Defaults that came with b's ports stay nobody's; apart from order all else is as before.
            prop_assert_eq!(fields_of(&world, &now), fields_of(&world, &then));
        }
    }

    #[test]
    fn no_input_panics(
        live in config(),
        fields in prop::collection::vec("(f:spec|f:metadata|f:labels|f:containers|k:\\{\"name\":\"x\"\\}|v:1|i:0|\\.|bad)", 1..5),
        config in config(),
    ) {
        let mut world = pod();
        world.update("u", live);
        let nested = fields.iter().rev().fold(json!({}), |inner, field| json!({ field: inner }));
        world.object["metadata"]["managedFields"] = json!([
            {"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": nested}
        ]);
        let _ = world.try_apply("a", config.clone(), true);
        let _ = world.try_apply("a", json!({"spec": {"containers": config}}), true);
        world.update("u", config);
    }
}
