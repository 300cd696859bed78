//! Devices that are parts of one another: the counters that they draw on, and the nodes that each of them is for.
//!
//! Source: `validateCounterSet`, `validateDeviceCounterConsumption` and `validateDevice` in
//! `pkg/apis/resource/validation/validation.go`.

use api::field::Error;

use super::devices::{distinct, label};
use crate::check::At;
use crate::core::pod::scheduling::node_selector;
use crate::names;
use crate::view::View;

const COUNTER_SETS_MAX: usize = 8;
/// Counters of a set, and those that a device draws on in one. Upstream has two constants of one value.
const COUNTERS_MAX: usize = 32;
const CONSUMPTIONS_MAX: usize = 2;

/// `sharedCounters` of a slice.
pub fn counter_sets(spec: &At) {
    distinct(
        spec,
        "sharedCounters",
        COUNTER_SETS_MAX,
        |set| set.value.text("name").into(),
        |set| counters(set, "name"),
    );
}

/// `consumesCounters` of a device.
pub fn consumption(device: &At) {
    distinct(
        device,
        "consumesCounters",
        CONSUMPTIONS_MAX,
        |consumption| consumption.value.text("counterSet").into(),
        |consumption| counters(consumption, "counterSet"),
    );
}

/// A set of counters with the name of the set.
fn counters(set: &At, name: &str) {
    let name = set.get(name);
    if name.required() {
        label(&name);
    }
    let counters = set.get("counters");
    if !counters.required() {
        return;
    }
    let entries = set.entries("counters");
    if entries.len() > COUNTERS_MAX {
        let error = Error::too_many(&counters.path, entries.len(), COUNTERS_MAX);
        return set.report.push(error);
    }
    for (key, _) in entries {
        // A key is told at the map.
        label(&counters.elsewhere(counters.path.clone(), &key.into()));
    }
}

/// From which nodes a device can be reached, where each device of the slice says so for itself.
pub fn nodes(device: &At, of_each_device: bool) {
    let (name, selector, all) = (
        device.get("nodeName"),
        device.get("nodeSelector"),
        device.get("allNodes"),
    );
    if !of_each_device {
        if name.is_set() || selector.is_set() || all.is_set() {
            device.invalid_as(
                "null",
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
                 ResourceSlice spec",
            );
        }
        return;
    }
    let mut set = Vec::new();
    match name.value.as_str() {
        None => {}
        Some("") => name.invalid("must not be empty"),
        Some(text) => {
            set.push("`nodeName`");
            name.check(names::subdomain(text, false));
        }
    }
    if selector.is_set() {
        set.push("`nodeSelector`");
        node_selector(&selector, false);
    }
    match all.value.as_bool() {
        None => {}
        Some(true) => set.push("`allNodes`"),
        Some(false) => all.invalid("must be either unset or set to true"),
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to \
               true in the ResourceSlice spec";
    match set.len() {
        0 => device.missing(one),
        1 => {}
        _ => device.invalid_as(format!("{{{}}}", set.join(", ")), one),
    }
}
