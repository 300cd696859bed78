//! The stages that every request passes, in their order, and the traits by which others plug into them.
//!
//! connection -> authentication (and impersonation) -> audit -> flow control -> authorization -> verb. See design D6.

pub mod admission;
pub mod identity;
mod impersonate;
mod reinvocation;
mod span;
mod stages;

pub use crate::metrics::Step;
pub use admission::{Annotation, Operation, Plugin, Review};
pub use identity::{
    Anonymous, Authenticator, Authorizer, Credentials, Decision, Identity, Refusal, RuleSet, TokenIssuer, Told,
};
pub use reinvocation::{Mutator, Reinvocation};
pub use stages::{Peer, handle};

use api::{GroupResource, Status};

use crate::request::{Attributes, UserInfo};

/// The reason of a yes, or what a request that was not allowed is answered. An authorizer that could not find out is our
/// failure, not the client's.
/// Source: `withAuthorization` of `k8s.io/apiserver/pkg/endpoints/filters/authorization.go`.
pub fn must_allow(decision: Decision, user: &UserInfo, attributes: &Attributes) -> Result<String, Status> {
    match decision {
        Decision::Allow(reason) => Ok(reason),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(user, attributes, &reason)),
        Decision::Failed { error, .. } => Err(Status::internal(error)),
    }
}

/// The 403 of an authorizer's refusal, worded as upstream's `ForbiddenStatusError`.
pub fn forbidden(user: &UserInfo, attributes: &Attributes, reason: &str) -> Status {
    let quote = api::field::quote;
    let verb = &attributes.verb;
    let who = quote(&user.name);
    let mut message = if !attributes.is_resource {
        format!("User {who} cannot {verb} path {}", quote(&attributes.path))
    } else {
        let resource = match &*attributes.subresource {
            "" => attributes.resource.clone(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let group = quote(&attributes.group);
        let place = match &*attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", quote(namespace)),
        };
        format!(
            "User {who} cannot {verb} resource {} in API group {group} {place}",
            quote(&resource)
        )
    };
    // Nothing in the message may look like HTML to a browser.
    message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    let resource = GroupResource {
        group: attributes.group.clone(),
        resource: attributes.resource.clone(),
    };
    Status::forbidden(&resource, &attributes.name, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_upstream() {
        let user = UserInfo::new("jane", ["dev"]);
        let base = Attributes {
            verb: "get".into(),
            resource: "pods".into(),
            is_resource: true,
            ..Default::default()
        };
        for (attributes, expect) in [
            (
                Attributes {
                    namespace: "a".into(),
                    name: "x".into(),
                    ..base.clone()
                },
                r#"pods "x" is forbidden: User "jane" cannot get resource "pods" in API group "" in the namespace "a": no rule"#,
            ),
            (
                Attributes {
                    verb: "list".into(),
                    subresource: "log".into(),
                    ..base.clone()
                },
                r#"pods is forbidden: User "jane" cannot list resource "pods/log" in API group "" at the cluster scope: no rule"#,
            ),
            (
                Attributes {
                    verb: "get".into(),
                    path: "/<x>".into(),
                    ..Default::default()
                },
                r#"forbidden: User "jane" cannot get path "/&lt;x&gt;": no rule"#,
            ),
        ] {
            assert_eq!(forbidden(&user, &attributes, "no rule").message, expect);
        }
    }
}
