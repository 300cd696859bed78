//! Rules for `metadata.name`, in the shape rows want them: `(name, is a prefix) -> messages`.
//!
//! Sources: `k8s.io/apimachinery/pkg/api/validation/generic.go` and `pkg/apis/core/validation/validation.go`.

use std::net::IpAddr;

use regex::Regex;
use std::sync::LazyLock;

static SUBDOMAIN: LazyLock<Regex> =
    LazyLock::new(|| rule(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"));
static LABEL: LazyLock<Regex> = LazyLock::new(|| rule("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"));
static LABEL_1035: LazyLock<Regex> = LazyLock::new(|| rule("^[a-z]([-a-z0-9]*[a-z0-9])?$"));

const SUBDOMAIN_TEXT: &str = r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";

fn rule(pattern: &str) -> Regex {
    Regex::new(pattern).expect("invariant: a constant pattern")
}

fn check(pattern: &Regex, bytes_max: usize, text: &str, name: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if name.len() > bytes_max {
        messages.push(format!("must be no more than {bytes_max} bytes"));
    }
    if !pattern.is_match(name) {
        messages.push(text.into());
    }
    messages
}

/// Most kinds: a lowercase DNS subdomain of at most 253 characters.
pub fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    check(&SUBDOMAIN, 253, SUBDOMAIN_TEXT, &unprefixed(name, prefix))
}

/// Namespaces: a lowercase DNS label of at most 63 characters.
pub fn label(name: &str, prefix: bool) -> Vec<String> {
    check(&LABEL, 63, LABEL_TEXT, &unprefixed(name, prefix))
}

/// Services: a DNS label that starts with a letter.
pub fn label1035(name: &str, prefix: bool) -> Vec<String> {
    check(&LABEL_1035, 63, LABEL_1035_TEXT, &unprefixed(name, prefix))
}

/// RBAC kinds: anything that can be one segment of a path.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    let mut messages = Vec::new();
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    for forbidden in ["/", "%"] {
        if name.contains(forbidden) {
            messages.push(format!("may not contain '{forbidden}'"));
        }
    }
    messages
}

/// IPAddresses: the canonical form of the address.
pub fn ip_address(name: &str, _prefix: bool) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        Ok(_) => vec!["must be a canonical form IP address".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// A generateName may end in a dash: what follows makes it a name.
fn unprefixed(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(rest) if prefix && name.len() > 1 => format!("{rest}a").into(),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        type Rule = fn(&str, bool) -> Vec<String>;
        for (rule, name, prefix, good) in [
            (subdomain as Rule, "a.b-c", false, true),
            (subdomain, "a-", false, false),
            (subdomain, "a-", true, true),
            (label, "a.b", false, false),
            (label1035, "1a", false, false),
            (label1035, "a1", false, true),
            (path_segment, "system:node", false, true),
            (path_segment, "a/b", false, false),
            (path_segment, "..", false, false),
            (ip_address, "10.0.0.1", false, true),
            (ip_address, "2001:DB8::1", false, false),
        ] {
            assert_eq!(rule(name, prefix).is_empty(), good, "{name}");
        }
    }
}
