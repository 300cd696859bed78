//! The rules of a flow schema.
//!
//! Source: `SetDefaults_FlowSchemaSpec` in `pkg/apis/flowcontrol/v1/defaults.go` and `ValidateFlowSchema` in
//! `pkg/apis/flowcontrol/validation/validation.go`.

use api::Value;
use api::field::ErrorList;

use super::{conditions, keep_apart, mandatory};
use crate::check::{At, Report};
use crate::generic;
use crate::names;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const PRECEDENCE_DEFAULT: i64 = 1000;
const PRECEDENCE_MAX: i64 = 10_000;
const EXEMPT: &str = "exempt";
const VERBS: [&str; 9] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "proxy",
    "update",
    "watch",
];

/// Flow schemas.
pub struct FlowSchemas;

impl Strategy for FlowSchemas {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        if object.count("spec.matchingPrecedence") == 0 {
            object["spec"].put("matchingPrecedence", PRECEDENCE_DEFAULT);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        keep_apart(object, old, context);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, _old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => conditions(&object.get("status")),
            _ => validate(&object),
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    spec(&object.get("spec"), object.value.text("metadata.name"));
    mandatory(object, "FlowSchema", Value::clone, "");
    conditions(&object.get("status"));
}

fn spec(spec: &At, name: &str) {
    let precedence = spec.get("matchingPrecedence");
    match precedence.number().unwrap_or(0) {
        ..=0 => precedence.invalid("must be a positive value"),
        1 => precedence.ensure(
            name == EXEMPT,
            "only the schema named 'exempt' may have matchingPrecedence 1",
        ),
        number => precedence.ensure(
            number <= PRECEDENCE_MAX,
            format!("must not be greater than {PRECEDENCE_MAX}"),
        ),
    }
    let method = spec.get("distinguisherMethod");
    let kinds = ["ByNamespace", "ByUser"];
    if method.is_set() && !kinds.contains(&method.value.text("type")) {
        // Upstream shows the whole method.
        method
            .elsewhere(method.path.child("type"), method.value)
            .not_supported(&kinds);
    }
    let level = spec.get("priorityLevelConfiguration.name");
    match level.text() {
        "" => level.missing("must reference a priority level"),
        text => level.check(names::subdomain(text, false)),
    }
    for rule in spec.items("rules") {
        policy_rule(&rule);
    }
}

fn policy_rule(rule: &At) {
    let subjects = rule.get("subjects");
    if subjects.is_empty() {
        subjects.missing("subjects must contain at least one value");
    }
    for subject in rule.items("subjects") {
        self::subject(&subject);
    }
    if rule.get("resourceRules").is_empty() && rule.get("nonResourceRules").is_empty() {
        rule.missing("at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for rule in rule.items("resourceRules") {
        resource_rule(&rule);
    }
    for rule in rule.items("nonResourceRules") {
        verbs(&rule);
        urls(&rule);
    }
}

fn subject(subject: &At) {
    let kinds = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = subject.get("kind");
    if !kinds.iter().any(|(name, _)| *name == kind.text()) {
        return kind.not_supported(&["Group", "ServiceAccount", "User"]);
    }
    for (name, field) in kinds {
        let at = subject.get(field);
        match (name == kind.text(), at.is_set()) {
            (true, true) => named_subject(&at, field),
            (true, false) => at.missing(format!("{field} is required when subject kind is '{name}'")),
            (false, true) => at.forbidden(format!("{field} is forbidden when subject kind is not '{name}'")),
            (false, false) => {}
        }
    }
}

fn named_subject(subject: &At, field: &str) {
    let (name, namespace) = (subject.get("name"), subject.get("namespace"));
    name.required();
    if field != "serviceAccount" {
        return;
    }
    if !["", "*"].contains(&name.text()) {
        name.check(names::subdomain(name.text(), false));
    }
    match namespace.text() {
        "" => namespace.missing("must specify namespace for service account"),
        text => namespace.check(names::label(text, false)),
    }
}

/// Whether everything is meant, which then stands alone.
fn all(list: &At, others: &str) -> bool {
    let texts: Vec<&str> = list.value.texts("").collect();
    let all = texts.contains(&"*");
    let alone = !all || texts.len() == 1;
    list.ensure(alone, format!("if '*' is present, must not specify other {others}"));
    all
}

fn verbs(rule: &At) {
    let verbs = rule.get("verbs");
    if verbs.is_empty() {
        verbs.missing("verbs must contain at least one value");
    } else if !all(&verbs, "verbs") && !verbs.value.texts("").all(|verb| VERBS.contains(&verb)) {
        verbs.not_supported(&VERBS);
    }
}

fn resource_rule(rule: &At) {
    verbs(rule);
    for (field, one, others) in [
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ] {
        let list = rule.get(field);
        match list.is_empty() {
            true => list.missing(format!("resource rules must supply at least one {one}")),
            false => drop(all(&list, others)),
        }
    }
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() {
        if !rule.value.flag("clusterScope") {
            namespaces.missing("resource rules that are not cluster scoped must supply at least one namespace");
        }
    } else if !all(&namespaces, "namespaces") {
        for namespace in rule.items("namespaces") {
            for message in names::label(namespace.text(), false) {
                let rule = "each member of this list must be '*' or a DNS-1123 label; ";
                namespace.invalid(format!("{rule}{message}"));
            }
        }
    }
}

fn urls(rule: &At) {
    let urls = rule.get("nonResourceURLs");
    if urls.is_empty() {
        return urls.missing("nonResourceURLs must contain at least one value");
    }
    if all(&urls, "non-resource URLs") {
        return;
    }
    for url in rule.items("nonResourceURLs") {
        let text = url.text();
        let stars = text.matches('*').count();
        let broken = match text {
            "" => "must not be empty",
            "/" => continue,
            _ if !text.starts_with('/') => "must start with slash",
            _ if text.contains(' ') => "must not contain white-space",
            _ if text.contains("//") => "must not contain double slash",
            _ if stars > 1 || (stars == 1 && !text.ends_with("/*")) => "wildcard can only do suffix matching",
            _ => continue,
        };
        url.invalid(broken);
    }
}
