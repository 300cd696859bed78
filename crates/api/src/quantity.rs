//! `Quantity`: an exact decimal number with the suffixes of Kubernetes resources (`100m`, `1.5Gi`, `2e3`).
//!
//! Source of grammar, rounding and canonical form: `k8s.io/apimachinery/pkg/api/resource/quantity.go`. Two points
//! differ on purpose and only beyond any real resource: a number has at most 38 significant digits (a fraction is
//! rounded up there, as upstream rounds at the ninth decimal place), and a decimal number past the largest suffix
//! keeps its value (`1000E`), where upstream writes the digits without any suffix.
//!
//! Invariant: `mantissa * 10^scale` is the value; the mantissa of zero has scale 0; `text` is only there when it is
//! what upstream would print again (it keeps a spelling that it takes for canonical, such as `1.500`).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::Value;

/// How a quantity is written: it keeps the family of suffixes that it was read with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`.
    DecimalExponent,
    /// `12Mi`.
    BinarySi,
    /// `12M`.
    #[default]
    DecimalSi,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The smallest power of ten that is kept; finer fractions are rounded away from zero.
const NANO: i32 = -9;
/// The largest power of ten with a suffix (`E`).
const EXA: i32 = 18;
/// Exponents past this are refused: nothing needs them, and arithmetic on them cannot overflow below it.
const EXPONENT_MAX: i64 = 100_000_000;
/// Decimal digits that upstream reads without arbitrary precision; it decides whether a spelling is kept.
const FAST_DIGITS: i64 = 18;

/// An exact decimal number with a suffix.
#[derive(Clone, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
    text: Option<Box<str>>,
}

impl Quantity {
    /// `value * 10^scale`.
    pub fn scaled(value: i64, scale: i32, format: Format) -> Quantity {
        Quantity::make(value.into(), scale, format)
    }

    /// A whole number.
    pub fn new(value: i64, format: Format) -> Quantity {
        Quantity::scaled(value, 0, format)
    }

    /// Thousandths.
    pub fn milli(value: i64, format: Format) -> Quantity {
        Quantity::scaled(value, -3, format)
    }

    /// Zero, which takes the format of what is added to it.
    pub fn zero() -> Quantity {
        Quantity::default()
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        parse(text)
    }

    /// Reads the JSON form: a string (blanks around it are ignored, as upstream does), a number or null for zero.
    pub fn from_value(value: &Value) -> Result<Quantity, QuantityError> {
        match value {
            Value::Null => Ok(Quantity::zero()),
            Value::String(text) => parse(text.trim()),
            Value::Number(number) => parse(&number.to_string()),
            _ => Err(QuantityError::Format),
        }
    }

    /// The family of suffixes.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The value in units, rounded away from zero; saturates where an `i64` ends.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The value in thousandths, rounded away from zero; saturates where an `i64` ends.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(-3)
    }

    /// The value in steps of `10^scale`, rounded away from zero; saturates where an `i64` ends.
    pub fn scaled_value(&self, scale: i32) -> i64 {
        let shift = i64::from(self.scale) - i64::from(scale);
        let (value, _) = shifted(self.mantissa, shift);
        value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The whole number of units when it is one and fits.
    pub fn as_i64(&self) -> Option<i64> {
        let (value, exact) = shifted(self.mantissa, self.scale.into());
        if exact { i64::try_from(value).ok() } else { None }
    }

    /// The nearest floating-point number.
    pub fn as_f64(&self) -> f64 {
        format!("{}e{}", self.mantissa, self.scale).parse().unwrap_or(0.0)
    }

    /// Rounds away from zero to a multiple of `10^scale`; says whether that was exact.
    pub fn round_up(&mut self, scale: i32) -> bool {
        if self.scale >= scale {
            return true;
        }
        let (value, exact) = shifted(self.mantissa, i64::from(self.scale) - i64::from(scale));
        *self = Quantity::make(value, scale, self.format);
        exact
    }

    /// Adds; a zero takes the other's format, as upstream's does.
    pub fn add(&mut self, other: &Quantity) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.text = None;
        let (mantissa, scale) = sum((self.mantissa, self.scale), (other.mantissa, other.scale));
        *self = Quantity::make(mantissa, scale, self.format);
    }

    /// Subtracts; a zero takes the other's format.
    pub fn sub(&mut self, other: &Quantity) {
        self.add(&other.negated());
    }

    /// Multiplies by a whole number; saturates at the largest number.
    pub fn mul(&mut self, factor: i64) {
        *self = Quantity::make(self.mantissa.saturating_mul(factor.into()), self.scale, self.format);
    }

    /// The number with the other sign.
    pub fn negated(&self) -> Quantity {
        Quantity::make(self.mantissa.saturating_neg(), self.scale, self.format)
    }

    /// The same number in another family of suffixes.
    pub fn with_format(&self, format: Format) -> Quantity {
        Quantity::make(self.mantissa, self.scale, format)
    }

    fn make(mantissa: i128, scale: i32, format: Format) -> Quantity {
        let scale = if mantissa == 0 { 0 } else { scale };
        Quantity {
            mantissa,
            scale,
            format,
            text: None,
        }
    }

    fn canonical(&self) -> String {
        if self.is_zero() {
            return "0".into();
        }
        let mut format = self.format;
        if format == Format::BinarySi {
            // Small or fractional numbers would lose precision in powers of 1024.
            let whole = shifted(self.mantissa, self.scale.into());
            match whole {
                (value, true) if value <= -1024 || value >= 1024 => return binary(value),
                _ => format = Format::DecimalSi,
            }
        }
        let (mut mantissa, mut exponent) = (self.mantissa, self.scale);
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        let limit = if format == Format::DecimalSi { EXA } else { i32::MAX };
        while exponent.rem_euclid(3) != 0 || exponent > limit {
            match mantissa.checked_mul(10) {
                Some(more) => mantissa = more,
                // No room for another digit: print the zero instead of computing it.
                None => return long_decimal(mantissa, exponent, format),
            }
            exponent -= 1;
        }
        format!("{mantissa}{}", decimal_suffix(exponent, format))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => f.write_str(&self.canonical()),
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        parse(text)
    }
}

/// Two quantities are equal when their values are, whatever their suffixes.
impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        let signs = self.sign().cmp(&other.sign());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let magnitude = compare_magnitude(
            (self.mantissa.unsigned_abs(), self.scale),
            (other.mantissa.unsigned_abs(), other.scale),
        );
        if self.mantissa < 0 {
            magnitude.reverse()
        } else {
            magnitude
        }
    }
}

impl From<&Quantity> for Value {
    fn from(quantity: &Quantity) -> Value {
        Value::String(quantity.to_string())
    }
}

/// The pieces of a text before its numbers are read.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// Splits as upstream's scanner does, which takes a few odd texts for zero (`-`, `.`).
fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    let digits = unsigned.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(Parts {
            negative,
            whole: "0",
            fraction: "",
            suffix: "",
        });
    }
    let (whole, rest) = split_digits(digits);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    Ok(Parts {
        negative,
        whole,
        fraction,
        suffix,
    })
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// The exponent of a suffix, of ten or of two as the format says.
fn interpret(suffix: &str) -> Result<(i64, Format), QuantityError> {
    let exponent = match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        "Ki" => return Ok((10, Format::BinarySi)),
        "Mi" => return Ok((20, Format::BinarySi)),
        "Gi" => return Ok((30, Format::BinarySi)),
        "Ti" => return Ok((40, Format::BinarySi)),
        "Pi" => return Ok((50, Format::BinarySi)),
        "Ei" => return Ok((60, Format::BinarySi)),
        _ => {
            let number = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            let exponent: i64 = number.parse().map_err(|_| QuantityError::Suffix)?;
            if exponent.unsigned_abs() > EXPONENT_MAX.unsigned_abs() {
                return Err(QuantityError::Suffix);
            }
            return Ok((exponent, Format::DecimalExponent));
        }
    };
    Ok((exponent, Format::DecimalSi))
}

fn parse(text: &str) -> Result<Quantity, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let parts = split(text)?;
    let (exponent, mut format) = interpret(parts.suffix)?;
    let (mut mantissa, mut scale) = read_number(parts.whole, parts.fraction)?;
    if format == Format::BinarySi {
        let unit = 1i128 << exponent;
        mantissa = match mantissa.checked_mul(unit) {
            Some(mantissa) => mantissa,
            // Give up digits of the fraction, rounding up, or reach the cap below.
            None if scale < 0 => {
                let (fewer, _) = shifted(mantissa, -19);
                scale += 19;
                fewer.saturating_mul(unit)
            }
            None => i128::MAX,
        };
    } else {
        scale += exponent;
    }
    let kept = keeps_spelling(&parts, exponent, format);
    if scale < NANO.into() && mantissa != 0 {
        let (rounded, _) = shifted(mantissa, scale - i64::from(NANO));
        (mantissa, scale) = (rounded, NANO.into());
    }
    if format == Format::BinarySi {
        let compared_to = |bound: u128| compare_magnitude((mantissa.unsigned_abs(), scale as i32), (bound, 0));
        if compared_to(i64::MAX as u128).is_gt() {
            (mantissa, scale) = (i64::MAX.into(), 0);
        } else if mantissa != 0 && compared_to(1).is_lt() {
            // A fraction of a unit cannot be written in powers of 1024.
            format = Format::DecimalSi;
        }
    }
    if parts.negative {
        mantissa = -mantissa;
    }
    let mut quantity = Quantity::make(mantissa, scale as i32, format);
    if kept {
        quantity.text = Some(text.into());
    }
    Ok(quantity)
}

/// Reads the digits before and after the point: mantissa and power of ten.
fn read_number(whole: &str, fraction: &str) -> Result<(i128, i64), QuantityError> {
    let mut mantissa: i128 = 0;
    for digit in whole.bytes() {
        mantissa = mantissa
            .checked_mul(10)
            .and_then(|m| m.checked_add((digit - b'0').into()))
            .ok_or(QuantityError::Numeric)?;
    }
    let mut scale = 0;
    for (position, digit) in fraction.bytes().enumerate() {
        let longer = mantissa
            .checked_mul(10)
            .and_then(|m| m.checked_add((digit - b'0').into()));
        match longer {
            Some(longer) => mantissa = longer,
            // No room: what is left rounds up, as everything below a nano does.
            None => {
                let rest = &fraction.as_bytes()[position..];
                let sticky = rest.iter().any(|digit| *digit != b'0');
                return Ok((mantissa.saturating_add(sticky.into()), scale));
            }
        }
        scale -= 1;
    }
    Ok((mantissa, scale))
}

/// Whether upstream takes the spelling for canonical and prints it again as it is. Its test is an approximation: it
/// looks only at factors of 1000 and 8, so `+5`, `1.500` and `1.234k` survive.
fn keeps_spelling(parts: &Parts<'_>, exponent: i64, format: Format) -> bool {
    let (whole, fraction) = (parts.whole, parts.fraction);
    let digits = (whole.len() + fraction.len()) as i64;
    if format == Format::BinarySi {
        let precision = 15 - whole.len() as i64 - exponent * 3 / 10 - 1;
        let odd = |number: u64| number & 7 != 0;
        return fraction.is_empty() && precision >= 0 && whole.parse().is_ok_and(odd);
    }
    let scale = exponent - fraction.len() as i64;
    let zeros = whole
        .bytes()
        .chain(fraction.bytes())
        .rev()
        .take_while(|digit| *digit == b'0');
    let thousands = zeros.count() >= 3;
    digits <= FAST_DIGITS && scale >= NANO.into() && scale % 3 == 0 && !thousands && !whole.starts_with('0')
}

/// `value * 10^shift`, rounded away from zero; saturates. The flag tells whether it is exact.
fn shifted(value: i128, shift: i64) -> (i128, bool) {
    if value == 0 || shift == 0 {
        return (value, true);
    }
    let power = u32::try_from(shift.unsigned_abs())
        .ok()
        .and_then(|n| 10i128.checked_pow(n));
    if shift > 0 {
        let product = power.and_then(|power| value.checked_mul(power));
        let bound = if value > 0 { i128::MAX } else { i128::MIN };
        return (product.unwrap_or(bound), product.is_some());
    }
    let away = if value > 0 { 1 } else { -1 };
    match power {
        None => (away, false),
        Some(power) if value % power == 0 => (value / power, true),
        Some(power) => (value / power + away, false),
    }
}

/// The sum at the finer of both scales, or as fine as there is room, rounded away from zero.
fn sum(mut a: (i128, i32), mut b: (i128, i32)) -> (i128, i32) {
    if a.0 == 0 {
        return b;
    }
    if b.0 == 0 {
        return a;
    }
    if a.1 < b.1 {
        std::mem::swap(&mut a, &mut b);
    }
    // `a` has the coarser scale: bring it down while it fits, then `b` up for the rest.
    while a.1 > b.1 {
        match a.0.checked_mul(10) {
            Some(more) => a = (more, a.1 - 1),
            None => {
                b = (shifted(b.0, i64::from(b.1) - i64::from(a.1)).0, a.1);
            }
        }
    }
    match a.0.checked_add(b.0) {
        Some(sum) => (sum, a.1),
        None => {
            let halves = shifted(a.0, -1).0 + shifted(b.0, -1).0;
            (halves, a.1 + 1)
        }
    }
}

/// Compares `m * 10^s` of two numbers without computing large powers.
fn compare_magnitude(a: (u128, i32), b: (u128, i32)) -> Ordering {
    if a.0 == 0 || b.0 == 0 {
        return a.0.cmp(&b.0);
    }
    let top = |(mantissa, scale): (u128, i32)| i64::from(mantissa.ilog10()) + i64::from(scale);
    let tops = top(a).cmp(&top(b));
    if tops != Ordering::Equal || a.1 == b.1 {
        return tops.then(a.0.cmp(&b.0));
    }
    // The same number of digits: the one with the coarser scale is multiplied. If that has no room, it is larger.
    let coarser = |m: u128, steps: i32| 10u128.checked_pow(steps.unsigned_abs()).and_then(|p| m.checked_mul(p));
    if a.1 > b.1 {
        coarser(a.0, a.1 - b.1).map_or(Ordering::Greater, |a| a.cmp(&b.0))
    } else {
        coarser(b.0, b.1 - a.1).map_or(Ordering::Less, |b| a.0.cmp(&b))
    }
}

fn binary(mut value: i128) -> String {
    let mut power = 0;
    while value % 1024 == 0 && power < 6 {
        value /= 1024;
        power += 1;
    }
    format!("{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power])
}

fn decimal_suffix(exponent: i32, format: Format) -> String {
    if exponent == 0 {
        return String::new();
    }
    if format == Format::DecimalExponent {
        return format!("e{exponent}");
    }
    match exponent {
        -9 => "n",
        -6 => "u",
        -3 => "m",
        3 => "k",
        6 => "M",
        9 => "G",
        12 => "T",
        15 => "P",
        18 => "E",
        // Not reached from texts (nothing is finer than a nano); exact for numbers made in code.
        _ => return format!("e{exponent}"),
    }
    .into()
}

/// Prints a mantissa that has no room for the zeros that its suffix needs.
fn long_decimal(mantissa: i128, mut exponent: i32, format: Format) -> String {
    let limit = if format == Format::DecimalSi { EXA } else { i32::MAX };
    let mut digits = mantissa.to_string();
    // Past this many zeros the number is written with an exponent, which is a valid quantity too.
    const ZEROS_MAX: i32 = 64;
    if exponent - ZEROS_MAX > limit {
        return format!("{digits}e{exponent}");
    }
    while exponent.rem_euclid(3) != 0 || exponent > limit {
        digits.push('0');
        exponent -= 1;
    }
    format!("{digits}{}", decimal_suffix(exponent, format))
}

#[cfg(test)]
#[path = "quantity_tests.rs"]
mod tests;
