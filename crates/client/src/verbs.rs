//! The verbs: get, list, watch, create, update, patch, delete, and what subresources need.
//!
//! `namespace` is empty for objects that are in none, and in `list` and `watch` for those of all namespaces.

use api::Value;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::request::Call;
use crate::watch::WatchStream;
use crate::{Client, DeleteParams, Error, Kind, List, ListParams, Object, Patch, Resource, Result, WatchParams};

const JSON: &str = "application/json";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawList<'a> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: RawListMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

impl Client {
    /// Reads one object.
    pub async fn get<T: Kind>(&self, namespace: &str, name: &str) -> Result<T> {
        self.get_in(&T::RESOURCE, namespace, name).await
    }

    /// Reads one object of a resource known only now.
    pub async fn get_in<T: Object>(&self, resource: &Resource, namespace: &str, name: &str) -> Result<T> {
        let path = resource.path(namespace, Some(name), None);
        let bytes = self
            .call(Call {
                method: Method::GET,
                path,
                query: Vec::new(),
                accept: T::ACCEPT,
                body: None,
            })
            .await?;
        decode(resource, &bytes)
    }

    /// Reads a page of objects (or all of them).
    pub async fn list<T: Kind>(&self, namespace: &str, params: &ListParams) -> Result<List<T>> {
        self.list_in(&T::RESOURCE, namespace, params).await
    }

    /// Reads a page of a resource known only now.
    pub async fn list_in<T: Object>(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<T>> {
        let list = self.list_each(resource, namespace, params).await?;
        let items = list.items.into_iter().collect::<Result<_>>()?;
        Ok(List {
            resource_version: list.resource_version,
            continue_token: list.continue_token,
            items,
        })
    }

    /// Like [`Client::list_in`], but leaves out objects that cannot be read, so that one does not hide its neighbours.
    pub(crate) async fn list_lenient<T: Object>(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<T>> {
        let list = self.list_each(resource, namespace, params).await?;
        let readable = list.items.into_iter().filter_map(|item| match item {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::error!(%resource, %error, "an object cannot be read and is left out");
                None
            }
        });
        let items = readable.collect();
        Ok(List {
            resource_version: list.resource_version,
            continue_token: list.continue_token,
            items,
        })
    }

    async fn list_each<T: Object>(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &ListParams,
    ) -> Result<List<Result<T>>> {
        let path = resource.path(namespace, None, None);
        let query = params.query();
        let bytes = self
            .call(Call {
                method: Method::GET,
                path,
                query,
                accept: list_accept::<T>(),
                body: None,
            })
            .await?;
        let raw: RawList<'_> =
            serde_json::from_slice(&bytes).map_err(|error| Error::decode(format!("list of {resource}"), error))?;
        let items = raw.items.unwrap_or_default().into_iter();
        let kind = raw.kind.strip_suffix("List").unwrap_or(&raw.kind);
        let decoded = items.map(|item| {
            T::decode_item(item.get().as_bytes(), &raw.api_version, kind)
                .map_err(|error| Error::decode(format!("list of {resource}"), error))
        });
        Ok(List {
            resource_version: raw.metadata.resource_version,
            continue_token: raw.metadata.continue_token,
            items: decoded.collect(),
        })
    }

    /// Opens a watch.
    pub async fn watch<T: Kind>(&self, namespace: &str, params: &WatchParams) -> Result<WatchStream<T>> {
        self.watch_in(&T::RESOURCE, namespace, params).await
    }

    /// Opens a watch of a resource known only now.
    pub async fn watch_in<T: Object>(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &WatchParams,
    ) -> Result<WatchStream<T>> {
        let path = resource.path(namespace, None, None);
        let query = params.query();
        let body = self
            .stream(Call {
                method: Method::GET,
                path,
                query,
                accept: T::ACCEPT,
                body: None,
            })
            .await?;
        Ok(WatchStream::new(body, resource.to_string()))
    }

    /// Creates an object and reads it back.
    pub async fn create<T: Kind>(&self, namespace: &str, object: &Value) -> Result<T> {
        let bytes = self
            .write(
                Method::POST,
                T::RESOURCE.path(namespace, None, None),
                Vec::new(),
                JSON,
                object,
            )
            .await?;
        decode(&T::RESOURCE, &bytes)
    }

    /// Creates an object of a resource known only now.
    pub async fn create_in(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<Value> {
        let bytes = self
            .write(
                Method::POST,
                resource.path(namespace, None, None),
                Vec::new(),
                JSON,
                object,
            )
            .await?;
        decode(resource, &bytes)
    }

    /// Posts to a subresource, such as `token` of a service account or `eviction` of a pod.
    pub async fn create_subresource(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), Some(subresource));
        let bytes = self.write(Method::POST, path, Vec::new(), JSON, object).await?;
        decode(resource, &bytes)
    }

    /// Binds a pod to a node. With a uid, only that very pod.
    pub async fn bind(&self, namespace: &str, pod: &str, uid: Option<&str>, node: &str) -> Result<()> {
        let mut binding = serde_json::json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod, "namespace": namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        if let Some(uid) = uid {
            binding["metadata"]["uid"] = uid.into();
        }
        let path = crate::resources::PODS.path(namespace, Some(pod), Some("binding"));
        self.write(Method::POST, path, Vec::new(), JSON, &binding)
            .await
            .map(drop)
    }

    /// Replaces an object, or with a subresource a part of it. Prefer [`Client::patch`]: an edit does not lose what the
    /// writer does not know.
    pub async fn update(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        object: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), subresource);
        let bytes = self.write(Method::PUT, path, Vec::new(), JSON, object).await?;
        decode(resource, &bytes)
    }

    /// Edits an object, or with a subresource (`status`, `scale`) a part of it. A `metadata.resourceVersion` or
    /// `metadata.uid` in the patch is a precondition.
    pub async fn patch(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: Option<&str>,
        patch: &Patch,
        body: &Value,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), subresource);
        let mut query = Vec::new();
        if let Patch::Apply { manager, force } = patch {
            query.push(("fieldManager", manager.clone()));
            if *force {
                query.push(("force", "true".to_string()));
            }
        }
        let bytes = self
            .write(Method::PATCH, path, query, patch.content_type(), body)
            .await?;
        decode(resource, &bytes)
    }

    /// Merges into an object's status, its lists by their keys. What is said of [`Client::patch`] holds.
    pub async fn patch_status(&self, resource: &Resource, namespace: &str, name: &str, body: &Value) -> Result<Value> {
        self.patch(resource, namespace, name, Some("status"), &Patch::Strategic, body)
            .await
    }

    /// Deletes one object. The answer is the object as it is now (when it takes time to end), or a `Status`.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        params: &DeleteParams,
    ) -> Result<Value> {
        let path = resource.path(namespace, Some(name), None);
        let bytes = self.call(delete_call(path, Vec::new(), params)).await?;
        decode(resource, &bytes)
    }

    /// Deletes all objects of a namespace (or without one, of the cluster) that the list parameters select.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &DeleteParams,
        selection: &ListParams,
    ) -> Result<()> {
        let path = resource.path(namespace, None, None);
        self.call(delete_call(path, selection.query(), params)).await.map(drop)
    }

    async fn write(
        &self,
        method: Method,
        path: String,
        query: Vec<(&'static str, String)>,
        content_type: &str,
        body: &Value,
    ) -> Result<Bytes> {
        let bytes = serde_json::to_vec(body).expect("invariant: a Value has only text keys");
        self.call(Call {
            method,
            path,
            query,
            accept: JSON,
            body: Some((content_type, bytes.into())),
        })
        .await
    }
}

fn delete_call<'a>(path: String, query: Vec<(&'static str, String)>, params: &DeleteParams) -> Call<'a> {
    let body = params.body().map(|body| {
        let bytes = serde_json::to_vec(&body).expect("invariant: a Value has only text keys");
        (JSON, bytes.into())
    });
    Call {
        method: Method::DELETE,
        path,
        query,
        accept: JSON,
        body,
    }
}

/// A list of partial objects has a name of its own in the Accept header.
fn list_accept<T: Object>() -> &'static str {
    if T::ACCEPT == crate::PartialObject::ACCEPT {
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
    } else {
        T::ACCEPT
    }
}

fn decode<T: Object>(resource: &Resource, bytes: &[u8]) -> Result<T> {
    T::decode(bytes).map_err(|error| Error::decode(resource.to_string(), error))
}
