//! Lists of type set and map hold each element once.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`.

use std::collections::HashMap;

use api::field::{Error, ErrorList, Path};
use api::{Map, Value};

use crate::view::View;

/// The elements that are in a set or map more than once.
pub fn validate(value: &Value, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(value, schema, &Path::root(), &mut errors);
    errors
}

fn walk(value: &Value, schema: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            let additional = schema.at("additionalProperties");
            for (name, value) in map {
                match schema.at("properties").get(name) {
                    Some(property) => walk(value, property, &path.child(name), errors),
                    None if additional.is_object() => walk(value, additional, &path.key(name), errors),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            match schema.text("x-kubernetes-list-type") {
                "set" => {
                    let keys: Vec<Option<Value>> = items.iter().cloned().map(Some).collect();
                    let twice = repeated(&keys);
                    errors.extend(twice.map(|index| Error::duplicate(&path.index(index), items[index].clone())));
                }
                "map" => keyed(items, schema, path, errors),
                _ => {}
            }
            let of_items = schema.at("items");
            if of_items.is_object() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, of_items, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn keyed(items: &[Value], schema: &Value, path: &Path, errors: &mut ErrorList) {
    let stranger = items.iter().position(|item| !item.is_object() && !item.is_null());
    if let Some(index) = stranger {
        let why = "must be an object for an array of list-type map";
        errors.push(Error::invalid(&path.index(index), items[index].clone(), why));
        return;
    }
    let names: Vec<&str> = schema.texts("x-kubernetes-list-map-keys").collect();
    let key = |item: &Value| {
        let own = names
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone())));
        Some(Value::Object(own.collect::<Map>()))
    };
    let keys: Vec<Option<Value>> = items.iter().map(key).collect();
    for index in repeated(&keys) {
        errors.push(Error::duplicate(
            &path.index(index),
            keys[index].clone().unwrap_or_default(),
        ));
    }
}

/// The second places of values that are there more than once.
fn repeated(keys: &[Option<Value>]) -> impl Iterator<Item = usize> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut twice = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let times = seen
            .entry(key.as_ref().map(Value::to_string).unwrap_or_default())
            .or_default();
        *times += 1;
        if *times == 2 {
            twice.push(index);
        }
    }
    twice.into_iter()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_there_once() {
        let schema = json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n", "p"],
                "items": {"type": "object"}}}});
        for (value, expect) in [
            (
                json!({"set": ["a", "b"], "map": [{"n": "a", "p": 1}, {"n": "a", "p": 2}]}),
                vec![],
            ),
            (
                json!({"set": ["a", "b", "a", "a"]}),
                vec![r#"set[2]: Duplicate value: "a""#],
            ),
            (
                json!({"map": [{"n": "a", "p": 1}, {"n": "a", "p": 1, "x": 2}]}),
                vec![r#"map[1]: Duplicate value: {"n":"a","p":1}"#],
            ),
        ] {
            let texts: Vec<String> = validate(&value, &schema).iter().map(ToString::to_string).collect();
            assert_eq!(texts, expect, "{value}");
        }
    }
}
