//! Answers in the shapes of `meta.k8s.io`: Table for people, PartialObjectMetadata for controllers.
//!
//! Cells may depend on the time (ages), so nothing here is cached (D1).

use bytes::{BufMut, BytesMut};
use serde_json::json;

use api::{Map, Status, Value, meta};
use kinds::row::{Columns, PrintContext};

use crate::cluster::Object;
use crate::registry::Served;
use crate::request::Query;

use super::view;

/// What a row of a Table carries besides its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The metadata (the default).
    Metadata,
    /// The whole object.
    Object,
}

impl IncludeObject {
    /// Reads the `includeObject` parameter.
    pub fn parse(query: &Query) -> Result<IncludeObject, Status> {
        match query.text("includeObject") {
            "" | "Metadata" => Ok(IncludeObject::Metadata),
            "None" => Ok(IncludeObject::None),
            "Object" => Ok(IncludeObject::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                api::field::quote(other)
            ))),
        }
    }
}

/// A Table in the making.
pub struct TableWriter<'a> {
    served: &'a Served,
    include: IncludeObject,
    version: &'static str,
    context: PrintContext,
}

impl<'a> TableWriter<'a> {
    /// A writer of tables in `meta.k8s.io/<version>`.
    pub fn new(served: &'a Served, include: IncludeObject, version: &'static str, now_seconds: i64) -> Self {
        TableWriter {
            served,
            include,
            version,
            context: PrintContext { now_seconds },
        }
    }

    /// The table of some objects. `metadata` is the list's (or empty); watches leave the headings out after the first.
    pub fn table<'o>(
        &self,
        objects: impl Iterator<Item = (&'o Object, u64)>,
        metadata: Map,
        headings: bool,
    ) -> Result<Value, Status> {
        let rows: Result<Vec<Value>, Status> = objects.map(|(object, revision)| self.row(object, revision)).collect();
        Ok(self.assemble(rows?, metadata, headings))
    }

    /// A table whose only row is a bookmark's object, which is in the served version.
    pub fn bookmark(&self, object: Value, revision: u64, headings: bool) -> Value {
        let metadata = Map::from_iter([("resourceVersion".into(), revision.to_string().into())]);
        self.assemble(vec![self.row_of(object)], metadata, headings)
    }

    fn columns(&self) -> Option<&'a Columns> {
        self.served.version().columns.as_ref()
    }

    fn assemble(&self, rows: Vec<Value>, metadata: Map, headings: bool) -> Value {
        let definitions = if headings {
            self.definitions()
        } else {
            Value::Array(vec![])
        };
        json!({
            "kind": "Table",
            "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": metadata,
            "columnDefinitions": definitions,
            "rows": rows,
        })
    }

    fn definitions(&self) -> Value {
        let definition = |name: &str, kind: &str, format: &str, priority: i32, description: &str| json!({"name": name, "type": kind, "format": format, "priority": priority, "description": description});
        if let Some(custom) = &self.served.version().custom {
            let own = custom.columns.iter().map(|column| column.definition.clone());
            let name = definition("Name", "string", "name", 0, NAME_DESCRIPTION);
            return std::iter::once(name).chain(own).collect();
        }
        match self.columns() {
            Some(columns) => columns
                .definitions
                .iter()
                .map(|c| definition(c.name, c.kind, c.format, c.priority, c.description))
                .collect(),
            None => json!([
                definition("Name", "string", "name", 0, NAME_DESCRIPTION),
                definition("Created At", "date", "", 0, CREATED_DESCRIPTION),
            ]),
        }
    }

    fn row(&self, object: &Object, revision: u64) -> Result<Value, Status> {
        Ok(self.row_of(view::value(self.served, object, revision)?))
    }

    fn row_of(&self, tree: Value) -> Value {
        let cells = match (&self.served.version().custom, self.columns()) {
            (Some(custom), _) => {
                let own = custom.columns.iter().map(|column| column.cell(&tree, &self.context));
                std::iter::once(meta::name(&tree).into()).chain(own).collect()
            }
            (None, Some(columns)) => (columns.cells)(&tree, &self.context),
            (None, None) => vec![meta::name(&tree).into(), meta::text(&tree, "creationTimestamp").into()],
        };
        let mut row = Map::new();
        row.insert("cells".into(), Value::Array(cells));
        match self.include {
            // Not left out: upstream's field is no pointer.
            IncludeObject::None => {
                row.insert("object".into(), Value::Null);
            }
            IncludeObject::Object => {
                row.insert("object".into(), tree);
            }
            IncludeObject::Metadata => {
                row.insert("object".into(), partial_value(tree, self.version));
            }
        }
        Value::Object(row)
    }
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED_DESCRIPTION: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.";

/// The PartialObjectMetadata of a tree.
pub fn partial_value(mut tree: Value, version: &str) -> Value {
    let metadata = tree.get_mut("metadata").map(Value::take).unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// Appends a PartialObjectMetadata in the stored version, straight from the stored bytes.
pub fn write_partial(object: &Object, revision: u64, version: &str, out: &mut BytesMut) {
    out.put_slice(br#"{"apiVersion":"meta.k8s.io/"#);
    out.put_slice(version.as_bytes());
    out.put_slice(br#"","kind":"PartialObjectMetadata","metadata":"#);
    object.write_metadata(revision, out);
    out.put_u8(b'}');
}
