//! Bad and good requests in tables: who is let in, what is understood, how refusals are worded.

use bytes::Bytes;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn refusals_are_upstreams() {
    let world = World::start().await;
    let json = ("content-type", "application/json");
    for api in world.both().await {
        for (request, headers, body, code, message) in [
            (
                "GET /api/v1/namespaces/default/pods/x",
                vec![],
                "",
                404,
                "pods \"x\" not found",
            ),
            (
                "GET /apis/apps/v1/namespaces/default/deployments/x",
                vec![],
                "",
                404,
                "deployments.apps \"x\" not found",
            ),
            (
                "GET /api/v1/nonsense",
                vec![],
                "",
                404,
                "the server could not find the requested resource",
            ),
            (
                "GET /apis/none.example/v1/things",
                vec![],
                "",
                404,
                "the server could not find the requested resource",
            ),
            (
                "POST /api/v1/namespaces/default/pods/x",
                vec![json],
                "{}",
                405,
                "the server does not allow this method",
            ),
            (
                "PUT /api/v1/namespaces/default/pods",
                vec![json],
                "{}",
                405,
                "the server does not allow this method",
            ),
            (
                "POST /api/v1/pods",
                vec![json],
                "{}",
                405,
                "the server does not allow this method",
            ),
            (
                "POST /version",
                vec![],
                "",
                405,
                "the server does not allow this method",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                "{",
                400,
                "must be of type ConfigMap",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                "",
                400,
                "(<empty>)",
            ),
            ("POST /api/v1/namespaces/default/configmaps", vec![json], "[]", 400, ""),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"kind":"Secret","apiVersion":"v1"}"#,
                400,
                "Secret in version \"v1\" cannot be handled as a ConfigMap",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
                400,
                "no kind \"ConfigMap\" is registered for version \"v2\" in scheme",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"metadata":{"name":"a","namespace":"other"}}"#,
                400,
                "the namespace of the provided object does not match the namespace sent on the request",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"metadata":{"name":"Upper"}}"#,
                422,
                "ConfigMap \"Upper\" is invalid: metadata.name: Invalid value: \"Upper\"",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"metadata":{}}"#,
                422,
                "metadata.name: Required value: name or generateName is required",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![json],
                r#"{"metadata":{"name":7}}"#,
                400,
                "cannot unmarshal number into Go struct field",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps",
                vec![("content-type", "text/plain")],
                "x",
                415,
                "the body of the request was in an unknown format",
            ),
            (
                "PATCH /api/v1/namespaces/default/configmaps/x",
                vec![json],
                "{}",
                415,
                "accepted media types include: application/json-patch+json",
            ),
            (
                "GET /api/v1/pods",
                vec![("accept", "application/cbor")],
                "",
                406,
                "only the following media types are accepted",
            ),
            ("GET /api/v1/pods?labelSelector=a+b+c", vec![], "", 400, ""),
            (
                "GET /api/v1/pods?fieldSelector=spec.none%3Dx",
                vec![],
                "",
                400,
                "field label not supported: spec.none",
            ),
            ("GET /api/v1/pods?limit=x", vec![], "", 400, "strconv.ParseInt"),
            (
                "GET /api/v1/pods?resourceVersion=x",
                vec![],
                "",
                400,
                "resourceVersion: Invalid value",
            ),
            (
                "GET /api/v1/pods?continue=!",
                vec![],
                "",
                400,
                "continue key is not valid",
            ),
            (
                "GET /api/v1/pods?watch=1&sendInitialEvents=true",
                vec![],
                "",
                422,
                "sendInitialEvents requires setting resourceVersionMatch",
            ),
            (
                "POST /api/v1/namespaces/default/configmaps?dryRun=some",
                vec![json],
                r#"{"metadata":{"name":"a"}}"#,
                422,
                "dryRun: Unsupported value",
            ),
            (
                "GET /api/v1/watch",
                vec![],
                "",
                500,
                "unable to determine kind and namespace",
            ),
            ("GET /api/v1/%ff/x", vec![], "", 500, "the path is not valid"),
        ] {
            let answer = api.call(request, &headers, body).await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert!(
                answer.code == code && answer.message().contains(message),
                "{request}: {} {text}",
                answer.code
            );
            assert_eq!(answer.value()["kind"], "Status", "{request}");
            assert!(answer.headers.contains_key("audit-id"), "{request}");
        }
    }
}

#[tokio::test]
async fn what_nests_deep_is_changed_as_anything_else() {
    let world = World::start().await;
    let api = world.api();
    let deep = format!("{}1{}", "{\"a\":".repeat(180), "}".repeat(180));
    let path = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let body = format!(r#"{{"metadata":{{"name":"deep"}},"revision":1,"data":{deep}}}"#);
    let json_type = [("content-type", "application/json")];
    let made = api.call(&format!("POST {path}"), &json_type, body).await;
    assert_eq!(made.code, 201);
    let changed = api
        .patch(&format!("{path}/deep"), "merge", &json!({"revision": 2}))
        .await;
    let text = String::from_utf8(changed.bytes.to_vec()).unwrap();
    assert!(
        changed.code == 200 && text.contains(&deep) && text.contains(r#""revision":2"#),
        "{text}"
    );
}

#[tokio::test]
async fn bodies_over_the_limit_and_too_deep_are_refused() {
    let world = World::start().await;
    let json_type = [("content-type", "application/json")];
    for api in world.both().await {
        let large = Bytes::from(vec![b' '; 3 * 1024 * 1024 + 1]);
        let answer = api
            .call("POST /api/v1/namespaces/default/configmaps", &json_type, large)
            .await;
        answer.refused(413, "Request entity is too large: limit is 3145728");
        let deep = format!(r#"{{"metadata":{}"#, "{\"a\":".repeat(10_000));
        let answer = api
            .call("POST /api/v1/namespaces/default/configmaps", &json_type, deep)
            .await;
        assert_eq!(answer.code, 400);
    }
    assert_eq!(
        world.api().get("/api/v1/configmaps").await.ok()["items"],
        json!([]),
        "nothing was stored"
    );
}

#[tokio::test]
async fn who_asks_decides() {
    let world = World::start().await;
    let api = world.https().await;
    let anonymous = crate::world::Api {
        token: None,
        ..api.clone()
    };
    anonymous.get("/api/v1/pods").await.refused(403, "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope");
    assert_eq!(anonymous.get("/healthz").await.code, 200);
    api.as_user("bad")
        .get("/api/v1/pods")
        .await
        .refused(401, "Unauthorized");
    api.as_user("mallory").get("/api/v1/namespaces/a/pods/x").await.refused(
        403,
        "pods \"x\" is forbidden: User \"mallory\" cannot get resource \"pods\" in API group \"\" in the namespace \"a\": no rule",
    );
    let impersonated = [("impersonate-user", "mallory")];
    for api in world.both().await {
        let answer = api.call("GET /api/v1/pods", &impersonated, "").await;
        answer.refused(403, "User \"mallory\" cannot list resource \"pods\"");
    }
}

#[tokio::test]
async fn every_encoding_of_a_body_is_the_same_object() {
    let world = World::start().await;
    for (index, api) in world.both().await.into_iter().enumerate() {
        let yaml = format!("metadata:\n  name: yaml-{index}\ndata:\n  k: \"yes\"\n");
        let path = "POST /api/v1/namespaces/default/configmaps";
        let made = api.call(path, &[("content-type", "application/yaml")], yaml).await.ok();
        assert_eq!(made["data"], json!({"k": "yes"}));
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("proto-{index}")}, "data": {"k": "yes"}});
        let schema = api::schema::SchemaRef::builtin(&api::GroupVersionKind::new("", "v1", "ConfigMap")).unwrap();
        let bytes = api::codec::protobuf::encode(&object, &schema).unwrap();
        let made = api
            .call(path, &[("content-type", "application/vnd.kubernetes.protobuf")], bytes)
            .await
            .ok();
        assert_eq!(
            (&made["data"], &made["kind"]),
            (&json!({"k": "yes"}), &json!("ConfigMap"))
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored_warned_about_or_refused() {
    let world = World::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    for (index, api) in world.both().await.into_iter().enumerate() {
        let object = json!({"metadata": {"name": format!("a{index}")}, "nonsense": 1});
        let answer = api.post(&format!("{path}?fieldValidation=Strict"), &object).await;
        answer.refused(400, "strict decoding error: unknown field \"nonsense\"");
        let answer = api.post(&format!("{path}?dryRun=All"), &object).await;
        assert_eq!(answer.warnings(), ["299 - \"unknown field \\\"nonsense\\\"\""]);
        let answer = api.post(&format!("{path}?fieldValidation=Ignore"), &object).await;
        assert!(answer.warnings().is_empty());
        assert_eq!(answer.ok()["nonsense"], json!(null));
        let twice = r#"{"metadata":{"name":"b"},"data":{"a":"1","a":"2"}}"#;
        let json = [("content-type", "application/json")];
        let answer = api
            .call(&format!("POST {path}?fieldValidation=Strict"), &json, twice)
            .await;
        answer.refused(400, "duplicate field \"data.a\"");
    }
}

/// Upstream tells keys that a YAML text has twice by line, all of them in one strict error, each in a warning of its own.
#[tokio::test]
async fn keys_given_twice_in_yaml_are_told_by_line() {
    let world = World::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let yaml = [("content-type", "application/yaml")];
    let told = [
        r#"line 5: key "a" already set in map"#,
        r#"line 6: key "data" already set in map"#,
    ];
    for (index, api) in world.both().await.into_iter().enumerate() {
        let text = format!("metadata:\n  name: y{index}\ndata:\n  a: one\n  a: two\ndata: {{b: two}}\nmore: 1\n");
        let create = |validation: &'static str| {
            let (api, text) = (api.clone(), text.clone());
            async move { api.call(&format!("POST {path}{validation}"), &yaml, text).await }
        };
        create("?fieldValidation=Strict").await.refused(
            400,
            &format!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  {}\n  {}, unknown field \"more\"",
                told[0], told[1]
            ),
        );
        let answer = create("?dryRun=All").await;
        let escaped = |text: &str| format!("299 - \"{}\"", text.replace('"', "\\\""));
        let mut expect: Vec<String> = told.iter().map(|text| escaped(text)).collect();
        expect.push(escaped("unknown field \"more\""));
        assert_eq!(answer.warnings(), expect);
        assert_eq!(answer.ok()["data"], json!({"b": "two"}));
        let answer = create("?fieldValidation=Ignore").await;
        assert!(answer.warnings().is_empty());
        assert_eq!(answer.ok()["data"], json!({"b": "two"}));
    }
}

/// An apply configuration is asked whether it applies before it is asked whether it has something twice.
#[tokio::test]
async fn repeated_keys_of_apply_configurations() {
    let world = World::start().await;
    let api = world.api();
    let path = "/api/v1/namespaces/default/configmaps/applied";
    let apply = [("content-type", "application/apply-patch+yaml")];
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  a: one\n  a: two\n";
    let told = r#"line 7: key "a" already set in map"#;
    let request =
        |manager: &str, validation: &str| format!("PATCH {path}?fieldManager={manager}&fieldValidation={validation}");
    api.call(&request("one", "Strict"), &apply, text).await.refused(
        400,
        &format!("error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {told}"),
    );
    let answer = api.call(&request("one", "Warn"), &apply, text).await;
    assert_eq!(answer.warnings(), [format!("299 - \"{}\"", told.replace('"', "\\\""))]);
    assert_eq!(answer.ok()["data"], json!({"a": "two"}));
    let other = text.replace("two", "three");
    let answer = api.call(&request("two", "Strict"), &apply, other).await;
    assert_eq!(answer.code, 409, "{}", answer.message());
}

/// A JSON patch is told of by its own name, other patches as the object that they make.
#[tokio::test]
async fn strict_errors_of_patches() {
    let world = World::start().await;
    let api = world.api();
    api.config_map("patched", json!({})).await;
    let path = "PATCH /api/v1/namespaces/default/configmaps/patched?fieldValidation=Strict";
    for (kind, patch, expect) in [
        (
            "json-patch+json",
            r#"[{"op":"add","path":"/data/a","value":"1","value":"2","x":1}]"#,
            r#"strict decoding error: json patch duplicate field "[0].value", json patch unknown field "[0].x""#,
        ),
        (
            "merge-patch+json",
            r#"{"data":{"a":"1","a":"2"},"more":1}"#,
            r#"strict decoding error: duplicate field "data.a", unknown field "more""#,
        ),
        (
            "strategic-merge-patch+json",
            r#"{"data":{"a":"1","a":"2"},"more":1}"#,
            r#"strict decoding error: duplicate field "data.a", unknown field "more""#,
        ),
    ] {
        let media = format!("application/{kind}");
        let answer = api.call(path, &[("content-type", &media)], patch).await;
        answer.refused(422, expect);
    }
    for (kind, expect) in [
        (
            "merge-patch+json",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "strategic-merge-patch+json",
            "json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ] {
        let media = format!("application/{kind}");
        let answer = api.call(path, &[("content-type", &media)], "[]").await;
        answer.refused(400, expect);
    }
}

#[tokio::test]
async fn people_get_indented_answers_and_head_gets_none() {
    let world = World::start().await;
    for api in world.both().await {
        for path in [
            "/api/v1/pods",
            "/api/v1/pods/none",
            "/api",
            "/apis",
            "/apis/apps/v1",
            "/api/v1/namespaces/default",
        ] {
            let answer = api.get(&format!("{path}?pretty=true")).await;
            assert!(
                answer.bytes.starts_with(b"{\n  \"") && answer.bytes.ends_with(b"\n}"),
                "{path}"
            );
        }
        let answer = api.call("HEAD /api/v1/pods", &[], "").await;
        assert_eq!((answer.code, answer.bytes.len()), (200, 0));
    }
}

/// Byte for byte as upstream's encoder: a line has its end, what is indented has none, and documents that no encoder wrote
/// have none either.
#[tokio::test]
async fn answers_end_as_upstreams_do() {
    let world = World::start().await;
    world.api().config_map("long", json!({"x": "y"})).await;
    for api in world.both().await {
        let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (path, accept, code) in [
            ("/api/v1/namespaces/default/configmaps/long", "*/*", 200),
            ("/api/v1/namespaces/default/configmaps/long", table, 200),
            ("/api/v1/namespaces/default/configmaps", "*/*", 200),
            ("/api/v1/namespaces/default/configmaps?limit=1", "*/*", 200),
            ("/api/v1/namespaces/default/configmaps", table, 200),
            ("/api/v1/namespaces/default/configmaps/none", "*/*", 404),
            ("/api/v1/namespaces/default/configmaps?limit=x", "*/*", 400),
            ("/api/v1/namespaces/default/configmaps/long", "text/html", 406),
            ("/api", "*/*", 200),
            ("/apis", aggregated, 200),
            ("/apis/apps", "*/*", 200),
        ] {
            let answer = api.call(&format!("GET {path}"), &[("accept", accept)], "").await;
            let text = String::from_utf8_lossy(&answer.bytes).into_owned();
            assert_eq!(answer.code, code, "{path} {text}");
            assert!(text.ends_with("}\n") && !text.ends_with("\n\n"), "{path} {text}");
            if let Some(length) = answer.headers.get("content-length") {
                assert_eq!(length.to_str().unwrap(), text.len().to_string(), "{path}");
            }
        }
        for path in ["/version", "/", "/openapi/v3", "/openapi/v3/apis/policy/v1"] {
            let answer = api.get(path).await;
            assert!(answer.code == 200 && answer.bytes.ends_with(b"}"), "{path}");
        }
        let path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion=0";
        let frames = api.get(path).await.bytes;
        let lines: Vec<&[u8]> = frames.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(!lines.is_empty() && lines.iter().all(|line| line.ends_with(b"}}\n")));
    }
}

#[tokio::test]
async fn large_answers_are_compressed_when_asked_for() {
    let world = World::start().await;
    let api = world.https().await;
    let text = "trireme ".repeat(1000);
    for index in 0..40 {
        let object = json!({"metadata": {"name": format!("a{index}")}, "data": {"k": text}});
        api.post("/api/v1/namespaces/default/configmaps", &object).await.ok();
    }
    let answer = api
        .call("GET /api/v1/configmaps", &[("accept-encoding", "gzip")], "")
        .await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut list = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*answer.bytes), &mut list).unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
    assert!(
        !api.get("/api/v1/configmaps")
            .await
            .headers
            .contains_key("content-encoding")
    );
}

/// Where an empty list keeps a default away, it is not taken for none: upstream refuses it.
#[tokio::test]
async fn rules_of_scaling_without_policies_are_refused() {
    let world = World::start().await;
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str, rules: serde_json::Value| {
        json!({"metadata": {"name": name}, "spec": {"maxReplicas": 3, "behavior": {"scaleUp": rules},
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}})
    };
    for (index, api) in world.both().await.into_iter().enumerate() {
        let refused = api.post(path, &scaler("none", json!({"policies": []}))).await;
        refused.refused(
            422,
            "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
        );
        for (name, rules) in [("null", json!({"policies": null})), ("absent", json!({}))] {
            let made = api.post(path, &scaler(&format!("{name}{index}"), rules)).await.ok();
            let policies = &made["spec"]["behavior"]["scaleUp"]["policies"];
            assert_eq!(policies.as_array().map(Vec::len), Some(2), "{made}");
        }
    }
}
