//! The server put together: what every request can reach, how it starts, and what a composition root holds of it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use base::{Clock, Random, Shutdown};
use ipnet::Ipv4Net;
use kinds::row::StorageKind;
use parking_lot::Mutex;
use store::{Engine, History, RingLimits};

use api::schema::SchemaRef;
use api::{GroupResource, GroupVersionKind};

use crate::aggregation::{self, Aggregation, ProxyConfig, Ways};
use crate::allocation::{self, Allocator};
use crate::audit::Auditor;
use crate::cluster::Cluster;
use crate::custom;
use crate::dial::{NodeDialer, ServiceDialer};
use crate::discovery::Discovery;
use crate::flowcontrol::FlowControl;
use crate::health::{self, NamedCheck};
use crate::loopback::Loopback;
use crate::metrics::{ClientCertificateMetrics, Metrics, ReloadMetrics};
use crate::openapi::OpenApi;
use crate::pipeline::{Anonymous, Authenticator, Authorizer, Plugin, TokenIssuer};
use crate::registry::{Registry, RegistryError};
use crate::respond::budget::{self, Budget};
use crate::sealing::Sealing;
use crate::storage::Storage;
use crate::tokens::{self, UsedSecrets};
use crate::transport::Own;

/// Seats by default: upstream's 400 for reads and 200 for writes, which flow control puts together.
const SEATS: usize = 600;

/// The parts that others bring, made once the cluster's state can be read.
pub struct Parts {
    /// Who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who may.
    pub authorizer: Arc<dyn Authorizer>,
    /// Admission plug-ins in their order.
    pub admission: Vec<Arc<dyn Plugin>>,
    /// Service-account tokens.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
}

/// Makes the [`Parts`] when the state is there to be read.
pub type MakeParts = Box<dyn FnOnce(Arc<dyn Cluster>) -> Parts + Send>;

/// What a server is made of.
pub struct Config {
    /// The store.
    pub engine: Arc<dyn Engine>,
    /// The rows; `kinds::rows()` for all built-in ones.
    pub rows: Vec<Arc<StorageKind>>,
    /// Authentication, authorization, admission, tokens.
    pub parts: MakeParts,
    /// Wall time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Which requests without credentials are let in as `system:anonymous`.
    pub anonymous: Anonymous,
    /// The range of cluster IPs.
    pub service_range: Ipv4Net,
    /// The ports of nodes that Services of type NodePort and LoadBalancer get.
    pub node_port_range: std::ops::Range<u16>,
    /// `host:port` under which clients reach the server, for discovery.
    pub advertised: String,
    /// The way to kubelets; without it logs, exec and node proxies answer 503.
    pub nodes: Option<Arc<dyn NodeDialer>>,
    /// The way to pods; without it pod and service proxies answer 503.
    pub services: Option<Arc<dyn ServiceDialer>>,
    /// What is told of requests, and where it goes.
    pub audit: Option<Arc<Auditor>>,
    /// Checks of the composition root's own, for `/readyz`.
    pub checks: Vec<NamedCheck>,
    /// Seats for all requests together: upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
    pub seats: usize,
    /// Bytes that answers may take together that cannot be encoded while they are sent.
    pub whole_answers_bytes: usize,
    /// Whether `/debug` is served: upstream's `--profiling`.
    pub debug: bool,
    /// How far back watches and exact lists of each resource reach.
    pub history: RingLimits,
    /// Encryption at rest; by default everything is stored as it is.
    pub sealing: Arc<Sealing>,
    /// What counts the files that are read again.
    pub reloads: ReloadMetrics,
    /// What counts how long clients' certificates are still good.
    pub client_certificates: ClientCertificateMetrics,
    /// How large the store's files are, when somebody can tell.
    pub store_bytes: Option<MeasureBytes>,
    /// How the server shows itself to those that answer for other group versions.
    pub aggregation: ProxyConfig,
}

/// Measures a size in bytes, when that can be done.
pub type MeasureBytes = Arc<dyn Fn() -> Option<u64> + Send + Sync>;

impl Config {
    /// A configuration with upstream's defaults around what has none.
    pub fn new(engine: Arc<dyn Engine>, rows: Vec<Arc<StorageKind>>, parts: MakeParts) -> Config {
        Config {
            engine,
            rows,
            parts,
            clock: Clock::real(),
            random: Random::real(),
            anonymous: Anonymous::Everywhere,
            service_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            node_port_range: allocation::NODE_PORTS_DEFAULT,
            advertised: "127.0.0.1:6443".into(),
            nodes: None,
            services: None,
            audit: None,
            checks: Vec::new(),
            seats: SEATS,
            whole_answers_bytes: budget::WHOLE_BYTES_MAX,
            debug: false,
            history: RingLimits::default(),
            sealing: Arc::default(),
            reloads: ReloadMetrics::default(),
            client_certificates: ClientCertificateMetrics::default(),
            store_bytes: None,
            aggregation: ProxyConfig::default(),
        }
    }
}

/// Why a server does not start, or a row is not added.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The rows contradict each other or have no schema.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The store cannot be written.
    #[error("the store cannot be written: {0}")]
    Write(String),
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] store::ReplicaError),
}

/// What every request can reach.
pub struct Server {
    /// What is served now.
    pub registry: ArcSwap<Registry>,
    /// The state.
    pub storage: Arc<Storage>,
    /// Authentication.
    pub authenticator: Arc<dyn Authenticator>,
    /// Authorization.
    pub authorizer: Arc<dyn Authorizer>,
    /// Admission.
    pub admission: Vec<Arc<dyn Plugin>>,
    /// Service-account tokens.
    pub tokens: Option<Arc<dyn TokenIssuer>>,
    /// The way to kubelets.
    pub nodes: Option<Arc<dyn NodeDialer>>,
    /// The way to pods, and back to this server.
    pub services: Option<Arc<dyn ServiceDialer>>,
    /// What is told of requests, and where it goes.
    pub audit: Option<Arc<Auditor>>,
    /// Who else answers for group versions.
    pub(crate) aggregation: Arc<Aggregation>,
    /// Cluster IPs.
    pub allocator: Arc<Allocator>,
    /// Seats.
    pub flow: Arc<FlowControl>,
    /// What answers take that cannot be encoded while they are sent.
    pub whole_answers: Arc<Budget>,
    /// Metrics.
    pub metrics: Metrics,
    /// Health checks.
    pub checks: Vec<NamedCheck>,
    /// What was done after the start, by upstream's names.
    pub hooks: Mutex<Vec<&'static str>>,
    /// How large the store's files are.
    pub store_bytes: Option<MeasureBytes>,
    /// Wall time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// Which anonymous requests are let in.
    pub anonymous: Anonymous,
    /// `host:port` of the server.
    pub advertised: String,
    /// Whether `/debug` is served.
    pub debug: bool,
    /// The server's end.
    pub shutdown: Shutdown,
    /// The uids of definitions of custom resources whose objects are being removed.
    pub cleaned: Mutex<BTreeSet<String>>,
    discovery: ArcSwapOption<Discovery>,
    openapi: ArcSwapOption<OpenApi>,
}

impl Server {
    /// Discovery of a registry, made once for each.
    pub fn discovery(&self, registry: &Registry) -> Arc<Discovery> {
        if let Some(made) = self.discovery.load_full()
            && made.epoch == registry.epoch
        {
            return made;
        }
        let made = Arc::new(Discovery::new(registry));
        self.discovery.store(Some(made.clone()));
        made
    }

    /// OpenAPI of a registry; its documents are made when asked for.
    pub fn openapi(&self, registry: &Registry) -> Arc<OpenApi> {
        let others = self.aggregation.specs_epoch();
        if let Some(made) = self.openapi.load_full()
            && (made.epoch, made.others) == (registry.epoch, others)
        {
            return made;
        }
        let tokens = self.tokens.as_ref();
        let is_issuer = tokens.is_some_and(|tokens| tokens.openid_configuration().is_some());
        let before = self.openapi.load();
        let made = Arc::new(OpenApi::new(registry, is_issuer, others, before.as_deref()));
        self.openapi.store(Some(made.clone()));
        made
    }

    /// Whether the store takes reads.
    pub fn store_health(&self) -> Result<(), String> {
        match self.storage.is_closed() {
            true => Err("the store is closed".into()),
            false => Ok(()),
        }
    }

    /// Brings gauges up to date.
    pub fn measure(&self) {
        for kind in self.registry.load().kinds() {
            let Ok(table) = self.storage.table(kind) else { continue };
            let snapshot = table.snapshot();
            let GroupResource { group, resource } = &kind.resource;
            let (count, revision, events) = (snapshot.len(), snapshot.revision(), table.events());
            self.metrics.count_objects(group, resource, count, revision, events);
        }
        self.metrics.whole_answers(&self.whole_answers);
        self.allocator.measure();
        if let Some(bytes) = self.store_bytes.as_ref().and_then(|measure| measure()) {
            self.metrics.store_size(bytes);
        }
    }
}

/// The API server.
pub struct ApiServer;

impl ApiServer {
    /// Opens the state and puts the server together. It serves nobody until [`Running::serve`] or
    /// [`Running::transport`] is called.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let registry = Registry::new(config.rows, SchemaRef::builtin)?;
        let sealing = config.sealing.clone();
        let opening = Storage::open(
            config.engine,
            config.clock.clone(),
            config.history,
            config.sealing.clone(),
            &registry,
        );
        let storage = Arc::new(opening.await?);
        storage
            .begin(config.clock.now_ms())
            .await
            .map_err(|status| StartError::Write(status.message))?;
        let ports = config.node_port_range.clone();
        let state: Arc<dyn Cluster> = storage.clone();
        let allocator = Arc::new(Allocator::new(config.service_range, ports, config.random.fork(), state));
        let services = GroupResource {
            group: String::new(),
            resource: "services".into(),
        };
        for service in Cluster::list(&*storage, &services, None) {
            allocator.recover(&service.value());
        }
        if storage.is_shared() {
            allocator.follow(Cluster::changes(&*storage, &services));
        }
        let parts = (config.parts)(storage.clone());
        let mut checks = health::defaults();
        checks.extend(config.checks);
        if registry.kind(&aggregation::api_services()).is_some() {
            checks.push(aggregation::completion());
        }
        if config.sealing.configured().is_some() {
            let sealing = config.sealing.clone();
            checks.push(NamedCheck::new("kms-providers", false, move |_| sealing.health()));
        }
        let told = config.audit.as_ref().map(|auditor| auditor.metrics());
        let plugins = parts.admission.iter().map(|plugin| plugin.name());
        let metrics = Metrics::new(told.unwrap_or_default(), plugins);
        metrics.add_reloads(&config.reloads);
        metrics.add_allocation(allocator.metrics());
        metrics.add_sealing(sealing.metrics());
        metrics.add_client_certificates(&config.client_certificates);
        let salt = config.random.range(0..u64::MAX);
        let flow = Arc::new(FlowControl::new(config.seats, salt, metrics.flow.clone()));
        let shutdown = Shutdown::new();
        flow.follow(storage.clone(), &shutdown);
        let (reopening, end) = (storage.clone(), shutdown.clone());
        shutdown.spawn(async move { end.until(reopening.reopen()).await });
        let loopback = config.services.map(|services| Arc::new(Loopback::beside(services)));
        let services = loopback.clone().map(|services| services as Arc<dyn ServiceDialer>);
        let ways = Ways {
            cluster: storage.clone(),
            services: services.clone(),
            random: config.random.fork(),
            read: config.aggregation.read.clone(),
        };
        let aggregation = Aggregation::new(config.aggregation, ways);
        metrics.add_aggregation(aggregation.metrics());
        aggregation.follow(&shutdown);
        let server = Server {
            registry: ArcSwap::from_pointee(registry),
            storage,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            admission: parts.admission,
            tokens: parts.tokens,
            nodes: config.nodes,
            services,
            audit: config.audit,
            aggregation,
            allocator,
            flow,
            whole_answers: Budget::new(config.whole_answers_bytes),
            metrics,
            checks,
            hooks: Mutex::default(),
            store_bytes: config.store_bytes,
            clock: config.clock,
            random: config.random,
            anonymous: config.anonymous,
            advertised: config.advertised,
            debug: config.debug,
            shutdown,
            cleaned: Mutex::default(),
            discovery: ArcSwapOption::empty(),
            openapi: ArcSwapOption::empty(),
        };
        let server = Arc::new(server);
        if let Some(loopback) = loopback {
            loopback.lead_to(&server);
        }
        // What is defined is served before anybody asks.
        if let Some(controller) = custom::Controller::start(&server).await {
            server.shutdown.spawn(controller.run());
        }
        let own = Own::of(&server);
        for plugin in &server.admission {
            plugin.started(&own);
        }
        Ok(Running {
            server,
            rows: Arc::default(),
        })
    }
}

/// A started server. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct Running {
    pub(crate) server: Arc<Server>,
    /// Rows change one at a time.
    rows: Arc<tokio::sync::Mutex<()>>,
}

impl Running {
    /// Reads of the state, for the composition root's own parts.
    pub fn cluster(&self) -> Arc<dyn Cluster> {
        self.server.storage.clone()
    }

    /// Serves one more kind from now on: router, discovery, OpenAPI and watches follow. The schema is of all served
    /// versions.
    pub async fn add_row(&self, row: Arc<StorageKind>, schema: SchemaRef) -> Result<(), StartError> {
        let _one = self.rows.lock().await;
        let resource = GroupResource {
            group: row.group.clone().into(),
            resource: row.plural.clone().into(),
        };
        let registry = self
            .server
            .registry
            .load()
            .with(row, |_: &GroupVersionKind| Some(schema.clone()))?;
        let kind = registry
            .kind(&resource)
            .expect("invariant: the row was added above")
            .clone();
        self.server.storage.add(&[kind], History::Kept).await?;
        self.server.registry.store(Arc::new(registry));
        Ok(())
    }

    /// Keeps the default ServiceCIDR, and Services and their IPAddresses together, until the end. The client is the server
    /// itself.
    pub fn keep_cluster_ips(&self, client: &client::Client, shutdown: &Shutdown) {
        allocation::maintain(&self.server, client, shutdown);
        self.hooks_ran(&["start-service-ip-repair-controllers"]);
    }

    /// Tells when tokens of Secrets were last used, and since when, until the end. The client is the server itself.
    pub fn track_legacy_tokens(&self, used: &UsedSecrets, client: &client::Client, shutdown: &Shutdown) {
        tokens::maintain(self.cluster(), used, client, self.server.clock.clone(), shutdown);
        self.hooks_ran(&["start-legacy-token-tracking-controller"]);
    }

    /// Tells with the health checks that something was done after the start, as `poststarthook/NAME`: a name of upstream's, for
    /// the same thing.
    pub fn hooks_ran(&self, names: &[&'static str]) {
        self.server.hooks.lock().extend(names);
    }

    /// Keeps the APIServices of what is served here, and looks after the servers of all others, until the end. The client is the
    /// server itself.
    pub fn keep_api_services(&self, client: &client::Client, shutdown: &Shutdown) {
        if aggregation::maintain(&self.server, client, shutdown) {
            self.hooks_ran(&aggregation::HOOKS);
        }
    }

    /// Until the APIServices of all that is built in are there and available: `/readyz` says so then.
    pub async fn api_services_are_there(&self) {
        self.server.aggregation.all_available().await;
    }

    /// Stops serving a kind; its watches end, its objects stay stored. False: it was not served.
    pub async fn remove_row(&self, resource: &GroupResource) -> bool {
        let _one = self.rows.lock().await;
        let current = self.server.registry.load_full();
        let Some(kind) = current.kind(resource).cloned() else {
            return false;
        };
        let registry = Arc::new(current.without(resource));
        self.server.registry.store(registry);
        self.server.storage.remove(&kind).await;
        true
    }

    /// Ends watches, stops accepting connections and waits for what is at work.
    pub async fn shutdown(&self) {
        self.server.shutdown.finish().await;
    }

    /// The handle that ends the server, for tasks that end with it.
    pub fn shutdown_handle(&self) -> Shutdown {
        self.server.shutdown.clone()
    }

    /// The server's address as it is told to clients.
    pub fn advertised_ip(&self) -> Option<IpAddr> {
        self.server.advertised.rsplit_once(':')?.0.parse().ok()
    }
}
