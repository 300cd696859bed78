//! The ranges that cluster IPs come from: those of all ServiceCIDRs that are ready and are not being deleted.
//!
//! Source: `pkg/registry/core/service/ipallocator/cidrallocator.go` and `pkg/api/servicecidr`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use api::{GroupResource, Value, meta};
use ipnet::{IpNet, Ipv4Net};

use crate::cluster::{Change, Changes, Cluster};

/// The ServiceCIDR of the range that the server was started with.
pub(super) const DEFAULT: &str = "kubernetes";
pub(super) const GROUP: &str = "networking.k8s.io";

/// `servicecidrs.networking.k8s.io`.
pub(super) fn service_cidrs() -> GroupResource {
    GroupResource {
        group: GROUP.into(),
        resource: "servicecidrs".into(),
    }
}

/// The addresses of a range that are given. Upstream leaves out those of the network and for broadcasts.
pub(super) fn usable(range: Ipv4Net) -> Range<u32> {
    let first = u32::from(range.network()).saturating_add(1);
    first..u32::from(range.broadcast()).max(first)
}

/// Whether an address is one of a range, of either family (upstream: `PrefixContainsIP`).
pub(super) fn holds(range: IpNet, address: std::net::IpAddr) -> bool {
    range.contains(&address)
        && range.network() != address
        && !(range.network().is_ipv4() && range.broadcast() == address)
}

/// The ranges that a ServiceCIDR names.
pub(super) fn of(object: &Value) -> Vec<IpNet> {
    let listed = object["spec"]["cidrs"].as_array().into_iter().flatten();
    listed.filter_map(|range| range.as_str()?.parse().ok()).collect()
}

struct Entry {
    /// Ready, and not being deleted.
    gives: bool,
    ranges: Vec<IpNet>,
}

/// What is known of the ServiceCIDRs.
pub(super) struct Ranges {
    default: Ipv4Net,
    changes: Box<dyn Changes>,
    by_name: BTreeMap<String, Entry>,
}

// === impl Ranges ===

impl Ranges {
    /// Follows the ServiceCIDRs. While there is none called `kubernetes`, `default` stands for it.
    pub(super) fn follow(default: Ipv4Net, cluster: &dyn Cluster) -> Ranges {
        Ranges {
            default,
            changes: cluster.changes(&service_cidrs()),
            by_name: BTreeMap::new(),
        }
    }

    fn set(&mut self, object: &Value) {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
        let ready = match ready.next() {
            Some(condition) => condition["status"] == "True",
            // It is about to be told so.
            None => meta::name(object) == DEFAULT && of(object).contains(&self.default.into()),
        };
        let entry = Entry {
            gives: ready && !meta::is_deleting(object),
            ranges: of(object),
        };
        self.by_name.insert(meta::name(object).to_owned(), entry);
    }

    fn catch_up(&mut self) {
        while let Some(change) = self.changes.try_next() {
            match change {
                Change::Reset(all) => {
                    self.by_name.clear();
                    all.iter().for_each(|object| self.set(&object.value()));
                }
                Change::Changed { new: Some(new), .. } => self.set(&new.value()),
                Change::Changed { old, new: None } => {
                    if let Some(old) = old {
                        self.by_name.remove(old.name());
                    }
                }
            }
        }
    }

    /// The ranges that give addresses now, the default one first. Only IPv4 is configured.
    pub(super) fn giving(&mut self) -> Vec<Ipv4Net> {
        self.catch_up();
        let absent = !self.by_name.contains_key(DEFAULT);
        let mut all: Vec<Ipv4Net> = absent.then_some(self.default).into_iter().collect();
        let (mut first, rest): (Vec<_>, Vec<_>) = self.by_name.iter().partition(|(name, _)| *name == DEFAULT);
        first.extend(rest);
        for range in first
            .iter()
            .filter(|(_, entry)| entry.gives)
            .flat_map(|(_, entry)| &entry.ranges)
        {
            match range {
                IpNet::V4(range) if !all.contains(range) => all.push(*range),
                _ => {}
            }
        }
        all
    }

    /// The first range that gives this address.
    pub(super) fn giving_one(&mut self, address: Ipv4Addr) -> Option<Ipv4Net> {
        let all = self.giving();
        all.into_iter()
            .find(|range| usable(*range).contains(&u32::from(address)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::testing::World;

    fn cidr(name: &str, ranges: &[&str], ready: Option<bool>, deleting: bool) -> Value {
        let mut object = json!({"metadata": {"name": name}, "spec": {"cidrs": ranges}});
        if let Some(ready) = ready {
            let status = if ready { "True" } else { "False" };
            object["status"]["conditions"] = json!([{"type": "Ready", "status": status}]);
        }
        if deleting {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        object
    }

    #[test]
    fn ready_ranges_give_addresses() {
        let world = World::default();
        let mut ranges = Ranges::follow("10.96.0.0/28".parse().unwrap(), &world);
        let mut giving = || ranges.giving().iter().map(ToString::to_string).collect::<Vec<_>>();
        let resource = "servicecidrs.networking.k8s.io";
        assert_eq!(giving(), ["10.96.0.0/28"], "nobody has written it yet");
        world.put(resource, cidr("kubernetes", &["10.96.0.0/28"], None, false));
        assert_eq!(giving(), ["10.96.0.0/28"]);
        world.put(resource, cidr("a", &["10.1.0.0/24", "fd00::/112"], None, false));
        assert_eq!(giving(), ["10.96.0.0/28"], "not ready");
        world.put(resource, cidr("a", &["10.1.0.0/24", "fd00::/112"], Some(true), false));
        world.put(resource, cidr("b", &["10.1.0.0/24"], Some(true), false));
        assert_eq!(giving(), ["10.96.0.0/28", "10.1.0.0/24"]);
        world.put(resource, cidr("a", &["10.1.0.0/24"], Some(true), true));
        assert_eq!(giving(), ["10.96.0.0/28", "10.1.0.0/24"], "the other one has it too");
        world.remove(resource, "", "b");
        assert_eq!(giving(), ["10.96.0.0/28"]);
        world.put(resource, cidr("kubernetes", &["10.5.0.0/28"], None, false));
        assert!(giving().is_empty(), "others' range waits for its condition");
        world.put(resource, cidr("kubernetes", &["10.5.0.0/28"], Some(true), false));
        assert_eq!(giving(), ["10.5.0.0/28"]);
    }

    #[test]
    fn a_range_holds_all_but_its_ends() {
        for (range, address, expect) in [
            ("10.0.0.0/30", "10.0.0.0", false),
            ("10.0.0.0/30", "10.0.0.1", true),
            ("10.0.0.0/30", "10.0.0.2", true),
            ("10.0.0.0/30", "10.0.0.3", false),
            ("10.0.0.0/30", "10.0.0.4", false),
            ("255.255.255.255/32", "255.255.255.255", false),
            ("fd00::/112", "fd00::", false),
            ("fd00::/112", "fd00::ffff", true),
            ("fd00::/112", "10.0.0.1", false),
        ] {
            let (range, address): (IpNet, std::net::IpAddr) = (range.parse().unwrap(), address.parse().unwrap());
            assert_eq!(holds(range, address), expect, "{range} {address}");
            if let (IpNet::V4(range), std::net::IpAddr::V4(address)) = (range, address) {
                assert_eq!(usable(range).contains(&u32::from(address)), expect, "{range} {address}");
            }
        }
    }
}
