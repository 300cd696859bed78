//! Merging an applied configuration into the live object, and removing fields from an object.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/typed` (`merge.go`, `remove.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::element::PathElement;
use super::fields::{as_list, as_map, zip_maps};
use super::set::FieldSet;
use super::types::{Atom, ListOf, MapType, Type};
use crate::{Map, Value};

/// `rhs` over `lhs`: granular maps and lists merge, everything else is taken from `rhs` where it is there.
pub(super) fn merge(lhs: &Value, rhs: &Value, ty: Type<'_>) -> Value {
    merge_values(Some(lhs), Some(rhs), ty).unwrap_or(Value::Null)
}

fn merge_values(lhs: Option<&Value>, rhs: Option<&Value>, ty: Type<'_>) -> Option<Value> {
    // Of two kinds of deduced values the right one wins, and an atom that yields nothing leaves nothing.
    let (_, atom) = ty.atoms(lhs, rhs);
    match atom {
        Atom::Map(ty) => {
            let (left, right) = (lhs.and_then(as_map), rhs.and_then(as_map));
            let empty = left.is_none_or(Map::is_empty) && right.is_none_or(Map::is_empty);
            if !ty.is_atomic() && !empty {
                return merge_maps(left, right, ty);
            }
        }
        Atom::List(ty) => {
            let (left, right) = (lhs.and_then(as_list), rhs.and_then(as_list));
            let empty = left.is_none_or(<[_]>::is_empty) && right.is_none_or(<[_]>::is_empty);
            if !ty.is_atomic() && !empty {
                return merge_lists(left.unwrap_or_default(), right.unwrap_or_default(), ty);
            }
        }
        Atom::Scalar(_) => {}
    }
    rhs.or(lhs).cloned()
}

fn merge_maps(left: Option<&Map>, right: Option<&Map>, ty: MapType<'_>) -> Option<Value> {
    let mut out = Map::new();
    let mut types = ty.children();
    for (key, lhs, rhs) in zip_maps(left, right) {
        let Some(child) = types.of(key) else { continue };
        if let Some(merged) = merge_values(lhs, rhs, child) {
            out.insert(key.clone(), merged);
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Merges elements by their keys. The order is that of the right list for elements it has; the others stay where
/// they were between them.
fn merge_lists(left: &[Value], right: &[Value], ty: ListOf<'_>) -> Option<Value> {
    let identify = |items: &[Value]| -> Vec<(PathElement, usize)> {
        let named = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Some((ty.element(item).ok()?, index)));
        named.collect()
    };
    let (left_elements, right_elements) = (identify(left), identify(right));
    static NULL: Value = Value::Null;
    let mut in_left: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, index) in &left_elements {
        // An element that is there twice is not merged with.
        in_left
            .entry(element)
            .and_modify(|value| *value = &NULL)
            .or_insert(&left[*index]);
    }
    let in_right: BTreeMap<&PathElement, &Value> = right_elements
        .iter()
        .map(|(element, index)| (element, &right[*index]))
        .collect();
    let mut shared: VecDeque<&PathElement> = right_elements
        .iter()
        .map(|(element, _)| element)
        .filter(|element| in_left.contains_key(element))
        .collect();
    let mut next_shared = shared.pop_front();
    let mut merged_right: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < left_elements.len() || r < right_elements.len() {
        if let (Some((lhs, _)), Some((rhs, _))) = (left_elements.get(l), right_elements.get(r)) {
            if lhs == rhs {
                merged_right.insert(rhs);
                out.extend(merge_values(
                    in_left.get(lhs).copied(),
                    in_right.get(rhs).copied(),
                    ty.item(),
                ));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if in_right.contains_key(lhs) && next_shared.is_some_and(|next| next != lhs) {
                // Shared, and it is not its turn yet.
                l += 1;
                continue;
            }
        }
        if let Some((lhs, index)) = left_elements.get(l) {
            if !in_right.contains_key(lhs) {
                out.extend(merge_values(Some(&left[*index]), None, ty.item()));
                l += 1;
                continue;
            }
            if merged_right.contains(lhs) {
                l += 1;
            }
        }
        if let Some((rhs, _)) = right_elements.get(r) {
            merged_right.insert(rhs);
            out.extend(merge_values(
                in_left.get(rhs).copied(),
                in_right.get(rhs).copied(),
                ty.item(),
            ));
            r += 1;
            if next_shared == Some(rhs) {
                next_shared = shared.pop_front();
            }
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

/// The value without the given fields. A map or list that loses everything becomes null, as upstream leaves it.
pub(super) fn remove(value: &Value, fields: &FieldSet, ty: Type<'_>) -> Value {
    match ty.atom(Some(value)) {
        Atom::Scalar(_) => value.clone(),
        Atom::Map(ty) => {
            let map = match value.as_object() {
                Some(map) if !map.is_empty() && !ty.is_atomic() => map,
                _ => return Value::Null,
            };
            let mut out = Map::new();
            let mut types = ty.children();
            for (key, value) in map {
                let (member, below) = fields.at(&PathElement::field(key));
                let kept = match (member, below, types.of(key)) {
                    (true, ..) => continue,
                    (_, Some(below), Some(child)) => remove(value, below, child),
                    _ => value.clone(),
                };
                out.insert(key.clone(), kept);
            }
            if out.is_empty() {
                Value::Null
            } else {
                Value::Object(out)
            }
        }
        Atom::List(ty) => {
            let items = match value.as_array() {
                Some(items) if !items.is_empty() && !ty.is_atomic() => items,
                _ => return Value::Null,
            };
            let mut out = Vec::new();
            for item in items {
                let (member, below) = match ty.element(item) {
                    Ok(element) => fields.at(&element),
                    Err(_) => (false, None),
                };
                match (member, below) {
                    (true, _) => {}
                    (_, Some(below)) => out.push(remove(item, below, ty.item())),
                    _ => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
    }
}

/// The set with every named field of an object that leads to members made a member.
pub(super) fn with_named_fields(set: &FieldSet, ty: Option<Type<'_>>) -> FieldSet {
    let mut out = FieldSet::new();
    let atom = ty.map(|ty| ty.atom(None));
    let mut types = match atom {
        Some(Atom::Map(map)) => Some(map.children()),
        _ => None,
    };
    for (element, member, children) in set.level() {
        let (named, child) = match (element, atom, &mut types) {
            (PathElement::Field(name), Some(Atom::Map(map)), Some(types)) => (map.declares(name), types.of(name)),
            (PathElement::Key(_), Some(Atom::List(list)), _) => (false, Some(list.item())),
            _ => (false, None),
        };
        let named = named && !children.is_empty();
        out.put(element.clone(), member || named, with_named_fields(children, child));
    }
    out
}

/// The set after the schema changed fields from granular to atomic: who owned something below owns the whole.
pub(super) fn reconcile(set: &FieldSet, ty: Type<'_>) -> FieldSet {
    let mut out = FieldSet::new();
    let atom = ty.atom(None);
    let mut types = match atom {
        Atom::Map(map) if !map.is_deduced() => Some(map.children()),
        _ => None,
    };
    for (element, member, children) in set.level() {
        let child = match (atom, element, &mut types) {
            (Atom::Map(_), PathElement::Field(name), Some(types)) => types.of(name),
            (Atom::List(list), _, _) if !list.is_atomic() => Some(list.item()),
            _ => None,
        };
        let is_atomic = |child: Type<'_>| match child.atom(None) {
            Atom::Map(map) => map.is_atomic(),
            Atom::List(list) => list.is_atomic(),
            Atom::Scalar(_) => false,
        };
        match child {
            Some(child) if !children.is_empty() && is_atomic(child) => out.put(element.clone(), true, FieldSet::new()),
            Some(child) => out.put(element.clone(), member, reconcile(children, child)),
            None => out.put(element.clone(), member, children.clone()),
        }
    }
    out
}
