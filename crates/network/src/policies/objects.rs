//! Pods, Namespaces and NetworkPolicies as the API sends them, with only the fields that policies read, and what they mean.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use api::Value;
use api::validation::parse_cidr_sloppy;
use client::{Meta, resources, view_kind};
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::Direction;
use super::views::{
    Block, Labels, NamedPort, Namespaces, PeerView, PodPeer, PodView, PolicyView, PortView, RuleView, Selector,
};
use crate::objects::Metadata;
use crate::views::{ObjectName, Protocol};

/// A Pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    metadata: Metadata,
    spec: PodSpec,
    status: PodStatus,
}

/// A Namespace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    metadata: Metadata,
}

/// A NetworkPolicy.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PolicyObject {
    metadata: Metadata,
    spec: PolicySpec,
}

view_kind!(PodObject, resources::PODS);
view_kind!(NamespaceObject, resources::NAMESPACES);
view_kind!(PolicyObject, resources::NETWORK_POLICIES);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    host_network: Option<bool>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    restart_policy: Option<String>,
    ports: Option<Vec<ContainerPort>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    protocol: Option<String>,
    container_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PolicySpec {
    pod_selector: Option<Value>,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    ports: Option<Vec<Port>>,
    from: Option<Vec<Peer>>,
    to: Option<Vec<Peer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    protocol: Option<String>,
    port: Option<Value>,
    end_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Peer {
    pod_selector: Option<Value>,
    namespace_selector: Option<Value>,
    ip_block: Option<IpBlock>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IpBlock {
    cidr: String,
    except: Option<Vec<String>>,
}

impl PodObject {
    /// Which one.
    pub fn object_name(&self) -> ObjectName {
        self.metadata.object_name()
    }

    /// What it means.
    pub fn view(&self) -> PodView {
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let addresses = self.status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        let mut addresses: Vec<Ipv4Addr> = addresses
            .chain(&self.status.pod_ip)
            .filter_map(|ip| ip.parse().ok())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        // Those of init containers count while they run beside the others: as upstream resolves `targetPort`.
        let sidecars = self.spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers = self.spec.containers.iter().flatten().chain(sidecars);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        PodView {
            name: self.object_name(),
            labels: self.metadata.labels().clone(),
            addresses,
            is_peer: !ended && self.spec.host_network != Some(true),
            ports: ports.filter_map(ContainerPort::view).collect(),
        }
    }
}

impl ContainerPort {
    fn view(&self) -> Option<NamedPort> {
        Some(NamedPort {
            name: self.name.clone().filter(|name| !name.is_empty())?,
            protocol: Protocol::parse(self.protocol.as_deref())?,
            port: self.container_port?,
        })
    }
}

impl NamespaceObject {
    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata.name()
    }

    /// Its labels.
    pub fn labels(&self) -> &Labels {
        self.metadata.labels()
    }
}

impl PolicyObject {
    /// Which one.
    pub fn object_name(&self) -> ObjectName {
        self.metadata.object_name()
    }

    /// What it means; the API server has written the defaults, and they hold here, too.
    pub fn view(&self) -> PolicyView {
        let name = self.object_name();
        let spec = &self.spec;
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let directions: Vec<Direction> = match &spec.policy_types {
            Some(types) if !types.is_empty() => types.iter().filter_map(|text| Direction::parse(text)).collect(),
            _ if has_egress => Direction::ALL.to_vec(),
            _ => vec![Direction::Ingress],
        };
        let rules: BTreeMap<Direction, Vec<RuleView>> = directions
            .into_iter()
            .map(|direction| {
                let (rules, peers): (_, fn(&Rule) -> &Option<Vec<Peer>>) = match direction {
                    Direction::Ingress => (&spec.ingress, |rule| &rule.from),
                    Direction::Egress => (&spec.egress, |rule| &rule.to),
                };
                let rules = rules.iter().flatten();
                let views = rules.map(|rule| rule.view(peers(rule), &name.namespace));
                (direction, views.collect())
            })
            .collect();
        PolicyView {
            pods: spec
                .pod_selector
                .as_ref()
                .map_or_else(Selector::everything, Selector::of),
            name,
            rules,
        }
    }
}

impl Rule {
    fn view(&self, peers: &Option<Vec<Peer>>, namespace: &str) -> RuleView {
        RuleView {
            peers: listed(peers, |peer| peer.view(namespace)),
            ports: listed(&self.ports, Port::view),
        }
    }
}

/// What the elements of a list mean; none for a list without elements, which restricts nothing.
fn listed<T, V>(list: &Option<Vec<T>>, view: impl FnMut(&T) -> Option<V>) -> Option<Vec<V>> {
    let list = list.as_ref().filter(|list| !list.is_empty())?;
    Some(list.iter().filter_map(view).collect())
}

impl Peer {
    /// None for what has nothing to do with IPv4.
    fn view(&self, namespace: &str) -> Option<PeerView> {
        if let Some(block) = &self.ip_block {
            return Some(PeerView::Block(Arc::new(block.view()?)));
        }
        let namespaces = match &self.namespace_selector {
            Some(selector) => Namespaces::Selected(Selector::of(selector)),
            None => {
                self.pod_selector.as_ref()?;
                Namespaces::Own(namespace.to_owned())
            }
        };
        let pods = self
            .pod_selector
            .as_ref()
            .map_or_else(Selector::everything, Selector::of);
        Some(PeerView::Pods(Arc::new(PodPeer { namespaces, pods })))
    }
}

impl IpBlock {
    /// A gap that cannot be read makes the whole block one that allows nobody.
    fn view(&self) -> Option<Block> {
        let gaps = self.except.iter().flatten();
        Some(Block {
            range: range(&self.cidr)?,
            except: gaps.map(|gap| range(gap)).collect::<Option<_>>()?,
        })
    }
}

fn range(text: &str) -> Option<Ipv4Net> {
    let (IpAddr::V4(address), length) = parse_cidr_sloppy(text)? else {
        return None;
    };
    Some(Ipv4Net::new(address, length).ok()?.trunc())
}

impl Port {
    fn view(&self) -> Option<PortView> {
        let protocol = Protocol::parse(self.protocol.as_deref())?;
        Some(match &self.port {
            None | Some(Value::Null) => PortView::All(protocol),
            Some(Value::String(name)) => PortView::Named(protocol, name.clone()),
            Some(number) => {
                let first = u16::try_from(number.as_u64()?).ok()?;
                PortView::Numbers(protocol, first, self.end_port.unwrap_or(first))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Object;
    use serde_json::json;

    fn policy(spec: Value) -> PolicyView {
        let object = json!({"metadata": {"namespace": "a", "name": "p"}, "spec": spec});
        PolicyObject::decode(object.to_string().as_bytes()).unwrap().view()
    }

    #[test]
    fn directions_follow_from_the_types_or_the_rules() {
        use Direction::{Egress, Ingress};
        for (spec, expect) in [
            (json!({"podSelector": {}}), vec![Ingress]),
            (json!({"egress": [{}]}), vec![Ingress, Egress]),
            (json!({"egress": []}), vec![Ingress]),
            (json!({"policyTypes": ["Egress"]}), vec![Egress]),
            (
                json!({"policyTypes": ["Egress", "Ingress"], "ingress": null}),
                vec![Ingress, Egress],
            ),
        ] {
            let directions: Vec<_> = policy(spec.clone()).rules.into_keys().collect();
            assert_eq!(directions, expect, "{spec}");
        }
    }

    #[test]
    fn empty_lists_restrict_nothing_and_bad_elements_allow_nothing() {
        let check = |rule: Value, peers: Option<usize>, ports: Option<usize>| {
            let view = policy(json!({"ingress": [rule]}));
            let found = &view.rules[&Direction::Ingress][0];
            assert_eq!(found.peers.as_ref().map(Vec::len), peers, "{rule}");
            assert_eq!(found.ports.as_ref().map(Vec::len), ports, "{rule}");
        };
        check(json!({}), None, None);
        check(json!({"from": [], "ports": []}), None, None);
        check(json!({"from": null, "ports": null}), None, None);
        check(json!({"from": [{"podSelector": {}}], "ports": [{}]}), Some(1), Some(1));
        check(json!({"from": [{}], "ports": [{"protocol": "X"}]}), Some(0), Some(0));
        check(
            json!({"from": [{"ipBlock": {"cidr": "2001:db8::/32"}}], "ports": [{"port": 99999}]}),
            Some(0),
            Some(0),
        );
        check(
            json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["?"]}}]}),
            Some(0),
            None,
        );
        // What egress is for is not what ingress is from.
        check(json!({"to": [{"podSelector": {}}]}), None, None);
    }

    #[test]
    fn peers_and_ports() {
        let view = policy(json!({"egress": [{
            "to": [
                {"podSelector": {"matchLabels": {"x": "y"}}},
                {"namespaceSelector": {}},
                {"podSelector": {}, "namespaceSelector": {"matchExpressions": [{"key": "k", "operator": "Exists"}]}},
                {"ipBlock": {"cidr": "10.1.2.3/16", "except": ["10.1.2.0/24"]}},
            ],
            "ports": [{"port": 80}, {"protocol": "UDP", "port": 1, "endPort": 9}, {"port": "web"}, {"protocol": "SCTP"}],
        }]}));
        let rule = &view.rules[&Direction::Egress][0];
        let peers: Vec<String> = rule.peers.iter().flatten().map(|peer| format!("{peer:?}")).collect();
        assert!(
            peers[0].contains("Own(\"a\")") && peers[0].contains("x=y"),
            "{}",
            peers[0]
        );
        assert!(peers[1].contains("Selected"), "{}", peers[1]);
        assert!(peers[2].contains("\"k\""), "{}", peers[2]);
        let PeerView::Block(block) = &rule.peers.as_ref().unwrap()[3] else {
            panic!("a block")
        };
        let held = [[10, 1, 9, 9], [10, 1, 2, 9], [10, 2, 0, 1]].map(|address| block.contains(address.into()));
        assert_eq!(held, [true, false, false]);
        let expect = [
            PortView::Numbers(Protocol::Tcp, 80, 80),
            PortView::Numbers(Protocol::Udp, 1, 9),
            PortView::Named(Protocol::Tcp, "web".to_owned()),
            PortView::All(Protocol::Sctp),
        ];
        assert_eq!(rule.ports.as_deref(), Some(&expect[..]));
    }

    #[test]
    fn pods() {
        let check = |spec: Value, status: Value, is_peer: bool, addresses: &[&str], ports: &[(&str, u16)]| {
            let object = json!({"metadata": {"namespace": "a", "name": "p", "labels": {"x": "y"}}, "spec": spec, "status": status});
            let view = PodObject::decode(object.to_string().as_bytes()).unwrap().view();
            assert_eq!(view.is_peer, is_peer, "{object}");
            let found: Vec<String> = view.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(found, addresses, "{object}");
            let found: Vec<_> = view.ports.iter().map(|port| (port.name.as_str(), port.port)).collect();
            assert_eq!(found, ports, "{object}");
        };
        let both =
            json!({"phase": "Running", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}, {"ip": "fd00::2"}]});
        let container = |ports: Value| json!({"ports": ports});
        let named = json!([{"name": "web", "containerPort": 8080}, {"containerPort": 1}]);
        check(
            json!({"containers": [container(named.clone())]}),
            both.clone(),
            true,
            &["10.244.0.2"],
            &[("web", 8080)],
        );
        check(json!({"hostNetwork": true}), both.clone(), false, &["10.244.0.2"], &[]);
        for phase in ["Succeeded", "Failed"] {
            check(json!({}), json!({"phase": phase}), false, &[], &[]);
        }
        let sidecar = json!({"restartPolicy": "Always", "ports": named});
        check(
            json!({"initContainers": [sidecar]}),
            both.clone(),
            true,
            &["10.244.0.2"],
            &[("web", 8080)],
        );
        check(
            json!({"initContainers": [container(named)]}),
            both,
            true,
            &["10.244.0.2"],
            &[],
        );
    }
}
