//! What policies and webhooks of administrators, and Pod Security, decide about requests.

use super::conditions::ConditionMetrics;
use super::names::Names;
use super::pod_security::PodSecurityMetrics;
use super::policies::PolicyMetrics;
use super::webhooks::WebhookMetrics;

/// The metrics of dynamic admission.
#[derive(Default)]
pub struct DynamicMetrics {
    /// Policies.
    pub policies: PolicyMetrics,
    /// Webhooks.
    pub webhooks: WebhookMetrics,
    /// The match conditions of both.
    pub conditions: ConditionMetrics,
    /// Pod Security.
    pub pod_security: PodSecurityMetrics,
}

impl DynamicMetrics {
    pub(super) fn register(&self, r: &mut Names) {
        self.policies.register(r);
        self.webhooks.register(r);
        self.conditions.register(r);
        self.pod_security.register(r);
    }
}
