//! Semantic versions: `semver('1.2.3').isLessThan(semver('2.0.0'))`. Sources: `pkg/cel/library/semverlib.go` of the API
//! server, and the rules and messages of `blang/semver`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::{Line, Outcome, no_overload};
use crate::program::Error;
use crate::value::Value;

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("string_to_semver", "semver(string) -> kubernetes.Semver", Plain(semver)),
    ("string_bool_to_semver", "semver(string, bool) -> kubernetes.Semver", Plain(semver)),
    ("is_semver_string", "isSemver(string) -> bool", Plain(is_semver)),
    ("is_semver_string_bool", "isSemver(string, bool) -> bool", Plain(is_semver)),
    ("semver_is_greater_than", "kubernetes.Semver::isGreaterThan(kubernetes.Semver) -> bool", Plain(is_greater)),
    ("semver_is_less_than", "kubernetes.Semver::isLessThan(kubernetes.Semver) -> bool", Plain(is_less)),
    ("semver_compare_to", "kubernetes.Semver::compareTo(kubernetes.Semver) -> int", Plain(compare)),
    ("semver_major", "kubernetes.Semver::major() -> int", Plain(major)),
    ("semver_minor", "kubernetes.Semver::minor() -> int", Plain(minor)),
    ("semver_patch", "kubernetes.Semver::patch() -> int", Plain(patch)),
];

/// A semantic version. What is built of it has no part in its order.
#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    prerelease: Vec<Part>,
    build: Vec<String>,
}

/// A part of a prerelease: numbers go before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

impl fmt::Display for Semver {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(to, "{major}.{minor}.{patch}")?;
        for (index, part) in self.prerelease.iter().enumerate() {
            to.write_str(if index == 0 { "-" } else { "." })?;
            match part {
                Part::Number(number) => write!(to, "{number}")?,
                Part::Text(text) => to.write_str(text)?,
            }
        }
        for (index, part) in self.build.iter().enumerate() {
            write!(to, "{}{part}", if index == 0 { "+" } else { "." })?;
        }
        Ok(())
    }
}

impl Semver {
    pub(crate) fn order(&self, other: &Semver) -> Ordering {
        // A version without a prerelease goes after all of its prereleases.
        let final_one = |version: &Semver| version.prerelease.is_empty();
        let releases = self
            .numbers
            .cmp(&other.numbers)
            .then(final_one(self).cmp(&final_one(other)));
        releases.then_with(|| self.prerelease.cmp(&other.prerelease))
    }

    fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest
            .split_once('+')
            .map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, prerelease) = rest
            .split_once('-')
            .map_or((rest, None), |(patch, rest)| (patch, Some(rest)));
        let numbers = [
            number(major, "Major")?,
            number(minor, "Minor")?,
            number(patch, "Patch")?,
        ];
        let prerelease = prerelease
            .into_iter()
            .flat_map(|all| all.split('.'))
            .map(part)
            .collect::<Result<_, _>>()?;
        let build = build
            .into_iter()
            .flat_map(|all| all.split('.'))
            .map(build_part)
            .collect::<Result<_, _>>()?;
        Ok(Semver {
            numbers,
            prerelease,
            build,
        })
    }

    /// Takes `v1` and `01.2` too.
    fn parse_tolerant(text: &str) -> Result<Semver, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
        Semver::parse(&parts.join("."))
    }
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let rest = part.trim_start_matches('0');
    if rest.starts_with(|first: char| first.is_ascii_digit()) {
        rest.to_owned()
    } else {
        format!("0{rest}")
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|one| one.is_ascii_digit())
}

fn number(text: &str, name: &str) -> Result<u64, String> {
    if !is_number(text) {
        return Err(format!(
            "Invalid character(s) found in {} number {text:?}",
            name.to_lowercase()
        ));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{name} number must not contain leading zeroes {text:?}"));
    }
    let why = if text.is_empty() {
        "invalid syntax"
    } else {
        "value out of range"
    };
    text.parse()
        .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|one| one.is_ascii_alphanumeric() || one == b'-')
}

fn part(text: &str) -> Result<Part, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if is_number(text) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!(
                "Numeric PreRelease version must not contain leading zeroes {text:?}"
            ));
        }
        return number(text, "Prerelease").map(Part::Number);
    }
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Part::Text(text.to_owned()))
}

fn build_part(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("Build meta data is empty".into());
    }
    if !is_identifier(text) {
        return Err(format!("Invalid character(s) found in build meta data {text:?}"));
    }
    Ok(text.to_owned())
}

fn parse(arguments: &[Value<'_>]) -> Result<Result<Semver, String>, Error> {
    let whole = text(&arguments[0])?;
    Ok(match arguments.get(1) {
        Some(Value::Bool(true)) => Semver::parse_tolerant(whole),
        None | Some(Value::Bool(false)) => Semver::parse(whole),
        Some(_) => return Err(no_overload()),
    })
}

fn semver<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let version = parse(arguments)?.map_err(Error::evaluation)?;
    Ok(Value::Opaque(Opaque::Semver(Arc::new(version))))
}

fn is_semver<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    parse(arguments).map(|version| Value::Bool(version.is_ok()))
}

fn of<'v>(value: &'v Value<'_>) -> Result<&'v Semver, Error> {
    match value {
        Value::Opaque(Opaque::Semver(version)) => Ok(version),
        _ => Err(no_overload()),
    }
}

fn order(arguments: &[Value<'_>]) -> Result<Ordering, Error> {
    Ok(of(&arguments[0])?.order(of(&arguments[1])?))
}

fn is_greater<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_gt()))
}

fn is_less<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Bool(order.is_lt()))
}

fn compare<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    order(arguments).map(|order| Value::Int(order as i64))
}

fn component<'a>(arguments: &[Value<'a>], index: usize) -> Outcome<'a> {
    // As Go converts: what is past an int wraps.
    Ok(Value::Int(of(&arguments[0])?.numbers[index].cast_signed()))
}

fn major<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    component(arguments, 0)
}

fn minor<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    component(arguments, 1)
}

fn patch<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    component(arguments, 2)
}
