//! TLS: whom to trust, and who the client is.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Stream;
use crate::TransportError;

pub(super) struct Tls {
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
    connector: ArcSwap<Connector>,
}

/// `TlsConnector` behind a pointer of its own, as `ArcSwap` wants it.
struct Connector(TlsConnector);

/// Reads a certificate chain and its key.
pub(super) fn identity(chain_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, TransportError> {
    let chain = rustls_pemfile::certs(&mut chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| super::invalid(format!("client certificate: {error}")))?;
    if chain.is_empty() {
        return Err(super::invalid("client certificate: the PEM holds none"));
    }
    let key = rustls_pemfile::private_key(&mut key_pem.as_bytes())
        .map_err(|error| super::invalid(format!("client key: {error}")))?
        .ok_or_else(|| super::invalid("client key: the PEM holds none"))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|error| super::invalid(format!("client key: {error}")))?;
    let identity = CertifiedKey::new(chain, key);
    identity
        .keys_match()
        .map_err(|error| super::invalid(format!("client certificate and key: {error}")))?;
    Ok(Arc::new(identity))
}

impl Tls {
    pub(super) fn new(ca_pem: &str, host: &str, identity: Option<Arc<CertifiedKey>>) -> Result<Tls, TransportError> {
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut ca_pem.as_bytes()) {
            let certificate = certificate.map_err(|error| super::invalid(format!("CA: {error}")))?;
            roots
                .add(certificate)
                .map_err(|error| super::invalid(format!("CA: {error}")))?;
        }
        if roots.is_empty() {
            return Err(super::invalid("CA: the PEM holds no certificate"));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name =
            ServerName::try_from(bare).map_err(|error| super::invalid(format!("server name {host}: {error}")))?;
        let roots = Arc::new(roots);
        let connector = ArcSwap::from_pointee(Connector(connector(&roots, identity)?));
        Ok(Tls { roots, name, connector })
    }

    pub(super) fn set_identity(&self, identity: Arc<CertifiedKey>) -> Result<(), TransportError> {
        self.connector
            .store(Arc::new(Connector(connector(&self.roots, Some(identity))?)));
        Ok(())
    }

    pub(super) async fn wrap(&self, stream: Box<dyn Stream>) -> std::io::Result<TlsStream<Box<dyn Stream>>> {
        let connector = self.connector.load_full();
        connector.0.connect(self.name.clone(), stream).await
    }
}

fn connector(roots: &Arc<RootCertStore>, identity: Option<Arc<CertifiedKey>>) -> Result<TlsConnector, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| super::invalid(format!("TLS: {error}")))?
        .with_root_certificates(roots.clone());
    // Session resumption would carry the old identity on, so each set of credentials has a configuration of its own.
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
