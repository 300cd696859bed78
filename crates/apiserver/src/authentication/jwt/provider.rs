//! What an issuer tells of itself: where its keys are, and the keys, read again when a token names one that is not known.
//!
//! Source: `github.com/coreos/go-oidc` (`oidc.go`, `jwks.go`).

use std::sync::Arc;
use std::time::Duration;

use api::Value;
use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::fetch::Fetcher;
use super::signature::{KeySet, Unverified};
use crate::metrics::shared;

/// The pause before an issuer that did not answer is asked again: upstream's. Nothing tells when it would.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// One issuer's documents.
pub(super) struct Provider {
    issuer: String,
    fetcher: Fetcher,
    keys_url: watch::Receiver<Result<String, String>>,
    keys: ArcSwapOption<KeySet>,
    /// Whoever holds it asks for the keys.
    asking: tokio::sync::Mutex<()>,
    _task: AbortOnDropHandle<()>,
}

// === impl Provider ===

impl Provider {
    /// Asks the issuer in a task of its own, until it answers or nobody needs it any more.
    pub(super) fn start(issuer: &str, discovery_url: Option<&str>, fetcher: Fetcher) -> Arc<Provider> {
        let (tell, keys_url) = watch::channel(Err("it was not asked yet".to_owned()));
        let place = match discovery_url {
            Some(url) => url.to_owned(),
            None => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
        };
        let (own, asked) = (issuer.to_owned(), fetcher.clone());
        let issuer = own.clone();
        let task = tokio::spawn(async move {
            loop {
                let found = discover(&asked, &issuer, &place).await;
                if let Err(why) = &found {
                    tracing::warn!(issuer, why, "an issuer of tokens tells nothing of itself");
                }
                let done = found.is_ok();
                let _ = tell.send_replace(found);
                if done {
                    return;
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        });
        Arc::new(Provider {
            issuer: own,
            fetcher,
            keys_url,
            keys: ArcSwapOption::empty(),
            asking: tokio::sync::Mutex::default(),
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Whether the issuer said where its keys are.
    pub(super) fn has_answered(&self) -> bool {
        self.keys_url.borrow().is_ok()
    }

    /// The news of where the keys are.
    #[cfg(test)]
    pub(super) fn keys_url(&self) -> watch::Receiver<Result<String, String>> {
        self.keys_url.clone()
    }

    /// Why it is of no use yet.
    pub(super) fn health(&self) -> Result<(), String> {
        self.keys_url.borrow().as_ref().map(drop).map_err(Clone::clone)
    }

    /// Returns when the issuer has answered.
    pub(super) async fn ready(&self) {
        let mut url = self.keys_url.clone();
        // The task ends after the answer only, and the last value stays.
        let _ = url.wait_for(Result::is_ok).await;
    }

    /// Whether one of the issuer's keys signed the token. Keys that are not known are asked for, by one at a time.
    pub(super) async fn verify(&self, token: &Unverified<'_>) -> Result<(), String> {
        let known = self.keys.load_full();
        if known.as_ref().is_some_and(|keys| keys.signed(token)) {
            return Ok(());
        }
        let _asking = self.asking.lock().await;
        let mut newest = self.keys.load_full();
        let unchanged = match (&known, &newest) {
            (Some(known), Some(newest)) => Arc::ptr_eq(known, newest),
            (None, None) => true,
            _ => false,
        };
        // Somebody else asked meanwhile otherwise, later than this token came.
        if unchanged {
            let url = self.keys_url.borrow().clone()?;
            let document = self.fetcher.get(&url).await;
            let read = document
                .as_deref()
                .ok()
                .filter(|document| KeySet::read(document).is_ok());
            shared().credentials.keys_asked(&self.issuer, read);
            let document = document.map_err(|why| format!("failed to verify signature: fetching keys {why}"))?;
            newest = Some(Arc::new(KeySet::read(&document)?));
            self.keys.store(newest.clone());
        }
        match newest.is_some_and(|keys| keys.signed(token)) {
            true => Ok(()),
            false => Err("failed to verify signature: failed to verify id token signature".into()),
        }
    }
}

/// Where an issuer's keys are.
async fn discover(fetcher: &Fetcher, issuer: &str, place: &str) -> Result<String, String> {
    keys_place(issuer, &fetcher.get(place).await?)
}

/// Where an issuer's document says that its keys are.
///
/// # Errors
/// It is another issuer's, or says nothing that can be used.
pub(crate) fn keys_place(issuer: &str, document: &[u8]) -> Result<String, String> {
    let told: Value = serde_json::from_slice(document)
        .map_err(|error| format!("oidc: failed to decode provider discovery object: {error}"))?;
    let told_issuer = told["issuer"].as_str().unwrap_or("");
    if told_issuer != issuer {
        return Err(format!(
            "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {told_issuer:?}"
        ));
    }
    match told["jwks_uri"].as_str() {
        Some(url) if url.starts_with("https://") => Ok(url.to_owned()),
        Some(url) => Err(format!("provider returned a JWKS URL that is not https: {url:?}")),
        None => Err("provider did not return JWKS URL".into()),
    }
}
