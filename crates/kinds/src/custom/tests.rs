//! What a definition makes of its objects.

use serde_json::json;

use super::*;
use crate::row::{PrintContext, WriteContext, Writer};

fn widgets() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com", "uid": "u"},
        "spec": {"group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1, "maximum": 5},
                            "color": {"type": "string"}},
                            "x-kubernetes-validations": [{"rule": "self.size != 4", "message": "not four"}]},
                        "status": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
        "status": {"acceptedNames": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList",
            "shortNames": ["w"]}, "conditions": [{"type": "Established", "status": "True"}]}})
}

fn context(subresource: &str) -> WriteContext<'_> {
    WriteContext {
        now: "",
        subresource,
        user: Writer::named(""),
        version: "v1",
    }
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": spec})
}

#[test]
fn a_definition_is_rows() {
    let definition = Definition::of(&widgets()).unwrap();
    let row = definition.row(0);
    assert_eq!(
        (&*row.key_prefix, &*row.hub, row.namespaced, row.served.len()),
        ("/registry/example.com/widgets", "v1", true, 2)
    );
    let names: Vec<&str> = row.served[0].subresources.iter().map(|sub| sub.name).collect();
    assert_eq!(names, ["status", "scale"]);
    let version = &definition.versions[0];
    assert_eq!(version.short_names, ["w"]);
    let context = PrintContext { now_seconds: 0 };
    assert_eq!(version.columns[0].cell(&widget(json!({"size": 3})), &context), json!(3));
    let (name, path) = &version.selectable[0];
    assert_eq!(
        (name.as_str(), Version::selected(path, &widget(json!({"color": "red"})))),
        ("spec.color", "red".into())
    );
    assert_eq!(
        definition.versions[1].warning.as_deref(),
        Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
}

#[test]
fn objects_are_defaulted_and_judged() {
    let definition = Definition::of(&widgets()).unwrap();
    let rules = definition.row(0).strategy;
    let mut object = widget(json!({"color": null}));
    rules.default(&mut object);
    assert_eq!(object["spec"], json!({"size": 1}));
    for (spec, expect) in [
        (json!({"size": 3}), vec![]),
        (json!({"size": 4}), vec!["spec: Invalid value: not four"]),
        (
            json!({"size": 6}),
            vec!["spec.size: Invalid value: 6: spec.size in body should be less than or equal to 5"],
        ),
        (
            json!({"size": -1}),
            vec![".spec.size: Invalid value: -1: should be a non-negative integer"],
        ),
        (
            json!({"size": "x"}),
            vec![
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
                ".spec.size: Invalid value: 0: .spec.size accessor error: x is of the type string, expected int64",
                "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
            ],
        ),
    ] {
        let found = rules.validate_create(&widget(spec.clone()), &context(""));
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, expect, "{spec}");
    }
}

#[test]
fn the_status_is_written_apart() {
    let definition = Definition::of(&widgets()).unwrap();
    let rules = definition.row(0).strategy;
    let mut old = widget(json!({"size": 1}));
    old["status"] = json!({"size": 1});
    let mut new = widget(json!({"size": 2}));
    new["status"] = json!({"size": 2});
    new["metadata"]["labels"] = json!({"a": "b"});
    let mut main = new.clone();
    rules.prepare_for_update(&mut main, &old, &context(""));
    assert_eq!((&main["spec"]["size"], &main["status"]["size"]), (&json!(2), &json!(1)));
    assert!(rules.generation_changed(&main, &old));
    let mut status = new.clone();
    rules.prepare_for_update(&mut status, &old, &context("status"));
    assert_eq!(
        (&status["spec"]["size"], &status["status"]["size"]),
        (&json!(1), &json!(2))
    );
    assert!(status["metadata"]["labels"].is_null());
}

#[test]
fn replicas_are_where_the_definition_says() {
    let definition = Definition::of(&widgets()).unwrap();
    let scale = definition.versions[0].scale.clone().unwrap();
    let mut object = widget(json!({"size": 3}));
    assert_eq!(scale.replicas(&object), Ok((Some(3), 0)));
    scale.set_replicas(&mut object, 5).unwrap();
    assert_eq!(object["spec"]["size"], 5);
    assert_eq!(scale.replicas(&json!({})), Ok((None, 0)));
}

#[test]
fn what_is_for_people_is_not_kept_for_judging() {
    let mut schema = json!({"type": "object", "description": "x", "properties": {
        "description": {"type": "string", "description": "x", "default": {"description": "kept"}},
        "list": {"type": "array", "items": {"title": "x", "anyOf": [{"description": "x", "minimum": 1}]}}}});
    super::only_rules(&mut schema);
    assert_eq!(
        schema,
        json!({"type": "object", "properties": {
            "description": {"type": "string", "default": {"description": "kept"}},
            "list": {"type": "array", "items": {"anyOf": [{"minimum": 1}]}}}})
    );
}
