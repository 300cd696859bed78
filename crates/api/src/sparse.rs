//! Reading a few fields of an object's JSON: what is not asked for is walked over, and no tree is made of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Value;

/// The fields that are read, as a tree of names. Without names below it, a field is read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(BTreeMap<Box<str>, Fields>);

impl Fields {
    /// Fields by their paths, such as `spec.nodeName`. A path that ends in another one's middle reads all that is below it.
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a str>) -> Fields {
        let mut paths: Vec<Vec<&str>> = paths.into_iter().map(|path| path.split('.').collect()).collect();
        paths.sort();
        let mut all = Fields::default();
        // A path stands before those that it begins: they add nothing to it.
        let mut last: Option<&[&str]> = None;
        for path in &paths {
            if last.is_some_and(|last| path.starts_with(last)) {
                continue;
            }
            last = Some(path);
            let mut at = &mut all;
            for name in path {
                at = at.0.entry((*name).into()).or_default();
            }
        }
        all
    }

    /// Reads these fields, and nothing else, of a JSON text. All of it has to be JSON.
    pub fn read(&self, text: &str) -> serde_json::Result<Value> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = Reader(self).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }
}

#[derive(Clone, Copy)]
struct Reader<'a>(&'a Fields);

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.0.0.is_empty() {
            true => serde::Deserialize::deserialize(deserializer),
            false => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut read = serde_json::Map::new();
        while let Some(name) = map.next_key::<Name>()? {
            match self.0.0.get(&*name.0) {
                Some(below) => {
                    let value = map.next_value_seed(Reader(below))?;
                    read.insert(name.0.into_owned(), value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(read))
    }

    // What is no object where fields of one are asked for is told as it is.

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(item) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A name, borrowed from the text unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_asked_for_is_read() {
        let whole = json!({
            "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": "y"}, "managedFields": [{"manager": "m"}]},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "nodeName": 1}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "phase": "Running"},
        });
        let fields = Fields::of([
            "spec.nodeName",
            "metadata.name",
            "metadata.labels",
            "status.podIPs",
            "absent.x",
        ]);
        let read = fields.read(&whole.to_string()).unwrap();
        let expect = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"nodeName": "n"},
            "status": {"podIPs": [{"ip": "10.0.0.1"}]},
        });
        assert_eq!(read, expect);
        assert_eq!(Fields::default().read(&whole.to_string()).unwrap(), whole);
    }

    #[test]
    fn a_longer_path_takes_nothing_from_a_shorter_one() {
        for paths in [["a", "a.b"], ["a.b", "a"]] {
            let read = Fields::of(paths).read(r#"{"a":{"b":1,"c":2},"d":3}"#).unwrap();
            assert_eq!(read, json!({"a": {"b": 1, "c": 2}}), "{paths:?}");
        }
    }

    #[test]
    fn what_is_no_object_is_told_as_it_is() {
        let fields = Fields::of(["a.b"]);
        for value in [
            json!(null),
            json!(true),
            json!(-1),
            json!(7),
            json!(0.5),
            json!("x"),
            json!([1, {"b": 2}]),
        ] {
            let whole = json!({"a": value});
            assert_eq!(fields.read(&whole.to_string()).unwrap(), whole);
        }
    }

    #[test]
    fn what_is_walked_over_has_to_be_json_too() {
        let fields = Fields::of(["a"]);
        for text in [
            "",
            "{",
            r#"{"a":1"#,
            r#"{"b":[}"#,
            r#"{"b":"\u12"}"#,
            r#"{"a":1}}"#,
            r#"{"b":nul}"#,
        ] {
            assert!(fields.read(text).is_err(), "{text}");
        }
    }
}
