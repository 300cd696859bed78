//! Bodies that are no objects, or objects of another kind.

use super::{APPLY, BODY_BYTES_MAX, JSON, KEPT, MAPS, MERGE, PROTOBUF, YAML, map, run, text};

#[test]
fn bodies() {
    let deep = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{}{}"#, "[".repeat(10_000), "]".repeat(10_000)),
    );
    let large = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{{"a":"{}"}}"#, "x".repeat(BODY_BYTES_MAX)),
    );
    let too_long = map(
        r#"{"name":"a"}"#,
        &format!(r#","data":{{"a":"{}"}}"#, "x".repeat(1024 * 1024 + 1)),
    );
    let unrecognized = |rest: &str| -> &'static str {
        format!("the object provided is unrecognized (must be of type ConfigMap): {rest}").leak()
    };
    let no_kind = |rest: &str| unrecognized(&format!("couldn't get version/kind; json parse error: {rest}"));
    let cannot = |rest: &str| -> &'static str {
        format!("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: {rest}").leak()
    };
    run(vec![
        (
            "POST",
            MAPS,
            JSON,
            text("{"),
            400,
            "BadRequest",
            no_kind("unexpected end of JSON input ({)"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(""),
            400,
            "BadRequest",
            no_kind("unexpected end of JSON input (<empty>)"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text("[]"),
            400,
            "BadRequest",
            no_kind(concat!(
                "json: cannot unmarshal array into Go value of type ",
                r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" } (5b5d)"#
            )),
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":{"a":1}"#),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":"a"}"#, r#","data":[]"#),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            map(r#"{"name":5}"#, ""),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string"),
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#),
            400,
            "BadRequest",
            "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion",
        ),
        (
            "POST",
            MAPS,
            JSON,
            text(r#"{"kind":"ConfigMap","apiVersion":"v2","metadata":{"name":"a"}}"#),
            400,
            "BadRequest",
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("a: [b"),
            400,
            "BadRequest",
            unrecognized("yaml: line 1: …"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("{kind: ConfigMap, apiVersion: v1, metadata: {name: a}, data: {a: 1}}"),
            400,
            "BadRequest",
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            text("x: &x [a, a]\ny: &y [*x, *x]\nz: [*y, *y]\n\tkind"),
            400,
            "BadRequest",
            unrecognized("…"),
        ),
        (
            "POST",
            MAPS,
            PROTOBUF,
            text("nothing"),
            400,
            "BadRequest",
            unrecognized(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0] (6e6f7468696e67)",
            ),
        ),
        (
            "POST",
            MAPS,
            PROTOBUF,
            text("k8s\0\u{1}\u{2}\u{3}"),
            400,
            "BadRequest",
            "…",
        ),
        (
            "POST",
            MAPS,
            "text/plain",
            text("{}"),
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "POST",
            MAPS,
            JSON,
            deep.clone(),
            400,
            "BadRequest",
            no_kind("exceeded max depth …"),
        ),
        (
            "POST",
            MAPS,
            YAML,
            deep.clone(),
            400,
            "BadRequest",
            unrecognized("exceeded max depth …"),
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            deep.clone(),
            400,
            "BadRequest",
            "error decoding patch: exceeded max depth",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/bad-input/configmaps/kept?fieldManager=x",
            APPLY,
            deep,
            400,
            "BadRequest",
            "error decoding YAML: exceeded max depth",
        ),
        (
            "POST",
            MAPS,
            JSON,
            large.clone(),
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "PUT",
            KEPT,
            JSON,
            large.clone(),
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "PATCH",
            KEPT,
            MERGE,
            large,
            413,
            "RequestEntityTooLarge",
            "Request entity is too large: limit is 3145728",
        ),
        (
            "POST",
            MAPS,
            JSON,
            too_long,
            422,
            "Invalid",
            "ConfigMap \"a\" is invalid: []: Too long: may not be more than 1048576 bytes",
        ),
    ]);
}
