//! The rules of webhook configurations.
//!
//! Source: `pkg/apis/admissionregistration/v1/defaults.go`, `validateMutatingWebhookConfiguration` and
//! `validateValidatingWebhookConfiguration` in `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::validation::{dns1035_label, fully_qualified_name, label_selector};

use super::expressions::Known;
use super::policies::name_warnings;
use super::rules;
use crate::check::{At, Report};
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const TIMEOUT_SECONDS_DEFAULT: i64 = 10;
const TIMEOUT_SECONDS_MAX: i64 = 30;
const PORT_DEFAULT: i64 = 443;
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// Webhook configurations of either kind.
pub struct Webhooks {
    /// Whether the webhooks may change objects.
    pub mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for hook in object.elements("webhooks") {
            hook.put_default("failurePolicy", "Fail");
            hook.put_default("matchPolicy", "Equivalent");
            hook.object("namespaceSelector");
            hook.object("objectSelector");
            hook.put_default("timeoutSeconds", TIMEOUT_SECONDS_DEFAULT);
            if self.mutating {
                hook.put_default("reinvocationPolicy", "Never");
            }
            for rule in hook.elements("rules") {
                rule.put_default("scope", "*");
            }
            if let Some(service) = hook.existing("clientConfig.service") {
                service.put_default("port", PORT_DEFAULT);
            }
        }
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.get("webhooks") != old.get("webhooks")
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object, &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object, old))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        name_warnings(object, context)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// What a stored configuration may go on breaking: rules that are younger than it.
struct Tolerated<'o> {
    expressions: Known<'o>,
    side_effects: bool,
    versions: bool,
    names: bool,
    labels: bool,
    conditions: bool,
}

impl<'o> Tolerated<'o> {
    fn by(old: &'o Value, new: &Value) -> Tolerated<'o> {
        let hooks = old.list("webhooks");
        let names: BTreeSet<&str> = hooks.iter().map(|hook| hook.text("name")).collect();
        let conditions = |object: &Value| -> Vec<Value> {
            let hooks = object.list("webhooks").iter();
            hooks.map(|hook| hook.at("matchConditions").clone()).collect()
        };
        let labels = |hook: &Value, field: &str| {
            let path = api::field::Path::root();
            !label_selector(hook.at(field), false, &path).is_empty()
        };
        let known = |hook: &Value| {
            let mut versions = hook.texts("admissionReviewVersions");
            versions.any(|version| REVIEW_VERSIONS.contains(&version))
        };
        Tolerated {
            expressions: Known::of_all(hooks.iter().flat_map(|hook| hook.list("matchConditions")), "expression"),
            side_effects: hooks
                .iter()
                .any(|hook| !NO_SIDE_EFFECTS.contains(&hook.text("sideEffects"))),
            versions: hooks
                .iter()
                .any(|hook| !hook.list("admissionReviewVersions").is_empty() && !known(hook)),
            names: names.len() < hooks.len(),
            labels: hooks
                .iter()
                .any(|hook| labels(hook, "namespaceSelector") || labels(hook, "objectSelector")),
            conditions: !old.is_null() && conditions(old) == conditions(new),
        }
    }
}

fn validate(object: &At, old: &Value) {
    let tolerated = Tolerated::by(old, object.value);
    let mut names = BTreeSet::new();
    for hook in object.items("webhooks") {
        webhook(&hook, &tolerated);
        versions(&hook, &tolerated);
        let name = hook.get("name");
        if !tolerated.names && !name.is_empty() {
            name.unique(&mut names);
        }
    }
}

fn webhook(hook: &At, tolerated: &Tolerated) {
    let name = hook.get("name");
    name.extend(fully_qualified_name(&name.path, name.text()));
    hook.items("rules").iter().for_each(rules::rule);
    for (field, words) in [
        ("failurePolicy", &rules::FAILURE_POLICIES),
        ("matchPolicy", &rules::MATCH_POLICIES),
        ("reinvocationPolicy", &["IfNeeded", "Never"]),
    ] {
        let at = hook.get(field);
        if at.is_set() {
            at.one_of(words);
        }
    }
    let allowed: &[&str] = match tolerated.side_effects {
        true => &SIDE_EFFECTS,
        false => &NO_SIDE_EFFECTS,
    };
    let effects = hook.get("sideEffects");
    match effects.is_set() {
        true => effects.one_of(allowed),
        false => effects.missing(format!("must specify one of {}", allowed.join(", "))),
    }
    let timeout = hook.get("timeoutSeconds");
    let out_of_range = timeout
        .number()
        .is_some_and(|seconds| !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds));
    timeout.ensure(!out_of_range, "the timeout value must be between 1 and 30 seconds");
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = hook.get(field);
        selector.extend(label_selector(selector.value, tolerated.labels, &selector.path));
    }
    rules::client_config(&hook.get("clientConfig"));
    if !tolerated.conditions {
        rules::match_conditions(hook, &tolerated.expressions, false);
    }
}

/// At least one version of reviews is one that the server sends.
fn versions(hook: &At, tolerated: &Tolerated) {
    let list = hook.get("admissionReviewVersions");
    if list.is_empty() {
        return list.missing(format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    let mut seen = BTreeSet::new();
    let mut known = false;
    for version in hook.items("admissionReviewVersions") {
        if !seen.insert(version.text()) {
            version.invalid("duplicate version");
            continue;
        }
        version.check(dns1035_label(version.text()));
        known |= REVIEW_VERSIONS.contains(&version.text());
    }
    list.ensure(
        known || tolerated.versions,
        format!("must include at least one of {}", REVIEW_VERSIONS.join(", ")),
    );
}
