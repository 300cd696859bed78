//! Reading certificates: who a client is, and when a certificate has to be renewed.

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// No PEM block of a certificate.
    #[error("this is not a PEM certificate")]
    NotPem,
    /// The DER inside is broken.
    #[error("the certificate cannot be read")]
    NotDer,
    /// A subject without a common name names nobody.
    #[error("the certificate's subject has no common name")]
    NoName,
}

/// Whom a client certificate names: upstream takes the common name as the user and the organizations as groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject's common name.
    pub user: String,
    /// The subject's organizations, in their order.
    pub groups: Vec<String>,
    /// When the certificate ends, in seconds since 1970.
    pub ends_seconds: i64,
}

/// Reads the subject of a DER certificate whose chain was verified already.
///
/// # Errors
/// Broken DER, or no common name.
pub fn identity_of(der: &[u8]) -> Result<ClientIdentity, ReadError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| ReadError::NotDer)?;
    let subject = certificate.subject();
    let user = subject
        .iter_common_name()
        .find_map(|name| name.as_str().ok())
        .filter(|name| !name.is_empty());
    Ok(ClientIdentity {
        user: user.ok_or(ReadError::NoName)?.to_owned(),
        groups: subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .map(str::to_owned)
            .collect(),
        ends_seconds: certificate.validity().not_after.timestamp(),
    })
}

/// The DNS names that a DER certificate is for; without any its common name, which was once taken for one.
pub fn dns_names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map_or(&[][..], |names| &names.value.general_names[..]);
    let dns: Vec<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    if !dns.is_empty() {
        return dns;
    }
    let common = certificate.subject().iter_common_name();
    common
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect()
}

/// When a PEM certificate ends.
///
/// # Errors
/// Text that is no certificate.
pub fn not_after(certificate_pem: &str) -> Result<Timestamp, ReadError> {
    validity(certificate_pem).map(|(_, end)| end)
}

/// When a PEM certificate begins and ends.
///
/// # Errors
/// Text that is no certificate.
pub fn validity(certificate_pem: &str) -> Result<(Timestamp, Timestamp), ReadError> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).map_err(|_| ReadError::NotPem)?;
    let certificate = pem.parse_x509().map_err(|_| ReadError::NotDer)?;
    let validity = certificate.validity();
    let read = |seconds| Timestamp::from_second(seconds).map_err(|_| ReadError::NotDer);
    Ok((
        read(validity.not_before.timestamp())?,
        read(validity.not_after.timestamp())?,
    ))
}
