//! Signed tokens of others: their three parts, the issuer's public keys, and whether one of these signed it.
//!
//! Invariant: nothing in a token's header names a key to fetch or to trust (`jku`, `jwk`, `x5u` and `x5c` are not looked at);
//! what a key verifies stands in `tokens/keys.rs`.
//! Source: RFC 7515, 7517, 7518; `github.com/coreos/go-oidc` (`verify.go`, `jwks.go`).

use api::{Map, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

pub(crate) use crate::tokens::keys::ALGORITHMS;
use crate::tokens::keys::{PublicKey, algorithm};

/// The longest token that is looked at. Tokens with hundreds of groups are a few ten thousand bytes.
const TOKEN_BYTES_MAX: usize = 128 * 1024;

/// A token whose signature was not looked at.
pub(crate) struct Unverified<'a> {
    /// What it claims. Nobody may act on it before [`KeySet::signed`] said yes.
    pub claims: Map,
    algorithm: String,
    key_id: String,
    signed: &'a str,
    signature: Vec<u8>,
}

// === impl Unverified ===

impl<'a> Unverified<'a> {
    /// The parts of a compact token; `None`: it is none.
    pub(crate) fn read(token: &'a str) -> Option<Unverified<'a>> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| -> Option<Map> { serde_json::from_slice(&BASE64.decode(part).ok()?).ok() };
        let header = object(header)?;
        // An extension that must be understood and is not known, as none is here.
        if header.contains_key("crit") {
            return None;
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        Some(Unverified {
            claims: object(claims)?,
            algorithm: text("alg"),
            key_id: text("kid"),
            signed,
            signature: BASE64.decode(signature).ok()?,
        })
    }

    /// Whether its algorithm is one of those that are taken.
    pub(crate) fn check_algorithm(&self, taken: &[String]) -> Result<(), String> {
        let name = &self.algorithm;
        match taken.contains(name) {
            true => algorithm(name).map(drop),
            false => Err(format!(
                "id token signed with unsupported algorithm, expected {taken:?} got {name:?}"
            )),
        }
    }
}

/// An issuer's public keys.
#[derive(Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: String,
    public: PublicKey,
}

// === impl KeySet ===

impl KeySet {
    /// The keys of a JSON web key set. Those of other kinds verify nothing and are left out.
    pub(crate) fn read(document: &[u8]) -> Result<KeySet, String> {
        let set: Value = serde_json::from_slice(document).map_err(|error| format!("failed to decode keys: {error}"))?;
        let keys = set["keys"]
            .as_array()
            .ok_or("failed to decode keys: there is no list")?;
        Ok(KeySet(keys.iter().filter_map(Key::read).collect()))
    }

    /// Whether one of the keys that the token may name signed it.
    pub(crate) fn signed(&self, token: &Unverified<'_>) -> bool {
        let Ok(algorithm) = algorithm(&token.algorithm) else {
            return false;
        };
        let named = |key: &&Key| token.key_id.is_empty() || key.id == token.key_id;
        let mut named = self.0.iter().filter(named);
        named.any(|key| {
            key.public
                .verifies(algorithm, token.signed.as_bytes(), &token.signature)
        })
    }
}

// === impl Key ===

impl Key {
    fn read(key: &Value) -> Option<Key> {
        let public = PublicKey::of_jwk(key)?;
        let id = key["kid"].as_str().unwrap_or("").to_owned();
        Some(Key { id, public })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Signer, encode};
    use super::*;

    fn verified(set: &KeySet, token: &str) -> bool {
        Unverified::read(token).is_some_and(|token| set.signed(&token))
    }

    #[test]
    fn each_kind_of_key_verifies_its_own_algorithms_only() {
        let claims = json!({"iss": "x"});
        let signers = [Signer::p256("a"), Signer::p384("b"), Signer::rsa("c")];
        let keys: Vec<Value> = signers.iter().map(Signer::key).collect();
        let all = KeySet::read(json!({"keys": keys}).to_string().as_bytes()).unwrap();
        for signer in &signers {
            for name in signer.algorithms() {
                let token = signer.sign(name, &claims);
                assert!(verified(&all, &token), "{name}");
                // Without a name every key is tried; another one's name is another key.
                let anonymous = signer.sign_with(&json!({"alg": name}), &claims);
                assert!(verified(&all, &anonymous), "{name} without kid");
                let other = signer.sign_with(&json!({"alg": name, "kid": "d"}), &claims);
                assert!(!verified(&all, &other), "{name} with another kid");
                for wrong in ALGORITHMS.iter().filter(|wrong| *wrong != name) {
                    let header = json!({"alg": wrong, "kid": signer.id()});
                    let (_, rest) = token.split_once('.').unwrap();
                    let relabelled = format!("{}.{rest}", encode(&header));
                    assert!(!verified(&all, &relabelled), "{name} as {wrong}");
                }
            }
        }
    }

    #[test]
    fn tricks_with_headers_verify_nothing() {
        let signer = Signer::p256("a");
        let set = KeySet::read(json!({"keys": [signer.key()]}).to_string().as_bytes()).unwrap();
        let claims = json!({"iss": "x", "sub": "admin"});
        let own_key = signer.key().to_string();
        // The public key as the secret of HMAC: a verifier that knew HS256 would say yes.
        let hmac = |secret: &[u8], header: &Value| {
            let signed = format!("{}.{}", encode(header), encode(&claims));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = ring::hmac::sign(&key, signed.as_bytes());
            format!("{signed}.{}", BASE64.encode(tag.as_ref()))
        };
        let attacker = Signer::p256("a");
        let bare = format!("{}.{}", encode(&json!({"alg": "none"})), encode(&claims));
        for token in [
            format!("{bare}."),
            format!("{}.{}.", encode(&json!({"alg": "None", "kid": "a"})), encode(&claims)),
            format!("{}.{}.", encode(&json!({"alg": "", "kid": "a"})), encode(&claims)),
            hmac(own_key.as_bytes(), &json!({"alg": "HS256", "kid": "a"})),
            hmac(&signer.public(), &json!({"alg": "HS256", "kid": "a"})),
            attacker.sign("ES256", &claims),
            attacker.sign_with(&json!({"alg": "ES256", "kid": "a", "jwk": attacker.key()}), &claims),
            attacker.sign_with(&json!({"alg": "ES256", "kid": "../../dev/null"}), &claims),
            attacker.sign_with(&json!({"alg": "ES256", "kid": ["a"]}), &claims),
            signer.sign_with(
                &json!({"alg": "ES256", "kid": "a", "crit": ["b64"], "b64": false}),
                &claims,
            ),
            signer.sign("ES256", &claims) + "A",
            format!("{}=", signer.sign("ES256", &claims)),
            bare,
            String::new(),
            "..".into(),
            format!("{{\"payload\": \"{}\"}}", encode(&claims)),
        ] {
            assert!(!verified(&set, &token), "{token}");
        }
        let huge = json!({"iss": "x", "groups": vec!["g"; TOKEN_BYTES_MAX]});
        assert!(Unverified::read(&signer.sign("ES256", &huge)).is_none());
        let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let header = encode(&json!({"alg": "ES256"}));
        let deep = format!("{header}.{}.AA", BASE64.encode(format!("{{\"a\": {nested}}}")));
        assert!(Unverified::read(&deep).is_none());
    }

    #[test]
    fn what_is_no_key_of_ours_is_left_out() {
        for (document, expect) in [
            (r#"{"keys": []}"#, Some(0)),
            (
                r#"{"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, 5]}"#,
                Some(0),
            ),
            (
                r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}"#,
                Some(0),
            ),
            (r#"{"keys": [{"kty": "RSA", "n": "AAEC", "e": "AQAB"}]}"#, Some(1)),
            ("{}", None),
            ("<html>", None),
        ] {
            let read = KeySet::read(document.as_bytes());
            assert_eq!(read.ok().map(|set| set.0.len()), expect, "{document}");
        }
    }
}
