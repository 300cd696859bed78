//! What is asked of devices: in claims, their templates and classes.
//!
//! Expressions are compiled and their cost is estimated; nothing evaluates them, as nothing allocates devices yet.
//!
//! Source: `validateDeviceClaim` and what it calls in `pkg/apis/resource/validation/validation.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Value;
use api::field::Error;
use api::validation::{c_identifier, dns1123_label, dns1123_subdomain};
use cel::admission::{NEW, STORED};
use cel::devices::{compile_selector, is_too_complex};

use super::taints::tolerations;
use crate::check::At;
use crate::core::pod::volumes::driver_name;
use crate::view::View;

/// Requests, constraints, configurations and selectors of one object; upstream has a constant for each.
pub const LIST_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const ID_BYTES_MAX: usize = 32;

/// The requests of a claim, each with its alternatives.
pub struct Requests<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Requests<'a> {
    /// Of the `devices` of a claim's spec.
    pub fn of(devices: &'a Value) -> Requests<'a> {
        let names = devices.list("requests").iter().map(|request| {
            let alternatives = request.list("firstAvailable").iter();
            (
                request.text("name"),
                alternatives.map(|alternative| alternative.text("name")).collect(),
            )
        });
        Requests(names.collect())
    }

    fn has(&self, reference: &str) -> bool {
        match reference.split_once('/') {
            None => self.0.contains_key(reference),
            Some((request, alternative)) => self.0.get(request).is_some_and(|known| known.contains(alternative)),
        }
    }

    /// A text that refers to a request or an alternative of one.
    pub fn reference(&self, name: &At) {
        let detail =
            "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        let parts: Vec<&str> = name.text().split('/').collect();
        if parts.len() > 2 {
            return name.invalid_as(name.text(), detail);
        }
        for part in parts {
            for message in dns1123_label(part) {
                name.invalid_as(part, message);
            }
        }
        if !self.has(name.text()) {
            name.invalid_as(name.text(), detail);
        }
    }

    /// A list of such texts without repetition.
    pub fn references(&self, parent: &At) {
        distinct(
            parent,
            "requests",
            LIST_MAX,
            |name| name.text().into(),
            |name| self.reference(name),
        );
    }
}

/// Each element of a list that is not too long; a list that is, is not read.
pub fn each(parent: &At, list: &str, max: usize, rule: impl Fn(&At)) {
    let items = parent.items(list);
    if items.len() > max {
        let path = &parent.get(list).path;
        parent.report.push(Error::too_many(path, items.len(), max));
    } else {
        items.iter().for_each(rule);
    }
}

/// The same for a list without repetition.
pub fn distinct(parent: &At, list: &str, max: usize, key: impl Fn(&At) -> String, rule: impl Fn(&At)) {
    each(parent, list, max, rule);
    let items = parent.items(list);
    let mut seen = BTreeSet::new();
    for item in items.iter().filter(|_| items.len() <= max) {
        let key = key(item);
        if seen.contains(&key) {
            item.duplicate(key);
        } else {
            seen.insert(key);
        }
    }
}

/// `devices` of a claim. Expressions that are `stored` already have the server's own libraries.
pub fn claim(devices: &At, stored: bool) {
    let requests = Requests::of(devices.value);
    distinct(devices, "requests", LIST_MAX, name, |one| request(one, stored));
    each(devices, "constraints", LIST_MAX, |constraint| {
        requests.references(constraint);
        let (same, different) = (constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
        if same.is_set() {
            fully_qualified(&same);
        } else if different.is_set() {
            fully_qualified(&different);
        } else {
            // Upstream says so of none, too.
            constraint.missing(
                "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
            );
        }
    });
    each(devices, "config", LIST_MAX, |config| {
        requests.references(config);
        configuration(config);
    });
}

fn name(at: &At) -> String {
    at.value.text("name").into()
}

fn request(request: &At, stored: bool) {
    label(&request.get("name"));
    let (exactly, alternatives) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => request.missing("exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => request.invalid_as(
            "null",
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => exact(&exactly, stored),
        (false, true) => distinct(request, "firstAvailable", ALTERNATIVES_MAX, name, |alternative| {
            label(&alternative.get("name"));
            exact(alternative, stored);
        }),
    }
}

/// A DNS label.
pub fn label(name: &At) {
    name.check(dns1123_label(name.text()));
}

fn exact(request: &At, stored: bool) {
    let class = request.get("deviceClassName");
    if class.required() {
        class.check(dns1123_subdomain(class.text()));
    }
    selectors(request, stored);
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    let number = count.number().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => count.invalid("must not be specified when allocationMode is 'All'"),
        "ExactCount" if number <= 0 => count.invalid_as(number, "must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => mode.not_supported(&["All", "ExactCount"]),
    }
    tolerations(request);
}

/// Which devices: every selector has an expression of bounded length and cost.
pub fn selectors(parent: &At, stored: bool) {
    each(parent, "selectors", LIST_MAX, |selector| {
        let cel = selector.get("cel");
        let expression = cel.get("expression");
        if !cel.is_set() {
            cel.missing("");
        } else if expression.text().len() > EXPRESSION_BYTES_MAX {
            expression.too_long(EXPRESSION_BYTES_MAX);
        } else {
            let minor = if stored { STORED } else { NEW };
            match compile_selector(minor, expression.text()) {
                Err(refusal) => expression.invalid_as(expression.text(), refusal.detail),
                Ok(program) if is_too_complex(&program) => expression.forbidden("too complex, exceeds cost limit"),
                Ok(_) => {}
            }
        }
    });
}

/// What a driver is told.
pub fn configuration(config: &At) {
    let opaque = config.get("opaque");
    if !opaque.is_set() {
        return opaque.missing("");
    }
    driver_name(&opaque.get("driver"));
    raw_object(&opaque.get("parameters"), PARAMETERS_BYTES_MAX);
}

/// Any object, not too large. Its size is that of its shortest form; upstream measures what was sent.
pub fn raw_object(raw: &At, bytes_max: usize) {
    match raw.value {
        Value::Null => raw.missing(""),
        value if value.to_string().len() > bytes_max => raw.too_long(bytes_max),
        Value::Object(_) => {}
        _ => raw.invalid_as("<value omitted>", "must be a valid JSON object"),
    }
}

/// A name with a domain.
fn fully_qualified(name: &At) {
    qualified(name, name.text());
    if !name.text().contains('/') {
        name.invalid("a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// The name of an attribute or capacity, with or without the domain of who defines it.
pub fn qualified(at: &At, name: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(at, id),
        [domain, id] => {
            match domain {
                "" => at.invalid_as("", "the domain must not be empty"),
                domain => driver_name(&at.elsewhere(at.path.clone(), &domain.into())),
            }
            match id {
                "" => at.invalid_as("", "the name must not be empty"),
                id => identifier(at, id),
            }
        }
        // Upstream takes names with more slashes as they are.
        _ => {}
    }
}

fn identifier(at: &At, id: &str) {
    if id.len() > ID_BYTES_MAX {
        at.too_long(ID_BYTES_MAX);
    }
    for message in c_identifier(id) {
        at.invalid_as(id, message);
    }
}
