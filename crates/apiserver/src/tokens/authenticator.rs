//! From a bearer token to a service account, as long as all that the token is bound to lives.
//!
//! Source of the rules: `pkg/serviceaccount/claims.go` (`validator.Validate`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Value;
use jiff::Timestamp;

use super::legacy::{self, Lookup, SecretToken};
use super::tracking::UsedSecrets;
use super::{Claims, JwtError, Reference, Signer};

/// How long a token of a pod or an account that is being deleted is still taken, in seconds.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// How far our clock may be off, in seconds.
const CLOCK_LEEWAY_SECONDS: i64 = 60;

/// Looks at the objects a token is bound to. Reads the replica, never the pipeline.
pub trait BoundObjects: Send + Sync {
    /// The uid and, in seconds since 1970, the deletion timestamp of an object of the core group; `None` when absent.
    /// The namespace is empty for nodes.
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<(String, Option<i64>)>;

    /// A whole object of the core group, for tokens that a Secret has to hold; `None` when absent.
    fn read(&self, resource: &str, namespace: &str, name: &str) -> Option<Value>;
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// The token is not one of ours: another authenticator may know it.
    #[error("the token was not issued by this cluster")]
    NotOurs,
    /// The token's signature is wrong, or nobody's.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The token's time is over.
    #[error("service account token has expired")]
    Expired,
    /// The token's time is not yet come.
    #[error("service account token is not valid yet")]
    NotYetValid,
    /// The token says that it was made later than now.
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
    /// The token is for somebody else.
    #[error("token audiences {} is invalid for the target audiences {}", quoted(.token), quoted(.target))]
    Audience {
        /// Whom it is for.
        token: Vec<String>,
        /// Who asked.
        target: Vec<String>,
    },
    /// An object the token is bound to is gone.
    #[error("service account token has been invalidated")]
    Invalidated,
    /// The token was withdrawn, but its Secret is still there.
    #[error("{why}")]
    Withdrawn {
        /// The Secret that holds it, as upstream tells it: `NAME/NAMESPACE`.
        secret: String,
        /// What is wrong.
        why: String,
    },
    /// It does not fit what is there.
    #[error("{0}")]
    Refused(String),
}

/// A list as Go quotes it.
fn quoted(list: &[String]) -> String {
    let words: Vec<String> = list.iter().map(|word| api::field::quote(word)).collect();
    format!("[{}]", words.join(" "))
}

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The account's uid.
    pub uid: String,
    /// `system:serviceaccounts` and `system:serviceaccounts:NAMESPACE`.
    pub groups: Vec<String>,
    /// Where the credential comes from.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Those audiences of the token that were asked for.
    pub audiences: Vec<String>,
    /// How many seconds ago the token should have been replaced (upstream's `warnafter`); negative: in how many.
    pub stale_seconds: Option<i64>,
    /// Whether the token names no audiences: it is of the time before they did.
    pub is_legacy: bool,
    /// How the token came into the Secret that holds it, when one has to.
    pub secret: Option<SecretToken>,
}

/// Verifies tokens against one signer and the objects they are bound to.
pub struct TokenAuthenticator {
    signer: Arc<Signer>,
    objects: Arc<dyn BoundObjects>,
    used: Option<UsedSecrets>,
}

// === impl TokenAuthenticator ===

impl TokenAuthenticator {
    /// An authenticator for the tokens of that signer.
    pub fn new(signer: Arc<Signer>, objects: Arc<dyn BoundObjects>) -> TokenAuthenticator {
        TokenAuthenticator {
            signer,
            objects,
            used: None,
        }
    }

    /// The same, which tells of the Secrets whose tokens are used.
    pub fn with_used(self, used: &UsedSecrets) -> TokenAuthenticator {
        TokenAuthenticator {
            used: Some(used.clone()),
            ..self
        }
    }

    /// Whether a token that was refused because nobody knew its key may be asked about once more: see
    /// [`TokenAuthenticator::finds_key_of`].
    pub fn may_find_key(&self, error: &TokenError) -> bool {
        *error == TokenError::Jwt(JwtError::UnknownKey) && self.signer.is_external()
    }

    /// Asks the external signer for its keys. Whether that of the token is among them now.
    pub async fn finds_key_of(&self, token: &str) -> bool {
        self.signer.finds_key_of(token).await
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.signer.settings().audiences
    }

    /// The account that a token speaks for. `audiences` is empty for the API server's own.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn authenticate(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Identity, TokenError> {
        let claims = self.signer.verify(token).map_err(|error| match error {
            JwtError::Malformed | JwtError::Issuer => TokenError::NotOurs,
            other => TokenError::Jwt(other),
        })?;
        let own = self.audiences();
        // Tokens of the time before audiences are for the API server alone.
        let is_legacy = claims.audiences.is_empty();
        let token_audiences = if is_legacy { own } else { &claims.audiences[..] };
        let wanted = if audiences.is_empty() { own } else { audiences };
        let accepted: Vec<String> = wanted
            .iter()
            .filter(|one| token_audiences.contains(one))
            .cloned()
            .collect();
        if accepted.is_empty() {
            return Err(TokenError::Audience {
                token: token_audiences.to_vec(),
                target: wanted.to_vec(),
            });
        }
        let lookup = self.signer.settings().lookup.then(|| Lookup {
            objects: &*self.objects,
            used: self.used.as_ref(),
            now,
        });
        if let Some(legacy) = &claims.legacy {
            let secret = legacy::check(token, &claims, legacy, lookup.as_ref())?;
            let of_account = Claims {
                subject: claims.subject.clone(),
                ..Claims::default()
            };
            let mut identity = identity(&of_account, &legacy.namespace, &legacy.account_uid, accepted);
            (identity.is_legacy, identity.secret) = (is_legacy, Some(secret));
            return Ok(identity);
        }
        let now = now.as_second();
        check_times(&claims, now)?;
        self.check_objects(&claims, now)?;
        let account = &claims.kubernetes;
        let secret = match &lookup {
            Some(lookup) => legacy::held(token, account, lookup)?,
            None => None,
        };
        Ok(Identity {
            stale_seconds: account.warn_after.map(|after| now - after),
            is_legacy,
            secret,
            ..identity(&claims, &account.namespace, &account.account.uid, accepted)
        })
    }

    fn check_objects(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        let own = &claims.kubernetes;
        let namespace = &*own.namespace;
        let account = &own.account.name;
        if claims.subject != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(TokenError::Invalidated);
        }
        let refused = |why: String| Err(TokenError::Refused(why));
        match self.objects.find("serviceaccounts", namespace, account) {
            None => return refused(format!("serviceaccounts {account:?} not found")),
            Some((uid, _)) if uid != own.account.uid => {
                let claimed = &own.account.uid;
                return refused(format!("service account UID ({uid}) does not match claim ({claimed})"));
            }
            Some((_, deletion)) if is_over(deletion, now) => {
                return refused(format!("service account {namespace}/{account} has been deleted"));
            }
            Some(_) => {}
        }
        if let Some(secret) = &own.secret {
            self.check("secret", namespace, secret, now)?;
        }
        match (&own.pod, &own.node) {
            (Some(pod), _) => self.check("pod", namespace, pod, now),
            // A node claim beside a pod only tells where the pod runs; alone it is what the token is bound to.
            (None, Some(node)) => self.check("node", "", node, now),
            (None, None) => Ok(()),
        }
    }

    fn check(&self, kind: &str, namespace: &str, bound: &Reference, now: i64) -> Result<(), TokenError> {
        match self.objects.find(&format!("{kind}s"), namespace, &bound.name) {
            Some((uid, _)) if uid != bound.uid => {
                let claimed = &bound.uid;
                Err(TokenError::Refused(format!(
                    "{kind} UID ({uid}) does not match service account {kind} ref claim ({claimed})"
                )))
            }
            Some((_, deletion)) if !is_over(deletion, now) => Ok(()),
            _ => Err(TokenError::Invalidated),
        }
    }
}

/// Whether something was deleted so long ago that nothing of it counts.
fn is_over(deletion: Option<i64>, now: i64) -> bool {
    deletion.is_some_and(|at| now > at.saturating_add(DELETION_LEEWAY_SECONDS))
}

fn check_times(claims: &Claims, now: i64) -> Result<(), TokenError> {
    let early = now + CLOCK_LEEWAY_SECONDS;
    if claims.not_before.is_some_and(|begin| early < begin) {
        return Err(TokenError::NotYetValid);
    }
    if claims.expires.is_some_and(|end| now - CLOCK_LEEWAY_SECONDS > end) {
        return Err(TokenError::Expired);
    }
    match claims.issued_at {
        Some(made) if early < made => Err(TokenError::IssuedInTheFuture),
        _ => Ok(()),
    }
}

fn identity(claims: &Claims, namespace: &str, uid: &str, audiences: Vec<String>) -> Identity {
    let own = &claims.kubernetes;
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if !claims.id.is_empty() {
        tell("credential-id", &format!("JTI={}", claims.id));
    }
    if let Some(pod) = &own.pod {
        tell("pod-name", &pod.name);
        tell("pod-uid", &pod.uid);
    }
    if let Some(node) = &own.node {
        tell("node-name", &node.name);
        tell("node-uid", &node.uid);
    }
    Identity {
        user: claims.subject.clone(),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{namespace}"),
        ],
        extra,
        audiences,
        stale_seconds: None,
        is_legacy: false,
        secret: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        DEFAULT_EXPIRATION_SECONDS, SigningKey, TokenBinding, TokenRequest, TokenSettings, WARN_ONLY_SECONDS, issue,
    };
    use super::*;
    use base::random::Random;
    use base64::Engine as _;
    use parking_lot::Mutex;
    use serde_json::json;

    #[derive(Default)]
    struct Objects(
        Mutex<BTreeMap<String, (String, Option<i64>)>>,
        Mutex<BTreeMap<String, Value>>,
    );

    impl BoundObjects for Objects {
        fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<(String, Option<i64>)> {
            self.0.lock().get(&format!("{resource}/{namespace}/{name}")).cloned()
        }

        fn read(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
            self.1.lock().get(&format!("{resource}/{namespace}/{name}")).cloned()
        }
    }

    fn signer(seed: u64) -> Arc<Signer> {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        Arc::new(Signer::from_pem(&key, Random::seeded(seed)).unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn reference(name: &str, uid: &str) -> Reference {
        Reference {
            name: name.into(),
            uid: uid.into(),
        }
    }

    fn request(pod: bool, expiration_seconds: i64, audiences: &[&str]) -> TokenRequest<'static> {
        let pod = pod.then(|| reference("web", "p1"));
        TokenRequest {
            namespace: "ns",
            account: reference("builder", "a1"),
            bound_to: TokenBinding {
                pod,
                ..TokenBinding::default()
            },
            audiences: audiences.iter().map(|a| a.to_string()).collect(),
            expiration_seconds,
        }
    }

    fn world() -> (Arc<Signer>, Arc<Objects>, TokenAuthenticator) {
        let (signer, objects) = (signer(1), Arc::new(Objects::default()));
        objects
            .0
            .lock()
            .insert("serviceaccounts/ns/builder".into(), ("a1".into(), None));
        objects.0.lock().insert("pods/ns/web".into(), ("p1".into(), None));
        let authenticator = TokenAuthenticator::new(signer.clone(), objects.clone());
        (signer, objects, authenticator)
    }

    #[test]
    fn a_token_speaks_for_its_account() {
        let (signer, _, authenticator) = world();
        let issued = issue(&signer, request(true, DEFAULT_EXPIRATION_SECONDS, &[]), at(0)).unwrap();
        assert_eq!(issued.expires, at(3600));
        let identity = authenticator.authenticate(&issued.token, &[], at(10)).unwrap();
        assert_eq!(identity.user, "system:serviceaccount:ns:builder");
        assert_eq!(identity.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
        assert_eq!(identity.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert_eq!(
            authenticator.authenticate(&issued.token, &[], at(3600 + 61)),
            Err(TokenError::Expired)
        );
    }

    #[test]
    fn a_token_dies_with_what_it_is_bound_to() {
        let (signer, objects, authenticator) = world();
        let token = issue(&signer, request(true, 3600, &[]), at(0)).unwrap().token;
        let check = |key: &str, value: Option<(&str, Option<i64>)>, ok: bool| {
            let old = match value {
                Some((uid, deletion)) => objects.0.lock().insert(key.into(), (uid.into(), deletion)),
                None => objects.0.lock().remove(key),
            };
            assert_eq!(
                authenticator.authenticate(&token, &[], at(100)).is_ok(),
                ok,
                "{key} {value:?}"
            );
            objects.0.lock().insert(key.into(), old.unwrap());
        };
        check("pods/ns/web", None, false);
        check("pods/ns/web", Some(("p2", None)), false);
        check("pods/ns/web", Some(("p1", Some(at(50).as_second()))), true);
        check("pods/ns/web", Some(("p1", Some(at(30).as_second()))), false);
        check("serviceaccounts/ns/builder", None, false);
        check("serviceaccounts/ns/builder", Some(("a2", None)), false);
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        let (signer, _, authenticator) = world();
        let token = issue(&signer, request(false, 3600, &[]), at(0)).unwrap().token;
        // Another cluster calls itself the same.
        let foreign = issue(&self::signer(2), request(false, 3600, &[]), at(0)).unwrap().token;
        let refused = authenticator.authenticate(&foreign, &[], at(1));
        assert_eq!(refused, Err(TokenError::Jwt(JwtError::UnknownKey)));
        for bad in ["", "a.b", "a.b.c", "....", &token[..token.len() - 9]] {
            assert!(authenticator.authenticate(bad, &[], at(1)).is_err(), "{bad}");
        }
        // A signature over other claims.
        let other = issue(&signer, request(true, 3600, &[]), at(0)).unwrap().token;
        let (claims, signature) = (token.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
        let forged = format!("{claims}.{signature}");
        assert_eq!(
            authenticator.authenticate(&forged, &[], at(1)),
            Err(TokenError::Jwt(JwtError::Signature))
        );
    }

    #[test]
    fn audiences_are_kept_apart() {
        let (signer, _, authenticator) = world();
        let token = issue(&signer, request(false, 3600, &["vault"]), at(0)).unwrap().token;
        let refused = authenticator.authenticate(&token, &[], at(1)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "token audiences [\"vault\"] is invalid for the target audiences \
             [\"https://kubernetes.default.svc.cluster.local\"]"
        );
        let identity = authenticator
            .authenticate(&token, &["vault".into(), "x".into()], at(1))
            .unwrap();
        assert_eq!(identity.audiences, ["vault"]);
    }

    #[test]
    fn the_kubelets_tokens_outlive_what_they_tell() {
        let (signer, _, authenticator) = world();
        let issued = issue(&signer, request(true, WARN_ONLY_SECONDS, &[]), at(0)).unwrap();
        assert_eq!(issued.expires, at(WARN_ONLY_SECONDS));
        for (seconds, stale) in [(10, 10 - WARN_ONLY_SECONDS), (86_400, 86_400 - WARN_ONLY_SECONDS)] {
            let identity = authenticator.authenticate(&issued.token, &[], at(seconds)).unwrap();
            assert_eq!(identity.stale_seconds, Some(stale));
        }
        let claims = signer.verify(&issued.token).unwrap();
        assert_eq!(claims.kubernetes.warn_after, Some(at(WARN_ONLY_SECONDS).as_second()));
    }

    #[test]
    fn the_key_set_holds_the_public_key_only() {
        let set = signer(1).key_set();
        let key = &set["keys"][0];
        assert_eq!(
            (key["crv"].as_str(), key["alg"].as_str()),
            (Some("P-256"), Some("ES256"))
        );
        assert!(key.get("d").is_none());
    }

    #[test]
    fn times_are_looked_at_with_some_leeway() {
        let (signer, objects, authenticator) = world();
        let issued = issue(&signer, request(false, 3600, &[]), at(0)).unwrap().token;
        let good = signer.verify(&issued).unwrap();
        for (expires, not_before, issued_at, expect) in [
            (None, None, None, Ok(())),
            (Some(-60), None, None, Ok(())),
            (Some(-61), None, None, Err(TokenError::Expired)),
            (None, Some(60), Some(60), Ok(())),
            (None, Some(61), None, Err(TokenError::NotYetValid)),
            (None, None, Some(61), Err(TokenError::IssuedInTheFuture)),
            (Some(i64::MAX), Some(i64::MIN), None, Ok(())),
        ] {
            let time = |seconds: Option<i64>| seconds.map(|seconds| at(0).as_second().saturating_add(seconds));
            let claims = Claims {
                expires: time(expires),
                not_before: time(not_before),
                issued_at: time(issued_at),
                ..(*good).clone()
            };
            let token = signer.sign(&claims).unwrap();
            let found = authenticator.authenticate(&token, &[], at(0)).map(drop);
            assert_eq!(found, expect, "{expires:?} {not_before:?} {issued_at:?}");
        }
        drop(objects);
    }

    #[test]
    fn the_issuers_audiences_and_lives_are_those_that_are_set() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let key = || SigningKey::from_pem(&key).unwrap();
        let settings = |issuers: &[&str]| TokenSettings {
            issuers: issuers.iter().map(|issuer| (*issuer).to_owned()).collect(),
            audiences: vec!["api".into(), "front".into()],
            extend: false,
            ..TokenSettings::default()
        };
        let make = |issuers: &[&str]| {
            let taken = vec![key().verifying()];
            Arc::new(Signer::new(key(), taken, settings(issuers), Random::seeded(1)))
        };
        let (before, now, never) = (make(&["old"]), make(&["new", "old"]), make(&["else"]));
        let (_, objects, _) = world();
        let authenticator = TokenAuthenticator::new(now.clone(), objects);
        let token = |signer: &Signer| {
            issue(signer, request(true, WARN_ONLY_SECONDS, &[]), at(0))
                .unwrap()
                .token
        };
        for signer in [&before, &now] {
            let identity = authenticator
                .authenticate(&token(signer), &["front".into()], at(1))
                .unwrap();
            assert_eq!(
                (identity.audiences, identity.stale_seconds),
                (vec!["front".to_owned()], None)
            );
        }
        let claims = now.verify(&token(&now)).unwrap();
        assert_eq!(
            (&*claims.issuer, &claims.audiences[..]),
            ("new", &["api".to_owned(), "front".to_owned()][..])
        );
        assert_eq!(claims.expires, Some(at(WARN_ONLY_SECONDS).as_second()));
        let refused = authenticator.authenticate(&token(&never), &[], at(1));
        assert_eq!(refused, Err(TokenError::NotOurs));
    }

    #[test]
    fn a_token_of_a_secret_lives_with_it() {
        let (signer, objects, authenticator) = world();
        let used = UsedSecrets::default();
        let authenticator = authenticator.with_used(&used);
        let claims = json!({
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ns:builder",
            "kubernetes.io/serviceaccount/namespace": "ns",
            "kubernetes.io/serviceaccount/secret.name": "builder-token",
            "kubernetes.io/serviceaccount/service-account.name": "builder",
            "kubernetes.io/serviceaccount/service-account.uid": "a1",
        });
        let token = signer.sign_text(&claims.to_string()).unwrap();
        let put = |secret: Value, account: Value| {
            let mut all = objects.1.lock();
            all.insert("secrets/ns/builder-token".into(), secret);
            all.insert("serviceaccounts/ns/builder".into(), account);
        };
        let held = base64::engine::general_purpose::STANDARD.encode(&token);
        let secret = |more: Value| {
            let mut secret =
                json!({"metadata": {"name": "builder-token", "namespace": "ns", "uid": "s1"}, "data": {"token": held}});
            let metadata = secret["metadata"].as_object_mut().unwrap();
            metadata.extend(more.as_object().unwrap().clone());
            secret
        };
        let account = |secrets: Value| json!({"metadata": {"name": "builder", "uid": "a1"}, "secrets": secrets});
        let ask = |token: &str| {
            authenticator
                .authenticate(token, &[], at(100))
                .map_err(|error| error.to_string())
        };

        assert_eq!(ask(&token), Err("Token has been invalidated".into()));
        put(secret(json!({})), account(json!([])));
        let identity = ask(&token).unwrap();
        assert_eq!(identity.secret, Some(SecretToken::Manual("builder-token".into())));
        assert_eq!(
            (&*identity.user, &*identity.uid, identity.is_legacy),
            ("system:serviceaccount:ns:builder", "a1", true)
        );
        put(secret(json!({})), account(json!([{"name": "builder-token"}])));
        assert_eq!(
            ask(&token).unwrap().secret,
            Some(SecretToken::Automatic("builder-token".into()))
        );
        let other = authenticator.authenticate(&token, &["vault".into()], at(100));
        assert!(matches!(other, Err(TokenError::Audience { .. })), "{other:?}");
        assert_eq!(used.len(), 1, "it is to be labelled, once");

        let marked = json!({"labels": {"kubernetes.io/legacy-token-invalid-since": "2030-01-01"}});
        let deleted = json!({"deletionTimestamp": "2030-01-01T00:00:00Z"});
        for (secret, account, expect) in [
            (
                secret(marked),
                account(json!([])),
                "the token in secret ns/builder-token for service account ns/builder has been marked invalid. Use tokens from the \
                 TokenRequest API or manually created secret-based tokens, or remove the \
                 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token",
            ),
            (secret(deleted), account(json!([])), "Token has been invalidated"),
            (
                json!({"data": {"token": "QQ=="}}),
                account(json!([])),
                "Token does not match server's copy",
            ),
            (
                secret(json!({})),
                json!({"metadata": {"uid": "a2"}}),
                "ServiceAccount UID (a2) does not match claim (a1)",
            ),
        ] {
            put(secret, account);
            let refused = ask(&token).unwrap_err();
            assert!(refused.contains(expect), "{refused}");
        }
        let mut nameless = claims.clone();
        nameless["kubernetes.io/serviceaccount/secret.name"] = "".into();
        let nameless = signer.sign_text(&nameless.to_string()).unwrap();
        assert_eq!(ask(&nameless), Err("secretName claim is missing".into()));
    }

    #[test]
    fn our_own_token_of_a_secret_is_followed_where_the_secret_holds_it() {
        let (signer, objects, authenticator) = world();
        let used = UsedSecrets::default();
        let authenticator = authenticator.with_used(&used);
        let mut wanted = request(false, 3600, &[]);
        wanted.bound_to.secret = Some(reference("builder-token", "s1"));
        let token = issue(&signer, wanted, at(0)).unwrap().token;
        let uids = [("secrets/ns/builder-token", "s1"), ("serviceaccounts/ns/builder", "a1")];
        for (key, uid) in uids {
            objects.0.lock().insert(key.into(), (uid.into(), None));
        }
        let held = base64::engine::general_purpose::STANDARD.encode(&token);
        let account = json!({"metadata": {"name": "builder", "uid": "a1"}});
        objects.1.lock().insert("serviceaccounts/ns/builder".into(), account);
        let own = "kubernetes.io/service-account-token";
        let manual = Some(SecretToken::Manual("builder-token".into()));
        for (kind, data, labels, expect) in [
            ("Opaque", &*held, json!({}), Ok(None)),
            (own, "QQ==", json!({}), Ok(None)),
            (
                own,
                &held,
                json!({"kubernetes.io/legacy-token-last-used": "1999-01-01"}),
                Ok(manual),
            ),
            (
                own,
                &held,
                json!({"kubernetes.io/legacy-token-invalid-since": "1999-01-01"}),
                Err("builder-token/ns".to_owned()),
            ),
        ] {
            let metadata = json!({"name": "builder-token", "namespace": "ns", "uid": "s1", "labels": labels});
            let secret = json!({"metadata": metadata, "type": kind, "data": {"token": data}});
            objects.1.lock().insert("secrets/ns/builder-token".into(), secret);
            let found = authenticator.authenticate(&token, &[], at(1));
            let found = found.map(|identity| identity.secret).map_err(|error| match error {
                TokenError::Withdrawn { secret, .. } => secret,
                other => other.to_string(),
            });
            assert_eq!(found, expect, "{kind} {labels}");
        }
        assert_eq!(used.len(), 1);
    }
}
