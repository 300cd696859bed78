//! Taints of devices, what tolerates them, and the conditions that a device has to meet before its pod is bound.
//!
//! Source: `validateDeviceTaint`, `validateDeviceToleration` and `validateDeviceBindingParameters` in
//! `pkg/apis/resource/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::validation::{label_name, label_value};

use super::devices::each;
use crate::check::At;
use crate::view::{Edit, View};

const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const TAINTS_MAX: usize = 16;
const BINDING_CONDITIONS_MAX: usize = 4;

/// Notes since when the taints of a slice's devices are there (upstream: `SetDefaults_DeviceTaint`).
pub fn note_time(slice: &mut Value, now: &str) {
    let Some(spec) = slice.existing("spec") else { return };
    for device in spec.elements("devices") {
        for taint in device.elements("taints") {
            taint.put_default("timeAdded", now);
        }
    }
}

/// The taints of a device; those that it had before are not looked at again.
pub fn taints(device: &At, old: Option<&Value>) {
    if old.is_none_or(|old| old.at("taints") != device.value.at("taints")) {
        each(device, "taints", TAINTS_MAX, taint);
    }
}

fn taint(taint: &At) {
    let (key, value) = (taint.get("key"), taint.get("value"));
    key.extend(label_name(key.text(), &key.path));
    if !value.is_empty() {
        value.check(label_value(value.text()));
    }
    taint.get("effect").required_one_of(&EFFECTS);
}

/// The tolerations of a request.
pub fn tolerations(request: &At) {
    request.items("tolerations").iter().for_each(toleration);
}

fn toleration(toleration: &At) {
    let (key, value, operator) = (
        toleration.get("key"),
        toleration.get("value"),
        toleration.get("operator"),
    );
    if !key.is_empty() {
        key.extend(label_name(key.text(), &key.path));
    }
    match operator.text() {
        "Exists" => value.ensure(value.is_empty(), "must be empty for operator `Exists`"),
        "Equal" => value.check(label_value(value.text())),
        _ => operator.required_one_of(&["Equal", "Exists"]),
    }
    let effect = toleration.get("effect");
    if !effect.is_empty() {
        effect.one_of(&EFFECTS);
    }
}

/// What has to come true, and what must not, before a pod is bound to a node with the device.
pub fn binding_conditions(device: &At) {
    let [conditions, failures] = ["bindingConditions", "bindingFailureConditions"];
    for list in [conditions, failures] {
        each(device, list, BINDING_CONDITIONS_MAX, |name| {
            name.extend(label_name(name.text(), &name.path));
        });
    }
    let mut wanted = BTreeSet::new();
    device
        .items(conditions)
        .iter()
        .for_each(|name| name.unique(&mut wanted));
    let mut unwanted = BTreeSet::new();
    for name in device.items(failures) {
        name.unique(&mut unwanted);
        name.ensure(
            !wanted.contains(name.text()),
            "bindingFailureConditions must not overlap with bindingConditions",
        );
    }
    if wanted.is_empty() && !unwanted.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        device.get(conditions).invalid(why);
    }
    if unwanted.is_empty() && !wanted.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        device.get(failures).invalid(why);
    }
}
