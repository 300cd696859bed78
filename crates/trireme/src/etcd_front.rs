//! etcd's API on a port: `trireme server --etcd-listen` and `trireme store`.
//!
//! Whoever gets in reads everything, Secrets too. So it has a certificate authority of its own, as kubeadm's etcd has: no
//! certificate of the cluster (a node's, a user's) opens it, only one of `pki/etcd`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiserver::pki::{Authority, Pair, not_after};
use base::{Clock, Random, Shutdown};
use bytes::Bytes;
use rustls::server::WebPkiClientVerifier;
use store::{Embedded, Front, FrontOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, make_private_dir};
use crate::renewal::Renewal;
use crate::server::pki::{read_pair, write_pair};
use crate::tls::{Shown, belong_together, roots};

/// The authority's common name (kubeadm's word for it).
const AUTHORITY_NAME: &str = "etcd-ca";
/// Who the client certificate is of.
const CLIENT: &str = "etcd-client";
/// Connections at once: past it new ones wait in the kernel's queue. A kube-apiserver has one for each kind, and for each
/// version of each custom resource; three of them with a thousand definitions have some ten thousand.
const CONNECTIONS_MAX: usize = 16_384;
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
    let renewal = |what: &'static str| Renewal {
        what,
        clock: clock.clone(),
        random: random.fork(),
        shutdown: shutdown.clone(),
    };
    let keys = Keys::open(layout, clock, random, renewal("etcd-client"))?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        let what = format!("the etcd API cannot listen on {listen}: {error}");
        CliError::new(Kind::Machine, "LISTEN", what).hint("take another address or port")
    })?;
    let address = listener.local_addr().doing("reading the etcd API's port")?;
    let acceptor = keys.acceptor(address.ip(), renewal("etcd-server"))?;
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
        loop {
            if places.available_permits() == 0 {
                tracing::warn!(
                    limit = CONNECTIONS_MAX,
                    "the etcd API takes no more connections until some end"
                );
            }
            let Some(Ok(place)) = stop.until(places.clone().acquire_owned()).await else {
                break;
            };
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
    /// Reads the authority or makes it, and sees to it that there always is a client's certificate that is good.
    fn open(layout: &Layout, clock: &Clock, random: &Random, renewal: Renewal) -> Result<Keys> {
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
        let authority = Arc::new(authority);
        let issue = {
            let (authority, clock) = (authority.clone(), clock.clone());
            move || {
                let issued = authority.issue_client(CLIENT, None, clock.now());
                issued.doing("making a client's certificate")
            }
        };
        // A crash may have come between the writes of key and certificate.
        let good =
            |pair: &Pair| not_after(&pair.certificate_pem).is_ok_and(|end| clock.now() < end) && belong_together(pair);
        let client = match read_pair(&directory, "client")?.filter(good) {
            Some(pair) => pair,
            None => {
                let pair = issue()?;
                write_pair(&directory, "client", &pair)?;
                pair
            }
        };
        renewal.keep(
            client,
            move || std::future::ready(issue()),
            move |pair| write_pair(&directory, "client", pair),
        );
        Ok(Keys { authority })
    }

    fn acceptor(&self, address: IpAddr, renewal: Renewal) -> Result<TlsAcceptor> {
        let roots = roots(&self.authority.pair().certificate_pem)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(CliError::internal)?;
        let (authority, clock) = (self.authority.clone(), renewal.clock.clone());
        let issue = move || serving(&authority, address, &clock);
        let first = issue()?;
        let shown = Shown::new(&first)?;
        let replaced = shown.clone();
        renewal.keep(
            first,
            move || std::future::ready(issue()),
            move |pair| replaced.replace(pair),
        );
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(CliError::internal)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A serving certificate for this machine and the address.
fn serving(authority: &Authority, address: IpAddr, clock: &Clock) -> Result<Pair> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    if !address.is_unspecified() && address != addresses[0] {
        addresses.push(address);
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let names = ["localhost", "trireme", &*host];
    let named = authority.issue_server("etcd", None, &names, &addresses, clock.now());
    // A machine's name need not be one of DNS.
    let issued = named.or_else(|_| authority.issue_server("etcd", None, &names[..2], &addresses, clock.now()));
    issued.doing("making the etcd API's certificate")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two years of simulated time, and a crash between the two writes of a pair.
    #[tokio::test(start_paused = true)]
    async fn there_is_always_a_good_certificate_for_clients() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        let clock = Clock::simulated("2026-01-02T03:04:05Z".parse().unwrap());
        let (random, shutdown) = (Random::seeded(1), Shutdown::new());
        let renewal = || Renewal {
            what: "test",
            clock: clock.clone(),
            random: random.fork(),
            shutdown: shutdown.clone(),
        };
        let client = || read_pair(&directory(&layout), "client").unwrap().unwrap();
        Keys::open(&layout, &clock, &random, renewal()).unwrap();
        let first = client();
        for _ in 0..24 {
            tokio::time::sleep(Duration::from_secs(30 * 86_400)).await;
            let current = client();
            assert!(not_after(&current.certificate_pem).unwrap() > clock.now() && belong_together(&current));
        }
        let last = client();
        assert_ne!(last.certificate_pem, first.certificate_pem);
        let torn = Pair {
            key_pem: first.key_pem,
            ..last
        };
        write_pair(&directory(&layout), "client", &torn).unwrap();
        Keys::open(&layout, &clock, &random, renewal()).unwrap();
        assert!(belong_together(&client()));
        shutdown.finish().await;
    }
}
