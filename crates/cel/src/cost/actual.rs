//! What a call cost, known its arguments. Sources: `interpreter/runtimecost.go` of cel-go, `pkg/cel/library/cost.go` of
//! the API server.

use super::{CHARACTER, CHECK, LIST, NOMINAL, PATTERN_CHARACTER, REQUIREMENTS_PER_CHARACTER, STRUCT};
use crate::library::opaque::Opaque;
use crate::value::Value;

/// The cost of a call. `overload` is empty when the checker could not tell which.
pub(crate) fn call_cost(function: &str, overload: &str, arguments: &[Value<'_>], result: &Value<'_>) -> u64 {
    extension(overload, arguments, result)
        .or_else(|| library(function, overload, arguments, result))
        .unwrap_or_else(|| standard(overload, arguments))
}

/// cel-go's extensions of lists and sets count for themselves: a call, the list that is made, and what is compared.
fn extension(overload: &str, arguments: &[Value<'_>], result: &Value<'_>) -> Option<u64> {
    let of = |index: usize| arguments.get(index).map_or(1, size);
    let made = |factor: f64, size: u64| ((size as f64 * factor) as u64).saturating_add(1 + LIST);
    let pairs = |factor: f64, one: u64, other: u64| ((one.saturating_mul(other)) as f64 * factor) as u64;
    Some(match overload {
        "list_slice" | "lists_range" | "list_reverse" => made(1.0, size(result)),
        "list_flatten" => made(1.0, of(0)),
        "list_flatten_int" => match arguments.get(1) {
            Some(Value::Int(depth)) => made(*depth as f64, of(0)),
            _ => return None,
        },
        "list_sets_contains_list" | "list_sets_intersects_list" => 1 + pairs(1.0, of(0), of(1)),
        "list_sets_equivalent_list" => 1 + pairs(2.0, of(0), of(1)),
        _ if overload == "list_distinct" || overload.ends_with("_sort") => self_compare(arguments.first()?),
        _ if overload.ends_with("_sortByAssociatedKeys") => self_compare(arguments.get(1)?),
        _ => return None,
    })
}

/// Each element against each.
fn self_compare(list: &Value<'_>) -> u64 {
    let Value::List(list) = list else { return 1 };
    let texts = matches!(list.get(0), Some(Value::String(_) | Value::Bytes(_)));
    let factor = if texts { 2.0 + CHARACTER } else { 2.0 };
    let pairs = (list.len() as u64).saturating_mul(list.len() as u64);
    ((pairs as f64 * factor) as u64).saturating_add(1 + LIST)
}

/// A number of characters as cost.
fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// The size of what has one; else 1.
fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Optional(Some(inner)) => size(inner),
        Value::Opaque(value) => value.size().unwrap_or(1) as u64,
        value => value.size().unwrap_or(1) as u64,
    }
}

fn library(function: &str, overload: &str, arguments: &[Value<'_>], result: &Value<'_>) -> Option<u64> {
    let of = |index: usize| arguments.get(index).map(size);
    Some(match function {
        "check" => CHECK,
        _ if NOMINAL.contains(&function) => 1,
        "fieldSelector" | "labelSelector" => selector(of(1)?),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            arguments.first().map_or(0, traversal)
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => scaled(of(0)?, CHARACTER),
        "replace" | "split" | "ip.isCanonical" => scaled(of(0)?, 2.0 * CHARACTER),
        "join" => scaled(size(result), 2.0 * CHARACTER),
        "find" | "findAll" => pattern(of(0)?, of(1)?),
        "ip" if overload == "cidr_ip" => 1,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            scaled(of(0)?, CHARACTER)
        }
        "validate" => match arguments.first()? {
            Value::Opaque(Opaque::Format(format)) => pattern(of(1)?, format.pattern_length),
            _ => return None,
        },
        "containsIP" | "containsCIDR" => {
            let (network, other) = (of(0)?, of(1)?);
            let mask = if function == "containsCIDR" {
                scaled(network, CHARACTER) + 1
            } else {
                0
            };
            let parse = if overload.ends_with("_string") {
                scaled(other, CHARACTER)
            } else {
                0
            };
            scaled(2 * network, CHARACTER) + mask + parse
        }
        "_==_" if matches!(arguments.first(), Some(Value::Opaque(_))) => 1,
        _ => return None,
    })
}

/// Reading a selector: its text, and a list and a record for each requirement.
fn selector(length: u64) -> u64 {
    LIST + scaled(length, CHARACTER) + scaled(scaled(length, REQUIREMENTS_PER_CHARACTER), (LIST + STRUCT) as f64)
}

/// A pattern on a text: each part of the one on each part of the other.
fn pattern(text: u64, pattern: u64) -> u64 {
    scaled(text + 1, CHARACTER).saturating_mul(scaled(pattern, PATTERN_CHARACTER))
}

/// Looking at all of a value.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        // Bytes, not characters, and rounded down: as upstream has it.
        Value::String(text) => (text.len() as f64 * CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * CHARACTER) as u64,
        Value::List(list) => list.iter().map(|value| traversal(&value)).sum(),
        Value::Map(map) => {
            let entry = |key: &crate::value::Key<'_>| traversal(&key.value());
            let values = map
                .keys()
                .into_iter()
                .map(|key| entry(&key) + map.get(&key).map_or(1, |value| traversal(&value)));
            values.sum()
        }
        _ => 1,
    }
}

fn standard(overload: &str, arguments: &[Value<'_>]) -> u64 {
    let of = |index: usize| arguments.get(index).map_or(1, size);
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => scaled(of(0), CHARACTER),
        "in_list" => of(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes"
        | "equals"
        | "not_equals" => scaled(of(0).min(of(1)), CHARACTER),
        "add_string" | "add_bytes" => scaled(of(0) + of(1), CHARACTER),
        "matches_string" => pattern(of(0), of(1)),
        "contains_string" => scaled(of(0), CHARACTER).saturating_mul(scaled(of(1), CHARACTER)),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::environment::Environment;
    use crate::eval;
    use crate::program::compile_with;
    use crate::types::Type;
    use crate::value::Value;

    /// The cost of an expression without folding, as in cel-go's `interpreter/runtimecost_test.go`.
    fn check(text: &str, expect: u64) {
        let records = Type::list(Type::Dyn);
        let environment = Environment::kubernetes(36)
            .with("list", Type::list(Type::String))
            .with("empty", records.clone())
            .with("one", records)
            .with("m", Type::map(Type::String, Type::map(Type::String, Type::Int)))
            .with("nested", Type::map(Type::String, Type::map(Type::String, Type::String)))
            .with("long", Type::String)
            .with("str1", Type::String)
            .with("str2", Type::String)
            .with("x", Type::Int)
            .with("f", Type::Bool);
        let program = compile_with(&environment, text, false)
            .map_err(|issues| issues.to_string())
            .expect(text);
        let data = json!({
            "list": ["v"], "empty": [], "one": [{}], "m": {"val": {"single": 1}}, "x": 1, "f": false,
            "nested": {"testAttr": {"nestedAttr": "0"}}, "long": "a".repeat(500), "str1": "val1", "str2": "val2222222",
        });
        let value = |name: &'static str, kind: Type| (name, Value::from_json(&data[name], &kind));
        let nested = Type::map(Type::String, Type::Dyn);
        let variables = vec![
            value("list", Type::list(Type::String)),
            value("empty", Type::list(Type::Dyn)),
            value("one", Type::list(Type::Dyn)),
            value("m", nested.clone()),
            value("nested", nested),
            value("long", Type::String),
            value("str1", Type::String),
            value("str2", Type::String),
            value("x", Type::Int),
            value("f", Type::Bool),
        ];
        let (found, cost) = eval::run(&program, &program.plan, &variables, u64::MAX);
        assert!(found.is_ok(), "{text}: {found:?}");
        assert_eq!(cost, expect, "{text}");
    }

    #[test]
    fn costs_are_those_of_cel_go() {
        for (text, expect) in [
            ("\"Hello World!\"", 0),
            ("list", 1),
            ("list[0]", 2),
            ("nested['testAttr']", 2),
            ("nested.testAttr", 2),
            ("nested['test' + 'Attr']", 3),
            ("list[3 - 3]", 3),
            ("has(nested.testAttr)", 1),
            ("has(nested.testAttr.nestedAttr)", 2),
            ("[1, 2, 3]", 10),
            ("{'a': 1, 'b': 2, 'c': 3}", 30),
            ("empty.all(x, true)", 2),
            ("[1, 2, 3].all(x, true)", 20),
            ("long.matches('[0-9]')", 103),
            ("'123'.matches('[0-9]')", 2),
            ("false || false", 0),
            ("f || f || f || f", 4),
            ("1 < 2", 1),
            ("1 == 2", 1),
            ("2 in [1, 2, 3]", 13),
            ("1 + 1", 1),
            ("true ? 1 : 2", 0),
            ("size('123')", 1),
            ("'12345678901234567890' == '123456789012345678901234567890'", 2),
            ("bytes(long)", 51),
            ("string(1)", 1),
            ("long.contains(long)", 2502),
            ("str1.startsWith(str2)", 3),
            ("long.size()", 2),
            ("(x > 2 ? empty : one).all(y, true)", 6),
            ("true ? false : 1 > 3", 0),
            ("false ? false : 1 > 3", 1),
            ("m.all(k, m[k].single > 3)", 9),
            ("(empty + empty).all(x, true)", 4),
            ("'abcdefg'.contains(str1 + str2)", 6),
            ("(1 > 2 ? 5 : 3) > 1", 2),
            ("(1 > 2 || 2 > 1) == true", 3),
            ("[{'k1': 1}, {'k2': 2}].all(x, true)", 77),
            ("[1,2,3,4,5].filter(x, x % 2 == 0)", 62),
            ("[1,2,3,4,5].map(x, x)", 86),
            ("[1,2,3,4,5].map(x, x).filter(x, x % 2 == 0)", 138),
            ("[1,2,3,4,5].map(x, x).exists(x, x == 5) == true", 118),
            ("[1,2,3,4,5].map(x, x).map(x, x)", 162),
            ("[1,2,3,4,5].map(x, [x, x]).filter(z, z.size() == 2)", 232),
            ("[1,2,3,4,5].map(x, [x, x]).all(y, y.all(y, y == 1))", 171),
            ("[1,2,3,4,5].map(x, x).map(x, x) + [1]", 173),
            ("[1,2,3].all(i, i in [1,2,3].map(j, j + j))", 86),
        ] {
            check(text, expect);
        }
    }
}
