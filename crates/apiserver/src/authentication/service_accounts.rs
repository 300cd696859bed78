//! Service-account tokens as one kind of bearer tokens.

use base::clock::Clock;
use futures::future::BoxFuture;

use super::TokenKind;
use crate::metrics::shared;
use crate::pipeline::Identity;
use crate::request::UserInfo;
use crate::tokens::{TokenAuthenticator, TokenError};

/// The annotation of requests with a token that should have been replaced, as upstream's.
const STALE_TOKEN: &str = "authentication.k8s.io/stale-token";

/// The tokens that this cluster issued.
pub(super) struct ServiceAccounts {
    pub tokens: TokenAuthenticator,
    pub clock: Clock,
}

impl TokenKind for ServiceAccounts {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<Identity>, String>> {
        let found = match self.tokens.authenticate(token, audiences, self.clock.now()) {
            Ok(identity) => {
                let stale = identity.stale_seconds.map(|seconds| (seconds > 0, seconds));
                if let Some((stale, _)) = stale {
                    shared().credentials.used(stale);
                }
                // Whoever reads the audit log finds the programs that read their token only once.
                let note = stale.filter(|(stale, _)| *stale).map(|(_, seconds)| {
                    let user = &identity.user;
                    let text = format!("subject: {user}, seconds after warning threshold: {seconds}");
                    (STALE_TOKEN, text)
                });
                let mut user = UserInfo::new(identity.user, identity.groups);
                user.uid = identity.uid;
                user.extra = identity.extra;
                let audiences = identity.audiences;
                Ok(Some(Identity { user, audiences, note }))
            }
            Err(TokenError::NotOurs) => Ok(None),
            Err(other) => Err(other.to_string()),
        };
        Box::pin(std::future::ready(found))
    }
}
