//! The cluster's certificate authority: makes and reads certificates, without touching a file.
//!
//! Keys are P-256 everywhere (ring makes no RSA keys). Invariant: a leaf never outlives its authority, and its serial
//! is random. The composition root keeps the files and asks [`renew_at`] when to make a new leaf.

mod certificate;

pub use certificate::{ClientIdentity, ReadError, identity_of, not_after, renew_at};

use std::net::IpAddr;

use base::random::Random;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};

/// How long the authority lives, as kubeadm's does.
pub const AUTHORITY_SECONDS: i64 = 10 * 365 * 86_400;
/// How long a leaf lives, as kubeadm's does. Leaves are renewed while the server runs, see [`renew_at`].
pub const LEAF_SECONDS: i64 = 365 * 86_400;
/// How far a certificate is dated back, for clocks that are behind ours.
const BACKDATE_SECONDS: i64 = 300;
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
    /// An authority that cannot be read back.
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
    random: Random,
}

// === impl Authority ===

impl Authority {
    /// A new authority that begins now.
    ///
    /// # Errors
    /// The library's, or a clock far outside of this age.
    pub fn generate(common_name: &str, now: Timestamp, random: Random) -> Result<Authority, PkiError> {
        let key = KeyPair::generate()?;
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
            random,
        })
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
        let end = (now.as_second() + LEAF_SECONDS).min(self.not_after.as_second());
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
    params.not_before = date(now.as_second() - BACKDATE_SECONDS)?;
    params.not_after = date(end_seconds)?;
    let mut serial = [0u8; SERIAL_BYTES];
    random.fill(&mut serial);
    serial[0] = serial[0] & 0x7f | 0x40; // Positive, and of full length.
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
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
    fn a_leaf_is_renewed_before_it_ends_and_never_outlives_its_authority() {
        let authority = authority();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let pair = authority.issue_client("u", None, now).unwrap();
        let end = not_after(&pair.certificate_pem).unwrap();
        assert_eq!(end.as_second(), now.as_second() + LEAF_SECONDS);
        let renewal = renew_at(&pair.certificate_pem).unwrap();
        assert!(now < renewal && renewal < end, "{renewal}");

        let late = Timestamp::from_second(now.as_second() + AUTHORITY_SECONDS - 10).unwrap();
        let pair = authority.issue_client("u", None, late).unwrap();
        assert_eq!(
            not_after(&pair.certificate_pem).unwrap().as_second(),
            now.as_second() + AUTHORITY_SECONDS
        );
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
