//! Custom resources, from their definition to their end.

use std::time::Duration;

use api::GroupVersionKind;
use api::codec::protobuf;
use api::schema::SchemaRef;
use serde_json::{Value, json};

use crate::world::{Api, World};

pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Nothing takes this long on any machine.
const LIMIT: Duration = Duration::from_secs(60);
pub const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition of widgets with these versions.
pub fn widgets(versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wg"], "categories": ["all"]}}})
}

pub fn v1() -> Value {
    json!({"name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size",
            "labelSelectorPath": ".status.selector"}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}],
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "schema": {"openAPIV3Schema": {"type": "object", "description": "A widget.", "properties": {
            "spec": {"type": "object", "description": "What it is.", "required": ["color"], "properties": {
                "size": {"type": "integer", "minimum": 0, "default": 1},
                "color": {"type": "string", "enum": ["red", "blue"]},
                "port": {"x-kubernetes-int-or-string": true},
                "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"}, "weight": {"type": "integer", "default": 7}}}}},
                "x-kubernetes-validations": [{"rule": "self.size <= 10", "message": "too large"},
                    {"rule": "self.color == oldSelf.color || self.size > 0", "message": "only what is there changes color"}]},
            "status": {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"},
                "conditions": {"type": "array", "items": {"type": "object", "properties": {
                    "type": {"type": "string"}, "status": {"type": "string"}}}}}}}}}})
}

/// Makes a definition and waits until it is served.
pub async fn define(api: &Api, definition: &Value) -> Value {
    let made = api.post(DEFINITIONS, definition).await.ok();
    let name = made["metadata"]["name"].as_str().unwrap().to_owned();
    until(api, &name, |crd| condition(crd, "Established") == "True").await
}

pub fn condition(crd: &Value, kind: &str) -> String {
    let conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
    let mut found = conditions.filter(|own| own["type"] == kind);
    found
        .next()
        .and_then(|own| own["status"].as_str())
        .unwrap_or("")
        .to_owned()
}

/// Waits for a definition to be in a state.
pub async fn until(api: &Api, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut watch = api
        .watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}"))
        .await;
    while let Some(frame) = watch.next().await {
        if frame["type"] != "DELETED" && holds(&frame["object"]) {
            return frame["object"].clone();
        }
    }
    panic!("the watch ended");
}

/// Deletes a definition and waits until it is gone.
pub async fn forget(api: &Api, name: &str) {
    let mut watch = api
        .watch(&format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}"))
        .await;
    api.delete(&format!("{DEFINITIONS}/{name}")).await.ok();
    let gone = async { while watch.next().await.expect("the watch ended")["type"] != "DELETED" {} };
    tokio::time::timeout(LIMIT, gone).await.expect("it stays");
}

pub async fn world() -> (World, Api) {
    let world = World::start().await;
    let api = world.api();
    api.post("/api/v1/namespaces", &json!({"metadata": {"name": "default"}}))
        .await
        .ok();
    (world, api)
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_definition_is_established_and_published() {
    let (_world, api) = world().await;
    assert_eq!(api.get(WIDGETS).await.code, 404);
    let before = api.get("/openapi/v3").await.headers["etag"].clone();
    let crd = define(&api, &widgets(json!([v1()]))).await;
    assert_eq!(
        (
            &crd["status"]["acceptedNames"]["listKind"],
            &crd["status"]["storedVersions"],
            &crd["metadata"]["generation"]
        ),
        (&json!("WidgetList"), &json!(["v1"]), &json!(1))
    );
    assert_eq!(condition(&crd, "NamesAccepted"), "True");
    let path = format!("GET {DEFINITIONS}/widgets.example.com");
    let json = api.call(&path, &[], "").await.ok();
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let bytes = api.call(&path, &accept, "").await.bytes;
    let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let schema = SchemaRef::builtin(&kind).unwrap();
    assert_eq!(bytes, protobuf::encode(&json, &schema).unwrap());
    let list = api.get("/apis/example.com/v1").await.ok();
    let resources = list["resources"].as_array().unwrap();
    let names: Vec<&str> = resources
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    assert_eq!(
        (
            &resources[0]["shortNames"],
            &resources[0]["categories"],
            &resources[1]["kind"]
        ),
        (&json!(["wg"]), &json!(["all"]), &json!("Scale"))
    );
    assert_ne!(api.get("/openapi/v3").await.headers["etag"], before);
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let all = api.call("GET /apis", &accept, "").await.ok();
    let mut groups = all["items"].as_array().unwrap().iter();
    let group = groups.find(|group| group["metadata"]["name"] == "example.com").unwrap();
    // Of these the whole kind is said, as upstream.
    let kind = json!({"group": "example.com", "version": "v1", "kind": "Widget"});
    assert_eq!(group["versions"][0]["resources"][0]["responseKind"], kind);
    let document = api.get("/openapi/v3/apis/example.com/v1").await.ok();
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        (
            &schema["description"],
            &schema["properties"]["spec"]["properties"]["size"]["default"]
        ),
        (&json!("A widget."), &json!(1))
    );
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Widget");
    assert_eq!(
        schema["x-kubernetes-selectable-fields"],
        json!([{"fieldPath": "spec.color"}])
    );
    let document = api.get("/openapi/v2").await.ok();
    assert!(document["definitions"]["com.example.v1.WidgetList"].is_object());
    assert!(document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/scale"].is_object());
    // A second one of the same kind in the group has to wait.
    let mut other = widgets(json!([v1()]));
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    api.post(DEFINITIONS, &other).await.ok();
    let other = until(&api, "gadgets.example.com", |crd| {
        condition(crd, "NamesAccepted") == "False"
    })
    .await;
    assert_eq!(condition(&other, "Established"), "False");
    assert_eq!(api.get("/apis/example.com/v1/gadgets").await.code, 404);
    // Until the name is free.
    api.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.ok();
    until(&api, "gadgets.example.com", |crd| {
        condition(crd, "Established") == "True"
    })
    .await;
    assert_eq!(api.get("/apis/example.com/v1/gadgets").await.code, 200);
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let (_world, api) = world().await;
    let mut bad = widgets(json!([v1()]));
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["type"] =
        "int".into();
    let answer = api.post(DEFINITIONS, &bad).await;
    answer.refused(
        422,
        "CustomResourceDefinition.apiextensions.k8s.io \"widgets.example.com\" is invalid: ",
    );
    answer.refused(
        422,
        "spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Unsupported value: \"int\"",
    );
    let unapproved = json!({"metadata": {"name": "x.a.k8s.io"}, "spec": {"group": "a.k8s.io", "scope": "Cluster",
        "names": {"plural": "x", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    api.post(DEFINITIONS, &unapproved)
        .await
        .refused(422, "protected groups must have approval annotation");
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_judged() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let spec = json!({"color": "red", "extra": 1, "raw": {"any": [1]}, "parts": [{"name": "a"}], "port": "http"});
    let mut sent = widget("a", spec);
    sent["status"] = json!({"size": 3});
    let answer = api.post(WIDGETS, &sent).await;
    assert_eq!(answer.warnings(), ["299 - \"unknown field \\\"spec.extra\\\"\""]);
    let made = answer.ok();
    assert_eq!(
        made["spec"],
        json!({"color": "red", "size": 1, "raw": {"any": [1]}, "parts": [{"name": "a", "weight": 7}], "port": "http"})
    );
    assert!(made["status"].is_null() && made["metadata"]["generation"] == 1);
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    api.post(&strict, &sent)
        .await
        .refused(400, "strict decoding error: unknown field \"spec.extra\"");
    for (spec, expect) in [
        (json!({}), "spec.color: Required value"),
        (
            json!({"color": "green"}),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (json!({"color": "red", "size": 11}), "spec: Invalid value: too large"),
        (
            json!({"color": "red", "size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (
            json!({"color": "red", "parts": [{"name": "a"}, {"name": "a"}]}),
            "spec.parts[1]: Duplicate value: {\"name\":\"a\"}",
        ),
    ] {
        let answer = api.post(WIDGETS, &widget("b", spec)).await;
        answer.refused(422, "Widget.example.com \"b\" is invalid: ");
        answer.refused(422, expect);
    }
    let path = format!("{WIDGETS}/a");
    api.patch(&path, "strategic", &json!({}))
        .await
        .refused(415, "application/apply-patch+yaml");
    let merged = api
        .patch(&path, "merge", &json!({"spec": {"size": 2, "raw": null}}))
        .await
        .ok();
    assert_eq!(
        (&merged["spec"]["size"], &merged["metadata"]["generation"]),
        (&json!(2), &json!(2))
    );
    let size = json!([{"op": "replace", "path": "/spec/size", "value": 0}]);
    api.patch(&path, "json", &size).await.ok();
    let recolored = api.patch(&path, "merge", &json!({"spec": {"color": "blue"}})).await;
    recolored.refused(422, "only what is there changes color");
    // The status is written apart, and does not count as a change of what is wanted.
    let status =
        json!({"status": {"size": 4, "conditions": [{"type": "Ready", "status": "True"}]}, "spec": {"color": "blue"}});
    let told = api.patch(&format!("{path}/status"), "merge", &status).await.ok();
    assert_eq!(
        (
            &told["status"]["size"],
            &told["spec"]["color"],
            &told["metadata"]["generation"]
        ),
        (&json!(4), &json!("red"), &json!(3))
    );
    let put = api.put(&path, &widget("a", json!({"color": "red"}))).await;
    put.refused(
        422,
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    );
}

#[tokio::test]
async fn objects_are_applied_scaled_selected_and_printed() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let mut watch = api
        .watch(&format!("{WIDGETS}?watch=1&fieldSelector=spec.color%3Dred"))
        .await;
    let apply = |manager: &str| format!("{WIDGETS}/a?fieldManager={manager}");
    let part = |name: &str, weight: i64| {
        widget(
            "a",
            json!({"color": "red", "parts": [{"name": name, "weight": weight}]}),
        )
    };
    api.patch(&apply("one"), "apply", &part("x", 1)).await.ok();
    let both = api.patch(&apply("two"), "apply", &part("y", 2)).await.ok();
    assert_eq!(
        both["spec"]["parts"],
        json!([{"name": "x", "weight": 1}, {"name": "y", "weight": 2}])
    );
    api.patch(&apply("two"), "apply", &part("x", 2))
        .await
        .refused(409, "conflict with \"one\"");
    assert_eq!(watch.word().await, "ADDED a");
    assert_eq!(watch.word().await, "MODIFIED a");

    let scale = format!("{WIDGETS}/a/scale");
    assert_eq!(api.get(&scale).await.ok()["spec"]["replicas"], 1);
    let scaled = api.patch(&scale, "merge", &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(5))
    );
    let live = api.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(
        (&live["spec"]["size"], &live["spec"]["replicas"]),
        (&json!(5), &Value::Null)
    );

    api.post(WIDGETS, &widget("b", json!({"color": "blue"}))).await.ok();
    let red = api
        .get("/apis/example.com/v1/widgets?fieldSelector=spec.color%3Dred")
        .await
        .ok();
    assert_eq!(
        (&red["kind"], red["items"].as_array().unwrap().len()),
        (&json!("WidgetList"), 1)
    );
    assert_eq!(red["items"][0]["kind"], "Widget");
    api.get("/apis/example.com/v1/widgets?fieldSelector=spec.size%3D1")
        .await
        .refused(400, "field label not supported: spec.size");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = api.call(&format!("GET {WIDGETS}"), &accept, "").await.ok();
    let headings: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|own| own["name"].as_str())
        .collect();
    assert_eq!(headings, ["Name", "Size", "Ready"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 5, null]));
    let removed = api.delete(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(removed["status"], "Success");
}

/// The objects of a definition go with it, too, when nobody can see them any more.
#[tokio::test]
async fn a_definition_that_is_not_served_ends_with_its_objects() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    api.post(WIDGETS, &widget("a", json!({"color": "red"}))).await.ok();
    let change = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    api.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &change)
        .await
        .ok();
    forget(&api, "widgets.example.com").await;
    define(&api, &widgets(json!([v1()]))).await;
    assert_eq!(api.get(WIDGETS).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn a_definition_ends_with_its_objects() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let mut kept = widget("a", json!({"color": "red"}));
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    api.post(WIDGETS, &kept).await.ok();
    api.post(WIDGETS, &widget("b", json!({"color": "red"}))).await.ok();
    let mut watch = api.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!([watch.word().await, watch.word().await], ["ADDED a", "ADDED b"]);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = api.delete(&path).await.ok();
    assert_eq!(condition(&deleted, "Terminating"), "True");
    let mut words = [watch.word().await, watch.word().await];
    words.sort();
    assert_eq!(words, ["DELETED b", "MODIFIED a"]);
    let refused = api.post(WIDGETS, &widget("c", json!({"color": "red"}))).await;
    assert!(matches!(refused.code, 403 | 405), "{refused:?}");
    assert_eq!(api.get(&path).await.code, 200);
    let mut definitions = api.watch(&format!("{DEFINITIONS}?watch=1")).await;
    api.patch(
        &format!("{WIDGETS}/a"),
        "json",
        &json!([{"op": "remove", "path": "/metadata/finalizers"}]),
    )
    .await;
    while definitions.word().await != "DELETED widgets.example.com" {}
    // The watch tells of the last object before it ends.
    assert_eq!([watch.word().await, watch.word().await], ["DELETED a", "END"]);
    assert_eq!(api.get(WIDGETS).await.code, 404);
    // Another one of the same name begins empty.
    define(&api, &widgets(json!([v1()]))).await;
    assert_eq!(api.get(WIDGETS).await.ok()["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_definition_tells_that_its_objects_do_not_go() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let mut kept = widget("a", json!({"color": "red"}));
    kept["metadata"]["finalizers"] = json!(["example.com/keep"]);
    api.post(WIDGETS, &kept).await.ok();
    let name = "widgets.example.com";
    let path = format!("{DEFINITIONS}/{name}");
    let terminating = |crd: &Value| {
        let mut conditions = crd["status"]["conditions"].as_array().into_iter().flatten();
        let found = conditions.find(|own| own["type"] == "Terminating");
        found.cloned().unwrap_or_default()
    };
    let began = tokio::time::Instant::now();
    api.delete(&path).await.ok();
    let told = until(&api, name, |crd| terminating(crd)["reason"] == "InstanceDeletionCheck").await;
    assert!(
        began.elapsed() >= std::time::Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    let told = terminating(&told);
    assert_eq!(
        (&told["status"], &told["message"]),
        (
            &json!("True"),
            &json!("could not confirm zero CustomResources remaining: context deadline exceeded")
        )
    );
    // It tries again, and hears when they are gone.
    until(&api, name, |crd| {
        terminating(crd)["reason"] == "InstanceDeletionInProgress"
    })
    .await;
    let mut definitions = api.watch(&format!("{DEFINITIONS}?watch=1")).await;
    let free = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    api.patch(&format!("{WIDGETS}/a"), "json", &free).await.ok();
    while definitions.word().await != "DELETED widgets.example.com" {}
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_changed_definition_ends_its_watches() {
    let (_world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let made = api.post(WIDGETS, &widget("a", json!({"color": "red"}))).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let since = format!("{WIDGETS}?watch=1&resourceVersion={from}");
    let watch = || api.watch(&since);
    let mut open = watch().await;
    // What is not of the resource changes nothing.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    api.patch(&path, "merge", &labels).await.ok();
    api.post(WIDGETS, &widget("b", json!({"color": "red"}))).await.ok();
    assert_eq!(open.word().await, "ADDED b");
    // Another column: the objects are the same, and the watch goes on where it was.
    let mut version = v1();
    version["additionalPrinterColumns"] = json!([{"name": "Color", "type": "string", "jsonPath": ".spec.color"}]);
    let change = json!({"spec": {"versions": [version]}});
    api.patch(&path, "merge", &change).await.ok();
    assert_eq!(open.word().await, "END");
    assert_eq!(watch().await.word().await, "ADDED b");
    // Another default: the objects are others, and who watched lists them again.
    let mut open = watch().await;
    assert_eq!(open.word().await, "ADDED b");
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["raw"]["default"] = json!({});
    let change = json!({"spec": {"versions": [version]}});
    api.patch(&path, "merge", &change).await.ok();
    assert_eq!(open.word().await, "END");
    let gone = watch().await.next().await.unwrap();
    assert_eq!((&gone["type"], &gone["object"]["code"]), (&json!("ERROR"), &json!(410)));
    let live = api.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(live["spec"]["raw"], json!({}));
}

#[tokio::test]
async fn documents_of_openapi_are_named_before_they_are_made() {
    let (_world, api) = world().await;
    let place = |index: &Value| index["paths"]["apis/example.com/v1"]["serverRelativeURL"].clone();
    define(&api, &widgets(json!([v1()]))).await;
    let first = place(&api.get("/openapi/v3").await.ok());
    let url = first.as_str().unwrap();
    let document = api.get(url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    let etag = document.headers["etag"].to_str().unwrap().trim_matches('"').to_owned();
    assert!(url.ends_with(&etag), "{url} {etag}");
    // Another resource of another group changes nothing, a change of this one does.
    let other = json!({"metadata": {"name": "gears.example.org"}, "spec": {"group": "example.org", "scope": "Cluster",
        "names": {"plural": "gears", "kind": "Gear"}, "versions": [v1()]}});
    define(&api, &other).await;
    assert_eq!(place(&api.get("/openapi/v3").await.ok()), first);
    let options = &document.ok()["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    let kinds = options["x-kubernetes-group-version-kind"].as_array().unwrap();
    assert!(kinds.iter().all(|kind| kind["group"] != "example.com"), "{kinds:?}");
    let mut version = v1();
    version["schema"]["openAPIV3Schema"]["description"] = "Another widget.".into();
    let change = json!({"spec": {"versions": [version]}});
    api.patch(&format!("{DEFINITIONS}/widgets.example.com"), "merge", &change)
        .await
        .ok();
    let document = loop {
        let document = api.get("/openapi/v3/apis/example.com/v1").await.ok();
        if document["components"]["schemas"]["com.example.v1.Widget"]["description"] == "Another widget." {
            break document;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(document["openapi"], "3.0.0");
    assert_ne!(place(&api.get("/openapi/v3").await.ok()), first);
    assert_eq!(api.get(url).await.code, 301);
}

#[tokio::test]
async fn definitions_are_served_when_the_server_starts_again() {
    let (world, api) = world().await;
    define(&api, &widgets(json!([v1()]))).await;
    let made = api.post(WIDGETS, &widget("a", json!({"color": "red"}))).await.ok();
    let from = made["metadata"]["resourceVersion"].as_str().unwrap();
    api.post(WIDGETS, &widget("b", json!({"color": "red"}))).await.ok();
    world.running.shutdown().await;
    let again = World::over(world.engine.clone(), Vec::new(), |_| {}).await;
    let api = again.api();
    let live = api.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(live["spec"]["size"], 1);
    // Watches go on, too.
    let mut watch = api.watch(&format!("{WIDGETS}?watch=1&resourceVersion={from}")).await;
    assert_eq!(watch.word().await, "ADDED b");
}
