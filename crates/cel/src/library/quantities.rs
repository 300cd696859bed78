//! Quantities: `quantity('1.5Gi').isGreaterThan(quantity('1G'))`. Source: `pkg/cel/library/quantity.go` of the API server.

use std::cmp::Ordering;
use std::sync::Arc;

use api::quantity::{Format, Quantity};

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::Value;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("string_to_quantity", "quantity(string) -> kubernetes.Quantity", Plain(quantity)),
    ("is_quantity_string", "isQuantity(string) -> bool", Plain(is_quantity)),
    ("quantity_sign", "sign(kubernetes.Quantity) -> int", Plain(sign)),
    ("quantity_is_greater_than", "kubernetes.Quantity::isGreaterThan(kubernetes.Quantity) -> bool", Plain(is_greater)),
    ("quantity_is_less_than", "kubernetes.Quantity::isLessThan(kubernetes.Quantity) -> bool", Plain(is_less)),
    ("quantity_compare_to", "kubernetes.Quantity::compareTo(kubernetes.Quantity) -> int", Plain(compare)),
    ("quantity_get_float", "kubernetes.Quantity::asApproximateFloat() -> double", Plain(as_float)),
    ("quantity_get_int", "kubernetes.Quantity::asInteger() -> int", Plain(as_integer)),
    ("quantity_is_integer", "kubernetes.Quantity::isInteger() -> bool", Plain(is_integer)),
    ("quantity_add", "kubernetes.Quantity::add(kubernetes.Quantity) -> kubernetes.Quantity", Plain(add)),
    ("quantity_add_int", "kubernetes.Quantity::add(int) -> kubernetes.Quantity", Plain(add)),
    ("quantity_sub", "kubernetes.Quantity::sub(kubernetes.Quantity) -> kubernetes.Quantity", Plain(sub)),
    ("quantity_sub_int", "kubernetes.Quantity::sub(int) -> kubernetes.Quantity", Plain(sub)),
];

fn of<'v>(value: &'v Value<'_>) -> Result<&'v Quantity, Error> {
    match value {
        Value::Opaque(Opaque::Quantity(quantity)) => Ok(quantity),
        _ => Err(no_overload()),
    }
}

/// A quantity, or a whole number as one.
fn operand(value: &Value<'_>) -> Result<Quantity, Error> {
    match value {
        Value::Int(value) => Ok(Quantity::new(*value, Format::DecimalExponent)),
        value => of(value).cloned(),
    }
}

fn made<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(Arc::new(quantity)))
}

fn quantity<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let parsed = Quantity::parse(text(&arguments[0])?);
    parsed.map(made).map_err(|error| Error::evaluation(error.to_string()))
}

fn is_quantity<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(Quantity::parse(text(&arguments[0])?).is_ok()))
}

fn sign<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(i64::from(of(&arguments[0])?.sign())))
}

fn order(arguments: &[Value<'_>]) -> Result<Ordering, Error> {
    Ok(of(&arguments[0])?.cmp(of(&arguments[1])?))
}

fn is_greater<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_gt()))
}

fn is_less<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_lt()))
}

fn compare<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Int(order as i64))
}

fn as_float<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(of(&arguments[0])?.as_f64()))
}

fn as_integer<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let value = of(&arguments[0])?.as_i64();
    value
        .map(Value::Int)
        .ok_or_else(|| Error::evaluation("cannot convert value to integer"))
}

fn is_integer<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Bool(of(&arguments[0])?.as_i64().is_some()))
}

fn add<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut sum = of(&arguments[0])?.clone();
    sum.add(&operand(&arguments[1])?);
    Ok(made(sum))
}

fn sub<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut difference = of(&arguments[0])?.clone();
    difference.sub(&operand(&arguments[1])?);
    Ok(made(difference))
}
