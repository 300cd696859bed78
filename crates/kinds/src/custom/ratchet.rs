//! What a part of an object was before an update, where that can be told: an update is not refused for what it leaves alone.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/equality.go`.

use api::Value;

use crate::view::View;

/// A value, what it was, and the schema of both.
#[derive(Clone, Copy)]
pub struct Correlated<'v> {
    new: &'v Value,
    old: &'v Value,
    schema: &'v Value,
}

impl<'v> Correlated<'v> {
    /// Two states of the same thing.
    pub fn new(new: &'v Value, old: &'v Value, schema: &'v Value) -> Correlated<'v> {
        Correlated { new, old, schema }
    }

    /// Whether nothing changed.
    pub fn is_unchanged(&self) -> bool {
        self.new == self.old
    }

    /// A field of both.
    pub fn key(&self, name: &str) -> Option<Correlated<'v>> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let property = self
            .schema
            .get("properties")
            .and_then(|properties| properties.get(name));
        let schema = property.or_else(|| {
            self.schema
                .get("additionalProperties")
                .filter(|schema| schema.is_object())
        })?;
        Some(Correlated { new, old, schema })
    }

    /// An element of the new list, and the one with the same keys of the old.
    pub fn index(&self, index: usize) -> Option<Correlated<'v>> {
        let new = self.new.as_array()?.get(index)?;
        let old = same_element(self.schema, new, self.old.as_array()?)?;
        Some(Correlated {
            new,
            old,
            schema: self.schema.get("items")?,
        })
    }
}

/// The element of a list of type map that has the keys of another.
pub fn same_element<'v>(schema: &Value, element: &Value, list: &'v [Value]) -> Option<&'v Value> {
    if schema.text("x-kubernetes-list-type") != "map" || !element.is_object() {
        return None;
    }
    let keys: Vec<&str> = schema.texts("x-kubernetes-list-map-keys").collect();
    let same = |other: &&Value| other.is_object() && keys.iter().all(|key| other.get(key) == element.get(key));
    list.iter().find(same)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_found_by_their_keys() {
        let schema = json!({"type": "object", "properties": {
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer"}}}},
            "list": {"type": "array", "items": {"type": "integer"}}}});
        let old = json!({"map": [{"n": "a", "v": 1}, {"n": "b", "v": 2}], "list": [1]});
        let new = json!({"map": [{"n": "b", "v": 2}, {"n": "c", "v": 3}], "list": [1]});
        let whole = Correlated::new(&new, &old, &schema);
        let map = whole.key("map").unwrap();
        assert!(!whole.is_unchanged() && map.index(0).unwrap().is_unchanged() && map.index(1).is_none());
        assert!(whole.key("list").unwrap().is_unchanged() && whole.key("list").unwrap().index(0).is_none());
    }
}
