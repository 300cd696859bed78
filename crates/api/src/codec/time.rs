//! Times as Go parses and prints them.
//!
//! Source of the rules and error texts: Go's `time/format.go`, layouts `RFC3339` and `2006-01-02T15:04:05.000000Z07:00`.

use super::DecodeError;

/// Seconds since 1970 of Go's zero time, the first of January of the year 1.
const ZERO_SECONDS: i64 = -62_135_596_800;
/// Seconds of 10000-01-01, the first time that does not fit four digits.
const END_SECONDS: i64 = 253_402_300_800;

/// A moment in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// How many digits of the second's fraction a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// None are written; any number is read.
    Seconds,
    /// Exactly six.
    Micros,
}

impl Precision {
    fn layout(self) -> &'static str {
        match self {
            Precision::Seconds => "2006-01-02T15:04:05Z07:00",
            Precision::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

impl Moment {
    /// Go's `IsZero`.
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == ZERO_SECONDS && self.nanos == 0
    }

    /// A moment from outside; refused when its year does not have four digits.
    pub(crate) fn checked(seconds: i64, nanos: u32) -> Result<Moment, DecodeError> {
        const YEAR_ZERO_SECONDS: i64 = -62_167_219_200;
        if (YEAR_ZERO_SECONDS..END_SECONDS).contains(&seconds) {
            Ok(Moment { seconds, nanos })
        } else {
            Err(DecodeError::format(format!(
                "time {seconds} is outside of the years 0 to 9999"
            )))
        }
    }

    /// The moment in UTC.
    pub(crate) fn format(self, precision: Precision) -> String {
        let (days, second) = (self.seconds.div_euclid(86_400), self.seconds.rem_euclid(86_400));
        let (year, month, day) = civil_of_days(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        match precision {
            Precision::Seconds => format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
            Precision::Micros => {
                let micros = self.nanos / 1000;
                format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
            }
        }
    }

    /// Reads a time, with Go's error when it is none.
    pub(crate) fn parse(text: &str, precision: Precision) -> Result<Moment, DecodeError> {
        let mut parser = Parser {
            whole: text,
            rest: text,
            layout: precision.layout(),
        };
        let year = parser.digits(4, 4, "2006")?;
        parser.literal("-")?;
        let month = parser.digits(2, 2, "01")?;
        if !(1..=12).contains(&month) {
            return Err(parser.out_of_range("month"));
        }
        parser.literal("-")?;
        let day = parser.digits(2, 2, "02")?;
        parser.literal("T")?;
        let hour = parser.digits(1, 2, "15")?;
        if hour > 23 {
            return Err(parser.out_of_range("hour"));
        }
        parser.literal(":")?;
        let minute = parser.digits(2, 2, "04")?;
        if minute > 59 {
            return Err(parser.out_of_range("minute"));
        }
        parser.literal(":")?;
        let second = parser.digits(2, 2, "05")?;
        if second > 59 {
            return Err(parser.out_of_range("second"));
        }
        let nanos = parser.fraction(precision)?;
        let offset = parser.offset()?;
        if !parser.rest.is_empty() {
            let extra = crate::field::quote(parser.rest);
            return Err(parser.error(&format!("extra text: {extra}")));
        }
        if day < 1 || day > days_in_month(year, month) {
            return Err(parser.out_of_range("day"));
        }
        let seconds = days_of_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Moment::checked(seconds, nanos)
    }
}

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Parser<'_> {
    fn error(&self, what: &str) -> DecodeError {
        DecodeError::format(format!("parsing time {}: {what}", crate::field::quote(self.whole)))
    }

    fn out_of_range(&self, what: &str) -> DecodeError {
        self.error(&format!("{what} out of range"))
    }

    fn cannot_parse(&self, element: &str) -> DecodeError {
        let quote = crate::field::quote;
        DecodeError::format(format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quote(self.whole),
            quote(self.layout),
            quote(self.rest),
            quote(element)
        ))
    }

    fn leading_digits(&self) -> usize {
        self.rest.bytes().take_while(u8::is_ascii_digit).count()
    }

    fn digits(&mut self, min: usize, max: usize, element: &str) -> Result<i64, DecodeError> {
        let count = self.leading_digits().min(max);
        if count < min {
            return Err(self.cannot_parse(element));
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(digits.parse().expect("invariant: at most four digits"))
    }

    fn literal(&mut self, literal: &str) -> Result<(), DecodeError> {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.cannot_parse(literal)),
        }
    }

    fn fraction(&mut self, precision: Precision) -> Result<u32, DecodeError> {
        let after = self.rest.strip_prefix(['.', ',']);
        let count = after.map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let count = match precision {
            Precision::Seconds if count == 0 => return Ok(0),
            Precision::Seconds => count,
            Precision::Micros if count < 6 => return Err(self.cannot_parse(".000000")),
            Precision::Micros => 6,
        };
        let digits = &self.rest[1..1 + count];
        self.rest = &self.rest[1 + count..];
        // Digits behind the ninth do not count.
        let mut nanos: u32 = 0;
        for place in 0..9 {
            let digit = digits.as_bytes().get(place).map_or(0, |digit| digit - b'0');
            nanos = nanos * 10 + u32::from(digit);
        }
        Ok(nanos)
    }

    fn offset(&mut self) -> Result<i64, DecodeError> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let well_formed = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|&at| bytes[at].is_ascii_digit());
        if !well_formed {
            return Err(self.cannot_parse("Z07:00"));
        }
        let pair = |at: usize| i64::from(bytes[at] - b'0') * 10 + i64::from(bytes[at + 1] - b'0');
        let (hours, minutes) = (pair(1), pair(4));
        if hours > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        let sign = if bytes[0] == b'-' { -1 } else { 1 };
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar, counted in years that begin in March.
fn days_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_of_civil`].
fn civil_of_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, precision: Precision, expect: Result<&str, &str>) {
        let got = Moment::parse(text, precision).map(|moment| moment.format(precision));
        let got = got.as_deref().map_err(|error| &*error.message);
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn whole_seconds() {
        let seconds = Precision::Seconds;
        check("2026-11-21T00:06:36Z", seconds, Ok("2026-11-21T00:06:36Z"));
        check("2026-11-21T00:06:36.999Z", seconds, Ok("2026-11-21T00:06:36Z"));
        check("2026-01-01T00:30:00+01:00", seconds, Ok("2025-12-31T23:30:00Z"));
        check("2024-02-29T23:59:59-00:30", seconds, Ok("2024-03-01T00:29:59Z"));
        check("1969-12-31T23:59:59Z", seconds, Ok("1969-12-31T23:59:59Z"));
        check("0001-01-01T00:00:00Z", seconds, Ok("0001-01-01T00:00:00Z"));
        check(
            "",
            seconds,
            Err(r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
        );
        check(
            "2026-11-21",
            seconds,
            Err(r#"parsing time "2026-11-21" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#),
        );
        check(
            "2026-13-21T00:00:00Z",
            seconds,
            Err(r#"parsing time "2026-13-21T00:00:00Z": month out of range"#),
        );
        check(
            "2026-02-29T00:00:00Z",
            seconds,
            Err(r#"parsing time "2026-02-29T00:00:00Z": day out of range"#),
        );
        check(
            "2026-02-28T00:00:00Zx",
            seconds,
            Err(r#"parsing time "2026-02-28T00:00:00Zx": extra text: "x""#),
        );
    }

    #[test]
    fn microseconds_need_six_digits() {
        let micros = Precision::Micros;
        check("2026-11-21T00:06:36.000001Z", micros, Ok("2026-11-21T00:06:36.000001Z"));
        check(
            "2026-11-21T00:06:36Z",
            micros,
            Err(
                r#"parsing time "2026-11-21T00:06:36Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
            ),
        );
    }

    #[test]
    fn every_day_survives() {
        for days in (-719_162..2_932_896).step_by(97) {
            let (year, month, day) = civil_of_days(days);
            assert_eq!(days_of_civil(year, month, day), days);
            assert!((1..=days_in_month(year, month)).contains(&day));
        }
        assert!(
            Moment {
                seconds: ZERO_SECONDS,
                nanos: 0
            }
            .is_zero()
        );
    }
}
