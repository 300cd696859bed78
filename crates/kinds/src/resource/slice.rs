//! The rules of a resource slice.
//!
//! Source: `validateResourceSliceSpec` in `pkg/apis/resource/validation/validation.go`.

use std::sync::LazyLock;

use api::Value;
use api::field::{ErrorList, quote};
use regex::Regex;

use super::claim::pool_name;
use super::devices::{distinct, label, qualified};
use super::{partitions, sharing, taints};
use crate::check::{At, Report};
use crate::core::pod::scheduling::node_selector;
use crate::core::pod::volumes::driver_name;
use crate::gates;
use crate::names;
use crate::row::{Strategy, WriteContext};
use crate::view::View;

const DEVICES_MAX: usize = 128;
const LARGE_DEVICES_MAX: usize = 64;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
const ATTRIBUTE_VALUES_MAX: usize = 48;
const ATTRIBUTE_BYTES_MAX: usize = 64;
/// A domain, a slash and a name: longer keys are shown without their middle.
const KEY_BYTES_SHOWN: usize = 63 + 1 + 32;

static SEMVER: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"(0|[1-9]\d*)";
    let pre = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)";
    let build = "[0-9a-zA-Z-]+";
    let pattern =
        format!(r"^{number}\.{number}\.{number}(-{pre}(\.{pre})*)?(\+{build}(\.{build})*)?$").replace(r"\d", "[0-9]");
    Regex::new(&pattern).expect("invariant: a constant pattern")
});

/// Resource slices.
pub struct ResourceSlices;

impl Strategy for ResourceSlices {
    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        gates::drop_disabled(object, None, "resource.v1.ResourceSlice");
        taints::note_time(object, context.now);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        gates::drop_disabled(object, Some(old), "resource.v1.ResourceSlice");
        taints::note_time(object, context.now);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec"), None))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec"), Some(old.at("spec"))))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let driver = object.text("spec.driver");
        match driver == driver.to_lowercase() {
            true => Vec::new(),
            false => vec![format!(
                "spec.driver: driver names should be lowercase; {} contains uppercase characters",
                quote(driver)
            )],
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(spec: &At, old: Option<&Value>) {
    driver_name(&spec.get("driver"));
    pool(&spec.get("pool"));
    if let Some(old) = old {
        for field in ["pool.name", "driver", "nodeName"] {
            spec.get(field).unchanged(old.at(field));
        }
    }
    nodes(spec);
    if spec.value.has("sharedCounters") && spec.value.has("devices") {
        spec.invalid_as("", "only one of `sharedCounters` or `devices` is allowed");
    }
    let of_each_device = spec.value.flag("perDeviceNodeSelection");
    let devices_before = old.map_or(&[] as &[Value], |old| old.list("devices"));
    distinct(
        spec,
        "devices",
        devices_max(spec.value),
        |device| device.value.text("name").into(),
        |at| {
            let name = at.value.text("name");
            let before = devices_before.iter().find(|before| before.text("name") == name);
            device(at, before, of_each_device);
        },
    );
    partitions::counter_sets(spec);
}

/// Devices with taints, or with counters to draw on, are larger, and fewer fit.
fn devices_max(spec: &Value) -> usize {
    let large = |device: &Value| !device.list("taints").is_empty() || !device.list("consumesCounters").is_empty();
    match spec.list("devices").iter().any(large) {
        true => LARGE_DEVICES_MAX,
        false => DEVICES_MAX,
    }
}

fn pool(pool: &At) {
    pool_name(&pool.get("name"));
    let (count, generation) = (pool.get("resourceSliceCount"), pool.get("generation"));
    let number = count.number().unwrap_or(0);
    if number <= 0 {
        count.invalid_as(number, "must be greater than zero");
    }
    let negative = generation.number().is_some_and(|generation| generation < 0);
    generation.ensure(!negative, "must be greater than or equal to zero");
}

/// From which nodes the devices can be reached: said in one way.
fn nodes(spec: &At) {
    let (name, selector, all) = (spec.get("nodeName"), spec.get("nodeSelector"), spec.get("allNodes"));
    let mut set = Vec::new();
    match name.value.as_str() {
        None => {}
        Some("") => name.invalid("must be either unset or set to a non-empty string"),
        Some(text) => {
            set.push("`nodeName`");
            name.check(names::subdomain(text, false));
        }
    }
    if selector.is_set() {
        set.push("`nodeSelector`");
        node_selector(&selector, false);
        let terms = selector.get("nodeSelectorTerms");
        let count = selector.value.list("nodeSelectorTerms").len();
        terms.ensure(count == 1, "must have exactly one node selector term");
    }
    match all.value.as_bool() {
        None => {}
        Some(true) => set.push("`allNodes`"),
        Some(false) => all.invalid("must be either unset or set to true"),
    }
    let of_each_device = spec.get("perDeviceNodeSelection");
    match of_each_device.value.as_bool() {
        None => {}
        Some(true) => set.push("`perDeviceNodeSelection`"),
        Some(false) => of_each_device.invalid("must be either unset or set to true"),
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => spec.missing(one),
        1 => {}
        _ => spec.invalid_as(
            format!("{{{}}}", set.join(", ")),
            format!("{one}, but multiple fields are set"),
        ),
    }
}

fn device(device: &At, old: Option<&Value>, of_each_device: bool) {
    label(&device.get("name"));
    let (attributes, capacities) = (device.entries("attributes"), device.entries("capacity"));
    for (count, max, what) in [
        (
            attributes.len() + capacities.len(),
            ATTRIBUTES_AND_CAPACITIES_MAX,
            "attributes and capacities",
        ),
        (attributes.len(), ATTRIBUTE_VALUES_MAX, "attribute values"),
    ] {
        if count > max {
            device.invalid_as(count, format!("the total number of {what} must not exceed {max}"));
        }
    }
    for (key, value) in attributes {
        attribute(&named(device, "attributes", key, value.value));
    }
    let shared = device.value.flag("allowMultipleAllocations");
    for (key, value) in capacities {
        sharing::capacity(&named(device, "capacity", key, value.value), shared);
    }
    taints::taints(device, old);
    partitions::consumption(device);
    partitions::nodes(device, of_each_device);
    taints::binding_conditions(device);
}

/// Checks the key of a map, which is told at the map, and leads to its value.
fn named<'a>(device: &At<'a>, map: &str, key: &str, value: &'a Value) -> At<'a> {
    let map = device.get(map);
    qualified(&map, key);
    map.elsewhere(map.path.key(&shortened(key)), value)
}

/// A key without its middle when it is too long to show.
fn shortened(key: &str) -> String {
    if key.len() <= KEY_BYTES_SHOWN {
        return key.into();
    }
    let rest = KEY_BYTES_SHOWN - "...".len();
    let (start, end) = (rest.div_ceil(2), key.len() - rest / 2);
    let start = key.get(..start).unwrap_or_default();
    format!("{start}...{}", key.get(end..).unwrap_or_default())
}

fn attribute(attribute: &At) {
    let (text, version) = (attribute.get("string"), attribute.get("version"));
    if text.text().len() > ATTRIBUTE_BYTES_MAX {
        text.too_long(ATTRIBUTE_BYTES_MAX);
    }
    if version.is_set() {
        version.ensure(
            SEMVER.is_match(version.text()),
            "must be a string compatible with semver.org spec 2.0.0",
        );
        if version.text().len() > ATTRIBUTE_BYTES_MAX {
            version.too_long(ATTRIBUTE_BYTES_MAX);
        }
    }
    let set = ["bool", "int", "string", "version"]
        .iter()
        .filter(|kind| attribute.value.has(kind))
        .count();
    match set {
        0 => attribute.invalid_as("", "exactly one value must be specified"),
        1 => {}
        _ => attribute.invalid("exactly one value must be specified"),
    }
}
