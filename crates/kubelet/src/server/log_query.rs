//! The query of `/containerLogs` as options of the reader.

use jiff::{SignedDuration, Timestamp};

use crate::logs::{Options, Stream};

/// What is asked for, and whether of the run before.
///
/// # Errors
/// A text for a 400.
pub(super) fn parse(query: &[(String, String)], now: Timestamp) -> Result<(Options, bool), String> {
    let mut options = Options::default();
    let mut previous = false;
    let (mut since_seconds, mut since_time) = (None, None);
    for (name, value) in query {
        match name.as_str() {
            "follow" => options.follow = flag(name, value)?,
            "timestamps" => options.timestamps = flag(name, value)?,
            "previous" => previous = flag(name, value)?,
            "tailLines" => options.tail_lines = number(name, value, 0)?,
            "limitBytes" => options.limit_bytes = number(name, value, 1)?,
            "sinceSeconds" => since_seconds = number(name, value, 1)?,
            "sinceTime" if !value.is_empty() => {
                let time: Result<Timestamp, _> = value.parse();
                since_time = Some(time.map_err(|error| format!("sinceTime: {error}"))?);
            }
            "stream" => {
                options.stream = match value.as_str() {
                    "" | "All" => Stream::All,
                    "Stdout" => Stream::Stdout,
                    "Stderr" => Stream::Stderr,
                    other => return Err(format!("stream: Unsupported value: {}", api::field::quote(other))),
                };
            }
            // Unknown names are ignored, as upstream does.
            _ => {}
        }
    }
    if since_seconds.is_some() && since_time.is_some() {
        return Err("at most one of `sinceTime` or `sinceSeconds` may be specified".into());
    }
    let back = |seconds: u64| {
        let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        now.checked_sub(seconds).unwrap_or(Timestamp::MIN)
    };
    options.since = since_time.or(since_seconds.map(back));
    Ok((options, previous))
}

/// Go's query decoding: present and empty is true.
fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("{name}: {} is not a boolean", api::field::quote(other))),
    }
}

fn number(name: &str, value: &str, least: u64) -> Result<Option<u64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let number: u64 = value
        .parse()
        .map_err(|_| format!("{name}: {} is not a number", api::field::quote(value)))?;
    if number < least {
        return Err(format!(
            "{name}: Invalid value: {number}: must be greater than or equal to {least}"
        ));
    }
    Ok(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let none = Options::default;
        let at = |text: &str| text.parse().ok();
        for (query, expect) in [
            ("", Ok((none(), false))),
            (
                "follow=true&timestamps=1&previous=true",
                Ok((
                    Options {
                        follow: true,
                        timestamps: true,
                        ..none()
                    },
                    true,
                )),
            ),
            (
                "tailLines=0&limitBytes=7",
                Ok((
                    Options {
                        tail_lines: Some(0),
                        limit_bytes: Some(7),
                        ..none()
                    },
                    false,
                )),
            ),
            (
                "sinceSeconds=60",
                Ok((
                    Options {
                        since: at("2026-01-01T00:00:00Z"),
                        ..none()
                    },
                    false,
                )),
            ),
            (
                "sinceTime=2026-01-01T00:00:01Z",
                Ok((
                    Options {
                        since: at("2026-01-01T00:00:01Z"),
                        ..none()
                    },
                    false,
                )),
            ),
            (
                "stream=Stderr",
                Ok((
                    Options {
                        stream: Stream::Stderr,
                        ..none()
                    },
                    false,
                )),
            ),
            ("tailLines=-1", Err(())),
            ("limitBytes=0", Err(())),
            ("follow=maybe", Err(())),
            ("stream=Both", Err(())),
            ("sinceTime=yesterday", Err(())),
            ("sinceTime=2026-01-01T00:00:01Z&sinceSeconds=1", Err(())),
        ] {
            let pairs: Vec<(String, String)> = super::super::route::query_pairs(query);
            assert_eq!(parse(&pairs, now).map_err(drop), expect, "{query}");
        }
    }
}
