//! What a client reads: typed objects, or small views that name just the fields they need.
//!
//! An [`Object`] can be decoded from JSON and knows its identity; a [`Kind`] is an object of one resource. Implement both
//! for a view with [`view_kind!`](crate::view_kind): decoding it skips at memory speed what it does not name.

use std::collections::BTreeMap;

use api::Value;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use crate::Resource;

/// The identity of an object, whatever struct its metadata is in. Absent strings are empty.
pub trait Meta {
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.namespace`.
    fn namespace(&self) -> &str;
    /// `metadata.uid`.
    fn uid(&self) -> &str;
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str;
    /// The uids of `metadata.ownerReferences`.
    fn owner_uids(&self) -> Vec<&str>;
    /// Whether `metadata.deletionTimestamp` is set.
    fn is_deleting(&self) -> bool;
    /// A label's value.
    fn label(&self, key: &str) -> Option<&str>;
}

/// Something the API serves.
pub trait Object: Sized + Send + Sync + 'static {
    /// What to ask for; a view of the metadata alone asks for just that.
    const ACCEPT: &'static str = "application/json";

    /// Reads one object.
    fn decode(json: &[u8]) -> Result<Self, serde_json::Error>;

    /// Reads one item of a list, which may leave out what it is: the list says it for all of them.
    fn decode_item(json: &[u8], _api_version: &str, _kind: &str) -> Result<Self, serde_json::Error> {
        Self::decode(json)
    }

    /// Its identity.
    fn meta(&self) -> &dyn Meta;
}

/// An object of a resource that is known when this was written.
pub trait Kind: Object {
    /// The resource.
    const RESOURCE: Resource;
}

/// The metadata of an object in a view: all of `ObjectMeta` that programs decide by. `managedFields`, which is often larger
/// than the rest of the object, is skipped while decoding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Metadata {
    pub name: Option<String>,
    pub generate_name: Option<String>,
    pub namespace: Option<String>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub generation: Option<i64>,
    pub creation_timestamp: Option<Time>,
    pub deletion_timestamp: Option<Time>,
    pub deletion_grace_period_seconds: Option<i64>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub owner_references: Option<Vec<OwnerReference>>,
    pub finalizers: Option<Vec<String>>,
}

macro_rules! meta {
    ($metadata:ty) => {
        impl Meta for $metadata {
            fn name(&self) -> &str {
                self.name.as_deref().unwrap_or("")
            }

            fn namespace(&self) -> &str {
                self.namespace.as_deref().unwrap_or("")
            }

            fn uid(&self) -> &str {
                self.uid.as_deref().unwrap_or("")
            }

            fn resource_version(&self) -> &str {
                self.resource_version.as_deref().unwrap_or("")
            }

            fn owner_uids(&self) -> Vec<&str> {
                self.owner_references
                    .iter()
                    .flatten()
                    .map(|owner| owner.uid.as_str())
                    .collect()
            }

            fn is_deleting(&self) -> bool {
                self.deletion_timestamp.is_some()
            }

            fn label(&self, key: &str) -> Option<&str> {
                self.labels.as_ref()?.get(key).map(String::as_str)
            }
        }
    };
}

meta!(ObjectMeta);
meta!(Metadata);

/// A whole object as a tree.
impl Object for Value {
    fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// A tree says itself what it is, as in client-go's dynamic client (`UnstructuredJSONScheme`).
    fn decode_item(json: &[u8], api_version: &str, kind: &str) -> Result<Self, serde_json::Error> {
        let mut value = Value::decode(json)?;
        if let Some(object) = value.as_object_mut() {
            object.entry("apiVersion").or_insert_with(|| api_version.into());
            object.entry("kind").or_insert_with(|| kind.into());
        }
        Ok(value)
    }

    fn meta(&self) -> &dyn Meta {
        self
    }
}

impl Meta for Value {
    fn name(&self) -> &str {
        api::meta::name(self)
    }

    fn namespace(&self) -> &str {
        api::meta::namespace(self)
    }

    fn uid(&self) -> &str {
        api::meta::uid(self)
    }

    fn resource_version(&self) -> &str {
        api::meta::resource_version(self)
    }

    fn owner_uids(&self) -> Vec<&str> {
        let owners = api::meta::metadata(self)
            .and_then(|meta| meta.get("ownerReferences"))
            .and_then(Value::as_array);
        owners
            .into_iter()
            .flatten()
            .filter_map(|owner| owner.get("uid")?.as_str())
            .collect()
    }

    fn is_deleting(&self) -> bool {
        api::meta::is_deleting(self)
    }

    fn label(&self, key: &str) -> Option<&str> {
        api::meta::label(self, key)
    }
}

/// The metadata of any object, and nothing else: what the garbage collector and the namespace controller read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartialObject {
    /// `apiVersion` of the object, or of `PartialObjectMetadata`.
    pub api_version: String,
    /// `kind` of the object, or `PartialObjectMetadata`.
    pub kind: String,
    /// The metadata.
    pub metadata: Metadata,
}

impl Object for PartialObject {
    const ACCEPT: &'static str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

    fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    fn meta(&self) -> &dyn Meta {
        &self.metadata
    }
}

/// Makes a view a [`Kind`]: `view_kind!(MyPod, client::resources::PODS);`. The struct derives `Deserialize` and has a
/// field `metadata` whose type implements [`Meta`]: [`Metadata`], or a smaller one.
#[macro_export]
macro_rules! view_kind {
    ($view:ty, $resource:expr) => {
        impl $crate::Object for $view {
            fn decode(json: &[u8]) -> ::std::result::Result<Self, $crate::kind::JsonError> {
                $crate::kind::from_slice(json)
            }

            fn meta(&self) -> &dyn $crate::Meta {
                &self.metadata
            }
        }

        impl $crate::Kind for $view {
            const RESOURCE: $crate::Resource = $resource;
        }
    };
}

#[doc(hidden)]
pub use serde_json::{Error as JsonError, from_slice};
