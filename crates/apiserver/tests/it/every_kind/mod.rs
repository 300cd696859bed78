//! Everything that discovery lists, through every verb, in JSON and in protobuf: one small object of each kind
//! (`objects.yaml`) lives its life twice, once with the bodies and answers of either encoding, and both lives have to be the same.
//!
//! Nothing here knows a particular kind, but for namespaces, whose deletion has two steps.

mod encoding;
mod life;

use std::collections::{BTreeMap, BTreeSet};

use std::panic::AssertUnwindSafe;

use api::codec::{Limits, yaml};
use api::{GroupVersionKind, Value, meta};
use futures::FutureExt;
use serde_json::json;

use crate::world::{Api, World};
use encoding::{BOTH, Encoding};
use life::Life;

/// The namespace of all objects that have one.
const NAMESPACE: &str = "here";

/// The verbs of what is stored.
const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A resource as discovery tells of it.
struct Resource {
    gvk: GroupVersionKind,
    plural: String,
    namespaced: bool,
    verbs: BTreeSet<String>,
    /// The subresources' names with their verbs.
    subresources: BTreeMap<String, BTreeSet<String>>,
}

impl Resource {
    /// The path of its objects in the test's namespace.
    fn collection(&self) -> String {
        let root = match &*self.gvk.group {
            "" => format!("/api/{}", self.gvk.version),
            group => format!("/apis/{group}/{}", self.gvk.version),
        };
        match self.namespaced {
            true => format!("{root}/namespaces/{NAMESPACE}/{}", self.plural),
            false => format!("{root}/{}", self.plural),
        }
    }

    fn is_stored(&self) -> bool {
        self.verbs.contains("watch")
    }
}

/// Everything that the server says it serves.
async fn discover(api: &Api) -> Vec<Resource> {
    let mut found = Vec::new();
    let groups = api.get("/apis").await.ok();
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| {
        let versions = group["versions"].as_array().unwrap().iter();
        versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap()))
    });
    for path in std::iter::once("/api/v1".to_owned()).chain(versions) {
        let list = api.get(&path).await.ok();
        let (group, version) = path.rsplit_once('/').unwrap();
        let group = group.strip_prefix("/apis/").unwrap_or("");
        let first = found.len();
        for entry in list["resources"].as_array().unwrap() {
            let name = entry["name"].as_str().unwrap();
            let verbs = entry["verbs"].as_array().unwrap().iter();
            let verbs = verbs.map(|verb| verb.as_str().unwrap().to_owned()).collect();
            match name.split_once('/') {
                None => found.push(Resource {
                    gvk: GroupVersionKind::new(group, version, entry["kind"].as_str().unwrap()),
                    plural: name.to_owned(),
                    namespaced: entry["namespaced"] == true,
                    verbs,
                    subresources: BTreeMap::new(),
                }),
                Some((parent, name)) => {
                    let parent = found[first..].iter_mut().find(|resource| resource.plural == parent);
                    // A handler below something that is nothing of its own does not exist.
                    parent.unwrap().subresources.insert(name.to_owned(), verbs);
                }
            }
        }
    }
    found
}

/// The table, by kind.
fn objects() -> BTreeMap<String, Value> {
    let documents = include_str!("objects.yaml").split("\n---\n");
    let of = |text: &str| {
        let object = yaml::decode(text.as_bytes(), &Limits::default()).unwrap().value;
        (meta::gvk(&object).to_string(), object)
    };
    documents.map(of).collect()
}

async fn world() -> (World, Api) {
    let world = World::start().await;
    let api = world.api();
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    api.post("/api/v1/namespaces", &namespace).await.ok();
    (world, api)
}

#[tokio::test]
async fn every_kind_lives_the_same_life_in_json_and_protobuf() {
    let (_world, api) = world().await;
    let objects = objects();
    let (mut lived, mut failed) = (0, Vec::new());
    // What custom resources are made of is written to by the server itself; `custom` has its tests.
    let lives = |resource: &&Resource| resource.is_stored() && resource.gvk.kind != "CustomResourceDefinition";
    for resource in discover(&api).await.iter().filter(lives) {
        let missing: Vec<_> = VERBS.iter().filter(|verb| !resource.verbs.contains(**verb)).collect();
        // Source: upstream's storage of namespaces has no `DeleteCollection`.
        let expect: &[&&str] = if resource.gvk.kind == "Namespace" {
            &[&"deletecollection"]
        } else {
            &[]
        };
        assert_eq!(missing, expect, "{}", resource.gvk);
        let object = objects.get(&resource.gvk.to_string());
        let object = object.unwrap_or_else(|| panic!("objects.yaml has no {}", resource.gvk));
        // All that fail are to be seen at once.
        let both = AssertUnwindSafe(live_twice(&api, resource, object)).catch_unwind();
        if both.await.is_err() {
            failed.push(resource.gvk.to_string());
        }
        lived += 1;
    }
    assert!(failed.is_empty(), "of {lived} kinds: {failed:#?}");
    assert!(lived > 55, "{lived}");
}

async fn live_twice(api: &Api, resource: &Resource, object: &Value) {
    let json = Life::new(api, resource, object, Encoding::Json).live().await;
    let protobuf = Life::new(api, resource, object, Encoding::Protobuf).live().await;
    assert_eq!(json.len(), protobuf.len());
    for (json, protobuf) in json.iter().zip(&protobuf) {
        assert_eq!(json, protobuf, "{}", resource.gvk);
    }
}

#[tokio::test]
async fn what_is_only_asked_is_answered_in_json_and_protobuf() {
    let (_world, api) = world().await;
    let objects = objects();
    let mut asked = 0;
    for resource in discover(&api).await.iter().filter(|resource| !resource.is_stored()) {
        let gvk = &resource.gvk;
        let mut answers = Vec::new();
        for encoding in BOTH {
            let path = resource.collection();
            if resource.verbs.contains("list") {
                answers.push(encoding.ask(&api, "GET", &path, None).await);
                continue;
            }
            let mut body = objects
                .get(&gvk.to_string())
                .unwrap_or_else(|| panic!("no {gvk}"))
                .clone();
            let pod = (gvk.kind == "Binding").then(|| &objects["/v1, Kind=Pod"]);
            let pods = "/api/v1/namespaces/here/pods";
            if let Some(pod) = pod {
                api.post(pods, pod).await.ok();
                meta::set_text(&mut body, "namespace", NAMESPACE);
            }
            answers.push(encoding.ask(&api, "POST", &path, Some(&body)).await);
            if pod.is_some() {
                let at_once = format!("{pods}/a?gracePeriodSeconds=0");
                api.delete(&at_once).await.ok();
            }
        }
        // A message does not tell a list that is empty from none.
        assert_eq!(encoding::as_message_tells(&answers[0]), answers[1], "{gvk}");
        asked += 1;
    }
    assert!(asked >= 8, "{asked}");
}

/// What differs between two lives of the same object.
fn without_identity(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
            metadata.remove(field);
        }
        // Their order is that of times, which are whole seconds.
        if let Some(managers) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            for manager in managers.iter_mut() {
                manager.as_object_mut().unwrap().remove("time");
            }
            managers.sort_by_key(Value::to_string);
        }
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("lastPhaseTransitionTime");
    }
    if let Some(details) = object.get_mut("details").and_then(Value::as_object_mut) {
        details.remove("uid");
    }
    object
}

/// The same without who wrote which field.
fn without_managers(object: &Value) -> Value {
    let mut object = without_identity(object.clone());
    meta::metadata_mut(&mut object).remove("managedFields");
    object
}

/// Whether `part` is what `whole` says of it.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(name, part)| whole.get(name).is_some_and(|whole| contains(whole, part))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}
