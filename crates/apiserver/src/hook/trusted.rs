//! Who a service is, judged as Go judges it.
//!
//! One thing differs from what rustls does by itself: a certificate that is an authority's own, as `openssl req -x509` makes
//! them, is taken from the server that shows it when it is one of those that are trusted. Many webhooks come with such a one.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Trusts who was signed by some authorities, and those themselves.
#[derive(Debug)]
pub(super) struct Trusted {
    authorities: Vec<CertificateDer<'static>>,
    signed: Arc<WebPkiServerVerifier>,
}

// === impl Trusted ===

impl Trusted {
    /// By the certificates in a PEM.
    ///
    /// # Errors
    /// There is none in it.
    pub(super) fn new(pem: &[u8], provider: Arc<CryptoProvider>) -> Result<Trusted, String> {
        let authorities: Result<Vec<_>, _> = rustls_pemfile::certs(&mut &*pem).collect();
        let authorities = authorities.map_err(|error| format!("certificate-authority: {error}"))?;
        let mut roots = RootCertStore::empty();
        // Of a machine's many roots some may be of a kind that is not supported; those trust nobody.
        roots.add_parsable_certificates(authorities.iter().cloned());
        if roots.is_empty() {
            return Err("certificate-authority: the PEM holds no certificate".into());
        }
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Trusted {
            authorities,
            signed: signed.map_err(|error| format!("certificate-authority: {error}"))?,
        })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let signed = &self.signed;
        let verdict = signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            Err(Error::InvalidCertificate(_)) if self.authorities.iter().any(|own| own == end_entity) => {
                in_force(end_entity, now)?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

fn in_force(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let invalid = |why| Err(Error::InvalidCertificate(why));
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return invalid(CertificateError::BadEncoding);
    };
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        return invalid(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return invalid(CertificateError::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    #[test]
    fn an_authority_may_show_its_own_certificate() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let make = |is_ca: IsCa| {
            let mut params = CertificateParams::new(vec!["hook.example".to_owned()]).unwrap();
            params.is_ca = is_ca;
            params.self_signed(&KeyPair::generate().unwrap()).unwrap()
        };
        let now = UnixTime::now();
        let long_ago = UnixTime::since_unix_epoch(Duration::from_secs(1));
        let authority = make(IsCa::Ca(BasicConstraints::Unconstrained));
        let other = make(IsCa::Ca(BasicConstraints::Unconstrained));
        let plain = make(IsCa::NoCa);
        for (shown, trusted, name, time, expect) in [
            (&authority, &authority, "hook.example", now, true),
            (&authority, &authority, "other.example", now, false),
            (&authority, &authority, "hook.example", long_ago, false),
            (&authority, &other, "hook.example", now, false),
            (&plain, &plain, "hook.example", now, true),
            (&plain, &other, "hook.example", now, false),
        ] {
            let verifier = Trusted::new(trusted.pem().as_bytes(), provider.clone()).unwrap();
            let name = ServerName::try_from(name).unwrap();
            let verdict = verifier.verify_server_cert(shown.der(), &[], &name, &[], time);
            assert_eq!(verdict.is_ok(), expect, "{name:?} {verdict:?}");
        }
        assert!(Trusted::new(b"", provider).is_err());
    }
}
