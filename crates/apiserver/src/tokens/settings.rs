//! Who issues tokens, for whom and for how long: what kube-apiserver's flags of service accounts say.

use super::{EXTENDED_SECONDS, ISSUER};

/// Where others find the key set when nobody says: the API server's own address, inside of the cluster.
const OWN_URL: &str = ISSUER;
/// Where it is below that.
const KEY_SET_PATH: &str = "/openid/v1/jwks";

/// What tokens of service accounts say, and which are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The issuers whose tokens are taken. New tokens are of the first; there is at least one.
    pub issuers: Vec<String>,
    /// The names of the API server: a token must be for one of them, and is for all of them when a request names none.
    pub audiences: Vec<String>,
    /// The longest life of a token that was asked for, in seconds.
    pub max_expiration_seconds: Option<i64>,
    /// Whether the tokens of pods outlive what they tell.
    pub extend: bool,
    /// How long they live then, in seconds: a year, or what an external signer gives.
    pub extended_seconds: i64,
    /// Whether a token of a Secret must be what the Secret holds.
    pub lookup: bool,
    /// Where others find the key set.
    pub jwks_uri: Option<String>,
}

impl Default for TokenSettings {
    fn default() -> TokenSettings {
        TokenSettings {
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![ISSUER.to_owned()],
            max_expiration_seconds: None,
            extend: true,
            extended_seconds: EXTENDED_SECONDS,
            lookup: true,
            jwks_uri: None,
        }
    }
}

// === impl TokenSettings ===

impl TokenSettings {
    /// Who issues new tokens.
    pub(super) fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    /// The life of a token that is asked for with those words, and after when it should have been replaced.
    /// Source: `pkg/registry/core/serviceaccount/storage/token.go`.
    pub(super) fn life(&self, seconds: i64, audiences: &[String], is_of_pod: bool) -> (i64, Option<i64>) {
        let for_us = audiences.iter().all(|audience| self.audiences.contains(audience));
        match self.extend && is_of_pod && for_us && seconds == super::WARN_ONLY_SECONDS {
            true => (self.extended_seconds, Some(seconds)),
            false => (seconds, None),
        }
    }

    /// The longest life that is given.
    pub(super) fn shortened(&self, seconds: i64) -> i64 {
        self.max_expiration_seconds.map_or(seconds, |max| seconds.min(max))
    }

    /// Where others find the key set.
    ///
    /// # Errors
    /// The issuer is no URL by which others could find anything: then there is no discovery.
    pub fn discovery(&self) -> Result<String, String> {
        let issuer = self.issuer();
        let (before, fragment) = issuer.split_once('#').unwrap_or((issuer, ""));
        let (before, query) = before.split_once('?').unwrap_or((before, ""));
        if before.split_once("://").is_none_or(|(scheme, _)| scheme != "https") {
            return Err(format!("issuer URL must use https scheme, got: {issuer}"));
        }
        if !query.is_empty() {
            return Err(format!("issuer URL may not include a query, got: {issuer}"));
        }
        if !fragment.is_empty() {
            return Err(format!("issuer URL may not include a fragment, got: {issuer}"));
        }
        let given = self.jwks_uri.clone();
        Ok(given.unwrap_or_else(|| format!("{OWN_URL}{KEY_SET_PATH}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::WARN_ONLY_SECONDS;
    use super::*;

    #[test]
    fn an_issuer_that_nobody_finds_has_no_discovery() {
        for (issuer, expect) in [
            (
                "https://a.example/x",
                Ok("https://kubernetes.default.svc.cluster.local/openid/v1/jwks"),
            ),
            (
                "http://a.example",
                Err("issuer URL must use https scheme, got: http://a.example"),
            ),
            ("cluster", Err("issuer URL must use https scheme, got: cluster")),
            (
                "https://a?b",
                Err("issuer URL may not include a query, got: https://a?b"),
            ),
            (
                "https://a#b",
                Err("issuer URL may not include a fragment, got: https://a#b"),
            ),
        ] {
            let settings = TokenSettings {
                issuers: vec![issuer.into(), "https://old".into()],
                ..TokenSettings::default()
            };
            assert_eq!(settings.discovery(), expect.map(str::to_owned).map_err(str::to_owned));
        }
    }

    #[test]
    fn lives_are_extended_for_us_alone_and_shortened() {
        let settings = TokenSettings {
            audiences: vec!["a".into(), "b".into()],
            max_expiration_seconds: Some(7200),
            ..TokenSettings::default()
        };
        let extended = (EXTENDED_SECONDS, Some(WARN_ONLY_SECONDS));
        let plain = (WARN_ONLY_SECONDS, None);
        for (audiences, is_of_pod, expect) in [
            (&["a"][..], true, extended),
            (&["a", "b"], true, extended),
            (&["a", "vault"], true, plain),
            (&["a"], false, plain),
        ] {
            let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
            assert_eq!(settings.life(WARN_ONLY_SECONDS, &audiences, is_of_pod), expect);
            assert_eq!(settings.life(3600, &audiences, is_of_pod), (3600, None));
            let never = TokenSettings {
                extend: false,
                ..settings.clone()
            };
            let shorter = TokenSettings {
                extended_seconds: 7200,
                ..settings.clone()
            };
            if expect == extended {
                let found = shorter.life(WARN_ONLY_SECONDS, &audiences, is_of_pod);
                assert_eq!(found, (7200, Some(WARN_ONLY_SECONDS)));
            }
            assert_eq!(never.life(WARN_ONLY_SECONDS, &audiences, is_of_pod), plain);
        }
        assert_eq!((settings.shortened(7201), settings.shortened(600)), (7200, 600));
    }
}
