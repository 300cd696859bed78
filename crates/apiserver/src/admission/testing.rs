//! A handful of objects as a cluster, for tests of plug-ins and authorizers.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use api::schema::SchemaRef;
use api::{GroupResource, GroupVersionKind, GroupVersionResource, Value, meta};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::cluster::{Change, Changes, Cluster, Object, Texts};
use crate::custom::Conversions;
use crate::pipeline::{Operation, Review};
use crate::registry::Registry;
use crate::request::UserInfo;

/// What a server serves.
static REGISTRY: LazyLock<Arc<Registry>> =
    LazyLock::new(|| Arc::new(Registry::new(kinds::rows(), SchemaRef::builtin).unwrap()));

/// Objects under `resource` or `resource.group`.
#[derive(Clone, Default)]
pub(crate) struct World {
    objects: Arc<Mutex<Vec<(String, Arc<Object>)>>>,
    followers: Arc<Mutex<Vec<(String, Queue)>>>,
}

type Queue = Arc<Mutex<VecDeque<Change>>>;

struct Follower(Queue);

impl World {
    pub(crate) fn new(objects: &[(&str, Value)]) -> World {
        let world = World::default();
        for (resource, value) in objects {
            world.put(resource, value.clone());
        }
        world
    }

    pub(crate) fn put(&self, resource: &str, value: Value) {
        let new = Arc::new(Object::from_value(&value, 1, Texts::default()).unwrap());
        let old = self.take(resource, meta::namespace(&value), meta::name(&value));
        self.objects.lock().push((resource.into(), new.clone()));
        self.tell(resource, Change::Changed { old, new: Some(new) });
    }

    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let old = self.take(resource, namespace, name);
        self.tell(resource, Change::Changed { old, new: None });
    }

    fn take(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        let mut objects = self.objects.lock();
        let is_it = |(r, o): &(String, Arc<Object>)| r == resource && o.namespace() == namespace && o.name() == name;
        let at = objects.iter().position(is_it)?;
        Some(objects.remove(at).1)
    }

    fn tell(&self, resource: &str, change: Change) {
        for (followed, queue) in self.followers.lock().iter() {
            if followed == resource {
                queue.lock().push_back(change.clone());
            }
        }
    }

    pub(crate) fn review(
        &self,
        operation: Operation,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Review {
        Review {
            operation,
            verb: String::new(),
            user: Arc::new(UserInfo::new("jane", ["dev"])),
            kind: GroupVersionKind::new(group, "v1", ""),
            resource: GroupVersionResource::new(group, "v1", resource),
            requested: GroupVersionResource::new(group, "v1", resource),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            dry_run: false,
            options: Value::Null,
            cluster: Arc::new(self.clone()),
            registry: REGISTRY.clone(),
            metrics: Arc::default(),
            services: None,
            trace: None,
            deadline: None,
            warnings: Mutex::default(),
            annotations: Mutex::default(),
            together: Mutex::default(),
            reinvocation: Mutex::default(),
            conversions: Conversions::default(),
        }
    }
}

/// What the audit log would be told: keys and values.
pub(crate) fn told(review: &Review) -> Vec<(String, String)> {
    let annotations = std::mem::take(&mut *review.annotations.lock());
    annotations.into_iter().map(|note| (note.key, note.value)).collect()
}

impl Cluster for World {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.list(resource, Some(namespace))
            .into_iter()
            .find(|object| object.name() == name)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        let objects = self.objects.lock();
        let wanted = objects
            .iter()
            .filter(|(own, _)| *own == resource.to_string())
            .map(|(_, object)| object.clone());
        wanted
            .filter(|object| namespace.is_none_or(|namespace| object.namespace() == namespace))
            .collect()
    }

    fn changes(&self, resource: &GroupResource) -> Box<dyn Changes> {
        let queue = Queue::default();
        queue.lock().push_back(Change::Reset(self.list(resource, None)));
        self.followers.lock().push((resource.to_string(), queue.clone()));
        Box::new(Follower(queue))
    }
}

impl Changes for Follower {
    fn try_next(&mut self) -> Option<Change> {
        self.0.lock().pop_front()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Change>> {
        let next = self.try_next();
        Box::pin(std::future::ready(next))
    }
}
