//! The API server's own certificate: made at start, replaced while running.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::pki::{Pair, renew_at};
use arc_swap::ArcSwap;
use base::{Clock, Shutdown};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::pki::Pki;
use crate::errors::{CliError, Context as _, Result};

/// Names under which pods and people reach the API server.
const NAMES: [&str; 6] = [
    "localhost",
    "trireme",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The certificate that is shown now.
#[derive(Debug)]
pub struct Serving {
    shown: ArcSwap<CertifiedKey>,
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown.load_full())
    }
}

// === impl Serving ===

impl Serving {
    /// A certificate for the names above and these addresses, renewed until the end.
    pub fn start(pki: Arc<Pki>, addresses: Vec<IpAddr>, clock: Clock, shutdown: &Shutdown) -> Result<Arc<Serving>> {
        let pair = issue(&pki, &addresses, &clock)?;
        let serving = Arc::new(Serving {
            shown: ArcSwap::from_pointee(certified(&pair)?),
        });
        let (shown, stop) = (serving.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut pair = pair;
            while let Ok(due) = renew_at(&pair.certificate_pem) {
                if stop.until(clock.sleep_until(due)).await.is_none() {
                    return;
                }
                // A sleep is cut to a year at most: only a certificate that is due is replaced.
                if clock.now() < due {
                    continue;
                }
                match issue(&pki, &addresses, &clock).and_then(|pair| Ok((certified(&pair)?, pair))) {
                    Ok((certified, fresh)) => {
                        shown.shown.store(Arc::new(certified));
                        pair = fresh;
                        tracing::info!("the serving certificate was renewed");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the serving certificate was not renewed");
                        return;
                    }
                }
            }
        });
        Ok(serving)
    }
}

fn issue(pki: &Pki, addresses: &[IpAddr], clock: &Clock) -> Result<Pair> {
    let mut all = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    all.extend(addresses);
    let issued = pki
        .authority
        .issue_server("kube-apiserver", None, &NAMES, &all, clock.now());
    issued.doing("making the serving certificate")
}

fn certified(pair: &Pair) -> Result<CertifiedKey> {
    let chain: Vec<_> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(CliError::internal)?;
    let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes()).map_err(CliError::internal)?;
    let key = key.ok_or_else(|| CliError::internal("a certificate without a key"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(CliError::internal)?;
    Ok(CertifiedKey::new(chain, key))
}
