//! What an external signer answers, checked. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rpc::external_jwt::FetchKeysResponse;
use serde::Deserialize;

use crate::tokens::jwt::Taken;
use crate::tokens::keys::{PublicKey, algorithm};

/// The longest name of a key, in bytes.
const KEY_ID_BYTES_MAX: usize = 1024;
/// The algorithms that upstream lets a signer use. ES512 is one more there, and cannot be verified here.
const ALGORITHMS: [&str; 3] = ["RS256", "ES256", "ES384"];
/// Keys are asked for again after this time at the latest, whatever a signer says: clocks end.
const REFRESH_MAX: Duration = Duration::from_secs(365 * 86_400);
/// The years 1 to 9999, in seconds since 1970: what a timestamp of protobuf may be.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: std::ops::Range<i32> = 0..1_000_000_000;

/// The keys of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub keys: Vec<Taken>,
    /// Of when they are, in seconds since 1970.
    pub seconds: f64,
    /// When to ask again.
    pub refresh: Duration,
}

/// Why not, in upstream's words.
pub(super) fn keys(answer: FetchKeysResponse) -> Result<Told, String> {
    let hint = answer.refresh_hint_seconds;
    let refresh = u64::try_from(hint).ok().filter(|seconds| *seconds > 0);
    let refresh = refresh.ok_or_else(|| format!("found invalid refresh hint ({hint}s)"))?;
    if answer.keys.is_empty() {
        return Err("found no keys".into());
    }
    let time = answer
        .data_timestamp
        .ok_or("invalid data timestamp: invalid nil Timestamp")?;
    if !SECONDS.contains(&time.seconds) || !NANOS.contains(&time.nanos) {
        let (seconds, nanos) = (time.seconds, time.nanos);
        return Err(format!(
            "invalid data timestamp: timestamp (seconds:{seconds} nanos:{nanos}) is out of range"
        ));
    }
    let read = |key: rpc::external_jwt::Key| {
        if key.key_id.is_empty() || key.key_id.len() > KEY_ID_BYTES_MAX {
            let id = api::field::quote(&key.key_id);
            return Err(format!("found invalid public key id {id}"));
        }
        if key.key.is_empty() {
            return Err("found empty public key".into());
        }
        let public = PublicKey::of_der(&key.key).ok_or(
            "while parsing external public keys: this server knows RSA of 2048 bits and more and ECDSA on P-256 and P-384",
        )?;
        Ok(Taken {
            id: key.key_id,
            former_id: None,
            key: public,
            is_hidden: key.exclude_from_oidc_discovery,
        })
    };
    let keys: Result<Vec<Taken>, String> = answer.keys.into_iter().map(read).collect();
    Ok(Told {
        keys: keys?,
        seconds: time.seconds as f64 + f64::from(time.nanos) / 1e9,
        refresh: Duration::from_secs(refresh).min(REFRESH_MAX),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    typ: String,
}

/// The key that a token's first part names; why that cannot be one, in upstream's words.
pub(super) fn key_of_header(header: &str) -> Result<String, String> {
    let bytes = BASE64.decode(header);
    let bytes = bytes.map_err(|error| format!("while unwrapping header: {error}"))?;
    let header: Header =
        serde_json::from_slice(&bytes).map_err(|error| format!("while parsing header JSON: {error}"))?;
    if header.typ != "JWT" {
        return Err("bad type".into());
    }
    if header.kid.is_empty() {
        return Err("key id missing".into());
    }
    if header.kid.len() > KEY_ID_BYTES_MAX {
        return Err("key id longer than 1 kb".into());
    }
    if !ALGORITHMS.contains(&&*header.alg) {
        let unknown = format!("bad signing algorithm {}", api::field::quote(&header.alg));
        // One that upstream knows is told as what it is.
        let why = algorithm(&header.alg).err().filter(|_| header.alg == "ES512");
        return Err(why.unwrap_or(unknown));
    }
    Ok(header.kid)
}

#[cfg(test)]
mod tests {
    use rpc::external_jwt::{Key, Timestamp};

    use super::*;
    use crate::tokens::SigningKey;
    use crate::tokens::key_files::testing::{P384, RSA};

    fn key(id: &str, pem: &str, hidden: bool) -> Key {
        Key {
            key_id: id.into(),
            key: SigningKey::from_pem(pem).unwrap().public().der(),
            exclude_from_oidc_discovery: hidden,
        }
    }

    fn answer(keys: Vec<Key>) -> FetchKeysResponse {
        let (seconds, nanos) = (1_700_000_000, 500_000_000);
        FetchKeysResponse {
            keys,
            data_timestamp: Some(Timestamp { seconds, nanos }),
            refresh_hint_seconds: 30,
        }
    }

    #[test]
    fn keys_are_read_with_their_names() {
        let told = keys(answer(vec![key("a", RSA, false), key("b", P384, true)])).unwrap();
        let of_keys: Vec<_> = told
            .keys
            .iter()
            .map(|key| (&*key.id, key.key.algorithm(), key.is_hidden))
            .collect();
        assert_eq!(of_keys, [("a", "RS256", false), ("b", "ES384", true)]);
        assert_eq!((told.seconds, told.refresh), (1_700_000_000.5, Duration::from_secs(30)));
        let for_ever = FetchKeysResponse {
            refresh_hint_seconds: i64::MAX,
            ..answer(vec![key("a", RSA, false)])
        };
        assert_eq!(keys(for_ever).unwrap().refresh, REFRESH_MAX);
    }

    #[test]
    fn answers_that_cannot_be_used_are_refused_in_upstreams_words() {
        let good = || vec![key("a", RSA, false)];
        let nameless = || Key {
            key_id: String::new(),
            ..key("a", RSA, false)
        };
        let garbage = Key {
            key: b"garbage".to_vec(),
            ..key("a", RSA, false)
        };
        let empty = Key {
            key: Vec::new(),
            ..key("a", RSA, false)
        };
        let time = |seconds, nanos| FetchKeysResponse {
            data_timestamp: Some(Timestamp { seconds, nanos }),
            ..answer(good())
        };
        for (answer, expect) in [
            (
                FetchKeysResponse {
                    refresh_hint_seconds: 0,
                    ..answer(good())
                },
                "found invalid refresh hint (0s)",
            ),
            (answer(Vec::new()), "found no keys"),
            (
                FetchKeysResponse {
                    data_timestamp: None,
                    ..answer(good())
                },
                "invalid data timestamp: invalid nil Timestamp",
            ),
            (time(i64::MAX, 0), "invalid data timestamp: "),
            (time(0, -1), "invalid data timestamp: "),
            (answer(vec![nameless()]), "found invalid public key id \"\""),
            (
                answer(vec![key(&"x".repeat(1025), RSA, false)]),
                "found invalid public key id \"xx",
            ),
            (answer(vec![empty]), "found empty public key"),
            (answer(vec![garbage]), "while parsing external public keys: "),
        ] {
            let why = keys(answer).unwrap_err();
            assert!(why.starts_with(expect), "{why}");
        }
    }

    #[test]
    fn headers_say_which_key_signed_and_nothing_else() {
        let long = format!(r#"{{"typ":"JWT","kid":"{}","alg":"RS256"}}"#, "x".repeat(1025));
        for (header, expect) in [
            (r#"{"typ":"JWT","kid":"a","alg":"ES384"}"#, Ok("a")),
            (r#"{"typ":"JOSE","kid":"a","alg":"ES384"}"#, Err("bad type")),
            (r#"{"kid":"a","alg":"ES384"}"#, Err("bad type")),
            (r#"{"typ":"JWT","alg":"ES384"}"#, Err("key id missing")),
            (&long, Err("key id longer than 1 kb")),
            (
                r#"{"typ":"JWT","kid":"a","alg":"none"}"#,
                Err("bad signing algorithm \"none\""),
            ),
            (
                r#"{"typ":"JWT","kid":"a","alg":"HS256"}"#,
                Err("bad signing algorithm \"HS256\""),
            ),
            (
                r#"{"typ":"JWT","kid":"a","alg":"ES512"}"#,
                Err("this server cannot verify ES512"),
            ),
            (
                r#"{"typ":"JWT","kid":"a","alg":"RS256","jku":"x"}"#,
                Err("while parsing header JSON: "),
            ),
            ("no json", Err("while parsing header JSON: ")),
        ] {
            let found = key_of_header(&BASE64.encode(header));
            match expect {
                Ok(id) => assert_eq!(found.as_deref(), Ok(id), "{header}"),
                Err(why) => assert!(
                    found.as_ref().is_err_and(|found| found.starts_with(why)),
                    "{header} {found:?}"
                ),
            }
        }
        let broken = key_of_header("=").unwrap_err();
        assert!(broken.starts_with("while unwrapping header: "), "{broken}");
    }
}
