//! The issuers of tokens of `--authentication-config`, as the file is now.
//!
//! Who comes without credentials is settled at the start: a file that says something else about that is refused.
//! Source: `pkg/kubeapiserver/options/authentication.go` (`ApplyTo`).

use std::sync::Arc;

use apiserver::authentication::{AuthenticationConfiguration, JwtTokens};
use base::Clock;

use super::authentication_flags::Tokens;
use crate::errors::{Context as _, Result};
use crate::watched::{Contents, Follow, Refusal, Watched};

/// The issuers, which are those of their file from now on. `own` are those of service accounts.
///
/// # Errors
/// Their authorities cannot be used.
pub fn start(tokens: Tokens, own: Vec<String>, clock: &Clock, follow: &Follow) -> Result<Arc<JwtTokens>> {
    let issuers = JwtTokens::new(&tokens.configuration.issuers, tokens.machine_roots_pem, clock.clone());
    let issuers = Arc::new(issuers.doing("reading the authorities of issuers of tokens")?);
    if let Some((file, text)) = tokens.file {
        let (anonymous, followed) = (tokens.configuration.anonymous, issuers.clone());
        let watched = Watched::since(vec![file], vec![text.into_bytes()]);
        follow.start("authentication", watched, move |contents| {
            let read = read(&contents, &own).and_then(|read| match read.anonymous == anonymous {
                true => Ok(read.issuers),
                false => Err("anonymous: Forbidden: changed from initial configuration file".to_owned()),
            });
            let issuers = followed.clone();
            // An issuer that does not answer yet gets another chance.
            async move {
                issuers
                    .replace(&read.map_err(Refusal::Wrong)?)
                    .await
                    .map_err(Refusal::NotYet)
            }
        });
    }
    Ok(issuers)
}

fn read(contents: &Contents, own: &[String]) -> std::result::Result<AuthenticationConfiguration, String> {
    let text = String::from_utf8(contents.concat()).map_err(|_| "it is no text".to_owned())?;
    AuthenticationConfiguration::from_text(&text, own).map_err(|error| error.to_string())
}
