//! What a reader sees of a stored object: the stored bytes themselves in the stored version, everything else derived on
//! demand (D1).

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use api::normalize::{UnknownFields, normalize};
use api::{Status, Value};

use crate::cluster::Object;
use crate::registry::{Kind, Served};

/// The object in the served version, with a resourceVersion.
pub fn value(served: &Served, object: &Object, revision: u64) -> Result<Value, Status> {
    let mut tree = object.value();
    if revision > 0 {
        api::meta::set_text(&mut tree, "resourceVersion", &revision.to_string());
    }
    from_hub(served, tree)
}

/// Appends the object's JSON in the served version, with a resourceVersion.
pub fn write(served: &Served, object: &Object, revision: u64, out: &mut BytesMut) -> Result<(), Status> {
    if served.is_hub() {
        object.write_json(revision, out);
        return Ok(());
    }
    let tree = value(served, object, revision)?;
    serde_json::to_writer(out.writer(), &tree).map_err(Status::internal)
}

/// The same of an object that is only looked at: in the stored version it is there already.
pub fn seen<'a>(served: &Served, tree: &'a Value) -> Result<Cow<'a, Value>, Status> {
    match served.is_hub() && served.kind.custom.is_none() {
        true => Ok(Cow::Borrowed(tree)),
        false => from_hub(served, tree.clone()).map(Cow::Owned),
    }
}

/// Converts a hub object to the served version.
pub fn from_hub(served: &Served, tree: Value) -> Result<Value, Status> {
    from_hub_version(&served.kind, served.index(), tree)
}

/// Converts a hub object to one of its kind's served versions.
pub fn from_hub_version(kind: &Kind, index: usize, tree: Value) -> Result<Value, Status> {
    if let Some(custom) = &kind.custom {
        return custom.convert_here(tree, index);
    }
    let Some(conversion) = kind.row.served[index].conversion else {
        return Ok(tree);
    };
    let (gvk, schema) = &kind.versions[index];
    let mut tree = (conversion.from_hub)(tree)?;
    set_kind(&mut tree, &gvk.api_version(), &gvk.kind);
    normalize(&mut tree, schema, UnknownFields::Ignore).map_err(Status::internal)?;
    Ok(tree)
}

/// Converts an object of the served version to the hub.
pub fn to_hub(served: &Served, tree: Value) -> Result<Value, Status> {
    to_hub_version(&served.kind, served.index(), tree)
}

/// Converts an object of one of its kind's served versions to the hub.
pub fn to_hub_version(kind: &Kind, index: usize, tree: Value) -> Result<Value, Status> {
    if let Some(custom) = &kind.custom {
        return custom.convert_here(tree, custom.index_of(&kind.hub.version));
    }
    let Some(conversion) = kind.row.served[index].conversion else {
        return Ok(tree);
    };
    let mut tree = (conversion.to_hub)(tree)?;
    set_kind(&mut tree, &kind.hub.api_version(), &kind.hub.kind);
    normalize(&mut tree, &kind.schema, UnknownFields::Ignore).map_err(Status::internal)?;
    Ok(tree)
}

/// Writes `apiVersion` and `kind`.
pub fn set_kind(tree: &mut Value, api_version: &str, kind: &str) {
    if let Some(root) = tree.as_object_mut() {
        root.insert("apiVersion".into(), api_version.into());
        root.insert("kind".into(), kind.into());
    }
}

/// Brings an object of the served version into normal form.
pub fn renormalize(tree: &mut Value, served: &Served) -> Result<(), Status> {
    normalize(tree, &served.schema, UnknownFields::Ignore).map_err(Status::internal)?;
    Ok(())
}
