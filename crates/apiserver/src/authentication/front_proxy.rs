//! The front proxy: whoever shows a certificate of the proxies' own authority says in headers for whom it speaks.
//!
//! Invariant: a header counts only behind a verified certificate whose common name is allowed, and the headers are removed
//! from every request that goes on, whoever sent them: no handler and no backend ever sees one.
//! Source: `k8s.io/apiserver/pkg/authentication/request/headerrequest` and `.../x509` (`Verifier`).

use std::collections::BTreeMap;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::certificates::{AuthorityError, CertificateAuthenticator};
use crate::request::{UserInfo, percent_decode};

/// The names of the headers that a proxy sends. Case does not matter; the order does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeaders {
    /// The user's name: the first header with a value counts.
    pub username: Vec<String>,
    /// The user's uid: likewise.
    pub uid: Vec<String>,
    /// Groups: all values of all of them.
    pub group: Vec<String>,
    /// What the names of headers with further facts begin with; the rest of the name is the fact's key.
    pub extra_prefix: Vec<String>,
}

/// Whom to trust as a proxy, and by which headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxyConfig {
    /// Who may have signed proxies' certificates, as PEM.
    pub authorities_pem: String,
    /// The common names that proxies may have; empty: any.
    pub allowed_names: Vec<String>,
    /// The headers.
    pub headers: ProxyHeaders,
}

/// Takes the word of proxies.
pub struct FrontProxy {
    certificates: CertificateAuthenticator,
    allowed_names: Vec<String>,
    headers: ProxyHeaders,
}

// === impl ProxyHeaders ===

impl ProxyHeaders {
    /// The names that every Kubernetes proxy sends. They are removed whatever is configured.
    pub fn standard() -> ProxyHeaders {
        let one = |name: &str| vec![name.to_owned()];
        ProxyHeaders {
            username: one("x-remote-user"),
            uid: one("x-remote-uid"),
            group: one("x-remote-group"),
            extra_prefix: one("x-remote-extra-"),
        }
    }

    /// Removes all of them.
    pub fn clear(&self, headers: &mut HeaderMap) {
        let ours = |name: &HeaderName| {
            let name = name.as_str();
            let named = [&self.username, &self.uid, &self.group];
            let named = named.into_iter().flatten().any(|own| own.eq_ignore_ascii_case(name));
            named || self.extra_key(name).is_some()
        };
        let ours: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
        for name in ours {
            headers.remove(name);
        }
    }

    /// The part of a header's name behind a prefix, still encoded.
    fn extra_key<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.extra_prefix.iter().find_map(|prefix| strip_prefix(name, prefix))
    }

    /// Whom the headers name; `None` without a name.
    fn user(&self, headers: &HeaderMap) -> Result<Option<UserInfo>, String> {
        let Some(name) = first(headers, &self.username)? else {
            return Ok(None);
        };
        let mut groups = Vec::new();
        for value in self.group.iter().flat_map(|name| headers.get_all(name.as_str())) {
            let group = text(value)?;
            if !group.is_empty() {
                groups.push(group.to_owned());
            }
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for prefix in &self.extra_prefix {
            for (name, value) in headers {
                if let Some(encoded) = strip_prefix(name.as_str(), prefix) {
                    // What is badly encoded is kept as it is.
                    let key = percent_decode(encoded).unwrap_or_else(|| encoded.to_owned());
                    extra.entry(key).or_default().push(text(value)?.to_owned());
                }
            }
        }
        let mut user = UserInfo::new(name, groups);
        user.uid = first(headers, &self.uid)?.unwrap_or("").to_owned();
        user.extra = extra;
        Ok(Some(user))
    }
}

/// Names in a `HeaderMap` are lower case already.
fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (begin, rest) = name.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The first value that is not empty, by the order of the names. As Go's `Header.Get`, a name stands for its first value.
fn first<'a>(headers: &'a HeaderMap, names: &[String]) -> Result<Option<&'a str>, String> {
    for name in names {
        let value = headers.get(name.as_str()).map(text).transpose()?.unwrap_or("");
        if !value.is_empty() {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn text(value: &HeaderValue) -> Result<&str, String> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| "a proxy's header is no text".to_owned())
}

// === impl FrontProxy ===

impl FrontProxy {
    /// # Errors
    /// The authorities cannot be used.
    pub fn new(config: &FrontProxyConfig) -> Result<FrontProxy, AuthorityError> {
        Ok(FrontProxy {
            certificates: CertificateAuthenticator::new(&config.authorities_pem)?,
            allowed_names: config.allowed_names.clone(),
            headers: config.headers.clone(),
        })
    }

    /// Trusts proxies with certificates of these authorities from now on.
    ///
    /// # Errors
    /// As [`FrontProxy::new`]; then nothing changes.
    pub fn replace_authorities(&self, authorities_pem: &str) -> Result<(), AuthorityError> {
        self.certificates.replace(authorities_pem)
    }

    /// The headers that it reads.
    pub fn headers(&self) -> &ProxyHeaders {
        &self.headers
    }

    /// For whom the owner of a verified certificate speaks. `Ok(None)`: there is no certificate, or no user is named.
    ///
    /// # Errors
    /// The certificate is no proxy's.
    pub fn authenticate(
        &self,
        chain: &[CertificateDer<'static>],
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Option<UserInfo>, String> {
        let Some(subject) = self.certificates.subject(chain, now)? else {
            return Ok(None);
        };
        let name = &*subject.name;
        if !self.allowed_names.is_empty() && !self.allowed_names.iter().any(|allowed| allowed == name) {
            return Err(format!("x509: subject with cn={name} is not in the allowed list"));
        }
        self.headers.user(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Authority, Pair};
    use base::random::Random;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
        rustls_pemfile::certs(&mut pair.certificate_pem.as_bytes())
            .map(Result::unwrap)
            .collect()
    }

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn only_an_allowed_proxy_is_believed() {
        let authority = Authority::generate("proxies", at(0), Random::seeded(1)).unwrap();
        let stranger = Authority::generate("proxies", at(0), Random::seeded(2)).unwrap();
        let sent = headers(&[("x-remote-user", "jane")]);
        let issue = |authority: &Authority, name: &str| chain(&authority.issue_client(name, None, at(0)).unwrap());
        let (proxy, other) = (issue(&authority, "aggregator"), issue(&authority, "jane"));
        for (allowed, shown, expect) in [
            (vec!["aggregator"], proxy.clone(), Ok(Some("jane"))),
            (vec![], other.clone(), Ok(Some("jane"))),
            (
                vec!["aggregator"],
                other,
                Err("x509: subject with cn=jane is not in the allowed list"),
            ),
            (vec![], issue(&stranger, "aggregator"), Err("verifying certificate: ")),
            (vec![], Vec::new(), Ok(None)),
        ] {
            let config = FrontProxyConfig {
                authorities_pem: authority.pair().certificate_pem.clone(),
                allowed_names: allowed.iter().map(|name| (*name).to_owned()).collect(),
                headers: ProxyHeaders::standard(),
            };
            let door = FrontProxy::new(&config).unwrap();
            match (door.authenticate(&shown, &sent, at(1)), expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got.as_ref().map(|user| &*user.name), expect),
                (Err(got), Err(expect)) => assert!(got.starts_with(expect), "{got}"),
                (got, expect) => panic!("{got:?} in place of {expect:?}"),
            }
            assert_eq!(door.authenticate(&proxy, &HeaderMap::new(), at(1)), Ok(None));
            // A proxy's certificate ends, too.
            let late = at(crate::pki::LEAF_SECONDS + 1);
            assert!(door.authenticate(&proxy, &sent, late).is_err());
        }
    }

    #[test]
    fn headers_say_who_it_is() {
        let names = ProxyHeaders {
            username: vec!["X-First".into(), "X-Remote-User".into()],
            group: vec!["X-Remote-Group".into(), "X-Group".into()],
            ..ProxyHeaders::standard()
        };
        let sent = headers(&[
            ("x-first", ""),
            ("x-remote-user", "jane"),
            ("x-remote-user", "system:admin"),
            ("x-remote-uid", "42"),
            ("x-remote-group", "a"),
            ("x-group", "c"),
            ("x-remote-group", "b"),
            ("x-remote-group", ""),
            ("X-Remote-Extra-Acme.com%2fProject", "p1"),
            ("x-remote-extra-acme.com%2Fproject", "p2"),
            ("x-remote-extra-bad%zz", "raw"),
        ]);
        let user = names.user(&sent).unwrap().unwrap();
        assert_eq!((&*user.name, &*user.uid), ("jane", "42"));
        assert_eq!(user.groups, ["a", "b", "c", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["p1", "p2"]);
        assert_eq!(user.extra["bad%zz"], ["raw"]);
        assert!(
            names
                .user(&headers(&[("x-remote-group", "system:masters")]))
                .unwrap()
                .is_none()
        );
        let mut broken = HeaderMap::new();
        broken.insert("x-remote-user", HeaderValue::from_bytes(b"j\xffne").unwrap());
        assert!(names.user(&broken).is_err());
    }

    #[test]
    fn nothing_of_them_goes_on() {
        let mut sent = headers(&[
            ("X-Remote-User", "jane"),
            ("X-Remote-Uid", "1"),
            ("X-Remote-Group", "a"),
            ("X-Remote-Group", "b"),
            ("X-Remote-Extra-Scopes", "x"),
            ("X-Remote-Extra-", "x"),
            ("X-Other", "stays"),
        ]);
        ProxyHeaders::standard().clear(&mut sent);
        let left: Vec<&str> = sent.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-other"]);
    }
}
