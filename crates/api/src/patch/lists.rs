//! Order of merged lists in strategic merge patches.
//!
//! Elements that the patch names stand in the patch's order, the others in the live order, and both are interleaved
//! by the live order as far as that goes (upstream's `normalizeElementOrder`).

use super::strategic::{DIRECTIVE, bad_type};
use super::{PatchError, go_value};
use crate::{Map, Value};

/// What the elements of a list are; lists hold one kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Objects, told apart by the merge key.
    Map,
    Bool,
    Integer,
    Float,
    String,
}

/// The one kind of all elements of both lists.
pub(super) fn element_kind(lists: &[&[Value]]) -> Result<Kind, PatchError> {
    let mut kind = None;
    for item in lists.iter().copied().flatten() {
        let this = match item {
            Value::Object(_) => Kind::Map,
            Value::Bool(_) => Kind::Bool,
            Value::Number(number) if number.is_f64() => Kind::Float,
            Value::Number(_) => Kind::Integer,
            Value::String(_) => Kind::String,
            Value::Array(_) if kind.is_none() => {
                let message = "lists of lists are not supported";
                return Err(PatchError::Unprocessable(message.into()));
            }
            Value::Array(_) | Value::Null => return Err(mixed(lists)),
        };
        if *kind.get_or_insert(this) != this {
            return Err(mixed(lists));
        }
    }
    kind.ok_or_else(|| PatchError::Internal("no elements in any of the given slices".into()))
}

fn mixed(lists: &[&[Value]]) -> PatchError {
    let lists: Vec<Value> = lists.iter().map(|list| Value::from(*list)).collect();
    let lists = go_value(&lists.into());
    PatchError::Internal(format!("list element types are not identical: {lists}"))
}

/// `map: map[...] does not contain declared merge key: name`.
pub(super) fn no_merge_key(map: &Map, merge_key: &str) -> PatchError {
    let map = go_value(&Value::Object(map.clone()));
    PatchError::Internal(format!("map: {map} does not contain declared merge key: {merge_key}"))
}

/// Splits into elements that `by` has too, and the others. Scalars (no merge key) are told apart by their value.
pub(super) fn partition(
    items: Vec<Value>,
    by: &[Value],
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    if merge_key.is_empty() {
        return Ok(items.into_iter().partition(|item| by.contains(item)));
    }
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let map = item
            .as_object()
            .ok_or_else(|| bad_type("map[string]interface {}", &item))?;
        let value = map.get(merge_key).ok_or_else(|| no_merge_key(map, merge_key))?;
        if by.iter().any(|other| other.get(merge_key) == Some(value)) {
            named.push(item);
        } else {
            others.push(item);
        }
    }
    Ok((named, others))
}

/// Orders `named` by `patch_order` and `others` by `live_order`, and interleaves them by `live_order`.
pub(super) fn merge_order(
    named: Vec<Value>,
    others: Vec<Value>,
    patch_order: &[Value],
    live_order: &[Value],
    merge_key: &str,
    kind: Kind,
) -> Result<Vec<Value>, PatchError> {
    let place = |order: &[Value], item: &Value| {
        let same = |other: &Value| match kind {
            Kind::Map => other.get(merge_key) == item.get(merge_key),
            _ => other == item,
        };
        order.iter().position(same)
    };
    let sort = |items: Vec<Value>, order: &[Value]| -> Result<Vec<Value>, PatchError> {
        if kind == Kind::Map {
            check_keys(&items, merge_key)?;
            check_keys(order, merge_key)?;
        }
        let deleted = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str) == Some("delete");
        let (last, mut items): (Vec<Value>, Vec<Value>) = items.into_iter().partition(deleted);
        items.sort_by_cached_key(|item| place(order, item).unwrap_or(usize::MAX));
        items.extend(last);
        Ok(items)
    };
    let mut named = sort(named, patch_order)?.into_iter().peekable();
    let mut others = sort(others, live_order)?.into_iter().peekable();
    let mut merged = Vec::new();
    while let (Some(other), Some(item)) = (others.peek(), named.peek()) {
        let before = place(live_order, other)
            .zip(place(live_order, item))
            .is_some_and(|(a, b)| a < b);
        merged.extend(if before { others.next() } else { named.next() });
    }
    merged.extend(named);
    merged.extend(others);
    Ok(merged)
}

fn check_keys(items: &[Value], merge_key: &str) -> Result<(), PatchError> {
    for item in items {
        let map = item
            .as_object()
            .ok_or_else(|| bad_type("map[string]interface {}", item))?;
        if !map.contains_key(merge_key) {
            return Err(no_merge_key(map, merge_key));
        }
    }
    Ok(())
}
