//! Durations as Go writes them: `1h2m3.5s`, `300ms`. Queries, configuration files and flags of Kubernetes have them.
//!
//! Source: `time.ParseDuration` and `Duration.String` of Go's standard library.

use std::time::Duration;

/// Reads a duration. `None`: it is none, or less than nothing.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| digits + end);
        seconds += number
            * match &rest[digits..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|_| !text.is_empty())
}

/// Writes a duration to the millisecond: `1m30s`, `2.5s`, `300ms`, `0s`.
pub fn text(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 && millis > 0 {
        return format!("{millis}ms");
    }
    let fraction = match millis {
        0 => String::new(),
        _ => format!(".{millis:03}").trim_end_matches('0').to_owned(),
    };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}{fraction}s"),
        (0, _) => format!("{minutes}m{rest}{fraction}s"),
        _ => format!("{hours}h{minutes}m{rest}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (given, millis, written) in [
            ("0", Some(0), "0s"),
            ("5m", Some(300_000), "5m0s"),
            ("1h2m3.5s", Some(3_723_500), "1h2m3.5s"),
            ("300ms", Some(300), "300ms"),
            ("", None, ""),
            ("5", None, ""),
            ("-5s", None, ""),
            ("5d", None, ""),
        ] {
            let got = parse(given);
            assert_eq!(got.map(|duration| duration.as_millis()), millis, "{given}");
            if let Some(duration) = got {
                assert_eq!(text(duration), written);
            }
        }
    }
}
