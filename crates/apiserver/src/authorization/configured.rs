//! The authorizers that a configuration names, put together; and exchanged while the server runs.
//!
//! Source: `pkg/kubeapiserver/authorizer/reload.go`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base::Random;
use futures::future::BoxFuture;

use super::config::{AuthorizerConfiguration, Connection};
use super::{Abac, AlwaysAllow, AlwaysDeny, Chain, Webhook};
use crate::hook::{Hook, RETRY_PAUSE, ReadFile, Target};
use crate::metrics::shared;
use crate::pipeline::{Authorizer, Decision, RuleSet};
use crate::request::{Attributes, UserInfo};

/// A configuration whose webhooks can be asked; those that look at the cluster come when it can be read.
#[derive(Clone)]
pub struct Prepared(Vec<Entry>);

#[derive(Clone)]
enum Entry {
    Node,
    Rbac,
    /// One that is ready, its type and its name.
    Ready(Arc<dyn Authorizer>, &'static str, String),
}

/// The authorizers of a server.
pub struct Configured {
    node: Arc<dyn Authorizer>,
    rbac: Arc<dyn Authorizer>,
    current: ArcSwap<Chain>,
}

// === impl Prepared ===

impl Prepared {
    /// What a server has when nobody says: kubelets by the Node authorizer, all others by RBAC.
    pub fn usual() -> Prepared {
        Prepared(vec![Entry::Node, Entry::Rbac])
    }

    /// Reads what the webhooks' files say. ABAC decides by `policies`.
    ///
    /// # Errors
    /// A webhook cannot be asked as they say, or there are no policies for ABAC.
    pub fn new(
        config: &[AuthorizerConfiguration],
        policies: Option<&Abac>,
        read: &ReadFile,
        random: &Random,
    ) -> Result<Prepared, String> {
        let entries = config.iter().map(|one| {
            Ok(match one {
                AuthorizerConfiguration::Node => Entry::Node,
                AuthorizerConfiguration::Rbac => Entry::Rbac,
                AuthorizerConfiguration::Abac => {
                    let policies = policies.ok_or("authorization-mode ABAC's authorization policy file not passed")?;
                    Entry::Ready(Arc::new(policies.clone()), "ABAC", "abac".into())
                }
                AuthorizerConfiguration::AlwaysAllow => {
                    Entry::Ready(Arc::new(AlwaysAllow), "AlwaysAllow", "alwaysallow".into())
                }
                AuthorizerConfiguration::AlwaysDeny => {
                    Entry::Ready(Arc::new(AlwaysDeny), "AlwaysDeny", "alwaysdeny".into())
                }
                AuthorizerConfiguration::Webhook(webhook) => {
                    let target = match &webhook.connection {
                        Connection::KubeConfigFile(file) => Target::from_kubeconfig(file, read)?,
                        Connection::InCluster => {
                            return Err("unable to load in-cluster configuration: this server is no pod".into());
                        }
                    };
                    let hook = Hook::new(target, webhook.timeout, RETRY_PAUSE, random.fork())?;
                    let authorizer = Arc::new(Webhook::new(hook, webhook)?);
                    Entry::Ready(authorizer, "Webhook", webhook.name.clone())
                }
            })
        });
        entries.collect::<Result<Vec<Entry>, String>>().map(Prepared)
    }
}

// === impl Configured ===

impl Configured {
    /// The authorizers of a configuration, over those that look at the cluster.
    pub fn new(node: Arc<dyn Authorizer>, rbac: Arc<dyn Authorizer>, prepared: &Prepared) -> Configured {
        let current = ArcSwap::from_pointee(chain(&node, &rbac, prepared));
        Configured { node, rbac, current }
    }

    /// Requests from now on are for these.
    pub fn replace(&self, prepared: &Prepared) {
        self.current.store(Arc::new(chain(&self.node, &self.rbac, prepared)));
    }
}

fn chain(node: &Arc<dyn Authorizer>, rbac: &Arc<dyn Authorizer>, prepared: &Prepared) -> Chain {
    let entries = prepared.0.iter().map(|entry| {
        let (authorizer, kind, name) = match entry {
            Entry::Node => (node, "Node", "node"),
            Entry::Rbac => (rbac, "RBAC", "rbac"),
            Entry::Ready(authorizer, kind, name) => (authorizer, *kind, &**name),
        };
        (authorizer.clone(), shared().authorizers.decisions(kind, name))
    });
    Chain::counted(entries.collect())
}

impl Authorizer for Configured {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let current = self.current.load_full();
        Box::pin(async move { current.authorize(user, attributes).await })
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> RuleSet {
        self.current.load().rules(user, namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn another_configuration_counts_at_once() {
        let read: ReadFile = Arc::new(|_| Err(io::ErrorKind::NotFound.into()));
        let prepare = |config: &[AuthorizerConfiguration]| Prepared::new(config, None, &read, &Random::seeded(1));
        let refusing: Arc<dyn Authorizer> = Arc::new(AlwaysDeny);
        let configured = Configured::new(refusing.clone(), refusing, &Prepared::usual());
        let jane = UserInfo::new("jane", ["dev"]);
        let ask = || block_on(configured.authorize(&jane, &Attributes::default()));
        let twice = "Everything is forbidden.\nEverything is forbidden.";
        assert_eq!(ask(), Decision::NoOpinion(twice.into()));
        configured.replace(&prepare(&[AuthorizerConfiguration::AlwaysAllow]).unwrap());
        assert!(ask().allows());
        assert_eq!(configured.rules(&jane, "a").resource_rules.len(), 1);
        configured.replace(&prepare(&[AuthorizerConfiguration::AlwaysDeny]).unwrap());
        assert_eq!(ask(), Decision::NoOpinion("Everything is forbidden.".into()));
    }
}
