//! Client certificates: a chain to one of the cluster's authorities, made for client authentication and in its time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};

use crate::metrics::ClientCertificateMetrics;
use crate::pki::{ReadError, identity_of};
use crate::request::UserInfo;

/// Verified leaves that are remembered. A cluster has a certificate a node and a few people; past this everything is
/// forgotten and verified once more.
const REMEMBERED_MAX: usize = 4096;
/// For how long a verified chain is taken without verifying it again, in seconds; never past the leaf's own end.
const REMEMBERED_SECONDS: i64 = 60;

/// Why the authority's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the client certificate authority cannot be used: {0}")]
pub struct AuthorityError(String);

/// Verifies chains against the cluster's client authorities.
pub struct CertificateAuthenticator {
    authorities: ArcSwap<Authorities>,
    metrics: ClientCertificateMetrics,
}

/// Who is trusted, and what was verified by that: other authorities know nothing of it.
struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    remembered: Mutex<HashMap<End, Remembered>>,
}

/// The last bytes of a certificate: a piece of its signature, which tells certificates apart as well as all of it and is looked
/// for with each request.
type End = [u8; 16];

/// A leaf that was verified.
struct Remembered {
    leaf: CertificateDer<'static>,
    user: Arc<UserInfo>,
    /// Until when it is taken, in seconds since 1970.
    until: i64,
    /// When it ends.
    ends: i64,
}

// === impl CertificateAuthenticator ===

impl CertificateAuthenticator {
    /// An authenticator that trusts the authorities of a PEM bundle.
    ///
    /// # Errors
    /// A bundle without a usable certificate.
    pub fn new(authorities_pem: &str) -> Result<CertificateAuthenticator, AuthorityError> {
        let authorities = Authorities::read(authorities_pem)?;
        Ok(CertificateAuthenticator {
            authorities: ArcSwap::from_pointee(authorities),
            metrics: ClientCertificateMetrics::default(),
        })
    }

    /// What counts how long certificates are still good.
    pub fn metrics(&self) -> &ClientCertificateMetrics {
        &self.metrics
    }

    /// Trusts those of another bundle from now on, and nobody for what the old ones signed.
    ///
    /// # Errors
    /// As [`CertificateAuthenticator::new`]; then nothing changes.
    pub fn replace(&self, authorities_pem: &str) -> Result<(), AuthorityError> {
        self.authorities.store(Arc::new(Authorities::read(authorities_pem)?));
        Ok(())
    }

    /// The user a chain (leaf first) names. `Ok(None)`: no certificate was sent, or its subject has no common name.
    ///
    /// # Errors
    /// Why the chain is not trusted.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Option<Arc<UserInfo>>, String> {
        let subject = self.subject(chain, now)?;
        Ok(subject.filter(|user| !user.name.is_empty()))
    }

    /// The same, with an empty name for a verified certificate whose subject has no common name.
    pub(super) fn subject(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<Option<Arc<UserInfo>>, String> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Ok(None);
        };
        let seconds = now.as_second();
        let authorities = self.authorities.load();
        let end: End = leaf.last_chunk().copied().unwrap_or_default();
        if let Some(known) = authorities.remembered.lock().get(&end)
            && known.leaf == *leaf
            && seconds < known.until
        {
            self.metrics.seen(known.ends - seconds);
            return Ok(Some(known.user.clone()));
        }
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.max(0).unsigned_abs()));
        authorities
            .verifier
            .verify_client_cert(leaf, intermediates, time)
            .map_err(|error| format!("verifying certificate: {error}"))?;
        let identity = match identity_of(leaf) {
            Err(ReadError::NoName) => return Ok(Some(Arc::default())),
            read => read.map_err(|error| error.to_string())?,
        };
        let mut user = UserInfo::new(identity.user, identity.groups);
        let digest: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("X509SHA256={digest}");
        user.extra = BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])]);
        let user = Arc::new(user);
        let mut remembered = authorities.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        let ends = identity.ends_seconds;
        self.metrics.seen(ends - seconds);
        let until = (seconds + REMEMBERED_SECONDS).min(ends);
        let known = Remembered {
            leaf: leaf.clone(),
            user: user.clone(),
            until,
            ends,
        };
        remembered.insert(end, known);
        Ok(Some(user))
    }
}

// === impl Authorities ===

impl Authorities {
    fn read(authorities_pem: &str) -> Result<Authorities, AuthorityError> {
        let fail = |error: &dyn std::fmt::Display| AuthorityError(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut authorities_pem.as_bytes()) {
            roots
                .add(certificate.map_err(|error| fail(&error))?)
                .map_err(|error| fail(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|error| fail(&error))?;
        Ok(Authorities {
            verifier,
            remembered: Mutex::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, LEAF_SECONDS, Pair};
    use base::random::Random;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
        rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn only_our_own_client_certificates_in_their_time_are_taken() {
        let authority = Authority::generate("ca", at(0), Random::seeded(1)).unwrap();
        let stranger = Authority::generate("ca", at(0), Random::seeded(2)).unwrap();
        let authenticator = CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap();
        let own = chain(&authority.issue_client("jane", Some("dev"), at(0)).unwrap());
        let serving = chain(&authority.issue_server("jane", Some("dev"), &["x"], &[], at(0)).unwrap());
        let foreign = chain(&stranger.issue_client("jane", Some("system:masters"), at(0)).unwrap());

        let user = authenticator.authenticate(&own, at(1)).unwrap().unwrap();
        assert_eq!(
            (&*user.name, &user.groups[..]),
            ("jane", &["dev".to_owned(), "system:authenticated".into()][..])
        );
        assert_eq!(authenticator.authenticate(&[], at(1)), Ok(None));
        assert!(authenticator.authenticate(&foreign, at(1)).is_err());
        assert!(authenticator.authenticate(&serving, at(1)).is_err());
        // What ends like a remembered one is none.
        let mut forged = own[0].to_vec();
        forged[40] ^= 1;
        assert!(authenticator.authenticate(&[forged.into()], at(1)).is_err());
        // A remembered certificate still ends.
        assert!(authenticator.authenticate(&own, at(LEAF_SECONDS + 1)).is_err());
        assert!(CertificateAuthenticator::new("").is_err());
        // Other authorities take over at once; what is no bundle changes nothing.
        assert!(authenticator.authenticate(&own, at(1)).unwrap().is_some());
        assert!(authenticator.replace("").is_err());
        assert!(authenticator.authenticate(&own, at(1)).unwrap().is_some());
        authenticator.replace(&stranger.pair().certificate_pem).unwrap();
        assert!(authenticator.authenticate(&own, at(1)).is_err());
        assert!(authenticator.authenticate(&foreign, at(1)).unwrap().is_some());
    }
}
