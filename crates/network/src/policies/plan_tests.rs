//! Upstream's world of policies (`test/e2e/network/netpol`): pods a, b and c in namespaces x, y and z, each with ports 80 and
//! 81 of TCP and UDP, all of them on this node. What a policy means is read off a kernel that applies changes as nftables does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use client::Object;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::objects::{PodObject, PolicyObject};
use super::super::selections::Member;
use super::super::views::RuleView;
use super::*;

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];
const PORTS: [(Protocol, u16); 4] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Udp, 80),
    (Protocol::Udp, 81),
];

/// The kernel's side: applies a delta strictly, step by step, and judges connections by what stands there.
#[derive(Debug, Default, PartialEq)]
struct Kernel {
    sets: BTreeMap<SetId, BTreeSet<Member>>,
    chains: BTreeMap<ChainId, Arc<Vec<Line>>>,
    leads: BTreeMap<(Direction, Ipv4Addr), ChainId>,
    isolated: BTreeSet<(Direction, Ipv4Addr)>,
    selves: BTreeSet<Ipv4Addr>,
    dns: BTreeSet<(Ipv4Addr, Protocol)>,
}

impl Kernel {
    fn apply(&mut self, delta: &Delta) {
        for (id, members) in &delta.add_sets {
            assert!(self.sets.insert(*id, members.iter().copied().collect()).is_none());
        }
        for (id, lines) in &delta.add_chains {
            assert!(
                lines
                    .iter()
                    .flat_map(Line::sets)
                    .all(|set| self.sets.contains_key(&set))
            );
            assert!(self.chains.insert(*id, lines.clone()).is_none());
        }
        for (id, member) in &delta.remove_members {
            assert!(self.sets.get_mut(id).unwrap().remove(member));
        }
        for (id, member) in &delta.add_members {
            assert!(self.sets.get_mut(id).unwrap().insert(*member));
        }
        for lead in &delta.remove_leads {
            assert!(self.leads.remove(lead).is_some());
        }
        for (direction, address, chain) in &delta.add_leads {
            assert!(self.chains.contains_key(chain));
            assert!(self.leads.insert((*direction, *address), *chain).is_none());
        }
        delta.release.iter().for_each(|key| assert!(self.isolated.remove(key)));
        delta.isolate.iter().for_each(|key| assert!(self.isolated.insert(*key)));
        delta
            .remove_selves
            .iter()
            .for_each(|key| assert!(self.selves.remove(key)));
        delta
            .add_selves
            .iter()
            .for_each(|key| assert!(self.selves.insert(*key)));
        delta.remove_dns.iter().for_each(|key| assert!(self.dns.remove(key)));
        delta.add_dns.iter().for_each(|key| assert!(self.dns.insert(*key)));
        for id in &delta.remove_chains {
            assert!(self.leads.values().all(|chain| chain != id));
            assert!(self.chains.remove(id).is_some());
        }
        for id in &delta.remove_sets {
            assert!(
                self.chains
                    .values()
                    .flat_map(|lines| lines.iter())
                    .flat_map(Line::sets)
                    .all(|set| set != *id)
            );
            assert!(self.sets.remove(id).is_some());
        }
    }

    fn allows(&self, from: Ipv4Addr, to: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        Direction::ALL.into_iter().all(|direction| {
            let (own, peer) = match direction {
                Direction::Egress => (from, to),
                Direction::Ingress => (to, from),
            };
            let chain = self.leads.get(&(direction, own)).map(|id| &self.chains[id]);
            let accepted =
                chain.is_some_and(|lines| lines.iter().any(|line| self.line(line, peer, to, protocol, port)));
            accepted || (from == to && self.selves.contains(&from)) || !self.isolated.contains(&(direction, own))
        })
    }

    fn line(&self, line: &Line, peer: Ipv4Addr, to: Ipv4Addr, protocol: Protocol, port: u16) -> bool {
        let there = match &line.peer {
            PeerMatch::Anyone => true,
            PeerMatch::Set(id) => self.sets[id].contains(&Member {
                address: peer,
                port: None,
            }),
            PeerMatch::Block(block) => block.contains(peer),
        };
        there
            && match line.port {
                PortMatch::Any => true,
                PortMatch::Protocol(of) => of == protocol,
                PortMatch::Range(of, first, last) => of == protocol && (first..=last).contains(&port),
                PortMatch::Set(of, id) => {
                    let member = Member {
                        address: to,
                        port: Some(port),
                    };
                    of == protocol && self.sets[&id].contains(&member)
                }
            }
    }
}

/// The cluster, as it is told to a plan.
struct World {
    plan: Plan,
    kernel: Kernel,
    pods: BTreeMap<(String, String), (PodView, Ipv4Addr)>,
    namespaces: BTreeMap<String, Labels>,
    policies: HashMap<ObjectName, PolicyView>,
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn namespace_labels(name: &str) -> Labels {
    labels(&[("kubernetes.io/metadata.name", name), ("ns", name)])
}

fn address(namespace: &str, pod: &str) -> Ipv4Addr {
    let place = |list: &[&str], name: &str| list.iter().position(|other| *other == name).unwrap() as u8;
    Ipv4Addr::new(10, 244, place(&NAMESPACES, namespace), 10 + place(&PODS, pod))
}

fn pod(namespace: &str, name: &str, labels: Value) -> PodView {
    let ports = PORTS.map(|(protocol, port)| {
        let protocol = protocol.label();
        json!({"name": format!("serve-{port}-{protocol}"), "containerPort": port, "protocol": protocol.to_uppercase()})
    });
    let object = json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"containers": [{"ports": ports}]}, "status": {"phase": "Running"},
    });
    PodObject::decode(object.to_string().as_bytes()).unwrap().view()
}

fn policy(namespace: &str, name: &str, spec: &Value) -> PolicyView {
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
    PolicyObject::decode(object.to_string().as_bytes()).unwrap().view()
}

impl World {
    fn new() -> World {
        let mut world = World {
            plan: Plan::new(Some(DNS)),
            kernel: Kernel::default(),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: HashMap::new(),
        };
        world.label_namespace("kube-system", Some(namespace_labels("kube-system")));
        for namespace in NAMESPACES {
            world.label_namespace(namespace, Some(namespace_labels(namespace)));
            for name in PODS {
                world.put(pod(namespace, name, json!({"pod": name})));
            }
        }
        world.plan.learn();
        world.plan.enforce();
        world
    }

    fn put(&mut self, view: PodView) {
        let name = view.name.clone();
        let at = address(&name.namespace, &name.name);
        self.plan.attach(&name.to_string(), name.clone(), at);
        self.plan.set_pod(&name, Some(view.clone()));
        self.pods.insert((name.namespace, name.name), (view, at));
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let object = ObjectName::new(namespace, name);
        self.plan.detach(&object.to_string());
        self.plan.set_pod(&object, None);
        self.pods.remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn label_namespace(&mut self, name: &str, labels: Option<Labels>) {
        self.plan.set_namespace(name, labels.as_ref());
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    fn set(&mut self, namespace: &str, name: &str, spec: Option<&Value>) {
        let object = ObjectName::new(namespace, name);
        let view = spec.map(|spec| policy(namespace, name, spec));
        self.plan.set_policy(&object, view.as_ref());
        match view {
            Some(view) => self.policies.insert(object, view),
            None => self.policies.remove(&object),
        };
    }

    fn write(&mut self) {
        let delta = self.plan.plan();
        self.kernel.apply(&delta);
        assert!(!self.plan.is_dirty() && self.plan.plan().is_empty());
    }

    /// What upstream's documentation says, word by word, without anything that is kept.
    fn means(&self, from: &(String, String), to: &(String, String), protocol: Protocol, port: u16) -> bool {
        let side = |direction: Direction, own: &(String, String), other: &(String, String)| {
            let (view, _) = &self.pods[own];
            let mut rules = Vec::new();
            let mut isolated = false;
            for policy in self.policies.values() {
                if policy.name.namespace == own.0 && policy.pods.matches(&view.labels) {
                    isolated |= policy.rules.contains_key(&direction);
                    rules.extend(policy.rules.get(&direction).into_iter().flatten());
                }
            }
            !isolated || rules.into_iter().any(|rule| self.rule(rule, other, protocol, port))
        };
        from == to || (side(Direction::Egress, from, to) && side(Direction::Ingress, to, from))
    }

    fn rule(&self, rule: &RuleView, peer: &(String, String), protocol: Protocol, port: u16) -> bool {
        use super::super::views::Namespaces;
        let (view, at) = &self.pods[peer];
        let there = |wanted: &PeerView| match wanted {
            PeerView::Block(block) => block.contains(*at),
            PeerView::Pods(pods) => {
                let namespace = match &pods.namespaces {
                    Namespaces::Own(own) => *own == peer.0,
                    Namespaces::Selected(selector) => self
                        .namespaces
                        .get(&peer.0)
                        .is_some_and(|labels| selector.matches(labels)),
                };
                namespace && pods.pods.matches(&view.labels)
            }
        };
        let fits = |wanted: &PortView| match wanted {
            PortView::All(of) => *of == protocol,
            PortView::Numbers(of, first, last) => *of == protocol && *first <= port && port <= *last,
            PortView::Named(of, name) => *of == protocol && *name == format!("serve-{port}-{}", protocol.label()),
        };
        rule.peers.as_ref().is_none_or(|peers| peers.iter().any(there))
            && rule.ports.as_ref().is_none_or(|ports| ports.iter().any(fits))
    }

    /// Asks every pod for every port of every other.
    fn check(&self, case: &str, expect: impl Fn((&str, &str), (&str, &str), Protocol, u16) -> bool) {
        for (from, (_, source)) in &self.pods {
            for (to, (_, target)) in &self.pods {
                for (protocol, port) in PORTS {
                    let expect = from == to || expect((&from.0, &from.1), (&to.0, &to.1), protocol, port);
                    let found = self.kernel.allows(*source, *target, protocol, port);
                    assert_eq!(found, expect, "{case}: {from:?} to {to:?} {protocol:?} {port}");
                    assert_eq!(
                        self.means(from, to, protocol, port),
                        expect,
                        "{case}: {from:?} to {to:?}, by the words"
                    );
                }
            }
        }
    }
}

type Expect = fn((&str, &str), (&str, &str), Protocol, u16) -> bool;

/// Policies of namespace x and who reaches whom. The names are those of upstream's cases.
fn cases() -> Vec<(&'static str, Vec<Value>, Expect)> {
    let a = json!({"matchLabels": {"pod": "a"}});
    let of = |pods: Value, mut spec: Value| {
        spec["podSelector"] = pods;
        spec
    };
    let all = json!({});
    vec![
        (
            "default-deny-ingress",
            vec![of(all.clone(), json!({}))],
            |_, to, _, _| to.0 != "x",
        ),
        (
            "default-deny-all",
            vec![of(all.clone(), json!({"policyTypes": ["Ingress", "Egress"]}))],
            |from, to, _, _| to.0 != "x" && from.0 != "x",
        ),
        (
            "allow traffic from pods within server namespace based on PodSelector",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || from == ("x", "b"),
        ),
        (
            "allow ingress traffic for a target",
            vec![of(all.clone(), json!({})), of(a.clone(), json!({"ingress": [{}]}))],
            |_, to, _, _| to.0 != "x" || to == ("x", "a"),
        ),
        (
            "allow ingress traffic from pods in all namespaces",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{"namespaceSelector": {}}]}]}),
            )],
            |_, _, _, _| true,
        ),
        (
            "only from a different namespace, based on NamespaceSelector",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || from.0 == "y",
        ),
        (
            "PodSelector with MatchExpressions",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{"podSelector":
                {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b"]}]}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || from == ("x", "b"),
        ),
        (
            "NamespaceSelector with MatchExpressions using the default label",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{"namespaceSelector": {"matchExpressions":
                [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["x"]}]}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || from.0 != "x",
        ),
        (
            "PodSelector or NamespaceSelector",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [
                {"namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}},
                {"podSelector": {"matchLabels": {"pod": "b"}}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || from.0 != "x" || from.1 == "b",
        ),
        (
            "PodSelector and NamespaceSelector",
            vec![of(
                a.clone(),
                json!({"ingress": [{"from": [{
                "namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]},
                "podSelector": {"matchLabels": {"pod": "b"}}}]}]}),
            )],
            |from, to, _, _| to != ("x", "a") || (from.0 != "x" && from.1 == "b"),
        ),
        (
            "Ports",
            vec![of(
                a.clone(),
                json!({"ingress": [{"ports": [{"port": 81}], "from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]}),
            )],
            |from, to, protocol, port| to != ("x", "a") || (from.0 == "y" && (protocol, port) == (Protocol::Tcp, 81)),
        ),
        (
            "stacked policies with overlapping podSelectors",
            vec![
                of(a.clone(), json!({"ingress": [{"ports": [{"port": 81}]}]})),
                of(a.clone(), json!({"ingress": [{"ports": [{"port": 80}]}]})),
            ],
            |_, to, protocol, _| to != ("x", "a") || protocol == Protocol::Tcp,
        ),
        (
            "allow-all",
            vec![of(all.clone(), json!({})), of(all.clone(), json!({"ingress": [{}]}))],
            |_, _, _, _| true,
        ),
        (
            "ingress on one named port",
            vec![of(
                all.clone(),
                json!({"ingress": [{"ports": [{"port": "serve-81-tcp"}]}]}),
            )],
            |_, to, protocol, port| to.0 != "x" || (protocol, port) == (Protocol::Tcp, 81),
        ),
        (
            "egress on one named port",
            vec![of(
                all.clone(),
                json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": "serve-80-udp", "protocol": "UDP"}]}]}),
            )],
            |from, _, protocol, port| from.0 != "x" || (protocol, port) == (Protocol::Udp, 80),
        ),
        (
            "deny egress from pods based on PodSelector",
            vec![of(a.clone(), json!({"policyTypes": ["Egress"]}))],
            |from, _, _, _| from != ("x", "a"),
        ),
        (
            "Ingress, Egress specified together",
            vec![of(
                a.clone(),
                json!({
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]}],
                    "egress": [{"ports": [{"port": 80}]}],
                }),
            )],
            |from, to, protocol, port| {
                (to != ("x", "a") || from == ("x", "b"))
                    && (from != ("x", "a") || (protocol, port) == (Protocol::Tcp, 80))
            },
        ),
        (
            "egress to a server in a different namespace",
            vec![of(
                a.clone(),
                json!({"policyTypes": ["Egress"], "egress": [{"to": [{
                "namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "a"}}}]}]}),
            )],
            |from, to, _, _| from != ("x", "a") || to == ("y", "a"),
        ),
        (
            "any port on a specific protocol",
            vec![of(a.clone(), json!({"ingress": [{"ports": [{"protocol": "TCP"}]}]}))],
            |_, to, protocol, _| to != ("x", "a") || protocol == Protocol::Tcp,
        ),
        (
            "SCTP is not TCP",
            vec![of(
                all.clone(),
                json!({"ingress": [{"ports": [{"protocol": "SCTP", "port": 81}]}]}),
            )],
            |_, to, _, _| to.0 != "x",
        ),
        (
            "a range of ports",
            vec![of(
                all.clone(),
                json!({"ingress": [{"ports": [{"port": 70, "endPort": 80, "protocol": "UDP"}]}]}),
            )],
            |_, to, protocol, port| to.0 != "x" || (protocol, port) == (Protocol::Udp, 80),
        ),
        (
            "egress to a server in CIDR block",
            vec![of(
                a.clone(),
                json!({"policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "10.244.1.11/32"}}]}]}),
            )],
            |from, to, _, _| from != ("x", "a") || to == ("y", "b"),
        ),
        (
            "except clause",
            vec![of(
                a.clone(),
                json!({"policyTypes": ["Egress"], "egress": [{"to": [
                {"ipBlock": {"cidr": "10.244.1.0/24", "except": ["10.244.1.11/32"]}}]}]}),
            )],
            |from, to, _, _| from != ("x", "a") || (to.0 == "y" && to.1 != "b"),
        ),
        (
            "an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
            vec![of(
                a.clone(),
                json!({"policyTypes": ["Egress"], "egress": [{"to": [
                {"ipBlock": {"cidr": "10.244.1.0/24", "except": ["10.244.1.11/32"]}}, {"ipBlock": {"cidr": "10.244.1.11/32"}}]}]}),
            )],
            |from, to, _, _| from != ("x", "a") || to.0 == "y",
        ),
        (
            "a policy selects pods of its own namespace only",
            vec![of(json!({"matchLabels": {"pod": "nobody"}}), json!({}))],
            |_, _, _, _| true,
        ),
    ]
}

#[test]
fn upstreams_cases() {
    for (case, policies, expect) in cases() {
        let mut world = World::new();
        for (number, spec) in policies.iter().enumerate() {
            world.set("x", &number.to_string(), Some(spec));
        }
        world.write();
        world.check(case, expect);
        // What is deleted is enforced no more, and nothing of it is left.
        for number in 0..policies.len() {
            world.set("x", &number.to_string(), None);
        }
        world.write();
        world.check(case, |_, _, _, _| true);
        assert_eq!(world.kernel, Kernel::default(), "{case}");
    }
}

#[test]
fn labels_that_change_change_who_is_selected_and_who_is_a_peer() {
    let mut world = World::new();
    let peer = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{
        "namespaceSelector": {"matchLabels": {"team": "t"}}, "podSelector": {"matchLabels": {"role": "client"}}}]}]});
    world.set("x", "p", Some(&peer));
    world.write();
    world.check("nobody has the labels", |_, to, _, _| to != ("x", "a"));
    world.put(pod("y", "b", json!({"pod": "b", "role": "client"})));
    world.write();
    world.check("a pod, but not its namespace", |_, to, _, _| to != ("x", "a"));
    let mut team = namespace_labels("y");
    team.insert("team".to_owned(), "t".to_owned());
    world.label_namespace("y", Some(team));
    world.write();
    world.check("both", |from, to, _, _| to != ("x", "a") || from == ("y", "b"));
    world.put(pod("x", "a", json!({"pod": "z"})));
    world.put(pod("x", "c", json!({"pod": "a"})));
    world.write();
    world.check("another is selected", |from, to, _, _| {
        to != ("x", "c") || from == ("y", "b")
    });
    world.label_namespace("y", Some(namespace_labels("y")));
    world.write();
    world.check("the namespace is no peer any more", |_, to, _, _| to != ("x", "c"));
}

#[test]
fn pods_with_equal_rights_share_a_chain_and_chains_share_sets() {
    let mut world = World::new();
    let from_b = json!({"from": [{"podSelector": {"matchLabels": {"pod": "b"}}}]});
    world.set("x", "p", Some(&json!({"ingress": [from_b]})));
    world.write();
    assert_eq!(world.plan.size(), (1, 1));
    let mut narrow = from_b.clone();
    narrow["ports"] = json!([{"port": 81}]);
    world.set(
        "x",
        "q",
        Some(&json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [narrow]})),
    );
    world.write();
    assert_eq!(world.plan.size(), (2, 1));
    // Another replica costs elements only.
    world.remove("x", "c");
    world.write();
    world.put(pod("x", "c", json!({"pod": "c"})));
    let delta = world.plan.plan();
    assert!(delta.add_chains.is_empty() && delta.add_sets.is_empty() && delta.add_members.is_empty());
    assert_eq!(
        (delta.add_leads.len(), delta.isolate.len(), delta.add_selves.len()),
        (1, 1, 1)
    );
    world.kernel.apply(&delta);
    // And one more client an element of one set.
    world.remove("x", "b");
    world.write();
    world.put(pod("x", "b", json!({"pod": "b"})));
    let delta = world.plan.plan();
    assert_eq!(delta.add_members.len(), 1);
}

#[test]
fn a_pod_that_is_not_known_is_closed() {
    let mut plan = Plan::new(None);
    let mut kernel = Kernel::default();
    let (pod_name, at, other) = (ObjectName::new("x", "a"), address("x", "a"), address("y", "a"));
    plan.attach("sandbox", pod_name.clone(), at);
    assert!(!plan.is_dirty() && plan.plan().is_empty(), "no policy, no rules");
    plan.learn();
    assert!(plan.plan().is_empty());
    plan.enforce();
    assert!(plan.is_dirty());
    kernel.apply(&plan.plan());
    let ways =
        |kernel: &Kernel| [(at, other), (other, at)].map(|(from, to)| kernel.allows(from, to, Protocol::Tcp, 80));
    assert_eq!(ways(&kernel), [false, false]);
    plan.set_pod(&pod_name, Some(pod("x", "a", json!({}))));
    kernel.apply(&plan.plan());
    assert_eq!(ways(&kernel), [true, true]);
    plan.detach("sandbox");
    plan.set_pod(&pod_name, None);
    kernel.apply(&plan.plan());
    assert_eq!(kernel, Kernel::default());
}

#[test]
fn an_address_that_passes_to_another_pod_follows_it() {
    let mut plan = Plan::new(None);
    let mut kernel = Kernel::default();
    plan.learn();
    plan.enforce();
    let (old, new, at) = (ObjectName::new("x", "a"), ObjectName::new("x", "b"), address("x", "a"));
    let view = policy(
        "x",
        "p",
        &json!({"policyTypes": ["Egress"], "podSelector": {"matchLabels": {"closed": "y"}}}),
    );
    plan.set_policy(&view.name.clone(), Some(&view));
    for (name, labels) in [(&old, json!({"closed": "y"})), (&new, json!({"closed": "y"}))] {
        plan.set_pod(name, Some(pod("x", &name.name, labels)));
    }
    plan.attach("first", old, at);
    kernel.apply(&plan.plan());
    // In one round.
    plan.detach("first");
    plan.attach("second", new.clone(), at);
    kernel.apply(&plan.plan());
    assert!(!kernel.allows(at, address("y", "a"), Protocol::Tcp, 80));
    plan.set_pod(&new, Some(pod("x", "b", json!({}))));
    kernel.apply(&plan.plan());
    assert!(kernel.allows(at, address("y", "a"), Protocol::Tcp, 80));
}

#[test]
fn who_may_ask_the_clusters_dns() {
    use Protocol::{Tcp, Udp};
    let dns = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
    let check = |egress: Value, expect: &[Protocol]| {
        let mut world = World::new();
        let spec = json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Egress"], "egress": egress});
        world.set("x", "p", Some(&spec));
        world.write();
        let found: Vec<Protocol> = world
            .kernel
            .dns
            .iter()
            .map(|(at, protocol)| {
                assert_eq!(*at, address("x", "a"));
                *protocol
            })
            .collect();
        let mut expect = expect.to_vec();
        expect.sort_unstable();
        assert_eq!(found, expect, "{spec}");
    };
    check(json!([]), &[]);
    check(json!([{}]), &[Udp, Tcp]);
    check(json!([{"ports": [{"protocol": "UDP", "port": 53}]}]), &[Udp]);
    check(
        json!([{"to": [dns], "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]),
        &[Udp, Tcp],
    );
    check(
        json!([{"to": [dns], "ports": [{"protocol": "UDP", "port": "dns"}]}]),
        &[Udp],
    );
    check(
        json!([{"to": [dns], "ports": [{"protocol": "TCP", "port": "dns-tcp"}]}]),
        &[Tcp],
    );
    check(json!([{"to": [dns], "ports": [{"port": 443}]}]), &[]);
    check(json!([{"to": [{"namespaceSelector": {}}]}]), &[Udp, Tcp]);
    check(
        json!([{"to": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}]}]),
        &[],
    );
    check(json!([{"to": [{"podSelector": {}}]}]), &[]);
    check(json!([{"to": [{"ipBlock": {"cidr": "10.96.0.0/12"}}]}]), &[Udp, Tcp]);

    // The labels of its namespace count.
    let mut world = World::new();
    let egress = json!([{"to": [{"namespaceSelector": {"matchLabels": {"dns": "here"}}}]}]);
    world.set("x", "p", Some(&json!({"policyTypes": ["Egress"], "egress": egress})));
    world.write();
    assert!(world.kernel.dns.is_empty());
    world.label_namespace("kube-system", Some(labels(&[("dns", "here")])));
    world.write();
    assert_eq!(world.kernel.dns.len(), 6, "two protocols of three pods");
}

/// A selector over few labels and values, so that many meet.
fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        (0..3usize).prop_map(|at| json!({"matchLabels": {"pod": PODS[at]}})),
        (0..3usize).prop_map(
            |at| json!({"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": [NAMESPACES[at]]}]})
        ),
        Just(json!({"matchExpressions": [{"key": "extra", "operator": "Exists"}]})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(pods, namespaces)| json!({"podSelector": pods, "namespaceSelector": namespaces})),
        (0..3u8).prop_map(
            |at| json!({"ipBlock": {"cidr": format!("10.244.{at}.0/24"), "except": [format!("10.244.{at}.11/32")]}})
        ),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"protocol": "UDP"})),
        Just(json!({"port": 80})),
        Just(json!({"port": 80, "endPort": 81, "protocol": "UDP"})),
        Just(json!({"port": "serve-81-tcp"})),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let rule = |peers: &'static str| {
        (prop::collection::vec(peer(), 0..3), prop::collection::vec(port(), 0..3))
            .prop_map(move |(list, ports)| json!({peers: list, "ports": ports}))
    };
    let types = prop_oneof![
        Just(json!(["Ingress"])),
        Just(json!(["Egress"])),
        Just(json!(["Ingress", "Egress"]))
    ];
    let rules = (
        prop::collection::vec(rule("from"), 0..3),
        prop::collection::vec(rule("to"), 0..3),
    );
    (selector(), types, rules).prop_map(|(pods, types, (ingress, egress))| {
        json!({"podSelector": pods, "policyTypes": types, "ingress": ingress, "egress": egress})
    })
}

/// A step: a policy comes or goes, a pod or namespace gets or loses a label, a pod goes or comes back.
#[derive(Debug, Clone)]
enum Step {
    Policy(usize, u8, Option<Value>),
    Pod(usize, usize, bool),
    Gone(usize, usize),
    Namespace(usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..3u8, prop::option::of(spec())).prop_map(|(at, name, spec)| Step::Policy(at, name, spec)),
        2 => (0..3usize, 0..3usize, any::<bool>()).prop_map(|(at, pod, extra)| Step::Pod(at, pod, extra)),
        1 => (0..3usize, 0..3usize).prop_map(|(at, pod)| Step::Gone(at, pod)),
        1 => (0..3usize, any::<bool>()).prop_map(|(at, extra)| Step::Namespace(at, extra)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_sequence_of_changes_means_what_the_policies_say(steps in prop::collection::vec(step(), 1..25), together in 1..4usize) {
        let mut world = World::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Policy(at, name, spec) => world.set(NAMESPACES[at], &name.to_string(), spec.as_ref()),
                Step::Pod(at, which, extra) => {
                    let mut labels = json!({"pod": PODS[which]});
                    if extra {
                        labels["extra"] = json!("");
                    }
                    world.put(pod(NAMESPACES[at], PODS[which], labels));
                }
                Step::Gone(at, which) => world.remove(NAMESPACES[at], PODS[which]),
                Step::Namespace(at, extra) => {
                    let mut labels = namespace_labels(NAMESPACES[at]);
                    if extra {
                        labels.insert("extra".to_owned(), String::new());
                    }
                    world.label_namespace(NAMESPACES[at], Some(labels));
                }
            }
            if number % together > 0 {
                continue;
            }
            world.write();
        }
        world.write();
        for (from, (_, source)) in &world.pods {
            for (to, (_, target)) in &world.pods {
                for (protocol, port) in PORTS {
                    let found = world.kernel.allows(*source, *target, protocol, port);
                    prop_assert_eq!(found, world.means(from, to, protocol, port), "{:?} to {:?} {:?} {}", from, to, protocol, port);
                }
            }
        }
        let mut fresh = Kernel::default();
        fresh.apply(&world.plan.rebuild());
        prop_assert_eq!(&fresh, &world.kernel);
    }
}
