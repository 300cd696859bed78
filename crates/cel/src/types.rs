//! The types of expressions: what variables are declared with and what the checker finds out.
//!
//! A type is cheap to clone: everything that nests is shared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::parser::RESERVED;

/// The type of a variable, a field or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Known at run time only. Int-or-string fields and preserved unknown fields are of this type.
    Dyn,
    /// The value `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// 64 bits, IEEE 754.
    Double,
    /// Unicode text.
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// A span of time in nanoseconds; Go's text (`1h30m`) in JSON.
    Duration,
    /// A point in time; RFC 3339 in JSON.
    Timestamp,
    /// A list of values of one type.
    List(Arc<Type>, Identity),
    /// A map of keys of one type to values of another.
    Map(Arc<Type>, Arc<Type>),
    /// A record with declared fields.
    Object(Arc<ObjectType>),
    /// A value that is there or not.
    Optional(Arc<Type>),
    /// A type of a library, by its name: `kubernetes.Quantity`, `net.IP`.
    Opaque(&'static str),
    /// A type as a value.
    Type(Option<Arc<Type>>),
    /// A placeholder of a signature (`A`), or one of the checker's own (`_var0`).
    Param(Arc<str>),
    /// What could not be checked; its error was reported already.
    Error,
}

/// What tells the elements of a list apart where that is declared (`x-kubernetes-list-type`). It changes what `==` and `+` do
/// with a list of an object, and nothing for the checker: types that differ in it only are equal.
#[derive(Clone, Debug, Default)]
pub enum Identity {
    /// Their place.
    #[default]
    Place,
    /// What they are: a set.
    Whole,
    /// These fields of theirs.
    Keys(Arc<[String]>),
}

impl PartialEq for Identity {
    fn eq(&self, _: &Identity) -> bool {
        true
    }
}

impl Eq for Identity {}

/// A record type: its name, and its fields as expressions name them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ObjectType {
    /// The name that messages show: `kubernetes.SubjectAccessReviewSpec`.
    pub name: String,
    /// The fields by the name that expressions use (see [`escape`]).
    pub fields: BTreeMap<String, Field>,
    /// Whether it has every other field too, of any type.
    pub open: bool,
}

/// A field of a record type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its key in JSON.
    pub key: String,
    /// Its type.
    pub kind: Type,
}

impl ObjectType {
    /// A record type with fields whose keys in JSON need no escape.
    pub fn new(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> ObjectType {
        let field = |(key, kind): (&str, Type)| {
            (
                key.to_owned(),
                Field {
                    key: key.to_owned(),
                    kind,
                },
            )
        };
        ObjectType {
            name: name.to_owned(),
            fields: fields.into_iter().map(field).collect(),
            open: false,
        }
    }

    /// A record type of which only the name is known: it has any field.
    pub fn open(name: &str) -> ObjectType {
        ObjectType {
            name: name.to_owned(),
            fields: BTreeMap::new(),
            open: true,
        }
    }
}

impl Type {
    /// A list of `element`.
    pub fn list(element: Type) -> Type {
        Type::List(Arc::new(element), Identity::Place)
    }

    /// A map of `key` to `value`.
    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    /// A record type with these fields.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Type {
        Type::Object(Arc::new(ObjectType::new(name, fields)))
    }

    /// `value` or nothing.
    pub fn optional(value: Type) -> Type {
        Type::Optional(Arc::new(value))
    }

    pub(crate) fn param(name: &str) -> Type {
        Type::Param(Arc::from(name))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The types inside of this one.
    pub(crate) fn parameters(&self) -> Vec<&Type> {
        match self {
            Type::List(inner, _) | Type::Optional(inner) | Type::Type(Some(inner)) => vec![inner],
            Type::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// The same type with other types inside.
    pub(crate) fn map_parameters(&self, change: &mut dyn FnMut(&Type) -> Type) -> Type {
        match self {
            Type::List(inner, identity) => Type::List(Arc::new(change(inner)), identity.clone()),
            Type::Optional(inner) => Type::Optional(Arc::new(change(inner))),
            Type::Type(Some(inner)) => Type::Type(Some(Arc::new(change(inner)))),
            Type::Map(key, value) => Type::map(change(key), change(value)),
            other => other.clone(),
        }
    }

    /// The name of the type without what is inside: what `type(x)` prints.
    pub fn name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(..) => "list",
            Type::Map(..) => "map",
            Type::Object(object) => &object.name,
            Type::Optional(_) => "optional_type",
            Type::Opaque(name) => name,
            Type::Type(_) => "type",
            Type::Param(name) => name,
            Type::Error => "*error*",
        }
    }

    /// As cel-go's `Type.String` shows it, which differs from the checker's messages: `null_type`,
    /// `google.protobuf.Timestamp`.
    pub fn declared(&self) -> String {
        let inside: Vec<String> = self.parameters().into_iter().map(Type::declared).collect();
        match inside.is_empty() {
            true => self.name().to_owned(),
            false => format!("{}({})", self.name(), inside.join(", ")),
        }
    }
}

/// As messages of the checker show it.
impl fmt::Display for Type {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => return to.write_str("null"),
            Type::Duration => return to.write_str("duration"),
            Type::Timestamp => return to.write_str("timestamp"),
            Type::Error => return to.write_str("!error!"),
            _ => {}
        }
        to.write_str(self.name())?;
        let inside = self.parameters();
        for (index, one) in inside.iter().enumerate() {
            write!(to, "{}{one}", if index == 0 { "(" } else { ", " })?;
        }
        if inside.is_empty() { Ok(()) } else { to.write_str(")") }
    }
}

/// Whether a text is a name that expressions can declare: an identifier that is no word of the language.
pub fn is_identifier(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let is_word = WORDS.contains(&name) || RESERVED.contains(&name);
    starts && !is_word && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
}

/// Words that are values or operators; like [`RESERVED`] ones, a property of that name is escaped.
const WORDS: &[&str] = &["true", "false", "null", "in"];

/// The name by which expressions reach a property: `x-prop` is `x__dash__prop`. `None` when it cannot be named at all.
/// Source: `k8s.io/apiserver/pkg/cel/escaping.go`.
pub fn escape(property: &str) -> Option<String> {
    if property.is_empty() || property.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if WORDS.contains(&property) || RESERVED.contains(&property) {
        return Some(format!("__{property}__"));
    }
    let mut escaped = String::with_capacity(property.len());
    let mut rest = property;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            escaped.push_str("__underscores__");
            rest = after;
            continue;
        }
        match next {
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            _ if next.is_ascii_alphanumeric() || next == '_' => escaped.push(next),
            _ => return None,
        }
        rest = &rest[next.len_utf8()..];
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_escaped_as_upstream_does() {
        for (property, expect) in [
            ("plain", Some("plain")),
            ("x-prop", Some("x__dash__prop")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("redact__d", Some("redact__underscores__d")),
            ("in", Some("__in__")),
            ("_x", Some("_x")),
            ("1a", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(escape(property).as_deref(), expect, "{property}");
        }
    }

    #[test]
    fn identifiers_are_no_words() {
        for (name, expect) in [
            ("a", true),
            ("_a1", true),
            ("in", false),
            ("namespace", false),
            ("1a", false),
            ("a-b", false),
            ("", false),
        ] {
            assert_eq!(is_identifier(name), expect, "{name}");
        }
    }

    #[test]
    fn types_are_shown_as_in_upstream_messages() {
        for (kind, expect) in [
            (Type::list(Type::Int), "list(int)"),
            (Type::map(Type::String, Type::Dyn), "map(string, dyn)"),
            (Type::optional(Type::Timestamp), "optional_type(timestamp)"),
            (Type::Type(Some(Arc::new(Type::Null))), "type(null)"),
            (Type::object("x.Y", [("z", Type::Bool)]), "x.Y"),
        ] {
            assert_eq!(kind.to_string(), expect);
        }
    }
}
