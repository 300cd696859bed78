//! What admission policies of both kinds have in common, and their bindings.
//!
//! Source: `pkg/apis/admissionregistration/v1/defaults.go`, and what `validateValidatingAdmissionPolicySpec` and
//! `validateMutatingAdmissionPolicySpec` share in `pkg/apis/admissionregistration/validation/validation.go`.

use api::Value;
use api::validation::{dns1035_label, dns1123_subdomain, label_selector, path_segment_name};

use super::expressions::{Expressions, Known};
use super::rules;
use crate::check::At;
use crate::names;
use crate::row::WriteContext;
use crate::view::{Edit, View};

const STATIC_SUFFIX: &str = ".static.k8s.io";

/// The defaults of a policy.
pub fn default_policy(object: &mut Value) {
    object.object("spec");
    object["spec"].put_default("failurePolicy", "Fail");
    default_match(object.existing("spec.matchConstraints"));
}

/// The defaults of a binding. `parameterNotFoundAction` has none, whatever its description says.
pub fn default_binding(object: &mut Value) {
    default_match(object.existing("spec.matchResources"));
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

/// What a user is told of a name that upstream keeps for policies that come from files. Source: `WarningsForStaticSuffix` in
/// `pkg/apis/admissionregistration/validation/static_suffix.go`.
pub fn name_warnings(object: &Value, context: &WriteContext) -> Vec<String> {
    let reserved = context.subresource.is_empty() && object.text("metadata.name").ends_with(STATIC_SUFFIX);
    let told = reserved.then(|| {
        format!(
            "metadata.name: names ending with {STATIC_SUFFIX:?} are reserved for static manifest-based configurations and \
             cannot be managed via the API"
        )
    });
    told.into_iter().collect()
}

/// What any policy has, up to its variables, which the expressions after them may use.
pub fn policy(spec: &At, old: &Value, expressions: &mut Expressions) {
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
        rules::match_conditions(spec, &Known::of(old, "matchConditions", "expression"), kind.is_set());
    }
    for variable in spec.items("variables") {
        self::variable(&variable, expressions);
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

fn variable(variable: &At, expressions: &mut Expressions) {
    let (name, expression) = (variable.get("name"), variable.get("expression"));
    if name.text().trim().is_empty() {
        name.missing("name is not specified");
    } else if !cel::is_identifier(name.text()) {
        name.invalid("must be a valid CEL identifier");
    }
    if expression.text().trim().is_empty() {
        expression.missing("expression is not specified");
    } else {
        // Upstream looks among the validations whether a variable's expression is known.
        let known = Known::of(expressions.old(), "validations", "expression");
        expressions.variable(name.text(), &expression, &known);
    }
}

/// What any binding has.
pub fn bound(spec: &At) {
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
