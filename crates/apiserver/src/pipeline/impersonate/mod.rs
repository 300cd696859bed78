//! Acting as somebody else: the `Impersonate-*` headers, each part authorized by itself, and what is done then too, in the
//! modes of constrained impersonation (KEP-5284).
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/impersonation`. Upstream remembers for ten seconds what it allowed, and the
//! mode that a user used last; here each request is judged anew, from memory, or by what a webhook's answers are
//! remembered for.

mod modes;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::HeaderMap;

use api::Status;

use crate::request::{Attributes, UserInfo};

use super::Authorizer;
use modes::Mode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// As whom a requestor acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonated {
    /// The user.
    pub user: UserInfo,
    /// The verb that allowed it in constrained impersonation; empty for the old verb `impersonate`.
    pub constraint: &'static str,
}

/// The user to act as, when the headers name one and the requestor may; the headers are removed.
pub async fn impersonate(
    authorizer: &dyn Authorizer,
    requestor: &UserInfo,
    request: &Attributes,
    headers: &mut HeaderMap,
) -> Result<Option<Impersonated>, Status> {
    let Some(wanted) = wanted(headers)? else {
        return Ok(None);
    };
    let mut first = None;
    for mode in Mode::ALL {
        if !mode.applies(&wanted, requestor) {
            continue;
        }
        match mode.check(authorizer, requestor, request, &wanted).await {
            Ok(user) => {
                let constraint = mode.constraint();
                return Ok(Some(Impersonated { user, constraint }));
            }
            Err(status) => first = first.or(Some(status)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// Whom the headers name; they are removed then.
fn wanted(headers: &mut HeaderMap) -> Result<Option<UserInfo>, Status> {
    let ours: Vec<_> = headers
        .keys()
        .filter(|key| key.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    if ours.is_empty() {
        return Ok(None);
    }
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in &ours {
        let Some(encoded) = key.as_str().strip_prefix(EXTRA_PREFIX) else {
            continue;
        };
        let decoded = crate::request::percent_decode(encoded).unwrap_or_else(|| encoded.to_owned());
        extra.entry(decoded).or_default().extend(values(key.as_str()));
    }
    let wanted = UserInfo {
        name: first(USER),
        uid: first(UID),
        groups: values(GROUP),
        extra,
    };
    if wanted.name.is_empty() {
        if wanted == UserInfo::default() {
            return Ok(None);
        }
        let why = format!("requested {} without impersonating a user name", in_go(&wanted));
        return Err(Status::bad_request(why));
    }
    for key in ours {
        headers.remove(key);
    }
    Ok(Some(wanted))
}

/// The user as Go shows a `user.DefaultInfo`.
fn in_go(user: &UserInfo) -> String {
    let quote = api::field::quote;
    let list = |texts: &[String]| match texts {
        [] => "[]string(nil)".to_owned(),
        texts => {
            let all: Vec<String> = texts.iter().map(|text| quote(text)).collect();
            format!("[]string{{{}}}", all.join(", "))
        }
    };
    let mut text = format!(
        "&user.DefaultInfo{{Name:{}, UID:{}, ",
        quote(&user.name),
        quote(&user.uid)
    );
    let extra: Vec<String> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{}:{}", quote(key), list(values)))
        .collect();
    let extra = match &extra[..] {
        [] => "(nil)".to_owned(),
        extra => format!("{{{}}}", extra.join(", ")),
    };
    let _ = write!(
        text,
        "Groups:{}, Extra:map[string][]string{extra}}}",
        list(&user.groups)
    );
    text
}

#[cfg(test)]
mod tests;
