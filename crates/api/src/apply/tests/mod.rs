//! Server-side apply as a whole: what stands in objects and in `managedFields` after sequences of writes.

mod errors;
mod lists;
mod ownership;
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
