//! The traits of authentication and authorization. The implementations live in `src/authentication`,
//! `src/authorization` and `src/tokens`; the pipeline knows only these.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use api::{Status, Value};

use crate::cluster::Object;
use crate::request::{Attributes, UserInfo};

/// What a connection and a request bring along to prove who they are.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// The client's certificate chain (DER, leaf first) after the TLS handshake; empty when it sent none. The handshake
    /// accepts any chain: whether to trust it is the authenticator's verdict.
    pub peer_certificates: &'a [rustls::pki_types::CertificateDer<'static>],
    /// The request's headers (`Authorization`, `Sec-WebSocket-Protocol`).
    pub headers: &'a http::HeaderMap,
    /// Where the connection comes from, when it is one.
    pub remote: Option<SocketAddr>,
}

/// Who somebody turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user, shared with whoever remembers the credential.
    pub user: Arc<UserInfo>,
    /// The audiences for which the credential holds; empty when it is bound to none.
    pub audiences: Vec<String>,
    /// What is told of the credential.
    pub told: Told,
}

/// What is told of a credential beside whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// To the audit log: annotations.
    pub notes: Vec<(&'static str, String)>,
    /// To whoever used it: texts of the `Warning` header.
    pub warnings: Vec<String>,
}

/// Why credentials are wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// For the log, and for whoever reviews a token.
    pub why: String,
    /// What is told nevertheless.
    pub told: Told,
}

/// Finds out who asks.
pub trait Authenticator: Send + Sync {
    /// The identity that the credentials prove. `Ok(None)`: there are none (the request is anonymous);
    /// `Err`: there are some and they are wrong (401, the reason goes into the log only).
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Option<Identity>, Refusal>>;

    /// The identity that a bearer token proves, for TokenReview. Empty `audiences` means the API server's own.
    fn authenticate_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>>;

    /// Removes from a request whose sender is known what proved it, and what only a trusted proxy may say.
    fn clear(&self, headers: &mut http::HeaderMap) {
        crate::authentication::clear_standard(headers);
    }
}

// === impl Told ===

impl Told {
    /// Adds what another credential of the same request had to tell.
    pub fn add(&mut self, other: Told) {
        self.notes.extend(other.notes);
        self.warnings.extend(other.warnings);
    }
}

// === impl Refusal ===

impl From<String> for Refusal {
    fn from(why: String) -> Refusal {
        Refusal {
            why,
            told: Told::default(),
        }
    }
}

/// Which requests without credentials are let in, as `system:anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// All of them; what they may is for the authorizer to say.
    #[default]
    Everywhere,
    /// Those that ask for one of these paths, exactly.
    Paths(BTreeSet<String>),
    /// None.
    Nowhere,
}

impl Anonymous {
    /// Whether a request for that path is let in.
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::Everywhere => true,
            Anonymous::Paths(paths) => paths.contains(path),
            Anonymous::Nowhere => false,
        }
    }
}

/// The verdict of one authorizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why.
    Allow(String),
    /// No, whatever others say, and why.
    Deny(String),
    /// Somebody else must know; what was missing.
    NoOpinion(String),
    /// It could not be found out.
    Failed {
        /// Whether this is a [`Decision::Deny`], or a [`Decision::NoOpinion`].
        denies: bool,
        /// What was missing apart from that.
        reason: String,
        /// What went wrong.
        error: String,
    },
}

impl Decision {
    /// Whether it is a yes.
    pub fn allows(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }

    /// The answer at once, for an authorizer that knows it from memory.
    pub fn now<'a>(self) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self))
    }
}

/// What a user may do in a namespace, for SelfSubjectRulesReview.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// `authorization.k8s.io/v1 ResourceRule` objects.
    pub resource_rules: Vec<Value>,
    /// `authorization.k8s.io/v1 NonResourceRule` objects.
    pub non_resource_rules: Vec<Value>,
    /// Whether rules may be missing.
    pub incomplete: bool,
    /// Why rules may be missing.
    pub evaluation_error: String,
}

/// Says who may do what. A chain of authorizers is an authorizer too.
pub trait Authorizer: Send + Sync {
    /// The verdict. Most read the replica in memory and answer at once; a webhook has to ask.
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision>;

    /// The rules that hold for the user in the namespace.
    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet;
}

/// Issues bound service-account tokens (`serviceaccounts/token`).
pub trait TokenIssuer: Send + Sync {
    /// Fills the status of a `TokenRequest` that has been decoded, defaulted and validated.
    fn issue<'a>(
        &'a self,
        service_account: &'a Arc<Object>,
        request: Value,
        user: &'a UserInfo,
    ) -> BoxFuture<'a, Result<Value, Status>>;

    /// `GET /.well-known/openid-configuration`: the document, when there is one.
    fn openid_configuration(&self) -> Option<Value> {
        None
    }

    /// `GET /openid/v1/jwks`: the public keys, when there are any.
    fn jwks(&self) -> Option<Value> {
        None
    }

    /// How long others may keep both.
    fn max_age(&self) -> Duration {
        Duration::ZERO
    }
}
