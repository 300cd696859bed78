//! One object as an answer shows it: as it is in the served version, or its metadata alone. The same in single answers,
//! in lists and in frames of watches, in every media type.

use bytes::{BufMut, BytesMut};

use api::codec::{json, protobuf};
use api::{Status, Value};

use crate::cluster::Object;
use crate::registry::Served;

use super::negotiate::Form;
use super::{encode_failed, table, view};

/// What is shown of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// Everything.
    Object,
    /// Everything but `apiVersion` and `kind`, which a list of a built-in kind says for all its items (upstream's typed
    /// lists; those of custom resources repeat them).
    Listed,
    /// A `PartialObjectMetadata` of this version of `meta.k8s.io`.
    Partial(&'static str),
}

impl Item {
    /// What a form shows of each object; a Table is made of several and has none.
    pub fn of(form: Form) -> Option<Item> {
        match form {
            Form::Plain => Some(Item::Object),
            Form::Partial(version) | Form::PartialList(version) => Some(Item::Partial(version)),
            Form::Table(_) => None,
        }
    }

    /// The `apiVersion` and `kind` of what is shown.
    pub fn types(self, served: &Served) -> (String, &str) {
        match self {
            Item::Object | Item::Listed => (served.gvk.api_version(), &served.gvk.kind),
            Item::Partial(version) => (format!("meta.k8s.io/{version}"), "PartialObjectMetadata"),
        }
    }

    /// Appends the JSON, with `revision` as the resourceVersion.
    pub fn write_json(self, served: &Served, object: &Object, revision: u64, out: &mut BytesMut) -> Result<(), Status> {
        match self {
            Item::Object => view::write(served, object, revision, out),
            Item::Listed if served.is_hub() => {
                object.write_item(revision, out);
                Ok(())
            }
            Item::Listed => {
                let item = self.value(served, object, revision)?;
                serde_json::to_writer(out.writer(), &item).map_err(Status::internal)
            }
            // Straight from the stored bytes.
            Item::Partial(version) if served.is_hub() => {
                table::write_partial(object, revision, version, out);
                Ok(())
            }
            // A conversion may keep what its version has no field for in annotations.
            Item::Partial(version) => {
                let partial = table::partial_value(view::value(served, object, revision)?, version);
                serde_json::to_writer(out.writer(), &partial).map_err(Status::internal)
            }
        }
    }

    /// The tree.
    pub fn value(self, served: &Served, object: &Object, revision: u64) -> Result<Value, Status> {
        match self {
            Item::Object => view::value(served, object, revision),
            Item::Listed => {
                let mut tree = view::value(served, object, revision)?;
                if let Some(root) = tree.as_object_mut() {
                    root.remove("apiVersion");
                    root.remove("kind");
                }
                Ok(tree)
            }
            Item::Partial(_) => {
                let mut out = BytesMut::new();
                self.write_json(served, object, revision, &mut out)?;
                json::read(&out).map_err(Status::internal)
            }
        }
    }

    /// The protobuf message, without an envelope.
    pub fn message(self, served: &Served, object: &Object, revision: u64) -> Result<Vec<u8>, Status> {
        self.message_of(served, &self.value(served, object, revision)?)
    }

    /// The protobuf message of a tree.
    pub fn message_of(self, served: &Served, value: &Value) -> Result<Vec<u8>, Status> {
        let message = match self {
            // Messages say what they are in their envelope only.
            Item::Object | Item::Listed => protobuf::encode_raw(value, &served.schema),
            Item::Partial(_) => protobuf::partial(&value["metadata"]),
        };
        message.map_err(encode_failed)
    }

    /// How long the protobuf message is. Remembered for objects in the stored version, so that only the first who lists
    /// them makes them twice.
    pub fn message_len(self, served: &Served, object: &Object) -> Result<usize, Status> {
        let make = || Ok(self.message(served, object, object.revision())?.len());
        if matches!(self, Item::Partial(_)) || !served.is_hub() {
            return make();
        }
        if let Some(known) = object.message_len().get() {
            return Ok(*known as usize);
        }
        let len = make()?;
        // Somebody else may have been faster, with the same length.
        let _ = object.message_len().set(u32::try_from(len).unwrap_or(u32::MAX));
        Ok(len)
    }

    /// The protobuf message in its envelope.
    pub fn enveloped(self, served: &Served, object: &Object, revision: u64) -> Result<Vec<u8>, Status> {
        let (api_version, kind) = self.types(served);
        let message = self.message(served, object, revision)?;
        Ok(protobuf::enveloped(&api_version, kind, &message))
    }
}
