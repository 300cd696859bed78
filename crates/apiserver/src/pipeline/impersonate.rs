//! Acting as somebody else: the `Impersonate-*` headers, each part authorized by itself.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/filters/impersonation/impersonation.go`.

use std::collections::BTreeMap;

use http::HeaderMap;

use api::Status;

use crate::request::{Attributes, SYSTEM_ANONYMOUS, UserInfo, groups};

use super::{Authorizer, Decision, forbidden};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user to act as, when the headers name one and the requestor may; the headers are removed.
pub fn impersonate(
    authorizer: &dyn Authorizer,
    requestor: &UserInfo,
    headers: &mut HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).iter();
        all.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let name = values(USER).into_iter().next().unwrap_or_default();
    let wanted_groups = values(GROUP);
    let uid = values(UID).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for key in headers.keys() {
        let Some(encoded) = key.as_str().strip_prefix(EXTRA_PREFIX) else {
            continue;
        };
        let decoded = crate::request::percent_decode(encoded).unwrap_or_else(|| encoded.to_owned());
        extra.entry(decoded).or_default().extend(values(key.as_str()));
    }
    if name.is_empty() {
        if !wanted_groups.is_empty() || !extra.is_empty() || !uid.is_empty() {
            return Err(Status::bad_request(
                "requested impersonation of groups, extra or uid without impersonating a user",
            ));
        }
        return Ok(None);
    }

    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb: "impersonate".into(),
            group: group.into(),
            version: if group.is_empty() { String::new() } else { "v1".into() },
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        match authorizer.authorize(requestor, &attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(requestor, &attributes, &reason)),
        }
    };
    let mut user = UserInfo {
        name: name.clone(),
        uid,
        groups: wanted_groups,
        extra,
    };
    match service_account(&name) {
        Some((namespace, account)) => {
            check("", "serviceaccounts", "", namespace, account)?;
            if user.groups.is_empty() {
                user.groups = vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            } else {
                check_all(&user.groups, |group| check("", "groups", "", "", group))?;
            }
        }
        None => {
            check("", "users", "", "", &name)?;
            check_all(&user.groups, |group| check("", "groups", "", "", group))?;
        }
    }
    for (key, values) in &user.extra {
        check_all(values, |value| {
            check("authentication.k8s.io", "userextras", key, "", value)
        })?;
    }
    if !user.uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", &user.uid)?;
    }
    if user.name != SYSTEM_ANONYMOUS {
        user.ensure_authenticated_group();
    } else if !user.is_in(groups::UNAUTHENTICATED) {
        user.groups.push(groups::UNAUTHENTICATED.into());
    }

    let ours: Vec<_> = headers
        .keys()
        .filter(|key| key.as_str().starts_with("impersonate-"))
        .cloned()
        .collect();
    for key in ours {
        headers.remove(key);
    }
    Ok(Some(user))
}

fn check_all(values: &[String], check: impl Fn(&str) -> Result<(), Status>) -> Result<(), Status> {
    values.iter().try_for_each(|value| check(value))
}

/// The namespace and name of a service account's user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::RuleSet;

    /// Allows everything but what is named.
    struct Except(&'static str);

    impl Authorizer for Except {
        fn authorize(&self, _: &UserInfo, attributes: &Attributes) -> Decision {
            let asked = format!("{}/{}/{}", attributes.resource, attributes.subresource, attributes.name);
            if asked == self.0 {
                Decision::NoOpinion("no rule".into())
            } else {
                Decision::Allow(String::new())
            }
        }

        fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
            RuleSet::default()
        }
    }

    fn check(headers: &[(&'static str, &str)], refuse: &'static str) -> Result<Option<UserInfo>, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let result = impersonate(&Except(refuse), &UserInfo::new("admin", ["x"]), &mut map);
        if matches!(result, Ok(Some(_))) {
            assert!(map.is_empty(), "the headers are gone");
        }
        result
    }

    #[test]
    fn users_are_impersonated() {
        assert_eq!(check(&[], "").unwrap(), None);
        let user = check(&[(USER, "jane"), (GROUP, "dev"), ("impersonate-extra-a%2fb", "1")], "")
            .unwrap()
            .unwrap();
        assert_eq!(
            (&*user.name, user.groups),
            ("jane", vec!["dev".to_owned(), "system:authenticated".into()])
        );
        assert_eq!(user.extra["a/b"], ["1"]);
        let user = check(&[(USER, "system:serviceaccount:ns:sa")], "").unwrap().unwrap();
        assert_eq!(
            user.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                "system:authenticated"
            ]
        );
        let user = check(&[(USER, SYSTEM_ANONYMOUS)], "").unwrap().unwrap();
        assert_eq!(user.groups, ["system:unauthenticated"]);
    }

    #[test]
    fn each_part_needs_a_right() {
        let headers = [(USER, "jane"), (GROUP, "dev"), (UID, "7"), ("impersonate-extra-k", "v")];
        for refuse in ["users//jane", "groups//dev", "uids//7", "userextras/k/v"] {
            assert_eq!(check(&headers, refuse).unwrap_err().code, 403, "{refuse}");
        }
        assert_eq!(check(&[(GROUP, "dev")], "").unwrap_err().code, 400);
    }
}
