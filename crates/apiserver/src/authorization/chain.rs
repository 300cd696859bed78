//! Several authorizers as one: the first that has an opinion decides.

use std::sync::Arc;

use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, SYSTEM_MASTERS, UserInfo};

/// The administrators' group, then every authorizer of the chain in order. Nobody has an opinion: the reasons of all.
pub struct Chain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Chain {
    /// A chain in order of precedence.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Chain {
        Chain { authorizers }
    }
}

impl Authorizer for Chain {
    fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.is_in(SYSTEM_MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(user, attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet {
        let mut all = RuleSet::default();
        // The administrators' group has its rules from the binding `cluster-admin`.
        for authorizer in &self.authorizers {
            let mut rules = authorizer.rules(user, namespace);
            all.resource_rules.append(&mut rules.resource_rules);
            all.non_resource_rules.append(&mut rules.non_resource_rules);
            all.incomplete |= rules.incomplete;
            if !rules.evaluation_error.is_empty() {
                let gap = if all.evaluation_error.is_empty() { "" } else { ", " };
                all.evaluation_error = format!("{}{gap}{}", all.evaluation_error, rules.evaluation_error);
            }
        }
        all
    }
}
