//! ResourceQuota.
//!
//! Source of the rules: `ValidateResourceQuota` in `pkg/apis/core/validation/validation.go`, the resources of each scope:
//! `pkg/apis/core/helper/helpers.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::quantity::Quantity;

use super::persistentvolume::resource_version;
use super::pod::{resources, round_up};
use crate::build::Row;
use crate::check::{At, Report};
use crate::generic;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

const COMPUTE: [&str; 6] = [
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ResourceQuota", "resourcequotas")
        .short(&["quota"])
        .strategy(ResourceQuotas)
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Request", "Used and allowed requests."),
        text("Limit", "Used and allowed limits."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let used = object.at("status.used");
    for (resource, hard) in object.entries("status.hard") {
        let used = used.get(resource).and_then(Value::as_str).unwrap_or("0");
        let text = format!("{resource}: {used}/{}", hard.as_str().unwrap_or(""));
        match resource.starts_with("limits.") {
            true => limits.push(text),
            false => requests.push(text),
        }
    }
    vec![
        name(object),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(object, context),
    ]
}

struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    fn default(&self, object: &mut Value) {
        for list in ["spec.hard", "status.hard", "status.used"] {
            round_up(object.existing(list));
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            if context.subresource == "status" {
                resource_version(&object);
                amounts(&object, "status.hard");
                amounts(&object, "status.used");
                return;
            }
            spec(&object.get("spec"));
            let set = |object: &Value| -> BTreeSet<String> { object.texts("spec.scopes").map(String::from).collect() };
            let scopes = object.get("spec.scopes");
            if set(object.value) != set(old) {
                scopes.invalid_as(scopes.value.clone(), "field is immutable");
            }
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let hard = object.at("spec.hard");
        let amount = |name: &str| Some((name.to_owned(), Quantity::from_value(hard.get(name)?).ok()?));
        let mut warnings = Vec::new();
        for resource in ["cpu", "memory", "storage", "ephemeral-storage"]
            .iter()
            .filter(|_| old.is_none())
        {
            let bare = || amount(resource).filter(|_| matches!(*resource, "cpu" | "memory"));
            let request = amount(&format!("requests.{resource}")).or_else(bare);
            let limit = amount(&format!("limits.{resource}"));
            if let (Some((request, least)), Some((limit, most))) = (request, limit)
                && least > most
            {
                warnings.push(format!(
                    "ResourceQuota {request} ({least}) should be less than {limit} ({most})"
                ));
            }
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At) {
    amounts(spec, "hard");
    scopes(spec);
    scope_selector(spec);
}

fn amounts(parent: &At, list: &str) {
    for (resource, amount) in parent.entries(list) {
        resources::name(resource, &amount);
        if !resource.contains('/') && !is_quota_resource(resource) {
            amount.invalid_as(resource, "must be a standard resource for quota");
        }
        resources::amount(resource, &amount);
    }
}

/// Whether a quota can count it without a domain.
fn is_quota_resource(name: &str) -> bool {
    let huge_page = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    // All standard names but the one of a volume's own size.
    resources::STANDARD.contains(&name) && name != "storage" || huge_page
}

/// Whether a quota of this scope can count a resource; `None` for a scope that there is not.
fn counts(scope: &str, resource: &str) -> Option<bool> {
    match scope {
        "BestEffort" => Some(resource == "pods"),
        "NotBestEffort" | "Terminating" | "NotTerminating" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            Some(resource == "pods" || COMPUTE.contains(&resource))
        }
        "VolumeAttributesClass" => Some(["persistentvolumeclaims", "requests.storage"].contains(&resource)),
        _ => None,
    }
}

/// Scopes that are known, count what is limited, and do not exclude each other.
fn scopes(spec: &At) {
    let scopes = spec.get("scopes");
    let all: BTreeSet<&str> = spec.value.texts("scopes").collect();
    for scope in spec.value.texts("scopes") {
        if counts(scope, "pods").is_none() {
            scopes.invalid("unsupported scope");
        }
        for _ in refused(spec, scope) {
            scopes.invalid("unsupported scope applied to resource");
        }
    }
    for _ in conflicts(&all) {
        scopes.invalid("conflicting scopes");
    }
}

/// The limited resources that a scope does not count.
fn refused<'a>(spec: &'a At, scope: &'a str) -> impl Iterator<Item = &'a str> {
    let hard = spec.value.entries("hard").map(|(resource, _)| resource);
    hard.filter(move |resource| is_quota_resource(resource) && counts(scope, resource) == Some(false))
}

fn conflicts<'a>(scopes: &'a BTreeSet<&str>) -> impl Iterator<Item = [&'static str; 2]> + 'a {
    let both = |pair: &[&str; 2]| pair.iter().all(|scope| scopes.contains(scope));
    CONFLICTS.into_iter().filter(both)
}

/// The same for scopes with values. Upstream's errors name the list and not the element.
fn scope_selector(spec: &At) {
    let selector = spec.get("scopeSelector");
    let expressions = selector.get("matchExpressions");
    let at = |field: &str, value| expressions.elsewhere(expressions.path.child(field), value);
    let mut all = BTreeSet::new();
    for requirement in selector.value.list("matchExpressions") {
        let scope = requirement.text("scopeName");
        if counts(scope, "pods").is_none() {
            at("scopeName", requirement.at("scopeName")).invalid("unsupported scope");
        }
        for _ in refused(spec, scope) {
            expressions.invalid_as(selector.value.clone(), "unsupported scope applied to resource");
        }
        let (operator, values) = (
            at("operator", requirement.at("operator")),
            at("values", requirement.at("values")),
        );
        let without_values =
            CONFLICTS.iter().flatten().any(|fixed| *fixed == scope) || scope == "CrossNamespacePodAffinity";
        if without_values && operator.text() != "Exists" {
            operator.invalid(
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator.text() {
            "In" | "NotIn" if values.is_empty() => {
                values.missing("must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => operator.invalid("not a valid selector operator"),
        }
        all.insert(scope);
    }
    for _ in conflicts(&all) {
        expressions.invalid_as(spec.value.at("scopes").clone(), "conflicting scopes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    const REFUSED: &str = "unsupported scope applied to resource";

    #[test]
    fn hard() {
        for case in [
            Case::new("what can be limited").object(
                "spec: {hard: {cpu: '1', limits.memory: 1Gi, pods: '5', count/deployments.apps: '2', \
                 requests.nvidia.com/gpu: '1', s.storageclass.storage.k8s.io/requests.storage: 1Gi, hugepages-2Mi: 2Mi}}\n\
                 status: {hard: {what: '-1'}}",
            ),
            Case::new("what cannot")
                .object("spec: {hard: {storage: 1Gi, gold: '1', pods: 500m, cpu: '-1'}}")
                .errors(&[
                    "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
                    "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource type or fully qualified",
                    "spec.hard[gold]: Invalid value: \"gold\": must be a standard resource for quota",
                    "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
                    "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                ]),
        ] {
            check(&ResourceQuotas, case);
        }
    }

    #[test]
    fn of_scopes() {
        for case in [
            Case::new("of pods").object("spec: {hard: {pods: '1', cpu: '1'}, scopes: [Terminating, NotBestEffort]}"),
            Case::new("refused")
                .object("spec: {hard: {cpu: '1', services: '1', pods: '1'}, scopes: [BestEffort]}")
                .errors(&[
                    &format!("spec.scopes: Invalid value: [\"BestEffort\"]: {REFUSED}"),
                    &format!("spec.scopes: Invalid value: [\"BestEffort\"]: {REFUSED}"),
                ]),
            Case::new("unknown and conflicting")
                .object("spec: {hard: {pods: '1'}, scopes: [Some, Terminating, NotTerminating]}")
                .errors(&[
                    "spec.scopes: Invalid value: [\"Some\",\"Terminating\",\"NotTerminating\"]: unsupported scope",
                    "spec.scopes: Invalid value: [\"Some\",\"Terminating\",\"NotTerminating\"]: conflicting scopes",
                ]),
        ] {
            check(&ResourceQuotas, case);
        }
    }

    #[test]
    fn of_a_scope_selector() {
        let with = |requirement: &str| {
            format!("spec: {{hard: {{pods: '1'}}, scopeSelector: {{matchExpressions: [{requirement}]}}}}")
        };
        for (requirement, errors) in [
            ("{scopeName: PriorityClass, operator: In, values: [high]}", vec![]),
            ("{scopeName: BestEffort, operator: Exists}", vec![]),
            (
                "{scopeName: Terminating, operator: DoesNotExist}",
                vec![
                    "spec.scopeSelector.matchExpressions.operator: Invalid value: \"DoesNotExist\": must be 'Exists' when scope is \
                     any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                     ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
                ],
            ),
            (
                "{scopeName: PriorityClass, operator: NotIn}",
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is \
                     'In' or 'NotIn' for scope selector",
                ],
            ),
            (
                "{scopeName: PriorityClass, operator: Exists, values: [a]}",
                vec![
                    "spec.scopeSelector.matchExpressions.values: Invalid value: [\"a\"]: must be no value when `operator` is \
                     'Exist' or 'DoesNotExist' for scope selector",
                ],
            ),
            (
                "{scopeName: Some, operator: Is}",
                vec![
                    "spec.scopeSelector.matchExpressions.scopeName: Invalid value: \"Some\": unsupported scope",
                    "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Is\": not a valid selector operator",
                ],
            ),
            (
                "{scopeName: BestEffort, operator: Exists}, {scopeName: NotBestEffort, operator: Exists}",
                vec!["spec.scopeSelector.matchExpressions: Invalid value: null: conflicting scopes"],
            ),
            (
                "{scopeName: VolumeAttributesClass, operator: Exists}",
                vec![
                    "spec.scopeSelector.matchExpressions: Invalid value: {\"matchExpressions\":[{\"operator\":\"Exists\",\
                     \"scopeName\":\"VolumeAttributesClass\"}]}: unsupported scope applied to resource",
                ],
            ),
        ] {
            check(
                &ResourceQuotas,
                Case::new(requirement).object(&with(requirement)).errors(&errors),
            );
        }
    }

    #[test]
    fn update() {
        for case in [
            Case::new("limits change")
                .old("spec: {hard: {pods: '1'}, scopes: [Terminating]}")
                .object("spec: {hard: {pods: '2'}, scopes: [Terminating]}"),
            Case::new("scopes stay")
                .old("spec: {hard: {pods: '1'}, scopes: [Terminating]}")
                .object("spec: {hard: {pods: '1'}}")
                .errors(&["spec.scopes: Invalid value: null: field is immutable"]),
            Case::new("status")
                .old("spec: {hard: {pods: '1'}}")
                .object("metadata: {resourceVersion: '1'}\nstatus: {hard: {pods: '1'}, used: {pods: '1', gold: '1'}}")
                .subresource("status")
                .errors(&[
                    "status.used[gold]: Invalid value: \"gold\": must be a standard resource type or fully qualified",
                    "status.used[gold]: Invalid value: \"gold\": must be a standard resource for quota",
                ]),
        ] {
            check(&ResourceQuotas, case);
        }
    }
}
