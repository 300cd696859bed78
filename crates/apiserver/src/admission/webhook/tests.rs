//! The plug-ins against services on loopback.

use std::sync::Arc;

use api::Value;
use base::Random;
use base64::Engine as _;
use serde_json::json;

use super::{MutatingWebhooks, ValidatingWebhooks, WebhookConfig};
use crate::admission::testing::{World, told};
use crate::hook::testing::Service;
use crate::pipeline::{Authorizer, Decision, Operation, Plugin, Review, RuleSet};
use crate::request::{Attributes, UserInfo};

/// Everybody may do everything that is read.
struct Readers;

impl Authorizer for Readers {
    fn authorize<'a>(
        &'a self,
        _: &'a UserInfo,
        attributes: &'a Attributes,
    ) -> futures::future::BoxFuture<'a, Decision> {
        let decision = match &*attributes.verb {
            "get" => Decision::Allow(String::new()),
            _ => Decision::NoOpinion(String::new()),
        };
        decision.now()
    }

    fn rules(&self, _: &UserInfo, _: &str) -> RuleSet {
        RuleSet::default()
    }
}

const CONFIGURATIONS: [&str; 2] = [
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
];

fn mutating() -> MutatingWebhooks {
    MutatingWebhooks::new(Arc::new(Readers), WebhookConfig::default(), Random::seeded(1))
}

fn validating() -> ValidatingWebhooks {
    ValidatingWebhooks::new(Arc::new(Readers), WebhookConfig::default(), Random::seeded(1))
}

/// A webhook of ConfigMaps, with other fields.
fn webhook(service: &Service, name: &str, fields: &Value) -> Value {
    let mut webhook = json!({
        "name": name,
        // Over plain HTTP nobody looks into it.
        "clientConfig": {"url": format!("http://{}/{name}", service.address), "caBundle": "eA=="},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "*"}],
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "sideEffects": "None", "timeoutSeconds": 30,
        "namespaceSelector": {}, "objectSelector": {}, "admissionReviewVersions": ["v1"],
    });
    webhook
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    webhook
}

fn configuration(name: &str, webhooks: &[Value]) -> Value {
    json!({"metadata": {"name": name}, "webhooks": webhooks})
}

fn world(webhooks: &[Value]) -> World {
    let world = World::new(&[(
        "namespaces",
        json!({"metadata": {"name": "n", "labels": {"team": "a"}}}),
    )]);
    for resource in CONFIGURATIONS {
        world.put(resource, configuration("c", webhooks));
    }
    world
}

fn review(world: &World) -> Review {
    let mut review = world.review(Operation::Create, "", "configmaps", "", "n", "m");
    review.kind = api::GroupVersionKind::new("", "v1", "ConfigMap");
    review
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": data})
}

/// The answer to a question, with what else it says.
fn answer(question: &Value, response: &Value) -> (u16, Value) {
    let mut response = response.clone();
    response["uid"] = question["request"]["uid"].clone();
    (
        200,
        json!({"apiVersion": question["apiVersion"], "kind": "AdmissionReview", "response": response}),
    )
}

/// An answer that sets a key of the data.
fn sets(question: &Value, key: &str, value: &str) -> (u16, Value) {
    let patch = json!([{"op": "add", "path": format!("/data/{key}"), "value": value}]).to_string();
    let patch = base64::engine::general_purpose::STANDARD.encode(patch);
    answer(
        question,
        &json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}),
    )
}

async fn judge(world: &World, change: impl FnOnce(&mut Review)) -> Result<(), String> {
    let mut review = review(world);
    change(&mut review);
    let outcome = validating().validate(&review, Some(&map(&json!({}))), None).await;
    outcome.map_err(|status| format!("{} {}", status.code, status.message))
}

#[tokio::test]
async fn rules_selectors_and_conditions_say_who_is_asked() {
    let service = Service::start(|_, question| answer(question, &json!({"allowed": false}))).await;
    let rule = |fields: Value| {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"], "scope": "*"});
        rule.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!({"rules": [rule]})
    };
    for (fields, called) in [
        (rule(json!({})), true),
        (rule(json!({"operations": ["UPDATE"]})), false),
        (rule(json!({"apiGroups": ["apps"]})), false),
        (rule(json!({"apiVersions": ["v2"]})), false),
        (rule(json!({"resources": ["configmaps/status"]})), false),
        (rule(json!({"scope": "Cluster"})), false),
        (rule(json!({"scope": "Namespaced"})), true),
        (json!({"rules": []}), false),
        (json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), true),
        (json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}), false),
        (json!({"objectSelector": {"matchLabels": {"app": "x"}}}), false),
        (
            json!({"matchConditions": [{"name": "x", "expression": "request.name == 'm'"}]}),
            true,
        ),
        (
            json!({"matchConditions": [{"name": "x", "expression": "object.metadata.name != 'm'"}]}),
            false,
        ),
        (
            json!({"matchConditions": [{"name": "x", "expression":
                "authorizer.requestResource.check('get').allowed() && !authorizer.requestResource.check('update').allowed()"}]}),
            true,
        ),
        (
            json!({"failurePolicy": "Ignore", "matchConditions": [{"name": "x", "expression": "object.none == 1"}]}),
            false,
        ),
    ] {
        let world = world(&[webhook(&service, "w.x.y", &fields)]);
        let expect = match called {
            true => Err("400 admission webhook \"w.x.y\" denied the request without explanation".to_owned()),
            false => Ok(()),
        };
        assert_eq!(judge(&world, |_| {}).await, expect, "{fields}");
    }
    let broken = json!({"matchConditions": [{"name": "x", "expression": "object.none == 1"}]});
    let world = world(&[webhook(&service, "w.x.y", &broken)]);
    let why = "403 configmaps \"m\" is forbidden: expression 'object.none == 1' resulted in error: no such key: none";
    assert_eq!(judge(&world, |_| {}).await, Err(why.to_owned()));
}

#[tokio::test]
async fn some_requests_are_nobodys_business() {
    let service = Service::start(|_, question| answer(question, &json!({"allowed": false}))).await;
    let world = world(&[webhook(&service, "w.x.y", &json!({}))]);
    for (group, kind, resource, called) in [
        (
            super::GROUP,
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            false,
        ),
        (
            super::GROUP,
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            false,
        ),
        ("authentication.k8s.io", "TokenReview", "tokenreviews", true),
    ] {
        let outcome = judge(&world, |review| {
            review.kind = api::GroupVersionKind::new(group, "v1", kind);
            review.resource = api::GroupVersionResource::new(group, "v1", resource);
            review.requested = review.resource.clone();
        });
        assert_eq!(outcome.await.is_err(), called, "{kind}");
    }
    // A configuration that is gone holds no longer.
    for resource in CONFIGURATIONS {
        world.remove(resource, "", "c");
    }
    assert_eq!(judge(&world, |_| {}).await, Ok(()));
}

#[tokio::test]
async fn what_cannot_be_asked_fails_or_is_ignored() {
    let service = Service::start(|_, _| (500, json!({}))).await;
    let why = "500 Internal error occurred: failed calling webhook \"w.x.y\": failed to call webhook: an error on the server \
               (\"{}\") has prevented the request from succeeding"
        .to_owned();
    assert_eq!(
        judge(&world(&[webhook(&service, "w.x.y", &json!({}))]), |_| {}).await,
        Err(why)
    );
    for (fields, why) in [
        (
            json!({"admissionReviewVersions": ["v2"]}),
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)",
        ),
        (
            json!({"clientConfig": {"url": "https://x/", "caBundle": "eA=="}}),
            "could not get REST client: unable to load root certificates: certificate-authority: the PEM holds no certificate",
        ),
        (
            json!({"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/p"}, "caBundle": "eA=="}}),
            "could not get REST client: unable to load root certificates: certificate-authority: the PEM holds no certificate",
        ),
    ] {
        let got = judge(&world(&[webhook(&service, "w.x.y", &fields)]), |_| {}).await;
        let expect = format!("500 Internal error occurred: failed calling webhook \"w.x.y\": {why}");
        assert_eq!(got, Err(expect), "{fields}");
    }
    let ignored = [
        webhook(&service, "a.x.y", &json!({"failurePolicy": "Ignore"})),
        webhook(&service, "b.x.y", &json!({"failurePolicy": "Ignore"})),
    ];
    let world = world(&ignored);
    let review = review(&world);
    assert_eq!(
        validating().validate(&review, Some(&map(&json!({}))), None).await,
        Ok(())
    );
    let key = |index: usize| format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
    let mut notes = told(&review);
    notes.sort();
    assert_eq!(notes, [(key(0), "a.x.y".to_owned()), (key(1), "b.x.y".to_owned())]);
}

#[tokio::test]
async fn dry_runs_go_only_to_those_without_side_effects() {
    let service = Service::start(|_, question| answer(question, &json!({"allowed": true}))).await;
    for (effects, expect) in [
        ("None", Ok(())),
        ("NoneOnDryRun", Ok(())),
        (
            "Some",
            Err("400 admission webhook \"w.x.y\" does not support dry run".to_owned()),
        ),
    ] {
        let world = world(&[webhook(
            &service,
            "w.x.y",
            &json!({"sideEffects": effects, "failurePolicy": "Ignore"}),
        )]);
        assert_eq!(judge(&world, |review| review.dry_run = true).await, expect, "{effects}");
        assert_eq!(judge(&world, |_| {}).await, Ok(()), "{effects}");
    }
    let asked = service.asked();
    assert_eq!(asked[0]["request"]["dryRun"], true);
    assert_eq!(asked.len(), 5);
}

#[tokio::test]
async fn questions_say_all_of_a_request() {
    let service = Service::start(|_, question| answer(question, &json!({"allowed": true}))).await;
    for version in ["v1", "v1beta1"] {
        let fields = json!({"admissionReviewVersions": ["v9", version]});
        let world = world(&[webhook(&service, "w.x.y", &fields)]);
        let mut review = review(&world);
        review.operation = Operation::Update;
        review.options = json!({"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"});
        let (new, old) = (map(&json!({"k": "new"})), map(&json!({"k": "old"})));
        let outcome = validating().validate(&review, Some(&new), Some(&old)).await;
        assert_eq!(outcome, Ok(()));
        let mut asked = service.asked().pop().unwrap();
        let uid = asked["request"]["uid"].take();
        assert_eq!(uid.as_str().map(str::len), Some(36));
        let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
        let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
        let expect = json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": {
            "uid": null, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "m", "namespace": "n", "operation": "UPDATE", "dryRun": false,
            "userInfo": {"username": "jane", "groups": ["dev", "system:authenticated"]},
            "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"}, "object": new, "oldObject": old}});
        assert_eq!(asked, expect);
    }
}

#[tokio::test]
async fn one_webhook_after_another_changes_an_object() {
    let service = Service::start(|_, question| {
        let data = &question["request"]["object"]["data"];
        match data.as_object().map_or(0, serde_json::Map::len) {
            0 => sets(question, "first", "1"),
            1 => sets(question, "second", "2"),
            _ => answer(
                question,
                &json!({"allowed": true, "warnings": ["full"], "auditAnnotations": {"k": "v", "a/b": "bad"}}),
            ),
        }
    })
    .await;
    let world = World::new(&[("namespaces", json!({"metadata": {"name": "n"}}))]);
    // In the order of their configurations' names.
    world.put(
        CONFIGURATIONS[0],
        configuration("d", &[webhook(&service, "c.x.y", &json!({}))]),
    );
    world.put(
        CONFIGURATIONS[0],
        configuration(
            "c",
            &[
                webhook(&service, "a.x.y", &json!({})),
                webhook(&service, "b.x.y", &json!({})),
            ],
        ),
    );
    let review = review(&world);
    let mut object = Some(map(&json!({})));
    let outcome = mutating().admit(&review, &mut object, None).await;
    assert_eq!(outcome.map_err(|status| status.message), Err("Internal error occurred: add operation does not apply: doc is missing path: \"/data/first\": missing value".to_owned()));
    let mut object = Some(map(&json!({"zero": "0"})));
    let review = super::tests::review(&world);
    mutating().admit(&review, &mut object, None).await.unwrap();
    assert_eq!(object.unwrap()["data"], json!({"zero": "0", "second": "2"}));
    assert_eq!(*review.warnings.lock(), ["full", "full"]);
    let key = |prefix: &str, index: usize| format!("{prefix}.webhook.admission.k8s.io/round_0_index_{index}");
    let text = |value: &str| value.to_owned();
    let expect = [
        (
            key("patch", 0),
            text(
                r#"{"configuration":"c","webhook":"a.x.y","patch":[{"op":"add","path":"/data/second","value":"2"}],"patchType":"JSONPatch"}"#,
            ),
        ),
        (
            key("mutation", 0),
            text(r#"{"configuration":"c","webhook":"a.x.y","mutated":true}"#),
        ),
        (text("b.x.y/k"), text("v")),
        (
            key("mutation", 1),
            text(r#"{"configuration":"c","webhook":"b.x.y","mutated":false}"#),
        ),
        (text("c.x.y/k"), text("v")),
        (
            key("mutation", 2),
            text(r#"{"configuration":"d","webhook":"c.x.y","mutated":false}"#),
        ),
    ];
    assert_eq!(told(&review), expect);
}

#[tokio::test]
async fn who_asks_for_it_is_called_again_after_a_change() {
    let service = Service::start(|number, question| sets(question, "k", &number.to_string())).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let never = json!({"reinvocationPolicy": "Never"});
    for (webhooks, calls) in [
        ([&again, &never], 3),
        ([&never, &again], 2),
        // The second is due once more when the first has changed something again.
        ([&again, &again], 4),
        ([&never, &never], 2),
    ] {
        let before = service.asked().len();
        let world = world(&[
            webhook(&service, "a.x.y", webhooks[0]),
            webhook(&service, "b.x.y", webhooks[1]),
        ]);
        let review = review(&world);
        let plugin = mutating();
        let mut object = Some(map(&json!({"k": ""})));
        plugin.admit(&review, &mut object, None).await.unwrap();
        assert!(review.reinvocation.lock().again());
        plugin.admit(&review, &mut object, None).await.unwrap();
        assert_eq!(service.asked().len() - before, calls, "{webhooks:?}");
        assert!(!review.reinvocation.lock().again());
    }
}

#[tokio::test]
async fn patches_that_do_not_fit_are_the_servers_failure() {
    let patch = |patch: &str| base64::engine::general_purpose::STANDARD.encode(patch);
    for (response, operation, expect) in [
        (
            json!({"allowed": true, "patchType": "JSONPatch", "patch": patch("{")}),
            Operation::Create,
            Some("failed calling webhook \"w.x.y\": received undecodable patch in webhook response: "),
        ),
        (
            json!({"allowed": true, "patchType": "Merge", "patch": patch("[{}]")}),
            Operation::Create,
            Some("failed calling webhook \"w.x.y\": unsupported patch type \"Merge\""),
        ),
        (
            json!({"allowed": true, "patchType": "JSONPatch",
                "patch": patch(r#"[{"op": "add", "path": "/data", "value": {"k": "v"}}]"#)}),
            Operation::Delete,
            Some(
                "admission webhook \"w.x.y\" attempted to modify the object, which is not supported for this operation",
            ),
        ),
        (
            json!({"allowed": true, "patchType": "JSONPatch",
                "patch": patch(r#"[{"op": "replace", "path": "/data", "value": "text"}]"#)}),
            Operation::Create,
            Some("json: cannot unmarshal string into Go struct field ConfigMap.data of type map[string]string"),
        ),
        (
            json!({"allowed": true, "patchType": "JSONPatch",
                "patch": patch(r#"[{"op": "replace", "path": "/kind", "value": "Secret"}]"#)}),
            Operation::Create,
            Some("admission webhook \"w.x.y\" changed the kind of the object"),
        ),
        (
            json!({"allowed": true, "patchType": "JSONPatch", "patch": patch("[]")}),
            Operation::Delete,
            None,
        ),
    ] {
        let service = Service::start(move |_, question| answer(question, &response)).await;
        let world = world(&[webhook(&service, "w.x.y", &json!({}))]);
        let mut review = review(&world);
        review.operation = operation;
        let mut object = (operation == Operation::Create).then(|| map(&json!({"k": "v"})));
        let old = map(&json!({"k": "v"}));
        let outcome = mutating().admit(&review, &mut object, Some(&old)).await;
        let got = outcome.map_err(|status| status.message);
        match expect {
            None => assert_eq!(got, Ok(())),
            Some(why) => {
                let got = got.unwrap_err();
                assert!(got.starts_with(&format!("Internal error occurred: {why}")), "{got}");
            }
        }
    }
}
