//! The rules of requests, conditions and certificates.
//! Source: `pkg/apis/certificates/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::validation::{dns1123_label, dns1123_subdomain};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use crate::check::At;
use crate::view::View;

/// What a certificate may be asked for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The signer of the time before signers had names; v1 refuses it.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The shortest life that can be asked for, in seconds: twice what certificates are dated back by.
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// A signer's path has a name's length, its domain a subdomain's.
const DOMAIN_BYTES_MAX: usize = 253;
/// A domain, and the name of a resource in its namespace.
const SIGNER_BYTES_MAX: usize = DOMAIN_BYTES_MAX + 1 + (63 + 1 + 253);

/// The rules of a new request.
pub(super) fn spec(spec: &At) {
    let request = spec.get("request");
    if let Err(why) = check_request(request.text()) {
        request.invalid(why);
    }
    let usages = spec.items("usages");
    if usages.is_empty() {
        spec.get("usages").missing("");
    }
    let mut seen = BTreeSet::new();
    for usage in usages {
        usage.one_of(&USAGES);
        usage.unique(&mut seen);
    }
    signer_name(&spec.get("signerName"));
    let seconds = spec.get("expirationSeconds");
    if seconds.number().is_some_and(|seconds| seconds < EXPIRATION_SECONDS_MIN) {
        seconds.invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// A PEM block with a request that its own key has signed.
fn check_request(encoded: &str) -> Result<(), String> {
    let not_pem = || "PEM block type must be CERTIFICATE REQUEST".to_owned();
    let bytes = BASE64.decode(encoded).map_err(|_| not_pem())?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&bytes).map_err(|_| not_pem())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err(not_pem());
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    request.verify_signature().map_err(|error| error.to_string())
}

fn signer_name(at: &At) {
    let name = at.text();
    if name == LEGACY_SIGNER {
        return at.invalid("the legacy signerName is not allowed via this API version");
    }
    if name.is_empty() {
        return at.missing("");
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        return at.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        at.too_long(DOMAIN_BYTES_MAX);
    }
    parts(at, domain, dns1123_label);
    if !domain.contains('.') {
        at.invalid_as(
            domain,
            "should be a domain with at least two segments separated by dots",
        );
    }
    parts(at, path, dns1123_subdomain);
    if name.len() > SIGNER_BYTES_MAX {
        at.too_long(SIGNER_BYTES_MAX);
    }
}

/// What is wrong with the first broken part of a dotted name.
fn parts(at: &At, name: &str, rule: fn(&str) -> Vec<String>) {
    let broken = name.split('.').map(|part| (part, rule(part)));
    for (part, messages) in broken.filter(|(_, messages)| !messages.is_empty()).take(1) {
        for message in messages {
            at.invalid_as(name, format!("validating label {part:?}: {message}"));
        }
    }
}

/// The rules of conditions and certificate, whoever wrote them.
pub(super) fn status(object: &At) {
    let mut seen = BTreeSet::new();
    for condition in object.items("status.conditions") {
        let kind = condition.get("type");
        if kind.text().is_empty() {
            kind.missing("");
        }
        let is = condition.get("status");
        let settled = ["Approved", "Denied", "Failed"].contains(&kind.text());
        match is.text() {
            "" => is.missing(""),
            _ if settled => is.one_of(&["True"]),
            _ => is.one_of(&["False", "True", "Unknown"]),
        }
        if seen.contains("Approved") && kind.text() == "Denied" || seen.contains("Denied") && kind.text() == "Approved"
        {
            kind.invalid("Approved and Denied conditions are mutually exclusive");
        }
        kind.unique(&mut seen);
    }
    let certificate = object.get("status.certificate");
    if let Err(why) = check_certificate(certificate.text()) {
        certificate.invalid_as("<certificate data>", why);
    }
}

fn check_certificate(encoded: &str) -> Result<(), String> {
    if encoded.is_empty() {
        return Ok(());
    }
    let bytes = BASE64.decode(encoded).map_err(|error| error.to_string())?;
    let mut count = 0;
    for pem in Pem::iter_from_buffer(&bytes) {
        let pem = pem.map_err(|error| error.to_string())?;
        if pem.label != "CERTIFICATE" {
            return Err(format!(
                "only CERTIFICATE PEM blocks are allowed, found {:?}",
                pem.label
            ));
        }
        pem.parse_x509().map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    Ok(())
}

/// What may change through which door.
pub(super) fn change(object: &At, old: &Value, subresource: &str) {
    let conditions = object.get("status.conditions");
    let count = |list: &[Value], kind: &str| list.iter().filter(|condition| condition.text("type") == kind).count();
    let new: Vec<String> = object
        .items("status.conditions")
        .iter()
        .map(|condition| condition.get("type").text().to_owned())
        .collect();
    for kind in ["Approved", "Denied", "Failed"] {
        let before = count(old.list("status.conditions"), kind);
        let after = new.iter().filter(|own| *own == kind).count();
        if after < before {
            conditions.forbidden(format!("updates may not remove a condition of type {kind:?}"));
        }
        if after > before && subresource != "approval" && kind != "Failed" {
            conditions.forbidden(format!("updates may not add a condition of type {kind:?}"));
        }
    }
    let (certificate, before) = (object.get("status.certificate"), old.text("status.certificate"));
    if certificate.text() == before {
        return;
    }
    if subresource != "status" {
        certificate.forbidden("updates may not set certificate content");
    } else if !before.is_empty() {
        certificate.forbidden("updates may not modify existing certificate content");
    }
}
