//! Reading a few fields of an object's JSON: what is not asked for is walked over, and no tree is made of it.

use std::collections::BTreeMap;

use crate::codec::json::Walk;
use crate::codec::{DecodeError, Limits};
use crate::{Map, Value};

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

    /// What is read of a member of that name; `None` when it is stepped over.
    pub fn below(&self, name: &str) -> Option<&Fields> {
        match self.0.is_empty() {
            true => Some(self),
            false => self.0.get(name),
        }
    }

    /// Reads these fields, and nothing else, of a JSON text. All of it has to be JSON.
    ///
    /// # Errors
    /// It is not.
    pub fn read(&self, text: &str) -> Result<Value, DecodeError> {
        let limits = Limits::default();
        let mut walk = Walk::new(text.as_bytes(), &limits);
        let value = self.read_next(&mut walk)?;
        walk.end()?;
        Ok(value)
    }

    /// Reads these fields of the next value of a walk. What is no object where fields of one are asked for is told as it is.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn read_next(&self, walk: &mut Walk<'_>) -> Result<Value, DecodeError> {
        if self.0.is_empty() || !walk.is_object() {
            return walk.value();
        }
        let mut read = Map::new();
        walk.object(|walk| {
            let name = walk.name()?;
            self.read_member(&name, walk, &mut read)
        })?;
        Ok(Value::Object(read))
    }

    /// Passes the value of a member, which is kept in `read` if it is one of these fields.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn read_member(&self, name: &str, walk: &mut Walk<'_>, read: &mut Map) -> Result<(), DecodeError> {
        let Some(below) = self.below(name) else {
            return walk.skip();
        };
        let value = below.read_next(walk)?;
        read.insert(name.into(), value);
        Ok(())
    }
}

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
