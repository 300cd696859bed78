//! A namespace, a kube-rs client, and the calls of walks: objects are trees, kube-rs carries them.
//!
//! Waiting is always for an event: [`Things::until`] looks again whenever the API tells of a change.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::{Method, Request};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::Value;

use crate::kinds::{self, Kind};

/// How long something may take that a controller does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace of the cluster.
pub struct Place {
    /// As the administrator.
    pub client: Client,
    pub namespace: String,
}

/// The objects of a kind, in a namespace or in the cluster.
pub struct Things {
    api: Api<DynamicObject>,
    kind: Kind,
}

/// An open watch.
pub struct Watch(Pin<Box<dyn Stream<Item = Result<WatchEvent<DynamicObject>, Error>> + Send>>);

/// A page of a list.
pub struct Page {
    pub items: Vec<Value>,
    pub resource_version: String,
    /// Empty at the end.
    pub continue_token: String,
    pub remaining: Option<i64>,
}

/// A namespace `conformance-NAME` of the cluster of `KUBECONFIG`, with the account that pods need.
pub async fn place(name: &str) -> Place {
    place_in(client_of(kubeconfig()).await, name).await
}

/// The same with a client that is there.
pub async fn place_in(client: Client, name: &str) -> Place {
    let namespace = format!("conformance-{name}");
    let place = Place { client, namespace };
    let object = serde_json::json!({"metadata": {"name": place.namespace}});
    place.of(&kinds::NAMESPACES).create(object).await.unwrap();
    let account = |items: &[Value]| items.iter().any(|item| name_of(item) == "default");
    place
        .of(&kinds::SERVICE_ACCOUNTS)
        .until("", "the default account", account)
        .await;
    place
}

/// Waits for what a controller or a watch does, so long as it may take.
pub async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(PATIENCE, coming).await;
    came.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// The kubeconfig of the variable.
pub fn kubeconfig() -> Kubeconfig {
    let path = std::env::var_os("KUBECONFIG").expect("KUBECONFIG names the cluster");
    Kubeconfig::read_from(path).unwrap()
}

/// A client of a kubeconfig.
pub async fn client_of(kubeconfig: Kubeconfig) -> Client {
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.unwrap()).unwrap()
}

// === impl Place ===

impl Place {
    /// The objects of a kind, here or (a kind without namespaces) in the cluster.
    pub fn of(&self, kind: &Kind) -> Things {
        let resource = resource_of(kind);
        let api = match kind.namespaced {
            true => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        };
        Things { api, kind: *kind }
    }

    /// The objects of a kind in another namespace.
    pub fn of_namespace(&self, kind: &Kind, namespace: &str) -> Things {
        let api = Api::namespaced_with(self.client.clone(), namespace, &resource_of(kind));
        Things { api, kind: *kind }
    }

    /// The objects of a kind in all namespaces.
    pub fn everywhere(&self, kind: &Kind) -> Things {
        let api = Api::all_with(self.client.clone(), &resource_of(kind));
        Things { api, kind: *kind }
    }

    /// `GET`, as a tree.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        self.client.request(Request::get(path).body(Vec::new()).unwrap()).await
    }

    /// `POST` of a text.
    pub async fn post(&self, path: &str, body: impl ToString) -> Result<Value, Error> {
        self.send(Method::POST, path, "application/json", body).await
    }

    /// Any request with a body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl ToString,
    ) -> Result<Value, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type);
        self.client
            .request(request.body(body.to_string().into_bytes()).unwrap())
            .await
    }
}

// === impl Things ===

impl Things {
    pub async fn create(&self, object: Value) -> Result<Value, Error> {
        self.api
            .create(&PostParams::default(), &self.dynamic(object))
            .await
            .map(tree)
    }

    pub async fn get(&self, name: &str) -> Result<Value, Error> {
        self.api.get(name).await.map(tree)
    }

    pub async fn get_status(&self, name: &str) -> Result<Value, Error> {
        self.api.get_status(name).await.map(tree)
    }

    /// Those with the labels of a selector.
    pub async fn list(&self, labels: &str) -> Vec<Value> {
        self.page(&ListParams::default().labels(labels)).await.unwrap().items
    }

    pub async fn page(&self, params: &ListParams) -> Result<Page, Error> {
        let list = self.api.list(params).await?;
        Ok(Page {
            items: list.items.into_iter().map(tree).collect(),
            resource_version: list.metadata.resource_version.unwrap_or_default(),
            continue_token: list.metadata.continue_.unwrap_or_default(),
            remaining: list.metadata.remaining_item_count,
        })
    }

    pub async fn replace(&self, object: Value) -> Result<Value, Error> {
        let name = name_of(&object).to_owned();
        self.api
            .replace(&name, &PostParams::default(), &self.dynamic(object))
            .await
            .map(tree)
    }

    pub async fn replace_status(&self, object: Value) -> Result<Value, Error> {
        let name = name_of(&object).to_owned();
        self.api
            .replace_status(&name, &PostParams::default(), &self.dynamic(object))
            .await
            .map(tree)
    }

    /// Reads, changes and writes, again when somebody else wrote in between, as client-go's `RetryOnConflict`.
    pub async fn change(&self, name: &str, mut change: impl FnMut(&mut Value)) -> Result<Value, Error> {
        loop {
            let mut object = self.get(name).await?;
            change(&mut object);
            match self.replace(object).await {
                Err(Error::Api(status)) if status.is_conflict() => {}
                other => return other,
            }
        }
    }

    /// The same with the status.
    pub async fn change_status(&self, name: &str, mut change: impl FnMut(&mut Value)) -> Result<Value, Error> {
        loop {
            let mut object = self.get(name).await?;
            change(&mut object);
            match self.replace_status(object).await {
                Err(Error::Api(status)) if status.is_conflict() => {}
                other => return other,
            }
        }
    }

    pub async fn merge(&self, name: &str, patch: Value) -> Result<Value, Error> {
        self.patch(name, &Patch::Merge(patch)).await
    }

    pub async fn strategic(&self, name: &str, patch: Value) -> Result<Value, Error> {
        self.patch(name, &Patch::Strategic(patch)).await
    }

    pub async fn patch(&self, name: &str, patch: &Patch<Value>) -> Result<Value, Error> {
        self.api.patch(name, &parameters(patch), patch).await.map(tree)
    }

    pub async fn patch_status(&self, name: &str, patch: &Patch<Value>) -> Result<Value, Error> {
        self.api.patch_status(name, &parameters(patch), patch).await.map(tree)
    }

    pub async fn merge_status(&self, name: &str, patch: Value) -> Result<Value, Error> {
        self.patch_status(name, &Patch::Merge(patch)).await
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.api.delete(name, &DeleteParams::default()).await.map(drop)
    }

    pub async fn delete_collection(&self, labels: &str) -> Result<(), Error> {
        let params = ListParams::default().labels(labels);
        self.api
            .delete_collection(&DeleteParams::default(), &params)
            .await
            .map(drop)
    }

    /// A watch from a revision on; from the present state when it is empty.
    pub async fn watch(&self, labels: &str, resource_version: &str) -> Watch {
        let params = WatchParams::default().labels(labels);
        let events = self.api.watch(&params, resource_version).await.unwrap();
        Watch(Box::pin(events))
    }

    /// Waits until the objects of a selector are as they should be; they are looked at whenever one of them changes.
    pub async fn until(&self, labels: &str, what: &str, mut check: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        let looking = async {
            loop {
                let page = self.page(&ListParams::default().labels(labels)).await.unwrap();
                if check(&page.items) {
                    return page.items;
                }
                let mut news = self.watch(labels, &page.resource_version).await;
                news.0.next().await;
            }
        };
        in_time(what, looking).await
    }

    /// Waits until no object of a selector is there.
    pub async fn until_gone(&self, labels: &str) {
        let what = format!("the end of all {} with {labels}", self.kind.plural);
        self.until(labels, &what, <[Value]>::is_empty).await;
    }

    fn dynamic(&self, mut object: Value) -> DynamicObject {
        object["apiVersion"] = self.kind.api_version().into();
        object["kind"] = self.kind.kind.into();
        serde_json::from_value(object).unwrap()
    }
}

// === impl Watch ===

impl Watch {
    /// The next event that tells of an object: its type and the object.
    pub async fn next(&mut self) -> (&'static str, Value) {
        loop {
            let event = in_time("an event", self.0.next()).await;
            return match event.expect("the watch goes on").unwrap() {
                WatchEvent::Added(object) => ("ADDED", tree(object)),
                WatchEvent::Modified(object) => ("MODIFIED", tree(object)),
                WatchEvent::Deleted(object) => ("DELETED", tree(object)),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(status) => panic!("{status:?}"),
            };
        }
    }

    /// Goes on until an event is what one waits for.
    pub async fn until(&mut self, mut check: impl FnMut(&str, &Value) -> bool) -> Value {
        loop {
            let (event, object) = self.next().await;
            if check(event, &object) {
                return object;
            }
        }
    }
}

// === helpers ===

/// The name in an object's metadata.
#[track_caller]
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

/// The revision of an object: always a number that grows.
#[track_caller]
pub fn revision_of(object: &Value) -> u64 {
    let text = object["metadata"]["resourceVersion"]
        .as_str()
        .expect("a resourceVersion");
    text.parse().expect("a number")
}

/// The answer that a call has to fail with.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> kube::core::Status {
    match result.unwrap_err() {
        Error::Api(status) => *status,
        other => panic!("no answer of the API: {other}"),
    }
}

/// The call has to fail with 404.
#[track_caller]
pub fn not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    let status = refusal(result);
    assert!(status.is_not_found(), "{status:?}");
}

/// Adds to a list in an object, which may not be there yet.
pub fn push(object: &mut Value, path: &str, item: Value) {
    let (parent, field) = path.rsplit_once('/').expect("a path");
    let parent = object.pointer_mut(parent).expect("the list's parent");
    match &mut parent[field] {
        Value::Array(list) => list.push(item),
        absent => *absent = Value::Array(vec![item]),
    }
}

/// What kube-rs has to know of a kind.
pub fn resource_of(kind: &Kind) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group, "v1", kind.kind), kind.plural)
}

/// An object of kube-rs as a tree.
pub fn tree(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

fn parameters(patch: &Patch<Value>) -> PatchParams {
    match patch {
        Patch::Apply(_) => PatchParams::apply("test-apply").force(),
        _ => PatchParams::default(),
    }
}
