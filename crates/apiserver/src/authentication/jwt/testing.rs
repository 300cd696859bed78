//! An issuer of a test's own: keys of every kind, and an HTTPS server on loopback that tells of them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::Value;
use base::{Clock, Random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use rustls::ServerConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::pki::Authority;

/// A key of no use outside of tests: ring makes none of this kind.
const RSA_KEY: &str = include_str!("rsa_of_tests.pem");

/// A part of a token.
pub(crate) fn encode(value: &Value) -> String {
    BASE64.encode(value.to_string())
}

/// A private key with a name.
pub(crate) struct Signer {
    id: String,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair, &'static str),
    Rsa(RsaKeyPair),
}

impl Signer {
    pub(crate) fn p256(id: &str) -> Signer {
        Signer::ecdsa(id, &ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")
    }

    pub(crate) fn p384(id: &str) -> Signer {
        Signer::ecdsa(id, &ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")
    }

    fn ecdsa(id: &str, algorithm: &'static EcdsaSigningAlgorithm, curve: &'static str) -> Signer {
        let entropy = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &entropy).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &entropy).unwrap();
        Signer {
            id: id.into(),
            key: Key::Ecdsa(key, curve),
        }
    }

    pub(crate) fn rsa(id: &str) -> Signer {
        let key = rustls_pemfile::pkcs8_private_keys(&mut RSA_KEY.as_bytes()).next();
        let key = RsaKeyPair::from_pkcs8(key.unwrap().unwrap().secret_pkcs8_der()).unwrap();
        Signer {
            id: id.into(),
            key: Key::Rsa(key),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn algorithms(&self) -> &'static [&'static str] {
        match &self.key {
            Key::Ecdsa(_, "P-256") => &["ES256"],
            Key::Ecdsa(..) => &["ES384"],
            Key::Rsa(_) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        }
    }

    /// The bytes of the public key.
    pub(crate) fn public(&self) -> Vec<u8> {
        match &self.key {
            Key::Ecdsa(key, _) => key.public_key().as_ref().to_vec(),
            Key::Rsa(key) => key.public_key().as_ref().to_vec(),
        }
    }

    /// The public key as a JSON web key.
    pub(crate) fn key(&self) -> Value {
        match &self.key {
            Key::Ecdsa(key, curve) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "kid": self.id, "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y)})
            }
            Key::Rsa(key) => {
                let parts: PublicKeyComponents<Vec<u8>> = key.public().into();
                json!({"kty": "RSA", "kid": self.id, "n": BASE64.encode(parts.n), "e": BASE64.encode(parts.e)})
            }
        }
    }

    pub(crate) fn sign(&self, algorithm: &str, claims: &Value) -> String {
        self.sign_with(&json!({"alg": algorithm, "kid": self.id, "typ": "JWT"}), claims)
    }

    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let entropy = SystemRandom::new();
        let signature = match &self.key {
            Key::Ecdsa(key, _) => key.sign(&entropy, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Key::Rsa(key) => {
                let encoding: &dyn RsaEncoding = match header["alg"].as_str().unwrap() {
                    "RS256" => &RSA_PKCS1_SHA256,
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(encoding, &entropy, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }
}

/// A running issuer.
pub(crate) struct TestIssuer {
    /// `https://127.0.0.1:PORT`
    pub url: String,
    /// Who signed its certificate.
    pub ca_pem: String,
    /// What it answers, by path.
    pub documents: Arc<Mutex<Vec<(String, Value)>>>,
    /// How often its keys were asked for.
    pub key_reads: Arc<AtomicUsize>,
}

impl TestIssuer {
    /// One with these keys.
    pub(crate) async fn start(signers: &[&Signer]) -> TestIssuer {
        let now = Clock::real().now();
        let authority = Authority::generate("issuers", now, Random::real()).unwrap();
        let pair = authority
            .issue_server("issuer", None, &[], &[Ipv4Addr::LOCALHOST.into()], now)
            .unwrap();
        let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes()).collect();
        let key = rustls_pemfile::private_key(&mut pair.key_pem.as_bytes())
            .unwrap()
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let issuer = TestIssuer {
            url: format!("https://{}", listener.local_addr().unwrap()),
            ca_pem: authority.pair().certificate_pem.clone(),
            documents: Arc::default(),
            key_reads: Arc::default(),
        };
        let configuration = json!({"issuer": issuer.url, "jwks_uri": format!("{}/keys", issuer.url)});
        issuer.tell("/.well-known/openid-configuration", configuration);
        issuer.set_keys(signers);
        let (documents, reads) = (issuer.documents.clone(), issuer.key_reads.clone());
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), documents, reads));
        issuer
    }

    /// Answers a path with this from now on.
    pub(crate) fn tell(&self, path: &str, document: Value) {
        let mut documents = self.documents.lock();
        documents.retain(|(own, _)| own != path);
        documents.push((path.into(), document));
    }

    pub(crate) fn set_keys(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.key()).collect();
        self.tell("/keys", json!({"keys": keys}));
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    documents: Arc<Mutex<Vec<(String, Value)>>>,
    reads: Arc<AtomicUsize>,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, documents, reads) = (tls.clone(), documents.clone(), reads.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = tls.accept(socket).await else {
                return;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return,
                }
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            if path == "/keys" {
                reads.fetch_add(1, Ordering::SeqCst);
            }
            let found = documents
                .lock()
                .iter()
                .find(|(own, _)| own == path)
                .map(|(_, value)| value.clone());
            let (status, body) = match found {
                Some(document) => ("200 OK", document.to_string()),
                None => ("404 Not Found", String::new()),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes()).await;
            let _ = stream.shutdown().await;
        });
    }
}
