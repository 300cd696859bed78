//! Conversions between types: `int('1')`, `string(1.5)`, `duration('1h')`. The errors are cel-go's.

use super::Native::Plain;
use super::standard::same;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::{Timestamp, Value, time};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("bool_to_bool", "bool(bool) -> bool", Plain(same)),
    ("string_to_bool", "bool(string) -> bool", Plain(to_bool)),
    ("bytes_to_bytes", "bytes(bytes) -> bytes", Plain(same)),
    ("string_to_bytes", "bytes(string) -> bytes", Plain(to_bytes)),
    ("double_to_double", "double(double) -> double", Plain(same)),
    ("int64_to_double", "double(int) -> double", Plain(to_double)),
    ("string_to_double", "double(string) -> double", Plain(to_double)),
    ("uint64_to_double", "double(uint) -> double", Plain(to_double)),
    ("duration_to_duration", "duration(duration) -> duration", Plain(same)),
    ("string_to_duration", "duration(string) -> duration", Plain(to_duration)),
    ("int64_to_int64", "int(int) -> int", Plain(same)),
    ("double_to_int64", "int(double) -> int", Plain(to_int)),
    ("duration_to_int64", "int(duration) -> int", Plain(to_int)),
    ("string_to_int64", "int(string) -> int", Plain(to_int)),
    ("timestamp_to_int64", "int(timestamp) -> int", Plain(to_int)),
    ("uint64_to_int64", "int(uint) -> int", Plain(to_int)),
    ("string_to_string", "string(string) -> string", Plain(same)),
    ("bool_to_string", "string(bool) -> string", Plain(to_string)),
    ("bytes_to_string", "string(bytes) -> string", Plain(to_string)),
    ("double_to_string", "string(double) -> string", Plain(to_string)),
    ("duration_to_string", "string(duration) -> string", Plain(to_string)),
    ("int64_to_string", "string(int) -> string", Plain(to_string)),
    ("timestamp_to_string", "string(timestamp) -> string", Plain(to_string)),
    ("uint64_to_string", "string(uint) -> string", Plain(to_string)),
    ("timestamp_to_timestamp", "timestamp(timestamp) -> timestamp", Plain(same)),
    ("int64_to_timestamp", "timestamp(int) -> timestamp", Plain(to_timestamp)),
    ("string_to_timestamp", "timestamp(string) -> timestamp", Plain(to_timestamp)),
    ("uint64_to_uint64", "uint(uint) -> uint", Plain(same)),
    ("double_to_uint64", "uint(double) -> uint", Plain(to_uint)),
    ("int64_to_uint64", "uint(int) -> uint", Plain(to_uint)),
    ("string_to_uint64", "uint(string) -> uint", Plain(to_uint)),
];

/// 2 to the 63rd and the 64th: the first floating-point numbers past an int and a uint.
const INT_END: f64 = 9_223_372_036_854_775_808.0;
const UINT_END: f64 = 18_446_744_073_709_551_616.0;

fn conversion_error(value: &Value<'_>, to: &str) -> Error {
    Error::evaluation(format!(
        "type conversion error from '{}' to '{to}'",
        value.kind().name()
    ))
}

/// An error of Go's `strconv`.
fn number_error(function: &str, text: &str, why: &str) -> Error {
    Error::evaluation(format!("strconv.{function}: parsing {text:?}: {why}"))
}

fn to_bool<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let text = arguments[0].as_str().ok_or_else(no_overload)?;
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        _ => Err(conversion_error(&arguments[0], "bool")),
    }
}

fn to_bytes<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let text = arguments[0].as_str().ok_or_else(no_overload)?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn to_double<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(match &arguments[0] {
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) => {
            let fits = !text.is_empty() && !text.starts_with(char::is_whitespace);
            let value = text.parse::<f64>().ok().filter(|_| fits);
            value.ok_or_else(|| number_error("ParseFloat", text, "invalid syntax"))?
        }
        _ => return Err(no_overload()),
    }))
}

fn to_duration<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let text = arguments[0].as_str().ok_or_else(no_overload)?;
    time::parse_duration(text)
        .map(Value::Duration)
        .map_err(Error::evaluation)
}

fn to_timestamp<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Int(seconds) => {
            let time = Timestamp::new(*seconds, 0).ok_or_else(|| Error::evaluation("timestamp overflow"))?;
            Ok(Value::Timestamp(time))
        }
        Value::String(text) => match Timestamp::parse(text) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => {
                let format = "2006-01-02T15:04:05Z07:00";
                Err(Error::evaluation(format!(
                    "parsing time {text:?} as {format:?}: cannot parse {text:?}",
                    text = &**text
                )))
            }
        },
        _ => Err(no_overload()),
    }
}

fn to_int<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::evaluation("integer overflow");
    Ok(Value::Int(match &arguments[0] {
        Value::Duration(nanos) => *nanos,
        Value::Timestamp(time) => time.seconds(),
        Value::Uint(value) => i64::try_from(*value).map_err(|_| overflow())?,
        // cel-go refuses the ends of the range too: a floating-point number near them is not exact.
        Value::Double(value) if value.is_finite() && *value > -INT_END && *value < INT_END => *value as i64,
        Value::Double(_) => return Err(overflow()),
        Value::String(text) => text.parse::<i64>().map_err(|error| {
            let range = matches!(
                error.kind(),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            );
            number_error(
                "ParseInt",
                text,
                if range { "value out of range" } else { "invalid syntax" },
            )
        })?,
        _ => return Err(no_overload()),
    }))
}

fn to_uint<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::evaluation("unsigned integer overflow");
    Ok(Value::Uint(match &arguments[0] {
        Value::Int(value) => u64::try_from(*value).map_err(|_| overflow())?,
        Value::Double(value) if *value >= 0.0 && *value < UINT_END => *value as u64,
        Value::Double(_) => return Err(overflow()),
        Value::String(text) => {
            let parsed = if text.starts_with('+') {
                "".parse::<u64>()
            } else {
                text.parse::<u64>()
            };
            parsed.map_err(|error| {
                let range = matches!(error.kind(), std::num::IntErrorKind::PosOverflow);
                number_error(
                    "ParseUint",
                    text,
                    if range { "value out of range" } else { "invalid syntax" },
                )
            })?
        }
        _ => return Err(no_overload()),
    }))
}

pub(super) fn to_string<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(match &arguments[0] {
        Value::Bool(value) => value.to_string().into(),
        Value::Int(value) => value.to_string().into(),
        Value::Uint(value) => value.to_string().into(),
        Value::Double(value) => double_text(*value).into(),
        Value::Duration(nanos) => time::duration_text(*nanos).into(),
        Value::Timestamp(time) => time.to_string().into(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned().into(),
            Err(_) => return Err(Error::evaluation("invalid UTF-8 in bytes, cannot convert to string")),
        },
        _ => return Err(no_overload()),
    })
}

/// As Go's format `g` with the shortest digits: an exponent below 1e-4 and from 1e6 on.
pub(crate) fn double_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}
