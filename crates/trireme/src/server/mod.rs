//! The control plane put together: store, API server, controllers, scheduler, in the order in which they need each
//! other. Inside of this process all of them speak to the API through function calls (D6).

mod admin;
mod admission_flags;
mod audit_flags;
mod audit_webhook_flags;
mod authentication_flags;
mod authorization_flags;
pub mod backing;
pub mod certificate_files;
mod demo_port;
pub mod dial;
mod encryption_flags;
mod etcd_flags;
mod front_proxy;
mod issuers;
mod node_identity;
pub mod pki;
mod service_account_flags;
mod serving;
mod trusted;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::GroupResource;
use apiserver::admission::Selection;
use apiserver::authentication::{Authentication, BootstrapTokens, JwtTokens, trust};
use apiserver::authorization::{Configured, NodeAuthorizer, Prepared, Rbac};
use apiserver::bootstrap;
use apiserver::cluster::Cluster;
use apiserver::metrics::ReloadMetrics;
use apiserver::pipeline::Authorizer;
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use apiserver::sealing::{Sealer, Sealing};
use apiserver::tokens::{ClusterObjects, Issuer, TokenAuthenticator, TokenSettings, UsedSecrets};
use apiserver::{ApiServer, Config, Parts, Running};
use base::{Clock, Random, Shutdown};
use bytes::Bytes;
use client::Client;
use client::informer::SharedInformers;
use serde_json::{Value, json};
use store::{Engine, EtcdOptions};
use tokio::net::{TcpListener, UnixListener};

pub use self::audit_flags::{AuditLog, file_or_nothing};
use self::authentication_flags::AuthenticationSettings;
pub use self::authorization_flags::AuthorizationPlan;
use self::backing::Backing;
use self::pki::Pki;
use self::service_account_flags::TokenPlan;
use self::trusted::Trusted;
use crate::cli::ApiServerFlags;
use crate::errors::{CliError, Context as _, Kind, Result, words};
use crate::etcd_front;
use crate::layout::Layout;
use crate::renewal::Renewal;
use crate::settings::Settings;
use crate::watched::Follow;

/// The cluster IP of the API: the first of the service range.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The cluster IP of DNS.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Where pods of this machine reach the API server: an address that each node forwards to it. It is in no pod's range.
pub const API_ENDPOINT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 243, 0, 1), 6443);

/// The range of pods; each node takes a /24 of it.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// The range of cluster IPs.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";

/// Who may do what in a control plane that is about to start.
#[derive(Default)]
pub struct Access {
    /// Who decides.
    pub authorization: AuthorizationPlan,
    /// What happens to objects before they are stored.
    pub admission: Selection,
    /// Whether whoever may can look into the server (`/debug`).
    pub debug: bool,
}

/// A running control plane.
pub struct ControlPlane {
    running: Running,
    store: Backing,
    audit: Option<AuditLog>,
    components: Shutdown,
    address: SocketAddr,
    demo_port: Option<u16>,
}

/// A store on a slow disk has made the APIServices of a new cluster long before.
const SETTLING_LIMIT: Duration = Duration::from_secs(10);

// === impl ControlPlane ===

/// Only the embedded store is served as an etcd.
pub fn etcd_listen_over_etcd() -> CliError {
    let what = "--etcd-listen serves the embedded store, and --etcd-servers names another one";
    CliError::new(Kind::Usage, "ETCD_LISTEN", what).hint("ask that etcd itself")
}

impl ControlPlane {
    /// Starts everything, on the embedded store or on an etcd, and answers when the API serves and the cluster has its
    /// first shape.
    pub async fn start(
        layout: &Layout,
        api_port: u16,
        etcd: Option<EtcdOptions>,
        audit: Option<AuditLog>,
        access: Access,
        settings: &Settings,
    ) -> Result<ControlPlane> {
        let (clock, random, components) = (Clock::real(), Random::real(), Shutdown::new());
        let listener = bind(api_port).await?;
        let address = listener.local_addr().doing("reading the API's port")?;
        let pki = Arc::new(Pki::open(layout, &clock, &random, settings.certificate_seconds)?);
        let renewal = |what: &'static str| Renewal {
            what,
            clock: clock.clone(),
            random: random.fork(),
            shutdown: components.clone(),
        };
        let follow = Follow {
            metrics: ReloadMetrics::default(),
            clock: clock.clone(),
            shutdown: components.clone(),
        };
        let flags = &settings.api_server;
        let accounts = flags.service_accounts.read()?.connected(&components).await?;
        let own_names = accounts.settings.clone();
        let (mut authentication, trusted) = authentication(flags, &own_names, &pki)?;
        let cleans = authentication.bootstrap_tokens;
        let tokens = authentication.tokens.take();
        let issuers = tokens
            .map(|tokens| issuers::start(tokens, own_names.issuers, &clock, &follow))
            .transpose()?;
        let store = Backing::open(layout, etcd, &clock, &random).await?;
        if let Some(node) = &settings.node {
            node_identity::ensure(layout, &pki, node, &clock)?;
        }
        let node = dial::NodeNamespace::new(layout.clone());
        let kubelets = dial::ToKubelets::new(node.clone(), pki.clone(), renewal("kube-apiserver-kubelet-client"))?;
        let authorizers = Arc::new(OnceLock::new());
        let chosen = (
            access.authorization.prepared.clone(),
            authorizers.clone(),
            access.admission,
        );
        let of = (&clock, &random);
        let used_secrets = UsedSecrets::default();
        let mut config = api_config(
            &pki,
            (authentication, &trusted, issuers),
            (accounts, &used_secrets),
            store.engine(),
            address,
            chosen,
            of,
        )?;
        config.services = Some(Arc::new(dial::ToPods(node)));
        config.nodes = Some(Arc::new(kubelets));
        config.audit = audit.as_ref().map(|audit| audit.auditor.clone());
        config.debug = access.debug;
        config.seats = flags.in_flight.seats()?;
        config.reloads = follow.metrics.clone();
        config.client_certificates = trusted.certificates.metrics().clone();
        config.store_bytes = store.measure(layout);
        let others = flags.authentication.requestheader_client_ca_file.is_some();
        config.aggregation = flags
            .aggregation
            .start(&pki, others, renewal("front-proxy-client"), &follow)?;
        flags.encryption.start(&config.sealing, &random, &follow).await?;
        let running = ApiServer::start(config).await.doing("starting the API server")?;
        if let Some(authorizers) = authorizers.get() {
            access.authorization.follow(authorizers.clone(), random.fork(), &follow);
        }

        let endpoint = (IpAddr::V4(API_ENDPOINT.0), API_ENDPOINT.1);
        let addresses = bootstrap::Addresses {
            service_range: SERVICE_RANGE.parse().map_err(CliError::internal)?,
            api_service: API_SERVICE,
            dns_service: DNS_SERVICE,
            api_endpoint: endpoint,
        };
        let own = client_as(&running, UserInfo::new("system:apiserver", [SYSTEM_MASTERS]));
        bootstrap::ensure(&own, &addresses)
            .await
            .doing("bringing the cluster into its first shape")?;
        running.hooks_ran(&bootstrap::HOOKS);

        apiserver::flowcontrol::maintain(&own, clock.clone(), &components);
        running.keep_cluster_ips(&own, &components);
        running.track_legacy_tokens(&used_secrets, &own, &components);
        running.keep_api_services(&own, &components);
        trust::maintain(&own, trusted.told(), clock.clone(), &components);
        trusted.follow(&follow);
        let names = vec![IpAddr::V4(API_SERVICE), IpAddr::V4(API_ENDPOINT.0)];
        let serving = serving::start(pki.clone(), names, renewal("kube-apiserver"))?;
        let certificates = flags.tls.certificates(serving.clone())?;
        certificates.follow(&follow);
        let (inside, tls) = (
            apiserver::serve::tls_config(serving),
            apiserver::serve::tls_config(Arc::new(certificates)),
        );
        if settings.node.is_some() {
            let socket = listen_for_nodes(layout)?;
            // Nodes and their pods know the cluster's own authority.
            let (server, tls) = (running.clone(), inside);
            components.spawn(async move {
                if let Err(error) = server.serve_unix(socket, tls).await {
                    tracing::error!(%error, "the API server stopped serving nodes");
                }
            });
        }
        let server = running.clone();
        components.spawn(async move {
            if let Err(error) = server.serve(listener, tls).await {
                tracing::error!(%error, "the API server stopped serving");
            }
        });
        let way = admin::Way {
            address,
            server_name: flags.tls.show_a_file().then_some(certificate_files::OWN_NAME),
        };
        admin::start(layout, pki.clone(), way, renewal("admin"))?;
        match &store {
            Backing::Embedded(_) => start_components(&running, &pki, cleans, &clock, &random, &components),
            Backing::Etcd(_) => start_components_in_turn(own, &running, &pki, cleans, &clock, &random, &components),
        }
        let demo_port = match settings.demo {
            true => Some(demo_port::forward(&running, layout, settings.demo_port, &components).await?),
            false => None,
        };
        Ok(ControlPlane {
            running,
            store,
            audit,
            components,
            address,
            demo_port,
        })
    }

    /// Until `/readyz` may say that it is ready, or a little longer than that takes. Whoever keeps it from it, like a webhook
    /// that refuses every write, is to be found and changed by requests.
    pub async fn settle(&self) {
        let there = self.running.api_services_are_there();
        if tokio::time::timeout(SETTLING_LIMIT, there).await.is_err() {
            tracing::warn!("not all APIServices of what is built in are available: see kubectl get apiservices");
        }
    }

    /// Serves etcd's API over the store: to read all of it, and to write outside of what is the API server's.
    pub async fn serve_etcd(&self, layout: &Layout, listen: SocketAddr) -> Result<SocketAddr> {
        let own = [b"/registry/".as_slice(), b"/trireme/"].map(Bytes::from_static);
        let Backing::Embedded(engine) = &self.store else {
            return Err(etcd_listen_over_etcd());
        };
        let (engine, clock, random) = (engine.clone(), Clock::real(), Random::real());
        etcd_front::serve(layout, engine, own.into(), listen, &clock, &random, &self.components).await
    }

    /// Where the API is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `up` needs to know.
    pub fn describe(&self) -> Value {
        json!({"apiPort": self.address.port(), "demoPort": self.demo_port})
    }

    /// Ends everything: components first, so that they do not see their server go.
    pub async fn end(self) {
        self.components.trigger();
        self.running.shutdown().await;
        self.components.finish().await;
        self.store.close().await;
        if let Some(audit) = self.audit {
            audit.close().await;
        }
    }
}

async fn bind(api_port: u16) -> Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, api_port));
    TcpListener::bind(address).await.map_err(|error| {
        let what = format!("the API cannot listen on {address}: {}", words(&error));
        match error.kind() {
            std::io::ErrorKind::AddrInUse => CliError::new(Kind::Machine, "PORT_TAKEN", what).hint(format!(
                "see who has it: ss -ltnp sport = :{api_port}; or take a free one: --api-port 0"
            )),
            std::io::ErrorKind::PermissionDenied => CliError::new(Kind::Machine, "LISTEN", what)
                .hint("ports below 1024 are root's; take a free one: --api-port 0"),
            _ => CliError::new(Kind::Machine, "LISTEN", what)
                .hint("look at the machine's loopback: ip address show lo; or take another port: --api-port 0"),
        }
    })
}

/// The socket through which nodes of this machine come: their networks lead nowhere else.
fn listen_for_nodes(layout: &Layout) -> Result<UnixListener> {
    let path = layout.api_socket();
    // A socket of a daemon that was killed is in the way.
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(&path).map_err(|error| CliError::file(&path, &error))
}

/// How clients prove who they are, and whose certificates count.
fn authentication(
    flags: &ApiServerFlags,
    own_names: &TokenSettings,
    pki: &Pki,
) -> Result<(AuthenticationSettings, Trusted)> {
    let own_ca_pem = pki.ca_pem();
    let client_ca = flags.tls.client_ca()?;
    let more = client_ca.as_ref().map_or("", |(_, text)| text.as_str());
    let mut settings = flags
        .authentication
        .read(&trusted::together(own_ca_pem, more), own_names)?;
    let own = || front_proxy::own(pki);
    settings.front_proxy = Some(settings.front_proxy.take().unwrap_or_else(own));
    let proxy_ca = flags.authentication.requestheader_client_ca_file.clone();
    let trusted = Trusted::new(own_ca_pem, client_ca, settings.front_proxy.clone(), proxy_ca)?;
    Ok((settings, trusted))
}

/// A name of a file that does not depend on the working directory; a name of nothing is none.
fn anchor(file: Option<&Path>) -> Result<Option<PathBuf>> {
    let named = file.filter(|file| !file.as_os_str().is_empty());
    named.map(std::path::absolute).transpose().map_err(CliError::internal)
}

impl ApiServerFlags {
    /// Whether a server could start with them.
    ///
    /// # Errors
    /// A file cannot be used, or flags contradict each other.
    pub fn check(&self) -> Result {
        self.audit.check()?;
        self.audit_webhook.check()?;
        self.encryption.check()?;
        // Whether its authorities are the cluster's own is seen when it starts.
        self.authentication.read("", &self.service_accounts.read()?.settings)?;
        self.authorization.plan(&Random::real())?;
        self.admission.selection()?;
        self.in_flight.seats()?;
        self.aggregation.check()?;
        self.tls.check()
    }
}

fn api_config(
    pki: &Pki,
    (settings, trusted, issuers): (AuthenticationSettings, &Trusted, Option<Arc<JwtTokens>>),
    (accounts, used_secrets): (TokenPlan, &UsedSecrets),
    store: Arc<dyn Engine>,
    address: SocketAddr,
    (prepared, authorizers, admission): (Prepared, Arc<OnceLock<Arc<Configured>>>, Selection),
    (clock, random): (&Clock, &Random),
) -> Result<Config> {
    let signer = Arc::new(accounts.signer(&pki.token_key_pem, random.fork())?);
    let (certificates, proxy) = (trusted.certificates.clone(), trusted.proxy.clone());
    let policy = bootstrap::policy::objects().map_err(CliError::internal)?;
    let is_node_role = |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node";
    let node_role = policy.iter().find(is_node_role).cloned().unwrap_or_default();
    let (parts_clock, parts_random) = (clock.clone(), random.fork());
    let used_secrets = used_secrets.clone();
    let parts = move |cluster: Arc<dyn Cluster>| {
        let rbac = Arc::new(Rbac::new(&*cluster));
        let node = Arc::new(NodeAuthorizer::new(&*cluster, &node_role));
        let configured = Arc::new(Configured::new(node, rbac.clone(), &prepared));
        // Told once: the server starts once.
        let _ = authorizers.set(configured.clone());
        let authorizer: Arc<dyn Authorizer> = configured;
        let objects = Arc::new(ClusterObjects(cluster.clone()));
        let tokens = TokenAuthenticator::new(signer.clone(), objects).with_used(&used_secrets);
        let mut authentication = Authentication::new(certificates, tokens, parts_clock.clone())
            .with_front_proxy(proxy)
            .with_token_file(settings.token_file);
        if settings.bootstrap_tokens {
            let tokens = BootstrapTokens::new(cluster.clone(), parts_clock.clone());
            authentication = authentication.with_tokens(Arc::new(tokens));
        }
        if let Some(issuers) = issuers {
            authentication = authentication.with_tokens(issuers);
        }
        if let Some(webhook) = settings.webhook {
            authentication = authentication.with_tokens(webhook);
        }
        Parts {
            authenticator: Arc::new(authentication),
            admission: apiserver::admission::plugins(rbac, authorizer.clone(), parts_random, &admission),
            authorizer,
            tokens: Some(Arc::new(Issuer::new(signer, cluster, parts_clock))),
        }
    };
    let mut config = Config::new(store, kinds::rows(), Box::new(parts));
    (config.clock, config.random) = (clock.clone(), random.fork());
    config.anonymous = settings.anonymous;
    config.advertised = address.to_string();
    let secrets = GroupResource {
        group: String::new(),
        resource: "secrets".into(),
    };
    let sealer = Sealer::from_text(&pki.sealing_keys, [secrets], random.fork());
    let sealer = sealer.doing("reading the keys of encryption at rest (pki/sealing.keys)")?;
    config.sealing = Arc::new(Sealing::new(Some(sealer), None));
    Ok(config)
}

fn client_as(running: &Running, user: UserInfo) -> Client {
    Client::new(running.transport(user))
}

/// The identity of a controller, as kube-controller-manager gives each of its own.
fn controller(running: &Running, name: &str) -> Client {
    let user = format!("system:serviceaccount:kube-system:{name}");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    client_as(running, UserInfo::new(user, groups)).with_user_agent(name)
}

/// With several servers on one store, the components of one of them act.
fn start_components_in_turn(
    own: Client,
    running: &Running,
    pki: &Arc<Pki>,
    cleans_bootstrap_tokens: bool,
    clock: &Clock,
    random: &Random,
    shutdown: &Shutdown,
) {
    let identity = format!(
        "{}_{}",
        rustix::system::uname().nodename().to_string_lossy(),
        random.uuid()
    );
    let (running, pki, parts) = (running.clone(), pki.clone(), (clock.clone(), random.fork()));
    let lead = move |term: Shutdown| {
        start_components(&running, &pki, cleans_bootstrap_tokens, &parts.0, &parts.1, &term);
        async move { term.cancelled().await }
    };
    let (clock, random, ends) = (clock.clone(), random.fork(), shutdown.clone());
    shutdown.spawn(backing::lead_in_turn(own, identity, clock, random, ends, lead));
}

fn start_components(
    running: &Running,
    pki: &Arc<Pki>,
    cleans_bootstrap_tokens: bool,
    clock: &Clock,
    random: &Random,
    shutdown: &Shutdown,
) {
    let manager = client_as(running, UserInfo::new::<String>("system:kube-controller-manager", []));
    let server = running.clone();
    let client_for = Box::new(move |name: &str| controller(&server, name));
    let mut config = controllers::Config::new(client_for, manager, clock.clone(), pki.ca_pem().to_owned());
    config.random = random.fork();
    config.signer = Some(pki.clone());
    config.cleans_bootstrap_tokens = cleans_bootstrap_tokens;
    controllers::start(config, shutdown.clone());
    let scheduler = client_as(running, UserInfo::new::<String>("system:kube-scheduler", []));
    let config = scheduler::Config {
        client: scheduler.clone().with_user_agent("kube-scheduler"),
        informers: SharedInformers::new(scheduler, shutdown.clone()),
        clock: clock.clone(),
        random: random.fork(),
        name: "default-scheduler".into(),
    };
    shutdown.spawn(scheduler::run(config, shutdown.clone()));
}
