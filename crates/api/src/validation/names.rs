//! Names, keys and other identifiers.
//!
//! The matchers are written out instead of compiled from the regular expressions that the messages show: labels and
//! names are checked on every write, and the forms are simple.

use super::{max_length_bytes, max_length_characters, regex_error};
use crate::field::{Error, ErrorList, Path};

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const PORT_NAME_MAX: usize = 15;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_UNDERSCORE: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// First and last byte are `end`, those between `middle`; not empty.
fn framed(text: &str, end: impl Fn(u8) -> bool, middle: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => end(*one),
        [first, between @ .., last] => end(*first) && end(*last) && between.iter().all(|byte| middle(*byte)),
    }
}

fn is_dns1123_label(text: &str) -> bool {
    framed(text, lower, |byte| lower(byte) || byte == b'-')
}

fn is_dns1123_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns1123_label)
}

fn is_label_key(text: &str) -> bool {
    framed(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b),
    )
}

fn made_of(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(allowed)
}

/// A DNS label (RFC 1123): names of namespaces, containers, volumes.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > LABEL_MAX {
        broken.push(max_length_characters(LABEL_MAX));
    }
    if !is_dns1123_label(value) {
        if is_dns1123_subdomain(value) {
            broken.push("must not contain dots".into());
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            broken.push(regex_error(message, DNS1123_LABEL, &["my-name", "123-abc"]));
        }
    }
    broken
}

/// A DNS subdomain (RFC 1123): names of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    subdomain(value, max_length_characters)
}

fn subdomain(value: &str, too_long: fn(usize) -> String) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        broken.push(too_long(SUBDOMAIN_MAX));
    }
    if !is_dns1123_subdomain(value) {
        broken.push(regex_error(SUBDOMAIN_MESSAGE, DNS1123_SUBDOMAIN, &["example.com"]));
    }
    broken
}

/// A DNS subdomain that may have underscores: search domains of a pod's DNS configuration.
pub fn dns1123_subdomain_underscore(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        broken.push(max_length_characters(SUBDOMAIN_MAX));
    }
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        framed(label, lower, |byte| lower(byte) || byte == b'-' || byte == b'_')
    };
    if !value.split('.').all(label) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        broken.push(regex_error(message, DNS1123_SUBDOMAIN_UNDERSCORE, &["example.com"]));
    }
    broken
}

/// A DNS label (RFC 1035): names of services.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > LABEL_MAX {
        broken.push(max_length_characters(LABEL_MAX));
    }
    if !is_dns1123_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        broken.push(regex_error(
            message,
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    broken
}

/// A subdomain whose first label is `*`: hosts of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        broken.push(max_length_characters(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(is_dns1123_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        let regex = format!(r"\*\.{DNS1123_SUBDOMAIN}");
        broken.push(regex_error(message, &regex, &["*.example.com"]));
    }
    broken
}

/// A qualified name: keys of labels, annotations (in lower case), finalizers, resources.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = value.split('/');
    let name = match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
        (name, None, _) => name,
        (prefix, Some(name), None) => {
            if prefix.is_empty() {
                broken.push("prefix part must be non-empty".into());
            } else {
                let prefix = subdomain(prefix, max_length_bytes);
                broken.extend(prefix.into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        _ => {
            let rule = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY, &examples);
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {rule} {prefix}")];
        }
    };
    if name.is_empty() {
        broken.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        broken.push(format!("name part {}", max_length_bytes(LABEL_MAX)));
    }
    if !is_label_key(name) {
        let rule = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY, &examples);
        broken.push(format!("name part {rule}"));
    }
    broken
}

/// A label's value.
pub fn label_value(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > LABEL_MAX {
        broken.push(max_length_bytes(LABEL_MAX));
    }
    if !value.is_empty() && !is_label_key(value) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        let regex = format!("({LABEL_KEY})?");
        broken.push(regex_error(message, &regex, &["MyValue", "my_value", "12345"]));
    }
    broken
}

/// A service name as IANA has them: names of ports.
pub fn port_name(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > PORT_NAME_MAX {
        broken.push(max_length_characters(PORT_NAME_MAX));
    }
    if !made_of(value, |byte| lower(byte) || byte == b'-') {
        broken.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !value.bytes().any(|byte| byte.is_ascii_lowercase()) {
        broken.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        broken.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        broken.push("must not begin or end with a hyphen".into());
    }
    broken
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    if made_of(value, |byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// An identifier of C.
pub fn c_identifier(value: &str) -> Vec<String> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if made_of(value, word) && !value.starts_with(|c: char| c.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_error(
        message,
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// The name of an environment variable, by the older and stricter rule.
pub fn env_var_name(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !made_of(value, allowed) || value.starts_with(|c: char| c.is_ascii_digit()) {
        let message = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
        let examples = ["my.env-name", "MY_ENV.NAME", "MyEnvName1"];
        broken.push(regex_error(message, "[-._a-zA-Z][-._a-zA-Z0-9]*", &examples));
    }
    broken.extend(dots(value));
    broken
}

/// The name of an environment variable: any printable ASCII but `=`.
pub fn relaxed_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
}

/// A key of a ConfigMap or Secret: it becomes a file's name.
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        broken.push(max_length_characters(SUBDOMAIN_MAX));
    }
    if !made_of(value, |byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        broken.push(regex_error(
            message,
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    broken.extend(dots(value));
    broken
}

/// Names that would leave a directory.
fn dots(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    }
}

/// A name that can stand between slashes of a URL: names of RBAC objects.
pub fn path_segment_name(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    path_segment_prefix(value)
}

/// The beginning of a name that can stand between slashes of a URL.
pub fn path_segment_prefix(value: &str) -> Vec<String> {
    let illegal = ["/", "%"].into_iter().filter(|illegal| value.contains(illegal));
    illegal.map(|illegal| format!("may not contain '{illegal}'")).collect()
}

/// A name of at least three labels.
pub fn fully_qualified_name(path: &Path, name: &str) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let broken = dns1123_subdomain(name);
    if !broken.is_empty() {
        return vec![Error::invalid(path, name, broken.join(","))];
    }
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        return vec![Error::invalid(path, name, detail)];
    }
    Vec::new()
}

/// A name of at least two labels, with or without a dot at its end.
pub fn fully_qualified_domain_name(path: &Path, name: &str) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let broken = dns1123_subdomain(name);
    if !broken.is_empty() {
        return vec![Error::invalid(path, name, broken.join(","))];
    }
    if name.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        return vec![Error::invalid(path, name, detail)];
    }
    for label in name.split('.') {
        let broken = dns1123_label(label);
        if !broken.is_empty() {
            return vec![Error::invalid(path, label, broken.join(","))];
        }
    }
    Vec::new()
}

/// A domain, a slash and a path: `acme.io/foo`, names of signers.
pub fn domain_prefixed_path(path: &Path, value: &str) -> ErrorList {
    if value.is_empty() {
        return vec![Error::required(path, "")];
    }
    let Some((host, rest)) = value.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return vec![Error::invalid(path, value, detail)];
    };
    let broken = dns1123_subdomain(host).into_iter();
    let mut errors: ErrorList = broken.map(|text| Error::invalid(path, host, text)).collect();
    if !made_of(rest, |b| {
        b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)
    }) {
        let regex = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
        errors.push(Error::invalid(path, rest, regex_error("Invalid path", regex, &[])));
    }
    errors
}

/// A qualified name that has a domain: `acme.io/foo`.
pub fn domain_prefixed_key(path: &Path, key: &str) -> ErrorList {
    if key.is_empty() {
        return vec![Error::required(path, "")];
    }
    let broken = qualified_name(key).into_iter();
    let errors: ErrorList = broken.map(|text| Error::invalid(path, key, text)).collect();
    if errors.is_empty() && !key.contains('/') {
        let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
        return vec![Error::invalid(path, key, detail)];
    }
    errors
}

/// A trailing dash of a `generateName` counts as a letter, because something will follow it. Upstream replaces the
/// character before the dash too.
fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept = rest.strip_suffix(|c: char| c.is_ascii()).unwrap_or(rest);
            format!("{kept}a")
        }
        _ => name.into(),
    }
}

fn masked(name: &str, prefix: bool, rule: fn(&str) -> Vec<String>) -> Vec<String> {
    if prefix {
        rule(&mask_trailing_dash(name))
    } else {
        rule(name)
    }
}

/// [`super::NameRule`] of most kinds.
pub fn name_is_dns_subdomain(name: &str, prefix: bool) -> Vec<String> {
    masked(name, prefix, dns1123_subdomain)
}

/// [`super::NameRule`] of namespaces.
pub fn name_is_dns_label(name: &str, prefix: bool) -> Vec<String> {
    masked(name, prefix, dns1123_label)
}

/// [`super::NameRule`] of services.
pub fn name_is_dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    masked(name, prefix, dns1035_label)
}

/// [`super::NameRule`] of RBAC kinds.
pub fn name_is_path_segment(name: &str, prefix: bool) -> Vec<String> {
    if prefix {
        path_segment_prefix(name)
    } else {
        path_segment_name(name)
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
