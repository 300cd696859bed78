//! What calls may cost, and how large what they give may be. Sources: `checker/cost.go` of cel-go, `pkg/cel/library/cost.go`
//! of the API server, and cel-go's extensions.

use super::estimate::Estimate;
use super::{CHARACTER, CHECK, LIST, NOMINAL, PATTERN_CHARACTER, REQUIREMENTS_PER_CHARACTER, STRUCT};
use crate::ast::{Expr, Kind, Literal};
use crate::types::Type;

/// An argument of a call.
pub(super) struct Argument<'c> {
    pub(super) expr: &'c Expr,
    pub(super) kind: &'c Type,
    pub(super) size: Estimate,
    /// Of a list: the type and the size of its elements.
    pub(super) element: Option<(&'c Type, Estimate)>,
}

/// What a call costs beside its arguments, and the size of what it gives if that can be told.
pub(super) struct CallEstimate {
    pub(super) cost: Estimate,
    pub(super) size: Option<Estimate>,
}

const ONE: Estimate = Estimate { min: 1, max: 1 };
/// The longest pattern of a named format, as upstream estimates it.
const FORMAT_PATTERN_MAX: f64 = 128.0;
/// The longest name of a format.
const FORMAT_NAME_MAX: u64 = 64;
/// Bytes of an address.
const ADDRESS: Estimate = Estimate { min: 4, max: 16 };

fn costs(cost: Estimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: None })
}

fn gives(cost: Estimate, size: Estimate) -> Option<CallEstimate> {
    Some(CallEstimate { cost, size: Some(size) })
}

pub(super) fn call_estimate(
    function: &str,
    overload: &str,
    target: Option<&Argument<'_>>,
    arguments: &[Argument<'_>],
) -> CallEstimate {
    extension(overload, target, arguments)
        .or_else(|| library(function, overload, target, arguments))
        .or_else(|| standard(overload, target, arguments))
        .unwrap_or(CallEstimate { cost: ONE, size: None })
}

/// A literal number of an argument.
fn number(argument: &Argument<'_>) -> Option<u64> {
    match &argument.expr.kind {
        Kind::Literal(Literal::Int(value)) => Some(u64::try_from(*value).unwrap_or(0)),
        _ => None,
    }
}

fn extension(overload: &str, target: Option<&Argument<'_>>, arguments: &[Argument<'_>]) -> Option<CallEstimate> {
    let made = |factor: f64, size: Estimate| gives(size.scaled(factor).plus(Estimate::exactly(1 + LIST)), size);
    let sorted = |list: &Argument<'_>| {
        let texts = matches!(list.element, Some((Type::String | Type::Bytes, _)));
        made(if texts { 2.0 + CHARACTER } else { 2.0 }, list.size.times(list.size))
    };
    match (overload, target, arguments) {
        ("list_slice", Some(list), [start, end]) => {
            let end = number(end).unwrap_or(list.size.max);
            made(1.0, Estimate::exactly(end.saturating_sub(number(start).unwrap_or(0))))
        }
        ("lists_range", None, [count]) => made(1.0, Estimate::exactly(number(count).unwrap_or(u64::MAX))),
        ("list_reverse", Some(list), []) => made(1.0, list.size),
        ("list_flatten", Some(list), []) => made(1.0, list.size),
        ("list_flatten_int", Some(list), [depth]) => made(number(depth).unwrap_or(u64::MAX) as f64, list.size),
        ("list_distinct", Some(list), []) => made(2.0, list.size.times(list.size)),
        ("list_sets_contains_list" | "list_sets_intersects_list", _, [one, other]) => {
            costs(one.size.times(other.size).plus(ONE))
        }
        ("list_sets_equivalent_list", _, [one, other]) => costs(one.size.times(other.size).scaled(2.0).plus(ONE)),
        (_, Some(list), []) if overload.starts_with("list_") && overload.ends_with("_sort") => sorted(list),
        (_, Some(_), [keys]) if overload.ends_with("_sortByAssociatedKeys") => sorted(keys),
        _ => None,
    }
}

fn library(
    function: &str,
    overload: &str,
    target: Option<&Argument<'_>>,
    arguments: &[Argument<'_>],
) -> Option<CallEstimate> {
    if NOMINAL.contains(&function) || overload == "cidr_ip" {
        return costs(ONE);
    }
    match (function, target, arguments) {
        ("check", _, _) => costs(Estimate::exactly(CHECK)),
        ("fieldSelector" | "labelSelector", _, [selector]) => {
            let parse = selector.size.scaled(CHARACTER);
            let requirements = selector
                .size
                .scaled(REQUIREMENTS_PER_CHARACTER)
                .scaled((LIST + STRUCT) as f64);
            costs(Estimate::exactly(LIST).plus(parse).plus(requirements))
        }
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes", Some(target), _) => {
            costs(comparisons(function, target))
        }
        ("url" | "jsonpatch.escapeKey", _, [text]) => gives(text.size.scaled(CHARACTER), text.size),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
            gives(text.size.scaled(CHARACTER), text.size)
        }
        ("replace", Some(text), [old, new, ..]) => gives(
            text.size.scaled(2.0 * CHARACTER),
            replaced(text.size, old.size, new.size),
        ),
        ("split", Some(text), [_, rest @ ..]) => {
            let most = rest.first().and_then(|limit| match &limit.expr.kind {
                // A negative limit is none; upstream takes it for a very large one.
                Kind::Literal(Literal::Int(limit)) => Some(limit.cast_unsigned()),
                _ => None,
            });
            gives(
                text.size.scaled(2.0 * CHARACTER),
                Estimate {
                    min: 0,
                    max: most.unwrap_or(text.size.max),
                },
            )
        }
        ("join", Some(list), separators) => {
            let element = list.element.map_or(Estimate::ANY, |(_, size)| size);
            let mut size = list.size.times(element);
            if let Some(separator) = separators.first() {
                let count = Estimate {
                    min: list.size.min.saturating_sub(1),
                    max: list.size.max.saturating_sub(1),
                };
                size = size.plus(separator.size.times(count));
            }
            gives(size.scaled(CHARACTER), size)
        }
        ("find" | "findAll", Some(text), [pattern, ..]) => gives(
            matching(text.size, pattern.size),
            Estimate {
                min: 0,
                max: text.size.max,
            },
        ),
        ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", _, [text, ..]) => {
            costs(text.size.scaled(CHARACTER))
        }
        ("ip.isCanonical", _, [text]) => costs(text.size.scaled(2.0 * CHARACTER)),
        ("containsIP" | "containsCIDR", Some(_), [other]) => {
            let mut cost = ADDRESS.plus(ADDRESS).scaled(CHARACTER);
            if function == "containsCIDR" {
                cost = cost.plus(ADDRESS.scaled(CHARACTER)).plus(ONE);
            }
            if overload.ends_with("_string") {
                // Scaled twice, as upstream does: its size becomes a cost first.
                cost = cost.plus(other.size.scaled(CHARACTER));
            }
            costs(cost)
        }
        ("validate", Some(_), [text]) => costs(
            text.size
                .scaled(CHARACTER)
                .scaled(FORMAT_PATTERN_MAX * PATTERN_CHARACTER),
        ),
        ("_==_", _, [one, other]) if one.kind == other.kind => match one.kind {
            Type::Opaque(crate::library::opaque::FORMAT) => costs(
                Estimate {
                    min: 1,
                    max: FORMAT_NAME_MAX,
                }
                .scaled(CHARACTER),
            ),
            Type::Opaque(crate::library::opaque::URL) => {
                let max = if other.size == Estimate::ANY { 1 } else { other.size.max };
                costs(Estimate { min: 1, max }.scaled(CHARACTER))
            }
            Type::Opaque(_) => costs(ONE),
            _ => None,
        },
        _ => None,
    }
}

/// A comparison of each element, with all of its characters; or a look at a text.
fn comparisons(function: &str, target: &Argument<'_>) -> Estimate {
    match target.element {
        Some((kind, size)) => {
            let texts = matches!(kind, Type::String | Type::Bytes);
            let each = if texts { ONE.plus(size.scaled(CHARACTER)) } else { ONE };
            target.size.times(each)
        }
        None if function == "includes" => target.size,
        None => target.size.scaled(CHARACTER),
    }
}

fn matching(text: Estimate, pattern: Estimate) -> Estimate {
    text.plus(ONE)
        .scaled(CHARACTER)
        .times(pattern.scaled(PATTERN_CHARACTER))
}

/// The size of a text in which everything that can be is replaced.
fn replaced(text: Estimate, old: Estimate, new: Estimate) -> Estimate {
    // Replacing nothing puts the new text around every character.
    let around = |size: u64| size.saturating_add(1);
    let times = |size: u64, part: u64| (size as f64 / part as f64).ceil() as u64;
    let (most, kept_at_most) = match old.min {
        0 => (around(text.max), text.max),
        shortest if new.max <= shortest => (0, text.max),
        shortest => (times(text.max, shortest), 0),
    };
    let (least, kept_at_least) = match old.max {
        0 => (around(text.min), text.min),
        longest if longest <= new.min => (0, text.min),
        longest => (times(text.min, longest), 0),
    };
    let count = Estimate { min: least, max: most };
    count.times(new).plus(Estimate {
        min: kept_at_least,
        max: kept_at_most,
    })
}

fn standard(overload: &str, target: Option<&Argument<'_>>, arguments: &[Argument<'_>]) -> Option<CallEstimate> {
    match (overload, target, arguments) {
        ("string_format", Some(text), _) => costs(text.size.scaled(CHARACTER)),
        ("string_to_bytes", _, [text]) => {
            let size = Estimate {
                min: text.size.min,
                max: text.size.max.saturating_mul(4),
            };
            gives(text.size.scaled(CHARACTER), size)
        }
        ("bytes_to_string", _, [bytes]) => {
            let size = Estimate {
                min: bytes.size.min / 4,
                max: bytes.size.max,
            };
            gives(bytes.size.scaled(CHARACTER), size)
        }
        ("strings_quote", _, [text]) => {
            let quotes = Estimate::exactly(2);
            let doubled = Estimate {
                min: text.size.min,
                max: text.size.max.saturating_mul(2),
            };
            gives(text.size.scaled(CHARACTER), doubled.plus(quotes))
        }
        ("starts_with_string" | "ends_with_string", _, [text]) => costs(text.size.scaled(CHARACTER)),
        ("in_list", _, [_, list]) => costs(list.size),
        ("matches_string", Some(text), [pattern]) => costs(matching(text.size, pattern.size)),
        ("contains_string", Some(text), [part]) => {
            costs(text.size.scaled(CHARACTER).times(part.size.scaled(CHARACTER)))
        }
        ("add_list", _, [one, other]) => gives(ONE, one.size.plus(other.size)),
        ("add_string" | "add_bytes", _, [one, other]) => {
            let size = one.size.plus(other.size);
            gives(size.scaled(CHARACTER), size)
        }
        (
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes"
            | "equals"
            | "not_equals",
            _,
            [one, other],
        ) => {
            let max = one.size.max.min(other.size.max);
            costs(Estimate { min: max.min(1), max }.scaled(CHARACTER))
        }
        _ => None,
    }
}
