//! The schema as server-side apply sees it: maps, lists and scalars, granular or atomic.
//!
//! Values that the schema does not look into (raw objects, custom resources' preserved fields, quantities,
//! int-or-strings) are *deduced*: maps are granular, lists atomic, everything else a scalar.

use super::element::PathElement;
use crate::schema::{Field, FieldsInOrder, ListType, Node, Omit, Scalar, Shape};
use crate::{Map, Value};

/// A type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type<'g> {
    /// Of the schema.
    Node(Node<'g>),
    /// By what the value is.
    Deduced,
}

/// What a value is treated as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Atom<'g> {
    Map(MapType<'g>),
    List(ListOf<'g>),
    Scalar(ScalarKind),
}

/// The kinds of scalars that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarKind {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// An object or map.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapType<'g>(Option<Node<'g>>);

/// A list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListOf<'g>(Option<Node<'g>>);

impl<'g> Type<'g> {
    /// What this value is treated as. Absent and null values of deduced types count as maps.
    pub(super) fn atom(self, value: Option<&Value>) -> Atom<'g> {
        let node = match self {
            Type::Node(node) => node,
            Type::Deduced => return deduce(value),
        };
        match node.shape() {
            Shape::Object(_) | Shape::Map { .. } => Atom::Map(MapType(Some(node))),
            Shape::List { .. } => Atom::List(ListOf(Some(node))),
            Shape::Scalar(scalar) => match scalar {
                Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => Atom::Scalar(ScalarKind::String),
                Scalar::Bool => Atom::Scalar(ScalarKind::Boolean),
                Scalar::Int32 | Scalar::Int64 | Scalar::Double => Atom::Scalar(ScalarKind::Numeric),
                _ => deduce(value),
            },
        }
    }

    /// The atoms of both sides when they differ, which only deduced types can; else the one.
    pub(super) fn atoms(self, lhs: Option<&Value>, rhs: Option<&Value>) -> (Option<Atom<'g>>, Atom<'g>) {
        match (lhs, rhs) {
            (_, None) => (None, self.atom(lhs)),
            (None, _) => (None, self.atom(rhs)),
            (Some(left), Some(right)) if self.is_deduced() && class(left) != class(right) => {
                (Some(self.atom(lhs)), self.atom(rhs))
            }
            _ => (None, self.atom(rhs)),
        }
    }

    /// Whether what a value is depends on the value.
    pub(super) fn is_deduced(self) -> bool {
        match self {
            Type::Deduced => true,
            Type::Node(node) => match node.shape() {
                Shape::Scalar(scalar) => scalar.is_opaque() || matches!(scalar, Scalar::IntOrString | Scalar::Quantity),
                _ => false,
            },
        }
    }
}

fn deduce<'g>(value: Option<&Value>) -> Atom<'g> {
    match value.map(class) {
        Some(Class::Scalar) => Atom::Scalar(ScalarKind::Untyped),
        Some(Class::List) => Atom::List(ListOf(None)),
        Some(Class::Map | Class::Null) | None => Atom::Map(MapType(None)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Null,
    Scalar,
    List,
    Map,
}

fn class(value: &Value) -> Class {
    match value {
        Value::Null => Class::Null,
        Value::Array(_) => Class::List,
        Value::Object(_) => Class::Map,
        _ => Class::Scalar,
    }
}

impl<'g> MapType<'g> {
    /// Whether it is owned as one.
    pub(super) fn is_atomic(self) -> bool {
        self.0.is_some_and(Node::is_atomic)
    }

    /// Whether nothing is known about it.
    pub(super) fn is_deduced(self) -> bool {
        self.0.is_none()
    }

    /// Whether the schema names this field.
    pub(super) fn declares(self, key: &str) -> bool {
        self.0.is_some_and(|node| node.field(key).is_some())
    }

    /// The types of what stands under its keys.
    pub(super) fn children(self) -> Children<'g> {
        let mut children = Children {
            fields: None,
            others: Some(Type::Deduced),
        };
        match self.0.map(|node| (node, node.shape())) {
            None => {}
            Some((node, Shape::Object(fields))) => {
                children.fields = Some(fields.in_order());
                if !node.preserves_unknown() && !fields.is_empty() {
                    children.others = None;
                }
            }
            Some((_, Shape::Map { value })) => children.others = Some(Type::Node(value)),
            Some(_) => children.others = None,
        }
        children
    }
}

/// The types of what stands under the keys of an object or map, which are asked for in their order.
pub(super) struct Children<'g> {
    fields: Option<FieldsInOrder<'g>>,
    /// Of what is no field.
    others: Option<Type<'g>>,
}

impl<'g> Children<'g> {
    /// The type of what stands under a key; `None` when an object has no such field.
    pub(super) fn of(&mut self, key: &str) -> Option<Type<'g>> {
        let field = self.fields.as_mut().and_then(|fields| fields.find(key));
        field.map_or(self.others, |field| Some(Type::Node(field.schema())))
    }
}

impl<'g> ListOf<'g> {
    fn list_type(self) -> ListType<'g> {
        match self.0.map(Node::shape) {
            Some(Shape::List { list_type, .. }) => list_type,
            _ => ListType::Atomic,
        }
    }

    /// Whether it is owned as one.
    pub(super) fn is_atomic(self) -> bool {
        matches!(self.list_type(), ListType::Atomic)
    }

    /// The type of the elements.
    pub(super) fn item(self) -> Type<'g> {
        match self.0.map(Node::shape) {
            Some(Shape::List { item, .. }) => Type::Node(item),
            _ => Type::Deduced,
        }
    }

    /// What identifies an element.
    pub(super) fn element(self, item: &Value) -> Result<PathElement, String> {
        match self.list_type() {
            ListType::Atomic => Err("invalid indexing of non-associative list".into()),
            ListType::Set => match class(item) {
                Class::Map => Err("associative list without keys has an element that's a map type".into()),
                Class::List => Err("not supported: associative list with lists as elements".into()),
                Class::Null => Err("associative list without keys has an element that's an explicit null".into()),
                Class::Scalar => Ok(PathElement::Value(item.clone())),
            },
            ListType::Map(keys) => {
                let map = match item {
                    Value::Object(map) => map,
                    Value::Null => return Err("associative list with keys may not have a null element".into()),
                    _ => return Err("associative list with keys may not have non-map elements".into()),
                };
                let mut found: Vec<_> = keys
                    .iter()
                    .filter_map(|key| Some((key.into(), self.key_value(map, key)?)))
                    .collect();
                if found.is_empty() {
                    let keys: Vec<String> = keys.iter().map(crate::field::quote).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        keys.join(" ")
                    ));
                }
                found.sort_by(|a: &(std::sync::Arc<str>, Value), b| a.0.cmp(&b.0));
                Ok(PathElement::Key(found.into()))
            }
        }
    }

    /// The value of a key: as given, else its default.
    fn key_value(self, map: &Map, key: &str) -> Option<Value> {
        if let Some(value) = map.get(key) {
            return Some(value.clone());
        }
        match self.item() {
            Type::Node(item) => key_default(item.field(key)?),
            Type::Deduced => None,
        }
    }
}

/// The default that upstream's OpenAPI gives a key: the static one, or Go's zero for what is always written.
fn key_default(field: Field<'_>) -> Option<Value> {
    if let Some(default) = field.default() {
        return Some(default);
    }
    let zero = match field.schema().shape() {
        Shape::Scalar(Scalar::String) => Value::from(""),
        Shape::Scalar(Scalar::Int32 | Scalar::Int64) => Value::from(0),
        Shape::Scalar(Scalar::Bool) => Value::from(false),
        _ => return None,
    };
    let always_written = field.omit() == Omit::Never && !field.is_pointer();
    let marked = || field.markers().iter().any(|marker| marker == "default=\"\"");
    (always_written || marked()).then_some(zero)
}
