//! Compact JSON web tokens, signed with ECDSA on P-256 (ES256), and the key set others verify them by.

use std::collections::HashMap;
use std::sync::Arc;

use base::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use tokio::time::Instant;

use super::Claims;
use crate::metrics::shared;

/// The longest token that is looked at: upstream's headers are limited to 16 KiB as a whole.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// An uncompressed point on P-256: a tag, then x and y.
const POINT_BYTES: usize = 65;
/// A SHA-256.
const DIGEST_BYTES: usize = 32;

/// Why a token could not be made or is not to be trusted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwtError {
    /// The key is no P-256 key in PKCS#8.
    #[error("the signing key cannot be read")]
    Key,
    /// The library refused to sign.
    #[error("the token could not be signed")]
    Sign,
    /// Three parts of base64 are what a token has to be.
    #[error("the token is malformed")]
    Malformed,
    /// A key that is not ours, or another algorithm.
    #[error("the token was signed by an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is invalid")]
    Signature,
    /// An expiration that no clock can show.
    #[error("the token's expiration is out of range")]
    Expiration,
}

/// Tokens whose signatures were verified that are remembered: one a pod of a large cluster's busiest. Past it all are
/// forgotten and verified once more.
const REMEMBERED_MAX: usize = 4096;

/// Signs and verifies tokens with one key.
pub struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
    entropy: SystemRandom,
    random: Random,
    /// What verified tokens claim, by the digest of the whole token. A signature costs three times as much as all the rest
    /// of a request, and what was signed once stays signed: the key never changes.
    remembered: RwLock<HashMap<[u8; DIGEST_BYTES], Arc<Claims>>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// The id of a token that was just made; nothing of it is verified.
pub(crate) fn id_of(token: &str) -> Option<String> {
    let claims = BASE64.decode(token.split('.').nth(1)?).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    Some(claims.id).filter(|id| !id.is_empty())
}

// === impl Signer ===

impl Signer {
    /// A signer from a PKCS#8 key in PEM, as [`crate::pki`] makes them.
    ///
    /// # Errors
    /// A key of another kind.
    pub fn from_pem(key_pem: &str, random: Random) -> Result<Signer, JwtError> {
        let mut reader = key_pem.as_bytes();
        let key = rustls_pemfile::pkcs8_private_keys(&mut reader)
            .next()
            .and_then(Result::ok)
            .ok_or(JwtError::Key)?;
        let entropy = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &entropy)
            .map_err(|_| JwtError::Key)?;
        if key.public_key().as_ref().len() != POINT_BYTES {
            return Err(JwtError::Key);
        }
        let key_id = BASE64.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Signer {
            key,
            key_id,
            entropy,
            random,
            remembered: RwLock::default(),
        })
    }

    /// A fresh token id.
    pub fn new_token_id(&self) -> String {
        self.random.uuid()
    }

    /// The signed, compact token.
    ///
    /// # Errors
    /// The library's.
    pub fn sign(&self, claims: &Claims) -> Result<String, JwtError> {
        let header = serde_json::json!({"alg": "ES256", "kid": self.key_id});
        let claims = serde_json::to_vec(claims).map_err(|_| JwtError::Sign)?;
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let signature = self
            .key
            .sign(&self.entropy, token.as_bytes())
            .map_err(|_| JwtError::Sign)?;
        token.push('.');
        token.push_str(&BASE64.encode(signature.as_ref()));
        Ok(token)
    }

    /// The claims of a token that this key signed. Times, audience and objects are the caller's to check.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::Malformed);
        }
        let (metrics, began) = (&shared().credentials, Instant::now());
        let digest = Sha256::digest(token).into();
        let known = self.remembered.read().get(&digest).cloned();
        if let Some(claims) = known {
            metrics.looked_up(true, began.elapsed());
            return Ok(claims);
        }
        let verified = self.verify_signature(token);
        // What is not a token of ours is others' to find out.
        if !matches!(verified, Err(JwtError::Malformed | JwtError::UnknownKey)) {
            metrics.looked_up(false, began.elapsed());
            metrics.fetched(verified.is_ok());
        }
        let claims = Arc::new(verified?);
        let mut remembered = self.remembered.write();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(digest, claims.clone());
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        if header.alg != "ES256" || header.kid != self.key_id {
            return Err(JwtError::UnknownKey);
        }
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| JwtError::Signature)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| JwtError::Malformed)
    }

    /// The JSON web key set of `/openid/v1/jwks`.
    pub fn key_set(&self) -> api::Value {
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(POINT_BYTES / 2);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_that_was_verified_is_remembered() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Signer::from_pem(&key, Random::seeded(1)).unwrap();
        let claims = |subject: &str| Claims {
            subject: subject.into(),
            ..Claims::default()
        };
        let (jane, root) = (
            signer.sign(&claims("jane")).unwrap(),
            signer.sign(&claims("root")).unwrap(),
        );
        let first = signer.verify(&jane).unwrap();
        let again = signer.verify(&jane).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "verified twice");

        // The claims of one, the signature of the other.
        let (signed, _) = root.rsplit_once('.').unwrap();
        let (_, signature) = jane.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{signature}");
        assert_eq!(signer.verify(&forged), Err(JwtError::Signature));
        assert_eq!(signer.verify(&root).unwrap().subject, "root");
        assert_eq!(signer.verify(&forged), Err(JwtError::Signature));
        assert_eq!(signer.remembered.read().len(), 2, "what is wrong is not remembered");
    }
}
