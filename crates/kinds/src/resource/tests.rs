//! What upstream says of claims for devices, their templates and classes, and of slices.

use serde_json::json;

use super::claim::{ResourceClaimTemplates, ResourceClaims};
use super::class::DeviceClasses;
use super::slice::ResourceSlices;
use crate::testing::{Case, LABEL, SUBDOMAIN, check};

/// A claim with one request and more.
fn claim(more: &str) -> String {
    format!("spec: {{devices: {{requests: [{{name: r, exactly: {{deviceClassName: c}}}}]{more}}}}}")
}

fn request(request: &str, errors: &[&str]) {
    let object = format!("spec: {{devices: {{requests: [{request}]}}}}");
    check(&ResourceClaims, Case::new(request).object(&object).errors(errors));
}

#[test]
fn requests() {
    check(
        &ResourceClaims,
        Case::new("one device of a class")
            .object(&format!("{}\nstatus: {{reservedFor: []}}", claim("")))
            .field("spec.devices.requests.0.exactly.allocationMode", "ExactCount")
            .field("spec.devices.requests.0.exactly.count", 1),
    );
    request(
        "{name: r, firstAvailable: [{name: a, deviceClassName: c}, {name: b, deviceClassName: c}]}",
        &[],
    );
    request(
        "{name: A}",
        &[
            &format!("spec.devices.requests[0].name: Invalid value: \"A\": {LABEL}"),
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    request(
        "{name: r, exactly: {deviceClassName: c}, firstAvailable: [{name: a, deviceClassName: c}]}",
        &[
            "spec.devices.requests[0]: Invalid value: \"null\": exactly one of `exactly` or `firstAvailable` is required, but \
           multiple fields are set",
        ],
    );
    request(
        "{name: r, exactly: {deviceClassName: '', allocationMode: All, count: 1}}, {name: r, exactly: {deviceClassName: C, \
         allocationMode: Some, adminAccess: true}}, {name: s, exactly: {deviceClassName: c, count: -1}}",
        &[
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'",
            &format!("spec.devices.requests[1].exactly.deviceClassName: Invalid value: \"C\": {SUBDOMAIN}"),
            "spec.devices.requests[1].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \
             \"ExactCount\"",
            "spec.devices.requests[1]: Duplicate value: \"r\"",
            "spec.devices.requests[2].exactly.count: Invalid value: -1: must be greater than zero",
        ],
    );
    let many = vec!["{name: r, exactly: {deviceClassName: c}}"; 33].join(", ");
    request(
        &many,
        &["spec.devices.requests: Too many: 33: must have at most 32 items"],
    );
}

#[test]
fn selectors() {
    let long = "x".repeat(10 * 1024 + 1);
    request(
        &format!("{{name: r, exactly: {{deviceClassName: c, selectors: [{{}}, {{cel: {{expression: {long}}}}}]}}}}"),
        &[
            "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
            "spec.devices.requests[0].exactly.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
        ],
    );
}

#[test]
fn constraints_and_configurations() {
    let reference =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    for case in [
        Case::new("good").object(&claim(
            ", constraints: [{requests: [r], matchAttribute: example.com/a}], config: [{opaque: {driver: d, parameters: {a: b}}}]",
        )),
        Case::new("constraints")
            .object(&claim(
                ", constraints: [{requests: [s, r, r, a/b/c]}, {matchAttribute: a}, {matchAttribute: /}, {matchAttribute: d/1}]",
            ))
            .errors(&[
                &format!("spec.devices.constraints[0].requests[0]: Invalid value: \"s\": {reference}"),
                "spec.devices.constraints[0].requests[2]: Duplicate value: \"r\"",
                &format!("spec.devices.constraints[0].requests[3]: Invalid value: \"a/b/c\": {reference}"),
                "spec.devices.constraints[0].matchAttribute: Required value",
                "spec.devices.constraints[1].matchAttribute: Invalid value: \"a\": a fully qualified name must be a domain and a \
                 name separated by a slash",
                "spec.devices.constraints[2].matchAttribute: Invalid value: \"\": the domain must not be empty",
                "spec.devices.constraints[2].matchAttribute: Invalid value: \"\": the name must not be empty",
                "spec.devices.constraints[3].matchAttribute: Invalid value: \"1\": a valid C identifier must start with \
                 alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or \
                 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
            ]),
        Case::new("configurations")
            .object(&claim(", config: [{}, {opaque: {driver: '', parameters: 5}}, {opaque: {driver: d}}]"))
            .errors(&[
                "spec.devices.config[0].opaque: Required value",
                "spec.devices.config[1].opaque.driver: Required value",
                "spec.devices.config[1].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
                "spec.devices.config[2].opaque.parameters: Required value",
            ]),
    ] {
        check(&ResourceClaims, case);
    }
}

#[test]
fn specs_stay() {
    let shown = "{\"devices\":{\"requests\":[{\"exactly\":{\"allocationMode\":\"ExactCount\",\"count\":2,\"deviceClassName\":\"c\"},\
                 \"name\":\"r\"}]}}";
    let two = "spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c, count: 2}}]}}";
    check(
        &ResourceClaims,
        Case::new("a claim")
            .old(&claim(""))
            .object(two)
            .errors(&[&format!("spec: Invalid value: {shown}: field is immutable")]),
    );
    check(
        &ResourceClaimTemplates,
        Case::new("a template")
            .old("spec: {spec: {devices: {}}}")
            .object("spec: {metadata: {labels: {a: b}}, spec: {devices: {}}}")
            .errors(&[
                "spec: Invalid value: {\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"devices\":{}}}: field is immutable",
            ]),
    );
}

#[test]
fn templates() {
    for case in [
        Case::new("a template")
            .object("spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}")
            .field("spec.spec.devices.requests.0.exactly.count", 1),
        Case::new("broken")
            .object("spec: {metadata: {name: n}, spec: {devices: {requests: [{name: r}]}}}")
            .errors(&[
                "spec.metadata.name: Forbidden: cannot be set",
                "spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ]),
    ] {
        check(&ResourceClaimTemplates, case);
    }
}

#[test]
fn statuses() {
    let result = "{request: r, driver: d, pool: p, device: a}";
    let allocation = format!("allocation: {{devices: {{results: [{result}]}}}}");
    let allocated = format!("{}\nstatus: {{{allocation}}}", claim(""));
    for case in [
        Case::new("allocated").old(&claim("")).object(&format!(
            "metadata: {{labels: {{a: b}}}}\nstatus: {{{allocation}, reservedFor: [{{resource: pods, name: p, uid: u}}], devices: \
             [{{driver: d, pool: p, device: a, data: {{a: b}}, networkData: {{ips: [10.0.0.1/8]}}}}]}}"
        ))
        .field("metadata.labels", ()),
        Case::new("reserved without devices")
            .old(&claim(""))
            .object("status: {reservedFor: [{resource: pods, name: p, uid: u}, {uid: u}]}")
            .errors(&[
                "status.reservedFor[1].resource: Required value",
                "status.reservedFor[1].name: Required value",
                "status.reservedFor[1]: Duplicate value: \"u\"",
                "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
            ]),
        Case::new("an allocation stays")
            .old(&allocated)
            .object("status: {allocation: {devices: {}}}")
            .errors(&["status.allocation: Invalid value: {\"devices\":{}}: field is immutable"]),
        Case::new("a broken one")
            .old(&claim(""))
            .object(
                "status: {allocation: {devices: {results: [{request: s, driver: d, pool: P/q, device: A}], \
                 config: [{source: Me, opaque: {driver: d, parameters: {}}}]}, nodeSelector: {nodeSelectorTerms: []}}}",
            )
            .errors(&[
                "status.allocation.devices.results[0].request: Invalid value: \"s\": must be the name of a request in the claim \
                 or the name of a request and a subrequest separated by '/'",
                &format!("status.allocation.devices.results[0].pool: Invalid value: \"P\": {SUBDOMAIN}"),
                &format!("status.allocation.devices.results[0].device: Invalid value: \"A\": {LABEL}"),
                "status.allocation.devices.config[0].source: Unsupported value: \"Me\": supported values: \"FromClaim\", \
                 \"FromClass\"",
                "status.allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
            ]),
        Case::new("of devices that were not given")
            .old(&allocated)
            .object(&format!(
                "status: {{{allocation}, devices: [{{driver: d, pool: p, device: b, networkData: {{ips: [x]}}}}]}}"
            ))
            .errors(&[
                "status.devices[0]: Invalid value: \"d/p/b\": must be an allocated device in the claim",
                "status.devices[0].networkData.ips[0]: Invalid value: \"x\": must be a valid address in CIDR form, (e.g. \
                 10.9.8.7/24 or 2001:db8::1/64)",
            ]),
        Case::new("what was said of devices goes with them")
            .old(&allocated)
            .object("status: {devices: [{driver: d, pool: p, device: a}]}")
            .field("status.devices", ()),
    ] {
        check(&ResourceClaims, case.subresource("status"));
    }
}

#[test]
fn classes() {
    for case in [
        Case::new("a class").object(
            "spec: {selectors: [{cel: {expression: device.driver == 'd'}}], config: [{opaque: {driver: d, parameters: {}}}], \
             extendedResourceName: example.com/a}",
        )
        .field("spec.extendedResourceName", ()),
        Case::new("broken").object("spec: {selectors: [{}], config: [{}]}").errors(&[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
        ]),
        Case::new("may change").old("spec: {}").object("spec: {config: [{}]}").errors(&[
            "spec.config[0].opaque: Required value",
        ]),
    ] {
        check(&DeviceClasses, case);
    }
}

#[test]
fn slices() {
    let pool = "driver: d, pool: {name: p, resourceSliceCount: 1}";
    let slice = |more: &str| format!("spec: {{{pool}, {more}}}");
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    for case in [
        Case::new("of a node").object(&slice(
            "nodeName: n, devices: [{name: a, attributes: {x: {string: y}, example.com/v: {version: 1.2.3-a+b}}, capacity: \
             {memory: {value: 1Gi}}, taints: [{key: a, effect: NoSchedule}]}]",
        ))
        .field("spec.devices.0.taints", ()),
        Case::new("nothing").object("spec: {}").errors(&[
            "spec.driver: Required value",
            "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            &format!("spec: Required value: {one}"),
        ]),
        Case::new("twice").object(&slice("nodeName: n, allNodes: true")).errors(&[&format!(
            "spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}, but multiple fields are set"
        )]),
        Case::new("in no way")
            .object("spec: {driver: d, pool: {name: p, resourceSliceCount: 1, generation: -1}, nodeName: '', allNodes: false}")
            .errors(&[
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
                "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string",
                "spec.allNodes: Invalid value: false: must be either unset or set to true",
                &format!("spec: Required value: {one}"),
            ]),
        Case::new("one term")
            .object(&slice("nodeSelector: {nodeSelectorTerms: []}"))
            .errors(&[
                "spec.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
                "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term",
            ]),
        Case::new("devices")
            .object(&slice(
                "nodeName: n, devices: [{name: A, attributes: {x: {}, y: {bool: true, int: 1}, z: {version: '1'}}}, {name: a, \
                 capacity: {'1': {value: '1'}}}, {name: a}]",
            ))
            .errors(&[
                &format!("spec.devices[0].name: Invalid value: \"A\": {LABEL}"),
                "spec.devices[0].attributes[x]: Invalid value: \"\": exactly one value must be specified",
                "spec.devices[0].attributes[y]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
                "spec.devices[0].attributes[z].version: Invalid value: \"1\": must be a string compatible with semver.org spec \
                 2.0.0",
                "spec.devices[1].capacity[1]: Invalid value: \"1\": a valid C identifier must start with alphabetic character or \
                 '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex \
                 used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
                "spec.devices[2]: Duplicate value: \"a\"",
            ]),
        Case::new("what it is about stays")
            .old(&slice("nodeName: n"))
            .object("spec: {driver: e, pool: {name: q, resourceSliceCount: 2, generation: 1}, nodeName: m}")
            .errors(&[
                "spec.pool.name: Invalid value: \"q\": field is immutable",
                "spec.driver: Invalid value: \"e\": field is immutable",
                "spec.nodeName: Invalid value: \"m\": field is immutable",
            ]),
    ] {
        check(&ResourceSlices, case);
    }
    let attributes: serde_json::Map<_, _> = (0..33).map(|i| (format!("a{i}"), json!({"int": 1}))).collect();
    let many = json!({"spec": {"driver": "d", "pool": {"name": "p", "resourceSliceCount": 1}, "allNodes": true,
        "devices": [{"name": "a", "attributes": attributes}]}});
    check(
        &ResourceSlices,
        Case::new("many attributes").object(&many.to_string()).errors(&[
            "spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32",
        ]),
    );
}
