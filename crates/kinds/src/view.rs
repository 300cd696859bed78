//! Short words for reading and editing object trees, so that a rule reads as the sentence it implements.
//!
//! Reading never fails: what is absent or of another type reads as null, empty, zero or false, because every object
//! that reaches a strategy was decoded against its schema.

use api::{Map, Value};

static NULL: Value = Value::Null;

/// Reading by dotted paths.
pub trait View {
    /// The value at a dotted path; null when absent.
    fn at(&self, path: &str) -> &Value;
    /// The string at a path; empty when absent.
    fn text(&self, path: &str) -> &str;
    /// The integer at a path, if there is one.
    fn number(&self, path: &str) -> Option<i64>;
    /// The integer at a path; zero when absent.
    fn count(&self, path: &str) -> i64;
    /// The boolean at a path, if there is one.
    fn boolean(&self, path: &str) -> Option<bool>;
    /// Whether the boolean at a path is true.
    fn flag(&self, path: &str) -> bool;
    /// Whether something other than null is at a path.
    fn has(&self, path: &str) -> bool;
    /// The list at a path; empty when absent.
    fn list(&self, path: &str) -> &[Value];
    /// The map at a path; empty when absent.
    fn entries<'a>(&'a self, path: &str) -> Box<dyn Iterator<Item = (&'a str, &'a Value)> + 'a>;
    /// The strings of the list at a path.
    fn texts<'a>(&'a self, path: &str) -> Box<dyn Iterator<Item = &'a str> + 'a>;
}

impl View for Value {
    fn at(&self, path: &str) -> &Value {
        let mut here = self;
        if path.is_empty() {
            return here;
        }
        for name in path.split('.') {
            match here.get(name) {
                Some(next) => here = next,
                None => return &NULL,
            }
        }
        here
    }

    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or("")
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.at(path).as_i64()
    }

    fn count(&self, path: &str) -> i64 {
        self.number(path).unwrap_or(0)
    }

    fn boolean(&self, path: &str) -> Option<bool> {
        self.at(path).as_bool()
    }

    fn flag(&self, path: &str) -> bool {
        self.boolean(path).unwrap_or(false)
    }

    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    fn entries<'a>(&'a self, path: &str) -> Box<dyn Iterator<Item = (&'a str, &'a Value)> + 'a> {
        match self.at(path).as_object() {
            Some(map) => Box::new(map.iter().map(|(key, value)| (key.as_str(), value))),
            None => Box::new(std::iter::empty()),
        }
    }

    fn texts<'a>(&'a self, path: &str) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        Box::new(self.list(path).iter().filter_map(Value::as_str))
    }
}

/// Editing by dotted paths.
pub trait Edit {
    /// The object at a dotted path, with every object on the way made when absent.
    fn object(&mut self, path: &str) -> &mut Map;
    /// What is at a path, when it is there and not null.
    fn existing(&mut self, path: &str) -> Option<&mut Value>;
    /// The elements of the list at a path.
    fn elements(&mut self, path: &str) -> std::slice::IterMut<'_, Value>;
    /// Sets a field of this object.
    fn put(&mut self, name: &str, value: impl Into<Value>);
    /// Sets a field of this object when it is absent or null: an empty string is one that the writer chose, since in
    /// normal form it stands only where upstream has a pointer.
    fn put_default(&mut self, name: &str, value: impl Into<Value>);
    /// As [`Edit::put_default`], for the few strings that upstream always writes: those are unset when empty.
    fn put_default_text(&mut self, name: &str, value: &str);
    /// Removes the value at a dotted path.
    fn cut(&mut self, path: &str) -> Option<Value>;
    /// Makes the value at a dotted path what it is in `other`: copied, or removed when absent there.
    fn copy_from(&mut self, other: &Value, path: &str);
}

impl Edit for Value {
    fn object(&mut self, path: &str) -> &mut Map {
        let mut here = as_object(self);
        for name in path.split('.').filter(|name| !name.is_empty()) {
            here = as_object(here.entry(name).or_insert(Value::Null));
        }
        here
    }

    fn existing(&mut self, path: &str) -> Option<&mut Value> {
        let mut here = self;
        for name in path.split('.').filter(|name| !name.is_empty()) {
            here = here.get_mut(name)?;
        }
        (!here.is_null()).then_some(here)
    }

    fn elements(&mut self, path: &str) -> std::slice::IterMut<'_, Value> {
        match self.existing(path).and_then(Value::as_array_mut) {
            Some(list) => list.iter_mut(),
            None => [].iter_mut(),
        }
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        as_object(self).insert(name.into(), value.into());
    }

    fn put_default(&mut self, name: &str, value: impl Into<Value>) {
        if self.get(name).is_none_or(Value::is_null) {
            self.put(name, value);
        }
    }

    fn put_default_text(&mut self, name: &str, value: &str) {
        if self.text(name).is_empty() {
            self.put(name, value);
        }
    }

    fn cut(&mut self, path: &str) -> Option<Value> {
        match path.rsplit_once('.') {
            Some((parent, name)) => self.existing(parent)?.as_object_mut()?.remove(name),
            None => self.as_object_mut()?.remove(path),
        }
    }

    fn copy_from(&mut self, other: &Value, path: &str) {
        let value = other.at(path);
        if value.is_null() {
            self.cut(path);
            return;
        }
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        self.object(parent).insert(name.into(), value.clone());
    }
}

fn as_object(value: &mut Value) -> &mut Map {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("invariant: made an object above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_edits_by_path() {
        let mut object = json!({"spec": {"replicas": 3, "list": ["a", "b"], "empty": ""}});
        assert_eq!(object.count("spec.replicas"), 3);
        assert_eq!(object.text("spec.absent.deep"), "");
        assert_eq!(object.texts("spec.list").collect::<Vec<_>>(), ["a", "b"]);
        object
            .object("spec.template.metadata")
            .insert("name".into(), json!("x"));
        assert_eq!(object.text("spec.template.metadata.name"), "x");
        object["spec"].put_default("replicas", 1);
        object["spec"].put_default_text("empty", "filled");
        assert_eq!(
            (object.count("spec.replicas"), object.text("spec.empty")),
            (3, "filled")
        );
        let old = json!({"spec": {"replicas": 7}});
        object.copy_from(&old, "spec.replicas");
        object.copy_from(&old, "spec.template");
        assert_eq!(
            object,
            json!({"spec": {"replicas": 7, "list": ["a", "b"], "empty": "filled"}})
        );
    }
}
