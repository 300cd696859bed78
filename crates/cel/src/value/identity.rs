//! Lists of objects that are sets or maps: their order says nothing, and a sum has each element once.
//!
//! Upstream lets the list on the left decide what both sides are. Source: `unstructuredMapList` and `unstructuredSetList` of
//! `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{List, Map, Value, WORK_MAX};
use crate::types::Identity;

/// So many bytes of what tells an element apart are as much work as comparing two values: they are copied and hashed.
const KEY_BYTES_OF_WORK: usize = 64;

impl<'a> List<'a> {
    fn identity(&self) -> &Identity {
        match self {
            List::Json(_, _, identity) | List::Made(_, identity) => identity,
        }
    }

    /// Whether its elements are told apart by something else than their place.
    pub(crate) fn is_unordered(&self) -> bool {
        !matches!(self.identity(), Identity::Place)
    }

    /// Whether both have the same elements. Counts and gives up as [`Value::equals_counting`] does.
    pub(super) fn equals_unordered(&self, other: &List<'a>, work: &mut usize) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let identity = self.identity();
        let mut own = HashMap::with_capacity(self.len());
        for element in self.iter() {
            let key = key_of(&element, identity, work);
            if *work > WORK_MAX {
                return false;
            }
            own.extend(key.map(|key| (key, element)));
        }
        other.iter().all(|element| {
            let found = key_of(&element, identity, work).and_then(|key| own.get(&key));
            found.is_some_and(|own| own.equals_counting(&element, work))
        })
    }

    /// The elements of both: those of `more` that are here already replace these in a map, and are left out of a set. Counts
    /// the work; past [`WORK_MAX`] elements are missing, and nobody may use what was made.
    pub(crate) fn united(&self, more: &List<'a>, work: &mut usize) -> List<'a> {
        let identity = self.identity();
        let mut values: Vec<Value<'a>> = self.iter().collect();
        let mut places = HashMap::with_capacity(values.len());
        for (place, element) in values.iter().enumerate() {
            places.extend(key_of(element, identity, work).map(|key| (key, place)));
            if *work > WORK_MAX {
                break;
            }
        }
        for element in more.iter() {
            let key = key_of(&element, identity, work);
            if *work > WORK_MAX {
                break;
            }
            let Some(key) = key else {
                values.push(element);
                continue;
            };
            match (places.get(&key), identity) {
                (Some(place), Identity::Keys(_)) => values[*place] = element,
                (Some(_), _) => {}
                (None, _) => {
                    places.insert(key, values.len());
                    values.push(element);
                }
            }
        }
        List::Made(Arc::new(values), identity.clone())
    }
}

/// What is equal for elements that are the same one; none for what has no JSON.
fn key_of(element: &Value<'_>, identity: &Identity, work: &mut usize) -> Option<String> {
    let key = match (identity, element) {
        // Of an object nothing but these fields is looked at: the rest of it may be large.
        (Identity::Keys(keys), Value::Map(Map::Json(entries, _) | Map::Record(entries, _))) => of_fields(keys, entries),
        (Identity::Keys(keys), _) => match element.to_json()? {
            Json::Object(entries) => of_fields(keys, &entries),
            _ => of_fields(keys, &serde_json::Map::new()),
        },
        _ => element.to_json()?.to_string(),
    };
    *work += 1 + key.len() / KEY_BYTES_OF_WORK;
    Some(key)
}

fn of_fields(keys: &[String], entries: &serde_json::Map<String, Json>) -> String {
    // Texts are quoted, so that no two lists of values look the same.
    let values = keys
        .iter()
        .map(|key| entries.get(key).unwrap_or(&Json::Null).to_string());
    values.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Type;

    fn list<'a>(values: &'a Json, identity: &Identity) -> Value<'a> {
        let kind = Type::List(Arc::new(Type::Dyn), identity.clone());
        Value::from_json(values, &kind)
    }

    #[test]
    fn order_says_nothing_where_elements_have_an_identity() {
        let keys = Identity::Keys(["name".to_owned()].into());
        let (a, b, c) = (
            json!({"name": "a", "x": 1}),
            json!({"name": "b"}),
            json!({"name": "a", "x": 2}),
        );
        for (identity, one, other, equal, sum) in [
            (Identity::Whole, json!([1, 2]), json!([2, 1]), true, json!([1, 2])),
            (Identity::Whole, json!([1, 2]), json!([2, 3]), false, json!([1, 2, 3])),
            (Identity::Whole, json!(["1"]), json!([1]), false, json!(["1", 1])),
            (keys.clone(), json!([a, b]), json!([b, a]), true, json!([a, b])),
            (keys.clone(), json!([a, b]), json!([b, c]), false, json!([c, b])),
            (keys.clone(), json!([a]), json!([a, b]), false, json!([a, b])),
        ] {
            let (left, right) = (list(&one, &identity), list(&other, &identity));
            assert_eq!(left.equals(&right), equal, "{one} {other}");
            let (Value::List(left), Value::List(right)) = (&left, &right) else {
                panic!("both are lists");
            };
            assert_eq!(
                Value::List(left.united(right, &mut 0)).to_json(),
                Some(sum),
                "{one} {other}"
            );
        }
    }
    #[test]
    fn large_elements_are_more_work() {
        let text = "x".repeat(1 << 20);
        let large = json!([text]);
        let (set, other) = (list(&large, &Identity::Whole), list(&large, &Identity::Whole));
        let mut work = 0;
        assert!(set.equals_counting(&other, &mut work));
        assert!(work > 2 * text.len() / KEY_BYTES_OF_WORK, "{work}");
        let (Value::List(one), Value::List(more)) = (&set, &other) else {
            panic!("both are lists");
        };
        let mut work = 0;
        assert_eq!(one.united(more, &mut work).len(), 1);
        assert!(work > 2 * text.len() / KEY_BYTES_OF_WORK, "{work}");
        // What has to be looked at is too much: nothing is said of it.
        let mut work = WORK_MAX;
        assert!(!set.equals_counting(&other, &mut work));
        // Of a map's elements only their keys.
        let keys = Identity::Keys(["name".to_owned()].into());
        let (one, other) = (
            json!([{"name": "a", "x": [text, 1]}]),
            json!([{"name": "b", "x": [text, 2]}]),
        );
        let mut work = 0;
        assert!(!list(&one, &keys).equals_counting(&list(&other, &keys), &mut work));
        assert!(work < 10, "{work}");
    }
}
