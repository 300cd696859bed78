//! `GET` of an object with `?trireme-history=true`: every revision of it that the store still has, oldest first.
//!
//! Being a GET of that object, it is authorized as one: who may get the object may see its history, and nobody else. An
//! object that was deleted has a history, too.

use std::sync::Arc;

use http::Response;
use serde_json::json;
use store::Interest;

use api::{Status, Value};
use client::Body;

use crate::call::{Call, rfc3339};
use crate::cluster::Object;
use crate::custom;
use crate::registry::Served;
use crate::respond::{self, view};
use crate::storage::{WatchStart, event_objects, object_of};

use super::read;

/// Revisions in an answer at most, the newest ones: what a person looks through.
const REVISIONS_MAX: usize = 200;
/// Bytes of objects in an answer at most: some objects of the largest size, thousands of usual ones.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether the request asks for the history.
pub fn is_asked(call: &Call) -> bool {
    call.query.flag("trireme-history") == Some(true)
}

/// A state of the object.
struct Version {
    word: &'static str,
    revision: u64,
    /// Wall time in milliseconds since the epoch; absent: before the history that is held.
    time_ms: Option<i64>,
    object: Arc<Object>,
}

/// Answers with the history.
pub async fn get(call: &Call, served: &Arc<Served>) -> Result<Response<Body>, Status> {
    let attributes = &call.attributes;
    let storage = &call.server.storage;
    let key = served
        .kind
        .key(read::scope(&served.kind, &attributes.namespace), &attributes.name);
    let oldest = storage.table(&served.kind)?.oldest_revision();
    let mut versions = versions(call, served, key.into(), oldest)?;
    if versions.is_empty() {
        return Err(Status::not_found(&served.resource(), &attributes.name));
    }
    let (mut bytes, mut kept) = (0, 0);
    for version in versions.iter().rev().take(REVISIONS_MAX) {
        bytes += version.object.json_len();
        if bytes > BYTES_MAX && kept > 0 {
            break;
        }
        kept += 1;
    }
    let left_out = versions.len() - kept;
    let objects = versions
        .iter()
        .skip(left_out)
        .map(|version| version.object.clone())
        .collect();
    let shown = custom::shown(&call.server, served, objects).await?;
    for (version, shown) in versions.iter_mut().skip(left_out).zip(shown) {
        version.object = shown;
    }
    let items: Result<Vec<Value>, Status> = versions
        .drain(left_out..)
        .map(|version| item(served, &version))
        .collect();
    let answer = json!({
        "kind": "ObjectHistory", "apiVersion": "trireme/v1",
        "metadata": {"resourceVersion": storage.revision().to_string()},
        "oldestRevision": oldest.to_string(),
        "leftOut": left_out,
        "items": items?,
    });
    Ok(respond::tree(call, &answer, 200))
}

fn versions(call: &Call, served: &Served, key: bytes::Bytes, oldest: u64) -> Result<Vec<Version>, Status> {
    let storage = &call.server.storage;
    let gone = |error: store::WatchError| Status::expired(error.to_string());
    let interest = Interest::Key(key.clone());
    let mut cursor = storage
        .watch(&served.kind, oldest, interest)
        .map_err(|error| match error {
            WatchStart::Status(status) => status,
            WatchStart::Watch(error) => gone(error),
        })?;
    let mut versions = Vec::new();
    while let Some(batch) = cursor.try_next().map_err(gone)? {
        for event in &batch.events {
            let (before, after) = event_objects(event);
            if let (true, Some(before)) = (versions.is_empty(), &before) {
                versions.push(held(before.clone()));
            }
            let (word, object) = match (before, after) {
                (None, Some(after)) => ("ADDED", after),
                (Some(_), Some(after)) => ("MODIFIED", after),
                (Some(before), None) => ("DELETED", before),
                (None, None) => continue,
            };
            versions.push(Version {
                word,
                revision: event.revision,
                time_ms: Some(event.time_ms),
                object,
            });
        }
    }
    if versions.is_empty()
        && let Some(entry) = storage.table(&served.kind)?.get(&key)
    {
        versions.push(held(object_of(&entry)?));
    }
    Ok(versions)
}

/// The state at the beginning of what is held.
fn held(object: Arc<Object>) -> Version {
    Version {
        word: "HELD",
        revision: object.revision(),
        time_ms: None,
        object,
    }
}

fn item(served: &Served, version: &Version) -> Result<Value, Status> {
    let mut item = json!({
        "type": version.word,
        "revision": version.revision.to_string(),
        "object": view::value(served, &version.object, version.revision)?,
    });
    let time = version
        .time_ms
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    if let Some(time) = time {
        item["time"] = rfc3339(time).into();
    }
    Ok(item)
}
