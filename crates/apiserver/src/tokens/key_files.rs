//! Keys of service accounts' tokens from PEM files: many public ones that verify, and the private one that signs.
//!
//! Source: `k8s.io/client-go/util/keyutil/key.go` and `pkg/serviceaccount/jwt.go` (`JWTTokenGenerator`). Keys of elliptic
//! curves in PKCS#8 are read wherever keys are: upstream takes them where it signs, and not where it verifies.

use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pemfile::Item;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::JwtError;
use super::keys::{Curve, OID_EC, OID_RSA, PublicKey};
use crate::pki::der::{self, BIT_STRING, INTEGER, OCTET_STRING, OID, SEQUENCE};

/// The tags of a private key's curve and of its public half (RFC 5915).
const CURVE: u8 = der::explicit(0);
const PUBLIC: u8 = der::explicit(1);

/// What a file without a key that can be used is refused with.
const NO_PUBLIC_KEY: &str = "data does not contain any valid RSA or ECDSA public keys";
const NO_PRIVATE_KEY: &str = "data does not contain a valid RSA or ECDSA private key";
/// And one with a key that cannot: whoever names it would miss its tokens.
const UNUSABLE: &str = "a key in it cannot be used: this server knows RSA of 2048 bits and more and ECDSA on P-256 and P-384, not P-521 \
                        (ES512)";

/// A key that verifies tokens of service accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey(pub(super) PublicKey);

/// The key that signs them.
pub struct SigningKey {
    private: Private,
    public: PublicKey,
}

enum Private {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// All keys of a file, in its order: of public keys, of certificates, and of private keys their public halves. What is no key
/// is left out.
///
/// # Errors
/// There is none, or one that verifies nothing here.
pub fn verifying_keys(pem: &str) -> Result<Vec<VerifyingKey>, String> {
    let mut keys = Vec::new();
    for item in rustls_pemfile::read_all(&mut pem.as_bytes()).filter_map(Result::ok) {
        let key = match &item {
            Item::SubjectPublicKeyInfo(info) => PublicKey::of_der(info),
            Item::X509Certificate(certificate) => {
                let read = X509Certificate::from_der(certificate).ok();
                read.and_then(|(_, certificate)| PublicKey::of_der(certificate.public_key().raw))
            }
            Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_) => {
                SigningKey::of_item(&item).map(|key| key.public)
            }
            _ => continue,
        };
        keys.push(VerifyingKey(key.ok_or(UNUSABLE)?));
    }
    match keys.is_empty() {
        true => Err(NO_PUBLIC_KEY.into()),
        false => Ok(keys),
    }
}

// === impl SigningKey ===

impl SigningKey {
    /// The first private key of a file: RSA, or of the curves P-256 and P-384.
    ///
    /// # Errors
    /// There is none, or one that signs nothing here.
    pub fn from_pem(pem: &str) -> Result<SigningKey, String> {
        let mut rest = pem.as_bytes();
        let mut items = rustls_pemfile::read_all(&mut rest).filter_map(Result::ok);
        let is_private = |item: &Item| matches!(item, Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_));
        let private = items.find(is_private).ok_or(NO_PRIVATE_KEY)?;
        SigningKey::of_item(&private).ok_or_else(|| UNUSABLE.to_owned())
    }

    fn of_item(item: &Item) -> Option<SigningKey> {
        match item {
            Item::Pkcs1Key(key) => SigningKey::of_rsa(RsaKeyPair::from_der(key.secret_pkcs1_der()).ok()?),
            Item::Sec1Key(key) => SigningKey::of_sec1(None, key.secret_sec1_der()),
            Item::Pkcs8Key(key) => SigningKey::of_pkcs8(key.secret_pkcs8_der()),
            _ => None,
        }
    }

    fn of_rsa(key: RsaKeyPair) -> Option<SigningKey> {
        let PublicKeyComponents { n, e }: PublicKeyComponents<Vec<u8>> = key.public().into();
        Some(SigningKey {
            private: Private::Rsa(key),
            public: PublicKey::Rsa { n, e },
        })
    }

    fn of_pkcs8(whole: &[u8]) -> Option<SigningKey> {
        let mut rest = der::take(SEQUENCE, &mut { whole })?;
        der::take(INTEGER, &mut rest)?;
        let mut algorithm = der::take(SEQUENCE, &mut rest)?;
        match der::take(OID, &mut algorithm)? {
            oid if oid == OID_RSA => SigningKey::of_rsa(RsaKeyPair::from_pkcs8(whole).ok()?),
            oid if oid == OID_EC => {
                let curve = Curve::of_oid(der::take(OID, &mut algorithm)?)?;
                SigningKey::of_sec1(Some(curve), der::take(OCTET_STRING, &mut rest)?)
            }
            _ => None,
        }
    }

    /// An `ECPrivateKey`, which names its curve when nothing around it does.
    fn of_sec1(curve: Option<Curve>, mut whole: &[u8]) -> Option<SigningKey> {
        let mut rest = der::take(SEQUENCE, &mut whole)?;
        der::take(INTEGER, &mut rest)?;
        let private = der::take(OCTET_STRING, &mut rest)?;
        let named = der::take(CURVE, &mut rest);
        let curve = curve.or_else(|| Curve::of_oid(der::take(OID, &mut named?)?))?;
        let mut public = der::take(PUBLIC, &mut rest)?;
        let (_, point) = der::take(BIT_STRING, &mut public)?.split_first()?;
        let algorithm = match curve {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        };
        let entropy = SystemRandom::new();
        let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, point, &entropy).ok()?;
        Some(SigningKey {
            private: Private::Ecdsa(key),
            public: PublicKey::of_point(curve, point.to_vec())?,
        })
    }

    /// The key that verifies what this one signs.
    pub fn verifying(&self) -> VerifyingKey {
        VerifyingKey(self.public.clone())
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of a message by [`PublicKey::algorithm`].
    pub(super) fn sign(&self, entropy: &SystemRandom, message: &[u8]) -> Result<Vec<u8>, JwtError> {
        match &self.private {
            Private::Ecdsa(key) => {
                let signature = key.sign(entropy, message).map_err(|_| JwtError::Sign)?;
                Ok(signature.as_ref().to_vec())
            }
            Private::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, entropy, message, &mut signature)
                    .map_err(|_| JwtError::Sign)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// An RSA key in PKCS#8 and in PKCS#1, its public half, and upstream's id of it; keys of elliptic curves in PKCS#8 and
    /// SEC1. Made by openssl, and the id with it.
    pub(crate) const RSA: &str = include_str!("testdata/rsa.pem");
    pub(crate) const RSA_PKCS1: &str = include_str!("testdata/rsa-pkcs1.pem");
    pub(crate) const RSA_PUBLIC: &str = include_str!("testdata/rsa-public.pem");
    pub(crate) const RSA_ID: &str = include_str!("testdata/rsa.id");
    pub(crate) const P384: &str = include_str!("testdata/p384.pem");
    pub(crate) const P384_SEC1: &str = include_str!("testdata/p384-sec1.pem");
    pub(crate) const P384_PUBLIC: &str = include_str!("testdata/p384-public.pem");
    pub(crate) const P384_ID: &str = include_str!("testdata/p384.id");
    pub(crate) const P521: &str = include_str!("testdata/p521.pem");
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use crate::tokens::keys::algorithm;

    #[test]
    fn keys_have_one_id_in_every_form() {
        for (forms, id, name) in [
            ([RSA, RSA_PKCS1, RSA_PUBLIC], RSA_ID, "RS256"),
            ([P384, P384_SEC1, P384_PUBLIC], P384_ID, "ES384"),
        ] {
            for form in forms {
                let keys = verifying_keys(form).unwrap();
                let ids: Vec<String> = keys.iter().map(|key| key.0.id()).collect();
                assert_eq!(ids, [id.trim()], "{form}");
            }
            for form in &forms[..2] {
                let key = SigningKey::from_pem(form).unwrap();
                let signature = key.sign(&SystemRandom::new(), b"message").unwrap();
                assert_eq!(key.public.algorithm(), name);
                let (algorithm, public) = (algorithm(name).unwrap(), key.verifying().0);
                assert!(public.verifies(algorithm, b"message", &signature));
                assert!(!public.verifies(algorithm, b"massage", &signature));
            }
        }
    }

    #[test]
    fn a_file_has_several_keys_or_is_refused() {
        let several = format!("# old and new\n{RSA_PUBLIC}\nwords between\n{P384_SEC1}{RSA_PKCS1}");
        assert_eq!(verifying_keys(&several).unwrap().len(), 3);
        assert_eq!(SigningKey::from_pem(&several).unwrap().public.algorithm(), "ES384");
        for text in ["", "no key"] {
            assert_eq!(verifying_keys(text), Err(NO_PUBLIC_KEY.into()));
            assert_eq!(SigningKey::from_pem(text).err().as_deref(), Some(NO_PRIVATE_KEY));
        }
        // Its tokens would be refused, and nobody would know why.
        assert_eq!(verifying_keys(&format!("{RSA_PUBLIC}{P521}")), Err(UNUSABLE.into()));
        assert_eq!(SigningKey::from_pem(P521).err().as_deref(), Some(UNUSABLE));
        assert_eq!(SigningKey::from_pem(RSA_PUBLIC).err().as_deref(), Some(NO_PRIVATE_KEY));
    }
}
