//! Definitions are defaulted and judged as upstream does.

use serde_json::json;

use super::*;
use crate::row::Writer;

fn context(subresource: &str) -> WriteContext<'_> {
    WriteContext {
        now: "",
        subresource,
        user: Writer::named(""),
        version: "v1",
    }
}

fn with_schema(schema: Value) -> Value {
    let mut crd = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    Definitions.prepare_for_create(&mut crd, &context(""));
    Definitions.default(&mut crd);
    crd
}

fn plain() -> Value {
    with_schema(json!({"type": "object", "properties": {"spec": {"type": "object"}}}))
}

fn check(crd: &Value, old: Option<&Value>, expect: &[&str]) {
    let found = match old {
        None => Definitions.validate_create(crd, &context("")),
        Some(old) => Definitions.validate_update(crd, old, &context("")),
    };
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expect, "{crd}");
}

fn check_schema(schema: Value, expect: &[&str]) {
    check(&with_schema(schema), None, expect);
}

#[test]
fn names_are_made_up() {
    let crd = plain();
    assert_eq!(
        (
            &crd["spec"]["names"],
            &crd["spec"]["conversion"],
            &crd["status"]["storedVersions"]
        ),
        (
            &json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}),
            &json!({"strategy": "None"}),
            &json!(["v1"])
        )
    );
    check(&crd, None, &[]);
}

#[test]
fn definitions_are_judged() {
    let edit = |edit: &dyn Fn(&mut Value)| {
        let mut crd = plain();
        edit(&mut crd);
        crd
    };
    let cases: [(&dyn Fn(&mut Value), &[&str]); 6] = [
        (
            &|crd| crd["metadata"]["name"] = "x.example.com".into(),
            &[r#"metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group"#],
        ),
        (
            &|crd| crd["spec"]["scope"] = "Everywhere".into(),
            &[r#"spec.scope: Unsupported value: "Everywhere": supported values: "Cluster", "Namespaced""#],
        ),
        (
            &|crd| crd["spec"]["versions"][0]["storage"] = false.into(),
            &[
                r#"spec.versions: Invalid value: [{"name":"v1","served":true,"storage":false}]: must have exactly one version marked as storage version"#,
            ],
        ),
        (
            &|crd| crd["spec"]["names"]["listKind"] = "Widget".into(),
            &[r#"spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same"#],
        ),
        (
            &|crd| crd["spec"]["conversion"] = json!({"strategy": "Webhook"}),
            &[
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
        (
            &|crd| {
                crd["spec"]["versions"][0]["subresources"] =
                    json!({"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": "x"}})
            },
            &[
                r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.x": should be a json path under .spec"#,
                r#"spec.subresources.scale.statusReplicasPath: Invalid value: "x": must be a simple json path starting with ."#,
            ],
        ),
    ];
    for (change, expect) in cases {
        check(&edit(change), None, expect);
    }
}

#[test]
fn schemas_are_judged() {
    let spec = |spec: Value| json!({"type": "object", "properties": {"spec": spec}});
    const AT: &str = "spec.validation.openAPIV3Schema.properties[spec]";
    check_schema(
        spec(json!({"type": "object", "properties": {"a": {"type": "file"}}})),
        &[&format!(
            r#"{AT}.properties[a].type: Unsupported value: "file": supported values: "array", "boolean", "integer", "number", "object", "string""#
        )],
    );
    check_schema(
        spec(json!({"type": "integer", "default": "x"})),
        &[&format!(
            r#"{AT}.default: Invalid value: "string":  in body must be of type integer: "string""#
        )],
    );
    check_schema(
        spec(json!({"type": "object", "default": {"x": 1}})),
        &[&format!(
            r#"{AT}.default: Invalid value: {{"x":1}}: must not have unknown fields"#
        )],
    );
    check_schema(
        spec(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}}}}),
        ),
        &[&format!(
            "{AT}.items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
        )],
    );
    check_schema(
        spec(json!({"type": "string", "x-kubernetes-list-type": "set"})),
        &[&format!(
            r#"{AT}.type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#
        )],
    );
}

#[test]
fn rules_are_compiled_and_priced() {
    let spec = |rules: Value| {
        json!({"type": "object", "properties": {"spec": {"type": "object",
            "properties": {"n": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string",
                "x-kubernetes-validations": []}}},
            "x-kubernetes-validations": rules}}})
    };
    check_schema(spec(json!([{"rule": "self.n > 1"}])), &[]);
    let crd = with_schema(spec(json!([{"rule": "self.m > 1"}])));
    let found = Definitions.validate_create(&crd, &context(""));
    assert!(found[0].detail.contains("undefined field 'm'"), "{found:?}");
    let expensive = json!([{"rule": "self.list.all(x, self.list.all(y, x.contains(y)))"}]);
    let found = Definitions.validate_create(&with_schema(spec(expensive)), &context(""));
    let texts: Vec<&str> = found.iter().map(|error| &*error.detail).collect();
    assert!(
        texts[0].starts_with("estimated rule cost exceeds budget by factor of more than 100x"),
        "{texts:?}"
    );
    assert!(
        texts[2].starts_with("x-kubernetes-validations estimated rule cost total"),
        "{texts:?}"
    );
}

#[test]
fn an_established_definition_keeps_its_names() {
    let mut old = plain();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = "Cluster".into();
    new["spec"]["names"]["plural"] = "gadgets".into();
    check(
        &new,
        Some(&old),
        &[
            r#"spec.scope: Invalid value: "Cluster": field is immutable"#,
            r#"spec.names.plural: Invalid value: "gadgets": field is immutable"#,
        ],
    );
}
