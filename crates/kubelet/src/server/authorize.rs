//! Who may ask what: the client's certificate names a user, the API server decides.
//!
//! Source: `pkg/kubelet/server/auth.go`: paths are subresources of the node; what has a finer name may be allowed by that
//! or by `nodes/proxy`.

use std::collections::HashMap;
use std::time::Duration;

use client::{Client, resources};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A yes is remembered that long. Source: `authorization.webhook.cacheAuthorizedTTL` of the kubelet's configuration.
const ALLOWED_FOR: Duration = Duration::from_secs(5 * 60);
/// A no is remembered that long (`cacheUnauthorizedTTL`).
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Past so many verdicts all are forgotten: a node has a handful of clients.
const VERDICTS_MAX: usize = 1024;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The common name of the certificate.
    pub name: String,
    /// Its organizations.
    pub groups: Vec<String>,
}

/// Decides who may ask what.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether the user may do this to a subresource of the node (`healthz`, `pods`, `metrics`, `stats`, `proxy`).
    fn allows<'a>(&'a self, user: &'a User, verb: &'static str, subresource: &'static str) -> BoxFuture<'a, bool>;
}

/// The user of a verified certificate.
pub(super) fn user_of(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned)
        .collect();
    (!name.is_empty()).then_some(User { name, groups })
}

type Question = (User, &'static str, &'static str);

/// Asks the API server (SubjectAccessReview) and remembers the verdicts for a while.
pub struct ReviewAuthorizer {
    client: Client,
    node: String,
    verdicts: Mutex<HashMap<Question, (bool, Instant)>>,
}

// === impl ReviewAuthorizer ===

impl ReviewAuthorizer {
    /// An authorizer for the subresources of this node.
    pub fn new(client: Client, node: impl Into<String>) -> ReviewAuthorizer {
        ReviewAuthorizer {
            client,
            node: node.into(),
            verdicts: Mutex::default(),
        }
    }

    async fn ask(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, client::Error> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": with_authenticated(&user.groups),
                "resourceAttributes": {
                    "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": self.node,
                },
            },
        });
        let answer = self
            .client
            .create_in(&resources::SUBJECT_ACCESS_REVIEWS, "", &review)
            .await?;
        Ok(answer["status"]["allowed"].as_bool().unwrap_or(false))
    }
}

/// Whoever showed a certificate is authenticated, as the API server would say.
fn with_authenticated(groups: &[String]) -> Vec<&str> {
    const AUTHENTICATED: &str = "system:authenticated";
    let mut all: Vec<&str> = groups.iter().map(String::as_str).collect();
    if !all.contains(&AUTHENTICATED) {
        all.push(AUTHENTICATED);
    }
    all
}

impl Authorizer for ReviewAuthorizer {
    fn allows<'a>(&'a self, user: &'a User, verb: &'static str, subresource: &'static str) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let question = (user.clone(), verb, subresource);
            let now = Instant::now();
            if let Some((verdict, until)) = self.verdicts.lock().get(&question)
                && now < *until
            {
                return *verdict;
            }
            let verdict = match self.ask(user, verb, subresource).await {
                Ok(verdict) => verdict,
                Err(error) => {
                    // Not remembered: the API server may be back with the next request.
                    tracing::warn!(user = user.name, verb, subresource, %error, "the request cannot be authorized");
                    return false;
                }
            };
            let mut verdicts = self.verdicts.lock();
            if verdicts.len() >= VERDICTS_MAX {
                verdicts.clear();
            }
            verdicts.insert(
                question,
                (verdict, now + if verdict { ALLOWED_FOR } else { DENIED_FOR }),
            );
            verdict
        })
    }
}
