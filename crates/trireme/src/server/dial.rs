//! The ways from the API server into the node's network: to its kubelet and to its pods.
//!
//! Sockets are opened inside the node's namespace, so that the machine's own network never sees a packet for the cluster.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::dial::{NodeDialer, ServiceDialer, Stream};
use apiserver::pki::Pair;
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sys::netns::NetworkNamespace;
use tokio_rustls::TlsConnector;

use super::pki::Pki;
use crate::errors::{CliError, Context as _, Result};
use crate::layout::Layout;
use crate::process::Process;
use crate::renewal::Renewal;
use crate::settings::Settings;
use crate::tls;

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The name under which the API server speaks to kubelets; bound to `system:kubelet-api-admin`.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// The network of the node of this machine, while it runs.
#[derive(Clone)]
pub struct NodeNamespace {
    layout: Layout,
}

// === impl NodeNamespace ===

impl NodeNamespace {
    /// The node that `up` starts from these directories.
    pub fn new(layout: Layout) -> NodeNamespace {
        NodeNamespace { layout }
    }

    fn open(&self) -> io::Result<NetworkNamespace> {
        let settings = Settings::read(&self.layout).ok().flatten();
        let node = settings
            .and_then(|settings| settings.node)
            .ok_or_else(|| io::Error::other("there is no node"))?;
        let holder = Process::read(&self.layout.process(&crate::commands::holder_name(&node)));
        let holder = holder.ok_or_else(|| io::Error::other(format!("the node {node} is not running")))?;
        NetworkNamespace::open(format!("/proc/{}/ns/net", holder.pid).as_ref())
    }

    /// A connection that is opened inside of the node's network.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<tokio::net::TcpStream> {
        network::dial_in(&self.open()?, address, CONNECT_LIMIT).await
    }
}

/// Plain connections to pods.
pub struct ToPods(pub NodeNamespace);

impl ServiceDialer for ToPods {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Stream>> {
        let node = self.0.clone();
        Box::pin(async move { Ok(Box::new(node.dial(address).await?) as Stream) })
    }
}

/// TLS to kubelets, each with its own certificate of the cluster's authority.
pub struct ToKubelets {
    node: NodeNamespace,
    /// Replaced whole with the certificate: a session that is resumed would carry the old one on.
    tls: Arc<ArcSwap<ClientConfig>>,
}

// === impl ToKubelets ===

impl ToKubelets {
    /// Connections that show the API server's client certificate, renewed until the end.
    pub fn new(node: NodeNamespace, pki: Arc<Pki>, renewal: Renewal) -> Result<ToKubelets> {
        let clock = renewal.clock.clone();
        let issuer = pki.clone();
        let issue = move || {
            let pair = issuer.authority.issue_client(KUBELET_CLIENT, None, clock.now());
            pair.doing("making the API server's certificate for kubelets")
        };
        let pair = issue()?;
        let tls = Arc::new(ArcSwap::from_pointee(config(&pki, &pair)?));
        let replaced = tls.clone();
        renewal.keep(
            pair,
            move || std::future::ready(issue()),
            move |pair| {
                replaced.store(Arc::new(config(&pki, pair)?));
                Ok(())
            },
        );
        Ok(ToKubelets { node, tls })
    }
}

fn config(pki: &Pki, pair: &Pair) -> Result<ClientConfig> {
    let (chain, key) = tls::chain(pair)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CliError::internal)?
        .with_root_certificates(tls::roots(pki.ca_pem())?)
        .with_client_auth_cert(chain, key)
        .map_err(CliError::internal)
}

impl NodeDialer for ToKubelets {
    fn dial(&self, node: &str, address: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let (namespace, tls) = (self.node.clone(), TlsConnector::from(self.tls.load_full()));
        let (name, address) = (node.to_owned(), address.to_owned());
        Box::pin(async move {
            let ip = address.parse().map_err(io::Error::other)?;
            let stream = namespace.dial(SocketAddr::new(ip, port)).await?;
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            Ok(Box::new(tls.connect(name, stream).await?) as Stream)
        })
    }
}
