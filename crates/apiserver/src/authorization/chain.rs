//! Several authorizers as one: the first that has an opinion decides.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::metrics::Decisions;
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, SYSTEM_MASTERS, UserInfo};

/// The administrators' group, then every authorizer of the chain in order. Nobody has an opinion: the reasons of all.
/// Source: `k8s.io/apiserver/pkg/authorization/union/union.go`.
pub struct Chain {
    authorizers: Vec<(Arc<dyn Authorizer>, Decisions)>,
}

impl Chain {
    /// A chain in order of precedence.
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Chain {
        let uncounted = |authorizer| (authorizer, Decisions::default());
        Chain::counted(authorizers.into_iter().map(uncounted).collect())
    }

    /// The same; each has counters of what it decided.
    pub fn counted(authorizers: Vec<(Arc<dyn Authorizer>, Decisions)>) -> Chain {
        Chain { authorizers }
    }

    async fn ask(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        for (authorizer, decisions) in &self.authorizers {
            match authorizer.authorize(user, attributes).await {
                Decision::NoOpinion(reason) => reasons.push(reason),
                Decision::Failed {
                    denies: false,
                    reason,
                    error,
                } => {
                    reasons.push(reason);
                    errors.push(error);
                }
                decided => {
                    decisions.count(decided.allows());
                    return decided;
                }
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        let reason = reasons.join("\n");
        let error = match &mut errors[..] {
            [] => return Decision::NoOpinion(reason),
            [one] => std::mem::take(one),
            many => format!("[{}]", many.join(", ")),
        };
        Decision::Failed {
            denies: false,
            reason,
            error,
        }
    }
}

impl Authorizer for Chain {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        if user.is_in(SYSTEM_MASTERS) {
            return Decision::Allow(String::new()).now();
        }
        Box::pin(self.ask(user, attributes))
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet {
        let mut all = RuleSet::default();
        // The administrators' group has its rules from the binding `cluster-admin`.
        for (authorizer, _) in &self.authorizers {
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

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Answers what it is.
    struct Says(Decision);

    impl Authorizer for Says {
        fn authorize<'a>(&'a self, _: &'a UserInfo, _: &'a Attributes) -> BoxFuture<'a, Decision> {
            self.0.clone().now()
        }

        fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
            RuleSet::default()
        }
    }

    #[test]
    fn the_first_opinion_decides() {
        let yes = || Decision::Allow("yes".into());
        let deny = || Decision::Deny("never".into());
        let none = |why: &str| Decision::NoOpinion(why.into());
        let failed = |denies: bool, why: &str| Decision::Failed {
            denies,
            reason: String::new(),
            error: why.into(),
        };
        for (chain, expect) in [
            (vec![none("a"), yes(), deny()], yes()),
            (vec![none("a"), deny(), yes()], deny()),
            (vec![none("a"), none(""), none("b")], none("a\nb")),
            (vec![failed(false, "down"), yes()], yes()),
            (vec![failed(true, "down"), yes()], failed(true, "down")),
            (vec![failed(false, "x"), failed(false, "y")], failed(false, "[x, y]")),
            (vec![], none("")),
        ] {
            let told = format!("{chain:?}");
            let chain = Chain::new(chain.into_iter().map(|says| Arc::new(Says(says)) as _).collect());
            let (jane, root) = (UserInfo::new("jane", ["dev"]), UserInfo::new("root", [SYSTEM_MASTERS]));
            assert_eq!(
                block_on(chain.authorize(&jane, &Attributes::default())),
                expect,
                "{told}"
            );
            assert!(block_on(chain.authorize(&root, &Attributes::default())).allows());
        }
    }
}
