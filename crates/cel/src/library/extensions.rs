//! cel-go's extension of texts of version 2: `strings.quote` and `format`. Source: cel-go's `ext/formatting.go`.

use super::Native::Plain;
use super::standard::list;
use super::strings::{text, within_limit};
use super::{Line, Outcome, conversions};
use crate::program::Error;
use crate::value::{Map, Value};

#[rustfmt::skip]
pub(super) const STRINGS_2: &[Line] = &[
    ("strings_quote", "strings.quote(string) -> string", Plain(quote)),
    ("string_format", "string::format(list(dyn)) -> string", Plain(format_text)),
];

/// Decimals when none are named.
const PRECISION: usize = 6;
/// The most decimals (cel-go's limit).
const PRECISION_MAX: usize = 1000;

fn quote<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let mut quoted = String::from("\"");
    for one in text(&arguments[0])?.chars() {
        match one {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(quoted.into())
}

fn format_text<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (template, values) = (text(&arguments[0])?, list(&arguments[1])?);
    let mut out = String::new();
    let mut characters = template.chars().peekable();
    let mut index = 0;
    while let Some(one) = characters.next() {
        if one != '%' {
            out.push(one);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let value = values
            .get(index)
            .ok_or_else(|| Error::evaluation(format!("index {index} out of range")))?;
        index += 1;
        let unparsed = |why: &str| Error::evaluation(format!("could not parse formatting clause: {why}"));
        if characters.peek().is_none() {
            return Err(Error::evaluation("unexpected end of string"));
        }
        let mut precision = None;
        if characters.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let wrong = |why: String| unparsed(&format!("error while parsing precision: {why}"));
            let parsed = digits.parse::<usize>().map_err(|_| {
                wrong(format!(
                    "error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax"
                ))
            })?;
            if parsed > PRECISION_MAX {
                return Err(wrong(format!(
                    "precision {parsed} exceeds maximum allowed precision {PRECISION_MAX}"
                )));
            }
            precision = Some(parsed);
        }
        let clause = characters
            .next()
            .ok_or_else(|| unparsed("error while parsing precision: could not find end of precision specifier"))?;
        let formatted = clause_text(clause, precision.unwrap_or(PRECISION), &value);
        let formatted = formatted.ok_or_else(|| unparsed(&format!("unrecognized formatting clause \"{clause}\"")))?;
        let formatted = formatted.map_err(|why| Error::evaluation(format!("error during formatting: {why}")))?;
        out.push_str(&formatted);
        within_limit(out.len())?;
    }
    Ok(out.into())
}

/// What a clause makes of a value; `None` when there is no such clause.
fn clause_text(clause: char, precision: usize, value: &Value<'_>) -> Option<Result<String, String>> {
    let kind = value.kind();
    let only = |name: &str, takes: &str| {
        Err(format!(
            "{name} clause can only be used on {takes}, was given {}",
            kind.name()
        ))
    };
    Some(match (clause, value) {
        ('s', value) => plain(value),
        ('d', Value::Int(value)) => Ok(value.to_string()),
        ('d', Value::Uint(value)) => Ok(value.to_string()),
        ('d', _) => only("decimal", "integers"),
        ('f', Value::Double(value)) => Ok(fixed(*value, precision)),
        ('f', _) => only("fixed-point", "doubles"),
        ('e', Value::Double(value)) => Ok(scientific(*value, precision)),
        ('e', _) => only("scientific", "doubles"),
        ('b', Value::Int(value)) => Ok(signed(*value, |size| format!("{size:b}"))),
        ('b', Value::Uint(value)) => Ok(format!("{value:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => only(
            "only integers and bools can be formatted as binary: binary",
            "integers and bools",
        ),
        ('o', Value::Int(value)) => Ok(signed(*value, |size| format!("{size:o}"))),
        ('o', Value::Uint(value)) => Ok(format!("{value:o}")),
        ('o', _) => only("octal", "integers"),
        ('x' | 'X', value) => match hex(value) {
            Some(text) if clause == 'X' => Ok(text.to_uppercase()),
            Some(text) => Ok(text),
            None => only("hex", "integers, byte buffers, and strings"),
        },
        _ => return None,
    })
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, digits(value.unsigned_abs()))
}

fn hex(value: &Value<'_>) -> Option<String> {
    let bytes = |bytes: &[u8]| bytes.iter().map(|one| format!("{one:02x}")).collect();
    Some(match value {
        Value::Int(value) => signed(*value, |size| format!("{size:x}")),
        Value::Uint(value) => format!("{value:x}"),
        Value::String(text) => bytes(text.as_bytes()),
        Value::Bytes(all) => bytes(all),
        _ => return None,
    })
}

fn not_finite(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("\u{221e}"),
        f64::NEG_INFINITY => Some("-\u{221e}"),
        _ => None,
    }
}

/// With commas between thousands: the locale is `en_US`.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let text = format!("{value:.precision$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits
        .split_once('.')
        .map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// `2.718280 × 10⁰⁰`, as Go's printer of `en_US` writes it.
fn scientific(value: f64, precision: usize) -> String {
    if let Some(text) = not_finite(value) {
        return text.into();
    }
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent
        .strip_prefix('-')
        .map_or(("", exponent), |rest| ("\u{207b}", rest));
    const RAISED: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let raised: String = format!("{exponent:0>2}")
        .chars()
        .filter_map(|digit| digit.to_digit(10).and_then(|digit| RAISED.get(digit as usize)))
        .collect();
    format!("{digits}\u{202f}\u{d7}\u{202f}10{sign}{raised}")
}

/// `%s`.
fn plain(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::List(_) | Value::Map(_) => nested(value),
        Value::Null => Ok("null".into()),
        Value::Type(kind) => Ok(kind.name().to_owned()),
        Value::String(text) => Ok(text.to_string()),
        Value::Optional(_) | Value::Opaque(_) => Err(format!(
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and \
             timestamps, was given {}",
            value.kind().name()
        )),
        value => match conversions::to_string(std::slice::from_ref(value)) {
            Ok(text) => Ok(text.to_string()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// A value inside of a list or a map: as CEL would write it.
fn nested(value: &Value<'_>) -> Result<String, String> {
    Ok(match value {
        Value::List(list) => {
            let parts: Vec<String> = list.iter().map(|one| nested(&one)).collect::<Result<_, _>>()?;
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => format!("{{{}}}", entries(map)?.join(", ")),
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(_) => format!("b{:?}", plain(value)?),
        Value::Timestamp(_) => format!("timestamp({:?})", plain(value)?),
        Value::Duration(_) => format!("duration({:?})", plain(value)?),
        Value::Double(double) if double.is_finite() => format!("{double:.PRECISION$}"),
        Value::Double(double) => format!("{:?}", conversions::double_text(*double)),
        Value::Optional(_) | Value::Opaque(_) => {
            return Err(format!("no formatting function for {}", value.kind().name()));
        }
        value => plain(value)?,
    })
}

fn entries(map: &Map<'_>) -> Result<Vec<String>, String> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let value = map.get(&key).unwrap_or(Value::Null);
        entries.push(format!("{}:{}", nested(&key.value())?, nested(&value)?));
    }
    entries.sort();
    Ok(entries)
}
