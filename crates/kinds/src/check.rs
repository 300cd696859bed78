//! How a rule speaks: a value that knows where it is, and to which report its errors go.
//!
//! A rule then reads as what it demands: `name.required()`, `port.check(port_number(..))`, `policy.one_of(&["A", "B"])`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;

use api::Value;
use api::field::{Error, ErrorList, Path};

use crate::view::View;

/// Where the errors of one validation gather, in the order in which they are found.
#[derive(Default)]
pub struct Report(RefCell<ErrorList>);

impl Report {
    /// Runs rules over a whole object and returns what they found.
    pub fn of(object: &Value, rules: impl FnOnce(At)) -> ErrorList {
        let report = Report::default();
        rules(At {
            value: object,
            path: Path::root(),
            report: &report,
        });
        report.0.into_inner()
    }

    /// Adds an error.
    pub fn push(&self, error: Error) {
        self.0.borrow_mut().push(error);
    }

    /// How many errors there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// A value and where it is.
#[derive(Clone)]
pub struct At<'a> {
    /// The value; null when absent.
    pub value: &'a Value,
    /// Where it is.
    pub path: Path,
    /// Where its errors go.
    pub report: &'a Report,
}

impl<'a> At<'a> {
    /// The value below this one, by a dotted path.
    pub fn get(&self, path: &str) -> At<'a> {
        At {
            value: self.value.at(path),
            // Dots join names in a path just as they do here.
            path: self.path.child(path),
            report: self.report,
        }
    }

    /// Another value for this report, at a path of its own: for upstream's errors that do not name their field.
    pub fn elsewhere(&self, path: Path, value: &'a Value) -> At<'a> {
        At {
            value,
            path,
            report: self.report,
        }
    }

    /// The same value at upstream's path without a name, which reads `[]`.
    pub fn unnamed(&self) -> At<'a> {
        self.elsewhere(Path::root().key(""), self.value)
    }

    /// The elements of a list below this value.
    pub fn items(&self, path: &str) -> Vec<At<'a>> {
        let list = self.get(path);
        let elements = list.value.as_array().map_or(&[] as &[Value], Vec::as_slice);
        let at = |(index, value)| list.elsewhere(list.path.index(index), value);
        elements.iter().enumerate().map(at).collect()
    }

    /// The values of a map below this value, with their keys.
    pub fn entries(&self, path: &str) -> Vec<(&'a str, At<'a>)> {
        let map = self.get(path);
        let Some(entries) = map.value.as_object() else {
            return Vec::new();
        };
        let at = |(key, value): (&'a String, &'a Value)| (key.as_str(), map.elsewhere(map.path.key(key), value));
        entries.iter().map(at).collect()
    }

    /// The string here; empty when absent.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or("")
    }

    /// The integer here, if there is one.
    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether there is anything but null here: upstream's pointer that is not nil.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether there is nothing here, or an empty string, list or map.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Something must be here: an error when empty. Returns whether there is.
    pub fn required(&self) -> bool {
        let missing = self.is_empty();
        if missing {
            self.missing("");
        }
        !missing
    }

    /// `Required value`, always.
    pub fn missing(&self, detail: impl Into<String>) {
        self.report.push(Error::required(&self.path, detail));
    }

    /// `Invalid value`. What is not set is shown as `null`.
    pub fn invalid(&self, detail: impl Into<String>) {
        self.invalid_as(self.value.clone(), detail);
    }

    /// The value of a field that upstream holds as a string, not as a pointer: empty when absent.
    fn shown_text(&self) -> Value {
        match self.value {
            Value::Null => "".into(),
            value => value.clone(),
        }
    }

    /// `Invalid value`, showing another value than the one here.
    pub fn invalid_as(&self, shown: impl Into<Value>, detail: impl Into<String>) {
        self.report.push(Error::invalid(&self.path, shown, detail));
    }

    /// `Invalid value` without the value, where it would tell nothing.
    pub fn broken(&self, detail: impl Into<String>) {
        self.report.push(Error::broken(&self.path, detail));
    }

    /// `Invalid value` when a rule is broken.
    pub fn ensure(&self, kept: bool, detail: impl Into<String>) {
        if !kept {
            self.invalid(detail);
        }
    }

    /// `Invalid value` once for each message.
    pub fn check(&self, messages: Vec<String>) {
        for message in messages {
            self.invalid_as(self.shown_text(), message);
        }
    }

    /// Errors that a shared rule found.
    pub fn extend(&self, errors: ErrorList) {
        for error in errors {
            self.report.push(error);
        }
    }

    /// `Forbidden`.
    pub fn forbidden(&self, detail: impl Into<String>) {
        self.report.push(Error::forbidden(&self.path, detail));
    }

    /// `Forbidden` when anything is here.
    pub fn forbidden_when_set(&self, detail: &str) {
        if self.is_set() {
            self.forbidden(detail);
        }
    }

    /// `Duplicate value`.
    pub fn duplicate(&self, shown: impl Into<Value>) {
        self.report.push(Error::duplicate(&self.path, shown));
    }

    /// `Duplicate value` when this text was seen before; remembers it otherwise.
    pub fn unique(&self, seen: &mut BTreeSet<String>) {
        if !seen.insert(self.text().into()) {
            self.duplicate(self.value.clone());
        }
    }

    /// `Not found`.
    pub fn not_found(&self) {
        self.report.push(Error::not_found(&self.path, self.shown_text()));
    }

    /// `Too long`.
    pub fn too_long(&self, bytes_max: usize) {
        let max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        self.report.push(Error::too_long(&self.path, max));
    }

    /// `Unsupported value`.
    pub fn not_supported(&self, supported: &[&str]) {
        self.report
            .push(Error::not_supported(&self.path, self.shown_text(), supported));
    }

    /// `Unsupported value` unless the text is one of these.
    pub fn one_of(&self, supported: &[&str]) {
        if !supported.contains(&self.text()) {
            self.not_supported(supported);
        }
    }

    /// `Required value` when empty, `Unsupported value` unless the text is one of these.
    pub fn required_one_of(&self, supported: &[&str]) {
        if self.required() {
            self.one_of(supported);
        }
    }

    /// The number is not negative.
    pub fn non_negative(&self) {
        if self.number().is_some_and(|number| number < 0) {
            self.invalid("must be greater than or equal to 0");
        }
    }

    /// The number, if set, lies between two others.
    pub fn in_range(&self, min: i64, max: i64) {
        if self.number().is_some_and(|number| number < min || number > max) {
            self.invalid(range(min, max));
        }
    }

    /// The number, if set, names a port.
    pub fn port_number(&self) {
        if let Some(number) = self.number() {
            self.check(api::validation::port_number(number));
        }
    }

    /// The value must be what it was, where upstream holds a string and not a pointer: what is absent reads `""`.
    pub fn unchanged_text(&self, old: &Value) {
        if self.value != old {
            let shown = self.shown_text();
            self.elsewhere(self.path.clone(), &shown).unchanged(old);
        }
    }

    /// The value must be what it was.
    pub fn unchanged(&self, old: &Value) {
        self.extend(api::validation::immutable(self.value, old, &self.path));
    }
}

/// `must be between A and B, inclusive`.
pub fn range(min: impl Display, max: impl Display) -> String {
    format!("must be between {min} and {max}, inclusive")
}
