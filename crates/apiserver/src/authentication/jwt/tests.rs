//! Tokens of an issuer on loopback, from good ones to those that attackers make.

use std::sync::atomic::Ordering;

use api::Value;
use base64::Engine as _;
use serde_json::json;

use super::testing::{Signer, TestIssuer};
use super::*;

const NOW: i64 = 1_800_000_000;

struct World {
    issuer: TestIssuer,
    signer: Signer,
    tokens: JwtTokens,
}

fn settings(issuer: &TestIssuer) -> JwtIssuer {
    JwtIssuer {
        url: issuer.url.clone(),
        certificate_authority: issuer.ca_pem.clone(),
        audiences: vec!["kubernetes".into(), "other".into()],
        algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        username: Prefixed {
            claim: "sub".into(),
            prefix: "oidc:".into(),
        },
        ..JwtIssuer::default()
    }
}

impl World {
    async fn start() -> World {
        let signer = Signer::p256("k1");
        let issuer = TestIssuer::start(&[&signer]).await;
        let tokens = World::tokens(&[settings(&issuer)]);
        tokens.issuers.load()[0].provider.ready().await;
        World { issuer, signer, tokens }
    }

    fn tokens(issuers: &[JwtIssuer]) -> JwtTokens {
        let clock = Clock::simulated(jiff::Timestamp::from_second(NOW).unwrap());
        JwtTokens::new(issuers, None, clock).unwrap()
    }

    /// Good claims, with changes; what is null is left out.
    fn claims(&self, change: Value) -> Value {
        let mut claims = json!({"iss": self.issuer.url, "aud": "kubernetes", "sub": "jane", "exp": NOW + 60});
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    async fn ask(&self, token: &str) -> Result<Option<String>, String> {
        let found = self.tokens.authenticate(token, &[]).await;
        let found = found.map_err(|refusal| refusal.why)?;
        Ok(found.map(|identity| identity.user.name.to_string()))
    }
}

#[tokio::test]
async fn claims_are_checked_one_by_one() {
    let world = World::start().await;
    let elsewhere = "https://elsewhere.example";
    for (change, expect) in [
        (json!({}), Ok(Some("oidc:jane"))),
        (json!({"aud": ["x", "other"]}), Ok(Some("oidc:jane"))),
        (json!({"nbf": NOW + 299}), Ok(Some("oidc:jane"))),
        (json!({"exp": NOW as f64 + 0.5}), Ok(Some("oidc:jane"))),
        // Another issuer's token may be of another kind.
        (json!({"iss": elsewhere}), Ok(None)),
        (json!({"iss": null}), Ok(None)),
        (json!({"iss": world.issuer.url.clone() + "/"}), Ok(None)),
        (json!({"aud": "kubernete"}), Err("expected audience in")),
        (json!({"aud": []}), Err("expected audience in")),
        (json!({"aud": null}), Err("expected audience in")),
        (json!({"aud": {"kubernetes": 1}}), Err("aud is no text")),
        (json!({"exp": NOW - 1}), Err("token is expired")),
        (json!({"exp": null}), Err("token is expired")),
        (json!({"exp": "9999999999"}), Err("exp is no time")),
        (json!({"nbf": NOW + 301}), Err("before the nbf")),
        (json!({"sub": null}), Err("parse username claims")),
    ] {
        let token = world.signer.sign("ES256", &world.claims(change.clone()));
        match (world.ask(&token).await, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got.as_deref(), expect, "{change}"),
            (Err(got), Err(expect)) => assert!(got.contains(expect), "{change}: {got}"),
            (got, expect) => panic!("{change}: {got:?} in place of {expect:?}"),
        }
    }
}

#[tokio::test]
async fn forged_tokens_are_nobodys() {
    let world = World::start().await;
    let claims = world.claims(json!({"sub": "admin"}));
    let attacker = Signer::p256("k1");
    let good = world.signer.sign("ES256", &world.claims(json!({})));
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let encoded = super::testing::encode(&claims);
    let none = super::testing::encode(&json!({"alg": "none"}));
    for token in [
        attacker.sign("ES256", &claims),
        format!("{head}.{encoded}.{signature}"),
        format!("{none}.{encoded}."),
        format!("{none}.{encoded}.{signature}"),
        Signer::rsa("k1").sign("RS256", &claims),
        attacker.sign_with(&json!({"alg": "ES256"}), &claims),
    ] {
        let refused = world.ask(&token).await;
        assert!(refused.is_err(), "{token}: {refused:?}");
    }
    for token in ["", "a.b.c", "..", &good[1..], &format!("{good}.x")] {
        assert!(!matches!(world.ask(token).await, Ok(Some(_))), "{token}");
    }
    let document = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    assert_eq!(world.ask(&format!("{{\"payload\":\"{document}\"}}")).await, Ok(None));
    assert_eq!(world.ask(&good).await, Ok(Some("oidc:jane".into())));
}

#[tokio::test]
async fn keys_are_read_again_when_one_is_not_known() {
    let world = World::start().await;
    let reads = || world.issuer.key_reads.load(Ordering::SeqCst);
    let claims = world.claims(json!({}));
    let first = world.signer.sign("ES256", &claims);
    assert_eq!(reads(), 0);
    for _ in 0..3 {
        assert!(world.ask(&first).await.unwrap().is_some());
    }
    assert_eq!(reads(), 1, "known keys are not read again");
    let next = Signer::p384("k2");
    let second = next.sign("ES384", &claims);
    assert!(world.ask(&second).await.is_err());
    assert_eq!(reads(), 2);
    world.issuer.set_keys(&[&next]);
    assert!(world.ask(&second).await.unwrap().is_some());
    assert_eq!(reads(), 3);
    // The old key is gone with the new set.
    assert!(world.ask(&first).await.is_err());
    // What is wrong without its signature costs no question.
    let late = next.sign("ES384", &world.claims(json!({"exp": NOW - 1})));
    let before = reads();
    assert!(world.ask(&late).await.is_err());
    assert_eq!(reads(), before);
}

#[tokio::test]
async fn only_the_issuer_itself_is_believed() {
    let signer = Signer::p256("k1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let stranger = TestIssuer::start(&[&signer]).await;
    // Another authority than the issuer's: nobody is asked anything.
    let mut wrong = settings(&issuer);
    wrong.certificate_authority = stranger.ca_pem.clone();
    // Another name than the one that is configured.
    let mut misnamed = settings(&stranger);
    misnamed.url = format!("{}/realm", stranger.url);
    let document = json!({"issuer": stranger.url, "jwks_uri": format!("{}/keys", stranger.url)});
    stranger.tell("/realm/.well-known/openid-configuration", document);
    let claims = json!({"iss": misnamed.url, "aud": "kubernetes", "sub": "jane", "exp": NOW + 60});
    let tokens = World::tokens(&[wrong, misnamed]);
    for provider in tokens.issuers.load().iter().map(|issuer| &issuer.provider) {
        let mut told = provider.keys_url();
        told.changed().await.unwrap();
        assert!(!provider.has_answered());
    }
    let asked = tokens.authenticate(&signer.sign("ES256", &claims), &[]).await;
    assert_eq!(asked.unwrap_err().why, "oidc: authenticator not initialized");
}

#[tokio::test]
async fn another_configuration_takes_over_once_its_issuers_answer() {
    let world = World::start().await;
    let other = Signer::rsa("r1");
    let issuer = TestIssuer::start(&[&other]).await;
    issuer.tell(
        "/elsewhere",
        json!({"issuer": "https://named.example", "jwks_uri": format!("{}/keys", issuer.url)}),
    );
    let mut next = settings(&issuer);
    next.url = "https://named.example".into();
    next.discovery_url = Some(format!("{}/elsewhere", issuer.url));
    let claims = json!({"iss": next.url, "aud": "kubernetes", "sub": "joe", "exp": NOW + 60});
    let token = other.sign("PS512", &claims);
    assert_eq!(world.ask(&token).await, Ok(None));
    world.tokens.replace(&[next.clone()]).await.unwrap();
    assert_eq!(world.ask(&token).await, Ok(Some("oidc:joe".into())));
    let old = world.signer.sign("ES256", &world.claims(json!({})));
    assert_eq!(world.ask(&old).await, Ok(None));
    next.algorithms = vec!["RS256".into()];
    world.tokens.replace(&[next]).await.unwrap();
    let refused = world.ask(&token).await.unwrap_err();
    assert!(refused.contains("unsupported algorithm, expected"), "{refused}");
    assert!(world.ask(&other.sign("RS256", &claims)).await.unwrap().is_some());
}
