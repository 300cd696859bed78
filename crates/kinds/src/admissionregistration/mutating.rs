//! The rules of policies that change objects, and of their bindings.
//!
//! Source: `validateMutatingAdmissionPolicySpec` and `validateMutatingAdmissionPolicyBindingSpec` in
//! `pkg/apis/admissionregistration/validation/validation.go`.

use api::Value;
use api::field::ErrorList;
use cel::admission::{Declared, Gives};

use super::expressions::{Expressions, Known};
use super::policies::{bound, default_binding, default_policy, name_warnings, policy};
use crate::check::{At, Report};
use crate::row::{Strategy, WriteContext};
use crate::view::View;

/// What is deleted cannot be changed.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];
const PATCHES: Declared = Declared {
    params: false,
    authorizer: true,
    patches: true,
};

/// Policies that change objects.
pub struct MutatingPolicies;

impl Strategy for MutatingPolicies {
    fn default(&self, object: &mut Value) {
        default_policy(object);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| mutating(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| mutating(&object, old))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        name_warnings(object, context)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Bindings of policies that change objects.
pub struct MutatingBindings;

impl Strategy for MutatingBindings {
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

fn mutating(object: &At, old: &Value) {
    let (spec, old) = (object.get("spec"), old.at("spec"));
    let mut expressions = Expressions::new(&spec, old, true);
    policy(&spec, old, &mut expressions);
    operations(&spec, "matchConstraints");
    let mutations = spec.get("mutations");
    if mutations.is_empty() {
        mutations.missing("mutations must contain at least one item");
    }
    for item in spec.items("mutations") {
        mutation(&item, &expressions);
    }
    spec.get("reinvocationPolicy").required_one_of(&REINVOCATION);
}

/// Only creates, updates and connections can be changed. Upstream names the list without its rule.
fn operations(spec: &At, matched: &str) {
    let list = spec.get(&format!("{matched}.resourceRules.operations"));
    for rule in spec.items(&format!("{matched}.resourceRules")) {
        for operation in rule.items("operations") {
            list.elsewhere(list.path.clone(), operation.value).one_of(&OPERATIONS);
        }
    }
}

fn mutation(mutation: &At, expressions: &Expressions) {
    let (configuration, patch) = (mutation.get("applyConfiguration"), mutation.get("jsonPatch"));
    let kind = mutation.get("patchType");
    let (own, other, shown, gives) = match kind.text() {
        "" => return kind.missing(""),
        "JSONPatch" => (patch, configuration, "{applyConfiguration}", Gives::Patches),
        "ApplyConfiguration" => (configuration, patch, "{jsonPatch}", Gives::Configuration),
        _ => return kind.not_supported(&PATCH_TYPES),
    };
    match own.is_set() {
        true => patch_expression(&own.get("expression"), expressions, gives),
        false => own.missing(format!("must be specified when patchType is {}", kind.text())),
    }
    if other.is_set() {
        let detail = format!("must not be specified when patchType is {}", kind.text());
        other.invalid_as(shown, detail);
    }
}

fn patch_expression(at: &At, expressions: &Expressions, gives: Gives) {
    let trimmed = at.text().trim();
    if trimmed.is_empty() {
        return at.missing("");
    }
    // Upstream looks among the apply configurations for both.
    let known = Known::of(expressions.old(), "mutations", "applyConfiguration.expression");
    expressions.check_trimmed(at, &trimmed.into(), &known, PATCHES, gives);
}

fn binding(spec: &At) {
    bound(spec);
    operations(spec, "matchResources");
}
