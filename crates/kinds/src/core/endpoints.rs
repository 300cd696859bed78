//! Endpoints.
//!
//! Source of the rules: `ValidateEndpoints` in `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::field::{ErrorList, Path};
use api::validation::{dns1123_label, ip_legacy, ip_warnings, qualified_name};

use super::service::endpoint_address;
use crate::build::Row;
use crate::check::{At, Report};
use crate::names;
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Endpoints", "endpoints")
        .short(&["ep"])
        .stored_under("services/endpoints")
        .strategy(AllEndpoints)
        .created_by_put()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Endpoints", "The addresses that answer."), AGE],
    cells: |object, context| vec![name(object), addresses(object).into(), age(object, context)],
};

/// How many addresses a cell shows.
const SHOWN_MAX: usize = 3;

fn addresses(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in object.list("subsets") {
        let addresses = subset.list("addresses").iter().map(|address| address.text("ip"));
        if subset.list("ports").is_empty() {
            all.extend(addresses.map(String::from));
            continue;
        }
        for port in subset.list("ports") {
            let number = port.count("port");
            all.extend(addresses.clone().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    match all.len() {
        0 if object.list("subsets").is_empty() => NONE.into(),
        0 => String::new(),
        _ => crate::print::with_more(&all, SHOWN_MAX),
    }
}

/// Who keeps the object, and the name of the controller that does.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

struct AllEndpoints;

impl Strategy for AllEndpoints {
    fn default(&self, object: &mut Value) {
        for subset in object.elements("subsets") {
            for port in subset.elements("ports") {
                port.put_default("protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| subsets(&object))
    }

    /// Subsets that did not change are not looked at again.
    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        match object.at("subsets") == old.at("subsets") {
            true => ErrorList::new(),
            false => Report::of(object, |object| subsets(&object)),
        }
    }

    /// The controller's own are not looked at: it writes no others than good ones.
    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let manager = object.at("metadata.labels").get(MANAGED_BY).and_then(Value::as_str);
        if manager == Some(CONTROLLER) {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        for (index, subset) in object.list("subsets").iter().enumerate() {
            for list in ["addresses", "notReadyAddresses"] {
                for (address_index, address) in subset.list(list).iter().enumerate() {
                    let path = Path::new("subsets").index(index).child(list).index(address_index);
                    warnings.extend(ip_warnings(&path.child("ip"), address.text("ip")));
                }
            }
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn subsets(object: &At) {
    for subset in object.items("subsets") {
        if subset.get("addresses").is_empty() && subset.get("notReadyAddresses").is_empty() {
            subset.missing("must specify `addresses` or `notReadyAddresses`");
        }
        for address in ["addresses", "notReadyAddresses"]
            .iter()
            .flat_map(|list| subset.items(list))
        {
            address_rules(&address);
        }
        let ports = subset.items("ports");
        for port in &ports {
            port_rules(port, ports.len() > 1);
        }
    }
}

fn address_rules(address: &At) {
    let ip = address.get("ip");
    ip.extend(ip_legacy(&ip.path, ip.text(), true, &[]));
    let (name, node) = (address.get("hostname"), address.get("nodeName"));
    if !name.is_empty() {
        name.check(dns1123_label(name.text()));
    }
    if node.is_set() {
        node.check(names::subdomain(node.text(), false));
    }
    endpoint_address(&ip);
}

fn port_rules(port: &At, named: bool) {
    let (name, number) = (port.get("name"), port.get("port"));
    if !name.is_empty() {
        name.check(dns1123_label(name.text()));
    } else if named {
        name.missing("");
    }
    for message in api::validation::port_number(number.number().unwrap_or(0)) {
        number.invalid_as(number.number().unwrap_or(0), message);
    }
    port.get("protocol").required_one_of(&["SCTP", "TCP", "UDP"]);
    let protocol = port.get("appProtocol");
    if protocol.is_set() {
        protocol.check(qualified_name(protocol.text()));
    }
}

#[cfg(test)]
mod tests {
    use super::{AllEndpoints, addresses};
    use crate::testing::{Case, check, yaml};

    #[test]
    fn rules() {
        for case in [
            Case::new("protocols are defaulted")
                .object("subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]")
                .field("subsets.0.ports.0.protocol", "TCP"),
            Case::new("broken")
                .object(
                    "subsets: [{ports: [{port: 80}, {port: 0, name: a, protocol: X}]}, {addresses: [{ip: 127.0.0.1, \
                     hostname: A, nodeName: B}], ports: [{port: 1, appProtocol: ' '}]}]",
                )
                .errors(&[
                    "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                    "subsets[0].ports[0].name: Required value",
                    "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "subsets[0].ports[1].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \
                     \"UDP\"",
                    "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range \
                     (127.0.0.0/8, ::1/128)",
                    &format!(
                        "subsets[1].addresses[0].hostname: Invalid value: \"A\": {}",
                        crate::testing::LABEL
                    ),
                    &format!(
                        "subsets[1].addresses[0].nodeName: Invalid value: \"B\": {}",
                        crate::testing::SUBDOMAIN
                    ),
                    &format!(
                        "subsets[1].ports[0].appProtocol: Invalid value: \" \": {}",
                        crate::testing::QUALIFIED
                    ),
                ]),
            Case::new("what did not change is not checked")
                .old("subsets: [{}]")
                .object("metadata: {labels: {a: b}}\nsubsets: [{}]"),
        ] {
            check(&AllEndpoints, case);
        }
    }

    #[test]
    fn addresses_are_short() {
        for (object, expect) in [
            ("{}", "<none>"),
            ("subsets: [{addresses: [{ip: 10.0.0.1}]}]", "10.0.0.1"),
            (
                "subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], ports: [{port: 80}, {port: 443}]}]",
                "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more...",
            ),
        ] {
            assert_eq!(addresses(&yaml(object)), expect);
        }
    }
}
