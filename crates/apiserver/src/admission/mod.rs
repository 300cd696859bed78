//! The admission plug-ins of this server, in upstream's order.
//!
//! Each is a decision over the old and the new object and the state in memory; none of them calls the API but
//! NamespaceAutoProvision, and webhooks only ask others.

mod certificates;
mod claim_access;
mod claim_resize;
mod declared_features;
mod default_class;
mod default_toleration_seconds;
mod dynamic;
mod event_rate_limit;
mod image_policy;
mod judge;
mod limit_ranger;
mod namespace_auto_provision;
mod namespace_lifecycle;
mod node_restriction;
mod node_selector;
mod optional;
mod owner_references;
mod pod_resize;
mod pod_security;
mod policy;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod selection;
mod service_account;
mod storage_in_use;
mod taint_nodes_by_condition;
mod tolerations;
mod topology_labels;
pub(crate) mod webhook;

use std::sync::Arc;

use base::random::Random;

pub use certificates::Certificates;
pub use claim_access::ClaimAccess;
pub use claim_resize::PersistentVolumeClaimResize;
pub use declared_features::NodeDeclaredFeatures;
pub use default_class::DefaultClass;
pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use event_rate_limit::EventRateLimit;
pub use image_policy::{ImagePolicyConfig, ImagePolicyWebhook};
pub use limit_ranger::LimitRanger;
pub use namespace_auto_provision::NamespaceAutoProvision;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use node_selector::PodNodeSelector;
pub use optional::Optional;
pub use owner_references::OwnerReferences;
pub use pod_resize::PodResizeValidator;
pub use pod_security::PodSecurity;
pub use policy::{MutatingPolicies, PolicyRights, ValidatingPolicies};
pub use priority::Priority;
pub use rbac_escalation::RbacEscalation;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use selection::Selection;
pub use service_account::ServiceAccount;
pub use storage_in_use::StorageObjectInUseProtection;
pub use taint_nodes_by_condition::TaintNodesByCondition;
pub use tolerations::PodTolerationRestriction;
pub use topology_labels::PodTopologyLabels;
pub use webhook::{MutatingWebhooks, ValidatingWebhooks, WebhookConfig};

use crate::authorization::Rbac;
use crate::pipeline::{Authorizer, Plugin};

/// The plug-ins of a selection, in upstream's recommended order.
/// Source: `pkg/kubeapiserver/options/plugins.go` (`AllOrderedPlugins`).
pub fn plugins(
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
    random: Random,
    selection: &Selection,
) -> Vec<Arc<dyn Plugin>> {
    let checked = "invariant: a selection's configurations were read when it was made";
    let mut all: Vec<Arc<dyn Plugin>> = vec![
        Arc::new(Optional::ALWAYS_ADMIT),
        Arc::new(NamespaceAutoProvision::default()),
        Arc::new(NamespaceLifecycle),
        Arc::new(Optional::NAMESPACE_EXISTS),
        Arc::new(Optional::LIMIT_POD_HARD_ANTI_AFFINITY_TOPOLOGY),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount::new(random.fork())),
        Arc::new(NodeRestriction::new(authorizer.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(Optional::ALWAYS_PULL_IMAGES),
    ];
    let image_policy = selection.image_policy().map(|config| {
        let plugin = ImagePolicyWebhook::new(config.clone(), random.fork()).expect(checked);
        Arc::new(plugin) as Arc<dyn Plugin>
    });
    all.extend(image_policy);
    all.push(Arc::new(selection.pod_security().expect(checked)));
    if let Some(plugin) = selection.pod_node_selector().expect(checked) {
        all.push(Arc::new(plugin));
    }
    all.extend([
        Arc::new(Priority) as Arc<dyn Plugin>,
        Arc::new(DefaultTolerationSeconds),
    ]);
    if let Some(plugin) = selection.pod_toleration_restriction().expect(checked) {
        all.push(Arc::new(plugin));
    }
    if let Some(plugin) = selection.event_rate_limit().expect(checked) {
        all.push(Arc::new(plugin));
    }
    all.extend([
        Arc::new(Optional::EXTENDED_RESOURCE_TOLERATION) as Arc<dyn Plugin>,
        Arc::new(DefaultClass::STORAGE),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(OwnerReferences::new(authorizer.clone())),
        Arc::new(PersistentVolumeClaimResize),
        Arc::new(RuntimeClass),
    ]);
    all.extend(Certificates::all(&authorizer).map(|plugin| Arc::new(plugin) as Arc<dyn Plugin>));
    all.extend([
        Arc::new(DefaultClass::INGRESS) as Arc<dyn Plugin>,
        Arc::new(Optional::DENY_SERVICE_EXTERNAL_IPS),
        Arc::new(PodTopologyLabels),
        Arc::new(NodeDeclaredFeatures),
        Arc::new(PodResizeValidator),
        Arc::new(MutatingPolicies::new(authorizer.clone())),
        Arc::new(MutatingWebhooks::new(
            authorizer.clone(),
            selection.mutating_webhooks(),
            random.fork(),
        )),
        Arc::new(ValidatingPolicies::new(authorizer.clone())),
        Arc::new(ValidatingWebhooks::new(
            authorizer.clone(),
            selection.validating_webhooks(),
            random.fork(),
        )),
        // Last: what is refused by others is not charged.
        Arc::new(selection.resource_quota().expect(checked)),
        Arc::new(Optional::ALWAYS_DENY),
    ]);
    all.retain(|plugin| selection.has(plugin.name()));
    // Upstream has them in the registries of roles, policies and claims: nobody turns them off.
    let before_quota = all
        .iter()
        .position(|plugin| plugin.name() == "ResourceQuota")
        .unwrap_or(all.len());
    all.insert(before_quota, Arc::new(RbacEscalation::new(rbac, authorizer.clone())));
    all.insert(before_quota, Arc::new(PolicyRights::new(authorizer.clone())));
    all.insert(before_quota, Arc::new(ClaimAccess::new(authorizer)));
    all
}

#[cfg(test)]
mod tests {
    use super::testing::World;
    use super::*;

    #[test]
    fn every_plugin_that_is_selected_is_there() {
        let world = World::default();
        let rbac = Arc::new(Rbac::new(&world));
        let all = plugins(rbac.clone(), rbac, Random::seeded(1), &Selection::default());
        let names: Vec<&str> = all
            .iter()
            .map(|plugin| plugin.name())
            .filter(|name| !["RBACEscalation", "PolicyParameterRights", "ResourceClaimAccess"].contains(name))
            .collect();
        assert_eq!(names, Selection::default().names());
    }
}

#[cfg(test)]
pub(crate) mod testing;
