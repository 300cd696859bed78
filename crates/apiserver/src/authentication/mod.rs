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
pub(crate) mod jwt;
mod service_accounts;
mod token_file;
pub mod trust;
pub(crate) mod webhook;

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
use crate::pipeline::{Authenticator, Credentials, Identity, Refusal, Told};
use crate::request::UserInfo;
use crate::tokens::TokenAuthenticator;

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
    ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>>;

    /// Whether its tokens say for whom they are. All others are for the API server alone, and nobody has to look whether they
    /// are: they are not asked about when none of its own audiences is wanted.
    /// Source: `k8s.io/apiserver/pkg/authentication/authenticator/audagnostic.go`.
    fn knows_audiences(&self) -> bool {
        false
    }
}

/// All ways to prove who one is.
pub struct Authentication {
    front_proxy: Option<Arc<FrontProxy>>,
    certificates: Arc<CertificateAuthenticator>,
    kinds: Vec<Arc<dyn TokenKind>>,
    own_audiences: Vec<String>,
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
        let own_audiences = tokens.audiences().to_vec();
        let accounts = ServiceAccounts {
            tokens,
            clock: clock.clone(),
        };
        Authentication {
            front_proxy: None,
            certificates,
            kinds: vec![Arc::new(accounts)],
            own_audiences,
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

    async fn request(&self, credentials: Credentials<'_>) -> Result<Option<Identity>, Refusal> {
        tracing::trace!(target: "walk", "who asks");
        let (chain, headers, now) = (credentials.peer_certificates, credentials.headers, self.clock.now());
        let of_user = |user: Arc<UserInfo>| Identity {
            user,
            ..Identity::default()
        };
        let mut refusals = Vec::new();
        if let Some(proxy) = &self.front_proxy {
            match proxy.authenticate(chain, headers, now) {
                Ok(Some(user)) => return Ok(Some(of_user(user.into()))),
                Ok(None) => {}
                Err(why) => refusals.push(why.into()),
            }
        }
        match self.certificates.authenticate(chain, now) {
            Ok(Some(user)) => return Ok(Some(of_user(user))),
            Ok(None) => {}
            Err(why) => refusals.push(why.into()),
        }
        if let Some(token) = bearer::of_header(headers) {
            match self.token(token, &self.own_audiences).await {
                Ok(identity) => return Ok(Some(identity)),
                Err(refusal) => refusals.push(refusal),
            }
        }
        match bearer::of_websocket(headers) {
            Ok(Some(token)) => match self.token(&token, &self.own_audiences).await {
                Ok(identity) => return Ok(Some(identity)),
                Err(refusal) => refusals.push(refusal),
            },
            Ok(None) => {}
            Err(why) => refusals.push(why.into()),
        }
        match refusals.is_empty() {
            true => Ok(None),
            false => Err(together(refusals)),
        }
    }

    async fn token(&self, token: &str, audiences: &[String]) -> Result<Identity, Refusal> {
        let mut refusals = vec![Refusal::from(INVALID_TOKEN.to_owned())];
        let own: Vec<String> = audiences
            .iter()
            .filter(|audience| self.own_audiences.contains(audience))
            .cloned()
            .collect();
        for kind in &self.kinds {
            let knows_audiences = kind.knows_audiences();
            if !knows_audiences && own.is_empty() {
                continue;
            }
            match kind.authenticate(token, audiences).await {
                Ok(Some(mut identity)) => {
                    Arc::make_mut(&mut identity.user).ensure_authenticated_group();
                    if !knows_audiences {
                        identity.audiences = own;
                    }
                    return Ok(identity);
                }
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
        }
        Err(together(refusals))
    }
}

impl Authenticator for Authentication {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        Box::pin(self.request(credentials))
    }

    fn authenticate_token<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
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

/// Several reasons as one.
fn together(refusals: Vec<Refusal>) -> Refusal {
    let (mut reasons, mut told) = (Vec::new(), Told::default());
    for refusal in refusals {
        reasons.push(refusal.why);
        told.add(refusal.told);
    }
    let why = match reasons.len() {
        1 => reasons.remove(0),
        _ => format!("[{}]", reasons.join(", ")),
    };
    Refusal { why, told }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Knows one token, and of audiences as much as it is told to.
    struct Kind(&'static str, Option<&'static str>);

    impl TokenKind for Kind {
        fn authenticate<'a>(
            &'a self,
            token: &'a str,
            audiences: &'a [String],
        ) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
            let for_it = self
                .1
                .is_none_or(|own| audiences.iter().any(|audience| audience == own));
            let identity = (token == self.0 && for_it).then(|| Identity {
                user: UserInfo::new::<String>(token, []).into(),
                audiences: self.1.iter().map(|own| (*own).to_owned()).collect(),
                ..Identity::default()
            });
            Box::pin(std::future::ready(Ok(identity)))
        }

        fn knows_audiences(&self) -> bool {
            self.1.is_some()
        }
    }

    #[test]
    fn tokens_without_audiences_are_for_the_api_server_alone() {
        let authority = crate::pki::Authority::generate("ca", Clock::real().now(), base::Random::seeded(1)).unwrap();
        let authentication = Authentication {
            front_proxy: None,
            certificates: Arc::new(CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap()),
            kinds: vec![Arc::new(Kind("plain", None)), Arc::new(Kind("bound", Some("vault")))],
            own_audiences: vec!["api".into(), "front".into()],
            clock: Clock::real(),
        };
        for (token, wanted, expect) in [
            ("plain", &[][..], Some(&["api", "front"][..])),
            ("plain", &["front", "vault"], Some(&["front"])),
            ("plain", &["vault"], None),
            ("bound", &[], None),
            ("bound", &["front", "vault"], Some(&["vault"])),
        ] {
            let wanted: Vec<String> = wanted.iter().map(|audience| (*audience).to_owned()).collect();
            let found = block_on(authentication.authenticate_token(token, &wanted))
                .ok()
                .flatten();
            let audiences = found.map(|identity| identity.audiences);
            let expect = expect.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
            assert_eq!(audiences, expect, "{token} {wanted:?}");
        }
    }
}
