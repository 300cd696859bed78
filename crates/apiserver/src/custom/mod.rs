//! Custom resources: rows that come and go with CustomResourceDefinitions.
//!
//! A definition's resource is one table of the store, whose objects are kept in memory as they are stored (without conversion
//! webhook: in the storage version), and one [`crate::registry::Kind`] for each version: the generic verbs work in the version
//! of the request from end to end. Where an object leaves the table or goes into it, it is converted ([`convert`]).
//!
//! [`controller`] follows the definitions: it decides their conditions, serves their resources and removes what is left of a
//! deleted one. Invariants: a definition is Established only when its resource is served; a resource is served only while its
//! names are accepted; requests keep the definition that they began with.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver` and `pkg/controller`.

mod asking;
mod cleanup;
mod controller;
mod convert;
mod review;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use api::normalize::{UnknownFields, normalize};
use api::schema::apply_defaults;
use api::{Status, Value, meta};
use kinds::custom::Definition;
use parking_lot::Mutex;

use crate::admission::webhook::{Client, Clients};
use crate::cluster::Object;
use crate::respond::view::set_kind;

pub use asking::asking;
pub use controller::{Controller, definitions};
pub use convert::{Conversions, is_converted, shown, shown_one, stored};
#[cfg(feature = "fuzzing")]
pub(crate) use review::accepted;

/// Converted objects that are remembered for each definition with a webhook: watchers of a version meet the same event within
/// moments of each other.
const REMEMBERED_MAX: usize = 1024;

/// What all versions of a custom resource share.
pub struct CustomKind {
    /// What the CustomResourceDefinition says.
    pub definition: Definition,
    conversion: Conversion,
}

/// How objects get from one version to another.
enum Conversion {
    /// Versions differ in their name only.
    Rename,
    /// A service is asked.
    Webhook(Box<Webhook>),
}

struct Webhook {
    clients: Arc<Clients>,
    /// `spec.conversion.webhook.clientConfig`.
    config: Value,
    /// The version of ConversionReview that is sent; none that both sides know.
    review: Option<&'static str>,
    /// The connection, once it was needed.
    client: Mutex<Option<Arc<Client>>>,
    remembered: Mutex<Remembered>,
}

/// By the version's place, the namespace, the name and the revision.
type Key = (usize, Box<str>, Box<str>, u64);

#[derive(Default)]
struct Remembered {
    objects: HashMap<Key, Arc<Object>>,
    /// Oldest first.
    order: VecDeque<Key>,
}

impl Remembered {
    fn insert(&mut self, key: Key, object: Arc<Object>) {
        if self.objects.insert(key.clone(), object).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.objects.remove(&oldest);
            }
        }
    }
}

impl CustomKind {
    /// Of a definition; `clients` reach conversion webhooks.
    pub fn new(definition: Definition, clients: &Arc<Clients>) -> CustomKind {
        let conversion = &definition.conversion;
        let conversion = match conversion["strategy"] == "Webhook" {
            false => Conversion::Rename,
            true => {
                let webhook = &conversion["webhook"];
                let versions = webhook["conversionReviewVersions"].as_array();
                let known = |version: &Value| review::VERSIONS.into_iter().find(|own| version == own);
                Conversion::Webhook(Box::new(Webhook {
                    clients: clients.clone(),
                    config: webhook["clientConfig"].clone(),
                    review: versions.into_iter().flatten().find_map(known),
                    client: Mutex::default(),
                    remembered: Mutex::default(),
                }))
            }
        };
        CustomKind { definition, conversion }
    }

    /// The place of a version that the definition has; that of the stored one for others.
    pub fn index_of(&self, version: &str) -> usize {
        let versions = &self.definition.versions;
        let found = versions.iter().position(|own| own.gvk.version == version);
        found.unwrap_or(self.definition.storage)
    }

    /// An object in a version, where nobody can be waited for.
    ///
    /// # Errors
    /// 500 when only the webhook could convert it.
    pub fn convert_here(&self, object: Value, index: usize) -> Result<Value, Status> {
        if meta::gvk(&object).api_version() == self.definition.versions[index].gvk.api_version() {
            return Ok(object);
        }
        match &self.conversion {
            Conversion::Rename => self.renamed(object, index),
            Conversion::Webhook(_) => Err(Status::internal(format_args!(
                "{} of {} have to be converted by a webhook, which is not asked here",
                self.definition.kind, self.definition.name
            ))),
        }
    }

    /// The paths that a manager of fields in another version owns, where only the webhook knows what becomes of them: taken for
    /// the same paths.
    pub fn renamed(&self, mut object: Value, index: usize) -> Result<Value, Status> {
        let gvk = &self.definition.versions[index].gvk;
        set_kind(&mut object, &gvk.api_version(), &gvk.kind);
        self.settle(&mut object, index)?;
        Ok(object)
    }

    /// What a version does not know goes, what it has defaults for comes.
    fn settle(&self, object: &mut Value, index: usize) -> Result<(), Status> {
        let schema = &self.definition.versions[index].schema;
        normalize(object, schema, UnknownFields::Ignore).map_err(Status::internal)?;
        apply_defaults(object, schema);
        Ok(())
    }

    /// A stored object as it is kept in memory; and whether it would be stored otherwise today. None: it is no object of the
    /// kind.
    pub fn loaded(&self, mut object: Value) -> Option<(Value, bool)> {
        let gvk = meta::gvk(&object);
        let storage = self.definition.storage;
        let found = self.index_of(&gvk.version);
        let is_current = gvk.version == self.definition.versions[storage].gvk.version;
        if gvk.group != self.definition.group || gvk.kind != self.definition.kind {
            return None;
        }
        if let (Conversion::Rename, false) = (&self.conversion, is_current) {
            object = self.renamed(object, storage).ok()?;
        } else {
            self.settle(&mut object, found).ok()?;
        }
        Some((object, !is_current))
    }
}
