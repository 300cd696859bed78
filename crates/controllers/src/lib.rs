//! The controllers of kube-controller-manager: what makes the cluster follow its objects.
//!
//! One module a controller. Each has a pure core that decides from a snapshot what to do (no clock, no socket, no `async`)
//! and a thin shell that watches, asks the core and performs its actions, under the controller's own identity.
//!
//! **Architecture invariant:** this crate talks to the API only, through `client`. It waits for events and deadlines and
//! polls nothing; a decision that changes nothing writes nothing.

mod account_tokens;
mod backends;
mod bootstrap_signer;
mod bootstrap_tokens;
mod certificates;
mod cluster_role_aggregation;
mod context;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod owners;
mod parallel;
mod pod_gc;
mod pods;
mod policy_type_checking;
mod replica_set;
mod resource_quota;
mod root_ca;
mod service_account;
mod service_cidrs;
mod taint_eviction;
mod views;
mod volume_protection;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod testkit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use base::{Clock, Random, Shutdown};
use client::Client;
use client::informer::SharedInformers;
use client::k8s_openapi::api::core::v1::Node;
use ipnet::IpNet;
use tokio::task::JoinHandle;

pub use certificates::CertificateSigner;
use context::Context;

/// What the controllers need from whoever starts them.
pub struct Config {
    /// Makes the client of a controller; the name is that of its service account in `kube-system`, such as
    /// `deployment-controller`.
    pub client_for: Box<dyn Fn(&str) -> Client + Send + Sync>,
    /// Reads for the informers that all controllers share.
    pub informers_client: Client,
    /// Wall time.
    pub clock: Clock,
    /// Names of pods, jitter.
    pub random: Random,
    /// The ranges pod addresses come from, one of a family; each node gets a part. Empty: nodes get none.
    pub cluster_cidrs: Vec<IpNet>,
    /// How long the mask of a node's IPv4 part is (24).
    pub node_cidr_mask_v4: u8,
    /// How long the mask of a node's IPv6 part is (64).
    pub node_cidr_mask_v6: u8,
    /// The cluster's CA, published in every namespace.
    pub root_ca_pem: String,
    /// Signs approved certificate requests; `None`: nobody does.
    pub signer: Option<Arc<dyn CertificateSigner>>,
    /// Finished pods beyond this number are removed, oldest first; zero keeps all. Upstream's default is 12500.
    pub terminated_pods_max: usize,
    /// Whether bootstrap tokens are removed when their time is over, and sign `cluster-info` until then.
    pub cleans_bootstrap_tokens: bool,
}

impl Config {
    /// The usual settings over the given clients.
    pub fn new(
        client_for: Box<dyn Fn(&str) -> Client + Send + Sync>,
        informers_client: Client,
        clock: Clock,
        root_ca_pem: String,
    ) -> Config {
        Config {
            client_for,
            informers_client,
            clock,
            random: Random::real(),
            cluster_cidrs: vec!["10.244.0.0/16".parse().expect("invariant: a valid prefix")],
            node_cidr_mask_v4: 24,
            node_cidr_mask_v6: 64,
            root_ca_pem,
            signer: None,
            terminated_pods_max: 12_500,
            cleans_bootstrap_tokens: false,
        }
    }
}

/// Starts all controllers. The task ends after `shutdown` was triggered and all of them have stopped.
pub fn start(config: Config, shutdown: Shutdown) -> JoinHandle<()> {
    let own = shutdown.child();
    let informers =
        SharedInformers::new(config.informers_client.clone(), own.clone()).with_random(config.random.fork());
    let context = |name: &str, component: &str| Context::new(&config, name, component, informers.clone(), own.clone());
    cluster_role_aggregation::start(context(
        "clusterrole-aggregation-controller",
        "clusterrole-aggregation-controller",
    ));
    namespace::start(context("namespace-controller", "namespace-controller"));
    service_account::start(context("service-account-controller", "service-account-controller"));
    root_ca::start(
        context("root-ca-cert-publisher", "root-ca-cert-publisher"),
        config.root_ca_pem.clone(),
    );
    // Upstream gives it no account of its own: it acts as kube-controller-manager itself.
    let mut tokens = context("tokens-controller", "tokens-controller");
    tokens.client = config.informers_client.clone().with_user_agent("tokens-controller");
    account_tokens::start(tokens, config.root_ca_pem.clone());
    start_certificates(&context, config.signer.clone());
    policy_type_checking::start(context(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
    ));
    deployment::start(context("deployment-controller", "deployment-controller"));
    replica_set::start::<views::ReplicaSet>(context("replicaset-controller", "replicaset-controller"));
    let older = context("replication-controller", "replication-controller");
    replica_set::start::<views::ReplicationController>(older);
    endpoint_slice::start(context("endpointslice-controller", "endpoint-slice-controller"));
    endpoint_slice_mirroring::start(context(
        "endpointslicemirroring-controller",
        "endpoint-slice-mirroring-controller",
    ));
    endpoints::start(context("endpoint-controller", "endpoint-controller"));
    service_cidrs::start(context("service-cidrs-controller", "service-cidr-controller"));
    disruption::start(context("disruption-controller", "controllermanager"));
    garbage_collector::start(context("generic-garbage-collector", "garbage-collector-controller"));
    resource_quota::start(context("resourcequota-controller", "resourcequota-controller"));
    node_lifecycle::start(context("node-controller", "node-controller"));
    taint_eviction::start(context("node-controller", "taint-eviction-controller"));
    pod_gc::start(
        context("pod-garbage-collector", "pod-garbage-collector"),
        config.terminated_pods_max,
    );
    volume_protection::claims::start(context("pvc-protection-controller", "pvc-protection-controller"));
    volume_protection::volumes::start(context("pv-protection-controller", "pv-protection-controller"));
    let masks = (config.node_cidr_mask_v4, config.node_cidr_mask_v6);
    node_ipam::start(
        context("node-controller", "cidrAllocator"),
        config.cluster_cidrs.clone(),
        masks,
    );
    if config.cleans_bootstrap_tokens {
        bootstrap_tokens::start(context("token-cleaner", "token-cleaner"));
        bootstrap_signer::start(context("bootstrap-signer", "bootstrap-signer"));
    }
    let ended = shutdown.clone();
    tokio::spawn(async move {
        ended.cancelled().await;
        own.finish().await;
    })
}

fn start_certificates(context: &dyn Fn(&str, &str) -> Context, signer: Option<Arc<dyn CertificateSigner>>) {
    let account = "certificate-controller";
    certificates::approving::start(
        context(account, "certificate-controller"),
        Vec::new(),
        Arc::new(certificates::approving::kubelet_client),
    );
    let renewal = context("certificate-renewal-approver", "certificate-controller");
    let nodes = renewal.informers.informer::<Node>();
    certificates::approving::start(
        renewal,
        vec![context::synced(&nodes)],
        Arc::new(move |request, asked| certificates::renewal::recognize(request, asked, |name| nodes.get("", name))),
    );
    certificates::cleaner::start(context(account, "certificate-controller"));
    if let Some(signer) = signer {
        certificates::signing::start(context(account, "certificate-controller"), signer);
    }
}
