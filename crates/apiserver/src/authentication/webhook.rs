//! Tokens that a service of others knows: it is asked in a `TokenReview`, and what it says is remembered for a while.
//!
//! Invariants: a token is remembered as a keyed digest, never as it is; whoever asks while the same question is under way
//! waits for its answer; an error is never remembered.
//! Source: `k8s.io/apiserver/plugin/pkg/authenticator/token/webhook/webhook.go` and
//! `pkg/authentication/token/cache/cached_token_authenticator.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::Value;
use base::Random;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::json;
use tokio::time::Instant;

use super::TokenKind;
use crate::hook::{Hook, Remembered};
use crate::metrics::shared;
use crate::pipeline::{Identity, Refusal};
use crate::request::UserInfo;

/// How long an answer counts when nobody says: upstream's `--authentication-token-webhook-cache-ttl`.
pub const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);

/// A version of `TokenReview`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenReviewVersion {
    /// `authentication.k8s.io/v1`.
    V1,
    /// `authentication.k8s.io/v1beta1`.
    V1Beta1,
}

/// Whom a token speaks for, if the service knows.
pub(crate) type Answer = Result<Option<(UserInfo, Vec<String>)>, String>;
type Digest = [u8; 32];
type UnderWay = Shared<BoxFuture<'static, Answer>>;

/// The service.
pub struct WebhookTokens {
    shared: Arc<Service>,
}

struct Service {
    hook: Hook,
    version: TokenReviewVersion,
    ttl: Duration,
    /// For whom a token is when the service does not say: the API server's own audiences.
    own_audiences: Vec<String>,
    key: hmac::Key,
    known: Mutex<Remembered<Digest, Answer>>,
    under_way: Mutex<HashMap<Digest, UnderWay>>,
}

// === impl WebhookTokens ===

impl WebhookTokens {
    /// Asks through that hook, and remembers for that long; zero: not at all. Answers that name no audiences are for those
    /// of the API server's own.
    pub fn new(
        hook: Hook,
        version: TokenReviewVersion,
        ttl: Duration,
        own_audiences: Vec<String>,
        random: &Random,
    ) -> WebhookTokens {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random.bytes::<32>());
        WebhookTokens {
            shared: Arc::new(Service {
                hook,
                version,
                ttl,
                own_audiences,
                key,
                known: Mutex::default(),
                under_way: Mutex::default(),
            }),
        }
    }

    async fn find(&self, token: &str, audiences: &[String]) -> Answer {
        let (metrics, began) = (&shared().credentials, Instant::now());
        let digest = self.shared.digest(token, audiences);
        let known = self.shared.known.lock().get(&digest).cloned();
        if let Some(answer) = known {
            metrics.looked_up(true, began.elapsed());
            return answer;
        }
        let _waits = metrics.waits();
        let asked = {
            let mut under_way = self.shared.under_way.lock();
            let begin = || self.shared.clone().begin(digest, token.to_owned(), audiences.to_vec());
            under_way.entry(digest).or_insert_with(begin).clone()
        };
        let answer = asked.await;
        metrics.looked_up(false, began.elapsed());
        answer
    }
}

impl TokenKind for WebhookTokens {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        Box::pin(async move {
            let found = self.find(token, audiences).await?;
            Ok(found.map(|(user, audiences)| Identity {
                user: user.into(),
                audiences,
                ..Identity::default()
            }))
        })
    }

    fn knows_audiences(&self) -> bool {
        true
    }
}

// === impl Service ===

impl Service {
    /// What the answer is remembered under: the parts with their lengths, so that no two questions look the same.
    fn digest(&self, token: &str, audiences: &[String]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// Asks in a task of its own: whoever waits may go away, and others still want the answer.
    fn begin(self: Arc<Self>, digest: Digest, token: String, audiences: Vec<String>) -> UnderWay {
        let task = tokio::spawn(async move {
            let question = Question { service: self, digest };
            let service = &question.service;
            let going = shared().credentials.fetches();
            let answer = service.ask(&token, &audiences).await;
            shared().credentials.fetched(answer.is_ok());
            drop(going);
            if answer.is_ok() && !service.ttl.is_zero() {
                service.known.lock().put(digest, answer.clone(), service.ttl);
            }
            answer
        });
        let told = task.map(|ended| ended.unwrap_or_else(|_| Err("authentication failed unexpectedly".to_owned())));
        told.boxed().shared()
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Answer {
        let version = match self.version {
            TokenReviewVersion::V1 => "authentication.k8s.io/v1",
            TokenReviewVersion::V1Beta1 => "authentication.k8s.io/v1beta1",
        };
        let review = json!({"kind": "TokenReview", "apiVersion": version, "metadata": {},
            "spec": {"token": token, "audiences": audiences}, "status": {"user": {}}});
        let said = self.hook.ask(&review).await.map_err(|error| error.to_string());
        let said = said.and_then(|said| match said["kind"].as_str().unwrap_or("TokenReview") {
            "TokenReview" => Ok(said),
            other => Err(format!(
                "the answer is of kind {}, not TokenReview",
                api::field::quote(other)
            )),
        });
        let said = said.inspect_err(|error| tracing::error!(%error, "Failed to make webhook authenticator request"))?;
        read(&said["status"], audiences, &self.own_audiences)
    }
}

/// A question that is under way until this is dropped, however it ends.
struct Question {
    service: Arc<Service>,
    digest: Digest,
}

impl Drop for Question {
    fn drop(&mut self) {
        self.service.under_way.lock().remove(&self.digest);
    }
}

/// What a status says of a token that is wanted for these audiences. One that names none speaks of `own`.
pub(crate) fn read(status: &Value, wanted: &[String], own: &[String]) -> Answer {
    let named = status["audiences"].as_array().filter(|named| !named.is_empty());
    let holds = |audience: &&String| match named {
        Some(named) => named.contains(&json!(audience)),
        None => own.contains(audience),
    };
    let audiences: Vec<String> = wanted.iter().filter(holds).cloned().collect();
    if audiences.is_empty() {
        return Ok(None);
    }
    if status["authenticated"] == true {
        return Ok(Some((UserInfo::from_value(&status["user"]), audiences)));
    }
    match status["error"].as_str().unwrap_or("") {
        "" => Ok(None),
        why => Err(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::TIMEOUT;
    use crate::hook::testing::Service as TestService;
    use crate::tokens::ISSUER;

    fn tokens(service: &TestService, ttl: Duration) -> WebhookTokens {
        let random = Random::seeded(1);
        let hook = Hook::new(service.target(), TIMEOUT, Duration::from_millis(1), random.fork()).unwrap();
        WebhookTokens::new(hook, TokenReviewVersion::V1, ttl, vec![ISSUER.to_owned()], &random)
    }

    fn knows(review: &Value) -> Value {
        let status = match review["spec"]["token"].as_str().unwrap() {
            "jane" => json!({"authenticated": true, "user": {"username": "jane", "uid": "1", "groups": ["dev"],
                "extra": {"k": ["v"]}}}),
            "broken" => json!({"authenticated": false, "error": "it was taken back"}),
            _ => json!({"authenticated": false}),
        };
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
    }

    #[tokio::test]
    async fn answers_are_remembered_and_errors_are_not() {
        let service = TestService::start(|_, review| (200, knows(review))).await;
        let tokens = tokens(&service, TOKEN_TTL);
        let own = [ISSUER.to_owned()];
        for _ in 0..2 {
            let jane = tokens.authenticate("jane", &own).await.unwrap().unwrap();
            assert_eq!((&*jane.user.name, &*jane.user.uid), ("jane", "1"));
            assert_eq!(
                (&jane.user.groups[..], &jane.user.extra["k"][..]),
                (&["dev".to_owned()][..], &["v".to_owned()][..])
            );
            assert_eq!(jane.audiences, own);
            assert_eq!(tokens.authenticate("joe", &own).await, Ok(None));
        }
        assert_eq!(service.asked().len(), 2);
        let asked = &service.asked()[0];
        assert_eq!(asked["apiVersion"], "authentication.k8s.io/v1");
        assert_eq!(asked["spec"], json!({"token": "jane", "audiences": [ISSUER]}));
        for _ in 0..2 {
            assert_eq!(
                tokens.authenticate("broken", &own).await,
                Err("it was taken back".to_owned().into())
            );
        }
        assert_eq!(service.asked().len(), 4);
        // Another audience is another question.
        assert_eq!(tokens.authenticate("jane", &["vault".to_owned()]).await, Ok(None));
        assert_eq!(service.asked().len(), 5);
    }

    #[tokio::test]
    async fn the_same_question_is_asked_once_at_a_time() {
        let service = TestService::start(|_, review| (200, knows(review))).await;
        let (tokens, own) = (tokens(&service, Duration::ZERO), [ISSUER.to_owned()]);
        let all = futures::future::join_all((0..8).map(|_| tokens.authenticate("jane", &own))).await;
        assert!(all.into_iter().all(|found| found.is_ok_and(|found| found.is_some())));
        assert_eq!(service.asked().len(), 1);
        // Nothing is remembered, and nothing is left of what was under way.
        assert!(tokens.authenticate("jane", &own).await.unwrap().is_some());
        assert_eq!(service.asked().len(), 2);
        assert!(tokens.shared.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn who_does_not_answer_makes_nobody() {
        for (status, body, expect) in [
            (403, json!({"message": "go away"}), "403: go away"),
            (
                200,
                json!({"kind": "Status"}),
                "the answer is of kind \"Status\", not TokenReview",
            ),
        ] {
            let service = TestService::start(move |_, _| (status, body.clone())).await;
            let refused = tokens(&service, TOKEN_TTL)
                .authenticate("jane", &[ISSUER.to_owned()])
                .await;
            assert!(
                refused.clone().is_err_and(|refusal| refusal.why.ends_with(expect)),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn audiences_have_something_in_common() {
        let known =
            |audiences: Value| json!({"authenticated": true, "user": {"username": "a"}, "audiences": audiences});
        for (audiences, wanted, expect) in [
            (json!(null), vec![ISSUER, "x"], Some(vec![ISSUER])),
            (json!([]), vec!["x"], None),
            (json!(["x", "y"]), vec![ISSUER, "x"], Some(vec!["x"])),
            (json!(["y"]), vec![ISSUER, "x"], None),
        ] {
            let wanted: Vec<String> = wanted.into_iter().map(str::to_owned).collect();
            let got = read(&known(audiences.clone()), &wanted, &[ISSUER.to_owned()])
                .unwrap()
                .map(|(_, audiences)| audiences);
            assert_eq!(
                got,
                expect.map(|all| all.into_iter().map(str::to_owned).collect()),
                "{audiences} {wanted:?}"
            );
        }
    }
}
