//! Tokens of other issuers (OpenID Connect): who may issue them, and whom their claims name.
//!
//! Invariant: a token speaks for somebody only after its issuer, audience, time and signature were found right, in terms of
//! what is configured; nothing of the token chooses where keys come from.
//! Source: `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/oidc.go`; `github.com/coreos/go-oidc`.

pub(crate) mod claims;
mod expressions;
mod fetch;
pub(crate) mod provider;
pub(crate) mod signature;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::Clock;
use futures::future::BoxFuture;
use tokio::time::Instant;

pub use self::expressions::{Expression, Expressions, Rule};
use self::fetch::Fetcher;
use self::provider::Provider;
pub(crate) use self::signature::ALGORITHMS;
use self::signature::Unverified;
use super::TokenKind;
use crate::metrics::shared;
use crate::pipeline::{Identity, Refusal};
use crate::request::UserInfo;

/// How long a new configuration's issuers may take to answer before the old one stays: upstream's
/// `UpdateAuthenticationConfigTimeout`.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(60);
/// How far an issuer's clock may be ahead of ours when it says from when a token holds, in seconds: go-oidc's.
const NOT_BEFORE_LEEWAY_SECONDS: f64 = 300.0;

/// A claim, and what goes before its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixed {
    /// The claim's name.
    pub claim: String,
    /// What its values are prefixed with.
    pub prefix: String,
}

/// One issuer whose tokens are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtIssuer {
    /// What `iss` has to be, and where the issuer tells of itself.
    pub url: String,
    /// Where it does so instead.
    pub discovery_url: Option<String>,
    /// Who may have signed its certificate, as PEM; empty: whom the machine trusts.
    pub certificate_authority: String,
    /// One of these has to be in `aud`.
    pub audiences: Vec<String>,
    /// The algorithms that are taken.
    pub algorithms: Vec<String>,
    /// The user's name.
    pub username: Prefixed,
    /// The user's groups.
    pub groups: Option<Prefixed>,
    /// The user's uid.
    pub uid_claim: Option<String>,
    /// Claims that have to have these values.
    pub required_claims: Vec<(String, String)>,
    /// What expressions make of claims and say of users.
    pub expressions: Expressions,
}

/// Takes the tokens of the configured issuers.
pub struct JwtTokens {
    issuers: ArcSwap<Vec<Issuer>>,
    /// Whom the machine trusts, as PEM; read when an issuer names no authority.
    machine_roots_pem: Option<String>,
    clock: Clock,
}

struct Issuer {
    settings: JwtIssuer,
    provider: Arc<Provider>,
}

/// Whether a PEM bundle has a certificate to trust.
pub(crate) fn check_authority(pem: &str) -> Result<(), String> {
    Fetcher::new(pem).map(drop)
}

// === impl JwtTokens ===

impl JwtTokens {
    /// For those issuers. They are asked for their documents from now on, again and again until they answer.
    ///
    /// # Errors
    /// There is nobody to trust for one of them.
    pub fn new(issuers: &[JwtIssuer], machine_roots_pem: Option<String>, clock: Clock) -> Result<JwtTokens, String> {
        let tokens = JwtTokens {
            issuers: ArcSwap::default(),
            machine_roots_pem,
            clock,
        };
        tokens.issuers.store(Arc::new(tokens.made_of(issuers)?));
        Ok(tokens)
    }

    /// Takes the tokens of other issuers from now on, once all of these have answered.
    ///
    /// # Errors
    /// There is nobody to trust for one of them, or one does not answer; then all stays as it was.
    pub async fn replace(&self, issuers: &[JwtIssuer]) -> Result<(), String> {
        let made = self.made_of(issuers)?;
        let ready = async {
            for issuer in &made {
                issuer.provider.ready().await;
            }
        };
        if tokio::time::timeout(REPLACE_TIMEOUT, ready).await.is_err() {
            let whys = made.iter().filter_map(|issuer| {
                let why = issuer.provider.health().err()?;
                Some(format!(
                    "oidc: authenticator for issuer {:?} is not healthy: {why}",
                    issuer.settings.url
                ))
            });
            return Err(whys.collect::<Vec<_>>().join(", "));
        }
        let before = self.issuers.swap(Arc::new(made));
        for gone in before
            .iter()
            .filter(|old| issuers.iter().all(|new| new.url != old.settings.url))
        {
            shared().credentials.forget_issuer(&gone.settings.url);
        }
        Ok(())
    }

    fn made_of(&self, issuers: &[JwtIssuer]) -> Result<Vec<Issuer>, String> {
        let one = |settings: &JwtIssuer| {
            let authority = match &*settings.certificate_authority {
                "" => self.machine_roots_pem.as_deref().unwrap_or(""),
                own => own,
            };
            let fetcher = Fetcher::new(authority).map_err(|why| format!("{}: {why}", settings.url))?;
            let provider = Provider::start(&settings.url, settings.discovery_url.as_deref(), fetcher);
            Ok(Issuer {
                settings: settings.clone(),
                provider,
            })
        };
        issuers.iter().map(one).collect()
    }

    async fn find(&self, token: &str) -> Result<Option<UserInfo>, String> {
        let Some(unverified) = Unverified::read(token) else {
            return Ok(None);
        };
        let issuers = self.issuers.load_full();
        let named = claims::issuer(&unverified.claims);
        let Some(issuer) = issuers.iter().find(|issuer| issuer.settings.url == named) else {
            return Ok(None);
        };
        let now = self.clock.now().as_millisecond() as f64 / 1000.0;
        let began = Instant::now();
        let user = issuer.user(&unverified, now).await;
        let metrics = &shared().credentials;
        metrics.verified(&issuer.settings.url, user.is_ok(), began.elapsed());
        user.map(Some)
    }
}

impl TokenKind for JwtTokens {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Result<Option<Identity>, Refusal>> {
        Box::pin(async move {
            let user = self.find(token).await?;
            Ok(user.map(|user| Identity {
                user: user.into(),
                ..Identity::default()
            }))
        })
    }
}

// === impl Issuer ===

impl Issuer {
    async fn user(&self, token: &Unverified<'_>, now: f64) -> Result<UserInfo, String> {
        if !self.provider.has_answered() {
            return Err("oidc: authenticator not initialized".into());
        }
        let verified = async {
            self.check(token, now)?;
            token.check_algorithm(&self.settings.algorithms)?;
            self.provider.verify(token).await
        };
        verified
            .await
            .map_err(|why| format!("oidc: verify token: oidc: {why}"))?;
        claims::user(&self.settings, &token.claims)
    }

    fn check(&self, token: &Unverified<'_>, now: f64) -> Result<(), String> {
        let audiences = claims::audiences(&token.claims)?;
        if !audiences
            .iter()
            .any(|audience| self.settings.audiences.contains(audience))
        {
            let expected = &self.settings.audiences;
            return Err(format!("expected audience in {expected:?} got {audiences:?}"));
        }
        match claims::seconds(&token.claims, "exp")? {
            Some(end) if now <= end => {}
            Some(end) => return Err(format!("token is expired (Token Expiry: {end})")),
            None => return Err("token is expired (Token Expiry: none)".into()),
        }
        match claims::seconds(&token.claims, "nbf")? {
            Some(begin) if now + NOT_BEFORE_LEEWAY_SECONDS < begin => {
                Err(format!("current time {now} before the nbf (not before) time: {begin}"))
            }
            _ => Ok(()),
        }
    }
}
