//! What a kubelet may say of a pod.
//!
//! Source: `ValidatePodStatusUpdate` and what it calls in `pkg/apis/core/validation/validation.go`. Fields of feature
//! gates that are off (extended claims) are dropped before they get here.

use std::collections::BTreeSet;

use api::Value;
use api::validation::{group_id, ip_legacy, parse_ip_sloppy, qualified_name, user_id};

use super::{devices, restart, update};
use crate::check::At;
use crate::names;
use crate::view::View;

/// The `status` subresource.
pub fn update(pod: &At, old: &Value) {
    update::annotations(pod, old);
    let status = pod.get("status");
    conditions(&status);
    let nominated = status.get("nominatedNodeName");
    if nominated.text() != old.text("status.nominatedNodeName") && !nominated.is_empty() {
        nominated.check(names::subdomain(nominated.text(), false));
        if !old.text("spec.nodeName").is_empty() {
            nominated.forbidden("may not be set on pods that are already bound to a node");
        }
    }
    generation(&status.get("observedGeneration"));
    status.get("qosClass").unchanged(old.at("status.qosClass"));
    transitions(&status, old);
    devices::claims(pod, &status);
    devices::extended_claim(pod, &status);
    addresses(&status, old);
    host_addresses(&status, old);
    let os = pod.value.text("spec.os.name");
    for list in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        for container in status.items(list) {
            user(&container.get("user.linux"), os);
        }
    }
    devices::health(pod, &status);
}

fn generation(generation: &At) {
    if generation.number().is_some_and(|number| number < 0) {
        generation.invalid("must be a non-negative integer");
    }
}

fn conditions(status: &At) {
    for condition in status.items("conditions") {
        generation(&condition.get("observedGeneration"));
        let kind = condition.get("type");
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind.text()) {
            let shown = kind.elsewhere(condition.path.child("Type"), kind.value);
            shown.check(qualified_name(kind.text()));
        }
    }
}

/// A container that ended for good stays ended.
fn transitions(status: &At, old: &Value) {
    for (list, defined) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        // Ephemeral containers are never started again, not even with the others.
        if !defined.is_empty() && restart::may_restart_all(old.at("spec")) {
            continue;
        }
        let path = status.path.child(list);
        for (index, before) in old.at("status").list(list).iter().enumerate() {
            let (name, ended) = (before.text("name"), before.at("state.terminated"));
            let container = || old.at("spec").list(defined).iter().find(|c| c.text("name") == name);
            let restarts = |container| restart::restarts(container, old.at("spec"), ended.count("exitCode"));
            if ended.is_null() || container().is_some_and(restarts) {
                continue;
            }
            let new = status.value.list(list).iter().find(|new| new.text("name") == name);
            if new.is_some_and(|new| !new.has("state.terminated")) {
                let at = status.elsewhere(path.index(index).child("state"), before);
                at.forbidden("may not be transitioned to non-terminated state");
            }
        }
    }
}

fn addresses(status: &At, old: &Value) {
    let old: Vec<&str> = old
        .list("status.podIPs")
        .iter()
        .map(|address| address.text("ip"))
        .collect();
    address_list(status, "podIPs", &old);
}

fn host_addresses(status: &At, old: &Value) {
    let old: Vec<&str> = old
        .list("status.hostIPs")
        .iter()
        .map(|address| address.text("ip"))
        .collect();
    if let Some(first) = status.items("hostIPs").first().map(|address| address.get("ip")) {
        first.ensure(first.text() == status.value.text("hostIP"), "must be equal to `hostIP`");
    }
    address_list(status, "hostIPs", &old);
}

fn address_list(status: &At, list: &str, old: &[&str]) {
    let all = status.items(list);
    for address in &all {
        address.extend(ip_legacy(&address.path, address.value.text("ip"), true, old));
    }
    if all.len() < 2 {
        return;
    }
    let families: BTreeSet<bool> = all
        .iter()
        .filter_map(|address| parse_ip_sloppy(address.value.text("ip")))
        .map(|address| address.is_ipv4())
        .collect();
    if families.len() != 2 || all.len() > 2 {
        status
            .get(list)
            .invalid("may specify no more than one IP for each IP family");
    }
}

fn user(linux: &At, os: &str) {
    if !linux.is_set() {
        return;
    }
    if os == "windows" {
        return linux.forbidden("cannot be set for a windows pod");
    }
    type Rule = fn(i64) -> Vec<String>;
    let rules: [(&str, Rule); 2] = [("uid", user_id), ("gid", group_id)];
    for (field, rule) in rules {
        let id = linux.get(field);
        id.check(rule(id.number().unwrap_or(0)));
    }
    for group in linux.items("supplementalGroups") {
        group.check(group_id(group.number().unwrap_or(0)));
    }
}
