//! `test/e2e/apimachinery/field_validation.go`: the tests of built-in kinds.

use crate::place::{place, refusal};

const PATH: &str = "deployments?fieldManager=field_validation_mgr&fieldValidation=Strict";

/// FieldValidation should detect unknown and duplicate fields of a typed object
pub async fn unknown_and_duplicate_fields() {
    let spec = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;
    let message = refused("unknown-fields", "", spec).await;
    let expected = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(message.contains(expected), "{message}");
}

/// FieldValidation should detect unknown metadata fields of a typed object
pub async fn unknown_metadata() {
    let message = refused("unknown-metadata", r#""unknownMeta": "foo","#, "").await;
    let expected = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(message.contains(expected), "{message}");
}

/// What a Deployment with additional fields is refused with. A text, because a tree has no duplicate fields.
async fn refused(name: &str, metadata: &str, spec: &str) -> String {
    let place = place(name).await;
    let path = format!("/apis/apps/v1/namespaces/{}/{PATH}", place.namespace);
    let body = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{"name": "my-dep", {metadata} "labels": {{"app": "nginx"}}}},
            "spec": {{{spec} "selector": {{"matchLabels": {{"app": "nginx"}}}}, "template": {{
                "metadata": {{"labels": {{"app": "nginx"}}}},
                "spec": {{"containers": [{{"name": "nginx", "image": "nginx:latest"}}]}}}}}}}}"#
    );
    refusal(place.post(&path, body).await).message
}
