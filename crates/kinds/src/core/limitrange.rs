//! LimitRange: bounds and defaults of what containers, pods and claims of a namespace ask for. The LimitRanger admission
//! plug-in enforces it.
//!
//! Source of the rules: `SetDefaults_LimitRangeItem` of `pkg/apis/core/v1/defaults.go` and `ValidateLimitRange` of
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::quantity::Quantity;
use api::validation::qualified_name;

use super::pod::{self, resources};
use crate::build::Row;
use crate::check::{At, Report};
use crate::print::CREATED_AT;
use crate::row::{StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// Amounts up to here are compared in thousandths (upstream: `resource.MaxMilliValue`).
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .created_by_put()
        .strategy(LimitRanges)
        .columns(CREATED_AT)
        .build()
}

struct LimitRanges;

impl Strategy for LimitRanges {
    fn default(&self, object: &mut Value) {
        for item in object.elements("spec.limits") {
            default_item(item);
            for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                pod::round_up(item.existing(list));
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, _old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Of containers: the limit is the maximum, the request the limit, or else the minimum.
fn default_item(item: &mut Value) {
    if item.text("type") != "Container" {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let amounts: Vec<(String, Value)> = item
            .entries(from)
            .map(|(resource, amount)| (resource.to_owned(), amount.clone()))
            .collect();
        for (resource, amount) in amounts {
            item.object(to).entry(resource).or_insert(amount);
        }
    }
}

const AMOUNTS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

fn validate(object: &At) {
    let mut types = BTreeSet::new();
    for item in object.items("spec.limits") {
        let kind = item.get("type");
        limit_type(&kind);
        kind.unique(&mut types);
        validate_item(&item, kind.text());
    }
}

/// A type is one of Kubernetes' own or has a domain.
fn limit_type(kind: &At) {
    let messages = qualified_name(kind.text());
    let named = messages.is_empty();
    kind.check(messages);
    let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&kind.text());
    let known = !named || standard || kind.text().contains('/');
    kind.ensure(known, "must be a standard limit type or fully qualified");
}

fn validate_item(item: &At, kind: &str) {
    let mut named = BTreeSet::new();
    for field in AMOUNTS {
        let has_none = kind == "Pod" && field.starts_with("default");
        if has_none && item.value.entries(field).next().is_some() {
            item.get(field).forbidden("may not be specified when `type` is 'Pod'");
        }
        for (resource, amount) in item.entries(field).into_iter().filter(|_| !has_none) {
            match kind {
                "Pod" | "Container" => resources::container_name(resource, &amount),
                _ => {
                    resources::name(resource, &amount);
                }
            }
            named.insert(resource);
        }
    }
    let storage = |field: &str| item.value.at(field).get("storage").is_some();
    if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        item.get("limits").missing(why);
    }
    named.into_iter().for_each(|resource| compare(item, resource));
}

/// The amounts of one resource are in order: minimum, request, limit, maximum.
fn compare(item: &At, resource: &str) {
    let amount = |field: &str| Quantity::from_value(item.value.at(field).get(resource)?).ok();
    let (min, max) = (amount("min"), amount("max"));
    let (limit, request) = (amount("default"), amount("defaultRequest"));
    let ordered = [
        ("min", &min, "min", &max, "max", &min),
        ("defaultRequest", &min, "min", &request, "default request", &request),
        ("defaultRequest", &request, "default request", &max, "max", &request),
        (
            "defaultRequest",
            &request,
            "default request",
            &limit,
            "default limit",
            &request,
        ),
        ("default", &min, "min", &limit, "default", &min),
        ("default", &limit, "default", &max, "max", &max),
    ];
    for (field, small, small_name, large, large_name, shown) in ordered {
        if let (Some(small), Some(large), Some(shown)) = (small, large, shown)
            && small > large
        {
            let why = format!("{small_name} value {small} is greater than {large_name} value {large}");
            invalid(item, field, resource, shown, why);
        }
    }
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        if ratio < Quantity::new(1, ratio.format()) {
            let why = format!("ratio {ratio} is less than 1");
            invalid(item, "maxLimitRequestRatio", resource, &ratio, why);
        }
        if let (Some(min), Some(max)) = (&min, &max) {
            ratio_fits(item, resource, &ratio, min, max);
        }
    }
    if let (Some(limit), Some(request)) = (&limit, &request)
        && !resources::may_overcommit(resource)
        && limit != request
    {
        let why = format!("default value {limit} must equal to defaultRequest value {request} in {resource}");
        invalid(item, "defaultRequest", resource, request, why);
    }
}

fn ratio_fits(item: &At, resource: &str, ratio: &Quantity, min: &Quantity, max: &Quantity) {
    let exact = [ratio, min, max].iter().all(|amount| amount.value() < MILLI_VALUE_MAX);
    let value = |amount: &Quantity| if exact { amount.milli_value() } else { amount.value() } as f64;
    let wanted = if exact {
        ratio.milli_value() as f64 / 1000.0
    } else {
        ratio.value() as f64
    };
    let possible = value(max) / value(min);
    if wanted > possible {
        let why = format!("ratio {ratio} is greater than max/min = {possible:.6}");
        invalid(item, "maxLimitRequestRatio", resource, ratio, why);
    }
}

fn invalid(item: &At, field: &str, resource: &str, shown: &Quantity, why: String) {
    let path = item.path.child(field).key(resource);
    item.elsewhere(path, &Value::Null).invalid_as(shown.to_string(), why);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn containers_get_defaults() {
        check(
            &LimitRanges,
            Case::new("from max and min")
                .object("spec: {limits: [{type: Container, max: {cpu: '2', memory: 1Gi}, min: {cpu: 100m, ephemeral-storage: 1Mi}, default: {cpu: '1'}}]}")
                .field("spec.limits", json!([{"type": "Container", "max": {"cpu": "2", "memory": "1Gi"},
                    "min": {"cpu": "100m", "ephemeral-storage": "1Mi"}, "default": {"cpu": "1", "memory": "1Gi"},
                    "defaultRequest": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Mi"}}])),
        );
        check(
            &LimitRanges,
            Case::new("pods have none")
                .object("spec: {limits: [{type: Pod, max: {cpu: '2'}}]}")
                .field("spec.limits", json!([{"type": "Pod", "max": {"cpu": "2"}}])),
        );
    }

    #[test]
    fn amounts_are_in_order() {
        for (name, item, errors) in [
            (
                "fine",
                "{type: Container, min: {cpu: 1}, max: {cpu: 2}, maxLimitRequestRatio: {cpu: 2}}",
                &[][..],
            ),
            (
                "min over max",
                "{type: Pod, min: {cpu: 3}, max: {cpu: 2}}",
                &[r#"spec.limits[0].min[cpu]: Invalid value: "3": min value 3 is greater than max value 2"#],
            ),
            (
                "defaults out of bounds",
                "{type: Container, min: {cpu: 2}, max: {cpu: 3}, default: {cpu: 4}, defaultRequest: {cpu: 1}}",
                &[
                    r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1"#,
                    r#"spec.limits[0].default[cpu]: Invalid value: "3": default value 4 is greater than max value 3"#,
                ],
            ),
            (
                "ratios",
                "{type: Pod, min: {cpu: 100m}, max: {cpu: 200m}, maxLimitRequestRatio: {cpu: 3, memory: 500m}}",
                &[
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000"#,
                    r#"spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: "500m": ratio 500m is less than 1"#,
                ],
            ),
            (
                "pods have no defaults",
                "{type: Pod, default: {cpu: 1}}",
                &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                "claims bound their storage",
                "{type: PersistentVolumeClaim}",
                &[
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                "names",
                "{type: Container, max: {pods: 1}}",
                &[
                    r#"spec.limits[0].max[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                    r#"spec.limits[0].default[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                    r#"spec.limits[0].defaultRequest[pods]: Invalid value: "pods": must be a standard resource for containers"#,
                ],
            ),
            (
                "types",
                "{type: Box}",
                &[r#"spec.limits[0].type: Invalid value: "Box": must be a standard limit type or fully qualified"#],
            ),
        ] {
            check(
                &LimitRanges,
                Case::new(name)
                    .object(&format!("spec: {{limits: [{item}]}}"))
                    .errors(errors),
            );
        }
        let twice = "spec: {limits: [{type: Pod}, {type: Pod}]}";
        check(
            &LimitRanges,
            Case::new("twice")
                .object(twice)
                .errors(&[r#"spec.limits[1].type: Duplicate value: "Pod""#]),
        );
    }
}
