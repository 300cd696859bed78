//! What those try who want more than they were given: each way was once open in some Kubernetes, or would be if two parts of
//! a server read the same request in two ways.

use apiserver::request::SYSTEM_MASTERS;
use base64::Engine as _;
use client::https::Credentials;
use serde_json::{Value, json};

use crate::identity::Identities;
use crate::world::Api;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Gives a user rights everywhere.
async fn grant(admin: &Api, user: &str, rules: Value) {
    let role = json!({"metadata": {"name": user}, "rules": rules});
    admin.post(&format!("{RBAC}/clusterroles"), &role).await.ok();
    let binding = json!({"metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
    admin.post(&format!("{RBAC}/clusterrolebindings"), &binding).await.ok();
}

async fn secrets(admin: &Api) {
    for name in ["mine", "theirs"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"password": format!("of-{name}")}});
        admin.post(SECRETS, &secret).await.ok();
    }
}

#[tokio::test]
async fn a_right_to_one_name_is_a_right_to_that_name() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    secrets(&admin).await;
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get", "list", "watch"]}]);
    grant(&admin, "jane", rules).await;
    for jane in identities.both("jane", None) {
        let listed = async |query: &str| {
            let answer = jane.get(&format!("{SECRETS}?{query}")).await;
            let value = answer.value();
            let names = value["items"].as_array().into_iter().flatten();
            let names: Vec<String> = names.map(|item| item["metadata"]["name"].to_string()).collect();
            (answer.code, names.join(" "))
        };
        for query in [
            "fieldSelector=metadata.name%3Dmine",
            "fieldSelector=metadata.name%3D%3Dmine&limit=5",
        ] {
            assert_eq!(listed(query).await, (200, "\"mine\"".into()), "{query}");
        }
        for query in [
            "",
            "fieldSelector=metadata.name%3Dtheirs",
            "fieldSelector=metadata.name%21%3Dtheirs",
            // A name inside of another field's value, behind an escaped comma.
            "fieldSelector=metadata.namespace%21%3Dx%5C%2Cmetadata.name%3Dmine",
            "fieldSelector=type%21%3Dx%5C%2Cmetadata.name%3D%3Dmine",
            // Two selectors: whichever counts, it counts for both.
            "fieldSelector=&fieldSelector=metadata.name%3Dmine",
            "labelSelector=metadata.name%3Dmine",
        ] {
            let (code, names) = listed(query).await;
            assert!(code == 403 && names.is_empty(), "{query}: {code} {names}");
        }
        assert_eq!(jane.get(&format!("{SECRETS}/theirs")).await.code, 403);
        let own = jane.get(&format!("{SECRETS}/mine")).await.ok();
        assert_eq!(own["metadata"]["name"], "mine");
        // The old way of watching one object is about that object.
        let watch = jane
            .get("/api/v1/watch/namespaces/default/secrets/mine?timeoutSeconds=1")
            .await;
        let said = String::from_utf8_lossy(&watch.bytes).into_owned();
        assert!(watch.code != 200 || !said.contains("theirs"), "{said}");
        assert_eq!(
            jane.get("/api/v1/watch/namespaces/default/secrets/theirs").await.code,
            403
        );
    }
}

#[tokio::test]
async fn a_strange_path_is_no_way_around() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    secrets(&admin).await;
    let rules = json!([
        {"nonResourceURLs": ["/healthz", "/healthz/*", "/openapi/*", "/version/*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
    ]);
    grant(&admin, "jane", rules).await;
    for jane in identities.both("jane", None) {
        for path in [
            "//api/v1/namespaces/default/secrets",
            "/api//v1/namespaces/default/secrets",
            "/api/v1//namespaces/default/secrets",
            "/api/v1/namespaces/default//secrets",
            "/api/v1/namespaces/default/secrets/",
            "/api/v1/namespaces//secrets",
            "/api/v1/namespaces/default/configmaps/../secrets",
            "/api/v1/namespaces/default/configmaps/%2e%2e/secrets",
            "/api/v1/namespaces/default/configmaps%2f..%2fsecrets",
            "/api/v1/namespaces/default%2fsecrets",
            "/healthz/../api/v1/namespaces/default/secrets",
            "/healthz/%2e%2e/api/v1/namespaces/default/secrets",
            "/healthz/..%2fapi/v1/namespaces/default/secrets",
            "/openapi/../api/v1/namespaces/default/secrets",
            "/./api/v1/namespaces/default/secrets",
            "/%61pi/v1/namespaces/default/secrets",
            "/API/v1/namespaces/default/secrets",
            "/api/v1/namespaces/default/Secrets",
            "/apis//v1/namespaces/default/secrets",
            "/api/v1/proxy/namespaces/default/secrets/mine",
            "/api/v1/watch/namespaces/default/secrets?timeoutSeconds=1",
            "/api/v1/namespaces/default/secrets/mine/status",
            "/api/v1/namespaces/default/secrets;a=b",
        ] {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let answer = jane.call(&format!("{method} {path}"), &[], "").await;
                let said = String::from_utf8_lossy(&answer.bytes).into_owned();
                assert!(
                    !(200..300).contains(&answer.code) && !said.contains("b2Yt"),
                    "{method} {path}: {} {said}",
                    answer.code
                );
            }
        }
        // Nothing in a header turns one request into another.
        for header in [
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-url",
            "x-forwarded-uri",
        ] {
            let value = if header.ends_with("override") {
                "DELETE"
            } else {
                SECRETS
            };
            let answer = jane.call("GET /healthz", &[(header, value)], "").await;
            assert_eq!((answer.code, &*answer.bytes), (200, &b"ok"[..]), "{header}");
        }
    }
    let names = admin.get(SECRETS).await.ok();
    assert_eq!(names["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_deputy_gets_no_more_than_whom_he_may_name() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rules = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["jane", "system:serviceaccount:default:own"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["groups"], "resourceNames": ["dev"], "verbs": ["impersonate"]},
    ]);
    grant(&admin, "deputy", rules).await;
    let path = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews";
    for deputy in identities.both("deputy", None) {
        let said = deputy
            .call(
                path,
                &[("impersonate-user", "jane"), ("impersonate-group", "dev")],
                "{}",
            )
            .await
            .ok();
        assert_eq!(said["status"]["userInfo"]["username"], "jane");
        for headers in [
            &[("impersonate-user", "admin")][..],
            &[("impersonate-user", "Jane")],
            &[("impersonate-user", "jane"), ("impersonate-group", SYSTEM_MASTERS)],
            &[
                ("impersonate-user", "jane"),
                ("impersonate-group", "dev"),
                ("impersonate-group", SYSTEM_MASTERS),
            ],
            &[("impersonate-user", "jane"), ("impersonate-uid", "7")],
            &[("impersonate-user", "jane"), ("impersonate-extra-scopes", "all")],
            &[("impersonate-user", "jane"), ("impersonate-user", "admin")],
            // Rights to a user of that name are none to the account.
            &[("impersonate-user", "system:serviceaccount:default:own")],
            &[(
                "impersonate-user",
                "system:serviceaccount:kube-system:namespace-controller",
            )],
            &[("impersonate-user", "system:node:n1")],
        ] {
            let answer = deputy.call(path, headers, "{}").await;
            let who = answer.value()["status"]["userInfo"].clone();
            let is_jane_alone = who["username"] == "jane" && who["groups"] == json!(["system:authenticated"]);
            assert!(
                answer.code == 403 || headers[1..].iter().any(|(name, _)| *name == "impersonate-user") && is_jane_alone,
                "{headers:?}: {} {who}",
                answer.code
            );
        }
        // Parts without a user are no request as oneself.
        for headers in [
            &[("impersonate-group", SYSTEM_MASTERS)][..],
            &[("impersonate-uid", "7")],
            &[("impersonate-extra-a", "b")],
        ] {
            let code = deputy.call(path, headers, "{}").await.code;
            assert!((400..=500).contains(&code), "{headers:?}: {code}");
        }
    }
}

#[tokio::test]
async fn nobody_grants_himself_more() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"], "verbs": ["get", "list", "create", "update", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]},
    ]);
    grant(&admin, "jane", rules).await;
    let own = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let more = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
    let (cluster_roles, roles) = (
        format!("{RBAC}/clusterroles"),
        format!("{RBAC}/namespaces/default/roles"),
    );
    let bindings = [
        format!("{RBAC}/clusterrolebindings"),
        format!("{RBAC}/namespaces/default/rolebindings"),
    ];
    for (number, jane) in identities.both("jane", None).into_iter().enumerate() {
        let named = |name: &str| format!("{name}-{number}");
        for path in [&cluster_roles, &roles] {
            let role = |rules: &Value| json!({"metadata": {"name": named("own")}, "rules": rules});
            jane.post(path, &role(&more))
                .await
                .refused(403, "is attempting to grant RBAC permissions not currently held");
            jane.post(path, &role(&own)).await.ok();
            let own = format!("{path}/{}", named("own"));
            let patch = json!({"rules": more}).to_string();
            let merge = [("content-type", "application/merge-patch+json")];
            jane.call(&format!("PATCH {own}"), &merge, patch.clone())
                .await
                .refused(403, "is attempting to grant RBAC permissions not currently held");
            let apply = [("content-type", "application/apply-patch+yaml")];
            let applied = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "rules": more,
                "kind": if path == &roles { "Role" } else { "ClusterRole" }, "metadata": {"name": named("applied")}});
            jane.call(
                &format!("PATCH {path}/{}?fieldManager=x", named("applied")),
                &apply,
                applied.to_string(),
            )
            .await
            .refused(403, "is attempting to grant RBAC permissions not currently held");
        }
        // What others grant later would count for this role, too.
        let aggregated = json!({"metadata": {"name": named("all")}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {}}]}});
        assert_eq!(jane.post(&cluster_roles, &aggregated).await.code, 403);
        for path in &bindings {
            let binding = |role: &str| {
                json!({"metadata": {"name": named(role)},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]})
            };
            assert_eq!(jane.post(path, &binding("cluster-admin")).await.code, 403);
            // A role that is not there yet may be anything later.
            let later = jane.post(path, &binding("later")).await;
            assert!(matches!(later.code, 403 | 404), "{}", later.code);
            jane.post(path, &binding(&named("own"))).await.ok();
        }
        assert_eq!(jane.get(SECRETS).await.code, 403);
    }
}

#[tokio::test]
async fn a_request_for_a_certificate_makes_no_administrator() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rules = json!([{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"],
        "verbs": ["create", "get", "update", "patch"]},
        {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"],
        "verbs": ["update", "patch"]}]);
    grant(&admin, "jane", rules).await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |name: &str, groups: &[&str], signer: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for group in groups {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
        }
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let pem = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": name}, "spec": {"request": pem, "signerName": signer, "usages": ["client auth"],
            "username": "admin", "groups": [SYSTEM_MASTERS]}})
    };
    let client = "kubernetes.io/kube-apiserver-client";
    for (number, jane) in identities.both("jane", None).into_iter().enumerate() {
        let refused = jane.post(requests, &request("a", &[SYSTEM_MASTERS], client)).await;
        refused.refused(
            403,
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        );
        let name = format!("own-{number}");
        let made = jane.post(requests, &request(&name, &["dev"], client)).await.ok();
        // Who asks is who he is, whatever he says of himself.
        assert_eq!(made["spec"]["username"], "jane");
        assert_eq!(made["spec"]["groups"], json!(["system:authenticated"]));
        let mut approved = made.clone();
        approved["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True", "reason": "x", "message": "x"}]);
        let body = approved.to_string();
        let json = [("content-type", "application/json")];
        jane.call(&format!("PUT {requests}/{name}/approval"), &json, body.clone())
            .await
            .refused(403, "user not permitted to approve requests with signerName");
        let mut signed = made;
        let forged = rcgen::generate_simple_self_signed(vec!["x".to_owned()])
            .unwrap()
            .cert
            .pem();
        signed["status"]["certificate"] = base64::engine::general_purpose::STANDARD.encode(forged).into();
        let signing = jane
            .call(&format!("PUT {requests}/{name}/status"), &json, signed.to_string())
            .await;
        signing.refused(403, "user not permitted to sign requests with signerName");
        // Neither does the main resource approve.
        jane.call(&format!("PUT {requests}/{name}"), &json, body).await;
        let now = jane.get(&format!("{requests}/{name}")).await.ok();
        assert!(now["status"]["conditions"].is_null(), "{now}");
    }
}

#[tokio::test]
async fn reading_a_pod_runs_nothing_in_it() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rules = json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
    grant(&admin, "reader", rules).await;
    for reader in identities.both("reader", None) {
        for what in [
            "exec?command=sh&stdout=true",
            "attach?stdout=true",
            "portforward?ports=80",
        ] {
            let upgrade = [
                ("connection", "Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-protocol", "v5.channel.k8s.io"),
            ];
            let path = format!("GET /api/v1/namespaces/default/pods/a/{what}");
            let answer = reader.call(&path, &upgrade, "").await;
            answer.refused(403, "User \"reader\" cannot create resource \"pods/");
        }
    }
}

#[tokio::test]
async fn tokens_that_nobody_signed_are_of_nobody() {
    let identities = Identities::start().await;
    let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": "https://kubernetes.default.svc.cluster.local", "aud": ["https://kubernetes.default.svc.cluster.local"],
        "sub": "system:serviceaccount:kube-system:namespace-controller", "exp": 99_999_999_999_i64, "nbf": 0, "iat": 0,
        "kubernetes.io": {"namespace": "kube-system", "serviceaccount": {"name": "namespace-controller", "uid": "x"}}});
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "None", "typ": "JWT"}),
        json!({"alg": "HS256", "kid": ""}),
        json!({"alg": "ES256", "jwk": {"kty": "EC"}}),
        json!({"alg": "ES256", "jku": "https://127.0.0.1:1/keys"}),
    ] {
        for signature in ["", "AAAA", &"A".repeat(86)] {
            let token = format!("{}.{}.{signature}", encode(header.clone()), encode(claims.clone()));
            let api = identities.with_token(&token);
            assert_eq!(api.get("/api/v1/namespaces").await.code, 401, "{header} {signature}");
        }
    }
    for token in ["", " ", ".", "..", "...", "a.b.c", "\u{2028}", &"x".repeat(60_000)] {
        if http::HeaderValue::try_from(format!("Bearer {token}")).is_ok() {
            let code = identities.with_token(token).get("/api/v1/namespaces").await.code;
            assert!(matches!(code, 401 | 403 | 431), "{code}");
        }
    }
    // A proxy's headers on a connection that shows nothing make nobody.
    let anonymous = identities.https(Credentials::Anonymous);
    for name in ["x-remote-user", "X-REMOTE-USER", "x-remote_user", "x-forwarded-user"] {
        let sent = [(name, "admin"), ("x-remote-group", SYSTEM_MASTERS)];
        let answer = anonymous.call("GET /api/v1/namespaces", &sent, "").await;
        answer.refused(403, "User \"system:anonymous\" cannot list");
    }
}
