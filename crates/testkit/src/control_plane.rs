//! The control plane of `trireme server` in the test's own process, without files, flags and fixed ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use apiserver::authentication::{Authentication, CertificateAuthenticator};
use apiserver::authorization::{Chain, NodeAuthorizer, Rbac};
use apiserver::cluster::Cluster;
use apiserver::pipeline::Authorizer;
use apiserver::pki::{Authority, Pair};
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use apiserver::tokens::{ClusterObjects, Issuer, Signer, TokenAuthenticator, UsedSecrets};
use apiserver::{ApiServer, Config, Parts, Running, bootstrap};
use base::disk::{Disk, SimDisk};
use base::{Clock, Random, Shutdown};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::Client;
use client::https::{Credentials, HttpsTransport};
use client::informer::SharedInformers;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use store::{Driver, Embedded, EmbeddedOptions};
use tokio::net::TcpListener;

/// Where the cluster's own objects say that the API and DNS are, as in `trireme up`.
const ADDRESSES: bootstrap::Addresses = bootstrap::Addresses {
    service_range: ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
    api_service: Ipv4Addr::new(10, 96, 0, 1),
    dns_service: Ipv4Addr::new(10, 96, 0, 10),
    api_endpoint: (IpAddr::V4(Ipv4Addr::new(10, 243, 0, 1)), 6443),
};

/// A running control plane. [`ControlPlane::end`] ends it; dropping it ends its components but waits for nothing.
pub struct ControlPlane {
    running: Running,
    store: Arc<Embedded>,
    components: Shutdown,
    authority: Authority,
    address: SocketAddr,
    clock: Clock,
    used_secrets: UsedSecrets,
}

/// A store engine on a disk: a simulated one, whose power a test can cut, or any other.
///
/// # Errors
/// The store cannot be opened.
pub async fn engine_on(disk: Arc<dyn Disk>) -> anyhow::Result<Arc<Embedded>> {
    let mut options = EmbeddedOptions::simulated(disk, Clock::real(), Random::seeded(1));
    // Pauses between the writer's steps are for tests of the store.
    options.driver = Driver::Task;
    Ok(Arc::new(Embedded::open(options).await?))
}

// === impl ControlPlane ===

impl ControlPlane {
    /// A new cluster whose store is in memory.
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start() -> anyhow::Result<ControlPlane> {
        let disk = SimDisk::new(Random::seeded(1));
        ControlPlane::start_over(engine_on(Arc::new(disk)).await?).await
    }

    /// A control plane over what a store has. The authority is new with each start.
    ///
    /// # Errors
    /// Whatever does not start.
    pub async fn start_over(store: Arc<Embedded>) -> anyhow::Result<ControlPlane> {
        // Several tests of one program: the first one installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (clock, random, components) = (Clock::real(), Random::real(), Shutdown::new());
        let authority = Authority::generate("kubernetes", clock.now(), random.fork())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let used_secrets = UsedSecrets::default();
        let running = start_api(store.clone(), &authority, address, &used_secrets, (&clock, &random)).await?;
        let plane = ControlPlane {
            running,
            store,
            components,
            authority,
            address,
            clock,
            used_secrets,
        };
        bootstrap::ensure(&plane.administrator(), &ADDRESSES).await?;
        plane.running.hooks_ran(&bootstrap::HOOKS);
        let tls = apiserver::serve::tls_config(Arc::new(plane.certificate()?));
        let server = plane.running.clone();
        plane.components.spawn(async move { server.serve(listener, tls).await });
        plane.start_components(&random);
        Ok(plane)
    }

    /// A client that calls the server as `user`, without a connection.
    pub fn client(&self, user: UserInfo) -> Client {
        Client::new(self.running.transport(user))
    }

    /// The same as the cluster's administrator.
    pub fn administrator(&self) -> Client {
        self.client(UserInfo::new("kubernetes-admin", [SYSTEM_MASTERS]))
    }

    /// A client over HTTPS that proves to be `user`, in at most one group, by a certificate.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn https(&self, user: &str, group: Option<&str>) -> anyhow::Result<Client> {
        let pair = self.certificate_of(user, group)?;
        let credentials = Credentials::Certificate {
            chain_pem: pair.certificate_pem,
            key_pem: pair.key_pem,
        };
        let transport = HttpsTransport::new(&self.url(), self.ca_pem(), credentials)?;
        Ok(Client::new(Arc::new(transport)))
    }

    /// A kubeconfig for `kubectl` as `user`.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn kubeconfig(&self, user: &str, group: Option<&str>) -> anyhow::Result<Value> {
        let pair = self.certificate_of(user, group)?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(), "certificate-authority-data": BASE64.encode(self.ca_pem()),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
            "users": [{"name": "test", "user": {
                "client-certificate-data": BASE64.encode(pair.certificate_pem),
                "client-key-data": BASE64.encode(pair.key_pem),
            }}],
        }))
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pair().certificate_pem
    }

    /// Ends everything: components first, so that they do not see their server go; then the store, which is free for
    /// another opening afterwards.
    pub async fn end(self) {
        self.components.trigger();
        self.running.shutdown().await;
        self.components.finish().await;
        self.store.close().await;
    }

    fn certificate_of(&self, user: &str, group: Option<&str>) -> anyhow::Result<Pair> {
        Ok(self.authority.issue_client(user, group, self.clock.now())?)
    }

    fn certificate(&self) -> anyhow::Result<SingleCertAndKey> {
        let addresses = [self.address.ip()];
        let now = self.clock.now();
        let pair = self
            .authority
            .issue_server("kube-apiserver", None, &["kubernetes"], &addresses, now)?;
        let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes())?.context("a certificate without a key")?;
        let provider = rustls::crypto::ring::default_provider();
        Ok(CertifiedKey::from_der(chain?, key, &provider)?.into())
    }

    fn start_components(&self, random: &Random) {
        let own = self.client(UserInfo::new("system:apiserver", [SYSTEM_MASTERS]));
        self.running.keep_cluster_ips(&own, &self.components);
        self.running
            .track_legacy_tokens(&self.used_secrets, &own, &self.components);
        self.running.keep_api_services(&own, &self.components);
        let manager = self.client(UserInfo::new::<String>("system:kube-controller-manager", []));
        let server = self.running.clone();
        let client_for = Box::new(move |name: &str| {
            let user = format!("system:serviceaccount:kube-system:{name}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            Client::new(server.transport(UserInfo::new(user, groups)))
        });
        let mut config = controllers::Config::new(client_for, manager, self.clock.clone(), self.ca_pem().to_owned());
        config.random = random.fork();
        controllers::start(config, self.components.clone());
        let scheduler = self.client(UserInfo::new::<String>("system:kube-scheduler", []));
        let config = scheduler::Config {
            client: scheduler.clone(),
            informers: SharedInformers::new(scheduler, self.components.clone()),
            clock: self.clock.clone(),
            random: random.fork(),
            name: "default-scheduler".into(),
        };
        self.components.spawn(scheduler::run(config, self.components.clone()));
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.components.trigger();
    }
}

async fn start_api(
    store: Arc<Embedded>,
    authority: &Authority,
    address: SocketAddr,
    used_secrets: &UsedSecrets,
    (clock, random): (&Clock, &Random),
) -> anyhow::Result<Running> {
    let signer = Arc::new(Signer::from_pem(
        &rcgen::KeyPair::generate()?.serialize_pem(),
        random.fork(),
    )?);
    let certificates = Arc::new(CertificateAuthenticator::new(&authority.pair().certificate_pem)?);
    let policy = bootstrap::policy::objects().map_err(anyhow::Error::msg)?;
    let is_node_role = |object: &&Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node";
    let node_role = policy.iter().find(is_node_role).cloned().context("no role for nodes")?;
    let (parts_clock, parts_random, used_secrets) = (clock.clone(), random.fork(), used_secrets.clone());
    let parts = move |cluster: Arc<dyn Cluster>| {
        let rbac = Arc::new(Rbac::new(&*cluster));
        let node = Arc::new(NodeAuthorizer::new(&*cluster, &node_role));
        let authorizer: Arc<dyn Authorizer> = Arc::new(Chain::new(vec![node, rbac.clone()]));
        let tokens = TokenAuthenticator::new(signer.clone(), Arc::new(ClusterObjects(cluster.clone())));
        let tokens = tokens.with_used(&used_secrets);
        Parts {
            authenticator: Arc::new(Authentication::new(certificates, tokens, parts_clock.clone())),
            admission: apiserver::admission::plugins(rbac, authorizer.clone(), parts_random, &Default::default()),
            authorizer,
            tokens: Some(Arc::new(Issuer::new(signer, cluster, parts_clock))),
        }
    };
    let mut config = Config::new(store, kinds::rows(), Box::new(parts));
    (config.clock, config.random) = (clock.clone(), random.fork());
    config.advertised = address.to_string();
    Ok(ApiServer::start(config).await?)
}
