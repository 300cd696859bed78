//! Service-account tokens as one kind of bearer tokens.

use base::clock::Clock;
use futures::future::BoxFuture;

use super::TokenKind;
use crate::pipeline::Identity;
use crate::request::UserInfo;
use crate::tokens::{TokenAuthenticator, TokenError};

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
                let mut user = UserInfo::new(identity.user, identity.groups);
                user.uid = identity.uid;
                user.extra = identity.extra;
                let audiences = identity.audiences;
                Ok(Some(Identity { user, audiences }))
            }
            Err(TokenError::NotOurs) => Ok(None),
            Err(other) => Err(other.to_string()),
        };
        Box::pin(std::future::ready(found))
    }
}
