//! Who is asking: a front proxy's word, client certificates, then bearer tokens of every kind, in upstream's order.
//!
//! The first that knows the credentials decides; when none does, what was wrong with them is told to the log, and the
//! request is refused: wrong credentials never make an anonymous request. A handshake and a signature are verified once and
//! remembered under the exact bytes that were verified; what can change (the clock, the objects a token is bound to) is
//! looked at for every request.
//! Source: `pkg/kubeapiserver/authenticator/config.go`, `k8s.io/apiserver/pkg/authentication/request/union`.

mod bearer;
mod bootstrap_tokens;
mod certificates;
mod configuration;
mod front_proxy;
mod jwt;
mod service_accounts;
mod token_file;
pub mod trust;
mod webhook;

use std::sync::{Arc, LazyLock};

use base::clock::Clock;
use futures::future::BoxFuture;
use http::HeaderMap;

pub use bootstrap_tokens::BootstrapTokens;
pub use certificates::{AuthorityError, CertificateAuthenticator};
pub use configuration::{AuthenticationConfiguration, ConfigurationError};
pub use front_proxy::{FrontProxy, FrontProxyConfig, ProxyHeaders};
pub use jwt::{Expression, Expressions, JwtIssuer, JwtTokens, Prefixed, Rule};
pub use token_file::TokenFile;
pub use webhook::{TOKEN_TTL, TokenReviewVersion, WebhookTokens};

use self::service_accounts::ServiceAccounts;
use crate::pipeline::{Authenticator, Credentials, Identity};
use crate::request::UserInfo;
use crate::tokens::{ISSUER, TokenAuthenticator};

/// What an unknown token is refused with.
const INVALID_TOKEN: &str = "invalid bearer token";

/// One kind of bearer tokens.
pub trait TokenKind: Send + Sync {
    /// Whom a token speaks for, when it is for one of the audiences (there is at least one). `Ok(None)`: it is of another
    /// kind; `Err`: it is of this kind and wrong.
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, String>>;
}

/// All ways to prove who one is.
pub struct Authentication {
    front_proxy: Option<Arc<FrontProxy>>,
    certificates: Arc<CertificateAuthenticator>,
    kinds: Vec<Arc<dyn TokenKind>>,
    own_audiences: [String; 1],
    clock: Clock,
}

// === impl Authentication ===

impl Authentication {
    /// Certificates and service-account tokens.
    pub fn new(
        certificates: Arc<CertificateAuthenticator>,
        tokens: TokenAuthenticator,
        clock: Clock,
    ) -> Authentication {
        let accounts = ServiceAccounts {
            tokens,
            clock: clock.clone(),
        };
        Authentication {
            front_proxy: None,
            certificates,
            kinds: vec![Arc::new(accounts)],
            own_audiences: [ISSUER.to_owned()],
            clock,
        }
    }

    /// The same, with proxies that are asked first.
    pub fn with_front_proxy(self, front_proxy: Option<Arc<FrontProxy>>) -> Authentication {
        Authentication { front_proxy, ..self }
    }

    /// The same, with one more kind of tokens, asked after the others.
    pub fn with_tokens(mut self, kind: Arc<dyn TokenKind>) -> Authentication {
        self.kinds.push(kind);
        self
    }

    /// The same, with the tokens of a file, which are looked for before all others.
    pub fn with_token_file(mut self, file: Option<TokenFile>) -> Authentication {
        let file = file.map(|file| Arc::new(file) as Arc<dyn TokenKind>);
        self.kinds.splice(0..0, file);
        self
    }

    async fn request(&self, credentials: Credentials<'_>) -> Result<Option<Identity>, String> {
        tracing::trace!(target: "walk", "who asks");
        let (chain, headers, now) = (credentials.peer_certificates, credentials.headers, self.clock.now());
        let of_user = |user: UserInfo| Identity {
            user,
            ..Identity::default()
        };
        let mut refusals = Vec::new();
        if let Some(proxy) = &self.front_proxy {
            match proxy.authenticate(chain, headers, now) {
                Ok(Some(user)) => return Ok(Some(of_user(user))),
                Ok(None) => {}
                Err(why) => refusals.push(why),
            }
        }
        match self.certificates.authenticate(chain, now) {
            Ok(Some(user)) => return Ok(Some(of_user(user))),
            Ok(None) => {}
            Err(why) => refusals.push(why),
        }
        if let Some(token) = bearer::of_header(headers) {
            match self.token(token, &self.own_audiences).await {
                Ok(identity) => return Ok(Some(identity)),
                Err(why) => refusals.push(why),
            }
        }
        match bearer::of_websocket(headers) {
            Ok(Some(token)) => match self.token(&token, &self.own_audiences).await {
                Ok(identity) => return Ok(Some(identity)),
                Err(why) => refusals.push(why),
            },
            Ok(None) => {}
            Err(why) => refusals.push(why),
        }
        match refusals.is_empty() {
            true => Ok(None),
            false => Err(together(refusals)),
        }
    }

    async fn token(&self, token: &str, audiences: &[String]) -> Result<Identity, String> {
        let mut refusals = vec![INVALID_TOKEN.to_owned()];
        for kind in &self.kinds {
            match kind.authenticate(token, audiences).await {
                Ok(Some(mut identity)) => {
                    identity.user.ensure_authenticated_group();
                    return Ok(identity);
                }
                Ok(None) => {}
                Err(why) => refusals.push(why),
            }
        }
        Err(together(refusals))
    }
}

impl Authenticator for Authentication {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Option<Identity>, String>> {
        Box::pin(self.request(credentials))
    }

    fn authenticate_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, String>> {
        let audiences = match audiences.is_empty() {
            true => &self.own_audiences,
            false => audiences,
        };
        Box::pin(async move { self.token(token, audiences).await.map(Some) })
    }

    fn clear(&self, headers: &mut HeaderMap) {
        clear_standard(headers);
        if let Some(proxy) = &self.front_proxy {
            proxy.headers().clear(headers);
        }
    }
}

/// Removes what proves who one is and what every proxy says of whom it speaks for.
pub(crate) fn clear_standard(headers: &mut HeaderMap) {
    static PROXIES: LazyLock<ProxyHeaders> = LazyLock::new(ProxyHeaders::standard);
    bearer::clear(headers);
    PROXIES.clear(headers);
}

/// Several reasons as one text.
fn together(mut reasons: Vec<String>) -> String {
    match reasons.len() {
        1 => reasons.remove(0),
        _ => format!("[{}]", reasons.join(", ")),
    }
}

/// An identity of a kind of tokens that knows no audiences: it holds for those of the API server's own that are asked for.
/// Source: `k8s.io/apiserver/pkg/authentication/authenticator/audagnostic.go`.
pub(crate) fn own_audiences(wanted: &[String]) -> Option<Vec<String>> {
    let own: Vec<String> = wanted.iter().filter(|audience| *audience == ISSUER).cloned().collect();
    (!own.is_empty()).then_some(own)
}
