//! Operators, sizes, optional values and what macros call. Source: cel-go's `common/stdlib/standard.go`.

use std::cmp::Ordering;

use super::Native::{Comparing, Evaluator, Plain};
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::types::Type;
use crate::value::{Key, List, Map, Value};

#[rustfmt::skip]
pub(super) const OPERATORS: &[Line] = &[
    ("conditional", "_?_:_(bool, A, A) -> A", Evaluator),
    ("logical_and", "_&&_(bool, bool) -> bool", Evaluator),
    ("logical_or", "_||_(bool, bool) -> bool", Evaluator),
    ("logical_not", "!_(bool) -> bool", Plain(not)),
    ("not_strictly_false", "@not_strictly_false(bool) -> bool", Evaluator),
    ("equals", "_==_(A, A) -> bool", Evaluator),
    ("not_equals", "_!=_(A, A) -> bool", Evaluator),
    ("add_bytes", "_+_(bytes, bytes) -> bytes", Plain(add)),
    ("add_double", "_+_(double, double) -> double", Plain(add)),
    ("add_duration_duration", "_+_(duration, duration) -> duration", Plain(add)),
    ("add_duration_timestamp", "_+_(duration, timestamp) -> timestamp", Plain(add)),
    ("add_timestamp_duration", "_+_(timestamp, duration) -> timestamp", Plain(add)),
    ("add_int64", "_+_(int, int) -> int", Plain(add)),
    ("add_list", "_+_(list(A), list(A)) -> list(A)", Plain(add)),
    ("add_string", "_+_(string, string) -> string", Plain(add)),
    ("add_uint64", "_+_(uint, uint) -> uint", Plain(add)),
    ("divide_double", "_/_(double, double) -> double", Plain(divide)),
    ("divide_int64", "_/_(int, int) -> int", Plain(divide)),
    ("divide_uint64", "_/_(uint, uint) -> uint", Plain(divide)),
    ("modulo_int64", "_%_(int, int) -> int", Plain(modulo)),
    ("modulo_uint64", "_%_(uint, uint) -> uint", Plain(modulo)),
    ("multiply_double", "_*_(double, double) -> double", Plain(multiply)),
    ("multiply_int64", "_*_(int, int) -> int", Plain(multiply)),
    ("multiply_uint64", "_*_(uint, uint) -> uint", Plain(multiply)),
    ("negate_double", "-_(double) -> double", Plain(negate)),
    ("negate_int64", "-_(int) -> int", Plain(negate)),
    ("subtract_double", "_-_(double, double) -> double", Plain(subtract)),
    ("subtract_duration_duration", "_-_(duration, duration) -> duration", Plain(subtract)),
    ("subtract_int64", "_-_(int, int) -> int", Plain(subtract)),
    ("subtract_timestamp_duration", "_-_(timestamp, duration) -> timestamp", Plain(subtract)),
    ("subtract_timestamp_timestamp", "_-_(timestamp, timestamp) -> duration", Plain(subtract)),
    ("subtract_uint64", "_-_(uint, uint) -> uint", Plain(subtract)),
    ("less_bool", "_<_(bool, bool) -> bool", Plain(less)),
    ("less_int64", "_<_(int, int) -> bool", Plain(less)),
    ("less_int64_double", "_<_(int, double) -> bool", Plain(less)),
    ("less_int64_uint64", "_<_(int, uint) -> bool", Plain(less)),
    ("less_uint64", "_<_(uint, uint) -> bool", Plain(less)),
    ("less_uint64_double", "_<_(uint, double) -> bool", Plain(less)),
    ("less_uint64_int64", "_<_(uint, int) -> bool", Plain(less)),
    ("less_double", "_<_(double, double) -> bool", Plain(less)),
    ("less_double_int64", "_<_(double, int) -> bool", Plain(less)),
    ("less_double_uint64", "_<_(double, uint) -> bool", Plain(less)),
    ("less_string", "_<_(string, string) -> bool", Plain(less)),
    ("less_bytes", "_<_(bytes, bytes) -> bool", Plain(less)),
    ("less_timestamp", "_<_(timestamp, timestamp) -> bool", Plain(less)),
    ("less_duration", "_<_(duration, duration) -> bool", Plain(less)),
    ("less_equals_bool", "_<=_(bool, bool) -> bool", Plain(less_equals)),
    ("less_equals_int64", "_<=_(int, int) -> bool", Plain(less_equals)),
    ("less_equals_int64_double", "_<=_(int, double) -> bool", Plain(less_equals)),
    ("less_equals_int64_uint64", "_<=_(int, uint) -> bool", Plain(less_equals)),
    ("less_equals_uint64", "_<=_(uint, uint) -> bool", Plain(less_equals)),
    ("less_equals_uint64_double", "_<=_(uint, double) -> bool", Plain(less_equals)),
    ("less_equals_uint64_int64", "_<=_(uint, int) -> bool", Plain(less_equals)),
    ("less_equals_double", "_<=_(double, double) -> bool", Plain(less_equals)),
    ("less_equals_double_int64", "_<=_(double, int) -> bool", Plain(less_equals)),
    ("less_equals_double_uint64", "_<=_(double, uint) -> bool", Plain(less_equals)),
    ("less_equals_string", "_<=_(string, string) -> bool", Plain(less_equals)),
    ("less_equals_bytes", "_<=_(bytes, bytes) -> bool", Plain(less_equals)),
    ("less_equals_timestamp", "_<=_(timestamp, timestamp) -> bool", Plain(less_equals)),
    ("less_equals_duration", "_<=_(duration, duration) -> bool", Plain(less_equals)),
    ("greater_bool", "_>_(bool, bool) -> bool", Plain(greater)),
    ("greater_int64", "_>_(int, int) -> bool", Plain(greater)),
    ("greater_int64_double", "_>_(int, double) -> bool", Plain(greater)),
    ("greater_int64_uint64", "_>_(int, uint) -> bool", Plain(greater)),
    ("greater_uint64", "_>_(uint, uint) -> bool", Plain(greater)),
    ("greater_uint64_double", "_>_(uint, double) -> bool", Plain(greater)),
    ("greater_uint64_int64", "_>_(uint, int) -> bool", Plain(greater)),
    ("greater_double", "_>_(double, double) -> bool", Plain(greater)),
    ("greater_double_int64", "_>_(double, int) -> bool", Plain(greater)),
    ("greater_double_uint64", "_>_(double, uint) -> bool", Plain(greater)),
    ("greater_string", "_>_(string, string) -> bool", Plain(greater)),
    ("greater_bytes", "_>_(bytes, bytes) -> bool", Plain(greater)),
    ("greater_timestamp", "_>_(timestamp, timestamp) -> bool", Plain(greater)),
    ("greater_duration", "_>_(duration, duration) -> bool", Plain(greater)),
    ("greater_equals_bool", "_>=_(bool, bool) -> bool", Plain(greater_equals)),
    ("greater_equals_int64", "_>=_(int, int) -> bool", Plain(greater_equals)),
    ("greater_equals_int64_double", "_>=_(int, double) -> bool", Plain(greater_equals)),
    ("greater_equals_int64_uint64", "_>=_(int, uint) -> bool", Plain(greater_equals)),
    ("greater_equals_uint64", "_>=_(uint, uint) -> bool", Plain(greater_equals)),
    ("greater_equals_uint64_double", "_>=_(uint, double) -> bool", Plain(greater_equals)),
    ("greater_equals_uint64_int64", "_>=_(uint, int) -> bool", Plain(greater_equals)),
    ("greater_equals_double", "_>=_(double, double) -> bool", Plain(greater_equals)),
    ("greater_equals_double_int64", "_>=_(double, int) -> bool", Plain(greater_equals)),
    ("greater_equals_double_uint64", "_>=_(double, uint) -> bool", Plain(greater_equals)),
    ("greater_equals_string", "_>=_(string, string) -> bool", Plain(greater_equals)),
    ("greater_equals_bytes", "_>=_(bytes, bytes) -> bool", Plain(greater_equals)),
    ("greater_equals_timestamp", "_>=_(timestamp, timestamp) -> bool", Plain(greater_equals)),
    ("greater_equals_duration", "_>=_(duration, duration) -> bool", Plain(greater_equals)),
    ("index_list", "_[_](list(A), int) -> A", Evaluator),
    ("index_map", "_[_](map(A, B), A) -> B", Evaluator),
    ("in_list", "@in(A, list(A)) -> bool", Comparing(is_in)),
    ("in_map", "@in(A, map(A, B)) -> bool", Comparing(is_in)),
];

#[rustfmt::skip]
pub(super) const FUNCTIONS: &[Line] = &[
    ("size_bytes", "size(bytes) -> int", Plain(size)),
    ("bytes_size", "bytes::size() -> int", Plain(size)),
    ("size_list", "size(list(A)) -> int", Plain(size)),
    ("list_size", "list(A)::size() -> int", Plain(size)),
    ("size_map", "size(map(A, B)) -> int", Plain(size)),
    ("map_size", "map(A, B)::size() -> int", Plain(size)),
    ("size_string", "size(string) -> int", Plain(size)),
    ("string_size", "string::size() -> int", Plain(size)),
    ("type", "type(A) -> type(A)", Plain(type_of)),
    ("to_dyn", "dyn(A) -> dyn", Plain(same)),
];

#[rustfmt::skip]
pub(super) const OPTIONALS: &[Line] = &[
    ("optional_of", "optional.of(V) -> optional(V)", Plain(some)),
    ("optional_ofNonZeroValue", "optional.ofNonZeroValue(V) -> optional(V)", Plain(some_if_not_zero)),
    ("optional_none", "optional.none() -> optional(V)", Plain(none)),
    ("optional_value", "optional(V)::value() -> V", Plain(value)),
    ("optional_hasValue", "optional(V)::hasValue() -> bool", Plain(has_value)),
    ("optional_or_optional", "optional(V)::or(optional(V)) -> optional(V)", Evaluator),
    ("optional_orValue_value", "optional(V)::orValue(V) -> V", Evaluator),
    ("select_optional_field", "_?._(dyn, string) -> optional(V)", Evaluator),
    ("list_optindex_optional_int", "_[?_](list(V), int) -> optional(V)", Evaluator),
    ("optional_list_optindex_optional_int", "_[?_](optional(list(V)), int) -> optional(V)", Evaluator),
    ("map_optindex_optional_value", "_[?_](map(K, V), K) -> optional(V)", Evaluator),
    ("optional_map_optindex_optional_value", "_[?_](optional(map(K, V)), K) -> optional(V)", Evaluator),
    ("optional_list_index_int", "_[_](optional(list(V)), int) -> optional(V)", Evaluator),
    ("optional_map_index_value", "_[_](optional(map(K, V)), K) -> optional(V)", Evaluator),
    ("list_last", "list(V)::last() -> optional(V)", Plain(last)),
    ("list_first", "list(V)::first() -> optional(V)", Plain(first)),
    ("optional_unwrap", "optional.unwrap(list(optional(V))) -> list(V)", Plain(unwrap)),
    ("optional_unwrapOpt", "list(optional(V))::unwrapOpt() -> list(V)", Plain(unwrap)),
];

#[rustfmt::skip]
pub(super) const TWO_VARIABLES: &[Line] = &[
    ("@mapInsert_map_key_value", "cel.@mapInsert(map(K, V), K, V) -> map(K, V)", Evaluator),
    ("@mapInsert_map_map", "cel.@mapInsert(map(K, V), map(K, V)) -> map(K, V)", Evaluator),
];

pub(super) fn same<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(arguments[0].clone())
}

fn not<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    arguments[0]
        .as_bool()
        .map(|value| Value::Bool(!value))
        .ok_or_else(no_overload)
}

fn overflow(kind: &str) -> Error {
    Error::evaluation(match kind {
        "uint" => "unsigned integer overflow",
        "duration" => "duration overflow",
        "timestamp" => "timestamp overflow",
        _ => "integer overflow",
    })
}

pub(crate) fn add<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&arguments[0], &arguments[1]) {
        (Value::Int(one), Value::Int(other)) => Value::Int(one.checked_add(*other).ok_or_else(|| overflow("int"))?),
        (Value::Uint(one), Value::Uint(other)) => Value::Uint(one.checked_add(*other).ok_or_else(|| overflow("uint"))?),
        (Value::Double(one), Value::Double(other)) => Value::Double(one + other),
        (Value::String(one), Value::String(other)) => format!("{}{}", &**one, &**other).into(),
        (Value::Bytes(one), Value::Bytes(other)) => Value::Bytes([&**one, &**other].concat().into()),
        (Value::List(one), Value::List(other)) => Value::list(one.iter().chain(other.iter()).collect()),
        (Value::Duration(one), Value::Duration(other)) => {
            Value::Duration(one.checked_add(*other).ok_or_else(|| overflow("duration"))?)
        }
        (Value::Timestamp(time), Value::Duration(nanos)) | (Value::Duration(nanos), Value::Timestamp(time)) => {
            Value::Timestamp(time.plus(*nanos).ok_or_else(|| overflow("timestamp"))?)
        }
        _ => return Err(no_overload()),
    })
}

fn subtract<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&arguments[0], &arguments[1]) {
        (Value::Int(one), Value::Int(other)) => Value::Int(one.checked_sub(*other).ok_or_else(|| overflow("int"))?),
        (Value::Uint(one), Value::Uint(other)) => Value::Uint(one.checked_sub(*other).ok_or_else(|| overflow("uint"))?),
        (Value::Double(one), Value::Double(other)) => Value::Double(one - other),
        (Value::Duration(one), Value::Duration(other)) => {
            Value::Duration(one.checked_sub(*other).ok_or_else(|| overflow("duration"))?)
        }
        (Value::Timestamp(time), Value::Duration(nanos)) => {
            let later = nanos.checked_neg().and_then(|nanos| time.plus(nanos));
            Value::Timestamp(later.ok_or_else(|| overflow("timestamp"))?)
        }
        (Value::Timestamp(one), Value::Timestamp(other)) => {
            Value::Duration(one.since(*other).ok_or_else(|| overflow("duration"))?)
        }
        _ => return Err(no_overload()),
    })
}

fn multiply<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&arguments[0], &arguments[1]) {
        (Value::Int(one), Value::Int(other)) => Value::Int(one.checked_mul(*other).ok_or_else(|| overflow("int"))?),
        (Value::Uint(one), Value::Uint(other)) => Value::Uint(one.checked_mul(*other).ok_or_else(|| overflow("uint"))?),
        (Value::Double(one), Value::Double(other)) => Value::Double(one * other),
        _ => return Err(no_overload()),
    })
}

fn divide<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&arguments[0], &arguments[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(Error::evaluation("division by zero"));
        }
        (Value::Int(one), Value::Int(other)) => Value::Int(one.checked_div(*other).ok_or_else(|| overflow("int"))?),
        (Value::Uint(one), Value::Uint(other)) => Value::Uint(one / other),
        (Value::Double(one), Value::Double(other)) => Value::Double(one / other),
        _ => return Err(no_overload()),
    })
}

fn modulo<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match (&arguments[0], &arguments[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => {
            return Err(Error::evaluation("modulus by zero"));
        }
        (Value::Int(one), Value::Int(other)) => Value::Int(one.checked_rem(*other).ok_or_else(|| overflow("int"))?),
        (Value::Uint(one), Value::Uint(other)) => Value::Uint(one % other),
        _ => return Err(no_overload()),
    })
}

fn negate<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match &arguments[0] {
        Value::Int(value) => Value::Int(value.checked_neg().ok_or_else(|| overflow("int"))?),
        Value::Double(value) => Value::Double(-value),
        _ => return Err(no_overload()),
    })
}

fn order(arguments: &[Value<'_>]) -> Result<Ordering, Error> {
    let is_nan = |value: &Value<'_>| matches!(value, Value::Double(value) if value.is_nan());
    if arguments.iter().all(Value::is_number) && arguments.iter().any(is_nan) {
        return Err(Error::evaluation("NaN values cannot be ordered"));
    }
    arguments[0].compare(&arguments[1]).ok_or_else(no_overload)
}

fn less<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_lt()))
}

fn less_equals<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_le()))
}

fn greater<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_gt()))
}

fn greater_equals<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_ge()))
}

fn is_in<'a>(work: &mut usize, arguments: &[Value<'a>]) -> Outcome<'a> {
    let wanted = &arguments[0];
    Ok(Value::Bool(match &arguments[1] {
        Value::List(list) => list.iter().any(|value| value.equals_counting(wanted, work)),
        Value::Map(map) => Key::of(wanted).is_some_and(|key| map.get(&key).is_some()),
        _ => return Err(no_overload()),
    }))
}

fn size<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let size = arguments[0].size().ok_or_else(no_overload)?;
    Ok(Value::Int(i64::try_from(size).map_err(|_| overflow("int"))?))
}

fn type_of<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Type(arguments[0].kind()))
}

fn some<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::some(arguments[0].clone()))
}

fn some_if_not_zero<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let zero = match &arguments[0] {
        Value::Null
        | Value::Bool(false)
        | Value::Int(0)
        | Value::Uint(0)
        | Value::Duration(0)
        | Value::Optional(None) => true,
        Value::Double(value) => *value == 0.0,
        Value::Timestamp(time) => time.seconds() == 0 && time.nanos() == 0,
        Value::Type(kind) => *kind == Type::Dyn,
        value => value.size() == Some(0),
    };
    if zero {
        Ok(Value::Optional(None))
    } else {
        some(arguments)
    }
}

fn none<'a>(_: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Optional(None))
}

fn value<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Err(Error::evaluation("optional.none() dereference")),
        _ => Err(no_overload()),
    }
}

fn has_value<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        _ => Err(no_overload()),
    }
}

pub(super) fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, Error> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(no_overload()),
    }
}

fn first<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(list(&arguments[0])?.get(0).map_or(Value::Optional(None), Value::some))
}

fn last<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let list = list(&arguments[0])?;
    let last = list.len().checked_sub(1).and_then(|last| list.get(last));
    Ok(last.map_or(Value::Optional(None), Value::some))
}

fn unwrap<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut there = Vec::new();
    for value in list(&arguments[0])?.iter() {
        match value {
            Value::Optional(value) => there.extend(value.map(|value| (*value).clone())),
            other => return Err(Error::evaluation(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(there))
}

/// `cel.@mapInsert`: one entry, or all of another map's. The first map is consumed, so that a loop that fills it does not
/// copy it each time.
pub(crate) fn map_insert<'a>(target: Value<'a>, rest: &[Value<'a>]) -> Outcome<'a> {
    let Value::Map(target) = target else {
        return Err(no_overload());
    };
    let mut entries = match target {
        Map::Made(entries) => entries,
        other => {
            let copy = other
                .keys()
                .into_iter()
                .filter_map(|key| other.get(&key).map(|value| (key, value)));
            std::sync::Arc::new(copy.collect())
        }
    };
    let all = std::sync::Arc::make_mut(&mut entries);
    let mut insert = |key: Key<'a>, value: Value<'a>| {
        if all.contains_key(&key) {
            return Err(Error::evaluation(format!(
                "insert failed: key {} already exists",
                key.value()
            )));
        }
        all.insert(key, value);
        Ok(())
    };
    match rest {
        [key, value] => insert(Key::of(key).ok_or_else(|| unsupported_key(key))?, value.clone())?,
        [Value::Map(more)] => {
            for key in more.keys() {
                let value = more.get(&key).unwrap_or(Value::Null);
                insert(key, value)?;
            }
        }
        _ => return Err(no_overload()),
    }
    Ok(Value::Map(Map::Made(entries)))
}

/// What cannot be a key of a map.
pub(crate) fn unsupported_key(key: &Value<'_>) -> Error {
    Error::evaluation(format!("unsupported key type: {}", key.kind().name()))
}
