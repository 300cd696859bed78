//! The rules of a HorizontalPodAutoscaler.
//!
//! Source: `pkg/apis/autoscaling/validation/validation.go`, and what updates tolerate:
//! `validationOptionsForHorizontalPodAutoscaler` in `pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go`.

use api::Value;
use api::quantity::Quantity;
use api::validation::{dns1123_label, path_segment_name};

use crate::check::At;
use crate::core::pod::resources;
use crate::view::View;

const PERIOD_SECONDS_MAX: i64 = 1800;
const STABILIZATION_SECONDS_MAX: i64 = 3600;

const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// Which versions a reference may name.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    /// Any text.
    Any,
    /// One of any group.
    Readable,
    /// One of a group with a name.
    OfGroup,
}

/// The spec; in an update, with the one before it.
pub fn spec(spec: &At, old: Option<&Value>) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    // Scaling to zero is a feature that is off: who scaled to it goes on.
    let least = i64::from(old.is_none_or(|old| old.number("minReplicas") != Some(0)));
    min.ensure(
        min.number().is_none_or(|number| number >= least),
        format!("must be greater than or equal to {least}"),
    );
    let most = max.number().unwrap_or(0);
    match most {
        0 => max.missing("must be set and greater than 0"),
        number if number < 0 => max.invalid("must be greater than or equal to 1"),
        _ => {}
    }
    if min.number().is_some_and(|min| most < min) {
        max.invalid_as(most, "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef");
    let same = |field: &str| old.is_some_and(|old| old.at("scaleTargetRef").text(field) == target.value.text(field));
    let version = match () {
        () if same("apiVersion") && same("kind") => Version::Any,
        () if target.value.text("kind") == "ReplicationController" => Version::Readable,
        () => Version::OfGroup,
    };
    reference(&target, version);
    metrics(spec, old);
    for direction in ["scaleUp", "scaleDown"] {
        let rules = spec.get("behavior").get(direction);
        if rules.is_set() {
            scaling_rules(&rules);
        }
    }
}

/// The status.
pub fn status(status: &At) {
    status.get("currentReplicas").non_negative();
    status.get("desiredReplicas").non_negative();
}

fn reference(reference: &At, version: Version) {
    for field in ["kind", "name"] {
        let field = reference.get(field);
        if field.required() {
            field.check(path_segment_name(field.text()));
        }
    }
    let at = reference.get("apiVersion");
    if let Some(error) = version_error(at.text(), version) {
        at.invalid_as(at.text(), error);
    }
}

/// What is wrong with the version of a reference, if anything.
fn version_error(text: &str, version: Version) -> Option<String> {
    let slashes = text.matches('/').count();
    match version {
        Version::Any => None,
        _ if slashes > 1 => Some(format!("unexpected GroupVersion string: {text}")),
        Version::OfGroup if slashes == 0 || text.starts_with('/') => Some("apiVersion must specify API group".into()),
        _ => None,
    }
}

fn metrics(spec: &At, old: Option<&Value>) {
    let broken = |metric: &Value| {
        let described = metric.at("object.describedObject");
        !described.is_null() && version_error(described.text("apiVersion"), Version::Readable).is_some()
    };
    let version = match old.is_some_and(|old| old.list("metrics").iter().any(broken)) {
        true => Version::Any,
        false => Version::Readable,
    };
    for item in spec.items("metrics") {
        metric(&item, version);
    }
    let external = |metric: &Value| ["Object", "External"].contains(&metric.text("type"));
    if spec.value.number("minReplicas") == Some(0) && !spec.value.list("metrics").iter().any(external) {
        spec.get("metrics")
            .forbidden("must specify at least one Object or External metric to support scaling to zero replicas");
    }
}

/// One metric: the source that its type names, and no other. Of several, the first is looked at.
fn metric(metric: &At, version: Version) {
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.missing("must specify a metric source type");
    }
    kind.one_of(&SOURCES);
    let present: Vec<&str> = ["object", "external", "pods", "resource", "containerResource"]
        .into_iter()
        .filter(|source| metric.value.has(source))
        .collect();
    if let Some(first) = present.first() {
        let source = metric.get(first);
        match *first {
            "object" => object(&source, version),
            "external" => external(&source),
            "pods" => pods(&source),
            "resource" => resource(&source),
            _ => container_resource(&source),
        }
    }
    let expected = match kind.text() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if !expected.is_empty() && !metric.value.has(expected) {
        let missing = metric.get(expected);
        missing.missing("must populate information for the given metric source");
    }
    if present.len() > 1 {
        for other in present.iter().filter(|source| **source != expected) {
            metric
                .get(other)
                .forbidden("must populate the given metric source only");
        }
    }
}

fn object(source: &At, version: Version) {
    reference(&source.get("describedObject"), version);
    identifier(&source.get("metric"));
    let target = source.get("target");
    self::target(&target);
    if !target.value.has("value") && !target.value.has("averageValue") {
        let average = target.get("averageValue");
        average.missing("must set either a target value or averageValue");
    }
}

fn external(source: &At) {
    identifier(&source.get("metric"));
    let target = source.get("target");
    self::target(&target);
    match (target.value.has("value"), target.value.has("averageValue")) {
        (false, false) => {
            let average = target.get("averageValue");
            average.missing("must set either a target value for metric or a per-pod target");
        }
        (true, true) => {
            let value = target.get("value");
            value.forbidden("may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}

fn pods(source: &At) {
    identifier(&source.get("metric"));
    let target = source.get("target");
    self::target(&target);
    let average = target.get("averageValue");
    if !average.is_set() {
        average.missing("must specify a positive target averageValue");
    }
}

fn container_resource(source: &At) {
    let (name, container) = (source.get("name"), source.get("container"));
    match name.is_empty() {
        true => name.missing("must specify a resource name"),
        false => resources::container_name(name.text(), &name),
    }
    match container.is_empty() {
        true => container.missing("must specify a container"),
        false => container.check(dns1123_label(container.text())),
    }
    raw_or_utilization(&source.get("target"));
}

fn resource(source: &At) {
    let name = source.get("name");
    if name.is_empty() {
        name.missing("must specify a resource name");
    }
    raw_or_utilization(&source.get("target"));
}

fn raw_or_utilization(target: &At) {
    self::target(target);
    match (target.value.has("averageUtilization"), target.value.has("averageValue")) {
        (false, false) => {
            let utilization = target.get("averageUtilization");
            utilization.missing("must set either a target raw value or a target utilization");
        }
        (true, true) => {
            let average = target.get("averageValue");
            average.forbidden("may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn target(target: &At) {
    let kind = target.get("type");
    if kind.is_empty() {
        kind.missing("must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind.text()) {
        kind.invalid_as(kind.text(), "must be either Utilization, Value, or AverageValue");
    }
    for amount in ["value", "averageValue"] {
        let amount = target.get(amount);
        let positive = Quantity::from_value(amount.value).is_ok_and(|quantity| quantity.sign() > 0);
        amount.ensure(!amount.is_set() || positive, "must be positive");
    }
    let utilization = target.get("averageUtilization");
    utilization.ensure(
        utilization.number().is_none_or(|percent| percent >= 1),
        "must be greater than 0",
    );
}

fn identifier(metric: &At) {
    let name = metric.get("name");
    match name.is_empty() {
        true => name.missing("must specify a metric name"),
        false => name.check(path_segment_name(name.text())),
    }
}

fn scaling_rules(rules: &At) {
    let window = rules.get("stabilizationWindowSeconds");
    let seconds = window.number().unwrap_or(0);
    window.ensure(seconds >= 0, "must be greater than or equal to zero");
    window.ensure(
        seconds <= STABILIZATION_SECONDS_MAX,
        format!("must be less than or equal to {STABILIZATION_SECONDS_MAX}"),
    );
    let select = rules.get("selectPolicy");
    if select.is_set() {
        select.one_of(&["Disabled", "Max", "Min"]);
    }
    let policies = rules.get("policies");
    if policies.is_empty() {
        policies.missing("must specify at least one Policy");
    }
    for policy in rules.items("policies") {
        policy.get("type").one_of(&["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            let at = policy.get(field);
            if at.number().unwrap_or(0) <= 0 {
                at.invalid_as(at.number().unwrap_or(0), "must be greater than zero");
            }
        }
        let period = policy.get("periodSeconds");
        period.ensure(
            period.number().unwrap_or(0) <= PERIOD_SECONDS_MAX,
            format!("must be less than or equal to {PERIOD_SECONDS_MAX}"),
        );
    }
    let tolerance = rules.get("tolerance");
    let negative = Quantity::from_value(tolerance.value).is_ok_and(|quantity| quantity.sign() < 0);
    tolerance.ensure(!negative, "must be greater than or equal to 0");
}
