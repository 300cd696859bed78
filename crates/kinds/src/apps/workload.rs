//! Rules that deployments, replica sets and daemon sets share.
//!
//! Source: `pkg/apis/apps/validation/validation.go`.

use api::Value;
use api::field::ErrorList;
use api::selector::LabelSelector;
use api::validation::{label_selector, percent};

use crate::check::{At, Report};
use crate::core::pod;
use crate::gates;
use crate::print::{self, AGE, CONTAINERS, IMAGES, NAME, SELECTOR, integer};
use crate::row::{Column, PrintContext, WriteContext};
use crate::view::{Edit, View};

/// `replicas` is not negative; the selector is there, well formed, not empty, and matches the template, whose pods run
/// forever.
pub fn validate(spec: &At, old: Option<&Value>) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.missing("");
    }
    // Upstream says "deployment" of replica sets too.
    well_formed(&selector, "deployment");
    if !selector_is_readable(&selector, "invalid label selector") {
        return;
    }
    selected(spec);
    let template = spec.get("template");
    pod::validate_template(&template, old.map(|old| old.at("template")));
    runs_forever(&template, "ReplicaSet");
}

/// Whether a selector can be evaluated at all; an error with this detail when it cannot.
pub fn selector_is_readable(selector: &At, detail: &str) -> bool {
    let readable = LabelSelector::from_object(selector.value).is_ok();
    selector.ensure(readable, detail);
    readable
}

/// A selector, if there is one, obeys the rules of selectors and selects something.
pub fn well_formed(selector: &At, kind: &str) {
    if selector.is_set() {
        selector.extend(label_selector(selector.value, false, &selector.path));
        let requirements =
            selector.value.entries("matchLabels").count() + selector.value.list("matchExpressions").len();
        selector.ensure(requirements > 0, format!("empty selector is invalid for {kind}"));
    }
}

/// The selector matches the template. Without one nothing matches.
pub fn selected(spec: &At) {
    let labels = spec.value.at("template.metadata.labels");
    let Ok(selector) = LabelSelector::from_object(spec.value.at("selector")) else {
        return;
    };
    let absent = spec.value.at("selector").is_null();
    if absent || !selector.matches(|key| labels.get(key)?.as_str()) {
        let at = spec.get("template.metadata.labels");
        at.invalid_as(labels.clone(), "`selector` does not match template `labels`");
    }
}

/// Pods of the template are always restarted.
pub fn runs_forever(template: &At, kind: &str) {
    template.get("spec.restartPolicy").one_of(&["Always"]);
    let deadline = template.get("spec.activeDeadlineSeconds");
    deadline.forbidden_when_set(&format!("activeDeadlineSeconds in {kind} is not Supported"));
}

/// A counter of name collisions that only grows.
pub fn collisions(status: &At, old: &Value) {
    let collisions = status.get("collisionCount");
    let before = old.number("status.collisionCount");
    let kept = before.is_none() || collisions.number() >= before;
    if !kept {
        collisions.invalid_as(collisions.number().unwrap_or(0), "cannot be decremented");
    }
}

/// Drops what disabled features would keep in the template.
pub fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    if let Some(template) = object.existing("spec.template") {
        let old = old.map(|old| old.at("spec.template"));
        gates::drop_disabled(template, old, "core.v1.PodTemplateSpec");
    }
}

/// The number of an amount, or its percentage's number.
pub fn amount(value: &Value) -> i64 {
    match value {
        Value::String(text) if percent(text).is_empty() => text.trim_end_matches('%').parse().unwrap_or(0),
        value => value.as_i64().unwrap_or(0),
    }
}

/// A percentage is at most all.
pub fn at_most_all(at: &At) {
    if at.value.is_string() && amount(at.value) > 100 {
        at.invalid("must not be greater than 100%");
    }
}

/// The counters of a status, and no more pods available than ready.
pub fn validate_status(status: &At, counters: &[&str], parts: &[&str]) {
    self::counters(status, counters, parts);
    available_is_ready(status, "cannot be greater than readyReplicas");
}

/// Counters of a status: none negative, parts not larger than the whole.
pub fn counters(status: &At, counters: &[&str], parts: &[&str]) {
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
}

/// An available pod is a ready one.
pub fn available_is_ready(status: &At, detail: &str) {
    let available = status.get("availableReplicas");
    let ready = status.value.count("readyReplicas");
    available.ensure(available.number().unwrap_or(0) <= ready, detail);
}

/// The rules of an update: those of the part that the request writes. A selector never changes: the pods it selected
/// would be left behind.
pub fn validate_update(
    object: &Value,
    old: &Value,
    context: &WriteContext,
    spec: fn(&At, Option<&Value>),
    status: fn(&At, &Value),
) -> ErrorList {
    Report::of(object, |object| match context.subresource {
        "status" => status(&object.get("status"), old),
        _ => {
            spec(&object.get("spec"), Some(old.at("spec")));
            object.get("spec.selector").unchanged(old.at("spec.selector"));
        }
    })
}

/// The columns of a kind that keeps a number of pods of one template.
pub const REPLICAS_COLUMNS: &[Column] = &[
    NAME,
    integer("Desired", "How many pods there should be."),
    integer("Current", "How many pods there are."),
    integer("Ready", "How many pods are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The cells of [`REPLICAS_COLUMNS`].
pub fn replicas_cells(object: &Value, context: &PrintContext, selector: String) -> Vec<Value> {
    let spec = object.at("spec.template.spec");
    vec![
        print::name(object),
        object.count("spec.replicas").into(),
        object.count("status.replicas").into(),
        object.count("status.readyReplicas").into(),
        print::age(object, context),
        print::container_names(spec),
        print::container_images(spec),
        selector.into(),
    ]
}

/// Sets a replica count of one.
pub fn default_replicas(object: &mut Value) {
    object.object("spec");
    object["spec"].put_default("replicas", 1);
}
