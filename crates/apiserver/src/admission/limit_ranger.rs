//! LimitRanger: containers get the defaults of their namespace's LimitRanges, and what they, pods and claims ask for stays
//! within the bounds.
//!
//! Source: `plugin/pkg/admission/limitranger/admission.go`.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use api::{GroupResource, Status, Value, meta};
use futures::future::BoxFuture;

use crate::pipeline::{Operation, Plugin, Review};
use quota::amounts::{self as pod_resources, Amounts, List};

/// Tells which defaults a pod was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts up to here are compared in thousandths (upstream: `resource.MaxMilliValue`).
const MILLI_VALUE_MAX: i64 = i64::MAX / 1000;

/// The plug-in.
pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn admit<'a>(
        &'a self,
        review: &'a Review,
        object: &'a mut Option<Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if concerns(review, old)
            && let Some(pod) = object.as_mut().filter(|_| review.resource.resource == "pods")
        {
            for range in ranges(review) {
                set_defaults(pod, &range);
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn validate<'a>(
        &'a self,
        review: &'a Review,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let mut result = Ok(());
        if concerns(review, old)
            && let Some(object) = object
        {
            let broken = ranges(review)
                .iter()
                .map(|range| check(&review.resource.resource, object, range))
                .find(|broken| !broken.is_empty());
            result = broken.map_or(Ok(()), |broken| Err(review.forbidden(&aggregate(broken))));
        }
        Box::pin(std::future::ready(result))
    }
}

/// Pods when they are made or resized (nothing else of their resources changes), claims always; nothing that is going.
fn concerns(review: &Review, old: Option<&Value>) -> bool {
    if old.is_some_and(meta::is_deleting) {
        return false;
    }
    let update = review.operation == Operation::Update;
    review.is_about("", "persistentvolumeclaims", "")
        || (review.is_about("", "pods", "") && !update)
        || (review.is_about("", "pods", "resize") && update)
}

fn ranges(review: &Review) -> Vec<Value> {
    let resource = GroupResource {
        group: String::new(),
        resource: "limitranges".into(),
    };
    let ranges = review.cluster.list(&resource, Some(&review.namespace));
    ranges.iter().map(|range| range.value()).collect()
}

fn limits<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = range["spec"]["limits"].as_array().into_iter().flatten();
    all.filter(move |limit| limit["type"] == kind)
}

/// Fills in what the containers leave out, and notes it on the pod.
fn set_defaults(pod: &mut Value, range: &Value) {
    let mut defaults: BTreeMap<(&str, &str), &Value> = BTreeMap::new();
    for limit in limits(range, "Container") {
        for (from, to) in [("defaultRequest", "requests"), ("default", "limits")] {
            for (resource, amount) in limit[from].as_object().into_iter().flatten() {
                defaults.insert((to, resource), amount);
            }
        }
    }
    let mut notes: Vec<String> = Vec::new();
    for (field, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            for (list, word) in [("requests", "request"), ("limits", "limit")] {
                let mut set: Vec<&str> = Vec::new();
                for ((_, resource), amount) in defaults.iter().filter(|((to, _), _)| *to == list) {
                    let own = &mut container["resources"][list];
                    if own.get(*resource).is_none() {
                        own[*resource] = (*amount).clone();
                        set.push(resource);
                    }
                }
                if !set.is_empty() {
                    let name = container["name"].as_str().unwrap_or("");
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        let metadata = meta::metadata_mut(pod);
        let annotations = metadata.entry("annotations").or_insert(Value::Null);
        annotations[ANNOTATION] = text.into();
    }
}

/// What of an object breaks a range.
fn check(resource: &str, object: &Value, range: &Value) -> Vec<String> {
    let mut broken = Vec::new();
    if resource == "persistentvolumeclaims" {
        let requests = pod_resources::amounts(&object["spec"]["resources"]["requests"]);
        for limit in limits(range, "PersistentVolumeClaim") {
            let bounds = Bounds::of(limit);
            broken.extend(
                bounds
                    .min
                    .iter()
                    .filter_map(|(name, min)| bounds.minimum(name, min, requests.get(name), None)),
            );
            broken.extend(
                bounds
                    .max
                    .iter()
                    .filter_map(|(name, max)| bounds.maximum("request", name, max, requests.get(name), None)),
            );
        }
        return broken;
    }
    for limit in limits(range, "Container") {
        let bounds = Bounds::of(limit);
        for container in pod_resources::containers(object) {
            let list = |list: List| pod_resources::of_container(container, list);
            bounds.all(&list(List::Requests), &list(List::Limits), &mut broken);
        }
    }
    for limit in limits(range, "Pod") {
        let sum = |list: List| pod_resources::of_pod(object, list);
        Bounds::of(limit).all(&sum(List::Requests), &sum(List::Limits), &mut broken);
    }
    broken
}

/// The bounds of one item of a range.
struct Bounds<'a> {
    kind: &'a str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl Bounds<'_> {
    fn of(limit: &Value) -> Bounds<'_> {
        Bounds {
            kind: limit["type"].as_str().unwrap_or(""),
            min: pod_resources::amounts(&limit["min"]),
            max: pod_resources::amounts(&limit["max"]),
            ratio: pod_resources::amounts(&limit["maxLimitRequestRatio"]),
        }
    }

    fn all(&self, requests: &Amounts, limits: &Amounts, broken: &mut Vec<String>) {
        let of = |name: &String| (requests.get(name), limits.get(name));
        for (name, min) in &self.min {
            let (request, limit) = of(name);
            broken.extend(self.minimum(name, min, request, limit));
        }
        for (name, max) in &self.max {
            let (request, limit) = of(name);
            broken.extend(self.maximum("limit", name, max, limit, request));
        }
        for (name, ratio) in &self.ratio {
            let (request, limit) = of(name);
            broken.extend(self.proportion(name, ratio, request, limit));
        }
    }

    fn minimum(
        &self,
        name: &str,
        min: &Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let kind = self.kind;
        let Some(request) = request else {
            return Some(format!(
                "minimum {name} usage per {kind} is {min}.  No request is specified"
            ));
        };
        let less = |what: &str, amount: &Quantity| {
            let [amount_value, min_value] = comparable([amount, min]);
            let text = format!("minimum {name} usage per {kind} is {min}, but {what} is {amount}");
            (amount_value < min_value).then_some(text)
        };
        less("request", request).or_else(|| less("limit", limit?))
    }

    /// `first` has to be there; it is the request of a claim and else the limit.
    fn maximum(
        &self,
        first_name: &str,
        name: &str,
        max: &Quantity,
        first: Option<&Quantity>,
        request: Option<&Quantity>,
    ) -> Option<String> {
        let kind = self.kind;
        let Some(first) = first else {
            return Some(format!(
                "maximum {name} usage per {kind} is {max}.  No {first_name} is specified"
            ));
        };
        let more = |what: &str, amount: &Quantity| {
            let [amount_value, max_value] = comparable([amount, max]);
            let text = format!("maximum {name} usage per {kind} is {max}, but {what} is {amount}");
            (amount_value > max_value).then_some(text)
        };
        more(first_name, first).or_else(|| more("request", request?))
    }

    fn proportion(
        &self,
        name: &str,
        ratio: &Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {ratio}, but", self.kind);
        let Some(request) = request.filter(|amount| !amount.is_zero()) else {
            return Some(format!("{head} no request is specified or request is 0"));
        };
        let Some(limit) = limit.filter(|amount| !amount.is_zero()) else {
            return Some(format!("{head} no limit is specified or limit is 0"));
        };
        let [request, limit] = comparable([request, limit]);
        let provided = limit as f64 / request as f64;
        (provided * 1000.0 > ratio.milli_value() as f64).then(|| format!("{head} provided ratio is {provided:.6}"))
    }
}

/// Amounts as numbers: in thousandths when all of them fit.
fn comparable<const N: usize>(amounts: [&Quantity; N]) -> [i64; N] {
    match amounts.iter().all(|amount| amount.value() <= MILLI_VALUE_MAX) {
        true => amounts.map(Quantity::milli_value),
        false => amounts.map(Quantity::value),
    }
}

/// Several errors as one text (upstream: `utilerrors.NewAggregate`).
fn aggregate(mut broken: Vec<String>) -> String {
    let mut seen = Vec::new();
    broken.retain(|text| {
        !seen.contains(text) && {
            seen.push(text.clone());
            true
        }
    });
    match broken.as_slice() {
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::World;
    use super::*;

    fn world(limits: Value) -> World {
        let range = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": limits}});
        World::new(&[("limitranges", range)])
    }

    async fn ask(world: &World, operation: Operation, resource: &str, mut object: Value) -> Result<Value, String> {
        let review = world.review(operation, "", resource, "", "n", "a");
        let mut slot = Some(object.clone());
        LimitRanger.admit(&review, &mut slot, None).await.unwrap();
        object = slot.unwrap();
        let verdict = LimitRanger.validate(&review, Some(&object), None).await;
        verdict.map(|()| object).map_err(|status| status.message)
    }

    fn pod(requests: Value, limits: Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers":
            [{"name": "c", "resources": {"requests": requests, "limits": limits}}]}})
    }

    #[tokio::test]
    async fn defaults_are_filled_in_and_noted() {
        let limits =
            json!([{"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}}]);
        let world = world(limits);
        let given = ask(
            &world,
            Operation::Create,
            "pods",
            pod(json!({}), json!({"memory": "2Gi"})),
        )
        .await
        .unwrap();
        let resources = &given["spec"]["containers"][0]["resources"];
        assert_eq!(
            resources,
            &json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1", "memory": "2Gi"}})
        );
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(given["metadata"]["annotations"][ANNOTATION], note);
        // An update of a pod is not looked at.
        let same = pod(json!({}), json!({}));
        assert_eq!(
            ask(&world, Operation::Update, "pods", same.clone()).await.unwrap(),
            same
        );
    }

    #[tokio::test]
    async fn bounds_are_kept() {
        let container = |bounds: Value| {
            let mut limit = json!({"type": "Container"});
            limit
                .as_object_mut()
                .unwrap()
                .extend(bounds.as_object().unwrap().clone());
            json!([limit])
        };
        let min = container(json!({"min": {"cpu": "100m"}}));
        let max = container(json!({"max": {"memory": "1Gi"}}));
        let ratio = container(json!({"maxLimitRequestRatio": {"cpu": "1500m"}}));
        let whole = json!([{"type": "Pod", "max": {"cpu": "2"}}]);
        let forbidden = |why: &str| Err(format!("pods \"a\" is forbidden: {why}"));
        for (limits, requests, own, expect) in [
            (&min, json!({"cpu": "100m"}), json!({}), Ok(())),
            (
                &min,
                json!({}),
                json!({}),
                forbidden("minimum cpu usage per Container is 100m.  No request is specified"),
            ),
            (
                &min,
                json!({"cpu": "50m"}),
                json!({}),
                forbidden("minimum cpu usage per Container is 100m, but request is 50m"),
            ),
            (&max, json!({}), json!({"memory": "1Gi"}), Ok(())),
            (
                &max,
                json!({}),
                json!({}),
                forbidden("maximum memory usage per Container is 1Gi.  No limit is specified"),
            ),
            (
                &max,
                json!({}),
                json!({"memory": "2Gi"}),
                forbidden("maximum memory usage per Container is 1Gi, but limit is 2Gi"),
            ),
            (&ratio, json!({"cpu": "2"}), json!({"cpu": "3"}), Ok(())),
            (
                &ratio,
                json!({"cpu": "1"}),
                json!({"cpu": "2"}),
                forbidden("cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"),
            ),
            (
                &whole,
                json!({}),
                json!({"cpu": "3"}),
                forbidden("maximum cpu usage per Pod is 2, but limit is 3"),
            ),
        ] {
            let got = ask(&world(limits.clone()), Operation::Create, "pods", pod(requests, own)).await;
            assert_eq!(got.map(|_| ()), expect, "{limits}");
        }
        let both = container(json!({"min": {"cpu": "1"}, "max": {"memory": "1Gi"}}));
        let got = ask(&world(both), Operation::Create, "pods", pod(json!({}), json!({}))).await;
        assert_eq!(
            got.unwrap_err(),
            "pods \"a\" is forbidden: [minimum cpu usage per Container is 1.  No request is specified, maximum memory usage per Container is 1Gi.  No limit is specified]"
        );
    }

    #[tokio::test]
    async fn claims_have_bounds_too() {
        let limits = json!([{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]);
        for (size, expect) in [
            ("1Gi", None),
            (
                "500Mi",
                Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
            ),
            (
                "3Gi",
                Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
            ),
        ] {
            let claim = json!({"metadata": {"name": "a"}, "spec": {"resources": {"requests": {"storage": size}}}});
            let got = ask(
                &world(limits.clone()),
                Operation::Update,
                "persistentvolumeclaims",
                claim,
            )
            .await
            .err();
            let expect = expect.map(|why| format!("persistentvolumeclaims \"a\" is forbidden: {why}"));
            assert_eq!(got, expect, "{size}");
        }
    }
}
