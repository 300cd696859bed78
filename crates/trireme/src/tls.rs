//! Certificates as rustls wants them.

use std::sync::Arc;

use apiserver::pki::Pair;
use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::errors::{CliError, Result};

/// A serving certificate that can be replaced while connections go on: new ones see the new one.
#[derive(Debug)]
pub struct Shown(ArcSwap<CertifiedKey>);

// === impl Shown ===

impl Shown {
    /// Shows this one.
    pub fn new(pair: &Pair) -> Result<Arc<Shown>> {
        Ok(Arc::new(Shown(ArcSwap::from_pointee(certified(pair)?))))
    }

    /// What is shown now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.load_full()
    }

    /// Shows another one from now on.
    pub fn replace(&self, pair: &Pair) -> Result {
        self.0.store(Arc::new(certified(pair)?));
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Whether the key is the certificate's.
pub fn belong_together(pair: &Pair) -> bool {
    certified(pair).is_ok_and(|certified| certified.keys_match().is_ok())
}

/// The authorities of a PEM bundle.
pub fn roots(ca_pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).map_err(CliError::internal)?;
    }
    Ok(roots)
}

/// The certificates and the key of a pair.
pub fn chain(pair: &Pair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes()).map_err(CliError::internal)?;
    let key = key.ok_or_else(|| CliError::internal("a certificate without a key"))?;
    Ok((certificates(&pair.certificate_pem)?, key))
}

fn certified(pair: &Pair) -> Result<CertifiedKey> {
    let (chain, key) = chain(pair)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(CliError::internal)?;
    Ok(CertifiedKey::new(chain, key))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    rustls_pemfile::certs(&mut pem.as_bytes())
        .collect::<std::io::Result<_>>()
        .map_err(CliError::internal)
}
