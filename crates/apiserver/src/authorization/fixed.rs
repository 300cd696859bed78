//! Authorizers with one answer for everybody: `AlwaysAllow` and `AlwaysDeny`.
//!
//! Source: `k8s.io/apiserver/pkg/authorization/authorizerfactory/builtin.go`.

use futures::future::BoxFuture;
use serde_json::json;

use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};

/// Everybody may do everything.
pub struct AlwaysAllow;

/// Nobody may do anything, unless another authorizer says so.
pub struct AlwaysDeny;

impl Authorizer for AlwaysAllow {
    fn authorize<'a>(&'a self, _: &'a UserInfo, _: &'a Attributes) -> BoxFuture<'a, Decision> {
        Decision::Allow(String::new()).now()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet {
            resource_rules: vec![json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})],
            non_resource_rules: vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})],
            ..RuleSet::default()
        }
    }
}

impl Authorizer for AlwaysDeny {
    fn authorize<'a>(&'a self, _: &'a UserInfo, _: &'a Attributes) -> BoxFuture<'a, Decision> {
        Decision::NoOpinion("Everything is forbidden.".into()).now()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet::default()
    }
}
