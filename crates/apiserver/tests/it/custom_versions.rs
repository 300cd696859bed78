//! Custom resources in several versions: renamed by the server, or converted by a webhook of the test's.

use serde_json::{Value, json};

use crate::custom::{DEFINITIONS, WIDGETS, define, widgets, world};
use crate::webhooks::Service;

pub const BETA: &str = "/apis/example.com/v1beta1/namespaces/default/widgets";

/// `size` in v1, `length` in v1beta1; both may be selected.
pub fn versions(storage: &str) -> Value {
    let version = |name: &str, field: &str| {
        json!({"name": name, "served": true, "storage": name == storage, "deprecated": name == "v1beta1",
            "selectableFields": [{"jsonPath": format!(".spec.{field}")}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
                field: {"type": "string"}, "both": {"type": "string"}}}}}}})
    };
    json!([version("v1", "size"), version("v1beta1", "length")])
}

/// What the service answers to a ConversionReview.
pub fn converted(path: &str, question: &Value) -> Value {
    let request = &question["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap();
    let (to, from) = match wanted.ends_with("/v1") {
        true => ("size", "length"),
        false => ("length", "size"),
    };
    let objects = request["objects"].as_array().unwrap().iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        if let Some(value) = object["spec"].as_object_mut().unwrap().remove(from) {
            object["spec"][to] = value;
        }
        if path == "/rename-objects" {
            object["metadata"]["name"] = "other".into();
        }
        object
    });
    let objects: Vec<Value> = objects.collect();
    let result = match path {
        "/refuse-conversion" => json!({"status": "Failed", "message": "it cannot be done"}),
        _ => json!({"status": "Success"}),
    };
    json!({"kind": "ConversionReview", "apiVersion": question["apiVersion"],
        "response": {"uid": request["uid"], "result": result, "convertedObjects": objects}})
}

#[tokio::test]
async fn versions_without_conversion_are_renamed() {
    let (_world, api) = world().await;
    define(&api, &widgets(versions("v1"))).await;
    let spec = json!({"size": "s", "both": "b"});
    api.post(WIDGETS, &json!({"metadata": {"name": "a"}, "spec": spec}))
        .await
        .ok();
    let answer = api.get(&format!("{BETA}/a")).await;
    assert_eq!(
        answer.warnings(),
        ["299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\""]
    );
    let beta = answer.ok();
    assert_eq!(
        (&beta["apiVersion"], &beta["spec"]),
        (&json!("example.com/v1beta1"), &json!({"both": "b"}))
    );
    let made = api
        .post(BETA, &json!({"metadata": {"name": "b"}, "spec": {"both": "c"}}))
        .await
        .ok();
    assert_eq!(made["apiVersion"], "example.com/v1beta1");
    let list = api.get(WIDGETS).await.ok();
    let both: Vec<&Value> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["spec"]["both"])
        .collect();
    assert_eq!(both, ["b", "c"]);
    // The storage version changes; what is stored follows when it is written.
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let changed = api
        .patch(&path, "merge", &json!({"spec": {"versions": versions("v1beta1")}}))
        .await
        .ok();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    assert_eq!(api.get(&format!("{WIDGETS}/a")).await.ok()["spec"]["both"], "b");
}

#[tokio::test]
async fn a_webhook_converts() {
    let service = Service::start().await;
    let (_world, api) = world().await;
    let mut crd = widgets(versions("v1"));
    let conversion = |path: &str| {
        json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1", "v1beta1"],
            "clientConfig": service.by_url(path)}})
    };
    crd["spec"]["conversion"] = conversion("/convert");
    define(&api, &crd).await;
    let mut watch = api
        .watch(&format!("{BETA}?watch=1&fieldSelector=spec.length%3Ds"))
        .await;
    for (name, size) in [("a", "s"), ("b", "m")] {
        let object = json!({"metadata": {"name": name}, "spec": {"size": size}});
        api.post(WIDGETS, &object).await.ok();
    }
    let first = watch.next().await.unwrap();
    assert_eq!(
        (&first["type"], &first["object"]["spec"], &first["object"]["apiVersion"]),
        (&json!("ADDED"), &json!({"length": "s"}), &json!("example.com/v1beta1"))
    );
    assert_eq!(api.get(&format!("{BETA}/a")).await.ok()["spec"], json!({"length": "s"}));
    let list = api.get(&format!("{BETA}?fieldSelector=spec.length%3Dm")).await.ok();
    assert_eq!(
        (
            &list["items"][0]["metadata"]["name"],
            list["items"].as_array().unwrap().len()
        ),
        (&json!("b"), 1)
    );
    // What is written in one version is stored in the other.
    let made = api
        .post(BETA, &json!({"metadata": {"name": "c"}, "spec": {"length": "l"}}))
        .await
        .ok();
    assert_eq!(made["spec"], json!({"length": "l"}));
    assert_eq!(
        api.get(&format!("{WIDGETS}/c")).await.ok()["spec"],
        json!({"size": "l"})
    );
    let patched = api
        .patch(&format!("{BETA}/c"), "merge", &json!({"spec": {"length": "x"}}))
        .await
        .ok();
    assert_eq!(
        (&patched["spec"], &patched["metadata"]["generation"]),
        (&json!({"length": "x"}), &json!(2))
    );
    assert_eq!(
        api.get(&format!("{WIDGETS}/c")).await.ok()["spec"],
        json!({"size": "x"})
    );
    api.delete(&format!("{BETA}/c")).await.ok();
    // Who owns what in one version loses it to who changes it in the other.
    let path = format!("{BETA}/d?fieldManager=beta");
    let config = json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {"name": "d"},
        "spec": {"length": "l", "both": "b"}});
    api.patch(&path, "apply", &config).await.ok();
    let owned = |object: &Value| {
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        let beta = managers.iter().find(|entry| entry["manager"] == "beta").unwrap();
        beta["fieldsV1"]["f:spec"].clone()
    };
    let change = |both: &str, size: &str| json!({"spec": {"both": both, "size": size}});
    let path = format!("{WIDGETS}/d?fieldManager=other");
    let same = api.patch(&path, "merge", &change("b", "l")).await.ok();
    assert_eq!(owned(&same), json!({"f:both": {}, "f:length": {}}));
    let changed = api.patch(&path, "merge", &change("b", "m")).await.ok();
    assert_eq!(owned(&changed), json!({"f:both": {}}));
    api.delete(&format!("{BETA}/d")).await.ok();
    let converted = |from: &str, to: &str, succeeded: bool| {
        format!(
            "apiserver_crd_conversion_webhook_duration_seconds_count{{crd_name=\"widgets.example.com\",from_version=\"{from}\",\
             to_version=\"{to}\",succeeded=\"{succeeded}\"}}"
        )
    };
    let called = |outcome: &str, failure: &str| {
        format!("apiserver_conversion_webhook_request_total{{result=\"{outcome}\",failure_type=\"{failure}\"}}")
    };
    for (from, to) in [("v1", "v1beta1"), ("v1beta1", "v1")] {
        assert!(api.metric(&converted(from, to, true)).await > 0.0, "{from} to {to}");
        assert_eq!(api.metric(&converted(from, to, false)).await, 0.0, "{from} to {to}");
    }
    assert!(api.metric(&called("success", "")).await > 0.0);
    let seconds = "apiserver_conversion_webhook_duration_seconds_count{result=\"success\"";
    assert!(api.metric(seconds).await > 0.0);
    for (path, expect) in [
        (
            "/refuse-conversion",
            "conversion webhook for example.com/v1, Kind=Widget failed: it cannot be done",
        ),
        ("/rename-objects", "must have the same name: a != other"),
    ] {
        let change = json!({"spec": {"conversion": conversion(path)}});
        api.patch(&format!("{DEFINITIONS}/widgets.example.com"), "merge", &change)
            .await
            .ok();
        // The new webhook is asked from some moment on; a watch of the definition would tell of its write only.
        let answer = loop {
            let answer = api.get(&format!("{BETA}/a")).await;
            if answer.message().contains(expect) {
                break answer;
            }
            tokio::task::yield_now().await;
        };
        answer.refused(500, expect);
    }
    assert!(api.metric(&converted("v1", "v1beta1", false)).await >= 2.0);
    let failed = "apiserver_conversion_webhook_request_total{result=\"failure\"";
    assert!(api.metric(failed).await >= 2.0);
}

/// A watch that waits for its first objects while the definition changes ends as those do that had begun.
#[tokio::test]
async fn a_watch_does_not_outlive_the_definition_that_it_began_under() {
    let service = Service::start().await;
    let (_world, api) = world().await;
    let mut crd = widgets(versions("v1"));
    crd["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": service.by_url("/held")}});
    define(&api, &crd).await;
    let object = json!({"metadata": {"name": "a"}, "spec": {"size": "s"}});
    let made = api.post(WIDGETS, &object).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let mut open = api.watch(&format!("{WIDGETS}?watch=1&resourceVersion={from}")).await;
    let late = tokio::spawn({
        let api = api.clone();
        async move { api.watch(&format!("{BETA}?watch=1")).await.word().await }
    });
    service.holds().await;
    let mut changed = versions("v1");
    changed[1]["additionalPrinterColumns"] = json!([{"name": "Both", "type": "string", "jsonPath": ".spec.both"}]);
    let change = json!({"spec": {"versions": changed}});
    api.patch(&format!("{DEFINITIONS}/widgets.example.com"), "merge", &change)
        .await
        .ok();
    assert_eq!(open.word().await, "END");
    service.go_on();
    assert_eq!(late.await.unwrap(), "END");
}
