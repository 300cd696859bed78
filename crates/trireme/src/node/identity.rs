//! Who the node is: the certificates of its kubelet and its service proxy, and how they are renewed while it runs.
//!
//! The first ones are there when the node starts. Each is renewed by asking the API under the identity that it proves.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::Pair;
use base::{Clock, Random, Shutdown};
use client::Client;
use client::certificates::{Wanted, request};
use client::https::{Connector, Credentials, HttpsTransport, Stream};
use futures::future::BoxFuture;

use super::NODE_ADDRESS;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;
use crate::renewal::Renewal;
use crate::server::pki::{read_leaf, write_leaf};
use crate::tls::{self, Shown};

/// The kubelet's client certificate, its serving certificate, and the proxy's client certificate.
const KUBELET_CLIENT: &str = "kubelet-client";
const KUBELET_SERVING: &str = "kubelet-serving";
const KUBE_PROXY: &str = "kube-proxy";
/// How long an answer to a request is waited for, as upstream's kubelet does; then another one is made.
const ANSWER_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The node's certificates and what uses them.
pub struct Identity {
    node: String,
    directory: PathBuf,
    /// The API as the kubelet.
    pub kubelet: Client,
    /// The API as the service proxy, which reads what the kubelet may not.
    pub proxy: Client,
    /// What the kubelet shows to the API server.
    serving: Arc<Shown>,
    ca_pem: String,
    transports: [Arc<HttpsTransport>; 2],
    pairs: [Pair; 3],
}

// === impl Identity ===

impl Identity {
    /// Reads the node's certificates.
    pub fn open(layout: &Layout, node: &str) -> Result<Identity> {
        let directory = layout.node_data(node).join("pki");
        let path = layout.pki().join("ca.crt");
        let ca_pem = std::fs::read_to_string(&path).map_err(|error| CliError::file(&path, &error))?;
        let read = |name: &str| {
            read_leaf(&directory, name)?.ok_or_else(|| {
                CliError::new(
                    Kind::Missing,
                    "NO_IDENTITY",
                    format!("the node {node} has no certificate"),
                )
                .hint("the control plane makes it when it starts: trireme up")
            })
        };
        let pairs = [read(KUBELET_CLIENT)?, read(KUBE_PROXY)?, read(KUBELET_SERVING)?];
        let transport = |pair: &Pair| -> Result<Arc<HttpsTransport>> {
            let credentials = Credentials::Certificate {
                chain_pem: pair.certificate_pem.clone(),
                key_pem: pair.key_pem.clone(),
            };
            let connector = Arc::new(ThroughSocket(layout.api_socket()));
            let transport = HttpsTransport::with_connector("https://kubernetes:6443", &ca_pem, credentials, connector);
            Ok(Arc::new(transport.doing("preparing to reach the API server")?))
        };
        let transports = [transport(&pairs[0])?, transport(&pairs[1])?];
        Ok(Identity {
            node: node.to_owned(),
            kubelet: Client::new(transports[0].clone()).with_user_agent("kubelet"),
            proxy: Client::new(transports[1].clone()).with_user_agent("kube-proxy"),
            serving: Shown::new(&pairs[2])?,
            directory,
            ca_pem,
            transports,
            pairs,
        })
    }

    /// Renews all of them until the end.
    pub fn keep(&self, clock: &Clock, random: &Random, shutdown: &Shutdown) {
        let user = format!("system:node:{}", self.node);
        let client_usages = &["digital signature", "client auth"];
        let kubelet = Wanted {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            user: user.clone(),
            group: Some("system:nodes"),
            usages: client_usages,
            ..Wanted::default()
        };
        let proxy = Wanted {
            signer: "kubernetes.io/kube-apiserver-client",
            user: "system:kube-proxy".into(),
            usages: client_usages,
            ..Wanted::default()
        };
        let serving = Wanted {
            signer: "kubernetes.io/kubelet-serving",
            user,
            group: Some("system:nodes"),
            names: vec![self.node.clone()],
            addresses: vec![NODE_ADDRESS.into()],
            usages: &["digital signature", "server auth"],
        };
        let use_as_client = |transport: &Arc<HttpsTransport>| {
            let transport = transport.clone();
            move |pair: &Pair| {
                let set = transport.set_client_certificate(&pair.certificate_pem, &pair.key_pem);
                set.doing("using a certificate")
            }
        };
        let shown = self.serving.clone();
        let [kubelet_pair, proxy_pair, serving_pair] = self.pairs.clone();
        let [as_kubelet, as_proxy] = [&self.transports[0], &self.transports[1]].map(use_as_client);
        let (client, by) = (self.kubelet.clone(), self.proxy.clone());
        self.keep_one(
            KUBELET_CLIENT,
            kubelet_pair,
            client.clone(),
            kubelet,
            as_kubelet,
            (clock, random, shutdown),
        );
        self.keep_one(KUBE_PROXY, proxy_pair, by, proxy, as_proxy, (clock, random, shutdown));
        let show = move |pair: &Pair| shown.replace(pair);
        self.keep_one(
            KUBELET_SERVING,
            serving_pair,
            client,
            serving,
            show,
            (clock, random, shutdown),
        );
    }

    fn keep_one(
        &self,
        name: &'static str,
        pair: Pair,
        client: Client,
        wanted: Wanted,
        install: impl Fn(&Pair) -> Result + Send + Sync + 'static,
        (clock, random, shutdown): (&Clock, &Random, &Shutdown),
    ) {
        let renewal = Renewal {
            what: name,
            clock: clock.clone(),
            random: random.fork(),
            shutdown: shutdown.clone(),
        };
        let asker = Arc::new(Asker {
            name,
            directory: self.directory.clone(),
            client,
            wanted,
            clock: clock.clone(),
            random: random.fork(),
        });
        let directory = self.directory.clone();
        renewal.keep(
            pair,
            move || {
                let asker = asker.clone();
                async move { asker.ask().await }
            },
            move |pair| {
                install(pair)?;
                write_leaf(&directory, name, pair)
            },
        );
    }

    /// The TLS of the kubelet's own server: whoever has a certificate of the cluster's authority shows it.
    pub fn kubelet_tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(tls::roots(&self.ca_pem)?);
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        // Health is for everybody; what needs a name is refused without one by the server.
        let verifier = verifier.allow_unauthenticated().build().map_err(CliError::internal)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CliError::internal)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.serving.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Gets the successor of one certificate.
struct Asker {
    name: &'static str,
    directory: PathBuf,
    client: Client,
    wanted: Wanted,
    clock: Clock,
    random: Random,
}

// === impl Asker ===

impl Asker {
    async fn ask(&self) -> Result<Pair> {
        let asked = tokio::time::timeout(ANSWER_LIMIT, request(&self.client, &self.wanted, &self.random)).await;
        match asked
            .doing("waiting for a certificate")
            .and_then(|asked| asked.doing("asking for a certificate"))
        {
            Ok(issued) => Ok(Pair {
                certificate_pem: issued.chain_pem,
                key_pem: issued.key_pem,
            }),
            // Ours has ended, so the API does not know us any more: a control plane that starts leaves us another one.
            Err(error) => match read_leaf(&self.directory, self.name) {
                Ok(Some(pair)) if self.is_better(&pair) => Ok(pair),
                _ => Err(error),
            },
        }
    }

    /// Whether it is not the one that is about to end.
    fn is_better(&self, pair: &Pair) -> bool {
        apiserver::pki::validity(&pair.certificate_pem).is_ok_and(|(begin, end)| {
            let now = self.clock.now();
            now < end && now.as_second() - begin.as_second() < (end.as_second() - begin.as_second()) / 2
        })
    }
}

/// The API server behind a Unix socket.
struct ThroughSocket(PathBuf);

impl Connector for ThroughSocket {
    fn connect(&self, _authority: &str) -> BoxFuture<'static, std::io::Result<Box<dyn Stream>>> {
        let path = self.0.clone();
        Box::pin(async move {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
