//! An external signer: another program that has the keys of tokens, so that the API server has none (KEP-740).
//!
//! Its keys are asked for at the start, when the time comes that it told, and when a token names a key that is not known. What
//! is known stays until it answers again.
//!
//! Source: `pkg/serviceaccount/externaljwt/plugin`, and `completeServiceAccountOptions` of
//! `pkg/controlplane/apiserver/options/options.go`.

mod answers;
mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use base::Shutdown;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::client::{Client, Failure};
use super::MIN_EXPIRATION_SECONDS;
use super::jwt::Taken;
use crate::metrics::shared;

/// When the keys are asked for again after that failed (upstream's `fallbackRefreshDuration`).
const RETRY: Duration = Duration::from_secs(10);

/// A program that signs. Its keys are those of its last answer.
pub struct ExternalSigner {
    client: Client,
    keys: ArcSwap<Vec<Taken>>,
    /// Rises with every change of the keys.
    generation: AtomicU64,
    /// When to ask for them again.
    due: Mutex<Instant>,
    /// Whoever comes while somebody asks has his answer.
    round: tokio::sync::Mutex<Result<(), Failure>>,
    rounds: AtomicU64,
}

// === impl ExternalSigner ===

impl ExternalSigner {
    /// The signer that listens at that socket (`@NAME` for one without a file), and the longest life of its tokens, in
    /// seconds.
    ///
    /// # Errors
    /// It does not answer in time, or what it answers cannot be used.
    pub async fn connect(endpoint: &str) -> Result<(Arc<ExternalSigner>, i64), String> {
        let signer = ExternalSigner {
            client: Client::new(endpoint),
            keys: ArcSwap::default(),
            generation: AtomicU64::new(0),
            due: Mutex::new(Instant::now()),
            round: tokio::sync::Mutex::new(Ok(())),
            rounds: AtomicU64::new(0),
        };
        let during = "while setting up external-jwt-signer";
        signer.ask_for_keys().await.map_err(|failure| {
            let why = failure.why;
            format!("{during}: while initially filling key cache: while performing initial cache fill: {why}")
        })?;
        let metadata = signer.client.metadata().await;
        let metadata = metadata.map_err(|failure| failure.during(during).why)?;
        let longest = metadata.max_token_expiration_seconds;
        if longest < MIN_EXPIRATION_SECONDS {
            return Err(format!(
                "max token life supported by external-jwt-signer ({longest}s) is less than acceptable (min {MIN_EXPIRATION_SECONDS}s)"
            ));
        }
        Ok((Arc::new(signer), longest))
    }

    /// Asks for the keys whenever it is time, until the end.
    pub fn follow(self: &Arc<Self>, shutdown: &Shutdown) {
        let (signer, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                let due = *signer.due.lock();
                if stop.until(tokio::time::sleep_until(due)).await.is_none() {
                    return;
                }
                // Somebody may have asked meanwhile.
                if *signer.due.lock() > due {
                    continue;
                }
                match stop.until(signer.ask_for_keys()).await {
                    None => return,
                    Some(Ok(())) => {}
                    Some(Err(failure)) => {
                        let why = failure.why;
                        tracing::error!(
                            why,
                            "when syncing supported public keys(Stale set of keys will be supported)"
                        );
                        *signer.due.lock() = Instant::now() + RETRY;
                    }
                }
            }
        });
    }

    /// Those whose signatures count, in the order of the answer.
    pub(super) fn keys(&self) -> Arc<Vec<Taken>> {
        self.keys.load_full()
    }

    /// What was verified by the keys of another generation may not count any more.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How long the keys may be kept by others.
    pub(super) fn max_age(&self) -> Duration {
        self.due.lock().saturating_duration_since(Instant::now())
    }

    /// Whether a key of that name is known, after another question if need be.
    pub(super) async fn knows(&self, id: &str) -> bool {
        let is_there = || self.keys.load().iter().any(|key| key.id == id);
        if is_there() {
            return true;
        }
        if let Err(failure) = self.ask_for_keys().await {
            tracing::error!(why = failure.why, "Error while syncing keys");
            return false;
        }
        is_there()
    }

    async fn ask_for_keys(&self) -> Result<(), Failure> {
        let before = self.rounds.load(Ordering::Acquire);
        let mut round = self.round.lock().await;
        if self.rounds.load(Ordering::Acquire) != before {
            return round.clone();
        }
        let outcome = self.fetch().await;
        let code = outcome.as_ref().map_or_else(|failure| &*failure.code, |()| "OK");
        shared().external_signers.fetched(code);
        round.clone_from(&outcome);
        self.rounds.fetch_add(1, Ordering::Release);
        outcome
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let during = "while fetching token verification keys";
        let answer = self.client.fetch_keys().await;
        let answer = answer.map_err(|failure| {
            let failure = failure.during("while getting externally supported jwt signing keys");
            failure.during(during)
        })?;
        let told = answers::keys(answer).map_err(|why| Failure::of_answer(why).during(during))?;
        shared().external_signers.keys_are_of(told.seconds);
        *self.due.lock() = Instant::now() + told.refresh;
        if **self.keys.load() != told.keys {
            self.keys.store(Arc::new(told.keys));
            self.generation.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// A token of these claims.
    ///
    /// # Errors
    /// The signer did not sign, or not as it has to.
    pub(super) async fn sign(&self, claims: &str) -> Result<String, String> {
        let outcome = self.token(claims).await;
        let code = outcome.as_ref().map_or_else(|failure| &*failure.code, |_| "OK");
        shared().external_signers.signed(code);
        outcome.map_err(|failure| failure.why)
    }

    async fn token(&self, claims: &str) -> Result<String, Failure> {
        let claims = BASE64.encode(claims);
        let signed = self.client.sign(&claims).await;
        let signed = signed.map_err(|failure| failure.during("while signing jwt"))?;
        let of_header = |why: String| Failure::of_answer(why).during("while validating header");
        let id = answers::key_of_header(&signed.header).map_err(of_header)?;
        // Such keys verify what was issued before, and nothing new: others could not verify it.
        let is_known = self.knows(&id).await;
        let hidden = is_known && self.keys.load().iter().any(|key| key.id == id && key.is_hidden);
        if hidden {
            return Err(of_header(format!(
                "key used for signing JWT (kid: {id}) is excluded from OIDC discovery docs"
            )));
        }
        if signed.signature.is_empty() {
            return Err(Failure::of_answer("empty signature returned"));
        }
        Ok(format!("{}.{claims}.{}", signed.header, signed.signature))
    }
}
