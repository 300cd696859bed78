//! The rules of policies that judge, and of their bindings.
//!
//! Source: `validateValidatingAdmissionPolicy`, its status and its binding in
//! `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::validation::{conditions, qualified_name};
use cel::admission::{Declared, Gives};

use super::expressions::{Expressions, Known};
use super::policies::{bound, default_binding, default_policy, name_warnings, policy};
use crate::check::{At, Report};
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::View;

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const AUDIT_EXPRESSION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// What all expressions but those of messages have.
const WITH_AUTHORIZER: Declared = Declared {
    params: false,
    authorizer: true,
    patches: false,
};

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

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        name_warnings(object, context)
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

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        name_warnings(object, context)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validating(object: &At, old: &Value) {
    let (spec, old) = (object.get("spec"), old.at("spec"));
    // Without variables there is no `variables`.
    let mut expressions = Expressions::new(&spec, old, !spec.get("variables").is_empty());
    policy(&spec, old, &mut expressions);
    let (validations, audits) = (spec.get("validations"), spec.get("auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        for list in [&validations, &audits] {
            list.missing("validations or auditAnnotations must contain at least one item");
        }
        return;
    }
    for item in spec.items("validations") {
        validation(&item, &expressions);
    }
    if spec.value.list("auditAnnotations").len() > AUDIT_ANNOTATIONS_MAX {
        audits.invalid(format!(
            "must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations"
        ));
    }
    let mut keys = BTreeSet::new();
    for audit in spec.items("auditAnnotations") {
        audit_annotation(&audit, object.value.text("metadata.name"), &expressions);
        let key = audit.get("key");
        if !keys.insert(key.text()) {
            key.duplicate(key.text());
        }
    }
}

fn validation(validation: &At, expressions: &Expressions) {
    let (expression, message) = (validation.get("expression"), validation.get("message"));
    if expression.text().trim().is_empty() {
        expression.missing("expression is not specified");
    } else {
        let known = Known::of(expressions.old(), "validations", "expression");
        expressions.check(&expression, &known, WITH_AUTHORIZER, Gives::Bool);
    }
    let of_message = validation.get("messageExpression");
    if !of_message.is_empty() && of_message.text().trim().is_empty() {
        of_message.invalid("must be non-empty if specified");
    } else if !of_message.is_empty() {
        let known = Known::of(expressions.old(), "validations", "messageExpression");
        expressions.check(&of_message, &known, Declared::default(), Gives::Text);
    }
    let trimmed = message.text().trim();
    if !message.is_empty() && trimmed.is_empty() {
        message.invalid("must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        message.invalid("must not contain line breaks");
    }
    let reason = validation.get("reason");
    if reason.is_set() {
        reason.one_of(&REASONS);
    }
}

fn audit_annotation(audit: &At, policy: &str, expressions: &Expressions) {
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
    } else {
        let known = Known::of(expressions.old(), "auditAnnotations", "valueExpression");
        expressions.check_trimmed(
            &expression,
            expression.value,
            &known,
            WITH_AUTHORIZER,
            Gives::TextOrNull,
        );
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
