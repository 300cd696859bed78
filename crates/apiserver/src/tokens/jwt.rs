//! Compact JSON web tokens, signed by one key and verified by several, and the key set others verify them by. The keys are those of
//! files, or an external signer's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::random::Random;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::RwLock;
use ring::rand::SystemRandom;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use tokio::time::Instant;

use super::external::ExternalSigner;
use super::keys::{PublicKey, algorithm};
use super::legacy::LEGACY_ISSUER;
use super::{Claims, SigningKey, TokenSettings, VerifyingKey};
use crate::metrics::shared;

/// The longest token that is looked at: upstream's headers are limited to 16 KiB as a whole.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// A SHA-256.
const DIGEST_BYTES: usize = 32;

/// Why a token could not be made or is not to be trusted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JwtError {
    /// There is no private key of a kind that signs.
    #[error("the signing key cannot be read: {0}")]
    Key(String),
    /// The library refused to sign.
    #[error("the token could not be signed")]
    Sign,
    /// An external signer did not sign.
    #[error("{0}")]
    External(String),
    /// Three parts of base64 are what a token has to be.
    #[error("the token is malformed")]
    Malformed,
    /// None of the issuers whose tokens are taken.
    #[error("the token was issued by somebody else")]
    Issuer,
    /// A key that is not ours.
    #[error("invalid signature, no keys found")]
    UnknownKey,
    /// The signature does not fit, or is of another algorithm than the key's.
    #[error("the token's signature is invalid")]
    Signature,
    /// An expiration that no clock can show.
    #[error("the token's expiration is out of range")]
    Expiration,
}

/// How long others may keep the keys of files, as upstream tells them.
const KEY_SET_MAX_AGE: Duration = Duration::from_secs(3600);

/// Tokens whose signatures were verified that are remembered: one a pod of a large cluster's busiest. Past it all are
/// forgotten and verified once more.
const REMEMBERED_MAX: usize = 4096;

/// Signs tokens with one key, and verifies them with those that are taken.
pub struct Signer {
    keys: Keys,
    settings: TokenSettings,
    entropy: SystemRandom,
    random: Random,
    remembered: RwLock<Remembered>,
}

/// Where keys are.
enum Keys {
    /// Here, as files had them.
    Own {
        key: SigningKey,
        key_id: String,
        /// In the order of the key set.
        taken: Arc<Vec<Taken>>,
    },
    External(Arc<ExternalSigner>),
}

/// What verified tokens claim, by the digest of the whole token. A signature costs three times as much as all the rest of a
/// request, and what was signed once stays signed as long as the keys are the same.
#[derive(Default)]
struct Remembered {
    generation: u64,
    claims: HashMap<[u8; DIGEST_BYTES], Arc<Claims>>,
}

/// A key whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub id: String,
    pub former_id: Option<String>,
    pub key: PublicKey,
    /// Others are not told of it.
    pub is_hidden: bool,
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
    /// A signer from a private key in PEM, as [`crate::pki`] makes them; nothing but what it signed is taken.
    ///
    /// # Errors
    /// A key of another kind.
    pub fn from_pem(key_pem: &str, random: Random) -> Result<Signer, JwtError> {
        let key = SigningKey::from_pem(key_pem).map_err(JwtError::Key)?;
        let taken = vec![key.verifying()];
        Ok(Signer::new(key, taken, TokenSettings::default(), random))
    }

    /// Signs with that key; what one of `taken` signed counts.
    pub fn new(key: SigningKey, taken: Vec<VerifyingKey>, settings: TokenSettings, random: Random) -> Signer {
        let mut keys: Vec<Taken> = Vec::new();
        for VerifyingKey(key) in taken {
            // Key sets name each key once.
            if keys.iter().all(|own| own.key != key) {
                let (id, former_id) = (key.id(), key.former_id());
                keys.push(Taken {
                    id,
                    former_id,
                    key,
                    is_hidden: false,
                });
            }
        }
        let keys = Keys::Own {
            key_id: key.public().id(),
            key,
            taken: Arc::new(keys),
        };
        Signer::of(keys, settings, random)
    }

    /// Has another program sign, and takes what that program says.
    pub fn external(signer: Arc<ExternalSigner>, settings: TokenSettings, random: Random) -> Signer {
        Signer::of(Keys::External(signer), settings, random)
    }

    fn of(keys: Keys, settings: TokenSettings, random: Random) -> Signer {
        Signer {
            keys,
            settings,
            entropy: SystemRandom::new(),
            random,
            remembered: RwLock::default(),
        }
    }

    /// Those that are taken, in the order of the key set.
    fn taken(&self) -> Arc<Vec<Taken>> {
        match &self.keys {
            Keys::Own { taken, .. } => taken.clone(),
            Keys::External(signer) => signer.keys(),
        }
    }

    /// Files are read once.
    fn generation(&self) -> u64 {
        match &self.keys {
            Keys::Own { .. } => 0,
            Keys::External(signer) => signer.generation(),
        }
    }

    /// How long others may keep the key set.
    pub(super) fn max_age(&self) -> Duration {
        match &self.keys {
            Keys::Own { .. } => KEY_SET_MAX_AGE,
            Keys::External(signer) => signer.max_age(),
        }
    }

    /// Looks once more for the key of a token that was refused because nobody knew it. Whether there is one now.
    pub(super) async fn finds_key_of(&self, token: &str) -> bool {
        match (&self.keys, key_of(token)) {
            (Keys::External(signer), Some(id)) => signer.knows(&id).await,
            _ => false,
        }
    }

    /// Whether keys come and go.
    pub(super) fn is_external(&self) -> bool {
        matches!(self.keys, Keys::External(_))
    }

    /// Who issues tokens, for whom and for how long.
    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// A fresh token id.
    pub fn new_token_id(&self) -> String {
        self.random.uuid()
    }

    /// The signed, compact token, by whoever signs.
    ///
    /// # Errors
    /// As [`Signer::sign`], or what the external signer said.
    pub async fn signed(&self, claims: &Claims) -> Result<String, JwtError> {
        let Keys::External(signer) = &self.keys else {
            return self.sign(claims);
        };
        let claims = serde_json::to_string(claims).map_err(|_| JwtError::Sign)?;
        signer.sign(&claims).await.map_err(JwtError::External)
    }

    /// The signed, compact token, by a key of our own.
    ///
    /// # Errors
    /// The library's; or there is none.
    pub fn sign(&self, claims: &Claims) -> Result<String, JwtError> {
        self.sign_text(&serde_json::to_string(claims).map_err(|_| JwtError::Sign)?)
    }

    /// The same of claims that are text already.
    pub(super) fn sign_text(&self, claims: &str) -> Result<String, JwtError> {
        let Keys::Own { key, key_id, .. } = &self.keys else {
            return Err(JwtError::Sign);
        };
        let header = serde_json::json!({"alg": key.public().algorithm(), "kid": key_id});
        let mut token = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let signature = key.sign(&self.entropy, token.as_bytes())?;
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        Ok(token)
    }

    /// The claims of a token of one of the issuers that one of the keys signed. Times, audience and objects are the caller's
    /// to check.
    ///
    /// # Errors
    /// What is wrong with the token.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::Malformed);
        }
        let (metrics, began) = (&shared().credentials, Instant::now());
        let digest = Sha256::digest(token).into();
        // Before the keys are looked at: what is remembered is never of newer keys than it says.
        let generation = self.generation();
        if let Some(claims) = self.remembered.read().get(generation, &digest) {
            metrics.looked_up(true, began.elapsed());
            return Ok(claims);
        }
        let verified = self.verify_signature(token);
        // What is not a token of ours is others' to find out.
        if !matches!(verified, Err(JwtError::Malformed | JwtError::Issuer)) {
            metrics.looked_up(false, began.elapsed());
            metrics.fetched(verified.is_ok());
        }
        let claims = Arc::new(verified?);
        self.remembered.write().insert(generation, digest, claims.clone());
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let decode = |part: &str| BASE64.decode(part).map_err(|_| JwtError::Malformed);
        let payload = decode(payload)?;
        // Nobody may act on them before the signature was verified.
        let mut claims: Claims = serde_json::from_slice(&payload).map_err(|_| JwtError::Malformed)?;
        if claims.issuer == LEGACY_ISSUER {
            claims.legacy = Some(serde_json::from_slice(&payload).map_err(|_| JwtError::Malformed)?);
        } else if !self.settings.issuers.contains(&claims.issuer) {
            return Err(JwtError::Issuer);
        }
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwtError::Malformed)?;
        let signature = decode(signature)?;
        let taken = self.taken();
        let mut named = taken.iter().filter(|taken| taken.is_named(&header.kid)).peekable();
        if named.peek().is_none() {
            return Err(JwtError::UnknownKey);
        }
        let algorithm = algorithm(&header.alg).map_err(|_| JwtError::Signature)?;
        match named.any(|taken| taken.key.verifies(algorithm, signed.as_bytes(), &signature)) {
            true => Ok(claims),
            false => Err(JwtError::Signature),
        }
    }

    /// The algorithms of the keys that others are told of, sorted, each once.
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let taken = self.taken();
        let told = taken.iter().filter(|taken| !taken.is_hidden);
        let mut all: Vec<&str> = told.map(|taken| taken.key.algorithm()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The JSON web key set of `/openid/v1/jwks`.
    pub fn key_set(&self) -> api::Value {
        let taken = self.taken();
        let told = taken.iter().filter(|taken| !taken.is_hidden);
        let keys: Vec<api::Value> = told.map(|taken| taken.key.jwk(&taken.id)).collect();
        serde_json::json!({"keys": keys})
    }
}

/// The key that a token names; nothing of it is verified.
fn key_of(token: &str) -> Option<String> {
    let header = BASE64.decode(token.split('.').next()?).ok()?;
    let header: Header = serde_json::from_slice(&header).ok()?;
    Some(header.kid)
}

// === impl Remembered ===

impl Remembered {
    fn get(&self, generation: u64, digest: &[u8; DIGEST_BYTES]) -> Option<Arc<Claims>> {
        let claims = self.claims.get(digest).filter(|_| self.generation == generation);
        claims.cloned()
    }

    fn insert(&mut self, generation: u64, digest: [u8; DIGEST_BYTES], claims: Arc<Claims>) {
        if self.generation > generation {
            return;
        }
        if self.generation < generation || self.claims.len() >= REMEMBERED_MAX {
            self.claims.clear();
        }
        self.generation = generation;
        self.claims.insert(digest, claims);
    }
}

// === impl Taken ===

impl Taken {
    /// Whether a token with that `kid` may be signed by it; one without may be by any.
    fn is_named(&self, id: &str) -> bool {
        id.is_empty() || self.id == id || self.former_id.as_deref() == Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::key_files::testing::{P384, P384_ID, P384_PUBLIC, RSA, RSA_ID, RSA_PUBLIC};
    use super::super::verifying_keys;
    use super::*;

    #[test]
    fn only_the_very_token_that_was_verified_is_remembered() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Signer::from_pem(&key, Random::seeded(1)).unwrap();
        let claims = |subject: &str| Claims {
            subject: subject.into(),
            issuer: super::super::ISSUER.into(),
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
        assert_eq!(
            signer.remembered.read().claims.len(),
            2,
            "what is wrong is not remembered"
        );
    }

    #[test]
    fn several_keys_and_issuers_are_taken_and_one_signs() {
        let pem = |key: &str| SigningKey::from_pem(key).unwrap();
        let own = || rcgen::KeyPair::generate().unwrap().serialize_pem();
        let (old, other) = (own(), own());
        let taken = [RSA_PUBLIC, P384_PUBLIC, &old, RSA_PUBLIC].map(|text| verifying_keys(text).unwrap().remove(0));
        let settings = |issuer: &str| TokenSettings {
            issuers: vec![issuer.into(), "https://old".into()],
            ..TokenSettings::default()
        };
        let random = Random::seeded(1);
        let signer = Signer::new(pem(RSA), taken.to_vec(), settings("https://new"), random.fork());
        let set = signer.key_set();
        let of_keys = |field: &str| -> Vec<String> {
            let keys = set["keys"].as_array().unwrap().iter();
            keys.map(|key| key[field].as_str().unwrap_or("").to_owned()).collect()
        };
        assert_eq!(
            of_keys("alg"),
            ["RS256", "ES384", "ES256"],
            "each key once, in the order of the files"
        );
        assert_eq!(of_keys("kid")[..2], [RSA_ID.trim(), P384_ID.trim()]);
        assert_eq!(signer.algorithms(), ["ES256", "ES384", "RS256"]);
        assert!(set["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()));

        for (key, issuer, expect) in [
            (RSA, "https://new", Ok(())),
            (P384, "https://new", Ok(())),
            (&*old, "https://old", Ok(())),
            (RSA, "https://else", Err(JwtError::Issuer)),
            (&*other, "https://new", Err(JwtError::UnknownKey)),
        ] {
            let foreign = Signer::new(pem(key), Vec::new(), settings(issuer), random.fork());
            let claims = Claims {
                issuer: issuer.into(),
                ..Claims::default()
            };
            let token = foreign.sign(&claims).unwrap();
            assert_eq!(signer.verify(&token).map(drop), expect, "{issuer}");
            // The same words under the name of a key that is taken.
            let (_, rest) = token.split_once('.').unwrap();
            let header = serde_json::json!({"alg": "PS256", "kid": RSA_ID.trim()});
            let renamed = format!("{}.{rest}", BASE64.encode(header.to_string()));
            assert!(signer.verify(&renamed).is_err());
            // Who names no key is tried with all of them.
            let (claims, _) = rest.split_once('.').unwrap();
            let header = serde_json::json!({"alg": pem(key).public().algorithm()});
            let words = format!("{}.{claims}", BASE64.encode(header.to_string()));
            let signature = pem(key).sign(&foreign.entropy, words.as_bytes()).unwrap();
            let nameless = format!("{words}.{}", BASE64.encode(signature));
            assert_eq!(signer.verify(&nameless).is_ok(), expect.is_ok(), "{issuer}");
        }
    }

    #[test]
    fn tokens_of_earlier_versions_name_their_key_otherwise() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let mut signer = Signer::from_pem(&key, Random::seeded(1)).unwrap();
        let former = signer.taken()[0].former_id.clone().unwrap();
        if let Keys::Own { key_id, .. } = &mut signer.keys {
            *key_id = former;
        }
        let claims = Claims {
            issuer: super::super::ISSUER.into(),
            ..Claims::default()
        };
        let token = signer.sign(&claims).unwrap();
        assert_eq!(signer.verify(&token).as_deref(), Ok(&claims));
    }
}
