//! The shape of every type: which fields there are, what they hold, when they are written, how they merge.
//!
//! One compact form serves built-in types (decoded once from the project's own file, see [`builtin`]) and custom
//! resources alike. Everything generic reads it: strict field validation, normal form, strategic merge, server-side
//! apply, protobuf and OpenAPI.
//!
//! Invariants: a graph never changes once made; the fields of an object are sorted by name; an id with
//! [`BUILTIN`] set leads into the built-in graph, so that a custom type shares `ObjectMeta` instead of copying it.

mod builtin;
mod custom;
mod field;
mod graph;
mod shape;

use std::fmt;
use std::sync::Arc;

pub use builtin::{ResourceRow, SubresourceRow, all_kinds, all_types, decode_again, resources};
pub use custom::{CustomSchemaError, apply_defaults};
pub use field::{Field, Omit, PatchStrategy};
pub use graph::{Builder, FieldSpec, Flags, Graph, NodeId};
pub use shape::{Fields, FieldsInOrder, ListKeys, ListType, Scalar, Shape};

pub(crate) use builtin::kinds_of;
use graph::Text;
pub(crate) use graph::{Absent, BUILTIN, WireStep};

use crate::GroupVersionKind;

/// A handle on one type of one graph; cheap to clone, free for built-in types.
#[derive(Clone)]
pub struct SchemaRef {
    graph: GraphRef,
    id: NodeId,
}

#[derive(Clone)]
enum GraphRef {
    Builtin,
    Own(Arc<Graph>),
}

impl SchemaRef {
    /// The type that a built-in kind is served as, list and option kinds included.
    pub fn builtin(gvk: &GroupVersionKind) -> Option<SchemaRef> {
        builtin::kind(gvk).map(SchemaRef::of_builtin)
    }

    /// The built-in type of a definition name, with or without `io.k8s.`: `io.k8s.api.core.v1.PodSpec`.
    pub fn builtin_type(definition_name: &str) -> Option<SchemaRef> {
        builtin::definition(definition_name).map(SchemaRef::of_builtin)
    }

    /// A type of a graph of one's own.
    pub fn own(graph: Arc<Graph>, id: NodeId) -> SchemaRef {
        SchemaRef {
            graph: GraphRef::Own(graph),
            id,
        }
    }

    fn of_builtin(id: NodeId) -> SchemaRef {
        SchemaRef {
            graph: GraphRef::Builtin,
            id,
        }
    }

    /// Whether it is a built-in type: those have protobuf messages.
    pub fn is_builtin(&self) -> bool {
        matches!(self.graph, GraphRef::Builtin)
    }

    /// The type itself, to walk from.
    pub fn node(&self) -> Node<'_> {
        match &self.graph {
            GraphRef::Builtin => Node::new(builtin::graph(), self.id),
            GraphRef::Own(graph) => Node::new(graph, self.id),
        }
    }

    /// The shape of [`SchemaRef::node`].
    pub fn shape(&self) -> Shape<'_> {
        self.node().shape()
    }

    /// A handle on a type that is reached by these field names; `[]` steps into lists and maps.
    pub fn at(&self, path: &[&str]) -> Option<SchemaRef> {
        let mut node = self.node();
        for step in path {
            node = match node.shape() {
                Shape::Object(_) => node.field(step)?.schema(),
                Shape::Map { value } => value,
                Shape::List { item, .. } => item,
                Shape::Scalar(_) => return None,
            };
        }
        let graph = if node.is_builtin() {
            GraphRef::Builtin
        } else {
            self.graph.clone()
        };
        Some(SchemaRef { graph, id: node.id() })
    }
}

impl fmt::Debug for SchemaRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemaRef({:?})", self.node())
    }
}

/// One type, borrowed: what the generic algorithms pass around.
#[derive(Clone, Copy)]
pub struct Node<'g> {
    graph: &'g Graph,
    id: NodeId,
}

impl<'g> Node<'g> {
    /// The type of that id. An id that leads into the built-in graph is followed.
    pub(crate) fn new(graph: &'g Graph, id: NodeId) -> Node<'g> {
        if id & BUILTIN != 0 && !graph.is_builtin() {
            Node {
                graph: builtin::graph(),
                id: id & !BUILTIN,
            }
        } else {
            Node { graph, id }
        }
    }

    pub(crate) fn graph(self) -> &'g Graph {
        self.graph
    }

    pub(crate) fn id(self) -> NodeId {
        self.id
    }

    pub(crate) fn is_builtin(self) -> bool {
        self.graph.is_builtin()
    }

    /// What the type holds.
    pub fn shape(self) -> Shape<'g> {
        self.graph.shape(self.id)
    }

    /// The definition's name without `io.k8s.`, such as `api.core.v1.PodSpec`; empty for lists, maps and parts of
    /// custom types.
    pub fn name(self) -> &'g str {
        self.graph.name(self.id)
    }

    /// The field of that name, when the type is an object that has it.
    pub fn field(self, name: &str) -> Option<Field<'g>> {
        match self.shape() {
            Shape::Object(fields) => fields.get(name),
            _ => None,
        }
    }

    /// Whether server-side apply owns the value as one: an object or map with map type `atomic`, a list that is
    /// not a set or map.
    pub fn is_atomic(self) -> bool {
        match self.shape() {
            Shape::List { list_type, .. } => matches!(list_type, ListType::Atomic),
            _ => self.graph.flags(self.id).atomic,
        }
    }

    /// Whether the map or list type was written down (and stands in OpenAPI) or is only the default.
    pub fn topology_is_declared(self) -> bool {
        self.graph.flags(self.id).declared
    }

    /// Whether fields that the schema does not name are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn preserves_unknown(self) -> bool {
        self.graph.flags(self.id).preserve_unknown
    }

    /// Whether a JSON null is a value of the type (`nullable` of custom resources).
    pub fn is_nullable(self) -> bool {
        self.graph.flags(self.id).nullable
    }

    /// Whether the value is a whole object with `apiVersion`, `kind` and `metadata` of its own.
    pub fn is_embedded_resource(self) -> bool {
        self.graph.flags(self.id).embedded
    }

    /// Go's name of the type, as decoding errors print it: `v1.PodSpec`, `[]v1.Container`, `map[string]string`.
    pub fn go_type(self) -> String {
        match self.shape() {
            Shape::Object(_) => {
                let mut parts = self.name().rsplit('.');
                match (parts.next(), parts.next()) {
                    (Some(kind), Some(package)) => format!("{package}.{kind}"),
                    _ => "map[string]interface {}".into(),
                }
            }
            Shape::Map { value } => format!("map[string]{}", value.go_type()),
            Shape::List { item, .. } => format!("[]{}", item.go_type()),
            Shape::Scalar(scalar) => scalar.go_type().into(),
        }
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.graph, other.graph) && self.id == other.id
    }
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_type())
    }
}

#[cfg(test)]
mod tests;
