//! The rules of a persistent volume, also where a VolumeAttachment describes one.
//!
//! Source: `ValidatePersistentVolume`, `ValidatePersistentVolumeSpec` and `ValidatePersistentVolumeUpdate` in
//! `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::field::{Error, Path};
use api::quantity::Quantity;

use super::sources;
use crate::check::{At, Report};
use crate::core::pod::scheduling::node_selector;
use crate::difference::difference;
use crate::names;
use crate::view::{Edit, View};

/// The ways to mount a volume, sorted.
pub const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// What a volume is shown as.
pub const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const INLINE: &str = "may not be specified in the context of inline volumes";

/// A whole volume. What is broken in `old` already may stay so.
pub fn volume(object: &At, old: &Value) {
    let spec = object.get("spec");
    let any_value = values_are_broken(old.at("spec.nodeAffinity.required"));
    spec_of(&spec, object.value.text("metadata.name"), any_value);
    sources::mount_options(object);
}

/// Whether a node selector has values that no label can have.
fn values_are_broken(selector: &Value) -> bool {
    let errors = |any_value| Report::of(selector, |selector| node_selector(&selector, any_value)).len();
    !selector.is_null() && errors(true) < errors(false)
}

fn spec_of(spec: &At, name: &str, any_value: bool) {
    access_modes(spec);
    capacity(spec);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&RECLAIM_POLICIES);
    }
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        match required.is_set() {
            true => node_selector(&required, any_value),
            false => required.missing("must specify required node constraints"),
        }
    }
    sources::validate(spec, name);
    let of_root = spec.value.has("hostPath") && is_root(spec.value.text("hostPath.path"));
    if of_root && policy.text() == "Recycle" {
        policy.forbidden("may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.check(names::subdomain(class.text(), false));
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() {
        mode.one_of(&VOLUME_MODES);
    }
    attributes_class(spec);
}

/// A volume that only a VolumeAttachment knows: of CSI, and nothing that binds it to a claim.
pub fn inline(spec: &At) {
    for field in ["claimRef", "capacity"] {
        let field = spec.get(field);
        if !field.is_empty() {
            field.forbidden(INLINE);
        }
    }
    if !spec.get("csi").is_set() {
        spec.get("csi")
            .missing("has to be specified in the context of inline volumes");
    }
    access_modes(spec);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if !["", "Retain"].contains(&policy.text()) {
        policy.forbidden("may only be Retain in the context of inline volumes");
    }
    spec.get("nodeAffinity").forbidden_when_set(INLINE);
    sources::validate(spec, "");
    let class = spec.get("storageClassName");
    if !class.is_empty() {
        class.forbidden(INLINE);
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() && mode.text() != "Filesystem" {
        mode.forbidden("may not specify volumeMode other than Filesystem in the context of inline volumes");
    }
    attributes_class(spec);
}

fn access_modes(spec: &At) {
    let modes = spec.get("accessModes");
    modes.required();
    each_access_mode(&modes);
}

/// Each mode is known, and the one for a single pod is alone.
pub fn each_access_mode(modes: &At) {
    let (mut alone, mut shared) = (false, false);
    for mode in modes.value.as_array().into_iter().flatten() {
        modes.elsewhere(modes.path.clone(), mode).one_of(&ACCESS_MODES);
        match mode.as_str() {
            Some("ReadWriteOncePod") => alone = true,
            Some(mode) => shared |= ACCESS_MODES.contains(&mode),
            None => {}
        }
    }
    if alone && shared {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

fn capacity(spec: &At) {
    let capacity = spec.get("capacity");
    capacity.required();
    let amounts = spec.entries("capacity");
    if amounts.len() > 1 || capacity.value.get("storage").is_none() {
        spec.report.push(Error::not_supported(
            &capacity.path,
            capacity.value.clone(),
            &["storage"],
        ));
    }
    for (_, amount) in amounts {
        let Ok(quantity) = Quantity::from_value(amount.value) else {
            continue;
        };
        basic_resource(&amount);
        if quantity.sign() <= 0 {
            amount.invalid("must be greater than zero");
        }
    }
}

/// An amount is not negative.
pub fn basic_resource(amount: &At) {
    if let Ok(quantity) = Quantity::from_value(amount.value)
        && quantity.value() < 0
    {
        amount.invalid_as(quantity.value(), "must be a valid resource quantity");
    }
}

fn attributes_class(spec: &At) {
    let class = spec.get("volumeAttributesClassName");
    if !class.is_set() {
        return;
    }
    match class.text() {
        "" => class.missing("an empty string is disallowed"),
        text => class.check(names::subdomain(text, false)),
    }
    if !spec.get("csi").is_set() {
        let detail = "has to be specified when using volumeAttributesClassName";
        spec.get("csi").missing(detail);
    }
}

/// Whether a path of the node leads to its root, as Go's `path.Clean` reads it.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

/// What may change: not where the data is, and not where it can be reached from.
pub fn update(object: &At, old: &Value) {
    let (new_source, old_source) = (source_of(object.value, old), source_of(old, old));
    if new_source != old_source {
        let changes = difference(&old_source, &new_source);
        object
            .elsewhere(Path::new("spec.persistentvolumesource"), object.value)
            .forbidden(format!(
                "spec.persistentvolumesource is immutable after creation\n{changes}"
            ));
    }
    let mode = object.get("spec.volumeMode");
    object
        .elsewhere(Path::new("volumeMode"), mode.value)
        .unchanged(old.at("spec.volumeMode"));
    let affinity = old.at("spec.nodeAffinity");
    if !affinity.is_null() {
        let new = object.value.at("spec.nodeAffinity");
        if with_new_labels(new, affinity) != *new {
            object
                .elsewhere(Path::new("nodeAffinity"), new)
                .invalid("field is immutable, except for updating from beta label to GA");
        }
    }
    let class = object.get("spec.volumeAttributesClassName");
    if old.has("spec.volumeAttributesClassName") && !class.is_set() {
        class.forbidden("update from non-nil value to nil is forbidden");
    }
}

/// The source of a volume. A secret for expansion may be added once.
fn source_of(object: &Value, old: &Value) -> Value {
    const EXPAND: &str = "controllerExpandSecretRef";
    let spec = object.at("spec");
    let present = sources::fields().filter(|field| spec.has(field));
    let mut source: Value = Value::Object(present.map(|field| (field.into(), spec.at(field).clone())).collect());
    if old.has("spec.csi") && !old.at("spec.csi").has(EXPAND) {
        source.cut(&format!("csi.{EXPAND}"));
    }
    source
}

/// Labels of nodes that have a new name.
const RENAMED_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// The old affinity with the labels that `new` has new names for: nodes keep both for a while, so that changing from one to
/// the other moves nothing.
fn with_new_labels(new: &Value, old: &Value) -> Value {
    let mut old = old.clone();
    for (term, new) in old
        .elements("required.nodeSelectorTerms")
        .zip(new.list("required.nodeSelectorTerms"))
    {
        for (old, new) in term.elements("matchExpressions").zip(new.list("matchExpressions")) {
            if RENAMED_NODE_LABELS.contains(&(old.text("key"), new.text("key"))) {
                old.put("key", new.text("key"));
            }
        }
    }
    old
}
