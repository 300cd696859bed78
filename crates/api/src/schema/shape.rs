//! What a type holds: an object of fields, a map, a list or a scalar.

use std::cmp::Ordering;

use super::field::Field;
use super::{Graph, Node, Text};

/// What a type holds.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'g> {
    /// Named fields.
    Object(Fields<'g>),
    /// Any string keys, values of one type.
    Map {
        /// The type of the values.
        value: Node<'g>,
    },
    /// Elements of one type.
    List {
        /// The type of the elements.
        item: Node<'g>,
        /// How two lists merge in server-side apply.
        list_type: ListType<'g>,
    },
    /// A single value, or a value that the schema does not look into.
    Scalar(Scalar),
}

/// How the elements of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug)]
pub enum ListType<'g> {
    /// Not at all: the list is one value. Also what a list has that declares nothing.
    Atomic,
    /// By value.
    Set,
    /// By the values of these fields.
    Map(ListKeys<'g>),
}

/// The names of the key fields of a list of type map, in their declared order.
#[derive(Clone, Copy)]
pub struct ListKeys<'g> {
    pub(super) graph: &'g Graph,
    pub(super) keys: &'g [Text],
}

impl<'g> ListKeys<'g> {
    /// The names.
    pub fn iter(self) -> impl ExactSizeIterator<Item = &'g str> + Clone {
        self.keys.iter().map(move |text| self.graph.text(*text))
    }
}

impl std::fmt::Debug for ListKeys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The fields of an object, sorted by name.
#[derive(Clone, Copy)]
pub struct Fields<'g> {
    pub(super) graph: &'g Graph,
    pub(super) start: usize,
    pub(super) len: usize,
}

impl<'g> Fields<'g> {
    /// The fields in the order of their names.
    pub fn iter(self) -> impl ExactSizeIterator<Item = Field<'g>> + Clone {
        (self.start..self.start + self.len).map(move |index| Field::new(self.graph, index))
    }

    /// The field of that name.
    pub fn get(self, name: &str) -> Option<Field<'g>> {
        let fields = self.graph.fields_in(self.start, self.len);
        let found = fields.binary_search_by(|field| self.graph.text(field.name).cmp(name));
        found.ok().map(|index| Field::new(self.graph, self.start + index))
    }

    /// Finds fields by names that come in their order.
    pub fn in_order(self) -> FieldsInOrder<'g> {
        FieldsInOrder { left: self }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Finds the fields of an object by names that come in their order: one walk for all of them.
#[derive(Clone, Copy, Debug)]
pub struct FieldsInOrder<'g> {
    left: Fields<'g>,
}

impl<'g> FieldsInOrder<'g> {
    /// The field of a name, which does not sort before those that were looked for already.
    pub fn find(&mut self, name: &str) -> Option<Field<'g>> {
        while self.left.len > 0 {
            let field = Field::new(self.left.graph, self.left.start);
            match field.name().cmp(name) {
                Ordering::Less => {
                    self.left.start += 1;
                    self.left.len -= 1;
                }
                Ordering::Equal => return Some(field),
                Ordering::Greater => return None,
            }
        }
        None
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|field| field.name())).finish()
    }
}

/// A value that the schema does not look into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Text.
    String,
    /// Bytes, base64 in JSON.
    Bytes,
    /// True or false.
    Bool,
    /// A 32 bit integer.
    Int32,
    /// A 64 bit integer.
    Int64,
    /// A floating point number.
    Double,
    /// An amount: `100m`, `2Gi`.
    Quantity,
    /// A time in whole seconds, RFC 3339 in UTC.
    Time,
    /// A time in microseconds, RFC 3339 with six digits.
    MicroTime,
    /// A number or a text.
    IntOrString,
    /// Any JSON value.
    Any,
    /// The set of fields of a `managedFields` entry.
    FieldsV1,
    /// An object of another type, with or without `kind` and `apiVersion`; also any other JSON value.
    RawObject,
    /// A `JSONSchemaProps` or a boolean (`additionalProperties`).
    SchemaOrBool,
    /// A `JSONSchemaProps` or a list of them (`items`).
    SchemaOrArray,
    /// A `JSONSchemaProps` or a list of strings (`dependencies`).
    SchemaOrStrings,
}

impl Scalar {
    /// Go's name of the type.
    pub(crate) fn go_type(self) -> &'static str {
        match self {
            Scalar::String => "string",
            Scalar::Bytes => "[]uint8",
            Scalar::Bool => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "float64",
            Scalar::Quantity => "resource.Quantity",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::IntOrString => "intstr.IntOrString",
            Scalar::Any => "interface {}",
            Scalar::FieldsV1 => "v1.FieldsV1",
            Scalar::RawObject => "runtime.RawExtension",
            Scalar::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Scalar::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Scalar::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
        }
    }

    /// Whether the value may be of any JSON type.
    pub fn is_opaque(self) -> bool {
        matches!(
            self,
            Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject | Scalar::SchemaOrArray | Scalar::SchemaOrStrings
        ) || self == Scalar::SchemaOrBool
    }
}
