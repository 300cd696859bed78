//! `pods/eviction`: a deletion that a disruption budget may refuse.
//!
//! What a budget allows is counted down in the object itself before the pod is deleted, so that requests that race never
//! take more than there is; the disruption controller counts anew when the pod goes.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`.

use std::sync::Arc;

use http::Response;
use serde_json::json;

use api::field::{Error, Path};
use api::schema::SchemaRef;
use api::selector::LabelSelector;
use api::{GroupResource, GroupVersionKind, Reason, Status, StatusCause, StatusDetails, Value, meta};
use client::Body;

use crate::call::{Call, RequestBody, read_body, rfc3339};
use crate::cluster::{Cluster, Object};
use crate::decode;
use crate::options::{DeleteOptions, WriteOptions};
use crate::pipeline::Review;
use crate::registry::Served;
use crate::respond;
use crate::verbs::delete::delete_object;
use crate::verbs::write::{Write, ensure_namespace, run_admit, run_validate};

/// Evictions that a budget's controller has not heard of, at most (upstream: `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
/// How often a pod that changes meanwhile is looked at again (upstream: `EvictionsRetry`).
const ATTEMPTS_MAX: usize = 20;
/// When a refused client should ask again about a budget that is not counted yet.
const RETRY_SECONDS: i32 = 10;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// The reason of causes that are budgets (upstream: `DisruptionBudgetCause`).
const CAUSE: &str = "DisruptionBudget";
/// The condition that says whether a budget allows anything.
const ALLOWED: &str = "DisruptionAllowed";

fn budgets() -> GroupResource {
    GroupResource {
        group: "policy".into(),
        resource: "poddisruptionbudgets".into(),
    }
}

/// One eviction on its way.
struct Eviction<'a> {
    call: &'a Call,
    served: &'a Arc<Served>,
    name: &'a str,
    options: WriteOptions,
    delete: DeleteOptions,
}

/// `POST pods/<name>/eviction`.
pub async fn evict(call: &Call, served: &Arc<Served>, body: RequestBody) -> Result<Response<Body>, Status> {
    let bytes = read_body(body).await?;
    let options = WriteOptions::parse(call, "CreateOptions", false)?;
    let gvk = GroupVersionKind::new("policy", "v1", "Eviction");
    let schema = SchemaRef::builtin(&gvk).expect("invariant: the schema has policy/v1 Eviction");
    let validation = options.field_validation;
    let mut eviction = decode::object_in(call, &bytes, &gvk, &["policy/v1beta1"], &schema, validation)?;
    ensure_namespace(&mut eviction, &call.attributes.namespace)?;
    let name = &*call.attributes.name;
    if meta::name(&eviction) != name {
        return Err(Status::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let unreadable = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if eviction["deleteOptions"][unreadable] == true {
        let path = Path::new("deleteOptions").child(unreadable);
        let why = "can not be set for pod eviction, try after removing the option";
        return Err(Status::invalid(
            &gvk.group_kind(),
            name,
            &[Error::invalid(&path, true, why)],
        ));
    }
    let mut delete = DeleteOptions::from_value(&eviction["deleteOptions"])?;
    delete.dry_run |= options.dry_run;
    let mut work = Eviction {
        call,
        served,
        name,
        options,
        delete,
    };
    work.options.dry_run = work.delete.dry_run;
    work.admit(eviction, gvk).await?;
    work.run().await?;
    let mut status = Status::success(None);
    status.code = 201;
    Ok(respond::success(call, &status))
}

// === impl Eviction ===

impl Eviction<'_> {
    /// Admission sees the eviction, not the pod.
    async fn admit(&self, eviction: Value, kind: GroupVersionKind) -> Result<(), Status> {
        let review = Review {
            kind,
            resource: self.served.gvr.clone(),
            name: self.name.into(),
            dry_run: self.delete.dry_run,
            options: self.options.to_value("CreateOptions"),
            ..Review::of(self.call)
        };
        let mut slot = Some(eviction);
        run_admit(self.call, &review, &mut slot, None).await?;
        run_validate(self.call, &review, slot.as_ref(), None).await
    }

    fn pod(&self) -> Result<Arc<Object>, Status> {
        let found = self
            .call
            .server
            .storage
            .get(&self.served.kind, &self.call.attributes.namespace, self.name)?;
        found.ok_or_else(|| Status::not_found(&self.served.resource(), self.name))
    }

    async fn run(&self) -> Result<(), Status> {
        let chosen = self.delete.resource_version.is_some();
        for attempt in 1.. {
            let found = self.pod()?;
            let pod = found.value();
            if !needs_no_budget(&pod) {
                return self.ask_budget(&found, &pod).await;
            }
            let mut delete = self.delete.clone();
            // A pod that has not started may become ready meanwhile: then its budget counts.
            if pod["status"]["phase"] == "Pending" && !meta::is_deleting(&pod) && !chosen {
                delete.resource_version = Some(found.revision().to_string());
            }
            match self.mark_and_delete(delete).await {
                Err(status) if status.is(Reason::Conflict) && !chosen && attempt < ATTEMPTS_MAX => {}
                outcome => return outcome,
            }
        }
        Ok(())
    }

    async fn ask_budget(&self, found: &Object, pod: &Value) -> Result<(), Status> {
        let Some(budget) = self.budget_of(pod)? else {
            return self.mark_and_delete(self.delete.clone()).await;
        };
        if !spares_unready(&budget.value(), pod) {
            self.take(budget.name(), found.name()).await?;
            return self.mark_and_delete(self.delete.clone()).await;
        }
        // Not ready, as it was seen: it must be so still.
        let mut delete = self.delete.clone();
        delete.resource_version = Some(found.revision().to_string());
        match self.mark_and_delete(delete).await {
            Err(status) if status.is(Reason::Conflict) && self.delete.resource_version.is_none() => {
                Err(not_counted_yet(budget.name()))
            }
            outcome => outcome,
        }
    }

    /// The one budget that selects the pod.
    fn budget_of(&self, pod: &Value) -> Result<Option<Arc<Object>>, Status> {
        let all = Cluster::list(
            &*self.call.server.storage,
            &budgets(),
            Some(&self.call.attributes.namespace),
        );
        let mut selecting = all.into_iter().filter(|budget| {
            // What has a broken selector selects nothing.
            let selector = LabelSelector::from_object(&budget.value()["spec"]["selector"]);
            selector.is_ok_and(|selector| selector.matches_object(pod))
        });
        let first = selecting.next();
        if selecting.next().is_some() {
            // Upstream has no reason here either, and says 500 in the body of a success; here the answer is one too.
            return Err(Status::failure(
                Reason::Unknown,
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        Ok(first)
    }

    /// Counts one disruption of a budget down, as often as others are faster.
    async fn take(&self, budget: &str, pod: &str) -> Result<(), Status> {
        let served = self.call.registry.find("policy", "v1", "poddisruptionbudgets");
        let served = served.expect("invariant: budgets that are read are served");
        let write = Write {
            call: self.call,
            served,
            subresource: "status",
            name: budget,
            options: &self.options,
            internal: true,
        };
        let now = rfc3339(self.call.server.clock.now());
        let make = |live: Option<&Value>| {
            let live = live.ok_or_else(|| Status::not_found(&budgets(), budget))?;
            taken(live, pod, &now)
        };
        write.update(&make, false).await.map(drop)
    }

    /// Says on the pod why it goes, and deletes it.
    async fn mark_and_delete(&self, mut delete: DeleteOptions) -> Result<(), Status> {
        if !delete.dry_run {
            let write = Write {
                call: self.call,
                served: self.served,
                subresource: "status",
                name: self.name,
                options: &self.options,
                internal: true,
            };
            let now = rfc3339(self.call.server.clock.now());
            let make = |live: Option<&Value>| {
                let pod = live.ok_or_else(|| Status::not_found(&self.served.resource(), self.name))?;
                check_preconditions(pod, &delete)?;
                Ok(marked(pod, &now))
            };
            let written = write.update(&make, false).await?;
            if delete.resource_version.is_some() {
                // It was this request that changed it.
                delete.resource_version = Some(written.object.revision().to_string());
            }
        }
        delete_object(
            self.call,
            self.served,
            &self.call.attributes.namespace,
            self.name,
            &delete,
        )
        .await
        .map(drop)
    }
}

fn check_preconditions(pod: &Value, delete: &DeleteOptions) -> Result<(), Status> {
    let resource = GroupResource {
        group: String::new(),
        resource: "Pod".into(),
    };
    let conflict = |why: String| Err(Status::conflict(&resource, meta::name(pod), &why));
    if let Some(uid) = delete.uid.as_deref().filter(|uid| *uid != meta::uid(pod)) {
        let found = meta::uid(pod);
        return conflict(format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
        ));
    }
    let version = delete.resource_version.as_deref();
    if let Some(version) = version.filter(|version| *version != meta::resource_version(pod)) {
        let found = meta::resource_version(pod);
        return conflict(format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record ({found}). The object might have been modified"
        ));
    }
    Ok(())
}

/// What has ended, has not started, or is being deleted disrupts nothing (upstream: `canIgnorePDB`).
fn needs_no_budget(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending")
    ) || meta::is_deleting(pod)
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let mut all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

fn number(budget: &Value, field: &str) -> i64 {
    budget["status"][field].as_i64().unwrap_or(0)
}

/// Whether the pod is not ready and the budget lets such pods go without counting them.
fn spares_unready(budget: &Value, pod: &Value) -> bool {
    if condition(pod, "Ready")["status"] == "True" {
        return false;
    }
    let desired = number(budget, "desiredHealthy");
    budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        || (number(budget, "currentHealthy") >= desired && desired > 0)
}

fn refused(retry_seconds: i32, why: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_seconds);
    let details = status.details.get_or_insert_with(StatusDetails::default);
    details.causes.push(StatusCause {
        reason: CAUSE.into(),
        message: why,
        field: String::new(),
    });
    status
}

fn not_counted_yet(budget: &str) -> Status {
    refused(
        RETRY_SECONDS,
        format!("The disruption budget {budget} is still being processed by the server."),
    )
}

/// The budget with one disruption less, or why there is none to take. Pure.
fn taken(budget: &Value, pod: &str, now: &str) -> Result<Value, Status> {
    let name = meta::name(budget);
    let forbidden = |why: &str| {
        let resource = GroupResource {
            group: "policy".into(),
            resource: "poddisruptionbudget".into(),
        };
        Err(Status::forbidden(&resource, name, why))
    };
    if number(budget, "observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(not_counted_yet(name));
    }
    let allowed = number(budget, "disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget["status"]["disruptedPods"]
        .as_object()
        .map_or(0, |pods| pods.len())
        > DISRUPTED_PODS_MAX
    {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refused(0, why_none(budget)));
    }
    let mut budget = budget.clone();
    budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
    budget["status"]["disruptedPods"][pod] = now.into();
    if allowed == 1 {
        let generation = number(&budget, "observedGeneration");
        let since = match condition(&budget, ALLOWED) {
            old if old["status"] == "False" => old["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        let mut none = json!({
            "type": ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "", "lastTransitionTime": since,
        });
        if generation != 0 {
            none["observedGeneration"] = generation.into();
        }
        set_condition(&mut budget, none);
    }
    Ok(budget)
}

fn why_none(budget: &Value) -> String {
    let name = meta::name(budget);
    let (healthy, desired) = (number(budget, "currentHealthy"), number(budget, "desiredHealthy"));
    let allowed = condition(budget, ALLOWED);
    let text = |field: &str| allowed[field].as_str().unwrap_or("");
    let said = allowed["status"] == "False" && !text("message").is_empty();
    let (reason, message) = (text("reason"), text("message"));
    // A count that failed has no numbers to trust.
    if said && reason == "SyncFailed" {
        return format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        );
    }
    if healthy <= desired {
        return format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
    }
    match said {
        true => {
            format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
        }
        false => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

/// The pod, saying that it is evicted. Pure.
fn marked(pod: &Value, now: &str) -> Value {
    let kind = "DisruptionTarget";
    let (reason, message) = ("EvictionByEvictionAPI", "Eviction API: evicting");
    let old = condition(pod, kind);
    let since = match old["status"] == "True" {
        true => old["lastTransitionTime"].clone(),
        false => now.into(),
    };
    let mut pod = pod.clone();
    let condition = json!({
        "type": kind, "status": "True", "reason": reason, "message": message, "lastProbeTime": null,
        "lastTransitionTime": since,
    });
    set_condition(&mut pod, condition);
    pod
}

fn set_condition(object: &mut Value, condition: Value) {
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(all) = object["status"]["conditions"].as_array_mut() else {
        return;
    };
    match all.iter_mut().find(|own| own["type"] == condition["type"]) {
        Some(own) => *own = condition,
        None => all.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Value {
        json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status})
    }

    #[test]
    fn a_budget_is_counted_down_or_says_why_not() {
        let none = |extra: Value| {
            let mut status =
                json!({"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 3, "desiredHealthy": 2});
            for (key, value) in extra.as_object().unwrap() {
                status[key] = value.clone();
            }
            budget(status)
        };
        let condition = |reason: &str| json!({"conditions": [{"type": ALLOWED, "status": "False", "reason": reason, "message": "some words"}]});
        for (budget, code, retry, expect) in [
            (
                budget(json!({"observedGeneration": 1, "disruptionsAllowed": 1})),
                429,
                10,
                "The disruption budget b is still being processed by the server.",
            ),
            (
                none(json!({"currentHealthy": 2})),
                429,
                0,
                "The disruption budget b needs 2 healthy pods and has 2 currently",
            ),
            (
                none(json!({})),
                429,
                0,
                "The disruption budget b does not allow evicting pods currently",
            ),
            (
                none(condition("Other")),
                429,
                0,
                "The disruption budget b does not allow evicting pods currently (Other): some words",
            ),
            (
                none(condition("SyncFailed")),
                429,
                0,
                "The disruption budget b does not allow evicting pods currently because it failed sync: some words",
            ),
        ] {
            let refused = taken(&budget, "p", "now").unwrap_err();
            assert_eq!((refused.code, &*refused.message), (code, REFUSED));
            let details = refused.details.unwrap();
            assert_eq!(details.retry_after_seconds, retry);
            assert_eq!(
                (&*details.causes[0].reason, &*details.causes[0].message),
                (CAUSE, expect)
            );
        }
        let negative = taken(&none(json!({"disruptionsAllowed": -1})), "p", "now").unwrap_err();
        assert_eq!(
            (negative.code, &*negative.message),
            (
                403,
                "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative"
            )
        );
        let many: serde_json::Map<String, Value> = (0..=DISRUPTED_PODS_MAX)
            .map(|pod| (pod.to_string(), "now".into()))
            .collect();
        let many = taken(
            &none(json!({"disruptionsAllowed": 1, "disruptedPods": many})),
            "p",
            "now",
        );
        assert_eq!(many.unwrap_err().code, 403);

        let two = taken(&none(json!({"disruptionsAllowed": 2})), "p", "now").unwrap();
        assert_eq!(two["status"]["disruptionsAllowed"], 1);
        assert_eq!(two["status"]["disruptedPods"], json!({"p": "now"}));
        assert!(two["status"]["conditions"].is_null());
        let one = taken(&two, "q", "later").unwrap();
        assert_eq!(one["status"]["disruptedPods"], json!({"p": "now", "q": "later"}));
        assert_eq!(
            one["status"]["conditions"],
            json!([{"type": ALLOWED, "status": "False", "reason": "InsufficientPods", "message": "",
                "lastTransitionTime": "later", "observedGeneration": 2}])
        );
    }

    #[test]
    fn unready_pods_may_be_spared() {
        let ready = |status: &str| json!({"status": {"conditions": [{"type": "Ready", "status": status}]}});
        let with = |policy: Value, current: i64, desired: i64| {
            let mut budget = budget(json!({"currentHealthy": current, "desiredHealthy": desired}));
            budget["spec"]["unhealthyPodEvictionPolicy"] = policy;
            budget
        };
        for (budget, status, expect) in [
            (with(Value::Null, 2, 2), "True", false),
            (with("AlwaysAllow".into(), 0, 2), "True", false),
            (with("AlwaysAllow".into(), 0, 2), "False", true),
            (with("IfHealthyBudget".into(), 1, 2), "False", false),
            (with("IfHealthyBudget".into(), 2, 2), "False", true),
            (with(Value::Null, 2, 2), "False", true),
            (with(Value::Null, 0, 0), "False", false),
        ] {
            assert_eq!(spares_unready(&budget, &ready(status)), expect, "{budget} {status}");
        }
        for (pod, expect) in [
            (json!({"status": {"phase": "Running"}}), false),
            (json!({"status": {"phase": "Pending"}}), true),
            (json!({"status": {"phase": "Failed"}}), true),
            (
                json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}}),
                true,
            ),
        ] {
            assert_eq!(needs_no_budget(&pod), expect, "{pod}");
        }
        let pod = marked(&ready("True"), "now");
        assert_eq!(pod["status"]["conditions"][1]["reason"], "EvictionByEvictionAPI");
        assert_eq!(marked(&pod, "later"), pod, "since the first time");
    }
}
