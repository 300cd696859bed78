//! From a bearer token to a service account, as long as all that the token is bound to lives.
//!
//! Source of the rules: `pkg/serviceaccount/claims.go` (`validator.Validate`).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Claims, ISSUER, JwtError, Reference, Signer};

/// How long a token of a pod or an account that is being deleted is still taken, in seconds.
const DELETION_LEEWAY_SECONDS: i64 = 60;
/// How far our clock may be off, in seconds.
const CLOCK_LEEWAY_SECONDS: i64 = 60;

/// Looks at the objects a token is bound to. Reads the replica, never the pipeline.
pub trait BoundObjects: Send + Sync {
    /// The uid and, in seconds since 1970, the deletion timestamp of an object of the core group; `None` when absent.
    /// The namespace is empty for nodes.
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<(String, Option<i64>)>;
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// The token is not one of ours: another authenticator may know it.
    #[error("the token was not issued by this cluster")]
    NotOurs,
    /// The token is malformed or its signature is wrong.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// The token's time is over, or not yet come.
    #[error("service account token has expired")]
    Expired,
    /// The token is for somebody else.
    #[error("the token's audiences {0:?} are none of those that are accepted")]
    Audience(Vec<String>),
    /// An object the token is bound to is gone, or another one of the same name.
    #[error("service account token has been invalidated")]
    Invalidated,
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
}

/// Verifies tokens against one signer and the objects they are bound to.
pub struct TokenAuthenticator {
    signer: Arc<Signer>,
    objects: Arc<dyn BoundObjects>,
}

// === impl TokenAuthenticator ===

impl TokenAuthenticator {
    /// An authenticator for the tokens of that signer.
    pub fn new(signer: Arc<Signer>, objects: Arc<dyn BoundObjects>) -> TokenAuthenticator {
        TokenAuthenticator { signer, objects }
    }

    /// The account that a token speaks for. `audiences` is empty for the API server's own.
    ///
    /// # Errors
    /// Why the token is refused.
    pub fn authenticate(&self, token: &str, audiences: &[String], now: Timestamp) -> Result<Identity, TokenError> {
        let claims = self.signer.verify(token).map_err(|error| match error {
            JwtError::Malformed | JwtError::UnknownKey => TokenError::NotOurs,
            other => TokenError::Jwt(other),
        })?;
        if claims.issuer != ISSUER {
            return Err(TokenError::NotOurs);
        }
        let now = now.as_second();
        if now > claims.expires + CLOCK_LEEWAY_SECONDS || now + CLOCK_LEEWAY_SECONDS < claims.not_before {
            return Err(TokenError::Expired);
        }
        let accepted = accepted_audiences(&claims, audiences);
        if accepted.is_empty() {
            return Err(TokenError::Audience(claims.audiences.clone()));
        }
        self.check_objects(&claims, now)?;
        Ok(Identity {
            stale_seconds: claims.kubernetes.warn_after.map(|after| now - after),
            ..identity(&claims, accepted)
        })
    }

    fn check_objects(&self, claims: &Claims, now: i64) -> Result<(), TokenError> {
        let own = &claims.kubernetes;
        let namespace = &*own.namespace;
        let subject = format!("system:serviceaccount:{namespace}:{}", own.account.name);
        if claims.subject != subject {
            return Err(TokenError::Invalidated);
        }
        self.check("serviceaccounts", namespace, &own.account, now)?;
        if let Some(secret) = &own.secret {
            self.check("secrets", namespace, secret, now)?;
        }
        if let Some(pod) = &own.pod {
            self.check("pods", namespace, pod, now)?;
        }
        // A node claim beside a pod only tells where the pod runs; alone it is what the token is bound to.
        match &own.node {
            Some(node) if own.pod.is_none() && own.secret.is_none() => self.check("nodes", "", node, now),
            _ => Ok(()),
        }
    }

    fn check(&self, resource: &str, namespace: &str, bound: &Reference, now: i64) -> Result<(), TokenError> {
        match self.objects.find(resource, namespace, &bound.name) {
            Some((uid, deletion)) if uid == bound.uid => match deletion {
                Some(at) if now > at + DELETION_LEEWAY_SECONDS => Err(TokenError::Invalidated),
                _ => Ok(()),
            },
            _ => Err(TokenError::Invalidated),
        }
    }
}

fn accepted_audiences(claims: &Claims, wanted: &[String]) -> Vec<String> {
    let own = [ISSUER.to_owned()];
    let wanted = if wanted.is_empty() { &own[..] } else { wanted };
    wanted
        .iter()
        .filter(|audience| claims.audiences.contains(audience))
        .cloned()
        .collect()
}

fn identity(claims: &Claims, audiences: Vec<String>) -> Identity {
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
        uid: own.account.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", own.namespace),
        ],
        extra,
        audiences,
        stale_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULT_EXPIRATION_SECONDS, TokenBinding, TokenRequest, WARN_ONLY_SECONDS, issue};
    use super::*;
    use base::random::Random;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Objects(Mutex<BTreeMap<String, (String, Option<i64>)>>);

    impl BoundObjects for Objects {
        fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<(String, Option<i64>)> {
            self.0.lock().get(&format!("{resource}/{namespace}/{name}")).cloned()
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
        let foreign = issue(&self::signer(2), request(false, 3600, &[]), at(0)).unwrap().token;
        assert_eq!(
            authenticator.authenticate(&foreign, &[], at(1)),
            Err(TokenError::NotOurs)
        );
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
        assert!(matches!(
            authenticator.authenticate(&token, &[], at(1)),
            Err(TokenError::Audience(_))
        ));
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
}
