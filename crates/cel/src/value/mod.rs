//! Values of expressions.
//!
//! Whatever comes from an object stays where it is: lists, maps and texts of JSON are borrowed and become values one by one,
//! by the declared type, when an expression reaches them.

mod equality;
mod identity;
mod json;
pub mod time;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::library::opaque::Opaque;
use crate::types::{Identity, ObjectType, Type};

pub(crate) use equality::WORK_MAX;
pub use time::Timestamp;

/// A value. `'a` is the life of the objects that variables are bound to.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// A list.
    List(List<'a>),
    /// A map or a record.
    Map(Map<'a>),
    /// A value that is there or not.
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// A value of a library: a quantity, an address.
    Opaque(Opaque),
}

/// A text that is borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    /// Of an object.
    Borrowed(&'a str),
    /// Made by an expression, or a literal of it.
    Shared(Arc<str>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// Of an object, with the type of its elements.
    Json(&'a [serde_json::Value], Type, Identity),
    /// Made by an expression.
    Made(Arc<Vec<Value<'a>>>, Identity),
}

/// A map or a record.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// Of an object, with the type of its values.
    Json(&'a serde_json::Map<String, serde_json::Value>, Type),
    /// A record of an object.
    Record(&'a serde_json::Map<String, serde_json::Value>, Arc<ObjectType>),
    /// Made by an expression.
    Made(Arc<BTreeMap<Key<'a>, Value<'a>>>),
    /// A record made by an expression: `Name{field: value}`.
    MadeRecord(Arc<BTreeMap<Key<'a>, Value<'a>>>, Arc<ObjectType>),
}

/// A key of a map. Numbers that are equal are one key.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A text.
    String(Text<'a>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Text<'a> {
        Text::Borrowed(text)
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Text::Shared(Arc::from(text))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::String(text.into())
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(text.into())
    }
}

impl<'a> Key<'a> {
    /// A value as a key; `None` when its type cannot be one. A whole floating-point number is the key of that number.
    pub(crate) fn of(value: &Value<'a>) -> Option<Key<'a>> {
        match value {
            Value::Bool(value) => Some(Key::Bool(*value)),
            Value::Int(value) => Some(Key::Int(*value)),
            Value::Uint(value) => Some(Key::Uint(*value)),
            Value::String(text) => Some(Key::String(text.clone())),
            Value::Double(value) if value.fract() == 0.0 => {
                let number = *value as i128;
                i64::try_from(number)
                    .map(Key::Int)
                    .or_else(|_| u64::try_from(number).map(Key::Uint))
                    .ok()
            }
            _ => None,
        }
    }

    /// The key as a value.
    pub fn value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }

    fn order(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::String(text) => (2, 0, text),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl<'a> List<'a> {
    /// A list of these values.
    pub fn made(values: Vec<Value<'a>>) -> List<'a> {
        List::Made(Arc::new(values), Identity::Place)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            List::Json(values, ..) => values.len(),
            List::Made(values, _) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            List::Json(values, kind, _) => values.get(index).map(|value| Value::from_json(value, kind)),
            List::Made(values, _) => values.get(index).cloned(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

impl<'a> Map<'a> {
    /// A map of these entries.
    pub fn made(entries: BTreeMap<Key<'a>, Value<'a>>) -> Map<'a> {
        Map::Made(Arc::new(entries))
    }

    /// How many entries there are; of a record, how many fields are set.
    pub fn len(&self) -> usize {
        match self {
            Map::Json(entries, _) | Map::Record(entries, _) => entries.len(),
            Map::Made(entries) | Map::MadeRecord(entries, _) => entries.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a text key, or of a field by the name that expressions use.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Json(entries, kind) => entries.get(name).map(|value| Value::from_json(value, kind)),
            Map::Record(entries, object) => {
                let field = object.fields.get(name)?;
                entries
                    .get(&field.key)
                    .map(|value| Value::from_json(value, &field.kind))
            }
            Map::Made(entries) | Map::MadeRecord(entries, _) => {
                entries.get(&Key::String(Text::Shared(Arc::from(name)))).cloned()
            }
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Map::Made(entries) | Map::MadeRecord(entries, _), key) => entries.get(key).cloned(),
            (_, Key::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The keys; of a record, the names of the fields that are set.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Map::Json(entries, _) => entries.keys().map(|key| Key::String(Text::Borrowed(key))).collect(),
            Map::Record(entries, object) => {
                let set = |(name, field): (&String, &crate::types::Field)| {
                    entries
                        .contains_key(&field.key)
                        .then(|| Key::String(Text::Shared(Arc::from(name.as_str()))))
                };
                object.fields.iter().filter_map(set).collect()
            }
            Map::Made(entries) | Map::MadeRecord(entries, _) => entries.keys().cloned().collect(),
        }
    }
}

impl<'a> Value<'a> {
    /// A list of these values.
    pub fn list(values: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::made(values))
    }

    /// A shared text.
    pub(crate) fn shared(text: &Arc<str>) -> Value<'a> {
        Value::String(Text::Shared(text.clone()))
    }

    pub(crate) fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    /// The type of the value at run time, without what is inside.
    pub fn kind(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(Map::Record(_, object) | Map::MadeRecord(_, object)) => Type::Object(object.clone()),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Opaque(value) => Type::Opaque(value.type_name()),
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The truth of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether a value that an expression made has at most `left` parts; takes them away. What is of an object counts once:
    /// it is as large as it is, but what is made can hold itself twice and again.
    pub(crate) fn is_within(&self, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        match self {
            Value::List(List::Made(values, _)) => values.iter().all(|value| value.is_within(left)),
            Value::Map(Map::Made(entries) | Map::MadeRecord(entries, _)) => {
                entries.values().all(|value| value.is_within(left))
            }
            Value::Optional(Some(value)) => value.is_within(left),
            _ => true,
        }
    }

    /// What `size` says: characters, bytes, elements or entries; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<usize> {
        match self {
            Value::String(text) => Some(if text.is_ascii() {
                text.len()
            } else {
                text.chars().count()
            }),
            Value::Bytes(bytes) => Some(bytes.len()),
            Value::List(list) => Some(list.len()),
            Value::Map(map) => Some(map.len()),
            _ => None,
        }
    }
}

/// As cel-go prints a value into a message.
impl fmt::Display for Value<'_> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => to.write_str("null"),
            Value::Bool(value) => write!(to, "{value}"),
            Value::Int(value) => write!(to, "{value}"),
            Value::Uint(value) => write!(to, "{value}"),
            Value::Double(value) => to.write_str(&crate::library::double_text(*value)),
            Value::String(text) => to.write_str(text),
            Value::Bytes(bytes) => to.write_str(&String::from_utf8_lossy(bytes)),
            Value::Duration(nanos) => to.write_str(&time::duration_text(*nanos)),
            Value::Timestamp(time) => write!(to, "{time}"),
            Value::List(list) => {
                to.write_str("[")?;
                for (index, value) in list.iter().enumerate() {
                    write!(to, "{}{value}", if index == 0 { "" } else { ", " })?;
                }
                to.write_str("]")
            }
            Value::Map(map) => {
                to.write_str("{")?;
                for (index, key) in map.keys().iter().enumerate() {
                    let value = map.get(key).unwrap_or(Value::Null);
                    write!(to, "{}{}: {value}", if index == 0 { "" } else { ", " }, key.value())?;
                }
                to.write_str("}")
            }
            Value::Optional(None) => to.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(to, "optional({value})"),
            Value::Type(kind) => to.write_str(kind.name()),
            Value::Opaque(value) => write!(to, "{value}"),
        }
    }
}
