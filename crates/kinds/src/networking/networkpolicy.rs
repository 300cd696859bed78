//! NetworkPolicy. The nodes' agents enforce it (`crates/network/src/policies`).
//!
//! Source of the rules: `SetDefaults_NetworkPolicy` in `pkg/apis/networking/v1/defaults.go` and `ValidateNetworkPolicy` in
//! `pkg/apis/networking/validation/validation.go`.

use api::Value;
use api::field::{ErrorList, Path};
use api::validation::{cidr_legacy, cidr_warnings, label_selector, parse_cidr_sloppy, port_name};
use ipnet::IpNet;
use serde_json::json;

use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, age, name, selector, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

const DIRECTIONS: [&str; 2] = ["Ingress", "Egress"];
/// The lists of rules and their lists of peers.
const PEERS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced(super::GROUP, "v1", "NetworkPolicy", "networkpolicies")
        .short(&["netpol"])
        .strategy(NetworkPolicies)
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Pod-Selector", "The pods it is about."), AGE],
    cells: |object, context| {
        vec![
            name(object),
            selector(object.at("spec.podSelector")).into(),
            age(object, context),
        ]
    },
};

struct NetworkPolicies;

impl Strategy for NetworkPolicies {
    fn default(&self, object: &mut Value) {
        object.object("spec");
        let spec = &mut object["spec"];
        spec.object("podSelector");
        if spec.list("policyTypes").is_empty() {
            let egress = !spec.list("egress").is_empty();
            spec.put(
                "policyTypes",
                if egress { json!(DIRECTIONS) } else { json!(["Ingress"]) },
            );
        }
        for (rules, _) in PEERS {
            for rule in spec.elements(rules) {
                for port in rule.elements("ports") {
                    port.put_default("protocol", "TCP");
                }
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), &Value::Null))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec"), old.at("spec")))
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let mut warnings = Vec::new();
        for block in blocks(object.at("spec")) {
            warnings.extend(cidr_warnings(&block.0.child("cidr"), block.1.text("cidr")));
            for (index, except) in block.1.texts("except").enumerate() {
                warnings.extend(cidr_warnings(&block.0.child("except").index(index), except));
            }
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Every block of addresses of a spec, with its path.
fn blocks(spec: &Value) -> Vec<(Path, &Value)> {
    let mut blocks = Vec::new();
    for (rules, peers) in PEERS {
        for (i, rule) in spec.list(rules).iter().enumerate() {
            for (j, peer) in rule.list(peers).iter().enumerate() {
                if peer.has("ipBlock") {
                    let path = Path::new("spec").child(rules).index(i).child(peers).index(j);
                    blocks.push((path.child("ipBlock"), peer.at("ipBlock")));
                }
            }
        }
    }
    blocks
}

/// What an update may keep although it would be refused today.
struct Tolerated<'a> {
    values: bool,
    ranges: Vec<&'a str>,
}

fn spec(spec: &At, old: &Value) {
    let tolerated = Tolerated {
        values: selectors(old).any(|selector| !label_selector(selector, false, &Path::root()).is_empty()),
        ranges: blocks(old)
            .into_iter()
            .flat_map(|(_, block)| std::iter::once(block.text("cidr")).chain(block.texts("except")))
            .collect(),
    };
    labels(&spec.get("podSelector"), &tolerated);
    for (rules, peers) in PEERS {
        for rule in spec.items(rules) {
            rule.items("ports").iter().for_each(port);
            for peer in rule.items(peers) {
                self::peer(&peer, &tolerated);
            }
        }
    }
    let types = spec.get("policyTypes");
    if spec.value.list("policyTypes").len() > DIRECTIONS.len() {
        return types.invalid("may not specify more than two policyTypes");
    }
    for kind in spec.items("policyTypes") {
        kind.one_of(&DIRECTIONS);
    }
}

fn selectors(spec: &Value) -> impl Iterator<Item = &Value> {
    let peers = PEERS.into_iter().flat_map(|(rules, peers)| {
        let rules = spec.list(rules).iter();
        rules.flat_map(move |rule| rule.list(peers))
    });
    let of_peers = peers.flat_map(|peer| [peer.at("podSelector"), peer.at("namespaceSelector")]);
    std::iter::once(spec.at("podSelector")).chain(of_peers)
}

fn labels(selector: &At, tolerated: &Tolerated) {
    selector.extend(label_selector(selector.value, tolerated.values, &selector.path));
}

fn port(port: &At) {
    let (protocol, number, end) = (port.get("protocol"), port.get("port"), port.get("endPort"));
    protocol.one_of(&["TCP", "UDP", "SCTP"]);
    match number.value {
        Value::Null if end.is_set() => end.invalid("may not be specified when `port` is not specified"),
        Value::Null => {}
        Value::String(name) => {
            if end.is_set() {
                end.invalid("may not be specified when `port` is non-numeric");
            }
            number.check(port_name(name));
        }
        _ => {
            number.port_number();
            if end.number().is_some_and(|end| end < number.number().unwrap_or(0)) {
                // Upstream shows the first port here.
                end.invalid_as(number.value.clone(), "must be greater than or equal to `port`");
            }
            end.port_number();
        }
    }
}

fn peer(peer: &At, tolerated: &Tolerated) {
    let (pods, namespaces, block) = (
        peer.get("podSelector"),
        peer.get("namespaceSelector"),
        peer.get("ipBlock"),
    );
    labels(&pods, tolerated);
    labels(&namespaces, tolerated);
    if block.is_set() {
        ip_block(&block, tolerated);
    }
    let selects = pods.is_set() || namespaces.is_set();
    match (selects, block.is_set()) {
        (false, false) => peer.missing("must specify a peer"),
        (true, true) => peer.forbidden("may not specify both ipBlock and another peer"),
        _ => {}
    }
}

/// A range of addresses and what is left out of it.
fn ip_block(block: &At, tolerated: &Tolerated) {
    let cidr = block.get("cidr");
    if !cidr.required() {
        return;
    }
    let strict = false;
    cidr.extend(cidr_legacy(&cidr.path, cidr.text(), strict, &tolerated.ranges));
    let Some(range) = range(cidr.text()) else { return };
    for except in block.items("except") {
        except.extend(cidr_legacy(&except.path, except.text(), strict, &tolerated.ranges));
        let Some((address, length)) = parse_cidr_sloppy(except.text()) else {
            continue;
        };
        let inside = range.contains(&address) && range.prefix_len() < length;
        except.ensure(inside, "must be a strict subset of `cidr`");
    }
}

fn range(text: &str) -> Option<IpNet> {
    let (address, length) = parse_cidr_sloppy(text)?;
    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, NOW, VALUE, check, yaml};

    fn ingress(rule: &str, errors: &[&str]) {
        let object = format!("spec: {{podSelector: {{}}, ingress: [{rule}]}}");
        check(&NetworkPolicies, Case::new(rule).object(&object).errors(errors));
    }

    #[test]
    fn defaults() {
        for case in [
            Case::new("directions")
                .object("spec: {podSelector: {}}")
                .field("spec.policyTypes", json!(["Ingress"])),
            Case::new("both")
                .object("spec: {podSelector: {}, egress: [{ports: [{port: 80}]}]}")
                .field("spec.policyTypes", json!(["Ingress", "Egress"]))
                .field("spec.egress.0.ports.0.protocol", "TCP"),
        ] {
            check(&NetworkPolicies, case);
        }
    }

    #[test]
    fn ports() {
        ingress(
            "{ports: [{port: 80, endPort: 90}, {port: dns, protocol: UDP}, {protocol: SCTP}]}",
            &[],
        );
        ingress(
            "{ports: [{port: 0, protocol: ICMP}, {port: 80, endPort: 70}, {port: dns, endPort: 80}, {endPort: 80}, \
             {port: a_b}]}",
            &[
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[1].endPort: Invalid value: 80: must be greater than or equal to `port`",
                "spec.ingress[0].ports[2].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
                "spec.ingress[0].ports[3].endPort: Invalid value: 80: may not be specified when `port` is not specified",
                "spec.ingress[0].ports[4].port: Invalid value: \"a_b\": must contain only alpha-numeric characters (a-z, 0-9), \
                 and hyphens (-)",
            ],
        );
    }

    #[test]
    fn peers() {
        ingress(
            "{from: [{podSelector: {}, namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}",
            &[],
        );
        ingress(
            "{from: [{}, {podSelector: {}, ipBlock: {cidr: '::/0'}}, {ipBlock: {}}, {ipBlock: {cidr: 10.0.0.0}}, \
             {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/16, x]}}]}",
            &[
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.ingress[0].from[2].ipBlock.cidr: Required value",
                "spec.ingress[0].from[3].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. \
                 10.9.8.0/24 or 2001:db8::/64)",
                "spec.ingress[0].from[4].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[4].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[4].ipBlock.except[2]: Invalid value: \"x\": must be a valid CIDR value, (e.g. \
                 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
    }

    #[test]
    fn spec() {
        let broken = "{matchExpressions: [{key: a, operator: In, values: ['?']}]}";
        for case in [
            Case::new("directions")
                .object("spec: {podSelector: {}, policyTypes: [Sideways]}")
                .errors(&[
                    "spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\"",
                ]),
            Case::new("too many directions")
                .object("spec: {podSelector: {}, policyTypes: [Ingress, Egress, Egress]}")
                .errors(&[
                    "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Egress\"]: may not specify more than two \
                     policyTypes",
                ]),
            Case::new("labels")
                .object(&format!("spec: {{podSelector: {broken}}}"))
                .errors(&[&format!(
                    "spec.podSelector.matchExpressions[0].values[0]: Invalid value: \"?\": {VALUE}"
                )]),
            Case::new("what was broken may stay")
                .old(&format!("spec: {{podSelector: {broken}}}"))
                .object(&format!("spec: {{podSelector: {broken}, ingress: []}}")),
        ] {
            check(&NetworkPolicies, case);
        }
    }

    #[test]
    fn warnings() {
        let context = WriteContext {
            now: NOW,
            subresource: "",
            user: crate::row::Writer::named("u"),
            version: "v1",
        };
        let policy = yaml("spec: {egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.5/16]}}]}]}");
        assert_eq!(
            NetworkPolicies.warnings(&policy, None, &context),
            [
                "spec.egress[0].to[0].ipBlock.except[0]: CIDR value \"10.1.0.5/16\" is ambiguous in this context (should be \
                 \"10.1.0.0/16\" or \"10.1.0.5/32\"?)"
            ]
        );
    }
}
