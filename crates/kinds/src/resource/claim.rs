//! The rules of claims for devices and of the templates that claims are made from.
//!
//! Source: `pkg/apis/resource/v1/defaults.go`, `ValidateResourceClaim`, `ValidateResourceClaimStatusUpdate` and
//! `ValidateResourceClaimTemplate` in `pkg/apis/resource/validation/validation.go`, and
//! `pkg/registry/resource/resourceclaim/strategy.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::{Error, ErrorList};
use api::validation::{conditions, dns1123_subdomain, interface_address};

use super::devices::{self, Requests, distinct, each, label, raw_object};
use super::taints::binding_conditions;
use crate::check::{At, Report};
use crate::core::persistentvolumeclaim::template_metadata;
use crate::core::pod::scheduling::node_selector;
use crate::core::pod::volumes::driver_name;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const RESERVED_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const DATA_BYTES_MAX: usize = 10 * 1024;
const INTERFACE_BYTES_MAX: usize = 256;
const HARDWARE_ADDRESS_BYTES_MAX: usize = 128;
const ADDRESSES_MAX: usize = 16;
const POOL_BYTES_MAX: usize = 253;

/// Claims.
pub struct ResourceClaims;

impl Strategy for ResourceClaims {
    fn default(&self, object: &mut Value) {
        default_requests(object, "spec");
        let Some(devices) = object.existing("status.allocation.devices") else {
            return;
        };
        devices.elements("results").for_each(default_tolerations);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        gates::drop_disabled(object, None, "resource.v1.ResourceClaim");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        gates::drop_disabled(object, Some(old), "resource.v1.ResourceClaim");
        if context.subresource == "status" {
            generic::keep_metadata(object, old);
            drop_deallocated(object, old);
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| devices::claim(&object.get("spec.devices"), false))
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object, old),
            _ => object.get("spec").unchanged(old.at("spec")),
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn template(object: &At, stored: bool) {
    template_metadata(&object.get("spec.metadata"));
    devices::claim(&object.get("spec.spec.devices"), stored);
}

/// Templates of claims.
pub struct ResourceClaimTemplates;

impl Strategy for ResourceClaimTemplates {
    fn default(&self, object: &mut Value) {
        default_requests(object, "spec.spec");
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        gates::drop_disabled(object, None, "resource.v1.ResourceClaimTemplate");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        gates::drop_disabled(object, Some(old), "resource.v1.ResourceClaimTemplate");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| template(&object, false))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            template(&object, object.value.at("spec") == old.at("spec"));
            object.get("spec").unchanged(old.at("spec"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// One device of what is asked for, counted exactly.
fn default_requests(object: &mut Value, spec: &str) {
    let Some(spec) = object.existing(spec) else { return };
    for request in spec.elements("devices.requests") {
        if let Some(exactly) = request.existing("exactly") {
            default_request(exactly);
        }
        for alternative in request.elements("firstAvailable") {
            default_request(alternative);
        }
    }
}

fn default_request(request: &mut Value) {
    request.put_default("allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.count("count") == 0 {
        request.put("count", 1);
    }
    default_tolerations(request);
}

fn default_tolerations(request: &mut Value) {
    for toleration in request.elements("tolerations") {
        toleration.put_default("operator", "Equal");
    }
}

/// Which device, or which share of it: `driver/pool/device`, and the share's id.
fn identity(device: &Value) -> String {
    let parts = ["driver", "pool", "device", "shareID"].map(|field| device.text(field));
    match parts {
        [driver, pool, device, ""] => [driver, pool, device].join("/"),
        all => all.join("/"),
    }
}

fn allocated(object: &Value) -> BTreeSet<String> {
    let results = object.list("status.allocation.devices.results");
    results.iter().map(identity).collect()
}

/// What drivers said of devices goes with the devices.
fn drop_deallocated(object: &mut Value, old: &Value) {
    let kept = allocated(object);
    let gone: BTreeSet<String> = allocated(old).into_iter().filter(|id| !kept.contains(id)).collect();
    if let Some(list) = object.existing("status.devices").and_then(Value::as_array_mut) {
        list.retain(|device| !gone.contains(&identity(device)));
        if list.is_empty() {
            object.cut("status.devices");
        }
    }
}

fn status(object: &At, old: &Value) {
    let status = object.get("status");
    distinct(
        &status,
        "reservedFor",
        RESERVED_MAX,
        |user| user.value.text("uid").into(),
        consumer,
    );
    let devices = allocated(object.value);
    distinct(
        &status,
        "devices",
        usize::MAX,
        |device| identity(device.value),
        |device| device_status(device, &devices),
    );
    let (reserved, allocation) = (status.get("reservedFor"), status.get("allocation"));
    if !reserved.is_empty() {
        let before = old.list("status.reservedFor");
        let more = status
            .value
            .list("reservedFor")
            .iter()
            .any(|user| !before.contains(user));
        if !allocation.is_set() {
            reserved.forbidden("may not be specified when `allocated` is not set");
        } else if more && api::meta::is_deleting(object.value) {
            reserved
                .forbidden("new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set");
        }
    }
    let before = old.at("status.allocation");
    match (allocation.is_set(), before.is_null()) {
        (true, false) => allocation.unchanged(before),
        (true, true) => new_allocation(&allocation, &Requests::of(object.value.at("spec.devices"))),
        _ => {}
    }
}

fn consumer(user: &At) {
    for field in ["resource", "name", "uid"] {
        user.get(field).required();
    }
}

fn new_allocation(allocation: &At, requests: &Requests) {
    let devices = allocation.get("devices");
    each(&devices, "results", devices::LIST_MAX, |result| {
        requests.reference(&result.get("request"));
        device(result);
        binding_conditions(result);
        share(result);
    });
    // Those of the class and those of the claim.
    each(&devices, "config", 2 * devices::LIST_MAX, |config| {
        config.get("source").required_one_of(&["FromClaim", "FromClass"]);
        requests.references(config);
        devices::configuration(config);
    });
    let selector = allocation.get("nodeSelector");
    if selector.is_set() {
        node_selector(&selector, false);
    }
}

/// The names that tell a device.
fn device(device: &At) {
    driver_name(&device.get("driver"));
    pool_name(&device.get("pool"));
    label(&device.get("device"));
}

/// The name of a pool: subdomains between slashes.
pub fn pool_name(pool: &At) {
    if !pool.required() {
        return;
    }
    if pool.text().len() > POOL_BYTES_MAX {
        pool.too_long(POOL_BYTES_MAX);
    }
    for part in pool.text().split('/') {
        for message in dns1123_subdomain(part) {
            pool.invalid_as(part, message);
        }
    }
}

/// The id of a share: a UUID, as upstream's parser of those words what is none.
fn share(device: &At) {
    let id = device.get("shareID");
    if !id.is_set() {
        return;
    }
    match unreadable_uuid(id.text()) {
        Some(why) => id.invalid(format!("error validating uid: {why}")),
        None => id.ensure(
            id.text().len() == 36 && id.text() == id.text().to_lowercase(),
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters",
        ),
    }
}

/// Source: `Validate` of github.com/google/uuid.
fn unreadable_uuid(text: &str) -> Option<String> {
    let digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let dashed = match bytes.len() {
        32 => return (!digits(bytes)).then(|| "invalid UUID format".into()),
        36 => bytes,
        38 if bytes.starts_with(b"{") && bytes.ends_with(b"}") => &bytes[1..37],
        38 => return Some("invalid bracketed UUID format".into()),
        45 if text
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case("urn:uuid:")) =>
        {
            &bytes[9..]
        }
        45 => {
            let start = String::from_utf8_lossy(&bytes[..9]);
            return Some(format!("invalid urn prefix: {}", api::field::quote(&start)));
        }
        length => return Some(format!("invalid UUID length: {length}")),
    };
    let good = dashed.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (!good).then(|| "invalid UUID format".into())
}

fn device_status(status: &At, allocated: &BTreeSet<String>) {
    device(status);
    share(status);
    let id = identity(status.value);
    if !allocated.contains(&id) {
        status.invalid_as(id, "must be an allocated device in the claim");
    }
    let list = status.get("conditions");
    let count = status.value.list("conditions").len();
    if count > CONDITIONS_MAX {
        status.report.push(Error::too_many(&list.path, count, CONDITIONS_MAX));
    }
    list.extend(conditions(list.value, &list.path));
    let data = status.get("data");
    if data.is_set() {
        raw_object(&data, DATA_BYTES_MAX);
    }
    let network = status.get("networkData");
    for (field, bytes_max) in [
        ("interfaceName", INTERFACE_BYTES_MAX),
        ("hardwareAddress", HARDWARE_ADDRESS_BYTES_MAX),
    ] {
        let field = network.get(field);
        if field.text().len() > bytes_max {
            field.too_long(bytes_max);
        }
    }
    distinct(
        &network,
        "ips",
        ADDRESSES_MAX,
        |address| address.text().into(),
        |address| address.extend(interface_address(&address.path, address.text())),
    );
}
