//! What PodDisruptionBudgets say of victims: which pods would go although their budget lets none go.
//!
//! Source: `filterPodsWithPDBViolation` of `plugins/defaultpreemption`.

use std::sync::Arc;

use api::selector::LabelSelector;

use crate::pod::{Pod, PodKey};
use crate::view::{BudgetView, PodView};

/// The budgets, and the pods as they are read, for their labels: decisions need them nowhere else.
pub struct Budgets<'a> {
    budgets: Vec<(Arc<BudgetView>, LabelSelector)>,
    view: &'a dyn Fn(&PodKey) -> Option<Arc<PodView>>,
}

// === impl Budgets ===

impl<'a> Budgets<'a> {
    /// Of these budgets; one whose selector cannot be read, or selects nothing or everything, protects nobody.
    pub fn new(budgets: Vec<Arc<BudgetView>>, view: &'a dyn Fn(&PodKey) -> Option<Arc<PodView>>) -> Budgets<'a> {
        let with_selector = |budget: Arc<BudgetView>| {
            let selector = LabelSelector::from_object(&budget.spec.selector).ok()?;
            (!selector.is_everything()).then_some((budget, selector))
        };
        Budgets {
            budgets: budgets.into_iter().filter_map(with_selector).collect(),
            view,
        }
    }

    /// Of pods in the order in which they would be spared, those whose budget would not let them go if all went.
    pub fn violated(&self, pods: &[Arc<Pod>]) -> Vec<bool> {
        if self.budgets.is_empty() {
            return vec![false; pods.len()];
        }
        let mut allowed: Vec<i32> = self
            .budgets
            .iter()
            .map(|(budget, _)| budget.status.disruptions_allowed)
            .collect();
        let violates = |pod: &Arc<Pod>| {
            let Some(view) = (self.view)(&pod.key) else {
                return false;
            };
            let labels = &view.metadata.labels;
            let mut violated = false;
            for ((budget, selector), allowed) in self.budgets.iter().zip(&mut allowed) {
                let matches = !labels.is_empty()
                    && *budget.metadata.namespace == *pod.key.namespace
                    && selector.matches(|key| labels.get(key).map(String::as_str));
                // One that the API server let go already is counted.
                if matches && !budget.status.disrupted_pods.contains_key(&*pod.key.name) {
                    *allowed -= 1;
                    violated |= *allowed < 0;
                }
            }
            violated
        };
        pods.iter().map(violates).collect()
    }
}
