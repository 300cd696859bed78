//! Patches that are none, and patches that lead nowhere.

use super::{APPLY, JSON, JSON_PATCH, KEPT, MERGE, STRATEGIC, run, text};

#[test]
fn patches() {
    let apply = "/api/v1/namespaces/bad-input/configmaps/kept?fieldManager=x";
    run(vec![
        (
            "PATCH",
            KEPT,
            JSON,
            text("{}"),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            text("{"),
            400,
            "BadRequest",
            "error decoding patch: unexpected end of JSON input",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text("{}"),
            400,
            "BadRequest",
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text(r#"[{"op":"foo","path":"/a"}]"#),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        (
            "PATCH",
            KEPT,
            JSON_PATCH,
            text(r#"[{"op":"test","path":"/data/a","value":"2"},{"op":"remove","path":"/data"}]"#),
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        ),
        ("PATCH", KEPT, STRATEGIC, text(r#"{"data":5}"#), 422, "Invalid", "…"),
        (
            "PATCH",
            KEPT,
            APPLY,
            text("{}"),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "PATCH",
            apply,
            APPLY,
            text(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"managedFields":[{}]}}"#),
            400,
            "BadRequest",
            "metadata.managedFields must be nil",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/bad-input/configmaps/kept?force=true",
            MERGE,
            text("{}"),
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
    ]);
}
