//! Defaults, rules and what happens around a write of a node.
//!
//! Source: `ValidateNode` and `ValidateNodeUpdate` in `pkg/apis/core/validation/validation.go`,
//! `pkg/registry/core/node/strategy.go`. Paths that start with `metadata` for taints are upstream's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use api::Value;
use api::field::{Error, ErrorList, Path, quote};
use api::validation::{cidr_legacy, cidr_warnings, label_name, label_value, parse_cidr_sloppy};
use serde_json::json;

use super::legacy;
use crate::check::{At, Report};
use crate::core::pod::resources;
use crate::core::pod::scheduling::TAINT_EFFECTS;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

/// The longest name of a feature. Source: `DNS1123SubdomainMaxLength`.
const FEATURE_NAME_BYTES_MAX: usize = 253;

/// Nodes. A kubelet registers with its status, so that creation keeps it.
pub struct Nodes;

impl Strategy for Nodes {
    fn default(&self, node: &mut Value) {
        node.object("status");
        let capacity = node.at("status.capacity").clone();
        let status = &mut node["status"];
        if !status.has("allocatable") && !capacity.is_null() {
            status.put("allocatable", capacity);
        }
        for list in ["capacity", "allocatable"] {
            crate::core::pod::round_up(status.existing(list));
        }
        pod_ranges(node);
    }

    fn prepare_for_create(&self, node: &mut Value, _context: &WriteContext) {
        // Dynamic kubelet configuration is gone; its fields are dropped unless an old object has them.
        node.cut("spec.configSource");
        node.cut("status.config");
        gates::drop_disabled(node, None, "core.v1.Node");
    }

    fn prepare_for_update(&self, node: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(node, old, context);
        if !old.has("spec.configSource") {
            node.cut("spec.configSource");
        }
        if !old.has("status.config") {
            node.cut("status.config");
        }
        gates::drop_disabled(node, Some(old), "core.v1.Node");
    }

    fn validate_create(&self, node: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(node, |node| whole(&node))
    }

    /// But for a status, an update is checked as a new node and as a change: what both look at is told twice.
    fn validate_update(&self, node: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(node, |node| {
            if context.subresource.is_empty() {
                whole(&node);
            }
            legacy::annotations(&node);
            amounts(&node);
            declared_features(&node);
            addresses(&node);
            assigned_once(&node, old);
            legacy::configuration(&node);
            taints(&node);
        })
    }

    fn warnings(&self, node: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        let mut warnings = Vec::new();
        if context.subresource == "status" {
            return warnings;
        }
        if node.has("spec.configSource") {
            warnings.push("spec.configSource: the feature is removed".into());
        }
        if !node.text("spec.externalID").is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        let ranges = Path::new("spec").child("podCIDRs");
        for (index, range) in node.texts("spec.podCIDRs").enumerate() {
            warnings.extend(cidr_warnings(&ranges.index(index), range));
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// `podCIDR` and the first of `podCIDRs` are one fact; the older field decides, for clients that know it alone.
fn pod_ranges(node: &mut Value) {
    let first = node.texts("spec.podCIDRs").next().unwrap_or("").to_string();
    let single = node.text("spec.podCIDR").to_string();
    if !single.is_empty() && first != single {
        node["spec"].put("podCIDRs", json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        node["spec"].put("podCIDR", first);
    }
}

fn whole(node: &At) {
    legacy::annotations(node);
    taints(node);
    amounts(node);
    swap(node);
    declared_features(node);
    ranges(node);
}

fn taints(node: &At) {
    let path = Path::new("metadata").child("taints");
    taint_list(node, &path, node.value.list("spec.taints"));
}

/// Taints that are told of at a path.
pub(super) fn taint_list(node: &At, path: &Path, taints: &[Value]) {
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (index, taint) in taints.iter().enumerate() {
        let taint = node.elsewhere(path.index(index), taint);
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        key.extend(label_name(key.text(), &key.path));
        let broken = label_value(value.text());
        value.ensure(broken.is_empty(), broken.join(";"));
        effect.required_one_of(&TAINT_EFFECTS);
        if !seen.entry(effect.text()).or_default().insert(key.text()) {
            let mut error = Error::duplicate(&taint.path, taint.value.clone());
            error.detail = "taints must be unique by key and effect pair".into();
            taint.report.push(error);
        }
    }
}

fn amounts(node: &At) {
    for list in ["status.capacity", "status.allocatable"] {
        let at = node.get(list);
        for (resource, value) in node.entries(list) {
            resources::amount(resource, &value.elsewhere(at.path.child(resource), value.value));
        }
    }
}

/// What a kubelet says it can do: names in order, each once.
fn declared_features(node: &At) {
    let list = node.items("status.declaredFeatures");
    for (index, feature) in list.iter().enumerate() {
        if let Some(why) = broken_feature(feature.text()) {
            feature.invalid(format!("invalid feature name {}: {why}", quote(feature.text())));
        }
        match index
            .checked_sub(1)
            .map(|before| list[before].text().cmp(feature.text()))
        {
            Some(Ordering::Equal) => feature.duplicate(feature.value.clone()),
            Some(Ordering::Greater) => feature.invalid("list must be sorted alphabetically"),
            Some(Ordering::Less) | None => {}
        }
    }
}

fn broken_feature(name: &str) -> Option<String> {
    if name.len() > FEATURE_NAME_BYTES_MAX {
        return Some(format!("must be no more than {FEATURE_NAME_BYTES_MAX} characters"));
    }
    let is_segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_alphabetic()) && segment.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let good = name.starts_with(|c: char| c.is_ascii_uppercase()) && name.split('/').all(is_segment);
    (!good).then(|| {
        "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or \
         MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
            .into()
    })
}

fn swap(node: &At) {
    let capacity = node.get("status.nodeInfo.swap.capacity");
    if capacity.number().is_some_and(|bytes| bytes <= 0) {
        let path = Path::new("metadata").child("nodeSwapStatus").child("capacity");
        capacity
            .elsewhere(path, capacity.value)
            .invalid("must be greater than zero");
    }
}

fn ranges(node: &At) {
    let all = node.items("spec.podCIDRs");
    for range in &all {
        range.extend(cidr_legacy(&range.path, range.text(), true, &[]));
    }
    if all.len() < 2 {
        return;
    }
    let list = node.get("spec.podCIDRs");
    let parsed: Vec<Option<bool>> = all
        .iter()
        .map(|range| parse_cidr_sloppy(range.text()).map(|(address, _)| address.is_ipv4()))
        .collect();
    if let Some(index) = parsed.iter().position(Option::is_none) {
        let text = all[index].text();
        let why = format!(
            "invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[{index}]: <nil> (invalid CIDR address: \
             {text})"
        );
        node.report.push(Error::internal(&list.path, why));
    }
    let families: BTreeSet<Option<bool>> = parsed.iter().copied().collect();
    if families.len() != 2 || families.contains(&None) || all.len() > 2 {
        list.invalid("may specify no more than one CIDR for each IP family");
    }
}

fn addresses(node: &At) {
    let list = node.items("status.addresses");
    for (index, address) in list.iter().enumerate() {
        if list[..index].iter().any(|before| before.value == address.value) {
            address.duplicate(address.value.clone());
        }
    }
}

/// What a controller or a cloud gives a node is given once.
fn assigned_once(node: &At, old: &Value) {
    let (ranges, old_ranges) = (node.get("spec.podCIDRs"), old.list("spec.podCIDRs"));
    let new_ranges = node.value.list("spec.podCIDRs");
    // Told for each that is another; of lists that differ in length, once.
    let others = match new_ranges.len() == old_ranges.len() {
        true => new_ranges
            .iter()
            .zip(old_ranges)
            .filter(|(new, old)| new != old)
            .count(),
        false => usize::from(!old_ranges.is_empty()),
    };
    for _ in 0..others {
        ranges.forbidden("node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = node.get("spec.providerID");
    let before = old.text("spec.providerID");
    if !before.is_empty() && before != provider.text() {
        provider.forbidden("node updates may not change providerID except from \"\" to valid");
    }
    let external = node.get("spec.externalID");
    if external.text() != old.text("spec.externalID") {
        external.forbidden("may not be updated");
    }
}
