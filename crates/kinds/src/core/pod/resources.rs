//! Rules for requests and limits, and the quality of service that follows from them.
//!
//! Source: `validateResourceRequirements` in `pkg/apis/core/validation/validation.go`, names in
//! `pkg/apis/core/helper/helpers.go`, quality of service in `pkg/apis/core/helper/qos/qos.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Value;
use api::field::Error;
use api::quantity::Quantity;
use api::validation::{dns1123_label, qualified_name};

use super::security;
use crate::check::At;
use crate::view::{Edit, View};

const STANDARD_CONTAINER: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// Names that need no domain anywhere.
pub const STANDARD: [&str; 20] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
    "storage",
];

const COUNTED: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

const HUGE_PAGES: &str = "hugepages-";

/// Whether a name is Kubernetes' own: without a domain, or of `kubernetes.io`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name is of a device plugin or the like.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a resource is huge pages of some size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// Whether more of a resource may be limited than is requested.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A resource's amount: not negative, and whole where halves make no sense.
pub fn amount(resource: &str, value: &At) {
    let Ok(quantity) = Quantity::from_value(value.value) else {
        return;
    };
    if quantity.sign() < 0 {
        value.invalid("must be greater than or equal to 0");
    }
    let whole = COUNTED.contains(&resource) || is_extended(resource);
    if whole && quantity.milli_value() % 1000 != 0 {
        value.invalid("must be an integer");
    }
}

/// The name of any resource.
pub fn name(resource: &str, at: &At) -> bool {
    let before = at.report.len();
    for message in qualified_name(resource) {
        at.invalid_as(resource, message);
    }
    if at.report.len() > before {
        return false;
    }
    let quota_huge_page = is_huge_page(resource) || resource.starts_with("requests.hugepages-");
    if !resource.contains('/') && !STANDARD.contains(&resource) && !quota_huge_page {
        at.invalid_as(resource, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// The name of a resource of a container. Upstream tells of both rules when both are broken.
pub fn container_name(resource: &str, at: &At) {
    name(resource, at);
    if !resource.contains('/') {
        if !STANDARD_CONTAINER.contains(&resource) && !is_huge_page(resource) {
            at.invalid_as(resource, "must be a standard resource for containers");
        }
    } else if !is_native(resource) && !is_extended(resource) {
        at.invalid_as(resource, "doesn't follow extended resource name standard");
    }
}

/// `resources` of a container, or with another rule of names of a pod; `claims` are the pod's resource claims. Pages may be
/// cut where they were before.
pub fn requirements(resources: &At, claims: &BTreeSet<String>, partial_pages: bool, name: fn(&str, &At)) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let (mut computing, mut huge_pages) = (false, false);
    let mut each = |resource: &str, value: &At| {
        name(resource, value);
        amount(resource, value);
        huge_pages |= is_huge_page(resource);
        if !partial_pages {
            whole_pages(resource, value);
        }
        computing |= resource == "cpu" || resource == "memory";
    };
    for (resource, value) in resources.entries("limits") {
        each(resource, &value);
    }
    for (resource, value) in resources.entries("requests") {
        each(resource, &value);
        let (Ok(request), limit) = (Quantity::from_value(value.value), limits.value.get(resource)) else {
            continue;
        };
        match limit.map(Quantity::from_value) {
            Some(Ok(limit)) if request != limit && !may_overcommit(resource) => {
                requests.invalid_as(
                    request.to_string(),
                    format!("must be equal to {resource} limit of {limit}"),
                );
            }
            Some(Ok(limit)) if request > limit => {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                requests.invalid_as(request.to_string(), detail);
            }
            None if !may_overcommit(resource) => limits.missing("Limit must be set for non overcommitable resources"),
            _ => {}
        }
    }
    if huge_pages && !computing {
        resources.forbidden("HugePages require cpu or memory");
    }
    claim_names(resources, claims);
}

/// The rules of a container's resources for what is not a container: a pod's overhead, as limits.
pub fn overhead(overhead: &At, partial_pages: bool) {
    let (mut computing, mut huge_pages) = (false, false);
    for (resource, _) in overhead.entries("") {
        let path = overhead.path.child("limits").key(resource);
        let value = overhead.elsewhere(path, overhead.value.get(resource).unwrap_or(&Value::Null));
        container_name(resource, &value);
        amount(resource, &value);
        huge_pages |= is_huge_page(resource);
        if !partial_pages {
            whole_pages(resource, &value);
        }
        computing |= resource == "cpu" || resource == "memory";
    }
    if huge_pages && !computing {
        overhead.forbidden("HugePages require cpu or memory");
    }
}

/// No container, nor the pod as a whole, nor what it costs besides, takes a part of a huge page.
pub fn whole_pages_everywhere(spec: &At) {
    let lists = ["resources.limits", "resources.requests"];
    for user in security::containers_at(spec).iter().chain([spec]) {
        for (resource, value) in lists.iter().flat_map(|list| user.entries(list)) {
            whole_pages(resource, &value);
        }
    }
    for (resource, value) in spec.entries("overhead") {
        whole_pages(resource, &value);
    }
}

fn whole_pages(resource: &str, value: &At) {
    if !is_huge_page(resource) {
        return;
    }
    let size = Quantity::parse(&resource[HUGE_PAGES.len()..]);
    let (Ok(size), Ok(quantity)) = (size, Quantity::from_value(value.value)) else {
        return;
    };
    let whole = size.sign() > 0 && quantity.value() % size.value() == 0;
    if !whole {
        value.invalid(format!("{quantity} is not positive integer multiple of {resource}"));
    }
}

fn claim_names(resources: &At, claims: &BTreeSet<String>) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for claim in resources.items("claims") {
        let name = claim.value.text("name");
        if name.is_empty() {
            claim.missing("");
            continue;
        }
        if seen.contains(name) {
            claim.duplicate(name);
        } else {
            let request = claim.get("request");
            let mut key = name.to_string();
            if !request.is_empty() {
                request.check(dns1123_label(request.text()));
                key = format!("{name}/{}", request.text());
            }
            let narrower = seen
                .iter()
                .any(|seen| seen.split_once('/').is_some_and(|(claim, _)| claim == name));
            if seen.contains(&key) {
                claim.duplicate(key.as_str());
            } else if request.is_empty() && narrower {
                claim.duplicate(name);
            }
            seen.insert(key);
        }
        if !claims.contains(name) {
            let mut error = Error::not_found(&claim.path, name);
            let names: Vec<&str> = claims.iter().map(String::as_str).collect();
            error.detail = match names.is_empty() {
                true => "must be one of the names in pod.spec.resourceClaims which is empty".into(),
                false => format!(
                    "must be one of the names in pod.spec.resourceClaims: {}",
                    names.join(", ")
                ),
            };
            claim.report.push(error);
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the requests and limits of all containers, or of the pod as a whole where it
/// has some.
pub fn quality_of_service(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut limited = true;
    let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
    let whole = Some(spec).filter(|spec| spec.has("resources"));
    let containers = containers.filter(|_| whole.is_none());
    for user in containers.chain(whole) {
        sum(&mut requests, user.at("resources.requests"));
        let counted = sum(&mut limits, user.at("resources.limits"));
        limited &= counted == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the positive amounts of cpu and memory; returns how many there were.
fn sum(total: &mut BTreeMap<String, Quantity>, list: &Value) -> usize {
    let mut counted = 0;
    for (resource, value) in list.entries("") {
        let Ok(quantity) = Quantity::from_value(value) else {
            continue;
        };
        if (resource == "cpu" || resource == "memory") && quantity.sign() > 0 {
            counted += 1;
            total
                .entry(resource.into())
                .or_insert_with(Quantity::zero)
                .add(&quantity);
        }
    }
    counted
}

/// Gives a container, or a pod's spec, the old amounts of cpu and memory: what still differs is no resize.
pub fn mask(user: &mut Value, old: &Value) {
    for list in ["resources.limits", "resources.requests"] {
        for resource in ["cpu", "memory"] {
            user.copy_from(old, &format!("{list}.{resource}"));
        }
        if user.entries(list).next().is_none() {
            user.copy_from(old, list);
        }
    }
    if user.entries("resources").next().is_none() {
        user.copy_from(old, "resources");
    }
}
