//! The modes of impersonation: whom each is for, what right to the user it takes, and what right to what is done then.
//!
//! In the constrained modes the verbs are `impersonate:MODE` for the user, in the group `authentication.k8s.io`, and
//! `impersonate-on:MODE:VERB` for the request. The old verb `impersonate` allows everything that the user may, and is tried
//! last.
//!
//! Source: `mode.go` of `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::borrow::Cow;

use api::field::Path;
use api::{Status, validation};

use crate::authorization::NODES_GROUP;
use crate::pipeline::{Authorizer, Decision, forbidden};
use crate::request::{Attributes, SYSTEM_ANONYMOUS, SYSTEM_MASTERS, UserInfo, groups};

const AUTHENTICATION: &str = "authentication.k8s.io";
/// Where a bound token tells the node of its pod.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What an authorizer sees of the extra fields of an account that acts as its own node: their names.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many groups or values on, a right to all of them is looked for first. Upstream's.
const MANY: usize = 4;

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// A service account acts as the node that its pod is on.
    AssociatedNode,
    /// Somebody acts as a node.
    ArbitraryNode,
    /// As a service account.
    ServiceAccount,
    /// As any other user.
    UserInfo,
    /// As anybody, without limits.
    Legacy,
}

// === impl Mode ===

impl Mode {
    /// In the order in which they are tried.
    pub(super) const ALL: [Mode; 5] = [
        Mode::AssociatedNode,
        Mode::ArbitraryNode,
        Mode::ServiceAccount,
        Mode::UserInfo,
        Mode::Legacy,
    ];

    /// The verb for the user.
    fn verb(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "impersonate:associated-node",
            Mode::ArbitraryNode => "impersonate:arbitrary-node",
            Mode::ServiceAccount => "impersonate:serviceaccount",
            Mode::UserInfo => "impersonate:user-info",
            Mode::Legacy => "impersonate",
        }
    }

    /// What the audit log tells.
    pub(super) fn constraint(self) -> &'static str {
        match self {
            Mode::Legacy => "",
            constrained => constrained.verb(),
        }
    }

    fn is_constrained(self) -> bool {
        self != Mode::Legacy
    }

    /// Whether it is for such a user.
    pub(super) fn applies(self, wanted: &UserInfo, requestor: &UserInfo) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node(&wanted.name), service_account(&wanted.name));
        match self {
            Mode::AssociatedNode => {
                let own = requestor.extra.get(NODE_NAME).map(Vec::as_slice);
                let is_account = service_account(&requestor.name).is_some();
                only_name && is_account && node.is_some_and(|node| own == Some(&[node.to_owned()]))
            }
            Mode::ArbitraryNode => only_name && node.is_some(),
            Mode::ServiceAccount => only_name && account.is_some(),
            Mode::UserInfo => node.is_none() && account.is_none(),
            Mode::Legacy => true,
        }
    }

    /// The user that the requestor may act as for this request.
    pub(super) async fn check(
        self,
        authorizer: &dyn Authorizer,
        requestor: &UserInfo,
        request: &Attributes,
        wanted: &UserInfo,
    ) -> Result<UserInfo, Status> {
        let requestor = match self {
            Mode::AssociatedNode => {
                let keys = requestor.extra.keys().cloned().collect();
                Cow::Owned(UserInfo {
                    extra: [(NODE_KEYS.to_owned(), keys)].into(),
                    ..requestor.clone()
                })
            }
            _ => Cow::Borrowed(requestor),
        };
        let check = Check {
            mode: self,
            authorizer,
            requestor: &requestor,
        };
        if let Some(mode) = self.verb().strip_prefix("impersonate:") {
            let on = Attributes {
                verb: format!("impersonate-on:{mode}:{}", request.verb),
                ..request.clone()
            };
            check.must(&on).await?;
        }
        let mut user = wanted.clone();
        check.name(&mut user).await?;
        if !wanted.uid.is_empty() {
            check.must(&check.about(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        check.groups(&wanted.groups).await?;
        check.extra(wanted).await?;
        if user.name == SYSTEM_ANONYMOUS {
            ensure(&mut user, groups::UNAUTHENTICATED);
        } else if !user.is_in(groups::UNAUTHENTICATED) {
            ensure(&mut user, groups::AUTHENTICATED);
        }
        Ok(user)
    }
}

fn ensure(user: &mut UserInfo, group: &str) {
    if !user.is_in(group) {
        user.groups.push(group.into());
    }
}

/// Who asks whom, in which mode.
struct Check<'a> {
    mode: Mode,
    authorizer: &'a dyn Authorizer,
    requestor: &'a UserInfo,
}

// === impl Check ===

impl Check<'_> {
    async fn must(&self, attributes: &Attributes) -> Result<(), Status> {
        let why = match self.authorizer.authorize(self.requestor, attributes).await {
            Decision::Allow(_) => return Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => reason,
            Decision::Failed { reason, error, .. } if reason.is_empty() => error,
            Decision::Failed { reason, error, .. } => format!("{error}: {reason}"),
        };
        Err(forbidden(self.requestor, attributes, &why))
    }

    fn refuse(&self, attributes: &Attributes, why: &str) -> Status {
        forbidden(self.requestor, attributes, why)
    }

    /// The right to one part of a user.
    fn about(&self, group: &str, resource: &str, name: &str) -> Attributes {
        Attributes {
            verb: self.mode.verb().into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    /// Names and groups are of the core group for the old verb.
    fn group_of_users(&self) -> &'static str {
        if self.mode.is_constrained() { AUTHENTICATION } else { "" }
    }

    /// The user's name; what it says of the groups is filled in.
    async fn name(&self, user: &mut UserInfo) -> Result<(), Status> {
        let mut about = self.about(self.group_of_users(), "users", &user.name);
        if let Some(node) = node(&user.name).filter(|_| self.mode.is_constrained()) {
            about.resource = "nodes".into();
            about.name = match self.mode {
                // The right is to the node that it runs on, whichever that is.
                Mode::AssociatedNode => "*".into(),
                _ => node.to_owned(),
            };
            user.groups = vec![NODES_GROUP.into()];
        }
        if let Some((namespace, account)) = service_account(&user.name) {
            about.resource = "serviceaccounts".into();
            about.namespace = namespace.into();
            about.name = account.into();
            if user.groups.is_empty() {
                user.groups = vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
        }
        self.must(&about).await
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let about = |name: &str| self.about(self.group_of_users(), "groups", name);
        if self.mode.is_constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(self.refuse(&about(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|group| group == SYSTEM_MASTERS) {
                let why = "impersonating the system:masters group is not allowed";
                return Err(self.refuse(&about(SYSTEM_MASTERS), why));
            }
            if groups.len() >= MANY && self.must(&about("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            self.must(&about(group)).await?;
        }
        Ok(())
    }

    async fn extra(&self, wanted: &UserInfo) -> Result<(), Status> {
        let about = |key: &str, value: &str| Attributes {
            subresource: key.into(),
            ..self.about(AUTHENTICATION, "userextras", value)
        };
        let mut pairs = Vec::new();
        for (key, values) in &wanted.extra {
            pairs.extend(values.iter().map(|value| (key.as_str(), value.as_str())));
        }
        if self.mode.is_constrained() {
            for (key, values) in &wanted.extra {
                check_extra(key, values).map_err(|why| self.refuse(&about("", ""), &why))?;
            }
            let is_large = wanted.extra.len() >= MANY || pairs.len() >= MANY;
            if is_large && self.must(&about("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, value) in pairs {
            self.must(&about(key, value)).await?;
        }
        Ok(())
    }
}

/// What a field of a user must be like in constrained modes. Source: `validateExtra`.
fn check_extra(key: &str, values: &[String]) -> Result<(), String> {
    if key.is_empty() {
        return Err("impersonating the empty string key in extra is not allowed".into());
    }
    let broken = validation::domain_prefixed_path(&Path::new("extra").child("key"), key);
    if !broken.is_empty() {
        let why = api::field::aggregate(&broken);
        return Err(format!("impersonating an invalid key in extra is not allowed: {why}"));
    }
    if key.chars().any(char::is_uppercase) {
        let key = api::field::quote(key);
        return Err(format!(
            "impersonating a non-lowercase key in extra is not allowed: {key}"
        ));
    }
    if values.is_empty() {
        return Err("impersonating empty values in extra is not allowed".into());
    }
    if values.iter().any(String::is_empty) {
        return Err("impersonating the empty string value in extra is not allowed".into());
    }
    Ok(())
}

/// The namespace and name of a service account's user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let is_valid = validation::dns1123_label(namespace).is_empty() && validation::dns1123_subdomain(name).is_empty();
    is_valid.then_some((namespace, name))
}

/// The name of a node's user name.
fn node(user: &str) -> Option<&str> {
    let name = user.strip_prefix("system:node:")?;
    validation::dns1123_subdomain(name).is_empty().then_some(name)
}
