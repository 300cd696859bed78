//! What upstream says of claims for devices, their templates and classes, and of slices.

use serde_json::json;

use super::claim::{ResourceClaimTemplates, ResourceClaims};
use super::class::DeviceClasses;
use super::slice::ResourceSlices;
use crate::testing::{Case, LABEL, NOW, SUBDOMAIN, VALUE, check};

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
                ", constraints: [{requests: [s, r, r, a/b/c]}, {matchAttribute: a}, {matchAttribute: /}, {matchAttribute: d/1}, \
                 {distinctAttribute: b}]",
            ))
            .errors(&[
                &format!("spec.devices.constraints[0].requests[0]: Invalid value: \"s\": {reference}"),
                "spec.devices.constraints[0].requests[2]: Duplicate value: \"r\"",
                &format!("spec.devices.constraints[0].requests[3]: Invalid value: \"a/b/c\": {reference}"),
                "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is \
                 required, but multiple fields are set",
                "spec.devices.constraints[4].distinctAttribute: Invalid value: \"b\": a fully qualified name must be a domain and \
                 a name separated by a slash",
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
        .field("spec.extendedResourceName", "example.com/a"),
        Case::new("broken").object("spec: {selectors: [{}], config: [{}], extendedResourceName: gpu}").errors(&[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
            "spec.extendedResourceName: Invalid value: \"gpu\": must be a valid extended resource name",
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
        .field("spec.devices.0.taints.0.timeAdded", NOW),
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
                "spec.devices[1].capacity: Invalid value: \"1\": a valid C identifier must start with alphabetic character or \
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

#[test]
fn tolerations() {
    let name = "prefix part must be non-empty";
    let of = |tolerations: &str| format!("{{name: r, exactly: {{deviceClassName: c, tolerations: [{tolerations}]}}}}");
    check(
        &ResourceClaims,
        Case::new("equal is the default")
            .object(&format!(
                "spec: {{devices: {{requests: [{}]}}}}",
                of("{key: a, value: b}, {operator: Exists}")
            ))
            .field("spec.devices.requests.0.exactly.tolerations.0.operator", "Equal"),
    );
    let at = "spec.devices.requests[0].exactly.tolerations";
    request(
        &of("{key: /a}, {operator: Exists, value: b}, {value: '-'}, {operator: Some}, {operator: '', effect: Never}"),
        &[
            &format!("{at}[0].key: Invalid value: \"/a\": {name}"),
            &format!("{at}[1].value: Invalid value: \"b\": must be empty for operator `Exists`"),
            &format!("{at}[2].value: Invalid value: \"-\": {VALUE}"),
            &format!("{at}[3].operator: Unsupported value: \"Some\": supported values: \"Equal\", \"Exists\""),
            &format!("{at}[4].operator: Required value"),
            &format!(
                "{at}[4].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
            ),
        ],
    );
}

/// A slice of a node with these devices.
fn devices(list: &str) -> String {
    format!("spec: {{driver: d, pool: {{name: p, resourceSliceCount: 1}}, nodeName: n, devices: [{list}]}}")
}

#[test]
fn taints() {
    let supported = "\"NoExecute\", \"NoSchedule\", \"None\"";
    let broken = "{name: a, taints: [{key: a, value: '-'}, {key: b, effect: Never}]}";
    for case in [
        Case::new("broken").object(&devices(broken)).errors(&[
            &format!("spec.devices[0].taints[0].value: Invalid value: \"-\": {VALUE}"),
            "spec.devices[0].taints[0].effect: Required value",
            &format!("spec.devices[0].taints[1].effect: Unsupported value: \"Never\": supported values: {supported}"),
        ]),
        Case::new("time stays")
            .old(&devices("{name: a}"))
            .object(&devices(
                "{name: a, taints: [{key: a, effect: None, timeAdded: '2020-01-01T00:00:00Z'}]}",
            ))
            .field("spec.devices.0.taints.0.timeAdded", "2020-01-01T00:00:00Z"),
        Case::new("what was there is let be")
            .old(&devices(
                "{name: a, taints: [{key: a, timeAdded: '2020-01-01T00:00:00Z'}]}",
            ))
            .object(&devices(
                "{name: a, taints: [{key: a, timeAdded: '2020-01-01T00:00:00Z'}]}",
            )),
    ] {
        check(&ResourceSlices, case);
    }
    let many = vec!["{key: a, effect: None}"; 17].join(", ");
    check(
        &ResourceSlices,
        Case::new("many")
            .object(&devices(&format!("{{name: a, taints: [{many}]}}")))
            .errors(&["spec.devices[0].taints: Too many: 17: must have at most 16 items"]),
    );
    let tainted: Vec<String> = (0..65)
        .map(|i| format!("{{name: a{i}, taints: [{{key: a, effect: None}}]}}"))
        .collect();
    check(
        &ResourceSlices,
        Case::new("large devices")
            .object(&devices(&tainted.join(", ")))
            .errors(&["spec.devices: Too many: 65: must have at most 64 items"]),
    );
}

#[test]
fn sharing() {
    let of = |shared: bool, policy: &str| {
        devices(&format!(
            "{{name: a, allowMultipleAllocations: {shared}, capacity: {{m: {{value: '10', requestPolicy: {policy}}}}}}}"
        ))
    };
    let at = "spec.devices[0].capacity[m].requestPolicy";
    for (shared, policy, errors) in [
        (true, "{}", vec![]),
        (true, "{default: '2', validValues: ['1', '2', '10']}", vec![]),
        (
            true,
            "{default: '3', validRange: {min: '1', max: '9', step: '2'}}",
            vec![],
        ),
        (false, "{}", vec![": Forbidden: allowMultipleAllocations must be true"]),
        (
            true,
            "{validValues: ['1'], validRange: {min: '1'}}",
            vec![
                ": Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same \
                 time",
            ],
        ),
        (
            true,
            "{validValues: ['1']}",
            vec![".default: Required value: required when validValues is defined"],
        ),
        (
            true,
            "{validRange: {}}",
            vec![".default: Required value: required when validRange is defined"],
        ),
        (
            true,
            "{default: '3', validValues: ['2', '1', '11', '11']}",
            vec![
                ".validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
                ".validValues[2]: Invalid value: \"11\": option is larger than capacity value: 10",
                ".validValues[3]: Invalid value: \"11\": option is larger than capacity value: 10",
                ".validValues[3]: Duplicate value: \"11\"",
                ".validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
            ],
        ),
        (
            true,
            "{default: '3', validRange: {max: '1'}}",
            vec![".validRange.min: Required value: required when validRange is defined"],
        ),
        (
            true,
            "{default: '3', validRange: {min: '11', max: '2', step: '4'}}",
            vec![
                ".validRange.min: Invalid value: \"11\": min is larger than capacity value: 10",
                ".validRange.min: Invalid value: \"3\": default is less than min: 11",
                ".validRange.max: Invalid value: \"11\": min is larger than max: 2",
                ".validRange.max: Invalid value: \"3\": default is more than max: 2",
                ".validRange.step: Invalid value: \"4\": one step 15 is larger than capacity value: 10",
                ".validRange.step: Invalid value: \"2\": value is not a multiple of a given step (4) from (11)",
            ],
        ),
        (
            true,
            "{default: '3', validRange: {min: '1', step: '0'}}",
            vec![".validRange.step: Invalid value: \"3\": value is not a multiple of a given step (0) from (1)"],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|rest| format!("{at}{rest}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(
            &ResourceSlices,
            Case::new(policy).object(&of(shared, policy)).errors(&errors),
        );
    }
}

#[test]
fn partitions() {
    let pool = "driver: d, pool: {name: p, resourceSliceCount: 2}";
    let slice = |more: &str| format!("spec: {{{pool}, {more}}}");
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true \
               in the ResourceSlice spec";
    let only = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
                ResourceSlice spec";
    for case in [
        Case::new("counters").object(&slice("nodeName: n, sharedCounters: [{name: gpu, counters: {memory: {value: 8Gi}}}]")),
        Case::new("parts").object(&slice(
            "perDeviceNodeSelection: true, devices: [{name: a, nodeName: n, consumesCounters: [{counterSet: gpu, counters: \
             {memory: {value: 4Gi}}}]}, {name: b, allNodes: true}]",
        )),
        Case::new("both")
            .object(&slice("nodeName: n, devices: [{name: a}], sharedCounters: [{name: g, counters: {m: {value: '1'}}}]"))
            .errors(&["spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed"]),
        Case::new("broken counters")
            .object(&slice("nodeName: n, sharedCounters: [{}, {name: G, counters: {M: {value: '1'}}}, {name: G, counters: {m: {value: '1'}}}]"))
            .errors(&[
                "spec.sharedCounters[0].name: Required value",
                "spec.sharedCounters[0].counters: Required value",
                &format!("spec.sharedCounters[1].name: Invalid value: \"G\": {LABEL}"),
                &format!("spec.sharedCounters[1].counters: Invalid value: \"M\": {LABEL}"),
                &format!("spec.sharedCounters[2].name: Invalid value: \"G\": {LABEL}"),
                "spec.sharedCounters[2]: Duplicate value: \"G\"",
            ]),
        Case::new("broken devices")
            .object(&slice(
                "perDeviceNodeSelection: true, devices: [{name: a}, {name: b, nodeName: '', allNodes: false}, {name: c, nodeName: n, \
                 allNodes: true, consumesCounters: [{}, {counterSet: a, counters: {b: {value: '1'}}}, {counterSet: c, counters: {d: \
                 {value: '1'}}}]}]",
            ))
            .errors(&[
                &format!("spec.devices[0]: Required value: {one}"),
                "spec.devices[1].nodeName: Invalid value: \"\": must not be empty",
                "spec.devices[1].allNodes: Invalid value: false: must be either unset or set to true",
                &format!("spec.devices[1]: Required value: {one}"),
                &format!("spec.devices[2]: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one}"),
                "spec.devices[2].consumesCounters: Too many: 3: must have at most 2 items",
            ]),
        Case::new("not each for itself")
            .object(&slice("nodeName: n, perDeviceNodeSelection: false, devices: [{name: a, nodeName: n}]"))
            .errors(&[
                "spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true",
                &format!("spec.devices[0]: Invalid value: \"null\": {only}"),
            ]),
    ] {
        check(&ResourceSlices, case);
    }
}

#[test]
fn shares_and_conditions() {
    let (share, other) = (
        "0aa1bbf5-0000-4000-8000-000000000001",
        "0aa1bbf5-0000-4000-8000-000000000002",
    );
    let result = |more: &str| {
        format!(
            "status: {{allocation: {{devices: {{results: [{{request: r, driver: d, pool: p, device: a, {more}}}]}}}}}}"
        )
    };
    let at = "status.allocation.devices.results[0]";
    let many = ["a", "b", "c", "d", "e"].join(", ");
    let with_status = format!(
        "status: {{allocation: {{devices: {{results: [{{request: r, driver: d, pool: p, device: a, shareID: {share}}}]}}}}, \
         devices: [{{driver: d, pool: p, device: a, shareID: {share}}}, {{driver: d, pool: p, device: a, shareID: {other}}}]}}"
    );
    for (object, errors) in [
        (result(&format!("shareID: {share}, tolerations: [{{key: a}}]")), vec![]),
        (
            result("shareID: x"),
            vec![format!(
                "{at}.shareID: Invalid value: \"x\": error validating uid: invalid UUID length: 1"
            )],
        ),
        (
            result(&format!("shareID: {}", share.replace("0aa1", "0AA1"))),
            vec![format!(
                "{at}.shareID: Invalid value: \"{}\": uid must be in RFC 4122 normalized form, \
                 `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters",
                share.replace("0aa1", "0AA1")
            )],
        ),
        (
            result(&format!("shareID: {}", share.replace('-', "x"))),
            vec![format!(
                "{at}.shareID: Invalid value: \"{}\": error validating uid: invalid UUID format",
                share.replace('-', "x")
            )],
        ),
        (
            result("bindingConditions: [a, b], bindingFailureConditions: [c]"),
            vec![],
        ),
        (
            result("bindingConditions: [a, a], bindingFailureConditions: [a]"),
            vec![
                format!("{at}.bindingConditions[1]: Duplicate value: \"a\""),
                format!(
                    "{at}.bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with \
                     bindingConditions"
                ),
            ],
        ),
        (
            result(&format!("bindingConditions: [{many}]")),
            vec![
                format!("{at}.bindingConditions: Too many: 5: must have at most 4 items"),
                format!(
                    "{at}.bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use \
                     bindingConditions"
                ),
            ],
        ),
        (
            result("bindingFailureConditions: [c]"),
            vec![format!(
                "{at}.bindingConditions: Invalid value: null: bindingConditions are required to use bindingFailureConditions"
            )],
        ),
        (
            with_status,
            vec![format!(
                "status.devices[1]: Invalid value: \"d/p/a/{other}\": must be an allocated device in the claim"
            )],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let case = Case::new(&object).old(&claim("")).object(&object).errors(&errors);
        check(&ResourceClaims, case.subresource("status"));
    }
    let tolerating = result("tolerations: [{key: a}]");
    let case = Case::new("tolerations").old(&claim("")).object(&tolerating);
    let operator = "status.allocation.devices.results.0.tolerations.0.operator";
    check(&ResourceClaims, case.field(operator, "Equal").subresource("status"));
}
