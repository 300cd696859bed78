//! From the version that an object is kept in to the one that a request speaks, and back.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use api::{Status, Value, meta};
use parking_lot::Mutex;

use super::{Conversion, CustomKind, Key, review};
use crate::cluster::Object;
use crate::registry::{Kind, Served};
use crate::respond::view;
use crate::server::Server;

/// Whether objects of a table may be in another version than the one that is served.
pub fn is_converted(served: &Served) -> bool {
    served.kind.custom.as_ref().is_some_and(|custom| {
        let is_stored = served.index() == custom.definition.storage;
        !is_stored || matches!(custom.conversion, Conversion::Webhook(_))
    })
}

/// Objects in the version that is served. Those of built-in kinds are converted where they are shown.
///
/// # Errors
/// 500 when the webhook does not convert them.
pub async fn shown(server: &Server, served: &Served, objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
    let Some(custom) = &served.kind.custom else {
        return Ok(objects);
    };
    let index = served.index();
    let prefix = format!("{{\"apiVersion\":\"{}\",", served.gvk.api_version());
    // Keys are sorted: the type comes first.
    let is_there = |object: &Object| object.stored().starts_with(prefix.as_bytes());
    if objects.iter().all(|object| is_there(object)) {
        return Ok(objects);
    }
    let remembered = |object: &Object| match &custom.conversion {
        Conversion::Rename => None,
        Conversion::Webhook(webhook) => webhook.remembered.lock().objects.get(&key(object, index)).cloned(),
    };
    let mut shown: Vec<Option<Arc<Object>>> = Vec::with_capacity(objects.len());
    let mut left: Vec<Value> = Vec::new();
    for object in &objects {
        let known = match is_there(object) {
            true => Some(object.clone()),
            false => remembered(object),
        };
        if known.is_none() {
            left.push(object.value());
        }
        shown.push(known);
    }
    let mut converted = convert(server, custom, left, index).await?.into_iter();
    let mut out = Vec::with_capacity(objects.len());
    for (object, known) in objects.iter().zip(shown) {
        if let Some(known) = known {
            out.push(known);
            continue;
        }
        let value = converted
            .next()
            .ok_or_else(|| Status::internal("a converted object is missing"))?;
        let made = object.in_version(&value, served.kind.field_values(&value));
        let made = Arc::new(made.map_err(Status::internal)?);
        if let Conversion::Webhook(webhook) = &custom.conversion {
            webhook.remembered.lock().insert(key(object, index), made.clone());
        }
        out.push(made);
    }
    Ok(out)
}

/// One object in the version that is served.
///
/// # Errors
/// As [`shown`].
pub async fn shown_one(server: &Server, served: &Served, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    if served.kind.custom.is_none() {
        return Ok(object);
    }
    let mut one = shown(server, served, vec![object]).await?;
    one.pop()
        .ok_or_else(|| Status::internal("a converted object is missing"))
}

/// An object of a request's version as it is stored.
///
/// # Errors
/// As [`shown`].
pub async fn stored<'o>(server: &Server, kind: &Kind, object: &'o Value) -> Result<Cow<'o, Value>, Status> {
    let Some(custom) = &kind.custom else {
        return Ok(Cow::Borrowed(object));
    };
    let storage = custom.definition.storage;
    if kind.hub == custom.definition.versions[storage].gvk {
        return Ok(Cow::Borrowed(object));
    }
    to_version(server, custom, object.clone(), storage)
        .await
        .map(Cow::Owned)
}

/// An object in a version.
///
/// # Errors
/// As [`shown`].
pub async fn to_version(server: &Server, custom: &CustomKind, object: Value, index: usize) -> Result<Value, Status> {
    if meta::gvk(&object).api_version() == custom.definition.versions[index].gvk.api_version() {
        return Ok(object);
    }
    let mut converted = convert(server, custom, vec![object], index).await?;
    converted
        .pop()
        .ok_or_else(|| Status::internal("a converted object is missing"))
}

/// Conversions of one request for its policies and webhooks: most want its objects in the same version.
#[derive(Default)]
pub struct Conversions {
    /// None in tests of plug-ins, where nobody can be asked.
    server: Option<Arc<Server>>,
    /// What was converted, to which version, and what came of it; the oldest first.
    known: Mutex<VecDeque<(Value, usize, Value)>>,
}

/// The new and the old object in two versions.
const KNOWN_MAX: usize = 4;

impl Conversions {
    /// None yet.
    pub fn of(server: &Arc<Server>) -> Conversions {
        Conversions {
            server: Some(server.clone()),
            known: Mutex::default(),
        }
    }

    /// An object of a request in another version of its kind.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn in_version(&self, kind: &Kind, index: usize, object: Value) -> Result<Value, Status> {
        match &kind.custom {
            Some(custom) => self.custom(custom, index, object).await,
            None => view::from_hub_version(kind, index, object),
        }
    }

    /// An object of one of a kind's versions as the request sees it.
    ///
    /// # Errors
    /// It cannot be converted.
    pub async fn in_hub(&self, kind: &Kind, index: usize, object: Value) -> Result<Value, Status> {
        match &kind.custom {
            Some(custom) => self.custom(custom, custom.index_of(&kind.hub.version), object).await,
            None => view::to_hub_version(kind, index, object),
        }
    }

    /// Objects of the cluster in the version that is served.
    ///
    /// # Errors
    /// They cannot be converted.
    pub async fn of_cluster(&self, served: &Served, objects: Vec<Arc<Object>>) -> Result<Vec<Value>, Status> {
        let objects = match &self.server {
            Some(server) => shown(server, served, objects).await?,
            None => objects,
        };
        let values = objects.iter().map(|object| object.value());
        values
            .map(|value| view::from_hub_version(&served.kind, served.index(), value))
            .collect()
    }

    async fn custom(&self, custom: &CustomKind, index: usize, object: Value) -> Result<Value, Status> {
        let is_there = meta::gvk(&object).api_version() == custom.definition.versions[index].gvk.api_version();
        let server = match (&self.server, &custom.conversion) {
            (Some(server), Conversion::Webhook(_)) if !is_there => server,
            _ => return custom.convert_here(object, index),
        };
        let is_it = |(of, to, _): &&(Value, usize, Value)| *to == index && *of == object;
        if let Some((_, _, found)) = self.known.lock().iter().find(is_it) {
            return Ok(found.clone());
        }
        let converted = to_version(server, custom, object.clone(), index).await?;
        let mut known = self.known.lock();
        known.push_back((object, index, converted.clone()));
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
        Ok(converted)
    }
}

async fn convert(
    server: &Server,
    custom: &CustomKind,
    objects: Vec<Value>,
    index: usize,
) -> Result<Vec<Value>, Status> {
    if objects.is_empty() {
        return Ok(objects);
    }
    match &custom.conversion {
        Conversion::Rename => objects
            .into_iter()
            .map(|object| custom.convert_here(object, index))
            .collect(),
        Conversion::Webhook(webhook) => {
            let version = &custom.definition.versions[index];
            let mut converted = review::convert(server, &custom.definition, webhook, &version.gvk, objects).await?;
            for object in &mut converted {
                custom.settle(object, index)?;
            }
            Ok(converted)
        }
    }
}

fn key(object: &Object, index: usize) -> Key {
    (
        index,
        object.namespace().into(),
        object.name().into(),
        object.revision(),
    )
}
