//! PodResizeValidator: a pod that is on a node grows no further than that node, which has to be one of Linux.
//!
//! Source: `plugin/pkg/admission/podresize/admission.go`.

use api::quantity::{Format, Quantity};
use api::{Status, StatusCause, Value};
use futures::future::BoxFuture;
use quota::amounts::{self, Amounts, List};

use super::declared_features::node_of;
use crate::pipeline::{Operation, Plugin, Review, Step};

/// The plug-in.
pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn has(&self, step: Step) -> bool {
        step == Step::Validate
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let verdict = match (object, old) {
            (Some(pod), Some(old)) if review.is_about("", "pods", "resize") => check(review, pod, old),
            _ => Ok(()),
        };
        Box::pin(std::future::ready(verdict))
    }
}

fn check(review: &Review, pod: &Value, old: &Value) -> Result<(), Status> {
    let Some(node) = node_of(review, pod, old)? else {
        return Ok(());
    };
    let name = pod["spec"]["nodeName"].as_str().unwrap_or("");
    if let Some(system) = node["metadata"]["labels"]["kubernetes.io/os"].as_str()
        && system != "linux"
    {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
        return Err(refused(review, &why, "UnsupportedPlatform"));
    }
    let mut wanted = amounts::of_pod(pod, List::Requests);
    amounts::add(&mut wanted, &amounts::amounts(&pod["spec"]["overhead"]));
    let there = amounts::amounts(&node["status"]["allocatable"]);
    let parts: Vec<String> = [
        ("cpu", Quantity::milli_value as fn(&Quantity) -> i64),
        ("memory", Quantity::value),
    ]
    .into_iter()
    .filter_map(|(resource, shown)| {
        let (wanted, there) = (of(&wanted, resource), of(&there, resource));
        (wanted > there).then(|| {
            let (wanted, there) = (shown(&wanted), shown(&there));
            format!("{resource}, requested: {wanted}, allocatable: {there}")
        })
    })
    .collect();
    if parts.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", parts.join("; "));
    Err(refused(review, &why, "NodeCapacity"))
}

fn of(amounts: &Amounts, resource: &str) -> Quantity {
    let none = || Quantity::new(0, Format::DecimalSi);
    amounts.get(resource).cloned().unwrap_or_else(none)
}

fn refused(review: &Review, why: &str, reason: &str) -> Status {
    let mut status = review.forbidden(why);
    if let Some(details) = &mut status.details {
        details.causes.push(StatusCause {
            reason: reason.into(),
            ..StatusCause::default()
        });
    }
    status
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    #[test]
    fn a_pod_grows_no_further_than_its_node() {
        let node = |name: &str, system: &str| {
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": system}},
                "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}})
        };
        let world = World::new(&[("nodes", node("n", "linux")), ("nodes", node("w", "windows"))]);
        let pod = |node: &str, generation: i64, cpu: &str, memory: &str| {
            json!({"metadata": {"name": "a", "generation": generation}, "spec": {"nodeName": node, "overhead": {"cpu": "100m"},
                "containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
        };
        for (new, why, cause) in [
            (pod("n", 2, "1900m", "1Gi"), "", ""),
            (
                pod("n", 2, "2", "2Gi"),
                "node didn't have enough allocatable resources: cpu, requested: 2100, allocatable: 2000; memory, requested: \
                 2147483648, allocatable: 1073741824",
                "NodeCapacity",
            ),
            (
                pod("w", 2, "1", "1"),
                "pod resize is only supported on linux nodes, node \"w\" is \"windows\"",
                "UnsupportedPlatform",
            ),
            // Nothing changed.
            (pod("w", 1, "9", "1"), "", ""),
            (pod("", 2, "9", "1"), "", ""),
            (pod("gone", 2, "1", "1"), "node \"gone\" not found", ""),
        ] {
            let review = world.review(Operation::Update, "", "pods", "resize", "n", "a");
            let got = check(&review, &new, &pod("n", 1, "1", "1")).err();
            let cause_of = |status: &Status| {
                let causes = status.details.iter().flat_map(|details| &details.causes);
                causes.map(|cause| cause.reason.clone()).collect::<String>()
            };
            assert_eq!(got.as_ref().map(cause_of).unwrap_or_default(), cause);
            let expect = if why.is_empty() {
                String::new()
            } else {
                format!("pods \"a\" is forbidden: {why}")
            };
            assert_eq!(got.map_or(String::new(), |status| status.message), expect);
        }
    }
}
