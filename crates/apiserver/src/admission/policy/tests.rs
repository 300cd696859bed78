//! What policies do to requests, over a handful of objects.

mod mutating;

use std::sync::Arc;

use api::{GroupVersionKind, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;

use super::super::testing::World;
use super::{MutatingPolicies, PolicyRights, ValidatingPolicies};
use crate::pipeline::{Authorizer, Decision, Operation, Plugin, Review, RuleSet};
use crate::request::{Attributes, UserInfo};

/// Allows whatever is about `allowed`, and only after it was waited for.
struct Slow;

impl Authorizer for Slow {
    fn authorize<'a>(&'a self, user: &'a UserInfo, attributes: &'a Attributes) -> BoxFuture<'a, Decision> {
        let what = format!("{} {} {}", user.name, attributes.verb, attributes.resource);
        let allowed = attributes.resource == "allowed" || user.name.starts_with("system:serviceaccount:");
        let wait = async move {
            tokio::task::yield_now().await;
            match allowed {
                true => Decision::Allow(what),
                false => Decision::NoOpinion(what),
            }
        };
        wait.boxed()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet::default()
    }
}

/// A policy about every pod, with more in its spec.
fn policy(more: Value) -> Value {
    let mut spec = json!({"failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": about("pods")});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": "p"}, "spec": spec})
}

fn about(resource: &str) -> Value {
    json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules":
        [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource], "scope": "*"}]})
}

fn binding(more: Value) -> Value {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": "b"}, "spec": spec})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}})
}

fn world(policy: Value, binding: Value, group: &str) -> World {
    let resource = |kind: &str| format!("{group}{kind}.admissionregistration.k8s.io");
    World::new(&[
        (&*resource("policies"), policy),
        (&*resource("policybindings"), binding),
        (
            "namespaces",
            json!({"metadata": {"name": "n", "labels": {"team": "blue"}}}),
        ),
        (
            "configmaps",
            json!({"metadata": {"name": "c", "namespace": "n"}, "data": {"most": "3"}}),
        ),
    ])
}

fn review(world: &World, operation: Operation) -> Review {
    let mut review = world.review(operation, "", "pods", "", "n", "a");
    review.kind = GroupVersionKind::new("", "v1", "Pod");
    review.requested = review.resource.clone();
    review
}

/// What a validating policy says of a new pod, and its warnings and annotations.
async fn judge(policy_of: Value, binding_of: Value) -> (Option<api::Status>, Review) {
    let world = world(policy(policy_of), binding(binding_of), "validatingadmission");
    let plugin = ValidatingPolicies::new(Arc::new(Slow));
    let review = review(&world, Operation::Create);
    let verdict = plugin.validate(&review, Some(&pod()), None).await;
    (verdict.err(), review)
}

fn validation(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

#[tokio::test]
async fn expressions_see_the_request() {
    for (expression, expect) in [
        ("object.metadata.labels.app == 'web'", ""),
        ("oldObject == null", ""),
        (
            "request.operation == 'CREATE' && request.userInfo.username == 'jane'",
            "",
        ),
        (
            "request.kind.kind == 'Pod' && request.requestResource.resource == 'pods'",
            "",
        ),
        ("namespaceObject.metadata.labels.team == 'blue'", ""),
        ("!has(request.subResource) && request.dryRun == false", ""),
        ("authorizer.group('').resource('allowed').check('get').allowed()", ""),
        ("!authorizer.requestResource.check('get').allowed()", ""),
        (
            "authorizer.serviceAccount('n', 'default').path('/x').check('get').allowed()",
            "",
        ),
        (
            "authorizer.group('').resource('allowed').check('get').reason() == 'jane get allowed'",
            "",
        ),
        (
            "object.spec.replicas > 1",
            "expression 'object.spec.replicas > 1' resulted in error: no such key: replicas",
        ),
        (
            "object.metadata.name == 'b'",
            "failed expression: object.metadata.name == 'b'",
        ),
    ] {
        let (denied, _) = judge(validation(expression), json!({})).await;
        let expect = match expect {
            "" => None,
            why => Some(format!(
                "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {why}"
            )),
        };
        assert_eq!(denied.map(|status| status.message), expect, "{expression}");
    }
}

#[tokio::test]
async fn messages_and_reasons() {
    for (validation, message, reason, code) in [
        (
            json!({"expression": "false"}),
            "failed expression: false",
            "Invalid",
            422,
        ),
        (json!({"expression": "false", "message": " no "}), "no", "Invalid", 422),
        (
            json!({"expression": "false", "messageExpression": "'no ' + object.metadata.name", "message": "x",
                "reason": "Forbidden"}),
            "no a",
            "Forbidden",
            403,
        ),
        (
            json!({"expression": "false", "messageExpression": "object.nothing", "message": "x"}),
            "x",
            "Invalid",
            422,
        ),
        (
            json!({"expression": "false", "messageExpression": "'a\\nb'", "reason": "RequestEntityTooLarge"}),
            "failed expression: false",
            "RequestEntityTooLarge",
            413,
        ),
    ] {
        let (denied, _) = judge(json!({"validations": [validation]}), json!({})).await;
        let denied = denied.expect("it is refused");
        assert!(
            denied.message.ends_with(&format!("denied request: {message}")),
            "{}",
            denied.message
        );
        assert_eq!((&*denied.reason, denied.code), (reason, code), "{message}");
        let causes = denied.details.unwrap().causes;
        assert_eq!(
            causes[0].message,
            denied.message.replace("pods \"a\" is forbidden: ", "")
        );
    }
}

#[tokio::test]
async fn bindings_say_what_happens() {
    let refusing = json!({"validations": [{"expression": "false", "message": "no"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'' + object.metadata.name"}, {"key": "none", "valueExpression": "null"}]});
    let (denied, review) = judge(refusing.clone(), json!({"validationActions": ["Warn", "Audit"]})).await;
    assert!(denied.is_none());
    assert_eq!(
        *review.warnings.lock(),
        ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no"]
    );
    let told = [
        ("p/name".to_owned(), "a".to_owned()),
        (
            "validation.policy.admission.k8s.io/validation_failure".to_owned(),
            r#"[{"message":"no","policy":"p","binding":"b","expressionIndex":0,"validationActions":["Warn","Audit"]}]"#
                .to_owned(),
        ),
    ];
    assert_eq!(super::super::testing::told(&review), told);
    let mut other = about("pods");
    other["resourceRules"][0]["resourceNames"] = json!(["b"]);
    for (binding, expect) in [
        (json!({}), true),
        (json!({"policyName": "q"}), false),
        (json!({"matchResources": other}), false),
        (json!({"matchResources": about("pods")}), true),
    ] {
        let (denied, _) = judge(refusing.clone(), binding.clone()).await;
        assert_eq!(denied.is_some(), expect, "{binding}");
    }
}

#[tokio::test]
async fn constraints_take_requests_in() {
    let with = |field: &str, value: Value| {
        let mut constraints = about("pods");
        match field.strip_prefix("rule.") {
            Some(field) => constraints["resourceRules"][0][field] = value,
            None => constraints[field] = value,
        }
        constraints
    };
    let rules = |resource: &str| about(resource)["resourceRules"].clone();
    for (constraints, expect) in [
        (about("pods"), true),
        (about("*"), true),
        (about("services"), false),
        (about("pods/status"), false),
        (with("rule.operations", json!(["*"])), true),
        (with("rule.operations", json!(["DELETE"])), false),
        (with("rule.apiVersions", json!(["v2"])), false),
        (with("rule.scope", json!("Namespaced")), true),
        (with("rule.scope", json!("Cluster")), false),
        (with("rule.resourceNames", json!(["a"])), true),
        (with("rule.resourceNames", json!(["b"])), false),
        (with("excludeResourceRules", rules("pods")), false),
        (with("excludeResourceRules", rules("services")), true),
        (with("objectSelector", json!({"matchLabels": {"app": "web"}})), true),
        (with("objectSelector", json!({"matchLabels": {"app": "db"}})), false),
        (
            with("namespaceSelector", json!({"matchLabels": {"team": "blue"}})),
            true,
        ),
        (
            with("namespaceSelector", json!({"matchLabels": {"team": "red"}})),
            false,
        ),
    ] {
        let mut spec = validation("false");
        spec["matchConstraints"] = constraints.clone();
        let (denied, _) = judge(spec, json!({})).await;
        assert_eq!(denied.is_some(), expect, "{constraints}");
    }
}

#[tokio::test]
async fn versions_of_a_kind_are_equivalent() {
    let about = |version: &str, how: &str| {
        json!({"matchPolicy": how, "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [{"operations": ["*"],
            "apiGroups": ["autoscaling"], "apiVersions": [version], "resources": ["horizontalpodautoscalers"]}]})
    };
    let scaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "a", "namespace": "n"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "X", "name": "y"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}});
    for (requested, wanted, how, expression, expect) in [
        (
            "v1",
            "v1",
            "Exact",
            "object.spec.targetCPUUtilizationPercentage == 50",
            None,
        ),
        ("v2", "v1", "Exact", "false", None),
        (
            "v2",
            "v1",
            "Equivalent",
            "object.spec.targetCPUUtilizationPercentage == 50",
            None,
        ),
        (
            "v1",
            "v2",
            "Equivalent",
            "request.kind.version == 'v2' && request.requestKind.version == 'v1' && has(object.spec.metrics)",
            None,
        ),
        (
            "v1",
            "v2",
            "Equivalent",
            "false",
            Some("denied request: failed expression: false"),
        ),
    ] {
        let mut spec = validation(expression);
        spec["matchConstraints"] = about(wanted, how);
        let world = world(policy(spec), binding(json!({})), "validatingadmission");
        let plugin = ValidatingPolicies::new(Arc::new(Slow));
        let mut review = world.review(
            Operation::Update,
            "autoscaling",
            "horizontalpodautoscalers",
            "",
            "n",
            "a",
        );
        review.resource.version = "v2".into();
        review.requested.version = requested.into();
        review.kind = GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler");
        let verdict = plugin.validate(&review, Some(&scaler), Some(&scaler)).await;
        let found = verdict.err().map(|status| status.message);
        match expect {
            None => assert_eq!(found, None, "{requested} {wanted} {how}"),
            Some(expect) => assert!(found.clone().unwrap_or_default().ends_with(expect), "{found:?}"),
        }
    }
}

#[tokio::test]
async fn parameters_are_what_bindings_name() {
    let with = |reference: Value| {
        let mut spec = validation("int(params.data.most) > 3");
        spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        (spec, json!({"paramRef": reference}))
    };
    for (reference, expect) in [
        (
            json!({"name": "c", "parameterNotFoundAction": "Deny"}),
            "failed expression: int(params.data.most) > 3",
        ),
        (
            json!({"selector": {}, "parameterNotFoundAction": "Deny"}),
            "failed expression: int(params.data.most) > 3",
        ),
        (json!({"name": "d", "parameterNotFoundAction": "Allow"}), ""),
        (
            json!({"name": "d", "parameterNotFoundAction": "Deny"}),
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
        ),
        (
            json!({"name": "c", "namespace": "m", "parameterNotFoundAction": "Deny"}),
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
        ),
    ] {
        let (spec, binding) = with(reference.clone());
        let (denied, _) = judge(spec, binding).await;
        let found = denied.map_or(String::new(), |status| status.message);
        let why = found.rsplit_once("denied request: ").map_or("", |(_, why)| why);
        assert_eq!(why, expect, "{reference}");
    }
    let mut spec = validation("true");
    spec["paramKind"] = json!({"apiVersion": "sea.example/v1", "kind": "Boat"});
    let (denied, _) = judge(spec, json!({})).await;
    assert_eq!(
        denied.unwrap().message,
        "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: failed to find \
         resource referenced by paramKind: 'sea.example/v1, Kind=Boat'"
    );
}

#[tokio::test]
async fn conditions_and_failures() {
    for (spec, expect) in [
        (
            json!({"matchConditions": [{"name": "a", "expression": "object.metadata.name == 'b'"}]}),
            "",
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "object.x == 1"}, {"name": "b", "expression": "false"}]}),
            "",
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "object.x == 1"}]}),
            "expression 'object.x == 1' resulted in error: no such key: x",
        ),
        (
            json!({"matchConditions": [{"name": "a", "expression": "object.x == 1"}], "failurePolicy": "Ignore"}),
            "",
        ),
        (
            json!({"validations": [{"expression": "object.x == 1"}], "failurePolicy": "Ignore"}),
            "",
        ),
        (json!({"failurePolicy": "Ignore"}), "failed expression: false"),
    ] {
        let mut whole = validation("false");
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let (denied, _) = judge(whole, json!({})).await;
        let found = denied.map_or(String::new(), |status| status.message);
        let why = found.rsplit_once("denied request: ").map_or("", |(_, why)| why);
        assert_eq!(why, expect, "{spec}");
    }
}

#[tokio::test]
async fn variables_are_composed() {
    const COMPILATION: &str = "composited variable \"a\" fails to compile: compilation failed:";
    let chain = |length: usize| {
        let mut variables = vec![json!({"name": "v0", "expression": "1"})];
        for index in 1..length {
            let expression = format!("variables.v{} + 1", index - 1);
            variables.push(json!({"name": format!("v{index}"), "expression": expression}));
        }
        json!(variables)
    };
    for (variables, expression, expect) in [
        (chain(300), "variables.v299 == 300", ""),
        (
            json!([{"name": "a", "expression": "object.nothing"}]),
            "true || variables.a",
            "",
        ),
        (
            json!([{"name": "a", "expression": "object.nothing"}]),
            "variables.a == 1",
            "expression 'variables.a == 1' resulted in error: composited variable \"a\" fails to evaluate: no such key: nothing",
        ),
        (
            json!([{"name": "a", "expression": "authorizer.group('').resource('allowed').check('get').allowed()"}]),
            "variables.a",
            "",
        ),
        (
            json!([{"name": "a", "expression": "1 +"}]),
            "variables.a == 1",
            COMPILATION,
        ),
    ] {
        let mut spec = validation(expression);
        spec["variables"] = variables;
        let (denied, _) = judge(spec, json!({})).await;
        let found = denied.map_or(String::new(), |status| status.message);
        let why = found.rsplit_once("denied request: ").map_or("", |(_, why)| why);
        match expect {
            COMPILATION => assert!(why.contains(COMPILATION), "{why}"),
            expect => assert_eq!(why, expect, "{expression}"),
        }
    }
}

#[tokio::test]
async fn writers_of_policies_may_read_their_parameters() {
    let world = World::default();
    let kind = |name: &str| json!({"spec": {"paramKind": {"apiVersion": "v1", "kind": name}}});
    let check = async |resource: &str, object: Value, old: Option<Value>| {
        let mut review = world.review(Operation::Create, super::GROUP, resource, "", "", "p");
        review.kind = GroupVersionKind::new(super::GROUP, "v1", "K");
        let plugin = PolicyRights::new(Arc::new(Slow));
        plugin.validate(&review, Some(&object), old.as_ref()).await.err()
    };
    let policies = "validatingadmissionpolicies";
    let denied = check(policies, kind("ConfigMap"), None).await.unwrap();
    assert_eq!(
        denied.message,
        "K.admissionregistration.k8s.io \"p\" is invalid: spec.paramKind: Forbidden: user &{jane  [dev system:authenticated] \
         map[]} must have \"get\" permission on all objects of the referenced paramKind (kind=ConfigMap, apiVersion=v1)"
    );
    let same = check(policies, kind("ConfigMap"), Some(kind("ConfigMap"))).await;
    assert!(same.is_none(), "it was there before");
    let binding = json!({"spec": {"policyName": "p", "paramRef": {"name": "c"}}});
    let denied = check("mutatingadmissionpolicybindings", binding, None).await.unwrap();
    assert!(
        denied
            .message
            .contains("spec.paramRef: Forbidden: unable to get policy p to determine minimum required permissions"),
        "{}",
        denied.message
    );
}
