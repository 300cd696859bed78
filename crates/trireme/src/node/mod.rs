//! The node put together: its own namespaces entered already, the runtime behind CRI, the network, the kubelet.
//!
//! A node is a process of its own (D8) with its own identity, and reaches the API through a Unix socket: its network leads
//! nowhere (D14). Everything it makes in the kernel lives in its namespaces and goes with them.

mod api_forward;
mod identity;
mod images;
mod pod_network;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use base::backoff::Backoff;
use base::{Clock, Random, Shutdown};
use client::Client;
use client::events::Recorder;
use client::informer::{Selection, SharedInformers};
use client::k8s_openapi::api::core::v1::{Node, Pod, Service};
use kubelet::cri::Cri;
use kubelet::node::{Facts, Images, NodeConfig, NodeKeeper};
use kubelet::pod::{Manager, NodePods, Shared};
use kubelet::probes::ProbeMetrics;
use kubelet::server::{ReviewAuthorizer, Server};
use network::node::NodeNetwork;
use network::{Agent, AgentConfig};
use sys::netns::NetworkNamespace;
use tokio::sync::watch;

use self::identity::Identity;
use self::pod_network::PodNetwork;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, make_private_dir};
use crate::process::own_cgroup;
use crate::server::{API_ENDPOINT, DNS_SERVICE, POD_RANGE, SERVICE_RANGE};

/// The address of the node.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 243, 0, 10);
/// Where a kubelet listens.
pub const KUBELET_PORT: u16 = 10250;
/// How many pods a node takes: upstream's default.
const PODS_MAX: u32 = 110;
/// The cluster's domain.
const DOMAIN: &str = "cluster.local";
/// How soon the API is asked again when it did not answer to the registration; it doubles.
const REGISTER_RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest wait between two registrations, as upstream's kubelet.
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(7);

/// A running node.
pub struct RunningNode {
    shutdown: Shutdown,
    socket: PathBuf,
}

// === impl RunningNode ===

impl RunningNode {
    /// Starts the node of that name. The process is in the node's namespaces already.
    pub async fn start(layout: &Layout, name: &str) -> Result<RunningNode> {
        let (clock, random, shutdown) = (Clock::real(), Random::real(), Shutdown::new());
        let (data, run) = (layout.node_data(name), layout.node_run(name));
        make_private_dir(&data)?;
        make_private_dir(&run)?;
        own_proc()?;
        // Beside the start: nothing depends on it, and it takes a while.
        let root = layout.cgroup_root();
        tokio::task::spawn_blocking(move || own_cgroup(&root, "daemon"));
        rustix::system::sethostname(name.as_bytes()).doing("naming the node's host")?;

        let identity = Identity::open(layout, name)?;
        identity.keep(&clock, &random, &shutdown);
        let client = identity.kubelet.clone();
        let recorder = Recorder::start(client.clone(), "kubelet", name, clock.clone(), &shutdown);
        let facts = Facts::read(&data);
        let (ready, is_ready) = watch::channel(Err("the node is starting".to_owned()));
        let keeper = NodeKeeper::new(
            client.clone(),
            recorder.clone(),
            clock.clone(),
            node_config(name, facts.clone()),
            is_ready,
        );
        let range = register(&keeper, &client, name, &shutdown).await?;

        let network = NodeNetwork {
            node_address: NODE_ADDRESS,
            pod_network: range,
            cluster_network: POD_RANGE.parse().map_err(CliError::internal)?,
            service_network: SERVICE_RANGE.parse().map_err(CliError::internal)?,
            dns_address: Some(DNS_SERVICE),
        };
        let namespace = NetworkNamespace::current().doing("opening the node's network")?;
        network::node::setup(&namespace, &network, None).doing("setting up the node's network")?;
        api_forward::start(API_ENDPOINT, layout.api_socket(), &shutdown).await?;

        let (links, host_ports) = PodNetwork::open(&namespace, &run.join("links"), NODE_ADDRESS, range)?;
        let runtime = start_runtime(layout, name, links, &clock, &random).await?;
        let cri_socket = run.join("cri.sock");
        serve_cri(&runtime, &cri_socket, &shutdown).await?;

        let informers = SharedInformers::new(client.clone(), shutdown.clone()).with_random(random.fork());
        let agent_config = AgentConfig {
            node_name: name.to_owned(),
            network,
            domain: DOMAIN.to_owned(),
            uplink: None,
        };
        let proxied = SharedInformers::new(identity.proxy.clone(), shutdown.clone()).with_random(random.fork());
        let agent = Agent::start(agent_config, &namespace, &proxied, host_ports, None, &random, &shutdown);
        let agent = agent.doing("starting the node's network")?;

        let cri = Cri::connect(&cri_socket).doing("reaching the runtime")?;
        let told = node_facts(&facts);
        let abilities = cri.abilities().await.doing("asking what the runtime can do")?;
        let volumes = kubelet::volumes::VolumeManager::new(
            kubelet::volumes::Config {
                recursive_read_only: abilities.recursive_read_only(),
                ..kubelet::volumes::Config::new(&data, told.clone())
            },
            client.clone(),
            clock.clone(),
            random.fork(),
            shutdown.clone(),
        );
        let pods = informers.selected::<Pod>(Selection::fields(format!("spec.nodeName={name}")));
        let probe_metrics = ProbeMetrics::default();
        let shared = Arc::new(Shared {
            cri: cri.clone(),
            client: client.clone(),
            recorder,
            clock,
            random: random.fork(),
            node: node_for_pods(name, layout, &facts),
            host_ips: parking_lot::RwLock::new(vec![NODE_ADDRESS.to_string()]),
            volumes,
            facts: told,
            services: informers.informer::<Service>(),
            pods: pods.clone(),
            probe_metrics: probe_metrics.clone(),
            deferred: Default::default(),
        });
        serve_kubelet(
            &identity,
            name,
            NodePods::new(name.to_owned(), cri.clone(), pods.clone(), probe_metrics),
            cri,
            &client,
            &shutdown,
        )
        .await?;
        let rotation = kubelet::logs::rotate(
            shared.node.log_root.clone(),
            shared.cri.clone(),
            shared.clock.clone(),
            shutdown.clone(),
        );
        shutdown.spawn(rotation);
        let manager = Manager::new(shared, pods, shutdown.clone());
        shutdown.spawn(manager.run());
        let node_socket = layout.node_socket(name);
        let node_images = Images {
            cri: Cri::connect(&cri_socket).doing("reaching the runtime")?,
            changes: runtime.images().changes(),
        };
        images::serve(runtime, &node_socket, &shutdown)?;
        shutdown.spawn(keeper.clone().run(node_images, shutdown.clone()));
        if agent.ready().await {
            // Nobody reads it only when the node ends already.
            let _ = ready.send(Ok(()));
        }
        // The sender has to live as long as the node.
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            stop.cancelled().await;
            drop(ready);
        });
        Ok(RunningNode {
            shutdown,
            socket: node_socket,
        })
    }

    /// Ends the daemon; pods go on.
    pub async fn end(self) {
        self.shutdown.finish().await;
        let _ = std::fs::remove_file(self.socket);
    }
}

fn node_config(name: &str, facts: Facts) -> NodeConfig {
    let version = env!("CARGO_PKG_VERSION");
    NodeConfig {
        name: name.to_owned(),
        address: IpAddr::V4(NODE_ADDRESS),
        port: KUBELET_PORT,
        labels: Default::default(),
        pods_max: PODS_MAX,
        facts,
        runtime_version: format!("trireme://{version}"),
        kubelet_version: apiserver::version::GIT_VERSION.to_owned(),
    }
}

/// What the downward API tells of the node.
fn node_facts(facts: &Facts) -> kubelet::env::NodeFacts {
    let amounts = [
        ("cpu", facts.cpus.to_string()),
        ("memory", facts.memory_allocatable_bytes().to_string()),
        ("ephemeral-storage", facts.disk_allocatable_bytes().to_string()),
    ];
    kubelet::env::NodeFacts {
        host_ips: vec![NODE_ADDRESS.to_string()],
        allocatable: amounts
            .into_iter()
            .filter_map(|(name, amount)| Some((name.to_owned(), Quantity::parse(&amount).ok()?)))
            .collect(),
    }
}

fn node_for_pods(name: &str, layout: &Layout, facts: &Facts) -> kubelet::config::Node {
    kubelet::config::Node {
        name: name.to_owned(),
        log_root: layout.node_data(name).join("logs"),
        // The runtime takes it relative to its own root.
        cgroup_root: String::new(),
        memory_bytes: facts.memory_bytes,
        cluster_dns: vec![IpAddr::V4(DNS_SERVICE)],
        cluster_domain: DOMAIN.to_owned(),
        // An isolated node knows no resolver but the cluster's.
        resolver: kubelet::config::Resolver {
            servers: vec![DNS_SERVICE.to_string()],
            ..Default::default()
        },
    }
}

/// The kubelet's own server, for logs and exec: whoever comes shows a certificate, and the API server says what he may.
async fn serve_kubelet(
    identity: &Identity,
    name: &str,
    pods: Arc<NodePods>,
    cri: Cri,
    client: &Client,
    shutdown: &Shutdown,
) -> Result {
    let address = SocketAddr::from((NODE_ADDRESS, KUBELET_PORT));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .doing("listening as the kubelet")?;
    let tls = identity.kubelet_tls()?;
    let authorizer = Arc::new(ReviewAuthorizer::new(client.clone(), name));
    let server = Server::new(pods, Arc::new(cri), authorizer, Clock::real());
    let stop = shutdown.clone();
    shutdown.spawn(server.serve(listener, tls, stop));
    Ok(())
}

/// A `/proc` that shows the node's own processes.
fn own_proc() -> Result {
    let stat = std::fs::read_link("/proc/self").doing("reading /proc")?;
    if stat == Path::new(&std::process::id().to_string()) {
        return Ok(());
    }
    let flags =
        rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV | rustix::mount::MountFlags::NOEXEC;
    rustix::mount::mount("proc", "/proc", "proc", flags, None).doing("mounting the node's /proc")
}

/// Registers the node and waits for its pods' range, which a controller gives it.
async fn register(keeper: &NodeKeeper, client: &Client, name: &str, shutdown: &Shutdown) -> Result<ipnet::Ipv4Net> {
    let ended = || CliError::internal("the node ended while it waited for its range");
    let mut backoff = Backoff::new(REGISTER_RETRY_MIN, REGISTER_RETRY_MAX);
    while let Err(error) = shutdown.until(keeper.register()).await.ok_or_else(ended)? {
        if error.is_forbidden() || error.is_invalid() {
            return Err(CliError::new(
                Kind::Machine,
                "NOT_REGISTERED",
                format!("registering the node {name}: {error}"),
            )
            .hint(format!(
                "another node of that name may be there: kubectl get node {name}"
            )));
        }
        tracing::warn!(%error, "the node is not registered yet");
        let wait = tokio::time::sleep(backoff.next_delay());
        shutdown.until(wait).await.ok_or_else(ended)?;
    }
    let informers = SharedInformers::new(client.clone(), shutdown.clone());
    let nodes = informers.selected::<Node>(Selection::fields(format!("metadata.name={name}")));
    let range = |node: &Node| node.spec.as_ref()?.pod_cidr.as_ref()?.parse::<ipnet::Ipv4Net>().ok();
    if !nodes.until("", name, |node| node.and_then(range).is_some()).await {
        return Err(ended());
    }
    let node = nodes.get("", name);
    node.as_deref()
        .and_then(range)
        .ok_or_else(|| CliError::internal("the node's range went away"))
}

async fn start_runtime(
    layout: &Layout,
    name: &str,
    network: Arc<PodNetwork>,
    clock: &Clock,
    random: &Random,
) -> Result<Arc<runtime::Runtime>> {
    let mut config = runtime::Config::new(
        layout.node_data(name).join("runtime"),
        layout.node_run(name).join("runtime"),
        network,
    );
    config.cgroup_root = layout.cgroup_root();
    (config.clock, config.random) = (clock.clone(), random.fork());
    runtime::Runtime::open(config)
        .await
        .doing("starting the container runtime")
}

async fn serve_cri(runtime: &Arc<runtime::Runtime>, socket: &Path, shutdown: &Shutdown) -> Result {
    let serving = runtime::serve(runtime.clone(), socket, shutdown.clone()).await;
    shutdown.spawn(serving.doing("opening the runtime's socket")?);
    Ok(())
}
