//! Signing what somebody else asked for: a certificate for the key and the names of a request (PKCS #10).
//!
//! Subject, public key and alternative names are taken as they were encoded; everything else is ours. Invariant: what is
//! signed is never an authority, and has a usage that was named.
//! Source: `pkg/controller/certificates/authority/policies.go`.

use jiff::Timestamp;
use rcgen::SigningKey as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_EXT_SUBJECT_ALT_NAME, Oid};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::der::{
    GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, TRUE, UTC_TIME, explicit, implicit, named_bits, value,
};
use super::{Authority, PkiError, ReadError, begin_seconds, serial};

/// `ecdsa-with-SHA256`, as an `AlgorithmIdentifier`: what a P-256 key signs with.
const ALGORITHM: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const SUBJECT_ALTERNATIVE_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
const AUTHORITY_KEY_IDENTIFIER: [u8; 3] = [0x55, 0x1d, 0x23];
const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x25];
/// The first year whose dates have four digits.
const LONG_DATES_YEAR: i16 = 2050;

// === impl Authority ===

impl Authority {
    /// Signs a PEM request for these usages (by their names in the API). It lives as long as asked for, at most as long as
    /// the authority's leaves, and never longer than the authority.
    ///
    /// # Errors
    /// A request that cannot be read or is not signed by its own key, or an unknown usage.
    pub fn sign_request(
        &self,
        request_pem: &str,
        usages: &[String],
        seconds: Option<i64>,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(request_pem.as_bytes()).map_err(|_| ReadError::NotPem)?;
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| ReadError::NotDer)?;
        request.verify_signature().map_err(|_| PkiError::Unsigned)?;
        let info = &request.certification_request_info;

        let (_, own) =
            x509_parser::pem::parse_x509_pem(self.pair.certificate_pem.as_bytes()).map_err(|_| ReadError::NotPem)?;
        let own = own.parse_x509().map_err(|_| ReadError::NotDer)?;
        let life = seconds.map_or(self.leaf_seconds, |seconds| seconds.min(self.leaf_seconds));
        let end = (now.as_second() + life).min(self.not_after.as_second());
        let validity = value(SEQUENCE, &[&time(begin_seconds(now, end))?, &time(end)?]);

        let mut extensions = usage_extensions(usages)?;
        extensions.push(extension(&BASIC_CONSTRAINTS, true, &value(SEQUENCE, &[])));
        if let Some(identifier) = key_identifier(&own) {
            let inner = value(SEQUENCE, &[&value(implicit(0), &[identifier])]);
            extensions.push(extension(&AUTHORITY_KEY_IDENTIFIER, false, &inner));
        }
        if let Some(names) = alternative_names(&request) {
            let is_only_name = info.subject.iter().next().is_none();
            extensions.push(extension(&SUBJECT_ALTERNATIVE_NAME, is_only_name, names));
        }
        let extensions = value(explicit(3), &[&value(SEQUENCE, &[&extensions.concat()])]);

        let to_be_signed = value(
            SEQUENCE,
            &[
                &value(explicit(0), &[&value(INTEGER, &[&[2]])]),
                &value(INTEGER, &[&serial(&self.random)]),
                &ALGORITHM,
                own.subject().as_raw(),
                &validity,
                info.subject.as_raw(),
                info.subject_pki.raw,
                &extensions,
            ],
        );
        let mut signature = vec![0];
        signature.extend(self.issuer.key().sign(&to_be_signed)?);
        let signature = value(super::der::BIT_STRING, &[&signature]);
        let certificate = value(SEQUENCE, &[&to_be_signed, &ALGORITHM, &signature]);
        // Checked before anybody sees it.
        X509Certificate::from_der(&certificate).map_err(|_| ReadError::NotDer)?;
        Ok(to_pem(&certificate))
    }
}

fn to_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).expect("invariant: base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn time(seconds: i64) -> Result<Vec<u8>, PkiError> {
    let at = Timestamp::from_second(seconds).map_err(|_| PkiError::Date(seconds))?;
    let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
    Ok(if year < LONG_DATES_YEAR {
        value(UTC_TIME, &[at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes()])
    } else {
        value(GENERALIZED_TIME, &[at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes()])
    })
}

fn extension(oid: &[u8], critical: bool, inner: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    value(
        SEQUENCE,
        &[&value(OID, &[oid]), critical, &value(OCTET_STRING, &[inner])],
    )
}

fn key_identifier<'a>(own: &'a X509Certificate<'a>) -> Option<&'a [u8]> {
    own.extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
            _ => None,
        })
}

/// The alternative names that are asked for, as they were encoded.
fn alternative_names<'a>(request: &'a X509CertificationRequest<'a>) -> Option<&'a [u8]> {
    request
        .certification_request_info
        .iter_attributes()
        .find_map(|attribute| {
            let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
                return None;
            };
            let names = asked
                .extensions
                .iter()
                .find(|own| own.oid == OID_X509_EXT_SUBJECT_ALT_NAME)?;
            Some(names.value)
        })
}

/// The usages as they stand in certificates.
fn usage_extensions(usages: &[String]) -> Result<Vec<Vec<u8>>, PkiError> {
    let (mut bits, mut extended) = (0_u16, Vec::new());
    for usage in usages {
        if let Some(bit) = key_usage(usage) {
            bits |= 0x8000 >> bit;
            continue;
        }
        let oid = extended_usage(usage).ok_or_else(|| PkiError::Usage(usage.clone()))?;
        let oid = Oid::from(oid).map_err(|_| PkiError::Usage(usage.clone()))?;
        let encoded = value(OID, &[oid.as_bytes()]);
        if !extended.contains(&encoded) {
            extended.push(encoded);
        }
    }
    let mut extensions = Vec::new();
    if bits != 0 {
        extensions.push(extension(&KEY_USAGE, true, &named_bits(bits)));
    }
    if !extended.is_empty() {
        let inner = value(SEQUENCE, &[&extended.concat()]);
        extensions.push(extension(&EXTENDED_KEY_USAGE, false, &inner));
    }
    Ok(extensions)
}

/// The number of the bit in the key usage extension.
fn key_usage(name: &str) -> Option<u32> {
    Some(match name {
        "signing" | "digital signature" => 0,
        "content commitment" => 1,
        "key encipherment" => 2,
        "data encipherment" => 3,
        "key agreement" => 4,
        "cert sign" => 5,
        "crl sign" => 6,
        "encipher only" => 7,
        "decipher only" => 8,
        _ => return None,
    })
}

fn extended_usage(name: &str) -> Option<&'static [u64]> {
    Some(match name {
        "any" => &[2, 5, 29, 37, 0],
        "server auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 1],
        "client auth" => &[1, 3, 6, 1, 5, 5, 7, 3, 2],
        "code signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
        "email protection" | "s/mime" => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
        "ipsec end system" => &[1, 3, 6, 1, 5, 5, 7, 3, 5],
        "ipsec tunnel" => &[1, 3, 6, 1, 5, 5, 7, 3, 6],
        "ipsec user" => &[1, 3, 6, 1, 5, 5, 7, 3, 7],
        "timestamping" => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
        "ocsp signing" => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
        "microsoft sgc" => &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3],
        "netscape sgc" => &[2, 16, 840, 1, 113_730, 4, 1],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use base::random::Random;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;
    use crate::authentication::CertificateAuthenticator;
    use crate::pki::LEAF_SECONDS;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn request(names: &[&str]) -> String {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        // A second value of the same attribute, which the library has no word for.
        params
            .distinguished_name
            .push(DnType::CustomDnType(vec![2, 5, 4, 10]), "others");
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        params
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
            .unwrap()
    }

    fn authority() -> Authority {
        Authority::generate("kubernetes", now(), Random::seeded(1)).unwrap()
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_signed_request_is_a_client_certificate() {
        let authority = authority();
        let usages = texts(&["digital signature", "client auth"]);
        let signed = authority.sign_request(&request(&[]), &usages, None, now()).unwrap();
        let chain: Vec<_> = rustls_pemfile::certs(&mut signed.as_bytes())
            .map(Result::unwrap)
            .collect();
        let door = CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap();
        let user = door.authenticate(&chain, now()).unwrap().unwrap();
        assert_eq!(user.name, "system:node:a");
        assert!(user.is_in("system:nodes") && user.is_in("others"), "{user:?}");
        let (_, end) = crate::pki::validity(&signed).unwrap();
        assert_eq!(end.as_second(), now().as_second() + LEAF_SECONDS);
        // A serving certificate opens no door.
        let usages = texts(&["digital signature", "server auth"]);
        let serving = authority.sign_request(&request(&["a"]), &usages, None, now()).unwrap();
        let chain: Vec<_> = rustls_pemfile::certs(&mut serving.as_bytes())
            .map(Result::unwrap)
            .collect();
        assert!(door.authenticate(&chain, now()).is_err());
    }

    #[test]
    fn names_usages_and_life_are_what_was_asked_for() {
        let authority = authority();
        let usages = texts(&["key encipherment", "server auth", "netscape sgc"]);
        let signed = authority
            .sign_request(&request(&["a.example", "10.0.0.7"]), &usages, Some(3600), now())
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(certificate.key_usage().unwrap().unwrap().value.key_encipherment());
        let extended = certificate.extended_key_usage().unwrap().unwrap();
        assert!(extended.value.server_auth && !extended.value.client_auth);
        assert!(!certificate.is_ca());
        assert_eq!(certificate.validity().not_after.timestamp(), now().as_second() + 3600);
        let own = authority.pair().certificate_pem.clone();
        let (_, own) = x509_parser::pem::parse_x509_pem(own.as_bytes()).unwrap();
        let own = own.parse_x509().unwrap();
        certificate.verify_signature(Some(own.public_key())).unwrap();
        assert_eq!(certificate.issuer(), own.subject());
    }

    #[test]
    fn what_cannot_be_signed_is_not() {
        let authority = authority();
        let client = texts(&["client auth"]);
        assert!(authority.sign_request("x", &client, None, now()).is_err());
        assert!(
            authority
                .sign_request(&request(&[]), &texts(&["to rule"]), None, now())
                .is_err()
        );
        // Another name under the same signature.
        let (_, mut pem) = x509_parser::pem::parse_x509_pem(request(&[]).as_bytes()).unwrap();
        let at = pem
            .contents
            .windows(13)
            .position(|part| part == b"system:node:a")
            .unwrap();
        pem.contents[at + 12] = b'b';
        let forged = to_pem(&pem.contents).replace("CERTIFICATE", "CERTIFICATE REQUEST");
        assert!(matches!(
            authority.sign_request(&forged, &client, None, now()),
            Err(PkiError::Unsigned)
        ));
    }
}
