//! Lists: Kubernetes' own functions, cel-go's extension of version 3, and sets. Sources: `pkg/cel/library/lists.go` of the
//! API server, cel-go's `ext/lists.go` and `ext/sets.go`.
//!
//! What costs more than its input is refused before it runs: upstream notices afterwards.

use std::cmp::Ordering;

use super::Native::{Comparing, Plain};
use super::standard::{add, list};
use super::strings::int;
use super::{Line, Outcome, no_overload};
use crate::program::{CALL_COST_MAX, Error};
use crate::value::Value;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("list_int_is_sorted_bool", "list(int)::isSorted() -> bool", Plain(is_sorted)),
    ("list_uint_is_sorted_bool", "list(uint)::isSorted() -> bool", Plain(is_sorted)),
    ("list_double_is_sorted_bool", "list(double)::isSorted() -> bool", Plain(is_sorted)),
    ("list_bool_is_sorted_bool", "list(bool)::isSorted() -> bool", Plain(is_sorted)),
    ("list_duration_is_sorted_bool", "list(duration)::isSorted() -> bool", Plain(is_sorted)),
    ("list_timestamp_is_sorted_bool", "list(timestamp)::isSorted() -> bool", Plain(is_sorted)),
    ("list_string_is_sorted_bool", "list(string)::isSorted() -> bool", Plain(is_sorted)),
    ("list_bytes_is_sorted_bool", "list(bytes)::isSorted() -> bool", Plain(is_sorted)),
    ("list_int_sum_int", "list(int)::sum() -> int", Plain(sum_of_ints)),
    ("list_uint_sum_uint", "list(uint)::sum() -> uint", Plain(sum_of_uints)),
    ("list_double_sum_double", "list(double)::sum() -> double", Plain(sum_of_doubles)),
    ("list_duration_sum_duration", "list(duration)::sum() -> duration", Plain(sum_of_durations)),
    ("list_int_max_int", "list(int)::max() -> int", Plain(max)),
    ("list_uint_max_uint", "list(uint)::max() -> uint", Plain(max)),
    ("list_double_max_double", "list(double)::max() -> double", Plain(max)),
    ("list_bool_max_bool", "list(bool)::max() -> bool", Plain(max)),
    ("list_duration_max_duration", "list(duration)::max() -> duration", Plain(max)),
    ("list_timestamp_max_timestamp", "list(timestamp)::max() -> timestamp", Plain(max)),
    ("list_string_max_string", "list(string)::max() -> string", Plain(max)),
    ("list_bytes_max_bytes", "list(bytes)::max() -> bytes", Plain(max)),
    ("list_int_min_int", "list(int)::min() -> int", Plain(min)),
    ("list_uint_min_uint", "list(uint)::min() -> uint", Plain(min)),
    ("list_double_min_double", "list(double)::min() -> double", Plain(min)),
    ("list_bool_min_bool", "list(bool)::min() -> bool", Plain(min)),
    ("list_duration_min_duration", "list(duration)::min() -> duration", Plain(min)),
    ("list_timestamp_min_timestamp", "list(timestamp)::min() -> timestamp", Plain(min)),
    ("list_string_min_string", "list(string)::min() -> string", Plain(min)),
    ("list_bytes_min_bytes", "list(bytes)::min() -> bytes", Plain(min)),
    ("list_a_index_of_int", "list(A)::indexOf(A) -> int", Comparing(index_of)),
    ("list_a_last_index_of_int", "list(A)::lastIndexOf(A) -> int", Comparing(last_index_of)),
];

/// cel-go's extension, since 1.34.
#[rustfmt::skip]
pub(super) const EXTENSION: &[Line] = &[
    ("list_slice", "list(T)::slice(int, int) -> list(T)", Plain(slice)),
    ("list_flatten", "list(list(T))::flatten() -> list(T)", Plain(flatten)),
    ("list_flatten_int", "list(dyn)::flatten(int) -> list(dyn)", Plain(flatten)),
    ("list_int_sort", "list(int)::sort() -> list(int)", Plain(sort)),
    ("list_uint_sort", "list(uint)::sort() -> list(uint)", Plain(sort)),
    ("list_double_sort", "list(double)::sort() -> list(double)", Plain(sort)),
    ("list_bool_sort", "list(bool)::sort() -> list(bool)", Plain(sort)),
    ("list_google.protobuf.Duration_sort", "list(duration)::sort() -> list(duration)", Plain(sort)),
    ("list_google.protobuf.Timestamp_sort", "list(timestamp)::sort() -> list(timestamp)", Plain(sort)),
    ("list_string_sort", "list(string)::sort() -> list(string)", Plain(sort)),
    ("list_bytes_sort", "list(bytes)::sort() -> list(bytes)", Plain(sort)),
    ("list_int_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(int)) -> list(T)", Plain(sort)),
    ("list_uint_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(uint)) -> list(T)", Plain(sort)),
    ("list_double_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(double)) -> list(T)", Plain(sort)),
    ("list_bool_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(bool)) -> list(T)", Plain(sort)),
    ("list_google.protobuf.Duration_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(duration)) -> list(T)", Plain(sort)),
    ("list_google.protobuf.Timestamp_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(timestamp)) -> list(T)", Plain(sort)),
    ("list_string_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(string)) -> list(T)", Plain(sort)),
    ("list_bytes_sortByAssociatedKeys", "list(T)::@sortByAssociatedKeys(list(bytes)) -> list(T)", Plain(sort)),
    ("lists_range", "lists.range(int) -> list(int)", Plain(range)),
    ("list_reverse", "list(T)::reverse() -> list(T)", Plain(reverse)),
    ("list_distinct", "list(T)::distinct() -> list(T)", Comparing(distinct)),
];

/// Sets, since 1.29.
#[rustfmt::skip]
pub(super) const SETS: &[Line] = &[
    ("list_sets_contains_list", "sets.contains(list(T), list(T)) -> bool", Comparing(contains)),
    ("list_sets_equivalent_list", "sets.equivalent(list(T), list(T)) -> bool", Comparing(equivalent)),
    ("list_sets_intersects_list", "sets.intersects(list(T), list(T)) -> bool", Comparing(intersects)),
];

fn is_sorted<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut before: Option<Value<'a>> = None;
    for value in list(&arguments[0])?.iter() {
        if before.is_some_and(|before| before.compare(&value) == Some(Ordering::Greater)) {
            return Ok(Value::Bool(false));
        }
        before = Some(value);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(arguments: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    list(&arguments[0])?
        .iter()
        .try_fold(zero, |sum, value| add(&[sum, value]))
}

fn sum_of_ints<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    sum(arguments, Value::Int(0))
}

fn sum_of_uints<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    sum(arguments, Value::Uint(0))
}

fn sum_of_doubles<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    sum(arguments, Value::Double(0.0))
}

fn sum_of_durations<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    sum(arguments, Value::Duration(0))
}

/// The first of the values that no other one goes before.
fn extreme<'a>(arguments: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let better = |best: Value<'a>, value: Value<'a>| {
        if value.compare(&best) == Some(wanted) {
            value
        } else {
            best
        }
    };
    let best = list(&arguments[0])?.iter().reduce(better);
    best.ok_or_else(|| Error::evaluation(format!("{name} called on empty list")))
}

fn max<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    extreme(arguments, "max", Ordering::Greater)
}

fn min<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    extreme(arguments, "min", Ordering::Less)
}

fn position(index: Option<usize>) -> Value<'static> {
    Value::Int(index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1))
}

fn index_of<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(position(
        list(&arguments[0])?
            .iter()
            .position(|value| value.equals_counting(&arguments[1], work)),
    ))
}

fn last_index_of<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    let list = list(&arguments[0])?;
    let is_it = |index: &usize| {
        list.get(*index)
            .is_some_and(|value| value.equals_counting(&arguments[1], work))
    };
    Ok(position((0..list.len()).rev().find(is_it)))
}

fn slice<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (list, start, end) = (list(&arguments[0])?, int(&arguments[1])?, int(&arguments[2])?);
    let refuse = |why: &str| Err(Error::evaluation(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(start), usize::try_from(end)) else {
        return refuse("negative indexes not supported");
    };
    if from > to {
        return refuse("start index must be less than or equal to end index");
    }
    if to > list.len() {
        return refuse(&format!("list is length {}", list.len()));
    }
    Ok(Value::list((from..to).filter_map(|index| list.get(index)).collect()))
}

fn flatten<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let depth = arguments.get(1).map_or(Ok(1), int)?;
    if depth < 0 {
        return Err(Error::evaluation("level must be non-negative"));
    }
    let mut flat = Vec::new();
    // Lists that are still to be flattened, each with its depth and the element that comes next.
    let mut open = vec![(list(&arguments[0])?.clone(), depth, 0)];
    while let Some((list, depth, at)) = open.pop() {
        let Some(value) = list.get(at) else { continue };
        open.push((list, depth, at + 1));
        match value {
            Value::List(inner) if depth > 0 => open.push((inner, depth - 1, 0)),
            value => flat.push(value),
        }
    }
    Ok(Value::list(flat))
}

/// Refuses a comparison of each with each that costs more than a call may.
fn affordable(one: usize, other: usize) -> Result<(), Error> {
    let pairs = (one as u64).saturating_mul(other as u64);
    if pairs > CALL_COST_MAX {
        Err(Error::too_expensive())
    } else {
        Ok(())
    }
}

/// Sorts the first list by the last one, which may be the same.
fn sort<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (list_of, keys) = (list(&arguments[0])?, list(arguments.last().ok_or_else(no_overload)?)?);
    if list_of.len() != keys.len() {
        return Err(Error::evaluation(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            list_of.len(),
            keys.len()
        )));
    }
    affordable(keys.len(), keys.len())?;
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.iter().zip(list_of.iter()).collect();
    if let Some((first, _)) = pairs.first() {
        let kind = first.kind();
        if first.compare(first).is_none() {
            return Err(Error::evaluation("list elements must be comparable"));
        }
        if pairs.iter().any(|(key, _)| key.kind() != kind) {
            return Err(Error::evaluation("list elements must have the same type"));
        }
    }
    pairs.sort_by(|(one, _), (other, _)| one.compare(other).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect()))
}

fn range<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let end = int(&arguments[0])?;
    if u64::try_from(end).is_ok_and(|end| end > CALL_COST_MAX) {
        return Err(Error::too_expensive());
    }
    Ok(Value::list((0..end).map(Value::Int).collect()))
}

fn reverse<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let list = list(&arguments[0])?;
    Ok(Value::list(
        (0..list.len()).rev().filter_map(|index| list.get(index)).collect(),
    ))
}

fn distinct<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    let list = list(&arguments[0])?;
    affordable(list.len(), list.len())?;
    let mut seen: Vec<Value<'a>> = Vec::new();
    for value in list.iter() {
        if !seen.iter().any(|known| known.equals_counting(&value, work)) {
            seen.push(value);
        }
    }
    Ok(Value::list(seen))
}

fn has_all(work: &mut usize, list_of: &Value<'_>, wanted: &Value<'_>) -> Result<bool, Error> {
    let (list_of, wanted) = (list(list_of)?, list(wanted)?);
    affordable(list_of.len(), wanted.len())?;
    Ok(wanted
        .iter()
        .all(|one| list_of.iter().any(|other| other.equals_counting(&one, work))))
}

fn contains<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    has_all(work, &arguments[0], &arguments[1]).map(Value::Bool)
}

fn equivalent<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(
        has_all(work, &arguments[0], &arguments[1])? && has_all(work, &arguments[1], &arguments[0])?,
    ))
}

fn intersects<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    let (one, other) = (list(&arguments[0])?, list(&arguments[1])?);
    affordable(one.len(), other.len())?;
    Ok(Value::Bool(one.iter().any(|value| {
        other.iter().any(|also| also.equals_counting(&value, work))
    })))
}
