//! What clients show and ask to be signed: tokens, certificates and requests for them; and the configuration of sealing.

use std::sync::LazyLock;

use apiserver::pki::{Authority, dns_names, identity_of};
use apiserver::sealing::EncryptionConfig;
use apiserver::tokens::{Claims, Signer};
use base::Random;
use jiff::Timestamp;

/// An authority, its key, and a request that it would sign: made once, as keys are slow.
struct Keys {
    authority: Authority,
    signer: Signer,
    request_pem: String,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let random = Random::seeded(1);
    let authority = Authority::generate("fuzz", now(), random.fork()).expect("an authority");
    let signer = Signer::from_pem(&authority.pair().key_pem, random).expect("a signer");
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["web.example".to_owned(), "10.0.0.1".to_owned()];
    let request = rcgen::CertificateParams::new(names).expect("names");
    let request = request.serialize_request(&key).expect("a request");
    Keys {
        authority,
        signer,
        request_pem: request.pem().expect("a request in PEM"),
    }
});

fn now() -> Timestamp {
    Timestamp::from_second(1_767_323_045).expect("a time")
}

pub fn make_token(random: &Random) -> Vec<u8> {
    let claims = Claims {
        audiences: vec!["a".into(); random.index(3)],
        expires: 1_767_400_000,
        ..Claims::default()
    };
    KEYS.signer.sign(&claims).expect("a token").into_bytes()
}

/// Only what was signed is believed.
pub fn token(input: &[u8]) -> String {
    match KEYS.signer.verify(&String::from_utf8_lossy(input)) {
        Err(error) => error.to_string(),
        Ok(claims) => {
            assert_eq!(claims.expires, 1_767_400_000, "a token that nobody signed");
            "good".into()
        }
    }
}

pub fn make_certificate(_: &Random) -> Vec<u8> {
    let pair = KEYS
        .authority
        .issue_client("jane", Some("dev"), now())
        .expect("a certificate");
    let mut reader = pair.certificate_pem.as_bytes();
    let der = rustls_pemfile::certs(&mut reader).next();
    der.and_then(Result::ok).expect("the certificate").to_vec()
}

pub fn certificate(input: &[u8]) -> String {
    let names = dns_names(input).len();
    match identity_of(input) {
        Err(error) => error.to_string(),
        Ok(_) => format!("somebody {}", "name ".repeat(names)),
    }
}

pub fn make_request(_: &Random) -> Vec<u8> {
    KEYS.request_pem.clone().into_bytes()
}

pub fn request(input: &[u8]) -> String {
    let usages = ["digital signature", "client auth"].map(str::to_owned);
    let text = String::from_utf8_lossy(input);
    match KEYS.authority.sign_request(&text, &usages, Some(600), now()) {
        Err(error) => error.to_string(),
        Ok(_) => "signed".into(),
    }
}

pub fn make_encryption(random: &Random) -> Vec<u8> {
    let providers = [
        "aescbc: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}",
        "secretbox: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}",
        "kms: {apiVersion: v2, name: a, endpoint: 'unix:///a.sock', timeout: 3s}",
        "identity: {}",
    ];
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  \
         providers:\n  - {}\n",
        providers[random.index(providers.len())]
    )
    .into_bytes()
}

pub fn encryption(input: &[u8]) -> String {
    match EncryptionConfig::from_text(&String::from_utf8_lossy(input)) {
        Err(error) => error.to_string(),
        Ok(_) => "good".into(),
    }
}
