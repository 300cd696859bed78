//! The network agent of a node: watches Services, EndpointSlices, ServiceCIDRs and NetworkPolicies and keeps packet rules,
//! routes and DNS names as they say.
//!
//! One loop. It collects all news that is there, and the [`crate::orders`] of whoever links pods, works out which Services
//! and pods changed, changes the names, and commits the rules on a thread where blocking is fine; news that comes meanwhile
//! is the next round. Nothing is written before all copies are complete: a half-known cluster would refuse connections that
//! worked before a restart, and deny names that exist.
//!
//! Invariant: the names change before the rules do, and both are functions of the same [`Catalog`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Random, Shutdown};
use client::informer::{Delta, Events, SharedInformers};
use parking_lot::RwLock;
use sys::netns::NetworkNamespace;
use tokio::sync::{oneshot, watch};

use crate::catalog::Catalog;
use crate::dns::server::{DnsServer, DnsSockets};
use crate::dns::upstream::Upstream;
use crate::dns::zone::{Zone, ZoneConfig};
use crate::health_ports::HealthPorts;
use crate::node::NodeNetwork;
use crate::objects::{ServiceCidrObject, ServiceObject, SliceObject};
use crate::orders::{Change, Order, Orders};
use crate::policies;
use crate::policies::plan::{Plan, Stage};
use crate::policies::watch::{News, PolicyWatch};
use crate::ranges::{Ranges, Routes};
use crate::services::kernel::Kernel;
use crate::services::plan::{PlanConfig, Table};
use crate::services::rotation::{Node, rotation};
use crate::services::rules::RulesConfig;

/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Pauses after the kernel refused even a whole new table.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(10);

/// What an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The node's name, as endpoints name it.
    pub node_name: String,
    /// The node's addresses; `dns_address` decides whether this agent answers DNS.
    pub network: NodeNetwork,
    /// The cluster's domain, usually `cluster.local`.
    pub domain: String,
    /// The link that leads out of the node, if there is one.
    pub uplink: Option<String>,
}

/// A running agent; it ends with its shutdown and leaves the rules as they are, so that connections go on.
#[derive(Debug)]
pub struct Agent {
    zone: Arc<RwLock<Zone>>,
    commits: watch::Receiver<u64>,
}

impl Agent {
    /// Starts the agent of the node in `namespace`, which [`crate::node::setup`] has prepared. Foreign names are asked of
    /// `upstream`; without one they are refused. Needs a tokio runtime around it.
    pub fn start(
        config: AgentConfig,
        namespace: &NetworkNamespace,
        informers: &SharedInformers,
        orders: Orders,
        upstream: Option<Arc<dyn Upstream>>,
        random: &Random,
        shutdown: &Shutdown,
    ) -> io::Result<Agent> {
        let network = &config.network;
        let server = network.dns_address.unwrap_or(network.node_address);
        let zone = Arc::new(RwLock::new(Zone::new(ZoneConfig {
            domain: config.domain.clone(),
            server,
            // Their reverse names are never asked of anybody else.
            networks: vec![network.service_network.into(), network.cluster_network.into()],
        })));
        // Bound at once and read later: a query that comes before the names are known waits in the socket instead of being
        // refused.
        let dns = match network.dns_address {
            Some(address) => {
                let sockets = DnsSockets::bind(namespace, SocketAddr::from((address, DNS_PORT)))?;
                Some((DnsServer::new(zone.clone(), upstream, random), sockets))
            }
            None => None,
        };
        let rules = RulesConfig {
            service_networks: vec![network.service_network],
            pod_network: network.pod_network,
            node_address: network.node_address,
            dns_address: network.dns_address,
            uplink: config.uplink.clone(),
        };
        let policy_rules = policies::rules::RulesConfig {
            node_address: network.node_address,
            dns_address: network.dns_address,
        };
        let table = Table::new(PlanConfig {
            pod_network: network.pod_network,
            dns_address: network.dns_address,
        });
        let (committed, commits) = watch::channel(0);
        let work = Work {
            health_ports: HealthPorts::new(namespace.try_clone()?, &config.node_name, shutdown),
            node: Node {
                name: config.node_name,
                address: network.node_address,
            },
            catalog: Catalog::new(),
            zone: zone.clone(),
            written: Some(Box::new(Written {
                kernel: Kernel::open(namespace, rules)?,
                routes: Routes::open(namespace, network)?,
                table,
                policies: policies::kernel::Kernel::open(namespace, policy_rules)?,
                plan: Plan::new(network.dns_address),
            })),
            ranges: Ranges::new(network),
            committed,
            waiting: Vec::new(),
            joining: Vec::new(),
            backoff: Backoff::new(RETRY_FIRST, RETRY_LAST).with_jitter(0.2, random.fork()),
        };
        let services = informers.informer::<ServiceObject>().subscribe();
        let slices = informers.informer::<SliceObject>().subscribe();
        let cidrs = informers.informer::<ServiceCidrObject>().subscribe();
        let news = Sources {
            services: (services, false),
            slices: (slices, false),
            cidrs: (cidrs, false),
            policies: PolicyWatch::start(informers),
            orders,
        };
        let stop = shutdown.clone();
        shutdown.spawn(work.run(news, dns, stop));
        Ok(Agent { zone, commits })
    }

    /// The names.
    pub fn zone(&self) -> Arc<RwLock<Zone>> {
        self.zone.clone()
    }

    /// Returns when the rules and names of the whole cluster were written once; false when the agent ended before.
    pub async fn ready(&self) -> bool {
        self.commits.clone().wait_for(|count| *count > 0).await.is_ok()
    }

    /// Counts the commits: changes after each one.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }
}

struct Written {
    kernel: Kernel,
    routes: Routes,
    table: Table,
    policies: policies::kernel::Kernel,
    plan: Plan,
}

/// Where news comes from; with the copies, whether they are complete.
struct Sources {
    services: (Events<ServiceObject>, bool),
    slices: (Events<SliceObject>, bool),
    cidrs: (Events<ServiceCidrObject>, bool),
    policies: PolicyWatch,
    orders: Orders,
}

/// A piece of news.
enum Piece {
    Service(Delta<ServiceObject>),
    Slice(Delta<SliceObject>),
    Cidr(Delta<ServiceCidrObject>),
    Policy(News),
    Order(Order),
}

// === impl Sources ===

impl Sources {
    /// The next news; none when there will be none any more. Cancel-safe.
    async fn next(&mut self) -> Option<Piece> {
        tokio::select! {
            delta = self.services.0.next() => delta.map(Piece::Service),
            delta = self.slices.0.next() => delta.map(Piece::Slice),
            delta = self.cidrs.0.next() => delta.map(Piece::Cidr),
            news = self.policies.next() => news.map(Piece::Policy),
            // Without publishers there is nothing to take, ever.
            Some(order) = self.orders.0.recv() => Some(Piece::Order(order)),
        }
    }

    /// The next news if it is there already.
    fn try_next(&mut self) -> Option<Piece> {
        let services = &mut self.services.0;
        let piece = services.try_next().map(Piece::Service);
        let piece = piece.or_else(|| self.slices.0.try_next().map(Piece::Slice));
        let piece = piece.or_else(|| self.cidrs.0.try_next().map(Piece::Cidr));
        let piece = piece.or_else(|| self.policies.try_next().map(Piece::Policy));
        piece.or_else(|| self.orders.0.try_recv().ok().map(Piece::Order))
    }

    /// Whether all is known that the first rules depend on.
    fn are_complete(&self) -> bool {
        self.services.1 && self.slices.1 && self.cidrs.1 && self.policies.knows_policies()
    }
}

struct Work {
    health_ports: HealthPorts,
    node: Node,
    catalog: Catalog,
    ranges: Ranges,
    zone: Arc<RwLock<Zone>>,
    /// Absent only while a commit is under way, or when its thread panicked.
    written: Option<Box<Written>>,
    committed: watch::Sender<u64>,
    /// Who waits for rules that are not written yet.
    waiting: Vec<oneshot::Sender<()>>,
    /// Who waits for the policies of a pod.
    joining: Vec<oneshot::Sender<()>>,
    backoff: Backoff,
}

impl Work {
    async fn run(mut self, mut sources: Sources, mut dns: Option<(Arc<DnsServer>, DnsSockets)>, shutdown: Shutdown) {
        let mut retry = None;
        loop {
            let pause = async {
                match retry {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                piece = sources.next() => match piece {
                    Some(piece) => self.take(piece, &mut sources),
                    None => return,
                },
                () = pause => {}
            }
            while let Some(piece) = sources.try_next() {
                self.take(piece, &mut sources);
            }
            if !sources.are_complete() {
                continue;
            }
            let changed = self.plan();
            if let Some((server, sockets)) = dns.take() {
                server.start(sockets, &shutdown);
            }
            let first = *self.committed.borrow() == 0;
            if changed || first || retry.is_some() || !self.waiting.is_empty() {
                retry = match self.commit().await {
                    Ok(()) => {
                        self.backoff.reset();
                        self.committed.send_modify(|count| *count += 1);
                        // Who gave up waiting needs no answer.
                        for publisher in self.waiting.drain(..) {
                            let _ = publisher.send(());
                        }
                        None
                    }
                    Err(error) => {
                        let delay = self.backoff.next_delay();
                        tracing::error!(%error, ?delay, "the packet rules could not be written; trying again");
                        Some(delay)
                    }
                };
            }
            if retry.is_none() {
                self.let_join();
            }
        }
    }

    fn take(&mut self, piece: Piece, sources: &mut Sources) {
        match piece {
            Piece::Service(delta) => sources.services.1 |= self.take_service(delta),
            Piece::Slice(delta) => sources.slices.1 |= self.take_slice(delta),
            Piece::Cidr(delta) => sources.cidrs.1 |= self.ranges.take(delta),
            Piece::Policy(news) => {
                if let Some(written) = &mut self.written {
                    sources.policies.take(news, &mut written.plan);
                }
            }
            Piece::Order(order) => self.take_order(order),
        }
    }

    /// True for the news that all Services are known.
    fn take_service(&mut self, delta: Delta<ServiceObject>) -> bool {
        match delta {
            Delta::Added(service) | Delta::Updated { new: service, .. } => self.catalog.set_service(service.view()),
            Delta::Deleted(service) => self.catalog.delete_service(&service.object_name()),
            Delta::Synced => return true,
        }
        false
    }

    /// True for the news that all slices are known.
    fn take_slice(&mut self, delta: Delta<SliceObject>) -> bool {
        match delta {
            Delta::Added(slice) | Delta::Updated { new: slice, .. } => match slice.view() {
                Some(view) => self.catalog.set_slice(view),
                None => self.catalog.delete_slice(&slice.object_name()),
            },
            Delta::Deleted(slice) => self.catalog.delete_slice(&slice.object_name()),
            Delta::Synced => return true,
        }
        false
    }

    fn take_order(&mut self, order: Order) {
        // Without them an earlier commit did not return, and whoever waits is told by the end of this.
        let Some(written) = &mut self.written else { return };
        match order.change {
            Change::HostPorts { owner, frontends } => {
                written.table.set(&owner, frontends);
                self.waiting.push(order.written);
            }
            Change::Attached { sandbox, pod, address } => {
                written.plan.attach(&sandbox, pod, address);
                self.joining.push(order.written);
            }
            Change::Detached { sandbox } => {
                written.plan.detach(&sandbox);
                match written.plan.is_dirty() {
                    true => self.waiting.push(order.written),
                    // Nothing was written for it.
                    false => drop(order.written.send(())),
                }
            }
        }
    }

    /// Answers those whose pods' policies are in force.
    fn let_join(&mut self) {
        let stage = self.written.as_ref().map(|written| written.plan.stage());
        if stage.is_none_or(|stage| stage == Stage::Learning) {
            return;
        }
        for publisher in self.joining.drain(..) {
            // Who gave up waiting needs no answer.
            let _ = publisher.send(());
        }
    }

    /// Carries what changed into the names and the wanted rules; false when nothing did.
    fn plan(&mut self) -> bool {
        let changed = self.catalog.take_changed();
        let moved = self.ranges.take_changed();
        let Some(written) = &mut self.written else {
            return moved || !changed.is_empty();
        };
        if moved {
            self.zone.write().set_networks(self.ranges.networks());
            written.kernel.set_service_networks(self.ranges.service_networks());
            written.routes.want(self.ranges.service_networks());
        }
        for name in &changed {
            let found = self.catalog.get(name);
            self.zone.write().set(name, found.as_ref());
            let ours = found.as_ref().filter(|found| !found.service.foreign_proxy);
            self.health_ports.set(name, ours);
            let frontends = found.map(|found| rotation(&found, &self.node)).unwrap_or_default();
            if frontends.values().any(|wanted| !wanted.backends.is_empty()) {
                tracing::trace!(target: "walk", service = ?name, "a service leads somewhere");
            }
            written.table.set(name, frontends);
        }
        moved || !changed.is_empty() || written.plan.is_dirty()
    }

    async fn commit(&mut self) -> io::Result<()> {
        let mut written = self
            .written
            .take()
            .ok_or_else(|| io::Error::other("an earlier commit did not return"))?;
        let (written, result) = tokio::task::spawn_blocking(move || {
            let result = written.write();
            (written, result)
        })
        .await
        .map_err(io::Error::other)?;
        self.written = Some(written);
        result
    }
}

impl Written {
    fn write(&mut self) -> io::Result<()> {
        // What is forbidden first: a new way must not be open before.
        self.policies.sync(&mut self.plan)?;
        self.routes.sync()?;
        Ok(self.kernel.sync(&mut self.table)?)
    }
}
