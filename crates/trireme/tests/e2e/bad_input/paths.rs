//! Paths, queries and selectors.

use super::{Case, JSON, KEPT, MAPS, run, text};

#[test]
fn paths_and_selectors() {
    const NOT_FOUND: &str = "the server could not find the requested resource";
    let get = |path: &'static str, code: u16, reason: &'static str, message: &'static str| -> Case {
        ("GET", path, "", String::new(), code, reason, message)
    };
    run(vec![
        get(
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=a%20in",
            400,
            "BadRequest",
            "unable to parse requirement: found '' expected: '('",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=a%3D%3D%3Db",
            400,
            "BadRequest",
            "unable to parse requirement: found '=', expected: identifier",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?fieldSelector=data.a%3Db",
            400,
            "BadRequest",
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?fieldSelector=metadata.name",
            400,
            "BadRequest",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?limit=x",
            400,
            "BadRequest",
            "strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersion=x",
            400,
            "BadRequest",
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersionMatch=Exact",
            422,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?watch=1&sendInitialEvents=true",
            422,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps?resourceVersion=99999999",
            504,
            "Timeout",
            "Timeout: Too large resource version: 99999999, current: …",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/nope",
            404,
            "NotFound",
            "configmaps \"nope\" not found",
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/a%2Fb",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/kept/status",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get(
            "/api/v1/namespaces/bad-input/configmaps/kept/a/b/c",
            404,
            "NotFound",
            NOT_FOUND,
        ),
        get("/api/v1/namespaces/bad-input/nothings", 404, "NotFound", NOT_FOUND),
        get("/apis/nothing.io/v1", 404, "NotFound", NOT_FOUND),
        get("/apis/apps/v2/deployments", 404, "NotFound", NOT_FOUND),
        get("/api/v2", 404, "NotFound", NOT_FOUND),
        (
            "PUT",
            MAPS,
            JSON,
            text("{}"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "POST",
            KEPT,
            JSON,
            text("{}"),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "FOO",
            MAPS,
            "",
            String::new(),
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/bad-input/configmaps/nope",
            "",
            String::new(),
            404,
            "NotFound",
            "configmaps \"nope\" not found",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/bad-input/configmaps?labelSelector=%21%21",
            "",
            String::new(),
            400,
            "BadRequest",
            "unable to parse requirement: found '!', expected: identifier",
        ),
    ]);
}
