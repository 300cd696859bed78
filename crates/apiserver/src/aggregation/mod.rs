//! Aggregation: group versions that other servers answer for, as APIServices say (`apiregistration.k8s.io/v1`).
//!
//! [`Aggregation`] knows all APIServices and stands in front of the router: [`proxy`] hands requests of other servers' group
//! versions through. Beside it, [`availability`] looks whether those servers are there, [`autoregister`] keeps an APIService for
//! each group version that is answered here, and [`discovery`] and [`openapi`] put together what all servers say of themselves.
//!
//! Invariant: whatever another server does, the answers about this one's own group versions stay as they are.
//! Source: `k8s.io/kube-aggregator/pkg/apiserver`.

mod autoregister;
mod availability;
pub(crate) mod discovery;
pub(crate) mod openapi;
pub(crate) mod priorities;
pub(crate) mod proxy;
mod remote;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{GroupResource, Value};
use arc_swap::ArcSwap;
use base::Shutdown;
use client::Client;
use client::queue::WorkQueue;
use client::worker::{Next, run};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::{Change, Changes};
use crate::health::NamedCheck;
use crate::hook::{Certificate, ReadFile};
use crate::metrics::AggregationMetrics;
use crate::server::Server;
use remote::Remote;
pub(crate) use remote::Ways;
use service::{ApiService, ServiceReference};

/// How this server shows itself to others.
#[derive(Clone)]
pub struct ProxyConfig {
    /// The front proxy's certificate and its key as PEM, as they are renewed; `None`: it shows none.
    pub certificate: watch::Receiver<Option<Certificate>>,
    /// Reads this machine's roots, which are trusted where an APIService names no authority.
    pub read: Option<ReadFile>,
    /// Whether a redirect is an error (upstream's `--aggregator-reject-forwarding-redirect`).
    pub rejects_redirects: bool,
}

/// The APIServices, and what their servers say.
pub(crate) struct Aggregation {
    config: ProxyConfig,
    ways: Arc<Ways>,
    table: ArcSwap<Table>,
    /// Who is told the names of APIServices that came, changed or went; always after the table says so.
    followers: Mutex<Vec<WorkQueue<String>>>,
    /// The APIServices of what is built in that were not seen to be available yet since the start.
    awaited: watch::Sender<BTreeSet<String>>,
    /// What is listed of other servers' group versions.
    discovered: discovery::Discovered,
    /// What other servers' group versions look like.
    specs: openapi::Specs,
    metrics: AggregationMetrics,
}

/// All APIServices at one moment.
#[derive(Default)]
pub(crate) struct Table {
    /// Raised with every change.
    pub epoch: u64,
    /// By name.
    services: BTreeMap<String, Arc<Entry>>,
    /// The names of those of other servers, by group and version.
    remotes: BTreeMap<(String, String), String>,
}

/// One APIService.
pub(crate) struct Entry {
    /// What it says.
    pub service: ApiService,
    /// Who answers; `None`: this server.
    pub remote: Option<Arc<Remote>>,
}

/// What of a path is for another server to answer.
#[derive(Debug, PartialEq, Eq)]
enum Addressed<'a> {
    /// A group version, or something in it.
    GroupVersion(&'a str, &'a str),
    /// The OpenAPI document of a group version.
    OpenApi(&'a str, &'a str),
}

pub(crate) fn api_services() -> GroupResource {
    GroupResource {
        group: priorities::OWN_GROUP.into(),
        resource: "apiservices".into(),
    }
}

/// APIServices as they are asked for.
const API_SERVICES: client::Resource =
    client::Resource::new(priorities::OWN_GROUP, "v1", "apiservices", "APIService", false);

/// What [`maintain`] does, by upstream's names of what it does after its start.
pub(crate) const HOOKS: [&str; 7] = [
    "kube-apiserver-autoregistration",
    "apiservice-registration-controller",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-discovery-controller",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
];

/// Whether all that is built in was registered since the start, and seen to be available (upstream:
/// `makeAPIServiceAvailableHealthCheck`).
pub(crate) fn completion() -> NamedCheck {
    NamedCheck::new("autoregister-completion", true, |server| {
        let awaited = server.aggregation.awaited.borrow();
        if awaited.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = awaited.iter().map(String::as_str).collect();
        Err(format!("missing APIService: [{}]", names.join(" ")))
    })
}

/// Keeps the APIServices of local group versions, looks after the servers of all others, and learns what those serve, until
/// the end. The client is the server itself. False: APIServices are not served, and there is nothing to do.
pub(crate) fn maintain(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) -> bool {
    if server.registry.load().kind(&api_services()).is_none() {
        return false;
    }
    autoregister::start(server, client, shutdown);
    availability::start(server, client, shutdown);
    discovery::start(&server.aggregation, shutdown);
    openapi::start(&server.aggregation, shutdown);
    true
}

// === impl ProxyConfig ===

impl Default for ProxyConfig {
    fn default() -> ProxyConfig {
        ProxyConfig {
            certificate: watch::channel(None).1,
            read: None,
            rejects_redirects: true,
        }
    }
}

// === impl Aggregation ===

impl Aggregation {
    /// Nothing is known of any APIService before [`Aggregation::follow`].
    pub fn new(config: ProxyConfig, ways: Ways) -> Arc<Aggregation> {
        Arc::new(Aggregation {
            config,
            ways: Arc::new(ways),
            table: ArcSwap::default(),
            followers: Mutex::default(),
            awaited: watch::Sender::default(),
            discovered: discovery::Discovered::default(),
            specs: openapi::Specs::default(),
            metrics: AggregationMetrics::default(),
        })
    }

    /// Knows the APIServices that are there when this returns, and follows them until the end.
    pub fn follow(self: &Arc<Self>, shutdown: &Shutdown) {
        let mut changes = self.ways.cluster.changes(&api_services());
        let first = changes.try_next();
        first.into_iter().for_each(|change| self.take(change));
        let (aggregation, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move { stop.until(aggregation.keep(changes)).await });
    }

    async fn keep(&self, mut changes: Box<dyn Changes>) {
        let mut certificate = self.config.certificate.clone();
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                // A certificate that nobody renews any more stays.
                Ok(()) = certificate.changed() => self.show_certificate(),
            }
        }
    }

    fn take(&self, change: Change) {
        let old = self.table.load_full();
        let (services, names) = match change {
            Change::Reset(all) => {
                let services: BTreeMap<String, Arc<Entry>> = all
                    .iter()
                    .map(|object| (object.name().to_owned(), self.entry(&old, &object.value())))
                    .collect();
                let names: BTreeSet<String> = services.keys().chain(old.services.keys()).cloned().collect();
                (services, names)
            }
            Change::Changed { old: before, new } => {
                let mut services = old.services.clone();
                let Some(object) = new.as_ref().or(before.as_ref()) else {
                    return;
                };
                let name = object.name().to_owned();
                match &new {
                    Some(object) => services.insert(name.clone(), self.entry(&old, &object.value())),
                    None => services.remove(&name),
                };
                (services, BTreeSet::from([name]))
            }
        };
        self.put(old.epoch + 1, services);
        self.see_available();
        self.tell(names);
    }

    /// Awaits that these are there and available.
    fn await_available(&self, names: impl IntoIterator<Item = String>) {
        self.awaited.send_modify(|awaited| awaited.extend(names));
        self.see_available();
    }

    /// Until none is awaited any more.
    pub(crate) async fn all_available(&self) {
        // The sender lives as long as `self`.
        let _ = self.awaited.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    fn see_available(&self) {
        self.awaited.send_if_modified(|awaited| {
            let before = awaited.len();
            if before > 0 {
                let table = self.table.load();
                awaited.retain(|name| !table.get(name).is_some_and(|entry| entry.service.is_available));
            }
            awaited.len() < before
        });
    }

    /// Shows the newest certificate on new connections.
    fn show_certificate(&self) {
        let old = self.table.load_full();
        let again = |entry: &Entry| {
            let remote = entry.service.backend.as_ref();
            Entry {
                remote: remote.map(|backend| Arc::new(Remote::new(backend, self.certificate(), &self.ways))),
                service: entry.service.clone(),
            }
        };
        let all = old.services.iter();
        let services = all.map(|(name, entry)| (name.clone(), Arc::new(again(entry))));
        self.put(old.epoch + 1, services.collect());
    }

    fn certificate(&self) -> Option<Certificate> {
        self.config.certificate.borrow().clone()
    }

    /// An APIService; connections to its server stay when they are made as before.
    fn entry(&self, old: &Table, object: &Value) -> Arc<Entry> {
        let service = ApiService::of(object);
        let certificate = self.certificate();
        let remote = service.backend.as_ref().map(|backend| {
            let before = old.services.get(&service.name).and_then(|entry| entry.remote.clone());
            let before = before.filter(|remote| remote.is(backend, certificate.as_ref()));
            before.unwrap_or_else(|| Arc::new(Remote::new(backend, certificate, &self.ways)))
        });
        Arc::new(Entry { service, remote })
    }

    fn put(&self, epoch: u64, services: BTreeMap<String, Arc<Entry>>) {
        let remotes = services.values().filter(|entry| entry.remote.is_some());
        let remotes = remotes.map(|entry| {
            let ApiService {
                group, version, name, ..
            } = &entry.service;
            ((group.clone(), version.clone()), name.clone())
        });
        self.table.store(Arc::new(Table {
            epoch,
            remotes: remotes.collect(),
            services,
        }));
    }

    fn tell(&self, names: impl IntoIterator<Item = String>) {
        let followers = self.followers.lock();
        for name in names {
            followers.iter().for_each(|queue| queue.add(name.clone()));
        }
    }

    /// Adds the names of all APIServices to a queue, and from now on of those that come, change or go.
    fn subscribe(&self, queue: &WorkQueue<String>) {
        let mut followers = self.followers.lock();
        followers.push(queue.clone());
        self.table
            .load()
            .services
            .keys()
            .for_each(|name| queue.add(name.clone()));
    }

    /// Does something for the name of each APIService, now and whenever that one comes, changes or goes.
    fn work<F: Future<Output = Result<Next, String>> + Send + 'static>(
        self: &Arc<Self>,
        queue: WorkQueue<String>,
        workers: usize,
        shutdown: &Shutdown,
        work: fn(Arc<Aggregation>, String) -> F,
    ) {
        self.subscribe(&queue);
        let aggregation = self.clone();
        let work = move |name| work(aggregation.clone(), name);
        shutdown.spawn(run(queue, workers, shutdown.clone(), work));
    }

    /// All APIServices.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// What is counted.
    pub fn metrics(&self) -> &AggregationMetrics {
        &self.metrics
    }

    /// Raised with every change of what other servers' group versions look like.
    pub fn specs_epoch(&self) -> u64 {
        self.specs.epoch()
    }

    /// The server that answers for a path in place of this one.
    pub fn answers_for(&self, path: &str) -> Option<Arc<Entry>> {
        let table = self.table.load();
        if table.remotes.is_empty() {
            return None;
        }
        match addressed(path)? {
            Addressed::GroupVersion(group, version) => table.remote(group, version),
            Addressed::OpenApi(group, version) => {
                let entry = table.remote(group, version)?;
                self.specs.has_document(&entry.service.name).then_some(entry)
            }
        }
    }
}

// === impl Table ===

impl Table {
    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.services.get(name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.services.values()
    }

    /// The one of a group version that another server answers for.
    pub fn remote(&self, group: &str, version: &str) -> Option<Arc<Entry>> {
        let name = self.remotes.get(&(group.to_owned(), version.to_owned()))?;
        self.services.get(name).cloned()
    }

    /// The group versions that other servers answer for.
    pub fn remotes(&self) -> impl Iterator<Item = &(String, String)> {
        self.remotes.keys()
    }

    /// Those that a Service leads to.
    fn led_to_by(&self, namespace: &str, name: &str) -> impl Iterator<Item = &str> {
        let leads = move |reference: &ServiceReference| reference.namespace == namespace && reference.name == name;
        let all = self.services.values();
        all.filter(move |entry| {
            let remote = entry.remote.as_ref();
            remote.is_some_and(|remote| leads(&remote.backend().service))
        })
        .map(|entry| &*entry.service.name)
    }
}

/// What a path is about. The core group's server answers everything under `/api`.
fn addressed(path: &str) -> Option<Addressed<'_>> {
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    match steps.next()? {
        "api" => Some(Addressed::GroupVersion("", "v1")),
        "apis" => Some(Addressed::GroupVersion(steps.next()?, steps.next()?)),
        "openapi" if steps.next()? == "v3" && steps.next()? == "apis" => {
            let found = Addressed::OpenApi(steps.next()?, steps.next()?);
            steps.next().is_none().then_some(found)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_of_group_versions() {
        for (path, expect) in [
            ("/api", Some(Addressed::GroupVersion("", "v1"))),
            ("/api/v1/pods", Some(Addressed::GroupVersion("", "v1"))),
            ("/apis", None),
            ("/apis/g", None),
            ("/apis/g/v1", Some(Addressed::GroupVersion("g", "v1"))),
            ("//apis//g/v1/", Some(Addressed::GroupVersion("g", "v1"))),
            ("/apis/g/v1/namespaces/a/x", Some(Addressed::GroupVersion("g", "v1"))),
            ("/apix/g/v1", None),
            ("/openapi/v3/apis/g/v1", Some(Addressed::OpenApi("g", "v1"))),
            ("/openapi/v3/apis/g", None),
            ("/openapi/v2", None),
            ("/", None),
        ] {
            assert_eq!(addressed(path), expect, "{path}");
        }
    }
}
