//! What a fuzzer needs of the readers of what other servers answer: webhooks, and issuers of tokens.
//!
//! Each pair is one of `testkit`'s targets: what makes a good input, and what reads one, says in a few words what became of it
//! and panics when what was read is not what it must be.

use std::sync::LazyLock;

use api::{GroupVersionKind, Value, meta};
use base::Random;
use serde_json::json;

use crate::admission::webhook::answer::{Answer, Rubbish};
use crate::admission::webhook::question::Version;
use crate::authentication::jwt::signature::{KeySet, Unverified};
use crate::authentication::jwt::{JwtIssuer, Prefixed, claims, provider};
use crate::authentication::webhook;
use crate::authorization::webhook::Answer as Decided;
use crate::custom;
use crate::pipeline::Decision;
use crate::tokens::{Claims, Signer};

/// The uid of every question.
const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";
/// The issuer of tokens.
const ISSUER: &str = "https://issuer.example";

fn pick<T: Copy>(random: &Random, of: &[T]) -> T {
    of[random.index(of.len())]
}

/// Begins with a byte that says what was asked: the version, and whether by a webhook that changes objects.
pub fn make_admission_answer(random: &Random) -> Vec<u8> {
    let (version, mutating) = (pick(random, &[Version::V1, Version::V1Beta1]), random.chance(0.5));
    let mut response = json!({
        "uid": UID, "allowed": random.chance(0.5), "warnings": ["w"], "auditAnnotations": {"a": "b"},
        "status": {"code": 403, "message": "no", "reason": "Forbidden", "details": {"causes": [{"field": "f"}]}},
    });
    if mutating {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = "W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL2EifV0=".into();
    }
    let review = json!({"apiVersion": version.api_version(), "kind": "AdmissionReview", "response": response});
    let how = u8::from(version == Version::V1Beta1) | u8::from(mutating) << 1;
    [vec![how], review.to_string().into_bytes()].concat()
}

/// A webhook that only judges changes nothing, and no refusal is a success.
pub fn admission_answer(input: &[u8]) -> String {
    let (how, text) = input.split_first().unwrap_or((&0, input));
    let version = match how & 1 {
        0 => Version::V1,
        _ => Version::V1Beta1,
    };
    let mutating = how & 2 != 0;
    match Answer::read(text, version, UID, mutating) {
        Ok(answer) => {
            assert!(mutating || answer.patch.is_empty(), "a change by who may not");
            let allowed = answer.allowed;
            let refusal = answer.refusal("hook");
            assert!(
                (400..1000).contains(&refusal.code),
                "a refusal of code {}",
                refusal.code
            );
            format!("{allowed} {:?}", refusal.reason)
        }
        Err(Rubbish::Unreadable(why)) => format!("unreadable {why}"),
        Err(Rubbish::Invalid(why)) => format!("invalid {why}"),
    }
}

/// A SubjectAccessReview.
pub fn make_authorization_answer(random: &Random) -> Vec<u8> {
    let version = pick(random, &["authorization.k8s.io/v1", "authorization.k8s.io/v1beta1"]);
    let (allowed, denied) = (random.chance(0.5), random.chance(0.3));
    let status = json!({"allowed": allowed, "denied": denied, "reason": "r", "evaluationError": "e"});
    let review = json!({"apiVersion": version, "kind": "SubjectAccessReview", "status": status});
    review.to_string().into_bytes()
}

/// Only `true` is a yes, and not beside a no.
pub fn authorization_answer(input: &[u8]) -> String {
    let said: Value = match serde_json::from_slice(input) {
        Ok(said) => said,
        Err(error) => return error.to_string(),
    };
    match Decided::read(&said) {
        Ok(answer) => {
            let decision = answer.decision();
            let status = &said["status"];
            let says_yes = status["allowed"] == true && status["denied"] != true;
            assert_eq!(decision.allows(), says_yes, "{said}");
            match decision {
                Decision::Allow(_) => "allowed".into(),
                Decision::Deny(_) => "denied".into(),
                Decision::NoOpinion(_) => "no opinion".into(),
                Decision::Failed { error, .. } => error,
            }
        }
        Err(why) => why,
    }
}

/// The status of a TokenReview.
pub fn make_authentication_answer(random: &Random) -> Vec<u8> {
    let mut status = json!({
        "authenticated": random.chance(0.7),
        "user": {"username": "jane", "uid": "7", "groups": ["dev"], "extra": {"k": ["v"]}},
    });
    if random.chance(0.5) {
        status["audiences"] = json!(["api", "vault"]);
    }
    if random.chance(0.2) {
        status["error"] = "no".into();
    }
    status.to_string().into_bytes()
}

/// Whoever is somebody was authenticated, for something that was asked for.
pub fn authentication_answer(input: &[u8]) -> String {
    let status: Value = match serde_json::from_slice(input) {
        Ok(status) => status,
        Err(error) => return error.to_string(),
    };
    let wanted = ["api".to_owned(), "front".to_owned()];
    match webhook::read(&status, &wanted, &wanted[..1]) {
        Ok(Some((user, audiences))) => {
            assert_eq!(status["authenticated"], true, "{status}");
            assert!(!audiences.is_empty() && audiences.iter().all(|audience| wanted.contains(audience)));
            format!("somebody {}", "group ".repeat(user.groups.len().min(8)))
        }
        Ok(None) => "nobody".into(),
        Err(why) => why,
    }
}

/// What is to be converted.
fn originals() -> Vec<Value> {
    ["a", "b"]
        .map(|name| {
            json!({
                "apiVersion": "example.com/v1", "kind": "Thing", "spec": {"old": 1},
                "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"x": "1"}},
            })
        })
        .to_vec()
}

/// Begins with a byte that says in which version was asked.
pub fn make_conversion_answer(random: &Random) -> Vec<u8> {
    let old = random.chance(0.3);
    let version = if old { "v1beta1" } else { "v1" };
    let mut objects = originals();
    for object in &mut objects {
        object["apiVersion"] = "example.com/v2".into();
        object["spec"] = json!({"new": [1, "x"]});
        object["metadata"]["labels"]["x"] = "2".into();
    }
    let review = json!({
        "apiVersion": format!("apiextensions.k8s.io/{version}"), "kind": "ConversionReview",
        "response": {"uid": UID, "result": {"status": "Success"}, "convertedObjects": objects},
    });
    [vec![u8::from(old)], review.to_string().into_bytes()].concat()
}

/// Objects keep what makes them those objects.
pub fn conversion_answer(input: &[u8]) -> String {
    let (how, text) = input.split_first().unwrap_or((&0, input));
    let version = if how & 1 == 0 { "v1" } else { "v1beta1" };
    let answer: Value = match serde_json::from_slice(text) {
        Ok(answer) => answer,
        Err(error) => return error.to_string(),
    };
    let (objects, wanted) = (originals(), GroupVersionKind::new("example.com", "v2", "Thing"));
    match custom::accepted(&answer, (version, UID), &wanted, &objects) {
        Ok(made) => {
            assert_eq!(made.len(), objects.len());
            for (made, original) in made.iter().zip(&objects) {
                assert_eq!(meta::gvk(made), wanted);
                for text in [meta::name as fn(&Value) -> &str, meta::namespace, meta::uid] {
                    assert_eq!(text(made), text(original));
                }
            }
            "converted".into()
        }
        Err((_, why)) => why,
    }
}

/// What an issuer says of itself.
pub fn make_discovery(_: &Random) -> Vec<u8> {
    let document = json!({
        "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"), "response_types_supported": ["id_token"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    document.to_string().into_bytes()
}

/// Keys come over TLS only, and of the issuer that was asked.
pub fn discovery(input: &[u8]) -> String {
    match provider::keys_place(ISSUER, input) {
        Ok(place) => {
            assert!(place.starts_with("https://"), "{place}");
            let said: Value = serde_json::from_slice(input).expect("invariant: it was just read");
            assert_eq!(said["issuer"], ISSUER);
            "a place".into()
        }
        Err(why) => why,
    }
}

struct Issued {
    token: String,
    keys: Vec<u8>,
    stranger: String,
}

/// A token of an issuer and its keys, and a token that a stranger signed under the same words.
static ISSUED: LazyLock<Issued> = LazyLock::new(|| {
    let signer = |seed| {
        let key = rcgen::KeyPair::generate().expect("a key can be made").serialize_pem();
        Signer::from_pem(&key, Random::seeded(seed)).expect("the key is of the right kind")
    };
    let (own, stranger) = (signer(1), signer(2));
    let claims = Claims {
        audiences: vec!["kubernetes".into()],
        issuer: ISSUER.into(),
        subject: "jane".into(),
        expires: Some(1 << 40),
        ..Claims::default()
    };
    let sign = |signer: &Signer| signer.sign(&claims).expect("a token can be made");
    Issued {
        token: sign(&own),
        keys: own.key_set().to_string().into_bytes(),
        stranger: sign(&stranger),
    }
});

/// An issuer's keys.
pub fn make_key_set(_: &Random) -> Vec<u8> {
    ISSUED.keys.clone()
}

/// No set that was not made of a stranger's key verifies what he signed.
pub fn key_set(input: &[u8]) -> String {
    match KeySet::read(input) {
        Ok(set) => {
            let signed = |token: &str| Unverified::read(token).is_some_and(|token| set.signed(&token));
            assert!(!signed(&ISSUED.stranger), "a stranger's token");
            format!("verifies {}", signed(&ISSUED.token))
        }
        Err(why) => why,
    }
}

/// A token of an issuer.
pub fn make_foreign_token(_: &Random) -> Vec<u8> {
    ISSUED.token.clone().into_bytes()
}

/// Whatever is read of another token, the issuer did not sign it.
pub fn foreign_token(input: &[u8]) -> String {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::read(&ISSUED.keys).expect("the keys were just made"));
    let text = String::from_utf8_lossy(input);
    let Some(token) = Unverified::read(&text) else {
        return "no token".into();
    };
    if KEYS.signed(&token) {
        assert_eq!(text, *ISSUED.token, "a token that nobody signed");
    }
    let settings = JwtIssuer {
        url: ISSUER.into(),
        username: Prefixed {
            claim: "sub".into(),
            prefix: "p:".into(),
        },
        groups: Some(Prefixed {
            claim: "aud".into(),
            prefix: String::new(),
        }),
        ..JwtIssuer::default()
    };
    let times = ["exp", "nbf"].map(|name| claims::seconds(&token.claims, name).is_ok());
    match claims::user(&settings, &token.claims) {
        Ok(user) => {
            assert!(user.name.starts_with("p:"), "{}", user.name);
            let known = claims::issuer(&token.claims) == ISSUER;
            format!(
                "somebody {known} {times:?} {}",
                claims::audiences(&token.claims).is_ok()
            )
        }
        Err(why) => why,
    }
}
