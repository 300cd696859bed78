//! The rules of admission policies and of their bindings.
//!
//! Of expressions in CEL only their presence and length are checked: there is no compiler for them here.
//!
//! Source: `pkg/apis/admissionregistration/v1/defaults.go`, `validateValidatingAdmissionPolicySpec`,
//! `validateMutatingAdmissionPolicySpec` and their bindings in `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::validation::{
    conditions, dns1035_label, dns1123_subdomain, label_selector, path_segment_name, qualified_name,
};

use super::rules;
use crate::check::{At, Report};
use crate::generic;
use crate::names;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const AUDIT_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const CEL_RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Policies that only judge.
pub struct ValidatingPolicies;

impl Strategy for ValidatingPolicies {
    fn default(&self, object: &mut Value) {
        default_policy(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            generic::keep_metadata(object, old);
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validating(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object.get("status")),
            _ => validating(&object, old),
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Bindings of policies that judge.
pub struct ValidatingBindings;

impl Strategy for ValidatingBindings {
    fn default(&self, object: &mut Value) {
        default_binding(object);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| binding(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, _old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| binding(&object.get("spec")))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn default_policy(object: &mut Value) {
    object.object("spec");
    object["spec"].put_default("failurePolicy", "Fail");
    default_match(object.existing("spec.matchConstraints"));
}

fn default_binding(object: &mut Value) {
    default_match(object.existing("spec.matchResources"));
    if let Some(reference) = object.existing("spec.paramRef") {
        reference.put_default("parameterNotFoundAction", "Deny");
    }
}

fn default_match(matched: Option<&mut Value>) {
    let Some(matched) = matched else { return };
    matched.put_default("matchPolicy", "Equivalent");
    matched.object("namespaceSelector");
    matched.object("objectSelector");
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in matched.elements(list) {
            rule.put_default("scope", "*");
        }
    }
}

/// What any policy has.
fn policy(spec: &At, old: &Value) {
    spec.get("failurePolicy").one_of(&rules::FAILURE_POLICIES);
    let kind = spec.get("paramKind");
    if kind.is_set() {
        param_kind(&kind);
    }
    let matched = spec.get("matchConstraints");
    match matched.is_set() {
        false => matched.missing(""),
        true => {
            rules::match_resources(&matched);
            matched.get("resourceRules").required();
        }
    }
    let unchanged = ["paramKind", "matchConditions"]
        .iter()
        .all(|field| spec.value.at(field) == old.at(field));
    if old.is_null() || !unchanged {
        rules::match_conditions(spec);
    }
    for variable in spec.items("variables") {
        self::variable(&variable);
    }
}

fn validating(object: &At, old: &Value) {
    let spec = object.get("spec");
    policy(&spec, old.at("spec"));
    let (validations, audits) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        for list in [&validations, &audits] {
            list.missing("validations or auditAnnotations must contain at least one item");
        }
        return;
    }
    for item in spec.items("validations") {
        validation(&item);
    }
    if spec.value.list("auditAnnotations").len() > AUDIT_ANNOTATIONS_MAX {
        audits.invalid(format!(
            "must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations"
        ));
    }
    let mut keys = BTreeSet::new();
    for audit in spec.items("auditAnnotations") {
        audit_annotation(&audit, object.value.text("metadata.name"));
        let key = audit.get("key");
        if !keys.insert(key.text()) {
            key.duplicate(key.text());
        }
    }
}

fn param_kind(kind: &At) {
    let (version, name) = (kind.get("apiVersion"), kind.get("kind"));
    match *version.text().split('/').collect::<Vec<_>>() {
        [""] => version.missing(""),
        [only] => group_version(&version, "", only),
        [group, of_group] => group_version(&version, group, of_group),
        _ => version.invalid(format!("unexpected GroupVersion string: {}", version.text())),
    }
    if name.required() {
        let broken = dns1035_label(&name.text().to_lowercase());
        if !broken.is_empty() {
            let broken = broken.join(",");
            name.invalid(format!("may have mixed case, but should otherwise match: {broken}"));
        }
    }
}

fn group_version(at: &At, group: &str, version: &str) {
    let of_group = dns1123_subdomain(group);
    if !group.is_empty() && !of_group.is_empty() {
        at.invalid_as(group, of_group.join(","));
    }
    let of_version = dns1035_label(version);
    if version.is_empty() {
        at.invalid("version must be specified");
    } else if !of_version.is_empty() {
        at.invalid_as(version, of_version.join(","));
    }
}

fn variable(variable: &At) {
    let (name, expression) = (variable.get("name"), variable.get("expression"));
    if name.text().trim().is_empty() {
        name.missing("name is not specified");
    } else if !is_cel_identifier(name.text()) {
        name.invalid("must be a valid CEL identifier");
    }
    if expression.text().trim().is_empty() {
        expression.missing("expression is not specified");
    }
}

fn is_cel_identifier(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !CEL_RESERVED.contains(&name)
}

fn validation(validation: &At) {
    let (expression, message) = (validation.get("expression"), validation.get("message"));
    if expression.text().trim().is_empty() {
        expression.missing("expression is not specified");
    }
    let of_message = validation.get("messageExpression");
    if !of_message.is_empty() && of_message.text().trim().is_empty() {
        of_message.invalid("must be non-empty if specified");
    }
    let trimmed = message.text().trim();
    if !message.is_empty() && trimmed.is_empty() {
        message.invalid("message must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        message.invalid("message must not contain line breaks");
    }
    let reason = validation.get("reason");
    if reason.is_set() {
        reason.one_of(&REASONS);
    }
}

fn audit_annotation(audit: &At, policy: &str) {
    let (key, expression) = (audit.get("key"), audit.get("valueExpression"));
    match policy {
        "" => key.invalid("requires metadata.name be non-empty"),
        _ => {
            let full = format!("{policy}/{}", key.text());
            for message in qualified_name(&full) {
                key.invalid_as(full.as_str(), message);
            }
        }
    }
    let trimmed = expression.text().trim();
    if trimmed.is_empty() {
        expression.missing("valueExpression is not specified");
    } else if trimmed.len() > AUDIT_EXPRESSION_BYTES_MAX {
        expression.missing(format!("must not exceed {AUDIT_EXPRESSION_BYTES_MAX} bytes in length"));
    }
}

fn status(status: &At) {
    for warning in status.items("typeChecking.expressionWarnings") {
        warning.get("warning").required();
        let field = warning.get("fieldRef");
        if field.text().trim().is_empty() {
            field.missing("");
        }
    }
    let list = status.get("conditions");
    list.extend(conditions(list.value, &list.path));
}

fn binding(spec: &At) {
    bound(spec);
    let actions = spec.get("validationActions");
    let mut seen = BTreeSet::new();
    for action in spec.items("validationActions") {
        action.one_of(&ACTIONS);
        action.unique(&mut seen);
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        actions.invalid(
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response and \
             headers serves no purpose)",
        );
    }
    if seen.is_empty() {
        actions.missing("at least one validation action is required");
    }
}

/// What any binding has.
fn bound(spec: &At) {
    let policy = spec.get("policyName");
    if policy.required() {
        policy.check(names::subdomain(policy.text(), false));
    }
    let reference = spec.get("paramRef");
    if reference.is_set() {
        param_ref(&reference);
    }
    let matched = spec.get("matchResources");
    if matched.is_set() {
        rules::match_resources(&matched);
    }
}

fn param_ref(reference: &At) {
    let (name, selector) = (reference.get("name"), reference.get("selector"));
    let both = "name and selector are mutually exclusive";
    if !name.is_empty() {
        name.check(path_segment_name(name.text()));
        if selector.is_set() {
            name.forbidden(both);
        }
    }
    if selector.is_set() {
        selector.extend(label_selector(selector.value, false, &selector.path));
        if !name.is_empty() {
            selector.forbidden(both);
        }
    } else if name.is_empty() {
        reference.missing("one of name or selector must be specified");
    }
    reference
        .get("parameterNotFoundAction")
        .required_one_of(&["Deny", "Allow"]);
}
