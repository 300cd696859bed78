//! The discovery.k8s.io group: EndpointSlice.
//!
//! Source of the rules: `pkg/apis/discovery/validation/validation.go`, `pkg/registry/discovery/endpointslice/strategy.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::{Error, ErrorList, Path};
use api::validation::{
    dns1123_label, fully_qualified_domain_name, ip, ip_legacy, ip_warnings, label_value, labels, parse_ip_sloppy,
    qualified_name,
};

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::endpoint_address;
use crate::names;
use crate::print::{AGE, NAME, age, name, text, with_more};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Controllers that write addresses in their one form, and need no warning.
const OUR_CONTROLLERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
        .strategy(EndpointSlices)
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("AddressType", "IPv4, IPv6 or FQDN."),
        text("Ports", "The ports of every endpoint."),
        text("Endpoints", "The addresses."),
        AGE,
    ],
    cells,
};

/// How many elements a cell shows.
const SHOWN_MAX: usize = 3;

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|port| match (port.number("port"), port.at("name").as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.into(),
            (None, None) => "*".into(),
        })
        .collect();
    let endpoints = object.list("endpoints").iter();
    let addresses: Vec<String> = endpoints.flat_map(|e| e.texts("addresses")).map(String::from).collect();
    vec![
        name(object),
        object.text("addressType").into(),
        with_more(&ports, SHOWN_MAX).into(),
        with_more(&addresses, SHOWN_MAX).into(),
        age(object, context),
    ]
}

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;
const TOPOLOGY_LABELS_MAX: usize = 16;

struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn default(&self, object: &mut Value) {
        for port in object.elements("ports") {
            // An empty name is a value, and it is written.
            if !port.has("name") {
                port.put("name", "");
            }
            port.put_default("protocol", "TCP");
        }
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        ["addressType", "endpoints", "ports", "metadata.labels"]
            .iter()
            .any(|field| object.at(field) != old.at(field))
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object, None))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validate(&object, Some(old));
            object.get("addressType").unchanged(old.at("addressType"));
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && object.text("addressType") == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".into());
        }
        let manager = object.at("metadata.labels").get(MANAGED_BY).and_then(Value::as_str);
        if manager.is_some_and(|manager| OUR_CONTROLLERS.contains(&manager)) {
            return warnings;
        }
        for (index, endpoint) in object.list("endpoints").iter().enumerate() {
            for (address_index, address) in endpoint.texts("addresses").enumerate() {
                let path = Path::new("endpoints")
                    .index(index)
                    .child("addresses")
                    .index(address_index);
                warnings.extend(ip_warnings(&path, address));
            }
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Endpoints that did not change are not looked at again: older servers took more.
fn validate(slice: &At, old: Option<&Value>) {
    let kind = slice.get("addressType");
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"]);
    let endpoints = slice.get("endpoints");
    let unchanged = old.is_some_and(|old| old.at("endpoints") == endpoints.value);
    if !unchanged && !too_many(&endpoints, ENDPOINTS_MAX) {
        for endpoint in slice.items("endpoints") {
            self::endpoint(&endpoint, kind.text());
        }
    }
    if too_many(&slice.get("ports"), PORTS_MAX) {
        return;
    }
    let mut seen = BTreeSet::new();
    for port in slice.items("ports") {
        let (name, protocol) = (port.get("name"), port.get("appProtocol"));
        if !name.is_empty() {
            name.check(dns1123_label(name.text()));
        }
        if !seen.insert(name.text()) {
            name.duplicate(name.text());
        }
        port.get("protocol").one_of(&["SCTP", "TCP", "UDP"]);
        if protocol.is_set() {
            protocol.check(qualified_name(protocol.text()));
        }
    }
}

fn too_many(list: &At, max: usize) -> bool {
    let length = list
        .value
        .as_array()
        .map_or(0, Vec::len)
        .max(list.value.as_object().map_or(0, api::Map::len));
    if length > max {
        list.report.push(Error::too_many(&list.path, length, max));
    }
    length > max
}

fn endpoint(endpoint: &At, kind: &str) {
    let addresses = endpoint.get("addresses");
    if addresses.is_empty() {
        addresses.missing("must contain at least 1 address");
    }
    too_many(&addresses, ADDRESSES_MAX);
    for address in endpoint.items("addresses") {
        match kind {
            "IPv4" | "IPv6" => ip_address(&addresses, &address, kind),
            "FQDN" => address.extend(fully_qualified_domain_name(&address.path, address.text())),
            _ => {}
        }
    }
    let topology = endpoint.get("deprecatedTopology");
    too_many(&topology, TOPOLOGY_LABELS_MAX);
    topology.extend(labels(topology.value, &topology.path));
    let (node, host) = (endpoint.get("nodeName"), endpoint.get("hostname"));
    if node.is_set() {
        node.check(names::subdomain(node.text(), false));
    }
    if host.is_set() {
        host.check(dns1123_label(host.text()));
    }
    type Rule = fn(&str) -> Vec<String>;
    let hints: [(&str, Rule); 2] = [
        ("forZones", label_value),
        ("forNodes", |name| names::subdomain(name, false)),
    ];
    for (list, rule) in hints {
        let hints = endpoint.get("hints");
        if too_many(&hints.get(list), HINTS_MAX) {
            continue;
        }
        let mut seen = BTreeSet::new();
        for name in hints.items(list).iter().map(|hint| hint.get("name")) {
            name.unique(&mut seen);
            name.check(rule(name.text()));
        }
    }
}

/// IPv6 addresses are younger than IPv4 ones here, and only taken in their canonical form.
fn ip_address(all: &At, address: &At, kind: &str) {
    let errors = match kind {
        "IPv6" => ip(&address.path, address.text()),
        _ => ip_legacy(&address.path, address.text(), true, &[]),
    };
    if !errors.is_empty() {
        return address.extend(errors);
    }
    let is_v4 = parse_ip_sloppy(address.text()).is_some_and(|address| address.is_ipv4());
    if is_v4 != (kind == "IPv4") {
        all.invalid_as(address.text(), format!("must be an {kind} address"));
    }
    endpoint_address(address);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::EndpointSlices;
    use crate::row::Strategy;
    use crate::testing::{Case, LABEL, QUALIFIED, SUBDOMAIN, check};

    #[test]
    fn rules() {
        for case in [
            Case::new("defaults")
                .object("addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]")
                .field("ports.0", json!({"name": "", "port": 80, "protocol": "TCP"})),
            Case::new("names").object("addressType: FQDN\nendpoints: [{addresses: [a.example]}]"),
            Case::new("type").object("{}").errors(&["addressType: Required value"]),
            Case::new("another type")
                .object("addressType: IP")
                .errors(&["addressType: Unsupported value: \"IP\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""]),
            Case::new("endpoints")
                .object(
                    "addressType: IPv4\nendpoints: [{}, {addresses: ['fd00::1', 127.0.0.1, x], nodeName: A, hostname: \
                     B, hints: {forZones: [{name: a}, {name: a}], forNodes: [{name: C}]}}]",
                )
                .errors(&[
                    "endpoints[0].addresses: Required value: must contain at least 1 address",
                    "endpoints[1].addresses: Invalid value: \"fd00::1\": must be an IPv4 address",
                    "endpoints[1].addresses[1]: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                     (127.0.0.0/8, ::1/128)",
                    "endpoints[1].addresses[2]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                     2001:db8::ffff)",
                    &format!("endpoints[1].nodeName: Invalid value: \"A\": {SUBDOMAIN}"),
                    &format!("endpoints[1].hostname: Invalid value: \"B\": {LABEL}"),
                    "endpoints[1].hints.forZones[1].name: Duplicate value: \"a\"",
                    &format!("endpoints[1].hints.forNodes[0].name: Invalid value: \"C\": {SUBDOMAIN}"),
                ]),
            Case::new("ports")
                .object(
                    "addressType: IPv4\nports: [{name: A, protocol: X, appProtocol: ' '}, {name: b}, {name: b}, {port: \
                     1}]",
                )
                .errors(&[
                    &format!("ports[0].name: Invalid value: \"A\": {LABEL}"),
                    "ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                    &format!("ports[0].appProtocol: Invalid value: \" \": {QUALIFIED}"),
                    "ports[2].name: Duplicate value: \"b\"",
                ]),
            Case::new("canonical addresses")
                .object("addressType: IPv6\nendpoints: [{addresses: ['FD00::1']}]")
                .errors(&[
                    "endpoints[0].addresses[0]: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")",
                ]),
            Case::new("endpoints that were stored")
                .old("addressType: IPv4\nendpoints: [{addresses: [010.0.0.1]}]")
                .object("addressType: IPv4\nendpoints: [{addresses: [010.0.0.1]}]\nports: [{port: 1}]"),
            Case::new("and changed")
                .old("addressType: IPv4\nendpoints: [{addresses: [010.0.0.1]}]")
                .object("addressType: IPv4\nendpoints: [{addresses: [010.0.0.2]}]")
                .errors(&["endpoints[0].addresses[0]: Invalid value: \"010.0.0.2\": must not have leading 0s"]),
            Case::new("the type is for life")
                .old("addressType: IPv4")
                .object("addressType: IPv6")
                .errors(&["addressType: Invalid value: \"IPv6\": field is immutable"]),
        ] {
            check(&EndpointSlices, case);
        }
    }

    #[test]
    fn lists_end() {
        let addresses = vec!["10.0.0.1"; super::ADDRESSES_MAX + 1];
        let zones: Vec<_> = (0..9).map(|zone| json!({"name": format!("z{zone}")})).collect();
        let slice =
            json!({"addressType": "IPv4", "endpoints": [{"addresses": addresses, "hints": {"forZones": zones}}]});
        let case = Case::new("too many").object(&slice.to_string());
        check(
            &EndpointSlices,
            case.errors(&[
                "endpoints[0].addresses: Too many: 101: must have at most 100 items",
                "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items",
            ]),
        );
        let endpoints = vec![json!({"addresses": ["10.0.0.1"]}); super::ENDPOINTS_MAX + 1];
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints});
        let case = Case::new("too many endpoints").object(&slice.to_string());
        check(
            &EndpointSlices,
            case.errors(&["endpoints: Too many: 1001: must have at most 1000 items"]),
        );
    }

    #[test]
    fn the_generation_counts_content_and_labels() {
        let old = json!({"metadata": {"labels": {"a": "b"}}, "endpoints": []});
        let annotated = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "endpoints": []});
        assert!(!EndpointSlices.generation_changed(&annotated, &old));
        for changed in [
            json!({"endpoints": []}),
            json!({"metadata": {"labels": {"a": "b"}}, "endpoints": [{}]}),
        ] {
            assert!(EndpointSlices.generation_changed(&changed, &old));
        }
    }
}
