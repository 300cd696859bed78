//! The disruption controller: how many of its pods a PodDisruptionBudget lets go, for evictions to ask.
//!
//! Invariant: a budget that cannot be counted allows nothing. Every write names the version of the budget that was
//! counted: an eviction that was allowed meanwhile is not forgotten.
//!
//! Source: `pkg/controller/disruption`.

mod decide;
mod scale;

use std::sync::Arc;

use api::Value;
use client::events::ObjectReference;
use client::informer::{Delta, Informer};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Meta, resources};
use serde_json::json;

use crate::context::{Context, Name, name_of, synced, time_text};
use crate::views::Pod;
use decide::{Budget, BudgetStatus, TARGET};
use scale::Scales;

/// As upstream's, one at a time.
const WORKERS: usize = 1;

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let budgets = context.informers.informer::<Budget>();
    let pods = context.informers.informer::<Pod>();
    let queue = WorkQueue::<Name>::new().named("disruption");
    let stale = WorkQueue::<Name>::new().named("stale_pod_disruption");
    context.watch(&budgets, {
        let queue = queue.clone();
        move |delta| {
            if let Some(budget) = delta.object() {
                queue.add(name_of(&**budget));
            }
        }
    });
    let controller = Arc::new(Controller {
        scales: Scales::new(&context),
        context: context.clone(),
        budgets: budgets.clone(),
        pods: pods.clone(),
    });
    context.watch(&pods, {
        let (queue, stale, controller) = (queue.clone(), stale.clone(), controller.clone());
        move |delta| {
            match &delta {
                Delta::Added(pod) | Delta::Deleted(pod) => controller.note(pod, &queue),
                Delta::Updated { old, new } => {
                    if old.metadata.labels != new.metadata.labels {
                        controller.note(old, &queue);
                    }
                    controller.note(new, &queue);
                }
                Delta::Synced => {}
            }
            if let Delta::Added(pod) | Delta::Updated { new: pod, .. } = &delta
                && let Some(left) = decide::stale_in(pod, controller.context.clock.now())
            {
                stale.add_after(name_of(&**pod), left);
            }
        }
    });
    let scales = &controller.scales;
    let ready = vec![
        synced(&budgets),
        synced(&pods),
        synced(&scales.sets),
        synced(&scales.older),
        synced(&scales.deployments),
        synced(&scales.stateful),
    ];
    let counting = controller.clone();
    context.work(queue, ready, WORKERS, move |key| {
        let controller = counting.clone();
        async move { controller.sync(&key).await }
    });
    context.work(stale, vec![synced(&pods)], WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.clear(&key).await }
    });
}

struct Controller {
    context: Context,
    budgets: Informer<Budget>,
    pods: Informer<Pod>,
    scales: Scales,
}

// === impl Controller ===

impl Controller {
    /// Asks for work on the budgets that select a pod. There should be one; upstream counts an arbitrary one of several.
    fn note(&self, pod: &Pod, queue: &WorkQueue<Name>) {
        let all = self.budgets.list_namespace(pod.metadata.namespace());
        let mut selecting = all.iter().filter(|budget| budget.selects(pod));
        let Some(first) = selecting.next() else { return };
        queue.add(name_of(&**first));
        let mut several = false;
        for budget in selecting {
            several = true;
            queue.add(name_of(&**budget));
        }
        if several {
            let quote = api::field::quote;
            let message = format!(
                "Pod {}/{} matches multiple PodDisruptionBudgets.  Chose {} arbitrarily.",
                quote(pod.metadata.namespace()),
                quote(pod.metadata.name()),
                quote(first.metadata.name())
            );
            let about = ObjectReference::to(&resources::PODS, &pod.metadata);
            self.context
                .recorder
                .warning(about, "MultiplePodDisruptionBudgets", message);
        }
    }

    async fn sync(&self, (namespace, name): &Name) -> Result<Next, Error> {
        let Some(budget) = self.budgets.get(namespace, name) else {
            return Ok(Next::Wait);
        };
        let now = self.context.clock.now();
        let (status, next) = match self.count(&budget).await {
            Ok(counted) => counted,
            Err(why) => {
                tracing::warn!(namespace, name, why, "a disruption budget cannot be counted");
                (decide::failed(&budget, &why, now), Next::Wait)
            }
        };
        match self.write(&budget, &status).await {
            Ok(()) => Ok(next),
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) => Err(error),
        }
    }

    async fn count(&self, budget: &Budget) -> Result<(BudgetStatus, Next), String> {
        let about = || ObjectReference::to(&resources::POD_DISRUPTION_BUDGETS, &budget.metadata);
        let recorder = &self.context.recorder;
        let mut pods = self.pods.list_namespace(budget.metadata.namespace());
        pods.retain(|pod| budget.selects(pod));
        if pods.is_empty() {
            recorder.normal(about(), "NoPods", "No matching pods found");
        }
        let mut scale = 0;
        if budget.needs_scale() {
            let total = self.scales.of(&pods).await.inspect_err(|why| {
                let message = format!("Failed to calculate the number of expected pods: {why}");
                recorder.warning(about(), "CalculateExpectedPodCountFailed", message);
            })?;
            scale = total.scale;
            if !total.unmanaged.is_empty() {
                let selector = decide::selector_text(&budget.spec.selector.written);
                let message = format!(
                    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a \
                     result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. \
                     To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
                );
                recorder.warning(about(), "UnmanagedPods", message);
            }
        }
        let now = self.context.clock.now();
        let found = decide::disrupted(budget, &pods, now);
        for pod in pods
            .iter()
            .filter(|pod| found.overdue.iter().any(|name| name == pod.metadata.name()))
        {
            // Upstream names the namespace twice.
            let namespace = budget.metadata.namespace();
            let message = format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
            recorder.warning(
                ObjectReference::to(&resources::PODS, &pod.metadata),
                "NotDeleted",
                message,
            );
        }
        let healthy = decide::healthy(&pods, &found.awaited);
        let expects = budget.expects(pods.len(), scale);
        let status = decide::counted(budget, expects, healthy, found.awaited, now);
        Ok((status, found.next.map_or(Next::Wait, Next::After)))
    }

    /// Writes a status that differs. The budget is read once more for what this controller does not know of it.
    async fn write(&self, budget: &Budget, status: &BudgetStatus) -> Result<(), Error> {
        if budget.status == *status {
            return Ok(());
        }
        let resource = resources::POD_DISRUPTION_BUDGETS;
        let (namespace, name) = (budget.metadata.namespace(), budget.metadata.name());
        let mut object: Value = self.context.client.get_in(&resource, namespace, name).await?;
        api::meta::set_text(&mut object, "resourceVersion", budget.metadata.resource_version());
        object["status"] = decide::status_value(status);
        let client = &self.context.client;
        client
            .update(&resource, namespace, name, Some("status"), &object)
            .await
            .map(drop)
    }

    /// Takes back a pod's word that it is disrupted.
    async fn clear(&self, (namespace, name): &Name) -> Result<Next, Error> {
        let Some(pod) = self.pods.get(namespace, name) else {
            return Ok(Next::Wait);
        };
        let now = self.context.clock.now();
        match decide::stale_in(&pod, now) {
            None => return Ok(Next::Wait),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let mut condition = json!({
            "type": TARGET, "status": "False", "reason": null, "message": null, "lastTransitionTime": time_text(now),
        });
        if let Some(generation) = pod.metadata.generation.filter(|generation| *generation > 0) {
            condition["observedGeneration"] = generation.into();
        }
        let patch = json!({
            "metadata": {"resourceVersion": pod.metadata.resource_version()}, "status": {"conditions": [condition]},
        });
        let client = &self.context.client;
        match client.patch_status(&resources::PODS, namespace, name, &patch).await {
            Ok(_) => Ok(Next::Wait),
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testkit::Bench;

    const BUDGETS: client::Resource = resources::POD_DISRUPTION_BUDGETS;

    fn budget(bench: &Bench, spec: Value) {
        bench
            .api
            .put(json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"namespace": "n", "name": "b", "generation": 1, "labels": {"keep": "me"}}, "spec": spec}));
    }

    fn pod(bench: &Bench, name: &str, owner: Value) {
        bench.api.put(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "n", "name": name, "labels": {"app": "web"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "node"}}));
        bench.run_pod("n", name, "10.0.0.1");
    }

    fn owner(object: &Value, kind: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "name": api::meta::name(object), "uid": api::meta::uid(object),
            "controller": true})
    }

    /// Allowed, healthy, desired, expected, and the reason of the condition.
    fn seen(bench: &Bench) -> (i64, i64, i64, i64, String) {
        let budget = bench.api.get(&BUDGETS, "n", "b").unwrap();
        let number = |field: &str| budget["status"][field].as_i64().unwrap_or(-1);
        let reason = budget["status"]["conditions"][0]["reason"]
            .as_str()
            .unwrap_or("")
            .to_owned();
        (
            number("disruptionsAllowed"),
            number("currentHealthy"),
            number("desiredHealthy"),
            number("expectedPods"),
            reason,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_deployments_scale_counts() {
        let bench = Bench::new();
        let labels = json!({"matchLabels": {"app": "web"}});
        let deployment = bench.api.put(json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": "n", "name": "d"}, "spec": {"replicas": 4, "selector": labels}}));
        let set = bench.api.put(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"namespace": "n", "name": "d-1", "ownerReferences": [owner(&deployment, "Deployment")]},
            "spec": {"replicas": 4, "selector": labels}}));
        budget(&bench, json!({"maxUnavailable": "50%", "selector": labels}));
        start(bench.context("disruption-controller"));
        bench.idle().await;
        assert_eq!(seen(&bench), (0, 0, 0, 0, "InsufficientPods".into()));
        assert!(bench.events().contains(&"NoPods: No matching pods found".into()));
        for name in ["a", "b", "c"] {
            pod(&bench, name, owner(&set, "ReplicaSet"));
        }
        bench.idle().await;
        assert_eq!(seen(&bench), (1, 3, 2, 4, "SufficientPods".into()));
        let written = bench.api.get(&BUDGETS, "n", "b").unwrap();
        assert_eq!(written["metadata"]["labels"]["keep"], "me");
        assert_eq!(
            written["status"]["observedGeneration"],
            written["metadata"]["generation"]
        );

        // An eviction was allowed, and the pod was not deleted: it counts again after two minutes.
        let now = time_text(bench.api.clock().now());
        bench.set_status(
            &BUDGETS,
            "n",
            "b",
            json!({"disruptionsAllowed": 0, "disruptedPods": {"a": now}}),
        );
        bench.idle().await;
        assert_eq!(seen(&bench), (0, 2, 2, 4, "InsufficientPods".into()));
        tokio::time::sleep(Duration::from_secs(121)).await;
        assert_eq!(seen(&bench), (1, 3, 2, 4, "SufficientPods".into()));
        assert!(bench.api.get(&BUDGETS, "n", "b").unwrap()["status"]["disruptedPods"].is_null());
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_counted_allows_nothing() {
        let bench = Bench::new();
        budget(&bench, json!({"maxUnavailable": 1, "selector": {}}));
        start(bench.context("disruption-controller"));
        pod(
            &bench,
            "a",
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u", "controller": true}),
        );
        bench.idle().await;
        let written = bench.api.get(&BUDGETS, "n", "b").unwrap();
        let condition = &written["status"]["conditions"][0];
        assert_eq!(condition["reason"], "SyncFailed", "{written}");
        assert_eq!(written["status"]["disruptionsAllowed"], 0);
        let failed = |event: &String| event.starts_with("CalculateExpectedPodCountFailed: Failed to calculate");
        assert!(bench.events().iter().any(failed), "{:?}", bench.events());
        // With a number of pods nobody's scale is asked for.
        bench.api.edit(&BUDGETS, "n", "b", |budget| {
            budget["spec"] = json!({"minAvailable": 1, "selector": {}});
        });
        pod(
            &bench,
            "c",
            json!({"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}),
        );
        bench.idle().await;
        assert_eq!(seen(&bench), (1, 2, 1, 2, "SufficientPods".into()));
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_disruption_that_did_not_happen_is_taken_back() {
        let bench = Bench::new();
        pod(
            &bench,
            "a",
            json!({"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}),
        );
        let told = |bench: &Bench| {
            let pod = bench.api.get(&resources::PODS, "n", "a").unwrap();
            let mut all = pod["status"]["conditions"].as_array().unwrap().iter();
            all.find(|condition| condition["type"] == TARGET).cloned().unwrap()
        };
        let now = time_text(bench.api.clock().now());
        bench.api.edit(&resources::PODS, "n", "a", |pod| {
            let conditions = pod["status"]["conditions"].as_array_mut().unwrap();
            conditions.push(
                json!({"type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "m", "lastTransitionTime": now}),
            );
        });
        start(bench.context("disruption-controller"));
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(told(&bench)["status"], "True");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(told(&bench)["status"], "False");
        assert!(told(&bench)["reason"].is_null());
        bench.end().await;
    }
}
