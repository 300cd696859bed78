//! Lists of objects that are sets or maps: their order says nothing, and a sum has each element once.
//!
//! Upstream lets the list on the left decide what both sides are. Source: `unstructuredMapList` and `unstructuredSetList` of
//! `k8s.io/apiserver/pkg/cel/common/valuesunstructured.go`.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::{List, Value};
use crate::types::Identity;

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

    /// Whether both have the same elements.
    pub(super) fn equals_unordered(&self, other: &List<'a>, work: &mut usize) -> bool {
        if self.len() != other.len() {
            return false;
        }
        *work += self.len();
        let identity = self.identity();
        let own = self
            .iter()
            .filter_map(|element| Some((key_of(&element, identity)?, element)));
        let own: HashMap<String, Value<'a>> = own.collect();
        other.iter().all(|element| {
            let found = key_of(&element, identity).and_then(|key| own.get(&key));
            found.is_some_and(|own| own.equals_counting(&element, work))
        })
    }

    /// The elements of both: those of `more` that are here already replace these in a map, and are left out of a set.
    pub(crate) fn united(&self, more: &List<'a>) -> List<'a> {
        let identity = self.identity();
        let mut values: Vec<Value<'a>> = self.iter().collect();
        let places = values.iter().enumerate();
        let places = places.filter_map(|(place, element)| Some((key_of(element, identity)?, place)));
        let mut places: HashMap<String, usize> = places.collect();
        for element in more.iter() {
            let Some(key) = key_of(&element, identity) else {
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
fn key_of(element: &Value<'_>, identity: &Identity) -> Option<String> {
    let json = element.to_json()?;
    Some(match identity {
        Identity::Keys(keys) => {
            let values = keys.iter().map(|key| json.get(key).cloned().unwrap_or(Json::Null));
            Json::Array(values.collect()).to_string()
        }
        _ => json.to_string(),
    })
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
            assert_eq!(Value::List(left.united(right)).to_json(), Some(sum), "{one} {other}");
        }
    }
}
