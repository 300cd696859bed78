//! The cluster's certificate authority: makes and reads certificates, without touching a file.
//!
//! Keys are P-256 everywhere (ring makes no RSA keys). Invariant: a leaf never outlives its authority, and its serial
//! is random. The composition root keeps the files and renews leaves before they end.

mod certificate;
pub(crate) mod der;
mod request;

pub use certificate::{ClientIdentity, ReadError, dns_names, identity_of, not_after, validity};

use std::net::IpAddr;

use base::random::Random;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

/// How long the authority lives, as kubeadm's does.
pub const AUTHORITY_SECONDS: i64 = 10 * 365 * 86_400;
/// How long a leaf lives when nobody says otherwise, as kubeadm's does. Leaves are renewed while the server runs.
pub const LEAF_SECONDS: i64 = 365 * 86_400;
/// How far a certificate is dated back at most, for clocks that are behind ours.
const BACKDATE_SECONDS_MAX: i64 = 300;
/// A short-lived certificate is dated back by this part of its life: renewal counts from its beginning.
const BACKDATE_PART: i64 = 20;
/// Bytes of a serial number: 16 random bytes make a collision as good as impossible.
const SERIAL_BYTES: usize = 16;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The certificate library refused.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A date outside of what certificates can say.
    #[error("the date {0} cannot stand in a certificate")]
    Date(i64),
    /// A request that its own key did not sign.
    #[error("the request is not signed by its own key")]
    Unsigned,
    /// A usage that certificates have no word for.
    #[error("unrecognized usage {0:?}")]
    Usage(String),
    /// An authority or a request that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate_pem: String,
    /// The PKCS#8 private key: a secret.
    pub key_pem: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// A certificate authority.
pub struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
    leaf_seconds: i64,
    random: Random,
}

// === impl Authority ===

impl Authority {
    /// A new authority that begins now.
    ///
    /// # Errors
    /// The library's, or a clock far outside of this age.
    pub fn generate(common_name: &str, now: Timestamp, random: Random) -> Result<Authority, PkiError> {
        Authority::self_signed(common_name, KeyPair::generate()?, now, random)
    }

    fn self_signed(common_name: &str, key: KeyPair, now: Timestamp, random: Random) -> Result<Authority, PkiError> {
        let mut params = params(common_name, None, now, now.as_second() + AUTHORITY_SECONDS, &random)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params.self_signed(&key)?;
        Authority::load(
            Pair {
                certificate_pem: certificate.pem(),
                key_pem: key.serialize_pem(),
            },
            random,
        )
    }

    /// The authority that was generated once.
    ///
    /// # Errors
    /// PEM that is no certificate or no key.
    pub fn load(pair: Pair, random: Random) -> Result<Authority, PkiError> {
        let not_after = not_after(&pair.certificate_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate_pem, KeyPair::from_pem(&pair.key_pem)?)?;
        Ok(Authority {
            pair,
            issuer,
            not_after,
            leaf_seconds: LEAF_SECONDS,
            random,
        })
    }

    /// The same authority, whose leaves live this long.
    #[must_use]
    pub fn with_leaf_seconds(mut self, seconds: i64) -> Authority {
        self.leaf_seconds = seconds;
        self
    }

    /// The same key and name with a certificate that begins now: leaves of before are trusted under either, so that
    /// nobody has to learn of the new one before the old one ends.
    ///
    /// # Errors
    /// As [`Authority::generate`].
    pub fn renewed(&self, common_name: &str, now: Timestamp) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pem(&self.pair.key_pem)?;
        let renewed = Authority::self_signed(common_name, key, now, self.random.fork())?;
        Ok(renewed.with_leaf_seconds(self.leaf_seconds))
    }

    /// The authority's own certificate and key.
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// A client certificate for a user in a group: the subject's common name and organization.
    ///
    /// # Errors
    /// The library's.
    pub fn issue_client(&self, user: &str, group: Option<&str>, now: Timestamp) -> Result<Pair, PkiError> {
        let mut params = self.leaf(user, group, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A serving certificate for names and addresses.
    ///
    /// # Errors
    /// The library's, or a name that is no DNS name.
    pub fn issue_server(
        &self,
        common_name: &str,
        group: Option<&str>,
        names: &[&str],
        addresses: &[IpAddr],
        now: Timestamp,
    ) -> Result<Pair, PkiError> {
        let mut params = self.leaf(common_name, group, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        self.sign(params)
    }

    fn leaf(&self, common_name: &str, group: Option<&str>, now: Timestamp) -> Result<CertificateParams, PkiError> {
        let end = (now.as_second() + self.leaf_seconds).min(self.not_after.as_second());
        let mut params = params(common_name, group, now, end, &self.random)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Pair, PkiError> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

fn params(
    common_name: &str,
    group: Option<&str>,
    now: Timestamp,
    end_seconds: i64,
    random: &Random,
) -> Result<CertificateParams, PkiError> {
    let date = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Date(seconds));
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, DnValue::Utf8String(group.into()));
    }
    params
        .distinguished_name
        .push(DnType::CommonName, DnValue::Utf8String(common_name.into()));
    params.not_before = date(begin_seconds(now, end_seconds))?;
    params.not_after = date(end_seconds)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial(random)));
    Ok(params)
}

/// When a certificate that is made now and ends then begins.
fn begin_seconds(now: Timestamp, end_seconds: i64) -> i64 {
    let life = (end_seconds - now.as_second()).max(0);
    now.as_second() - (life / BACKDATE_PART).min(BACKDATE_SECONDS_MAX)
}

fn serial(random: &Random) -> [u8; SERIAL_BYTES] {
    let mut serial = [0u8; SERIAL_BYTES];
    random.fill(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40; // Positive, and of full length.
    serial
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        Authority::generate("trireme-ca", now, Random::seeded(1)).unwrap()
    }

    #[test]
    fn a_client_certificate_names_user_and_groups() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let pair = authority()
            .issue_client("system:node:a", Some("system:nodes"), now)
            .unwrap();
        let pem = x509_parser::pem::parse_x509_pem(pair.certificate_pem.as_bytes())
            .unwrap()
            .1;
        let identity = identity_of(&pem.contents).unwrap();
        assert_eq!(identity.user, "system:node:a");
        assert_eq!(identity.groups, ["system:nodes"]);
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let authority = authority();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let pair = authority.issue_client("u", None, now).unwrap();
        let end = not_after(&pair.certificate_pem).unwrap();
        assert_eq!(end.as_second(), now.as_second() + LEAF_SECONDS);
        let brief = super::Authority::load(authority.pair().clone(), Random::seeded(2)).unwrap();
        let pair = brief.with_leaf_seconds(20).issue_client("u", None, now).unwrap();
        let (begin, end) = validity(&pair.certificate_pem).unwrap();
        assert_eq!(
            (begin.as_second(), end.as_second()),
            (now.as_second() - 1, now.as_second() + 20)
        );

        let late = Timestamp::from_second(now.as_second() + AUTHORITY_SECONDS - 10).unwrap();
        let pair = authority.issue_client("u", None, late).unwrap();
        assert_eq!(
            not_after(&pair.certificate_pem).unwrap().as_second(),
            now.as_second() + AUTHORITY_SECONDS
        );
    }

    #[test]
    fn leaves_are_trusted_under_the_authority_of_before_and_after_its_renewal() {
        let old = authority();
        let later = Timestamp::from_second(old.not_after.as_second() - 86_400).unwrap();
        let new = old.renewed("trireme-ca", later).unwrap();
        assert!(new.not_after > old.not_after);
        let chain = |pair: &Pair| -> Vec<_> {
            rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
                .map(Result::unwrap)
                .collect()
        };
        for (issuer, trusted) in [(&old, &new), (&new, &old)] {
            let leaf = issuer.issue_client("u", None, later).unwrap();
            let door = crate::authentication::CertificateAuthenticator::new(&trusted.pair.certificate_pem).unwrap();
            assert_eq!(door.authenticate(&chain(&leaf), later).unwrap().unwrap().name, "u");
        }
    }

    #[test]
    fn an_authority_reads_itself_back_and_keeps_its_key_to_itself() {
        let authority = authority();
        let again = Authority::load(authority.pair().clone(), Random::seeded(2)).unwrap();
        assert_eq!(again.pair().certificate_pem, authority.pair().certificate_pem);
        assert!(!format!("{:?}", authority.pair()).contains("PRIVATE"));
        let broken = Pair {
            certificate_pem: "x".into(),
            key_pem: "y".into(),
        };
        assert!(Authority::load(broken, Random::seeded(2)).is_err());
    }
}
