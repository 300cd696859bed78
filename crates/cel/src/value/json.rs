//! Values from JSON by their declared type, and JSON from values.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{List, Map, Text, Value, time};
use crate::types::{Identity, Type};

impl<'a> Value<'a> {
    /// A JSON value as a value of a declared type. What does not fit its type becomes what it looks like: the object was
    /// validated before, and if it was not, the expression fails with `no such overload` where it matters.
    pub fn from_json(json: &'a Json, kind: &Type) -> Value<'a> {
        match (json, kind) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(value), _) => Value::Bool(*value),
            (Json::Number(number), Type::Double) => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
            (Json::Number(number), Type::Uint) if number.is_u64() => Value::Uint(number.as_u64().unwrap_or_default()),
            (Json::Number(number), _) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), _, _) => Value::Int(value),
                (_, Some(value), _) => Value::Uint(value),
                (_, _, value) => Value::Double(value.unwrap_or(f64::NAN)),
            },
            (Json::String(text), Type::Timestamp) => {
                time::Timestamp::parse_json(text).map_or_else(|| text.as_str().into(), Value::Timestamp)
            }
            (Json::String(text), Type::Duration) => {
                time::parse_duration(text).map_or_else(|_| text.as_str().into(), Value::Duration)
            }
            (Json::String(text), Type::Bytes) => STANDARD
                .decode(text)
                .map_or_else(|_| text.as_str().into(), |bytes| Value::Bytes(bytes.into())),
            (Json::String(text), _) => Value::String(Text::Borrowed(text)),
            (Json::Array(values), Type::List(element, identity)) => {
                Value::List(List::Json(values, (**element).clone(), identity.clone()))
            }
            (Json::Array(values), _) => Value::List(List::Json(values, Type::Dyn, Identity::Place)),
            (Json::Object(entries), Type::Map(_, value)) => Value::Map(Map::Json(entries, (**value).clone())),
            (Json::Object(entries), Type::Object(object)) => Value::Map(Map::Record(entries, object.clone())),
            (Json::Object(entries), _) => Value::Map(Map::Json(entries, Type::Dyn)),
        }
    }

    /// The value in JSON: times as text, bytes in base64, records by the keys of their fields. `None` for what has no
    /// JSON: infinite numbers, keys that are no text, types, most values of libraries.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => Json::from(*value),
            Value::Uint(value) => Json::from(*value),
            Value::Double(value) => Json::Number(serde_json::Number::from_f64(*value)?),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
            Value::Duration(nanos) => Json::String(time::duration_text(*nanos)),
            Value::Timestamp(time) => Json::String(time.to_string()),
            Value::List(List::Json(values, ..)) => Json::Array(values.to_vec()),
            Value::List(list) => Json::Array(list.iter().map(|value| value.to_json()).collect::<Option<_>>()?),
            Value::Map(Map::Json(entries, _) | Map::Record(entries, _)) => Json::Object((*entries).clone()),
            Value::Map(map) => {
                let mut entries = serde_json::Map::new();
                for key in map.keys() {
                    let value = map.get(&key)?.to_json()?;
                    let super::Key::String(name) = &key else { return None };
                    let field = match map {
                        Map::MadeRecord(_, object) => object.fields.get(&**name).map(|field| field.key.clone()),
                        _ => None,
                    };
                    entries.insert(field.unwrap_or_else(|| name.to_string()), value);
                }
                Json::Object(entries)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Type(_) => return None,
            Value::Opaque(value) => Json::String(value.text()?),
        })
    }
}
