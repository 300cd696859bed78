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
pub(super) const USAGES: [&str; 23] = [
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

/// What a stored request may go on breaking: rules that are younger than it.
pub(super) struct Tolerated {
    both_verdicts: bool,
    legacy_signer: bool,
    repeated_conditions: bool,
    untyped_conditions: bool,
    any_certificate: bool,
    repeated_usages: bool,
    unknown_usages: bool,
}

impl Tolerated {
    /// Nothing: the request is new.
    pub(super) fn none() -> Tolerated {
        Tolerated {
            both_verdicts: false,
            legacy_signer: false,
            repeated_conditions: false,
            untyped_conditions: false,
            any_certificate: false,
            repeated_usages: false,
            unknown_usages: false,
        }
    }

    /// What the old request breaks already. Source: `getValidationOptions`.
    pub(super) fn by(old: &Value, new: &Value) -> Tolerated {
        let types: Vec<&str> = old.list("status.conditions").iter().map(|c| c.text("type")).collect();
        let usages: Vec<&str> = old.texts("spec.usages").collect();
        let repeats = |list: &[&str]| list.iter().collect::<BTreeSet<_>>().len() < list.len();
        let certificate = old.text("status.certificate");
        Tolerated {
            both_verdicts: types.contains(&"Approved") && types.contains(&"Denied"),
            legacy_signer: old.text("spec.signerName") == LEGACY_SIGNER,
            repeated_conditions: repeats(&types),
            untyped_conditions: types.contains(&""),
            any_certificate: new.text("status.certificate") == certificate || check_certificate(certificate).is_err(),
            repeated_usages: repeats(&usages),
            unknown_usages: usages.iter().any(|usage| !USAGES.contains(usage)),
        }
    }
}

/// The rules of a request.
pub(super) fn spec(spec: &At, tolerated: &Tolerated) {
    let request = spec.get("request");
    if let Err(why) = check_request(request.text()) {
        request.invalid(why);
    }
    let usages = spec.items("usages");
    if usages.is_empty() {
        spec.get("usages").missing("");
    }
    let mut seen = BTreeSet::new();
    for usage in usages.iter().filter(|_| !tolerated.unknown_usages) {
        usage.one_of(&USAGES);
    }
    for usage in usages.iter().filter(|_| !tolerated.repeated_usages) {
        usage.unique(&mut seen);
    }
    signer_name(&spec.get("signerName"), tolerated);
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

fn signer_name(at: &At, tolerated: &Tolerated) {
    let name = at.text();
    if name == LEGACY_SIGNER && !tolerated.legacy_signer {
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
pub(super) fn status(object: &At, tolerated: &Tolerated) {
    let mut seen = BTreeSet::new();
    let conditions = object.get("status.conditions");
    for condition in object.items("status.conditions") {
        let kind = condition.get("type");
        if kind.text().is_empty() && !tolerated.untyped_conditions {
            kind.missing("");
        }
        let is = condition.get("status");
        let settled = ["Approved", "Denied", "Failed"].contains(&kind.text());
        match is.text() {
            "" => is.missing(""),
            _ if settled => is.one_of(&["True"]),
            _ => is.one_of(&["False", "True", "Unknown"]),
        }
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !tolerated.both_verdicts && !other.is_empty() && seen.contains(other) {
            conditions.invalid_as(kind.text(), "Approved and Denied conditions are mutually exclusive");
        }
        if tolerated.repeated_conditions {
            seen.insert(kind.text().to_owned());
        } else {
            kind.unique(&mut seen);
        }
    }
    let certificate = object.get("status.certificate");
    if tolerated.any_certificate {
        return;
    }
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
