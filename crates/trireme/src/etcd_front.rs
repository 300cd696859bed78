//! etcd's API on a port: `trireme server --etcd-listen` and `trireme store`.
//!
//! Whoever gets in reads everything, Secrets too. So it has a certificate authority of its own, as kubeadm's etcd has: no
//! certificate of the cluster (a node's, a user's) opens it, only one of `pki/etcd`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::{Authority, Pair, renew_at};
use base::{Clock, Random, Shutdown};
use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use store::{Embedded, Front, FrontOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, make_private_dir};
use crate::server::pki::{read_pair, write_pair};

/// The authority's common name (kubeadm's word for it).
const AUTHORITY_NAME: &str = "etcd-ca";
/// Who the client certificate is of.
const CLIENT: &str = "etcd-client";
/// Connections at once: past it new ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake may take: a client that says nothing must not hold a place.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left) the next one waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a store until the end; the address, whose port may have been chosen by the kernel.
pub async fn serve(
    layout: &Layout,
    engine: Arc<Embedded>,
    read_only: Vec<Bytes>,
    listen: SocketAddr,
    clock: &Clock,
    random: &Random,
    shutdown: &Shutdown,
) -> Result<SocketAddr> {
    let keys = Keys::open(layout, clock, random)?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let what = format!("the etcd API cannot listen on {listen}: {error}");
        CliError::new(Kind::Machine, "LISTEN", what).hint("take another address or port")
    })?;
    let address = listener.local_addr().doing("reading the etcd API's port")?;
    let acceptor = keys.acceptor(address.ip(), clock)?;
    let options = FrontOptions {
        read_only,
        advertised: vec![format!("https://{address}")],
        clock: clock.clone(),
        random: random.fork(),
    };
    let front = Front::new(engine, options).doing("starting the etcd API")?;
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(Ok(place)) = stop.until(places.clone().acquire_owned()).await {
            let Some(accepted) = stop.until(listener.accept()).await else {
                break;
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the etcd API cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (front, acceptor, stop) = (front.clone(), acceptor.clone(), stop.clone());
            tokio::spawn(async move {
                let _place = place;
                // Watches have no end of their own: connections are cut.
                let _ = stop.until(connection(front, acceptor, stream)).await;
            });
        }
    });
    tracing::info!(%address, "etcd's API is served");
    Ok(address)
}

async fn connection(front: Front, acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            if let Err(error) = front.serve(stream).await {
                tracing::debug!(%error, "a connection of the etcd API broke");
            }
        }
        Ok(Err(error)) => tracing::debug!(%error, "a client of the etcd API was refused"),
        Err(_) => tracing::debug!("a client of the etcd API did not finish its handshake"),
    }
}

/// Where the keys of etcd's API are.
pub fn directory(layout: &Layout) -> PathBuf {
    layout.pki().join("etcd")
}

/// The authority of etcd's API.
struct Keys {
    authority: Arc<Authority>,
}

// === impl Keys ===

impl Keys {
    /// Reads the authority or makes it, and sees to it that there is a client's certificate that is good.
    fn open(layout: &Layout, clock: &Clock, random: &Random) -> Result<Keys> {
        let directory = directory(layout);
        make_private_dir(&directory)?;
        let authority = match read_pair(&directory, "ca")? {
            Some(pair) => Authority::load(pair, random.fork()).doing("reading the authority of the etcd API")?,
            None => {
                let made = Authority::generate(AUTHORITY_NAME, clock.now(), random.fork());
                let authority = made.doing("making the authority of the etcd API")?;
                write_pair(&directory, "ca", authority.pair())?;
                authority
            }
        };
        let good = |pair: &Pair| renew_at(&pair.certificate_pem).is_ok_and(|due| clock.now() < due);
        if !read_pair(&directory, "client")?.as_ref().is_some_and(good) {
            let issued = authority.issue_client(CLIENT, None, clock.now());
            write_pair(&directory, "client", &issued.doing("making a client's certificate")?)?;
        }
        Ok(Keys {
            authority: Arc::new(authority),
        })
    }

    fn acceptor(&self, address: IpAddr, clock: &Clock) -> Result<TlsAcceptor> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut self.authority.pair().certificate_pem.as_bytes()) {
            let certificate = certificate.map_err(CliError::internal)?;
            roots.add(certificate).map_err(CliError::internal)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(CliError::internal)?;
        let serving = Serving {
            authority: self.authority.clone(),
            address,
            clock: clock.clone(),
            shown: Mutex::new(None),
        };
        // At the first connection would be too late for an error.
        serving.current()?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CliError::internal)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(serving));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The serving certificate: made again by the first connection after it is due, which costs less than its handshake.
struct Serving {
    authority: Arc<Authority>,
    address: IpAddr,
    clock: Clock,
    shown: Mutex<Option<(Timestamp, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish()
    }
}

impl Serving {
    fn current(&self) -> Result<Arc<CertifiedKey>> {
        let mut shown = self.shown.lock();
        let now = self.clock.now();
        if let Some((due, key)) = &*shown
            && now < *due
        {
            return Ok(key.clone());
        }
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        if !self.address.is_unspecified() && self.address != addresses[0] {
            addresses.push(self.address);
        }
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let names = ["localhost", "trireme", &*host];
        let named = self.authority.issue_server("etcd", None, &names, &addresses, now);
        // A machine's name need not be one of DNS.
        let issued = named.or_else(|_| self.authority.issue_server("etcd", None, &names[..2], &addresses, now));
        let pair = issued.doing("making the etcd API's certificate")?;
        let due = renew_at(&pair.certificate_pem).doing("reading the etcd API's certificate")?;
        let chain: std::io::Result<Vec<_>> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes()).map_err(CliError::internal)?;
        let key = key.ok_or_else(|| CliError::internal("a certificate without a key"))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(CliError::internal)?;
        let key = Arc::new(CertifiedKey::new(chain.map_err(CliError::internal)?, key));
        *shown = Some((due, key.clone()));
        Ok(key)
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.current() {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, "the etcd API has no certificate to show");
                None
            }
        }
    }
}
