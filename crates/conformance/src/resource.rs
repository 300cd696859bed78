//! The walk of upstream's common test of a resource (`test/e2e/framework/conformance`): every write is seen by an informer of
//! kube-rs, once and in order, with revisions that never fall.

use std::pin::Pin;

use futures::{Stream, StreamExt as _};
use kube::api::{Api, DynamicObject, ListParams, Patch};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::operations::contains;
use crate::place::{Place, in_time, name_of, not_found, resource_of, revision_of, tree};

/// What differs from kind to kind.
pub struct Resource {
    /// Without a name.
    pub object: Value,
    /// What an update changes, as a patch of each kind does.
    pub spec: Value,
    /// The same as JSON patch; empty where it is not tried.
    pub json_patch: Value,
    /// What the status gets; null without one.
    pub status: Value,
}

/// An informer's stream, past its first list.
struct Informer {
    events: Pin<Box<dyn Stream<Item = Result<Event<DynamicObject>, watcher::Error>> + Send>>,
    revision: u64,
}

/// All of it.
pub async fn walk(place: &Place, kind: &Kind, resource: Resource) {
    let listed = place.client.list_api_group_resources(&kind.api_version()).await;
    let listed = listed.unwrap().resources;
    assert!(listed.iter().any(|entry| entry.name == kind.plural), "{listed:?}");

    let things = place.of(kind);
    let selector = format!("walk={}", place.namespace);
    let mut informer = Informer::start(place, kind, &selector).await;
    let name = format!("test-{}", place.namespace);
    let mut object = resource.object;
    object["metadata"] = json!({"name": name, "labels": {"walk": place.namespace}});

    let created = things.create(object.clone()).await.unwrap();
    informer.applied(&created).await;
    let read = things.get(&name).await.unwrap();
    assert_eq!(read, created);
    let updated = things
        .change(&name, |object| merge(object, &resource.spec))
        .await
        .unwrap();
    assert!(contains(&updated, &resource.spec), "{updated}");
    assert!(revision_of(&created) < revision_of(&updated));
    informer.applied(&updated).await;
    if !resource.status.is_null() {
        let updated = things
            .change_status(&name, |object| merge(object, &resource.status))
            .await
            .unwrap();
        assert!(contains(&updated, &resource.status), "{updated}");
        informer.applied(&updated).await;
        assert_eq!(things.get_status(&name).await.unwrap(), updated);
    }

    for patch in patches(kind, &resource.spec, &resource.json_patch) {
        things.delete(&name).await.unwrap();
        not_found(things.get(&name).await);
        informer.deleted(&name).await;
        let created = things.create(object.clone()).await.unwrap();
        informer.applied(&created).await;
        let patched = things.patch(&name, &patch).await.unwrap();
        assert!(contains(&patched, &resource.spec), "{patch:?}: {patched}");
        informer.applied(&patched).await;
    }
    if !resource.status.is_null() {
        for patch in patches(kind, &resource.status, &Value::Null) {
            things.delete(&name).await.unwrap();
            informer.deleted(&name).await;
            let created = things.create(object.clone()).await.unwrap();
            informer.applied(&created).await;
            let patched = things.patch_status(&name, &patch).await.unwrap();
            assert!(contains(&patched, &resource.status), "{patch:?}: {patched}");
            informer.applied(&patched).await;
        }
    }

    let items = things.list(&selector).await;
    assert_eq!(items.len(), 1);
    if kind.namespaced {
        assert_eq!(place.everywhere(kind).list(&selector).await, items);
    }
    things.delete_collection(&selector).await.unwrap();
    informer.deleted(&name).await;
    not_found(things.get(&name).await);
    let params = ListParams::default().labels(&selector);
    assert_eq!(things.page(&params).await.unwrap().items, Vec::<Value>::new());
}

/// A patch of each kind that does the same; a JSON patch where one is given.
fn patches(kind: &Kind, change: &Value, json_patch: &Value) -> Vec<Patch<Value>> {
    let mut applied = change.clone();
    applied["apiVersion"] = kind.api_version().into();
    applied["kind"] = kind.kind.into();
    let mut all = vec![
        Patch::Strategic(change.clone()),
        Patch::Merge(change.clone()),
        Patch::Apply(applied),
    ];
    if !json_patch.is_null() {
        all.push(Patch::Json(serde_json::from_value(json_patch.clone()).unwrap()));
    }
    all
}

/// Sets what a tree has in another one; lists are replaced.
fn merge(object: &mut Value, change: &Value) {
    match (object, change) {
        (Value::Object(object), Value::Object(change)) => {
            for (name, value) in change {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (object, change) => *object = change.clone(),
    }
}

// === impl Informer ===

impl Informer {
    /// Begins with nothing there.
    async fn start(place: &Place, kind: &Kind, selector: &str) -> Informer {
        let api: Api<DynamicObject> = Api::all_with(place.client.clone(), &resource_of(kind));
        let config = watcher::Config::default().labels(selector).streaming_lists();
        let mut informer = Informer {
            events: Box::pin(watcher::watcher(api, config)),
            revision: 0,
        };
        assert!(matches!(informer.next().await, Event::Init));
        let first = informer.next().await;
        assert!(matches!(first, Event::InitDone), "{first:?}");
        informer
    }

    /// The event of a write, with all writes of others (managed fields) before it.
    async fn applied(&mut self, object: &Value) {
        loop {
            match self.next().await {
                Event::Apply(seen) => {
                    let seen = tree(seen);
                    assert_eq!(name_of(&seen), name_of(object));
                    self.follows(&seen);
                    if seen["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"] {
                        return;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn deleted(&mut self, name: &str) {
        match self.next().await {
            Event::Delete(seen) => {
                let seen = tree(seen);
                assert_eq!(name_of(&seen), name);
                self.follows(&seen);
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn follows(&mut self, object: &Value) {
        let revision = revision_of(object);
        assert!(self.revision <= revision, "{} after {}", revision, self.revision);
        self.revision = revision;
    }

    async fn next(&mut self) -> Event<DynamicObject> {
        let event = in_time("an event", self.events.next()).await;
        event.expect("the stream goes on").unwrap()
    }
}
