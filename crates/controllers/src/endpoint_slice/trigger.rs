//! Since when a change of endpoints is due: the moment of the oldest of the news that made it necessary.
//!
//! Source: `staging/src/k8s.io/endpointslice/util/trigger_time_tracker.go`.

use std::collections::HashMap;
use std::sync::Arc;

use client::Meta;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::backends::Service;
use crate::context::Name;
use crate::views::{Pod, condition};

/// What was known of each service when its slices were written last.
#[derive(Default)]
pub(super) struct Triggers(Mutex<HashMap<Name, Known>>);

#[derive(Default)]
struct Known {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

// === impl Triggers ===

impl Triggers {
    /// The oldest moment of what is new since the last call; for a service seen for the first time, its creation.
    pub(super) fn of_change(&self, key: &Name, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let changes = pods.iter().filter_map(|pod| {
            let ready = condition(&pod.status.conditions, "Ready")?;
            Some((pod.metadata.name().to_owned(), ready.last_transition_time.as_ref()?.0))
        });
        let now = Known {
            service: created,
            pods: changes.collect(),
        };
        let mut all = self.0.lock();
        let Some(before) = all.get(key) else {
            all.insert(key.clone(), now);
            return created;
        };
        let pods = now
            .pods
            .iter()
            .filter(|(name, at)| before.pods.get(*name).is_none_or(|seen| *at > seen));
        let service = created.filter(|at| before.service.is_none_or(|seen| *at > seen));
        let oldest = pods.map(|(_, at)| *at).chain(service).min();
        all.insert(key.clone(), now);
        oldest
    }

    /// The service is gone.
    pub(super) fn forget(&self, key: &Name) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_oldest_of_what_is_new() {
        let at = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
        let service = |second: u32| -> Service {
            serde_json::from_value(json!({"metadata": {"name": "s", "creationTimestamp": at(second)}})).unwrap()
        };
        let pods = |changes: &[(&str, u32)]| -> Vec<Arc<Pod>> {
            let pod = |(name, second): &(&str, u32)| {
                let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": at(*second)}]);
                Arc::new(
                    serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions": ready}}))
                        .unwrap(),
                )
            };
            changes.iter().map(pod).collect()
        };
        let triggers = Triggers::default();
        let key = (String::from("n"), String::from("s"));
        for (created, changes, expect) in [
            (1, &[("a", 5)][..], Some(1)),
            (1, &[("a", 5)], None),
            (1, &[("a", 9), ("b", 7)], Some(7)),
            (1, &[("b", 7)], None),
            // Made anew under the same name.
            (12, &[("b", 15)], Some(12)),
        ] {
            let said = triggers.of_change(&key, &service(created), &pods(changes));
            assert_eq!(said, expect.map(|second| at(second).parse().unwrap()), "{changes:?}");
        }
    }
}
