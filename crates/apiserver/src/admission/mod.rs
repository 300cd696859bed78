//! The admission plug-ins of this server, in upstream's order.
//!
//! Each is a plain decision over the old and the new object and the state in memory; none of them calls the API.

mod certificates;
mod claim_resize;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_in_use;
mod taint_nodes_by_condition;

use std::sync::Arc;

use base::random::Random;

pub use certificates::Certificates;
pub use claim_resize::PersistentVolumeClaimResize;
pub use default_class::DefaultClass;
pub use default_toleration_seconds::DefaultTolerationSeconds;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use pod_security::PodSecurity;
pub use priority::Priority;
pub use rbac_escalation::RbacEscalation;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use service_account::ServiceAccount;
pub use storage_in_use::StorageObjectInUseProtection;
pub use taint_nodes_by_condition::TaintNodesByCondition;

use crate::authorization::Rbac;
use crate::pipeline::{Authorizer, Plugin};

/// All plug-ins, in upstream's recommended order.
/// Source: `pkg/kubeapiserver/options/plugins.go` (`AllOrderedPlugins`).
pub fn plugins(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>, random: Random) -> Vec<Arc<dyn Plugin>> {
    vec![
        Arc::new(NamespaceLifecycle),
        Arc::new(LimitRanger),
        Arc::new(ServiceAccount::new(random)),
        Arc::new(NodeRestriction::new(authorizer.clone())),
        Arc::new(TaintNodesByCondition),
        Arc::new(PodSecurity),
        Arc::new(Priority),
        Arc::new(DefaultTolerationSeconds),
        Arc::new(DefaultClass::STORAGE),
        Arc::new(StorageObjectInUseProtection),
        Arc::new(PersistentVolumeClaimResize),
        Arc::new(RuntimeClass),
        Arc::new(Certificates::new(authorizer.clone())),
        Arc::new(DefaultClass::INGRESS),
        Arc::new(RbacEscalation::new(rbac, authorizer)),
        // Last: what is refused by others is not charged.
        Arc::new(ResourceQuota::default()),
    ]
}

#[cfg(test)]
pub(crate) mod testing;
