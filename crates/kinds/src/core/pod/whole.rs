//! The resources of a pod as a whole (`spec.resources`): what is filled in, and the rules that tie them to those of its
//! containers.
//!
//! Source: KEP-2837; `defaultPodRequests` and `defaultHugePagePodLimits` in `pkg/apis/core/v1/defaults.go`,
//! `validatePodResources` and `validatePodLevelResourcesResize` in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::Error;
use api::quantity::Quantity;
use quota::amounts::{self, Amounts, List};

use super::resources;
use crate::check::At;
use crate::view::{Edit, View};

/// What a pod can ask for as a whole; `hugepages-` stands for all sizes.
const SUPPORTED: [&str; 3] = ["cpu", "hugepages-", "memory"];

fn is_supported(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resources::is_huge_page(resource)
}

/// Fills in what the pod leaves open: limits of huge pages from its containers, and requests from its containers or from its
/// own limits. A pod that says nothing for itself stays as it is.
pub fn defaults(spec: &mut Value) {
    let said = |list: List| spec.entries(&path(list)).next().is_some();
    if !said(List::Requests) && !said(List::Limits) {
        return;
    }
    for (resource, amount) in amounts::of_containers(spec, List::Limits) {
        let huge = resources::is_huge_page(&resource);
        if huge && spec.at("resources.requests").get(&resource).is_none() {
            put_default(spec, List::Limits, &resource, amount.to_string());
        }
    }
    if spec.entries(&path(List::Limits)).next().is_none() {
        return;
    }
    for (resource, amount) in amounts::of_containers(spec, List::Requests) {
        if is_supported(&resource) && resources::may_overcommit(&resource) {
            put_default(spec, List::Requests, &resource, amount.to_string());
        }
    }
    let limits: Vec<(String, Value)> = spec
        .entries(&path(List::Limits))
        .filter(|(resource, _)| is_supported(resource))
        .map(|(resource, amount)| (resource.to_owned(), amount.clone()))
        .collect();
    for (resource, amount) in limits {
        put_default(spec, List::Requests, &resource, amount);
    }
}

fn path(list: List) -> String {
    format!("resources.{}", list.field())
}

fn put_default<V: Into<Value>>(spec: &mut Value, list: List, resource: &str, amount: V) {
    spec.object(&path(list))
        .entry(resource.to_owned())
        .or_insert_with(|| amount.into());
}

/// The rules of `spec.resources`, in a pod and in a template. Pages may be cut where they were before.
pub fn validate(spec: &At, claims: &BTreeSet<String>, partial_pages: bool) {
    let own = spec.get("resources");
    if !own.is_set() {
        return;
    }
    if spec.value.text("os.name") == "windows" {
        return own.forbidden("may not be set for a windows pod");
    }
    own.get("claims")
        .forbidden_when_set("claims may not be set for Resources at pod-level");
    resources::requirements(&own, claims, partial_pages, name);
    containers_fit(spec, &own);
}

/// The name of a resource that a pod can ask for as a whole.
fn name(resource: &str, at: &At) {
    if resources::name(resource, at) && !is_supported(resource) {
        at.report.push(Error::not_supported(&at.path, resource, &SUPPORTED));
    }
}

/// Containers together ask for no more than the pod does, and none may have more than it.
fn containers_fit(spec: &At, own: &At) {
    let (requests, limits) = (own.get("requests"), own.get("limits"));
    let more = |list: &At, together: Amounts, word: &str| {
        for (resource, sum) in together {
            if let Some(pods) = amount(list.value, &resource).filter(|pods| sum > *pods) {
                let detail = format!("must be greater than or equal to aggregate container {word} of {sum}");
                let at = list.elsewhere(list.path.key(&resource), list.value);
                at.invalid_as(pods.to_string(), detail);
            }
        }
    };
    more(
        &requests,
        amounts::of_containers(spec.value, List::Requests),
        "requests",
    );
    let mut pages = amounts::of_containers(spec.value, List::Limits);
    pages.retain(|resource, _| resources::is_huge_page(resource));
    more(&limits, pages, "limits");
    for (index, container) in spec.value.list("containers").iter().enumerate() {
        for (resource, limit) in amounts::of_container(container, List::Limits) {
            if let Some(pods) = amount(limits.value, &resource).filter(|pods| limit > *pods) {
                // Upstream's path.
                let path = own.path.child("containers").index(index).key(&resource).child("limits");
                let at = own.elsewhere(path, own.value);
                at.invalid_as(
                    limit.to_string(),
                    format!("must be less than or equal to pod limits of {pods}"),
                );
            }
        }
    }
}

fn amount(list: &Value, resource: &str) -> Option<Quantity> {
    Quantity::from_value(list.get(resource)?).ok()
}

/// The rules of a resize of the pod as a whole. `masked` is the new spec, which gets the old amounts of cpu and memory, so that
/// what still differs may not change.
pub fn resize(spec: &At, old: &Value, masked: &mut Value) {
    let own = spec.get("resources");
    if !is_set(spec.value) && !is_set(old) {
        return;
    }
    if old.has("resources") && !own.is_set() {
        return own.forbidden("pod-level resources cannot be removed");
    }
    for list in ["requests", "limits"] {
        let own = own.get(list);
        let path = format!("resources.{list}");
        if old
            .entries(&path)
            .any(|(resource, _)| own.value.get(resource).is_none())
        {
            own.forbidden(format!("pod-level resource {list} cannot be removed"));
        }
    }
    resources::mask(masked, old);
    if masked.at("resources") != old.at("resources") {
        spec.forbidden("only cpu and memory resources are mutable at pod-level");
    }
}

fn is_set(spec: &Value) -> bool {
    [List::Requests, List::Limits]
        .into_iter()
        .any(|list| spec.entries(&path(list)).next().is_some())
}
