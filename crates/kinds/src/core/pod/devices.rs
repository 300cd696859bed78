//! What a status says of a pod's devices: the claims that were made for it, and how healthy what it was given is.
//!
//! Source: `validatePodResourceClaimStatuses`, `validatePodExtendedResourceClaimStatus` and
//! `validateContainerStatusAllocatedResourcesStatus` in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use api::validation::dns1123_label;

use crate::check::At;
use crate::names;
use crate::view::View;

const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
/// The longest word on a device's health. Source: `ResourceHealthMessageMaxLength`.
const HEALTH_MESSAGE_BYTES_MAX: usize = 1024;
const CLAIM: &str = "claim:";

/// `resourceClaimStatuses`.
pub fn claims(pod: &At, status: &At) {
    let mut seen = BTreeSet::new();
    for claim in status.items("resourceClaimStatuses") {
        let name = claim.get("name");
        let known = pod
            .value
            .list("spec.resourceClaims")
            .iter()
            .any(|c| c.text("name") == name.text());
        name.ensure(known, "must match the name of an entry in `spec.resourceClaims`");
        name.unique(&mut seen);
        let made = claim.get("resourceClaimName");
        if made.is_set() {
            made.elsewhere(name.path.clone(), made.value)
                .check(names::subdomain(made.text(), false));
        }
    }
}

/// `extendedResourceClaimStatus`: which requests of the claim that was made for the pod's extended resources are whose.
pub fn extended_claim(pod: &At, status: &At) {
    let told = status.get("extendedResourceClaimStatus");
    if !told.is_set() {
        return;
    }
    let mappings = told.get("requestMappings");
    if mappings.is_empty() {
        mappings.missing("at least one request mapping is required");
    }
    let lists = ["spec.initContainers", "spec.containers"].map(|list| pod.value.list(list));
    let mut seen = BTreeSet::new();
    for mapping in told.items("requestMappings") {
        let fields = ["containerName", "resourceName", "requestName"].map(|field| mapping.get(field));
        let [container, resource, request] = &fields;
        let named = |known: &&api::Value| known.text("name") == container.text();
        // Of two containers with a name, the last one counts.
        match lists.iter().flat_map(|list| list.iter()).rev().find(named) {
            Some(known) => {
                let asked = known
                    .entries("resources.requests")
                    .any(|(name, _)| name == resource.text());
                resource.ensure(
                    asked,
                    "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                     spec.containers.resources.requests",
                );
            }
            None => {
                container.invalid("must match the name of an entry in spec.initContainers.name or spec.containers.name")
            }
        }
        // Upstream leaves out which mapping it is.
        let nameless = told.get("requestName");
        for message in dns1123_label(request.text()) {
            nameless.invalid_as(request.text(), message);
        }
        if !seen.insert(fields.clone().map(|field| field.text())) {
            fields.iter().for_each(|field| field.duplicate(field.text()));
        }
    }
    let claim = told.get("resourceClaimName");
    if claim.required() {
        claim.check(names::subdomain(claim.text(), false));
    }
}

/// `allocatedResourcesStatus` of all containers.
pub fn health(pod: &At, status: &At) {
    for (list, defined) in [
        ("containerStatuses", "spec.containers"),
        ("initContainerStatuses", "spec.initContainers"),
    ] {
        for told in status.items(list) {
            let defined = pod.value.list(defined).iter();
            // Statuses of containers that are not there are let be.
            let container = defined.into_iter().find(|c| c.text("name") == told.value.text("name"));
            for resource in told.items("allocatedResourcesStatus") {
                if let Some(container) = container {
                    named(&resource.get("name"), container);
                }
                devices(&resource);
            }
        }
    }
    for told in status.items("ephemeralContainerStatuses") {
        let list = told.get("allocatedResourcesStatus");
        if !list.is_empty() {
            list.forbidden("must not be specified in container status");
        }
    }
}

fn named(name: &At, container: &api::Value) {
    if name.text().starts_with(CLAIM) {
        let is_it = |claim: &api::Value| match claim.text("request") {
            "" => name.text() == format!("{CLAIM}{}", claim.text("name")),
            request => name.text() == format!("{CLAIM}{}/{request}", claim.text("name")),
        };
        let known = container.list("resources.claims").iter().any(is_it);
        name.ensure(
            known,
            "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
             'claim:<claimName>' if request is empty",
        );
    } else {
        let known = container
            .entries("resources.requests")
            .any(|(resource, _)| resource == name.text());
        name.ensure(known, "must match one of the container's resource requests");
    }
}

fn devices(resource: &At) {
    let mut seen = BTreeSet::new();
    for device in resource.items("resources") {
        device.get("health").one_of(&HEALTH);
        let message = device.get("message");
        if message.is_set() && message.is_empty() {
            message.missing("must be non-empty if specified");
        } else if message.text().len() > HEALTH_MESSAGE_BYTES_MAX {
            message.too_long(HEALTH_MESSAGE_BYTES_MAX);
        }
        device.get("resourceID").unique(&mut seen);
    }
}
