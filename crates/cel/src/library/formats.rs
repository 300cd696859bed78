//! Named formats: `format.dns1123Label().validate('x').hasValue()`, and `jsonpatch.escapeKey`. Sources:
//! `pkg/cel/library/format.go` and `jsonpatch.go` of the API server.

use api::validation::{
    dns1035_label, dns1123_label, dns1123_subdomain, label_value, name_is_dns_label, name_is_dns_subdomain,
    name_is_dns1035_label, qualified_name,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Native::Plain;
use super::opaque::Opaque;
use super::strings::text;
use super::urls::Url;
use super::{Line, Outcome, no_overload};
use crate::value::{Timestamp, Value};

#[rustfmt::skip]
pub(super) const TABLE: &[Line] = &[
    ("format-validate", "kubernetes.NamedFormat::validate(string) -> optional(list(string))", Plain(validate)),
    ("format-named", "format.named(string) -> optional(kubernetes.NamedFormat)", Plain(named)),
    ("format.dns1123Label", "format.dns1123Label() -> kubernetes.NamedFormat", Plain(|_| one("dns1123Label"))),
    ("format.dns1123Subdomain", "format.dns1123Subdomain() -> kubernetes.NamedFormat", Plain(|_| one("dns1123Subdomain"))),
    ("format.dns1035Label", "format.dns1035Label() -> kubernetes.NamedFormat", Plain(|_| one("dns1035Label"))),
    ("format.qualifiedName", "format.qualifiedName() -> kubernetes.NamedFormat", Plain(|_| one("qualifiedName"))),
    ("format.dns1123LabelPrefix", "format.dns1123LabelPrefix() -> kubernetes.NamedFormat", Plain(|_| one("dns1123LabelPrefix"))),
    ("format.dns1123SubdomainPrefix", "format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat", Plain(|_| one("dns1123SubdomainPrefix"))),
    ("format.dns1035LabelPrefix", "format.dns1035LabelPrefix() -> kubernetes.NamedFormat", Plain(|_| one("dns1035LabelPrefix"))),
    ("format.labelValue", "format.labelValue() -> kubernetes.NamedFormat", Plain(|_| one("labelValue"))),
    ("format.uri", "format.uri() -> kubernetes.NamedFormat", Plain(|_| one("uri"))),
    ("format.uuid", "format.uuid() -> kubernetes.NamedFormat", Plain(|_| one("uuid"))),
    ("format.byte", "format.byte() -> kubernetes.NamedFormat", Plain(|_| one("byte"))),
    ("format.date", "format.date() -> kubernetes.NamedFormat", Plain(|_| one("date"))),
    ("format.datetime", "format.datetime() -> kubernetes.NamedFormat", Plain(|_| one("datetime"))),
];

/// Of mutating policies only.
#[rustfmt::skip]
pub(super) const JSON_PATCH: &[Line] = &[
    ("string_jsonpatch_escapeKey_string", "jsonpatch.escapeKey(string) -> string", Plain(escape_key)),
];

/// A named format.
#[derive(Clone, Copy)]
pub struct NamedFormat {
    name: &'static str,
    /// How long a pattern for it would be: its cost is counted by that.
    pub(crate) pattern_length: u64,
    validate: fn(&str) -> Vec<String>,
}

impl NamedFormat {
    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl std::fmt::Debug for NamedFormat {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.name)
    }
}

const UUID_PATTERN: &str = "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
const DATE_TIME_PATTERN: &str = "^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";

#[rustfmt::skip]
static FORMATS: [NamedFormat; 13] = [
    NamedFormat { name: "dns1123Label", pattern_length: 30, validate: dns1123_label },
    NamedFormat { name: "dns1123Subdomain", pattern_length: 60, validate: dns1123_subdomain },
    NamedFormat { name: "dns1035Label", pattern_length: 30, validate: dns1035_label },
    NamedFormat { name: "qualifiedName", pattern_length: 60, validate: qualified_name },
    NamedFormat { name: "dns1123LabelPrefix", pattern_length: 30, validate: |text| name_is_dns_label(text, true) },
    NamedFormat { name: "dns1123SubdomainPrefix", pattern_length: 60, validate: |text| name_is_dns_subdomain(text, true) },
    NamedFormat { name: "dns1035LabelPrefix", pattern_length: 30, validate: |text| name_is_dns1035_label(text, true) },
    NamedFormat { name: "labelValue", pattern_length: 40, validate: label_value },
    NamedFormat { name: "uri", pattern_length: 1103, validate: |text| Url::parse(text, false).err().into_iter().collect() },
    NamedFormat { name: "uuid", pattern_length: UUID_PATTERN.len() as u64, validate: |text| unless(is_uuid(text), "does not match the UUID format") },
    NamedFormat { name: "byte", pattern_length: 84, validate: |text| unless(STANDARD.decode(text).is_ok(), "invalid base64") },
    NamedFormat { name: "date", pattern_length: DATE_TIME_PATTERN.len() as u64, validate: |text| unless(is_date(text), "invalid date") },
    NamedFormat { name: "datetime", pattern_length: DATE_TIME_PATTERN.len() as u64, validate: |text| unless(Timestamp::parse(text).is_some(), "invalid datetime") },
];

fn unless(good: bool, message: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![message.to_owned()] }
}

/// 32 digits; dashes may stand where they usually do.
fn is_uuid(text: &str) -> bool {
    let mut rest = text.as_bytes();
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
        if rest.len() < length || !rest[..length].iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

fn is_date(text: &str) -> bool {
    Timestamp::parse(&format!("{text}T00:00:00Z")).is_some()
}

fn find(name: &str) -> Option<Value<'static>> {
    FORMATS
        .iter()
        .find(|format| format.name == name)
        .map(|format| Value::Opaque(Opaque::Format(format)))
}

fn one<'a>(name: &str) -> Outcome<'a> {
    find(name).ok_or_else(no_overload)
}

fn named<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(find(text(&arguments[0])?).map_or(Value::Optional(None), Value::some))
}

fn validate<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    let Value::Opaque(Opaque::Format(format)) = &arguments[0] else {
        return Err(no_overload());
    };
    let errors = (format.validate)(text(&arguments[1])?);
    if errors.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(errors.into_iter().map(Value::from).collect())))
}

fn escape_key<'a>(arguments: &[Value<'a>]) -> Outcome<'a> {
    Ok(text(&arguments[0])?.replace('~', "~0").replace('/', "~1").into())
}
