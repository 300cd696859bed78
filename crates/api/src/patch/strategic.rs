//! Strategic merge patch: merge patch that knows which lists merge element by element, with directives.
//!
//! Source: `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go` (`StrategicMergeMapPatch`). Directives: `$patch`
//! (`replace`, `delete`), `$retainKeys`, `$setElementOrder/list`, `$deleteFromPrimitiveList/list`.

use super::lists::{Kind, element_kind, merge_order, no_merge_key, partition};
use super::{PatchError, go_value};
use crate::schema::{Field, Node, SchemaRef, Shape};
use crate::{Map, Value};

pub(super) const DIRECTIVE: &str = "$patch";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const RETAIN_KEYS: &str = "$retainKeys";

/// Merges `patch` into `live` by the merge keys and strategies of the schema.
pub fn strategic_merge_patch(live: &Value, patch: &Value, schema: &SchemaRef) -> Result<Value, PatchError> {
    tracing::trace!(target: "walk", "a patch is merged");
    let live = match live {
        Value::Object(map) => map.clone(),
        _ => Map::new(),
    };
    let Value::Object(patch) = patch else {
        return Err(PatchError::BadRequest(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind_word(patch)
        )));
    };
    merge_maps(live, patch.clone(), schema.node()).map(Value::Object)
}

fn kind_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// How a list merges: its elements' type, whether it merges at all, its merge key (empty for scalars).
struct ListRule<'g> {
    item: Node<'g>,
    merge: bool,
    key: &'g str,
}

fn merge_maps(mut live: Map, mut patch: Map, node: Node<'_>) -> Result<Map, PatchError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::new()),
        Some(other) => return Err(bad_directive(other, &patch)),
    }
    retain_keys(&mut live, &mut patch)?;
    set_element_orders(&mut live, &mut patch, node)?;
    for (key, value) in patch {
        let list = match key.strip_prefix(DELETE_FROM_LIST) {
            None => None,
            Some(rest) => Some(rest.strip_prefix('/').ok_or_else(bad_primitive_list)?),
        };
        let (key, deletes) = (list.unwrap_or(&key), list.is_some());
        if value.is_null() {
            live.remove(key);
            continue;
        }
        let merged = match (live.remove(key), value) {
            (Some(Value::Object(live)), Value::Object(patch)) => {
                let field = lookup(node, key)?;
                if field.patch_strategy().replace {
                    Some(Value::Object(patch))
                } else {
                    Some(Value::Object(merge_maps(live, patch, field.schema())?))
                }
            }
            (Some(Value::Array(live)), Value::Array(patch)) => {
                let rule = lookup_list(node, key)?;
                Some(Value::Array(merge_lists(live, patch, &rule, deletes)?))
            }
            // Nothing to delete from.
            (live, _) if deletes => live,
            (Some(live), value) if same_kind(&live, &value) => without_directives(value),
            (_, mut value) => {
                drop_nulls(&mut value);
                without_directives(value)
            }
        };
        if let Some(merged) = merged {
            live.insert(key.into(), merged);
        }
    }
    Ok(live)
}

/// Drops what `$retainKeys` does not name. All keys of the patch have to be named.
fn retain_keys(live: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".into());
    let Value::Array(kept) = directive else {
        return Err(malformed());
    };
    let is_kept = |key: &str| kept.iter().any(|kept| kept.as_str() == Some(key));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM_LIST) || key.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !is_kept(key) {
            return Err(malformed());
        }
    }
    live.retain(|key, _| is_kept(key));
    Ok(())
}

/// Merges each list that comes with `$setElementOrder` and brings it into that order.
fn set_element_orders(live: &mut Map, patch: &mut Map, node: Node<'_>) -> Result<(), PatchError> {
    let is_order = |key: &&String| key.starts_with(SET_ELEMENT_ORDER);
    let directives: Vec<String> = patch.keys().filter(is_order).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or_default())),
        };
        let key = directive[SET_ELEMENT_ORDER.len()..]
            .strip_prefix('/')
            .ok_or_else(bad_order_list)?;
        let list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(bad_type("[]interface {}", other)),
        };
        let (live_list, patch_list) = (list(live.get(key))?, list(patch.get(key))?);
        let rule = lookup_list(node, key)?;
        check_order(patch_list.as_deref().unwrap_or_default(), &order, rule.key)?;
        let merged = match (&live_list, &patch_list) {
            (None, None) => continue,
            (Some(live), None) => live.clone(),
            (None, Some(added)) => match without_directives(Value::Array(added.clone())) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(live), Some(patch)) if rule.merge => merge_lists(live.clone(), patch.clone(), &rule, false)?,
            (Some(_), Some(patch)) => patch.clone(),
        };
        let (live_list, patch_list) = (live_list.unwrap_or_default(), patch_list.unwrap_or_default());
        let (named, others) = partition(merged, &order, rule.key)?;
        let kind = element_kind(&[&live_list, &patch_list])?;
        let live_order = if rule.merge {
            live_order(live_list, patch_list, rule.key)
        } else {
            live_list
        };
        let ordered = merge_order(named, others, &order, &live_order, rule.key, kind)?;
        live.insert(key.into(), Value::Array(ordered));
        patch.remove(key);
    }
    Ok(())
}

/// The live order against which `$setElementOrder` interleaves. Upstream deletes in place and appends in place, so
/// that as many new elements as were deleted count as live; its tests expect the order that comes from that.
fn live_order(live: Vec<Value>, patch: Vec<Value>, merge_key: &str) -> Vec<Value> {
    let count = live.len();
    match apply_directives(live.clone(), patch, merge_key) {
        Ok((mut left, added)) if !merge_key.is_empty() && left.len() < count => {
            let is_new = |item: &Value| left.iter().all(|live| live.get(merge_key) != item.get(merge_key));
            let added: Vec<Value> = added.into_iter().filter(is_new).take(count - left.len()).collect();
            left.extend(added);
            left
        }
        _ => live,
    }
}

/// The patch's elements must be among those of the order, and stand in that order.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut kept = Vec::new();
    for item in patch {
        if !merge_key.is_empty() {
            let map = item
                .as_object()
                .ok_or_else(|| bad_type("map[string]interface {}", item))?;
            if map.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                continue;
            }
        }
        // Elements with another directive are not looked at.
        if item.get(DIRECTIVE).is_none() {
            kept.push(item);
        }
    }
    let mut kept = kept.into_iter().peekable();
    for place in order {
        let Some(item) = kept.peek() else { break };
        let equal = if merge_key.is_empty() {
            *item == place
        } else {
            key_of(item, merge_key)? == key_of(place, merge_key)?
        };
        if equal {
            kept.next();
        }
    }
    if kept.peek().is_none() {
        return Ok(());
    }
    let (patch, order) = (Value::from(patch), Value::from(order));
    Err(PatchError::Internal(format!(
        "The order in patch list:\n{}\n doesn't match {SET_ELEMENT_ORDER} list:\n{}\n",
        go_value(&patch),
        go_value(&order)
    )))
}

fn key_of<'a>(item: &'a Value, merge_key: &str) -> Result<&'a Value, PatchError> {
    let map = item
        .as_object()
        .ok_or_else(|| bad_type("map[string]interface {}", item))?;
    map.get(merge_key).ok_or_else(|| no_merge_key(map, merge_key))
}

fn merge_lists(
    live: Vec<Value>,
    patch: Vec<Value>,
    rule: &ListRule<'_>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if !rule.merge && !deletes {
        return Ok(patch);
    }
    if live.is_empty() && patch.is_empty() {
        return Ok(live);
    }
    let kind = element_kind(&[&live, &patch])?;
    if kind != Kind::Map {
        if deletes {
            return Ok(live.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(live.len() + patch.len());
        for item in live.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        let (named, others) = partition(merged, &patch, "")?;
        return merge_order(named, others, &patch, &live, "", kind);
    }
    if rule.key.is_empty() {
        let kind = go_kind(rule.item);
        let message = format!("cannot merge lists without merge key for {kind}");
        return Err(PatchError::Internal(message));
    }
    let (live, patch) = apply_directives(live, patch, rule.key)?;
    let mut merged = live.clone();
    for item in &patch {
        let map = item.as_object().expect("invariant: all elements are maps");
        let value = map.get(rule.key).ok_or_else(|| no_merge_key(map, rule.key))?;
        match merged.iter().position(|item| item.get(rule.key) == Some(value)) {
            None => merged.push(item.clone()),
            Some(place) => {
                let Value::Object(found) = std::mem::take(&mut merged[place]) else {
                    return Err(PatchError::Internal(format!("value for key {place} is not a map")));
                };
                merged[place] = Value::Object(merge_maps(found, map.clone(), rule.item)?);
            }
        }
    }
    let (named, others) = partition(merged, &patch, rule.key)?;
    merge_order(named, others, &patch, &live, rule.key, kind)
}

/// Carries out `$patch` elements of a list; what is left of the patch merges.
fn apply_directives(
    mut live: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        let map = item.as_object().expect("invariant: all elements are maps");
        match directive.as_str() {
            Some("delete") => {
                let value = map.get(merge_key).ok_or_else(|| no_merge_key(map, merge_key))?;
                live.retain(|item| item.get(merge_key) != Some(value));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                let message = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Internal(message.into()));
            }
            _ => return Err(bad_directive(directive, map)),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (live, plain) })
}

/// The value without elements and members that carry `$patch`; `None` when it carries one itself.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return None,
        Value::Object(map) => {
            let kept = map
                .into_iter()
                .filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn lookup<'g>(node: Node<'g>, key: &str) -> Result<Field<'g>, PatchError> {
    let message = match node.shape() {
        Shape::Object(fields) => match fields.get(key) {
            Some(field) => return Ok(field),
            None => {
                let name = node.name().rsplit('.').next().unwrap_or_default();
                let key = crate::field::quote(key);
                format!("unable to find api field in struct {name} for the json field {key}")
            }
        },
        Shape::Scalar(scalar) if scalar.is_opaque() => {
            let name = node.go_type();
            let name = name.rsplit('.').next().unwrap_or_default();
            let key = crate::field::quote(key);
            format!("unable to find api field in struct {name} for the json field {key}")
        }
        _ => {
            let kind = go_kind(node);
            format!("merging an object in json but data type is not struct, instead is: {kind}")
        }
    };
    Err(PatchError::Internal(message))
}

fn lookup_list<'g>(node: Node<'g>, key: &str) -> Result<ListRule<'g>, PatchError> {
    let field = lookup(node, key)?;
    match field.schema().shape() {
        Shape::List { item, .. } => Ok(ListRule {
            item,
            merge: field.patch_strategy().merge,
            key: field.merge_key().unwrap_or_default(),
        }),
        _ => {
            let message = "expected slice or array type, but got: struct";
            Err(PatchError::Internal(message.into()))
        }
    }
}

/// Go's word for the kind of a type.
fn go_kind(node: Node<'_>) -> &'static str {
    match node.shape() {
        Shape::Object(_) => "struct",
        Shape::Map { .. } => "map",
        Shape::List { .. } => "slice",
        Shape::Scalar(scalar) => match scalar {
            crate::schema::Scalar::String => "string",
            crate::schema::Scalar::Bytes => "slice",
            crate::schema::Scalar::Bool => "bool",
            crate::schema::Scalar::Int32 => "int32",
            crate::schema::Scalar::Int64 => "int64",
            crate::schema::Scalar::Double => "float64",
            _ => "struct",
        },
    }
}

fn same_kind(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn bad_directive(directive: &Value, map: &Map) -> PatchError {
    let map = go_value(&Value::Object(map.clone()));
    let directive = match directive {
        Value::String(text) => text.clone(),
        other => format!("%!s({})", go_value(other)),
    };
    PatchError::Internal(format!("unknown patch type: {directive} in map: {map}"))
}

fn bad_primitive_list() -> PatchError {
    PatchError::BadRequest("invalid patch format of primitive list".into())
}

fn bad_order_list() -> PatchError {
    PatchError::BadRequest("invalid patch format of setElementOrder list".into())
}

pub(super) fn bad_type(expected: &str, actual: &Value) -> PatchError {
    let actual = match actual {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    PatchError::Internal(format!("expected a {expected}, but received a {actual}"))
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
