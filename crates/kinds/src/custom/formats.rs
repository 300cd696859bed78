//! The formats of strings that schemas of custom resources know; others are ignored, with a warning when they are written.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/validation/formats.go` for which there are, `kube-openapi/pkg/validation/strfmt`
//! and `govalidator` for what they take.

use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// By the name without dashes.
const KNOWN: [&str; 26] = [
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether a schema's format means something for its type.
pub fn is_known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => KNOWN.contains(&&*format.replace('-', "")),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("invariant: the pattern is a constant"));
    };
}

pattern!(
    HOSTNAME,
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
);
pattern!(
    UUID,
    r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?([0-9a-f])[0-9a-f]{3}-?([0-9a-f])[0-9a-f]{3}-?[0-9a-f]{12}$"
);
pattern!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$"
);
pattern!(SSN, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$");
pattern!(
    CREDIT_CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$"
);
pattern!(SHORT_NAME, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$");
pattern!(
    LONG_NAME,
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
);
pattern!(URI, r"^[a-zA-Z][a-zA-Z0-9+.-]*:[^\s]*$");
pattern!(EMAIL, r#"^(?:[^<>@\s"]+|"[^"]+")@[^<>@\s]+$"#);
pattern!(DATE, r"^\d{4}-\d{2}-\d{2}$");
pattern!(OBJECT_ID, r"^[0-9a-fA-F]{24}$");
pattern!(
    DURATION,
    r"^[+-]?(\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|h|d|w|nano|nanos|nanosecond|nanoseconds|micro|micros|microsecond|microseconds|milli|millis|millisecond|milliseconds|sec|secs|second|seconds|min|mins|minute|minutes|hr|hour|hours|day|days|wk|week|weeks)\s*((\d+(\.\d*)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|h))*$"
);

/// Whether a text is of a format; every text is of a format that is not known.
pub fn matches(format: &str, text: &str) -> bool {
    match &*format.replace('-', "") {
        "bsonobjectid" => OBJECT_ID.is_match(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok() && !text.is_empty(),
        "cidr" => api::validation::parse_cidr_sloppy(text).is_some(),
        "creditcard" => is_credit_card(text),
        "date" => DATE.is_match(text) && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => text == "0" || DURATION.is_match(text),
        "email" => is_email(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "hostname" => HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63),
        "ipv4" => text.contains('.') && api::validation::parse_ip_sloppy(text).is_some(),
        "ipv6" => text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8slongname" => text.len() <= 253 && LONG_NAME.is_match(text),
        "k8sshortname" => text.len() <= 63 && SHORT_NAME.is_match(text),
        "mac" => is_mac(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "ssn" => SSN.is_match(text),
        // What Go's `url.ParseRequestURI` takes: an absolute path or an absolute URI.
        "uri" => (text.starts_with('/') && !text.contains(char::is_whitespace)) || URI.is_match(text),
        "uuid" => uuid(text).is_some(),
        "uuid3" => uuid(text).is_some_and(|(version, _)| version == '3'),
        "uuid4" => uuid(text).is_some_and(|(version, variant)| version == '4' && "89ab".contains(variant)),
        "uuid5" => uuid(text).is_some_and(|(version, variant)| version == '5' && "89ab".contains(variant)),
        _ => true,
    }
}

/// The digits that tell the version and the variant.
fn uuid(text: &str) -> Option<(char, char)> {
    let found = UUID.captures(text)?;
    let digit = |group: usize| Some(found.get(group)?.as_str().chars().next()?.to_ascii_lowercase());
    Some((digit(1)?, digit(2)?))
}

/// `a@b` or `Name <a@b>`.
fn is_email(text: &str) -> bool {
    let address = match text.split_once('<') {
        Some((_, rest)) => match rest.strip_suffix('>') {
            Some(address) => address,
            None => return false,
        },
        None => text,
    };
    EMAIL.is_match(address)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        let is_group = |part: &&str| part.len() == digits && part.chars().all(|digit| digit.is_ascii_hexdigit());
        counts.contains(&parts.len()) && parts.iter().all(is_group)
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn digits(text: &str) -> String {
    text.chars()
        .filter(|character| !matches!(character, '-' | ' '))
        .collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits(text);
    if text.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (place, character) in text.chars().enumerate() {
        let digit = match character {
            'X' if place == 9 => 10,
            character => match character.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += (place as u32 + 1) * digit;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let text = digits(text);
    let digits: Option<Vec<u32>> = text.chars().map(|character| character.to_digit(10)).collect();
    let Some(digits) = digits.filter(|digits| digits.len() == 13) else {
        return false;
    };
    let weigh = |(place, digit): (usize, &u32)| digit * if place % 2 == 0 { 1 } else { 3 };
    digits.iter().enumerate().map(weigh).sum::<u32>() % 10 == 0
}

fn is_credit_card(text: &str) -> bool {
    let text: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CREDIT_CARD.is_match(&text) {
        return false;
    }
    let weigh = |(place, digit): (usize, u32)| match (place % 2, digit) {
        (0, digit) => digit,
        (_, digit) if digit > 4 => digit * 2 - 9,
        (_, digit) => digit * 2,
    };
    let digits = text.chars().rev().filter_map(|character| character.to_digit(10));
    digits.enumerate().map(weigh).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_of_their_formats() {
        for (format, good, bad) in [
            ("date-time", "2026-01-02T03:04:05Z", "2026-01-02"),
            ("date", "2026-01-02", "2026-13-02"),
            ("duration", "1h30m", "soon"),
            ("ipv4", "10.0.0.1", "::1"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("email", "a@b.example", "a.example"),
            ("hostname", "a.example.com", "-a"),
            ("uri", "https://a.example/x", "a b"),
            (
                "uuid4",
                "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
                "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
            ),
            ("byte", "aGk=", "a"),
            ("isbn10", "0321751043", "0321751042"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("hexcolor", "#FFFFFF", "#FFFFFX"),
            ("k8s-short-name", "a-b", "A"),
            ("k8s-long-name", "a.b", "a..b"),
        ] {
            assert!(matches(format, good), "{format} {good}");
            assert!(!matches(format, bad), "{format} {bad}");
            assert!(is_known("string", format), "{format}");
        }
        assert!(matches("whatever", "x") && !is_known("string", "whatever") && is_known("integer", "int32"));
    }
}
