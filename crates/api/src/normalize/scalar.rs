//! One spelling for each scalar.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::Value;
use crate::codec::DecodeError;
use crate::codec::time::{Moment, Precision};
use crate::quantity::Quantity;
use crate::schema::Scalar;

/// Go's `base64.StdEncoding`: padding is required, unused bits may be anything.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// Brings a value that is not null into its one spelling. `type_error` words the error for what was found.
pub(super) fn normalize(
    value: &mut Value,
    scalar: Scalar,
    type_error: impl Fn(&str) -> DecodeError,
) -> Result<(), DecodeError> {
    match scalar {
        Scalar::String => match value {
            Value::String(_) => Ok(()),
            other => Err(type_error(kind(other))),
        },
        Scalar::Bool => match value {
            Value::Bool(_) => Ok(()),
            other => Err(type_error(kind(other))),
        },
        Scalar::Int32 => integer(value, i64::from(i32::MIN)..=i64::from(i32::MAX), type_error),
        Scalar::Int64 => integer(value, i64::MIN..=i64::MAX, type_error),
        Scalar::Double => match value {
            Value::Number(number) => {
                let float = number.as_f64().unwrap_or_default();
                *value = number_of(float);
                Ok(())
            }
            other => Err(type_error(kind(other))),
        },
        Scalar::Bytes => bytes(value, type_error),
        Scalar::Quantity => lone_quantity(value),
        Scalar::Time => time(value, Precision::Seconds),
        Scalar::MicroTime => time(value, Precision::Micros),
        Scalar::IntOrString => int_or_string(value),
        // Go keeps these as bytes and asks no questions.
        Scalar::Any | Scalar::FieldsV1 | Scalar::RawObject => Ok(()),
        Scalar::SchemaOrBool | Scalar::SchemaOrArray | Scalar::SchemaOrStrings => Ok(()),
    }
}

/// What Go calls a JSON value, a number with its digits.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("number {number}"),
        other => kind(other).into(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Go prints a whole float without a fraction.
pub(crate) fn number_of(float: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if float.fract() == 0.0 && float.abs() < EXACT_MAX {
        Value::from(float as i64)
    } else {
        Value::from(float)
    }
}

fn integer(
    value: &Value,
    range: std::ops::RangeInclusive<i64>,
    type_error: impl Fn(&str) -> DecodeError,
) -> Result<(), DecodeError> {
    match value.as_i64() {
        Some(number) if range.contains(&number) => Ok(()),
        _ => Err(type_error(&describe(value))),
    }
}

fn bytes(value: &mut Value, type_error: impl Fn(&str) -> DecodeError) -> Result<(), DecodeError> {
    match value {
        Value::String(text) => {
            if let Some(canonical) = canonical_base64(text)? {
                *text = canonical;
            }
            Ok(())
        }
        // Go takes a list of numbers for bytes too.
        Value::Array(items) => {
            let mut raw = Vec::with_capacity(items.len());
            for item in items {
                let byte = if item.is_null() { Some(0) } else { item.as_u64() };
                match byte.and_then(|byte| u8::try_from(byte).ok()) {
                    Some(byte) => raw.push(byte),
                    None => return Err(type_error(&describe(item))),
                }
            }
            *value = Value::String(BASE64.encode(raw));
            Ok(())
        }
        other => Err(type_error(kind(other))),
    }
}

/// The canonical text when it differs. Go's decoder skips line ends.
fn canonical_base64(text: &str) -> Result<Option<String>, DecodeError> {
    if text.contains(['\r', '\n']) {
        let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        return Ok(Some(canonical_base64(&joined)?.unwrap_or(joined)));
    }
    match BASE64.decode(text) {
        Ok(raw) => Ok(Some(BASE64.encode(raw)).filter(|canonical| canonical != text)),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(len) => len,
                base64::DecodeError::InvalidPadding => text.len(),
            };
            Err(DecodeError::format(format!("illegal base64 data at input byte {at}")))
        }
    }
}

/// A quantity that stands for itself keeps its spelling, as upstream's decoder caches it.
fn lone_quantity(value: &mut Value) -> Result<(), DecodeError> {
    let quantity = quantity_of(value)?;
    set_text(value, quantity.to_string());
    Ok(())
}

/// A quantity of a map (`limits`, `capacity`, `hard`): upstream's defaulting of resource lists makes these canonical.
pub(super) fn canonical_quantity(value: &mut Value) -> Result<(), DecodeError> {
    let quantity = quantity_of(value)?;
    set_text(value, quantity.with_format(quantity.format()).to_string());
    Ok(())
}

fn quantity_of(value: &Value) -> Result<Quantity, DecodeError> {
    Quantity::from_value(value).map_err(|error| DecodeError::format(error.to_string()))
}

fn time(value: &mut Value, precision: Precision) -> Result<(), DecodeError> {
    match value {
        Value::String(text) if precision == Precision::Seconds && is_canonical_time(text) => Ok(()),
        Value::String(text) => {
            let moment = Moment::parse(text, precision)?;
            if moment.is_zero() {
                *value = Value::Null;
            } else {
                set_text(value, moment.format(precision));
            }
            Ok(())
        }
        other => Err(into_go_value(kind(other), "string")),
    }
}

/// Whether a text is for sure a time as it is written. Metadata has several of them, and most are looked at again and again.
fn is_canonical_time(text: &str) -> bool {
    let two = |at: usize| {
        text.get(at..at + 2)
            .filter(|two| two.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let within = |at: usize, least: &str, most: &str| two(at).is_some_and(|two| (least..=most).contains(&two));
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    text.len() == 20
        && marks.iter().all(|(at, mark)| text.as_bytes()[*at] == *mark)
        && within(0, "10", "99")
        && within(2, "00", "99")
        && within(5, "01", "12")
        // What every month has.
        && within(8, "01", "28")
        && within(11, "00", "23")
        && within(14, "00", "59")
        && within(17, "00", "59")
}

fn int_or_string(value: &Value) -> Result<(), DecodeError> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) => match number.as_i64().map(i32::try_from) {
            Some(Ok(_)) => Ok(()),
            _ => Err(into_go_value(&describe(value), "int32")),
        },
        other => Err(into_go_value(kind(other), "int32")),
    }
}

/// The error of a type that decodes itself: it does not know where it stands.
fn into_go_value(found: &str, go_type: &str) -> DecodeError {
    let message = format!("json: cannot unmarshal {found} into Go value of type {go_type}");
    DecodeError::new(crate::codec::DecodeErrorKind::Type, message)
}

fn set_text(value: &mut Value, text: String) {
    if value.as_str() != Some(&text) {
        *value = Value::String(text);
    }
}
