//! Keeps the objects of flow control as they should be: mandatory ones always, suggested ones until a person takes them over,
//! and in each FlowSchema's status whether its priority level is there.
//!
//! Sources: `pkg/registry/flowcontrol/ensurer` (when a spec is kept) and `presyncFlowSchemaStatus` of `apf_controller.go`.

use api::{Value, meta};
use base::{Clock, Shutdown};
use client::informer::{Delta, Informer, Selection, SharedInformers};
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, Error, Patch, Resource};
use serde_json::json;

use super::{AUTOUPDATE, GROUP, defaults};

/// FlowSchemas.
pub(crate) const SCHEMAS: Resource = Resource::new(GROUP, "v1", "flowschemas", "FlowSchema", false);
/// PriorityLevelConfigurations.
pub(crate) const LEVELS: Resource = Resource::new(
    GROUP,
    "v1",
    "prioritylevelconfigurations",
    "PriorityLevelConfiguration",
    false,
);
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Makes what is missing, once. A server that begins to serve has its own levels from its first request on.
///
/// # Errors
/// The first write that failed.
async fn ensure_one(client: &Client, resource: &Resource, live: Option<&Value>, name: &str) -> Result<(), Error> {
    let of = |list: Vec<Value>| {
        list.into_iter()
            .find(|object| object["kind"] == *resource.kind && meta::name(object) == name)
    };
    let (wanted, always) = match (of(defaults::mandatory()), of(defaults::suggested())) {
        (Some(wanted), _) => (wanted, true),
        (None, Some(wanted)) => (wanted, false),
        (None, None) => return Ok(()),
    };
    let outcome = match live {
        None => client.create_in(resource, "", &wanted).await.map(drop),
        Some(live) => match correction(live, &wanted, always) {
            None => return Ok(()),
            Some(update) => client.update(resource, "", name, None, &update).await.map(drop),
        },
    };
    match outcome {
        // Another server was faster; what it wrote is looked at too.
        Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => Ok(()),
        other => other,
    }
}

/// The object with the spec and the annotation that it should have; `None` when it has them.
fn correction(live: &Value, wanted: &Value, always: bool) -> Option<Value> {
    let annotation = meta::annotation(live, AUTOUPDATE);
    // Without a word about it: kept as long as nobody has changed it.
    let untouched = || live["metadata"]["generation"].as_i64() == Some(1);
    let keep = always
        || match annotation {
            Some(text) => text == "true",
            None => untouched(),
        };
    let mut update = live.clone();
    if keep && !covers(&live["spec"], &wanted["spec"]) {
        update["spec"] = wanted["spec"].clone();
    }
    if annotation.is_none() || always && annotation != Some("true") {
        let metadata = meta::metadata_mut(&mut update);
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        annotations[AUTOUPDATE] = keep.to_string().into();
    }
    (update != *live).then_some(update)
}

/// Whether the live spec is the wanted one: what it has besides are defaults.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|own| covers(own, value))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        _ => live == wanted,
    }
}

/// The condition that a FlowSchema should have, when it has another one.
fn dangling(schema: &Value, found: bool, now: &str) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"]
        .as_str()
        .unwrap_or("");
    let named = api::field::quote(level);
    let (status, reason, rest) = match found {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {named} {rest}");
    let conditions = schema["status"]["conditions"].as_array().into_iter().flatten();
    let mut old = conditions.filter(|condition| condition["type"] == "Dangling");
    let old = old.next().unwrap_or(&Value::Null);
    if old["status"] == status && old["reason"] == reason && old["message"] == message {
        return None;
    }
    let since = match old["status"] == status {
        true => old["lastTransitionTime"].clone(),
        false => now.into(),
    };
    Some(
        json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": since}),
    )
}

/// Starts to keep the objects. The client is the server itself.
pub fn maintain(client: &Client, clock: Clock, shutdown: &Shutdown) {
    let informers = SharedInformers::new(client.clone(), shutdown.clone());
    let schemas = informers.informer_of::<Value>(SCHEMAS, Selection::all());
    let levels = informers.informer_of::<Value>(LEVELS, Selection::all());
    let queue = WorkQueue::<(bool, String)>::new().named("priority_and_fairness_config_queue");
    for object in defaults::mandatory().iter().chain(&defaults::suggested()) {
        queue.add((object["kind"] == *LEVELS.kind, meta::name(object).to_owned()));
    }
    watch(&levels, shutdown, {
        let (queue, schemas) = (queue.clone(), schemas.clone());
        move |name| {
            queue.add((true, name));
            // Schemas that name it may be right or wrong now.
            for schema in schemas.list() {
                queue.add((false, meta::name(&schema).to_owned()));
            }
        }
    });
    watch(&schemas, shutdown, {
        let queue = queue.clone();
        move |name| queue.add((false, name))
    });
    let (client, stop) = (client.clone(), shutdown.clone());
    shutdown.spawn(async move {
        let synced = async { schemas.synced().await && levels.synced().await };
        if stop.until(synced).await != Some(true) {
            return;
        }
        let work = move |(is_level, name): (bool, String)| {
            let (client, clock) = (client.clone(), clock.clone());
            let (schemas, levels) = (schemas.clone(), levels.clone());
            async move {
                if is_level {
                    let live = levels.get("", &name);
                    ensure_one(&client, &LEVELS, live.as_deref(), &name).await?;
                    return Ok::<Next, Error>(Next::Wait);
                }
                let live = schemas.get("", &name);
                ensure_one(&client, &SCHEMAS, live.as_deref(), &name).await?;
                let Some(schema) = live else { return Ok(Next::Wait) };
                let level = schema["spec"]["priorityLevelConfiguration"]["name"]
                    .as_str()
                    .unwrap_or("");
                let now = crate::call::rfc3339(clock.now());
                if let Some(condition) = dangling(&schema, levels.get("", level).is_some(), &now) {
                    tell(&client, &name, condition).await?;
                }
                Ok(Next::Wait)
            }
        };
        run(queue, 1, stop, work).await;
    });
}

fn watch(informer: &Informer<Value>, shutdown: &Shutdown, heard: impl Fn(String) + Send + 'static) {
    let mut events = informer.subscribe();
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        while let Some(Some(delta)) = stop.until(events.next()).await {
            if let Delta::Added(object) | Delta::Deleted(object) | Delta::Updated { new: object, .. } = delta {
                heard(meta::name(&object).to_owned());
            }
        }
    });
}

async fn tell(client: &Client, name: &str, condition: Value) -> Result<(), Error> {
    let body = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": name},
        "status": {"conditions": [condition]},
    });
    let apply = Patch::Apply {
        manager: MANAGER.into(),
        force: true,
    };
    match client.patch(&SCHEMAS, "", name, Some("status"), &apply, &body).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_kept_until_a_person_takes_it_over() {
        let wanted =
            json!({"metadata": {"name": "a", "annotations": {AUTOUPDATE: "true"}}, "spec": {"a": 1, "l": [{"b": 1}]}});
        let live = |generation: i64, annotation: Option<&str>, a: i64| {
            let mut live = json!({"metadata": {"name": "a", "generation": generation, "uid": "u"},
                "spec": {"a": a, "l": [{"b": 1, "default": 2}], "more": 3}});
            if let Some(text) = annotation {
                live["metadata"]["annotations"] = json!({AUTOUPDATE: text});
            }
            live
        };
        for (live, always, spec, annotation) in [
            (live(1, Some("true"), 1), false, None, None),
            (live(5, Some("true"), 2), false, Some(1), Some("true")),
            (live(5, Some("false"), 2), false, None, None),
            (live(5, Some("false"), 2), true, Some(1), Some("true")),
            (live(1, None, 2), false, Some(1), Some("true")),
            (live(2, None, 2), false, Some(2), Some("false")),
        ] {
            let update = correction(&live, &wanted, always);
            let got = update.as_ref().map(|update| update["spec"]["a"].as_i64().unwrap());
            assert_eq!(got, spec, "{live}");
            assert_eq!(
                update.as_ref().and_then(|update| meta::annotation(update, AUTOUPDATE)),
                annotation,
                "{live}"
            );
        }
    }

    #[test]
    fn a_schema_tells_whether_its_level_is_there() {
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "x"}}});
        let first = dangling(&schema, false, "t1").unwrap();
        assert_eq!(
            (&first["status"], &first["lastTransitionTime"]),
            (&json!("True"), &json!("t1"))
        );
        let mut told = schema.clone();
        told["status"] = json!({"conditions": [first]});
        assert_eq!(dangling(&told, false, "t2"), None);
        let found = dangling(&told, true, "t2").unwrap();
        let message = "This FlowSchema references the PriorityLevelConfiguration object named \"x\" and it exists";
        assert_eq!(
            (&found["message"], &found["lastTransitionTime"]),
            (&json!(message), &json!("t2"))
        );
    }
}
