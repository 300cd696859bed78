//! Pod links: a veth pair, an address and three routes for each pod, at layer 3 without a bridge.
//!
//! In the pod: `eth0` with a /32, and a default route over 169.254.1.1, whose hardware address is written down. On the node:
//! `tri<hash>` with the host route to the pod and the pod's hardware address. Neither side ever asks by ARP, so a first
//! packet needs no round trip, and nothing depends on `proxy_arp`, `br_netfilter` or a gateway address.
//!
//! Invariants: a record exists before its link and as long as it; an address is taken exactly while a record holds it.
//! IPv6 joins as a second address and a second pair of routes in [`configure_pod`] and [`PodLinks::add_many`].

pub mod pool;
pub mod record;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use sys::netlink::{self, Family, Messages, Socket};
use sys::netlink_route::{self as route, LOOPBACK_INDEX, Route, Scope, VethEnd};
use sys::netns::NetworkNamespace;

use crate::host_ports::HostPort;
use crate::node::{hardware_address, link_index};
use crate::views::ObjectName;
use pool::{AddressPool, Exhausted};
use record::{Record, Records};

/// Every link of ours begins with this.
pub const LINK_PREFIX: &str = "tri";
/// The link inside a pod.
pub const POD_LINK: &str = "eth0";
/// What pods take for their gateway. It is link-local and on every pod's link, and belongs to nobody.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// All host sides share one hardware address: nothing ever has to tell them apart at layer 2.
const HOST_HARDWARE_ADDRESS: route::HardwareAddress = [0xee; 6];
/// Hexadecimal digits of the hash in a link name; the kernel allows fifteen characters.
const HASH_DIGITS: usize = 12;
/// Link group that links are put into to be deleted together.
const DELETION_GROUP: u32 = 0x7472_6901;

/// Where pods are linked to.
#[derive(Debug, Clone)]
pub struct LinksConfig {
    /// Where the records are kept; on a file system that a reboot empties.
    pub record_directory: PathBuf,
    /// The addresses of this node's pods.
    pub pod_network: Ipv4Net,
    /// Largest packet.
    pub mtu: u32,
}

/// Why a pod could not be linked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No address is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// The pod's network namespace cannot be opened or entered.
    #[error("network namespace {}: {source}", path.display())]
    Namespace {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("linking pod {key}: {source}")]
    Kernel {
        /// Whose link.
        key: String,
        /// Why.
        source: io::Error,
    },
    /// The record cannot be kept.
    #[error("record of pod links: {0}")]
    Record(io::Error),
}

/// The links of one node's pods. Methods block for about a millisecond; call them where that is fine.
#[derive(Debug)]
pub struct PodLinks {
    config: LinksConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    node: Socket,
    records: Records,
    pool: AddressPool,
    by_key: HashMap<String, Record>,
}

impl PodLinks {
    /// Opens the links of the node in `namespace`: keeps those that the record and the kernel agree on, removes the rest.
    pub fn open(namespace: &NetworkNamespace, config: LinksConfig) -> Result<Self, LinkError> {
        let kernel = |source| LinkError::Kernel {
            key: "(all)".to_owned(),
            source,
        };
        let node = namespace
            .run(|| Socket::open(Family::Route))
            .and_then(|socket| socket)
            .map_err(kernel)?;
        let records = Records::open(&config.record_directory).map_err(LinkError::Record)?;
        let mut state = State {
            node,
            records,
            pool: AddressPool::new(config.pod_network),
            by_key: HashMap::new(),
        };
        state.recover()?;
        Ok(Self {
            config,
            state: Mutex::new(state),
        })
    }

    /// Links the pod whose network namespace is at `netns` and returns its address. `key` names the pod's sandbox; linking
    /// the same one again returns the address it has.
    pub fn add(&self, netns: &Path, key: &str) -> Result<Ipv4Addr, LinkError> {
        self.add_many(&[(netns, key)])
            .pop()
            .expect("invariant: one answer for one pod")
    }

    /// Links several pods at once; the answers are in the same order. One that fails leaves nothing behind.
    pub fn add_many(&self, pods: &[(&Path, &str)]) -> Vec<Result<Ipv4Addr, LinkError>> {
        tracing::trace!(target: "walk", "pods are linked");
        let mut state = self.state.lock();
        let mut answers = Vec::new();
        let mut fresh = Vec::new();
        for &(netns, key) in pods {
            if let Some(record) = state.by_key.get(key).cloned() {
                // Written again whether it is there or not: a crash may have come before the pod's side was.
                let known = NetworkNamespace::open(netns)
                    .map_err(|source| LinkError::Namespace {
                        path: netns.to_owned(),
                        source,
                    })
                    .and_then(|namespace| connect(&mut state.node, netns, &namespace, &record));
                match known {
                    Ok(()) => {
                        answers.push(Ok(record.address));
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, key, "a pod's link is not as the record says; it is made anew");
                        state.forget(&[record]);
                    }
                }
            }
            match state.reserve(netns, key) {
                Ok((namespace, record)) => {
                    answers.push(Ok(record.address));
                    fresh.push((answers.len() - 1, netns, namespace, record));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        // One request for all pairs; when something in it is refused, each pod finds out for itself.
        let mut messages = Messages::new();
        for (_, _, namespace, record) in &fresh {
            self.write_pair(&mut messages, namespace, record);
        }
        let together = state.node.transact(messages);
        for (message, (place, netns, namespace, record)) in fresh.into_iter().enumerate() {
            let refused = match &together {
                Err(netlink::Error::Refused(refusals)) => refusals
                    .iter()
                    .find(|refusal| refusal.place == message)
                    .map(|refusal| refusal.errno),
                _ => None,
            };
            let result = match (refused, &together) {
                (Some(errno), _) => Err(LinkError::Kernel {
                    key: record.key.clone(),
                    source: io::Error::from_raw_os_error(errno),
                }),
                (None, Err(netlink::Error::Refused(_)) | Ok(())) => {
                    connect(&mut state.node, netns, &namespace, &record)
                }
                (None, Err(error)) => Err(LinkError::Kernel {
                    key: record.key.clone(),
                    source: io::Error::other(error.to_string()),
                }),
            };
            if let Err(error) = result {
                state.forget(&[record]);
                answers[place] = Err(error);
            }
        }
        answers
    }

    /// Removes a pod's link and gives its address back; unknown pods are fine. The pod's namespace may be gone already.
    pub fn remove(&self, key: &str) -> Result<(), LinkError> {
        self.remove_many(&[key])
    }

    /// Removes several links at once.
    pub fn remove_many(&self, keys: &[&str]) -> Result<(), LinkError> {
        let mut state = self.state.lock();
        let records: Vec<Record> = keys.iter().filter_map(|key| state.by_key.get(*key).cloned()).collect();
        let names: Vec<&str> = records.iter().map(|record| record.link.as_str()).collect();
        state.delete_links(&names).map_err(|source| LinkError::Kernel {
            key: keys.join(", "),
            source,
        })?;
        for record in records {
            state.records.remove(&record.link).map_err(LinkError::Record)?;
            state.pool.release(record.address);
            state.by_key.remove(&record.key);
        }
        Ok(())
    }

    /// The address of a pod that is linked.
    pub fn address(&self, key: &str) -> Option<Ipv4Addr> {
        self.state.lock().by_key.get(key).map(|record| record.address)
    }

    /// Writes down whose a link is and the host ports that lead there, so that both are known after a restart. Nothing for a
    /// pod that is not linked.
    pub fn describe(&self, key: &str, pod: ObjectName, host_ports: Vec<HostPort>) -> Result<(), LinkError> {
        let mut state = self.state.lock();
        let Some(mut record) = state.by_key.get(key).cloned() else {
            return Ok(());
        };
        (record.pod, record.host_ports) = (Some(pod), host_ports);
        state.records.put(&record).map_err(LinkError::Record)?;
        state.by_key.insert(key.to_owned(), record);
        Ok(())
    }

    /// What is recorded of all pods that are linked.
    pub fn records(&self) -> Vec<Record> {
        self.state.lock().by_key.values().cloned().collect()
    }

    /// The keys of all pods that are linked.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().by_key.keys().cloned().collect()
    }

    fn write_pair(&self, messages: &mut Messages, pod: &NetworkNamespace, record: &Record) {
        let near = VethEnd {
            name: &record.link,
            hardware_address: HOST_HARDWARE_ADDRESS,
            namespace: None,
        };
        let far = VethEnd {
            name: POD_LINK,
            hardware_address: hardware_address(record.address),
            namespace: Some(pod.as_fd()),
        };
        route::add_veth(messages, &near, &far, self.config.mtu);
    }
}

impl State {
    fn reserve(&mut self, netns: &Path, key: &str) -> Result<(NetworkNamespace, Record), LinkError> {
        let namespace = NetworkNamespace::open(netns).map_err(|source| LinkError::Namespace {
            path: netns.to_owned(),
            source,
        })?;
        let address = self.pool.take()?;
        let taken: HashSet<&str> = self.by_key.values().map(|record| record.link.as_str()).collect();
        let record = Record {
            link: link_name(key, &taken),
            address,
            key: key.to_owned(),
            pod: None,
            host_ports: Vec::new(),
        };
        if let Err(error) = self.records.put(&record) {
            self.pool.release(address);
            return Err(LinkError::Record(error));
        }
        self.by_key.insert(key.to_owned(), record.clone());
        Ok((namespace, record))
    }

    /// Undoes a reservation. What cannot be undone now is undone by the next recovery.
    fn forget(&mut self, records: &[Record]) {
        for record in records {
            if let Err(error) = self.delete_links(&[&record.link]) {
                tracing::warn!(%error, link = record.link, "a link could not be removed");
            }
            if let Err(error) = self.records.remove(&record.link) {
                tracing::warn!(%error, link = record.link, "the record of a link could not be removed");
            }
            self.pool.release(record.address);
            self.by_key.remove(&record.key);
        }
    }

    fn delete_links(&mut self, names: &[&str]) -> io::Result<()> {
        let mut messages = Messages::new();
        match names {
            [] => return Ok(()),
            [one] => route::delete_link(&mut messages, one),
            many => {
                for name in many {
                    route::set_link_group(&mut messages, name, DELETION_GROUP);
                }
                route::delete_link_group(&mut messages, DELETION_GROUP);
            }
        }
        match self.node.transact(messages) {
            // A link goes with its pod's namespace; then there is nothing left to delete.
            Err(netlink::Error::Refused(refusals)) if refusals.iter().all(|refusal| is_absent(refusal.errno)) => Ok(()),
            other => Ok(other?),
        }
    }

    fn recover(&mut self) -> Result<(), LinkError> {
        let kernel = |source: netlink::Error| LinkError::Kernel {
            key: "(all)".to_owned(),
            source: source.into(),
        };
        let links: HashMap<String, u32> = route::links(&mut self.node)
            .map_err(kernel)?
            .into_iter()
            .filter(|link| link.name.starts_with(LINK_PREFIX))
            .filter(|link| link.name.len() == LINK_PREFIX.len() + HASH_DIGITS)
            .map(|link| (link.name, link.index))
            .collect();
        let mut messages = Messages::new();
        let mut known = HashSet::new();
        for record in self.records.load(LINK_PREFIX).map_err(LinkError::Record)? {
            match links.get(&record.link) {
                Some(&index) if self.pool.claim(record.address) => {
                    // Written again whether they are there or not: a crash may have come in between.
                    write_host_side(&mut messages, index, record.address);
                    known.insert(record.link.clone());
                    self.by_key.insert(record.key.clone(), record);
                }
                _ => self.records.remove(&record.link).map_err(LinkError::Record)?,
            }
        }
        if let Some(last) = self.records.last_address() {
            self.pool.resume_after(last);
        }
        self.node.transact(messages).map_err(kernel)?;
        let strangers: Vec<&str> = links
            .keys()
            .map(String::as_str)
            .filter(|name| !known.contains(*name))
            .collect();
        self.delete_links(&strangers).map_err(|source| LinkError::Kernel {
            key: "(leftover)".to_owned(),
            source,
        })
    }
}

fn is_absent(errno: i32) -> bool {
    errno == libc::ENODEV || errno == libc::ENOENT || errno == libc::ESRCH
}

fn write_host_side(messages: &mut Messages, index: u32, address: Ipv4Addr) {
    route::set_link_up(messages, index);
    route::put_route(messages, &Route::host(address.into(), index));
    route::put_neighbour(messages, index, address.into(), hardware_address(address));
}

/// Writes both sides of a link that exists. When it returns, the first packet either way arrives: the order is that of
/// [`route::add_veth`].
fn connect(node: &mut Socket, netns: &Path, namespace: &NetworkNamespace, record: &Record) -> Result<(), LinkError> {
    let inside = || -> io::Result<()> {
        let mut pod = Socket::open(Family::Route)?;
        configure_pod(&mut pod, record.address)?;
        let mut messages = Messages::new();
        let index = link_index(node, &record.link)?;
        write_host_side(&mut messages, index, record.address);
        node.transact(messages)?;
        link_index(&mut pod, POD_LINK).map(drop)
    };
    namespace
        .run(inside)
        .map_err(|source| LinkError::Namespace {
            path: netns.to_owned(),
            source,
        })?
        .map_err(|source| LinkError::Kernel {
            key: record.key.clone(),
            source,
        })
}

fn configure_pod(pod: &mut Socket, address: Ipv4Addr) -> io::Result<()> {
    let index = link_index(pod, POD_LINK)?;
    let mut messages = Messages::new();
    route::set_link_up(&mut messages, LOOPBACK_INDEX);
    route::add_address(&mut messages, index, address.into(), 32, Scope::Universe);
    route::set_link_up(&mut messages, index);
    route::put_route(&mut messages, &Route::host(GATEWAY.into(), index));
    route::put_route(&mut messages, &Route::default_over(GATEWAY, index));
    route::put_neighbour(&mut messages, index, GATEWAY.into(), HOST_HARDWARE_ADDRESS);
    Ok(pod.transact(messages)?)
}

/// A hash that is the same in every version of this program.
pub(crate) fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// `tri` and twelve digits of a hash of the key (FNV-1a, which never changes); the next free one when it is taken.
fn link_name(key: &str, taken: &HashSet<&str>) -> String {
    let hash = fnv1a(key.bytes());
    (0u64..)
        .map(|salt| format!("{LINK_PREFIX}{:012x}", hash.wrapping_add(salt) & 0xffff_ffff_ffff))
        .find(|name| !taken.contains(name.as_str()))
        .expect("invariant: fewer pods than hashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_short_stable_and_distinct() {
        let first = link_name("default/web", &HashSet::new());
        assert_eq!(first.len(), route::LINK_NAME_LENGTH_MAX);
        assert_eq!(first, link_name("default/web", &HashSet::new()));
        assert_ne!(first, link_name("default/web2", &HashSet::new()));
        assert_ne!(first, link_name("default/web", &HashSet::from([first.as_str()])));
    }
}
