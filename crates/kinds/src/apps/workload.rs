//! Rules that deployments and replica sets share.
//!
//! Source: `pkg/apis/apps/validation/validation.go`.

use api::Value;
use api::selector::LabelSelector;
use api::validation::label_selector;

use crate::check::At;
use crate::core::pod;
use crate::view::{Edit, View};

/// `replicas` and `minReadySeconds` are not negative; the selector is there, well formed, not empty, and matches the
/// template, whose pods run forever.
pub fn validate(spec: &At, kind: &str) {
    spec.get("replicas").non_negative();
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.missing("");
    } else {
        selector.extend(label_selector(selector.value, false, &selector.path));
        let requirements =
            selector.value.entries("matchLabels").count() + selector.value.list("matchExpressions").len();
        // Upstream says "deployment" of replica sets too.
        selector.ensure(requirements > 0, "empty selector is invalid for deployment");
        if LabelSelector::from_object(selector.value).is_err() {
            selector.invalid("invalid label selector");
        } else {
            template(spec, selector.value, kind);
        }
    }
    spec.get("minReadySeconds").non_negative();
}

fn template(spec: &At, selector: &Value, kind: &str) {
    let template = spec.get("template");
    let labels = template.value.at("metadata.labels");
    if let Ok(selector) = LabelSelector::from_object(selector)
        && !selector.matches(|key| labels.get(key)?.as_str())
    {
        let at = template.get("metadata.labels");
        at.invalid("`selector` does not match template `labels`");
    }
    pod::validate_template(&template);
    let policy = template.get("spec.restartPolicy");
    policy.one_of(&["Always"]);
    let deadline = template.get("spec.activeDeadlineSeconds");
    deadline.forbidden_when_set(&format!("activeDeadlineSeconds in {kind} is not Supported"));
}

/// Counters of a status: none negative, parts not larger than the whole.
pub fn validate_status(status: &At, counters: &[&str], parts: &[&str]) {
    for counter in counters {
        status.get(counter).non_negative();
    }
    let count = |field: &str| status.value.count(field);
    for part in parts {
        let at = status.get(part);
        at.ensure(
            count(part) <= count("replicas"),
            "cannot be greater than status.replicas",
        );
    }
    let available = status.get("availableReplicas");
    available.ensure(
        count("availableReplicas") <= count("readyReplicas"),
        "cannot be greater than readyReplicas",
    );
}

/// A selector never changes: the pods it selected would be left behind.
pub fn selector_unchanged(object: &At, old: &Value) {
    object.get("spec.selector").unchanged(old.at("spec.selector"));
}

/// Sets a replica count of one.
pub fn default_replicas(object: &mut Value) {
    object.object("spec");
    object["spec"].put_default("replicas", 1);
}
