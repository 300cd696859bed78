//! Regular expressions: `matches`, and Kubernetes' `find` and `findAll`. The language is RE2's: classes like `\d` and `\w`
//! are of ASCII.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::Native::Regex as Native;
use super::strings::{int, text};
use super::{Line, Outcome};
use crate::program::Error;
use crate::value::{Text, Value};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("matches", "matches(string, string) -> bool", Native(matches)),
    ("matches_string", "string::matches(string) -> bool", Native(matches)),
    ("string_find_string", "string::find(string) -> string", Native(find)),
    ("string_find_all_string", "string::findAll(string) -> list(string)", Native(find_all)),
    ("string_find_all_string_int", "string::findAll(string, int) -> list(string)", Native(find_all)),
];

/// The largest compiled pattern in bytes, of a literal: Go, which limits repetitions to 1,000, takes as large ones.
const COMPILED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same, of a pattern that an expression makes: a loop may make a thousand of them.
const MADE_BYTES_MAX: usize = 256 * 1024;

/// Patterns that are literals of an expression, compiled once.
#[derive(Debug, Default)]
pub(crate) struct Regexes {
    compiled: HashMap<Arc<str>, Regex>,
}

impl Regexes {
    /// Compiles a literal pattern.
    pub(crate) fn add(&mut self, pattern: &Arc<str>) -> Result<(), String> {
        let compiled = compile(pattern, COMPILED_BYTES_MAX)?;
        self.compiled.insert(pattern.clone(), compiled);
        Ok(())
    }

    /// Whether a pattern is compiled already.
    pub(crate) fn knows(&self, pattern: Option<&Value<'_>>) -> bool {
        pattern
            .and_then(Value::as_str)
            .is_some_and(|pattern| self.compiled.contains_key(pattern))
    }

    fn with<T>(&self, pattern: &str, use_it: impl FnOnce(&Regex) -> T) -> Result<T, String> {
        match self.compiled.get(pattern) {
            Some(compiled) => Ok(use_it(compiled)),
            None => Ok(use_it(&compile(pattern, MADE_BYTES_MAX)?)),
        }
    }
}

/// The error says what Go's says first; its details differ.
fn compile(pattern: &str, bytes_max: usize) -> Result<Regex, String> {
    let error = |_| format!("error parsing regexp: invalid pattern: `{pattern}`");
    let mut builder = RegexBuilder::new(&translated(pattern));
    builder
        .size_limit(bytes_max)
        .dfa_size_limit(bytes_max)
        .build()
        .map_err(error)
}

/// RE2's ASCII classes in the words of the crate, whose own are of Unicode.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut characters = pattern.chars().peekable();
    while let Some(one) = characters.next() {
        if one != '\\' {
            out.push(one);
            continue;
        }
        match characters.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str("[\\t\\n\\f\\r ]"),
            Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
            Some('b') => out.push_str("(?-u:\\b)"),
            Some('B') => out.push_str("(?-u:\\B)"),
            Some(same) => out.extend(['\\', same]),
            None => out.push('\\'),
        }
    }
    out
}

fn matches<'a>(regexes: &Regexes, arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, pattern) = (text(&arguments[0])?, text(&arguments[1])?);
    let found = regexes.with(pattern, |regex| regex.is_match(whole));
    found.map(Value::Bool).map_err(Error::evaluation)
}

fn illegal(error: String) -> Error {
    Error::evaluation(format!("Illegal regex: {error}"))
}

/// What matched, borrowed where the text is.
fn piece<'a>(whole: &Value<'a>, found: regex::Match<'_>) -> Value<'a> {
    match whole {
        Value::String(Text::Borrowed(text)) => Value::String(Text::Borrowed(&text[found.range()])),
        _ => found.as_str().to_owned().into(),
    }
}

fn find<'a>(regexes: &Regexes, arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, pattern) = (text(&arguments[0])?, text(&arguments[1])?);
    let found = regexes.with(pattern, |regex| {
        regex.find(whole).map(|found| piece(&arguments[0], found))
    });
    found.map(|found| found.unwrap_or_else(|| "".into())).map_err(illegal)
}

fn find_all<'a>(regexes: &Regexes, arguments: &[Value<'a>]) -> Outcome<'a> {
    let (whole, pattern) = (text(&arguments[0])?, text(&arguments[1])?);
    let most = match arguments.get(2).map(int).transpose()? {
        None => usize::MAX,
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let all = regexes.with(pattern, |regex| {
        regex
            .find_iter(whole)
            .take(most)
            .map(|found| piece(&arguments[0], found))
            .collect()
    });
    all.map(Value::list).map_err(illegal)
}
