//! Public keys of JSON web tokens, and the algorithms that they verify.
//!
//! Invariant: only asymmetric algorithms are known, and a key verifies algorithms of its own kind only, so that neither
//! `none` nor a public key taken for a shared secret ever verifies anything.
//! Source: RFC 7517, 7518; of the ids of keys `pkg/serviceaccount/jwt.go` (`keyIDFromPublicKey`).

use api::Value;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::pki::der::{self, BIT_STRING, INTEGER, NULL, OID, SEQUENCE};

/// The algorithms that upstream takes. ES512 is among them and has no implementation here.
pub(crate) const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

/// `rsaEncryption` (1.2.840.113549.1.1.1).
pub(super) const OID_RSA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `ecPublicKey` (1.2.840.10045.2.1).
pub(super) const OID_EC: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `prime256v1` (1.2.840.10045.3.1.7).
const OID_P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `secp384r1` (1.3.132.0.34).
const OID_P384: [u8; 5] = [0x2b, 0x81, 0x04, 0x00, 0x22];
/// The tag of a point that is not compressed.
const UNCOMPRESSED: u8 = 4;
/// The shortest and the longest modulus that ring verifies with, in bytes.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// An algorithm, by what verifies it.
#[derive(Clone, Copy)]
pub(crate) enum Algorithm {
    Rsa(&'static RsaParameters),
    Ecdsa(&'static EcdsaVerificationAlgorithm, Curve),
}

/// A curve of keys of elliptic curves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

/// The algorithm of that name.
///
/// # Errors
/// There is none, or none that can be verified here.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, String> {
    Ok(match name {
        "RS256" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        "RS384" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        "RS512" => Algorithm::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        "PS256" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA256),
        "PS384" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA384),
        "PS512" => Algorithm::Rsa(&RSA_PSS_2048_8192_SHA512),
        "ES256" => Algorithm::Ecdsa(&ECDSA_P256_SHA256_FIXED, Curve::P256),
        "ES384" => Algorithm::Ecdsa(&ECDSA_P384_SHA384_FIXED, Curve::P384),
        "ES512" => return Err("this server cannot verify ES512".into()),
        _ => return Err(format!("id token signed with unsupported algorithm {name:?}")),
    })
}

// === impl Curve ===

impl Curve {
    /// Those that ring knows.
    pub(super) const ALL: [Curve; 2] = [Curve::P256, Curve::P384];

    fn named(name: &str) -> Option<Curve> {
        Curve::ALL.into_iter().find(|curve| curve.name() == name)
    }

    /// The curve of an object identifier's content.
    pub(super) fn of_oid(oid: &[u8]) -> Option<Curve> {
        Curve::ALL.into_iter().find(|curve| curve.oid() == oid)
    }

    fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
        }
    }

    fn oid(self) -> &'static [u8] {
        match self {
            Curve::P256 => &OID_P256,
            Curve::P384 => &OID_P384,
        }
    }

    /// How long a coordinate is.
    fn coordinate_bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
        }
    }
}

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Modulus and exponent, without zeros before them.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point that is not compressed, its tag first.
    Point(Curve, Vec<u8>),
}

// === impl PublicKey ===

impl PublicKey {
    /// The key of a JSON web key; `None`: it is of a kind that verifies nothing here.
    pub(crate) fn of_jwk(key: &Value) -> Option<PublicKey> {
        let bytes = |name: &str| BASE64.decode(key[name].as_str()?).ok();
        match key["kty"].as_str()? {
            "RSA" => Some(PublicKey::Rsa {
                n: without_zeros(&bytes("n")?),
                e: without_zeros(&bytes("e")?),
            }),
            "EC" => {
                let curve = Curve::named(key["crv"].as_str()?)?;
                PublicKey::of_point(curve, [vec![UNCOMPRESSED], bytes("x")?, bytes("y")?].concat())
            }
            _ => None,
        }
    }

    /// The key of a DER `SubjectPublicKeyInfo`; `None`: it is broken, or of a kind that verifies nothing here.
    pub(crate) fn of_der(mut info: &[u8]) -> Option<PublicKey> {
        let mut info = der::take(SEQUENCE, &mut info)?;
        let mut algorithm = der::take(SEQUENCE, &mut info)?;
        let (zero, key) = der::take(BIT_STRING, &mut info)?.split_first()?;
        if *zero != 0 {
            return None;
        }
        match der::take(OID, &mut algorithm)? {
            oid if oid == OID_RSA => PublicKey::of_rsa(key),
            oid if oid == OID_EC => {
                let curve = Curve::of_oid(der::take(OID, &mut algorithm)?)?;
                PublicKey::of_point(curve, key.to_vec())
            }
            _ => None,
        }
    }

    /// The key of a DER `RSAPublicKey`.
    fn of_rsa(mut key: &[u8]) -> Option<PublicKey> {
        let mut key = der::take(SEQUENCE, &mut key)?;
        let n = without_zeros(der::take(INTEGER, &mut key)?);
        let e = without_zeros(der::take(INTEGER, &mut key)?);
        MODULUS_BYTES.contains(&n.len()).then_some(PublicKey::Rsa { n, e })
    }

    /// The key of a point's bytes, its tag first.
    pub(super) fn of_point(curve: Curve, point: Vec<u8>) -> Option<PublicKey> {
        let whole = point.len() == 1 + 2 * curve.coordinate_bytes() && point[0] == UNCOMPRESSED;
        whole.then_some(PublicKey::Point(curve, point))
    }

    /// What verifies tokens that it is said to have signed.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (algorithm, self) {
            (Algorithm::Rsa(parameters), PublicKey::Rsa { n, e }) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature).is_ok()
            }
            (Algorithm::Ecdsa(algorithm, curve), PublicKey::Point(own, point)) if curve == *own => {
                UnparsedPublicKey::new(algorithm, point)
                    .verify(message, signature)
                    .is_ok()
            }
            _ => false,
        }
    }

    /// The algorithm that service accounts' tokens are signed with by a key of this kind.
    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            PublicKey::Rsa { .. } => "RS256",
            PublicKey::Point(Curve::P256, _) => "ES256",
            PublicKey::Point(Curve::P384, _) => "ES384",
        }
    }

    /// The DER `SubjectPublicKeyInfo`.
    pub(super) fn der(&self) -> Vec<u8> {
        let (algorithm, key) = match self {
            PublicKey::Rsa { n, e } => {
                let algorithm = [der::value(OID, &[&OID_RSA]), der::value(NULL, &[])].concat();
                let numbers = [der::unsigned(n), der::unsigned(e)];
                (algorithm, der::value(SEQUENCE, &[&numbers[0], &numbers[1]]))
            }
            PublicKey::Point(curve, point) => {
                let algorithm = [der::value(OID, &[&OID_EC]), der::value(OID, &[curve.oid()])].concat();
                (algorithm, point.clone())
            }
        };
        let algorithm = der::value(SEQUENCE, &[&algorithm]);
        der::value(SEQUENCE, &[&algorithm, &der::value(BIT_STRING, &[&[0], &key])])
    }

    /// Its name in tokens and key sets, as upstream makes it: nobody gets the key from it.
    pub(crate) fn id(&self) -> String {
        BASE64.encode(Sha256::digest(self.der()))
    }

    /// The name that earlier versions gave it: their tokens live for up to a year.
    pub(super) fn former_id(&self) -> Option<String> {
        match self {
            PublicKey::Point(Curve::P256, point) => Some(BASE64.encode(Sha256::digest(point))),
            _ => None,
        }
    }

    /// The JSON web key, by its name.
    pub(super) fn jwk(&self, id: &str) -> Value {
        let algorithm = self.algorithm();
        match self {
            PublicKey::Rsa { n, e } => json!({
                "use": "sig", "kty": "RSA", "kid": id, "alg": algorithm, "n": BASE64.encode(n), "e": BASE64.encode(e),
            }),
            PublicKey::Point(curve, point) => {
                let (x, y) = point[1..].split_at(curve.coordinate_bytes());
                json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": curve.name(), "alg": algorithm,
                    "x": BASE64.encode(x), "y": BASE64.encode(y),
                })
            }
        }
    }
}

fn without_zeros(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_what_it_writes() {
        let rsa = PublicKey::Rsa {
            n: [vec![0xc1], vec![7; 255]].concat(),
            e: vec![1, 0, 1],
        };
        let points = [(Curve::P256, 64), (Curve::P384, 96)].map(|(curve, length)| {
            let point = [vec![UNCOMPRESSED], vec![9; length]].concat();
            PublicKey::of_point(curve, point).unwrap()
        });
        for key in points.into_iter().chain([rsa]) {
            assert_eq!(PublicKey::of_der(&key.der()).as_ref(), Some(&key));
            assert_eq!(PublicKey::of_jwk(&key.jwk("k")).as_ref(), Some(&key));
            let der = key.der();
            for end in 0..der.len() {
                assert_eq!(PublicKey::of_der(&der[..end]), None, "cut at {end}");
            }
        }
    }
}
