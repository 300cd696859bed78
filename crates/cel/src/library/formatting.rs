//! What cel-go's extension of texts had until version 2: `strings.quote`, and `format` with its templates. Source: cel-go's
//! `ext/formatting.go`.

use super::Native::Plain;
use super::standard::list;
use super::strings::{text, within_limit};
use super::{Line, Outcome, conversions};
use crate::program::Error;
use crate::types::Type;
use crate::value::{Map, Value};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("strings_quote", "strings.quote(string) -> string", Plain(super::strings::quote)),
    ("string_format", "string::format(list(dyn)) -> string", Plain(format_text)),
];

/// Decimals when none are named.
const PRECISION: usize = 6;
/// The most decimals (cel-go's limit).
const PRECISION_MAX: usize = 1000;

fn format_text<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let (template, values) = (text(&arguments[0])?, list(&arguments[1])?);
    let mut out = String::new();
    let mut index = 0;
    for piece in Pieces::of(template) {
        match piece {
            Piece::Text(one) => out.push(one),
            Piece::Clause(clause) => {
                let value = values
                    .get(index)
                    .ok_or_else(|| Error::evaluation(out_of_range(index)))?;
                index += 1;
                let formatted = clause
                    .and_then(|clause| clause.format(&value))
                    .map_err(Error::evaluation)?;
                out.push_str(&formatted);
            }
        }
        within_limit(out.len())?;
    }
    Ok(out.into())
}

fn out_of_range(index: usize) -> String {
    format!("index {index} out of range")
}

/// What is wrong with a literal template and the arguments whose types these are; the node to blame is an argument's index,
/// or none for the call.
pub(crate) fn check_template(template: &str, kinds: &[&Type]) -> Result<(), (Option<usize>, String)> {
    let mut index = 0;
    for piece in Pieces::of(template) {
        let Piece::Clause(clause) = piece else { continue };
        let kind = kinds.get(index).ok_or_else(|| (None, out_of_range(index)))?;
        let clause = clause.map_err(|why| (None, why))?;
        if !clause.takes(kind) {
            let why = format!("error during formatting: {}", clause.refusal(kind.name()));
            return Err((Some(index), why));
        }
        index += 1;
    }
    if kinds.len() > index {
        let count = kinds.len();
        return Err((
            None,
            format!("too many arguments supplied to string.format (expected {index}, got {count})"),
        ));
    }
    Ok(())
}

/// A part of a template.
enum Piece {
    /// A character that stands for itself.
    Text(char),
    /// A place for an argument, or why it is none.
    Clause(Result<Clause, String>),
}

/// `%.2f`: the letter, and how many decimals.
struct Clause {
    letter: char,
    precision: usize,
}

/// The parts of a template in their order.
struct Pieces<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
}

impl<'t> Pieces<'t> {
    fn of(template: &'t str) -> Pieces<'t> {
        Pieces {
            rest: template.chars().peekable(),
        }
    }

    fn clause(&mut self) -> Result<Clause, String> {
        const UNPARSED: &str = "could not parse formatting clause";
        const PRECISION_ERROR: &str = "could not parse formatting clause: error while parsing precision";
        if self.rest.peek().is_none() {
            return Err("unexpected end of string".into());
        }
        let mut precision = PRECISION;
        if self.rest.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = self.rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            if self.rest.peek().is_none() {
                return Err(format!("{PRECISION_ERROR}: could not find end of precision specifier"));
            }
            let why = if digits.is_empty() {
                "invalid syntax"
            } else {
                "value out of range"
            };
            let number_error =
                format!("error while converting precision to integer: strconv.Atoi: parsing {digits:?}: {why}");
            precision = digits
                .parse()
                .map_err(|_| format!("{PRECISION_ERROR}: {number_error}"))?;
            if precision > PRECISION_MAX {
                let why = format!("precision {precision} exceeds maximum allowed precision {PRECISION_MAX}");
                return Err(format!("{PRECISION_ERROR}: {why}"));
            }
        }
        match self.rest.next() {
            Some(letter) if "sdfebxXo".contains(letter) => Ok(Clause { letter, precision }),
            Some(other) => Err(format!("{UNPARSED}: unrecognized formatting clause \"{other}\"")),
            None => Err("unexpected end of string".into()),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        match self.rest.next()? {
            '%' if self.rest.next_if_eq(&'%').is_some() => Some(Piece::Text('%')),
            '%' => Some(Piece::Clause(self.clause())),
            one => Some(Piece::Text(one)),
        }
    }
}

impl Clause {
    /// Whether values of a type may be formatted so.
    fn takes(&self, kind: &Type) -> bool {
        let number = matches!(kind, Type::Int | Type::Uint);
        match (self.letter, kind) {
            (_, Type::Dyn) => true,
            ('s', kind) => !matches!(
                kind,
                Type::Opaque(_) | Type::Object(_) | Type::Optional(_) | Type::Error
            ),
            ('d' | 'o', _) => number,
            // The texts `NaN`, `Infinity` and `-Infinity`.
            ('f' | 'e', kind) => matches!(kind, Type::Double | Type::String),
            ('b', kind) => number || *kind == Type::Bool,
            (_, kind) => number || matches!(kind, Type::String | Type::Bytes),
        }
    }

    /// That it cannot be.
    fn refusal(&self, kind: &str) -> String {
        let rule = match self.letter {
            's' => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and \
                 timestamps"
            }
            'd' => "decimal clause can only be used on integers",
            'f' => "fixed-point clause can only be used on doubles",
            'e' => "scientific clause can only be used on doubles",
            'b' => "only integers and bools can be formatted as binary",
            'o' => "octal clause can only be used on integers",
            _ => "only integers, byte buffers, and strings can be formatted as hex",
        };
        format!("{rule}, was given {kind}")
    }

    fn format(&self, value: &Value<'_>) -> Result<String, String> {
        let failed = |why: String| format!("error during formatting: {why}");
        match self.letter {
            's' => plain(value).map_err(failed),
            _ => self
                .number(value)
                .ok_or_else(|| failed(self.refusal(value.kind().name()))),
        }
    }

    /// `None` when the value cannot be formatted so.
    fn number(&self, value: &Value<'_>) -> Option<String> {
        Some(match (self.letter, value) {
            ('d', Value::Int(value)) => value.to_string(),
            ('d', Value::Uint(value)) => value.to_string(),
            ('f' | 'e', value) => {
                let value = match value {
                    Value::Double(value) => *value,
                    Value::String(text) => match &**text {
                        "NaN" => f64::NAN,
                        "Infinity" => f64::INFINITY,
                        "-Infinity" => f64::NEG_INFINITY,
                        _ => return None,
                    },
                    _ => return None,
                };
                if self.letter == 'f' {
                    fixed(value, self.precision)
                } else {
                    scientific(value, self.precision)
                }
            }
            ('b', Value::Int(value)) => signed(*value, |size| format!("{size:b}")),
            ('b', Value::Uint(value)) => format!("{value:b}"),
            ('b', Value::Bool(value)) => u8::from(*value).to_string(),
            ('o', Value::Int(value)) => signed(*value, |size| format!("{size:o}")),
            ('o', Value::Uint(value)) => format!("{value:o}"),
            ('x', value) => hex(value)?,
            ('X', value) => hex(value)?.to_uppercase(),
            _ => return None,
        })
    }
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
        Value::Optional(_) | Value::Opaque(_) => Err(Clause {
            letter: 's',
            precision: PRECISION,
        }
        .refusal(value.kind().name())),
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
