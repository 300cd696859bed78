//! Service account tokens for pods: asked for when first needed, kept, and replaced before they grow old.
//!
//! Source: `pkg/kubelet/token/token_manager.go`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Random};
use client::{Client, resources};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

/// A token is replaced after this time however long it lives.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(24);
/// Tokens are replaced a little early, by up to this much, so that a node's do not all come at once.
const JITTER_SECONDS_MAX: u64 = 10;
/// The rest of the life, in hundredths, that a token must have.
const REST_PERCENT: i64 = 20;
/// When a replacement failed, the next one is tried after so long.
const RETRY: Duration = Duration::from_secs(30);

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The service account's namespace.
    pub namespace: String,
    /// The service account.
    pub account: String,
    /// The pod it is bound to.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// Who it is shown to; empty: the API server.
    pub audience: String,
    /// The life that is asked for.
    pub expiration_seconds: i64,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What stands in the file.
    pub text: String,
    /// When to look for a newer one.
    pub refresh_at: Timestamp,
}

#[derive(Clone, Debug)]
struct Kept {
    text: String,
    expires_at: Timestamp,
    refresh_at: Timestamp,
}

/// The tokens of this node's pods. Cheap to clone.
#[derive(Clone)]
pub struct TokenCache {
    client: Client,
    clock: Clock,
    random: Random,
    kept: Arc<Mutex<HashMap<Request, Kept>>>,
}

// === impl TokenCache ===

impl TokenCache {
    /// An empty cache that asks through this client.
    pub fn new(client: Client, clock: Clock, random: Random) -> TokenCache {
        TokenCache {
            client,
            clock,
            random,
            kept: Arc::default(),
        }
    }

    /// The token, a new one when the kept one grows old. When there is no new one to be had, the kept one, as long as it
    /// lives.
    ///
    /// # Errors
    /// In upstream's words.
    pub async fn get(&self, request: &Request) -> Result<Token, String> {
        let kept = self.kept.lock().get(request).cloned();
        let now = self.clock.now();
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.refresh_at) {
            return Ok(Token {
                text: kept.text.clone(),
                refresh_at: kept.refresh_at,
            });
        }
        match (self.ask(request).await, kept) {
            (Ok(fresh), _) => {
                let token = Token {
                    text: fresh.text.clone(),
                    refresh_at: fresh.refresh_at,
                };
                self.kept.lock().insert(request.clone(), fresh);
                Ok(token)
            }
            (Err(why), Some(kept)) if now < kept.expires_at => {
                tracing::warn!(account = request.account, namespace = request.namespace, %why, "couldn't update token");
                Ok(Token {
                    text: kept.text,
                    refresh_at: now + SignedDuration::try_from(RETRY).unwrap_or_default(),
                })
            }
            (Err(why), Some(_)) => Err(format!("token {} expired and refresh failed: {why}", request.account)),
            (Err(why), None) => Err(format!("failed to fetch token: {why}")),
        }
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, uid: &str) {
        self.kept.lock().retain(|request, _| request.uid != uid);
    }

    async fn ask(&self, request: &Request) -> Result<Kept, String> {
        let audiences: Vec<&str> = Some(request.audience.as_str())
            .filter(|text| !text.is_empty())
            .into_iter()
            .collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": request.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": request.pod, "uid": request.uid},
            },
        });
        let answer = self
            .client
            .create_subresource(
                &resources::SERVICE_ACCOUNTS,
                &request.namespace,
                &request.account,
                "token",
                &body,
            )
            .await
            .map_err(|error| error.to_string())?;
        let text = answer["status"]["token"].as_str().unwrap_or("").to_owned();
        let expires_at = answer["status"]["expirationTimestamp"]
            .as_str()
            .and_then(|time| time.parse().ok());
        let (false, Some(expires_at)) = (text.is_empty(), expires_at) else {
            return Err("the server answered without a token".into());
        };
        let seconds = answer["spec"]["expirationSeconds"]
            .as_i64()
            .unwrap_or(request.expiration_seconds);
        let jitter = self.random.range(0..JITTER_SECONDS_MAX) as i64;
        let refresh_at = refresh_at(expires_at, seconds, jitter);
        Ok(Kept {
            text,
            expires_at,
            refresh_at,
        })
    }
}

/// When a token that was issued for so many seconds is to be replaced.
fn refresh_at(expires_at: Timestamp, seconds: i64, jitter_seconds: i64) -> Timestamp {
    let jitter = SignedDuration::from_secs(jitter_seconds);
    let back = |by: SignedDuration| expires_at.checked_sub(by).unwrap_or(Timestamp::MIN);
    let by_rest = back(SignedDuration::from_secs(seconds.saturating_mul(REST_PERCENT) / 100));
    let by_age = back(SignedDuration::from_secs(seconds))
        .checked_add(AGE_MAX)
        .unwrap_or(Timestamp::MAX);
    by_rest.min(by_age).checked_sub(jitter).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_in_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (expires, seconds, jitter, expect) in [
            ("2026-01-01T01:00:00Z", 3600, 0, "2026-01-01T00:48:00Z"),
            ("2026-01-01T01:00:00Z", 3600, 9, "2026-01-01T00:47:51Z"),
            ("2026-01-01T00:10:00Z", 600, 0, "2026-01-01T00:08:00Z"),
            // A year's token is replaced after a day.
            ("2027-01-01T00:00:00Z", 31_536_000, 0, "2026-01-02T00:00:00Z"),
        ] {
            assert_eq!(
                refresh_at(at(expires), seconds, jitter),
                at(expect),
                "{expires} {seconds}"
            );
        }
    }
}
