//! Parts of timestamps and durations: `getFullYear()`, `getHours('Europe/Berlin')`.

use super::Native::Plain;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::Value;
use crate::value::time::{Civil, offset};

const NANOS: i64 = 1_000_000_000;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("timestamp_to_year", "timestamp::getFullYear() -> int", Plain(year)),
    ("timestamp_to_year_with_tz", "timestamp::getFullYear(string) -> int", Plain(year)),
    ("timestamp_to_month", "timestamp::getMonth() -> int", Plain(month)),
    ("timestamp_to_month_with_tz", "timestamp::getMonth(string) -> int", Plain(month)),
    ("timestamp_to_day_of_year", "timestamp::getDayOfYear() -> int", Plain(day_of_year)),
    ("timestamp_to_day_of_year_with_tz", "timestamp::getDayOfYear(string) -> int", Plain(day_of_year)),
    ("timestamp_to_day_of_month", "timestamp::getDayOfMonth() -> int", Plain(day_of_month)),
    ("timestamp_to_day_of_month_with_tz", "timestamp::getDayOfMonth(string) -> int", Plain(day_of_month)),
    ("timestamp_to_day_of_month_1_based", "timestamp::getDate() -> int", Plain(date)),
    ("timestamp_to_day_of_month_1_based_with_tz", "timestamp::getDate(string) -> int", Plain(date)),
    ("timestamp_to_day_of_week", "timestamp::getDayOfWeek() -> int", Plain(weekday)),
    ("timestamp_to_day_of_week_with_tz", "timestamp::getDayOfWeek(string) -> int", Plain(weekday)),
    ("timestamp_to_hours", "timestamp::getHours() -> int", Plain(hours)),
    ("timestamp_to_hours_with_tz", "timestamp::getHours(string) -> int", Plain(hours)),
    ("duration_to_hours", "duration::getHours() -> int", Plain(hours)),
    ("timestamp_to_minutes", "timestamp::getMinutes() -> int", Plain(minutes)),
    ("timestamp_to_minutes_with_tz", "timestamp::getMinutes(string) -> int", Plain(minutes)),
    ("duration_to_minutes", "duration::getMinutes() -> int", Plain(minutes)),
    ("timestamp_to_seconds_tz", "timestamp::getSeconds() -> int", Plain(seconds)),
    ("timestamp_to_seconds_tz_with_tz", "timestamp::getSeconds(string) -> int", Plain(seconds)),
    ("duration_to_seconds", "duration::getSeconds() -> int", Plain(seconds)),
    ("timestamp_to_milliseconds", "timestamp::getMilliseconds() -> int", Plain(milliseconds)),
    ("timestamp_to_milliseconds_with_tz", "timestamp::getMilliseconds(string) -> int", Plain(milliseconds)),
    ("duration_to_milliseconds", "duration::getMilliseconds() -> int", Plain(milliseconds)),
];

/// A part of a timestamp in the zone that the second argument names, or in UTC.
fn part<'a>(arguments: &[Value<'a>], part: fn(Civil) -> i64) -> Outcome<'a> {
    let Value::Timestamp(time) = &arguments[0] else {
        return Err(no_overload());
    };
    let zone = match arguments.get(1) {
        None => "UTC",
        Some(zone) => zone.as_str().ok_or_else(no_overload)?,
    };
    let offset = offset(zone, *time).map_err(Error::evaluation)?;
    Ok(Value::Int(part(time.civil(offset))))
}

fn year<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.year)
}

fn month<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.month - 1)
}

fn day_of_year<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.day_of_year)
}

fn day_of_month<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.day - 1)
}

fn date<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.day)
}

fn weekday<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    part(arguments, |at| at.weekday)
}

/// Of a timestamp the hour of its day; of a duration all its hours. So below.
fn hours<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / (3600 * NANOS))),
        _ => part(arguments, |at| at.hour),
    }
}

fn minutes<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / (60 * NANOS))),
        _ => part(arguments, |at| at.minute),
    }
}

fn seconds<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / NANOS)),
        _ => part(arguments, |at| at.second),
    }
}

fn milliseconds<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    match &arguments[0] {
        Value::Duration(nanos) => Ok(Value::Int(nanos / 1_000_000)),
        Value::Timestamp(time) => {
            part(arguments, |_| 0)?;
            Ok(Value::Int(i64::from(time.nanos() / 1_000_000)))
        }
        _ => Err(no_overload()),
    }
}
