//! The parts as a real cluster has them: certificates, tokens, RBAC, the Node authorizer and all admission plug-ins, over
//! what bootstrap makes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::authentication::{
    Authentication, BootstrapTokens, CertificateAuthenticator, FrontProxy, FrontProxyConfig, ProxyHeaders, trust,
};
use apiserver::authorization::{Chain, NodeAuthorizer, Rbac};
use apiserver::cluster::Cluster;
use apiserver::pipeline::Authorizer;
use apiserver::pki::Authority;
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use apiserver::tokens::{ClusterObjects, Issuer, Signer, TokenAuthenticator, UsedSecrets};
use apiserver::{Config, Parts, Running, bootstrap};
use base::{Clock, Random};
use base64::Engine as _;
use client::https::{Credentials, HttpsTransport};
use client::{Client, Transport};
use serde_json::{Value, json};

use crate::world::{Api, World};

/// A server with certificates, tokens and roles.
pub struct Identities {
    world: World,
    authority: Authority,
    /// Signs certificates of front proxies, of which only `front` is allowed.
    proxies: Authority,
    address: std::net::SocketAddr,
    server_ca: String,
}

impl Identities {
    pub async fn start() -> Identities {
        Identities::with(|_| {}).await
    }

    /// The same, with changes to the configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Identities {
        let (clock, random) = (Clock::real(), Random::real());
        let authority = Authority::generate("cluster", clock.now(), random.clone()).unwrap();
        let certificates = Arc::new(CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap());
        let proxies = Authority::generate("proxies", clock.now(), random.clone()).unwrap();
        let proxy_config = FrontProxyConfig {
            authorities_pem: proxies.pair().certificate_pem.clone(),
            allowed_names: vec!["front".into()],
            headers: ProxyHeaders::standard(),
        };
        let proxy = Arc::new(FrontProxy::new(&proxy_config).unwrap());
        let trusted = trust::Trust {
            client_ca_pem: authority.pair().certificate_pem.clone(),
            front_proxy: Some(proxy_config),
        };
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Arc::new(Signer::from_pem(&key, random.clone()).unwrap());
        let policy = bootstrap::policy::objects().unwrap();
        let is_node_role =
            |object: &&api::Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node";
        let node_role = policy.iter().find(is_node_role).cloned().unwrap();
        let used = UsedSecrets::default();
        let uses = used.clone();
        let parts = move |cluster: Arc<dyn Cluster>| {
            let rbac = Arc::new(Rbac::new(&*cluster));
            let node = Arc::new(NodeAuthorizer::new(&*cluster, &node_role));
            let authorizer: Arc<dyn Authorizer> = Arc::new(Chain::new(vec![node, rbac.clone()]));
            let tokens = TokenAuthenticator::new(signer.clone(), Arc::new(ClusterObjects(cluster.clone())));
            let tokens = tokens.with_used(&uses);
            let bootstrap_tokens = BootstrapTokens::new(cluster.clone(), clock.clone());
            let authentication = Authentication::new(certificates, tokens, clock.clone())
                .with_front_proxy(Some(proxy))
                .with_tokens(Arc::new(bootstrap_tokens));
            Parts {
                authenticator: Arc::new(authentication),
                admission: apiserver::admission::plugins(rbac, authorizer.clone(), random, &Default::default()),
                authorizer,
                tokens: Some(Arc::new(Issuer::new(signer, cluster, clock))),
            }
        };
        let world = World::with(|config| {
            config.parts = Box::new(parts);
            change(config);
        })
        .await;
        let addresses = bootstrap::Addresses {
            service_range: "10.96.0.0/12".parse().unwrap(),
            api_service: Ipv4Addr::new(10, 96, 0, 1),
            dns_service: Ipv4Addr::new(10, 96, 0, 10),
            api_endpoint: (IpAddr::V4(Ipv4Addr::new(10, 243, 0, 1)), 6443),
        };
        let own = as_user(&world.running, "system:apiserver", &[SYSTEM_MASTERS]);
        let own_client = Client::new(own.transport.clone());
        bootstrap::ensure(&own_client, &addresses).await.unwrap();
        let before = own.get("/api/v1/namespaces").await.ok();
        bootstrap::ensure(&own_client, &addresses).await.unwrap();
        assert_eq!(
            own.get("/api/v1/namespaces").await.ok(),
            before,
            "what is there is not written again"
        );
        let stop = world.running.shutdown_handle();
        let (_, trusted) = tokio::sync::watch::channel(trusted);
        trust::maintain(&own_client, trusted, Clock::real(), &stop);
        world.running.track_legacy_tokens(&used, &own_client, &stop);
        let (address, server_ca) = world.listen().await;
        Identities {
            world,
            authority,
            proxies,
            address,
            server_ca,
        }
    }

    /// The same user by both transports.
    pub fn both(&self, user: &str, group: Option<&str>) -> [Api; 2] {
        let groups: Vec<&str> = group.into_iter().collect();
        let pair = self.authority.issue_client(user, group, Clock::real().now()).unwrap();
        let credentials = Credentials::Certificate {
            chain_pem: pair.certificate_pem,
            key_pem: pair.key_pem,
        };
        [as_user(&self.world.running, user, &groups), self.https(credentials)]
    }

    fn with_certificate(&self, authority: &Authority, name: &str, group: Option<&str>) -> Api {
        let pair = authority.issue_client(name, group, Clock::real().now()).unwrap();
        self.https(Credentials::Certificate {
            chain_pem: pair.certificate_pem,
            key_pem: pair.key_pem,
        })
    }

    pub fn with_token(&self, token: &str) -> Api {
        let token = token.to_owned();
        self.https(Credentials::Token(Arc::new(move || token.clone())))
    }

    pub fn https(&self, credentials: Credentials) -> Api {
        let server = format!("https://{}", self.address);
        let transport = HttpsTransport::new(&server, &self.server_ca, credentials).unwrap();
        Api {
            transport: Arc::new(transport),
            token: None,
        }
    }
}

fn as_user(running: &Running, user: &str, groups: &[&str]) -> Api {
    let transport: Arc<dyn Transport> = running.transport(UserInfo::new(user, groups.iter().copied()));
    Api { transport, token: None }
}

#[tokio::test]
async fn certificates_and_roles_decide() {
    let identities = Identities::start().await;
    let [_, stranger] = identities.both("nobody", None);
    stranger
        .get("/api/v1/pods")
        .await
        .refused(403, "User \"nobody\" cannot list resource \"pods\"");
    let anonymous = identities.https(Credentials::Anonymous);
    assert_eq!(anonymous.get("/readyz").await.code, 200);
    anonymous
        .get("/api/v1/pods")
        .await
        .refused(403, "User \"system:anonymous\" cannot list");
    let other = Authority::generate("cluster", Clock::real().now(), Random::real()).unwrap();
    let forged = other
        .issue_client("admin", Some(SYSTEM_MASTERS), Clock::real().now())
        .unwrap();
    let forged = Credentials::Certificate {
        chain_pem: forged.certificate_pem,
        key_pem: forged.key_pem,
    };
    let answer = identities.https(forged).get("/api/v1/pods").await;
    assert!(matches!(answer.code, 401 | 403), "{}", answer.code);
    for (index, admin) in identities.both("admin", Some(SYSTEM_MASTERS)).into_iter().enumerate() {
        let service = admin.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
        assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
        // A binding counts for the very next request.
        let user = format!("jane{index}");
        for jane in identities.both(&user, None) {
            assert_eq!(jane.get("/api/v1/namespaces/default/configmaps").await.code, 403);
        }
        let binding = json!({"metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:aggregate-to-view"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
        let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        admin.post(bindings, &binding).await.ok();
        for jane in identities.both(&user, None) {
            assert_eq!(jane.get("/api/v1/namespaces/default/configmaps").await.code, 200);
            assert_eq!(jane.get("/api/v1/namespaces/kube-system/configmaps").await.code, 403);
            let more = json!({"metadata": {"name": "more"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
            assert_eq!(
                jane.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &more)
                    .await
                    .code,
                403
            );
        }
    }
}

#[tokio::test]
async fn acting_as_somebody_takes_rights_to_the_user_and_to_what_is_done() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["jane"], "verbs": ["impersonate:user-info"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["impersonate-on:user-info:list"]},
    ]);
    let role = json!({"metadata": {"name": "deputy"}, "rules": rules});
    admin.post(&format!("{rbac}/clusterroles"), &role).await.ok();
    for (user, role) in [("deputy", "deputy"), ("jane", "view")] {
        let binding = json!({"metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
        admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok();
    }
    // The role `view` is what it aggregates, which takes a controller: here it is given its rule by hand.
    let rules = json!([{"op": "add", "path": "/rules", "value": [{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list"]}]}]);
    let patch = [("content-type", "application/json-patch+json")];
    let view = format!("PATCH {rbac}/clusterroles/view");
    admin.call(&view, &patch, rules.to_string()).await.ok();
    for deputy in identities.both("deputy", None) {
        let jane = [("impersonate-user", "jane")];
        let maps = "GET /api/v1/namespaces/default/configmaps";
        assert_eq!(deputy.call(maps, &[], "").await.code, 403);
        assert_eq!(deputy.call(maps, &jane, "").await.code, 200);
        let pods = deputy.call("GET /api/v1/namespaces/default/pods", &jane, "").await;
        pods.refused(
            403,
            "User \"deputy\" cannot impersonate-on:user-info:list resource \"pods\"",
        );
        let bob = deputy.call(maps, &[("impersonate-user", "bob")], "").await;
        bob.refused(403, "User \"deputy\" cannot impersonate:user-info resource \"users\"");
    }
}

/// The whole store is read with a verb of its own: a role that may look at all paths does not have it.
#[tokio::test]
async fn a_backup_takes_its_own_verb() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for (user, paths, verbs) in [
        ("watcher", json!(["*"]), json!(["get"])),
        ("halfway", json!(["/trireme/*"]), json!(["backup"])),
        ("keeper", json!(["/trireme/v1/backup"]), json!(["get", "backup"])),
    ] {
        let rules = json!([{"nonResourceURLs": paths, "verbs": verbs}]);
        let role = json!({"metadata": {"name": user}, "rules": rules});
        admin.post(&format!("{rbac}/clusterroles"), &role).await.ok();
        let binding = json!({"metadata": {"name": user}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}]});
        admin.post(&format!("{rbac}/clusterrolebindings"), &binding).await.ok();
    }
    let path = "/trireme/v1/backup";
    let monitoring = as_user(&identities.world.running, "prometheus", &["system:monitoring"]);
    monitoring
        .get(path)
        .await
        .refused(403, "User \"prometheus\" cannot get path");
    for [watcher, halfway, keeper] in
        [0, 1].map(|way| ["watcher", "halfway", "keeper"].map(|user| identities.both(user, None)[way].clone()))
    {
        assert_eq!(watcher.get("/metrics").await.code, 200);
        watcher
            .get(path)
            .await
            .refused(403, "User \"watcher\" cannot backup path \"/trireme/v1/backup\"");
        halfway
            .get(path)
            .await
            .refused(403, "User \"halfway\" cannot get path \"/trireme/v1/backup\"");
        assert_eq!(keeper.get(path).await.code, 200);
    }
    assert_eq!(admin.get(path).await.code, 200);
}

#[tokio::test]
async fn rights_reach_rows_that_come_later() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "sailor"}, "rules": [{"apiGroups": ["sea.example"], "resources": ["boats"], "verbs": ["list"]}]});
    let binding = json!({"metadata": {"name": "sailor"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "sailor"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jason"}]});
    admin.post(&format!("{rbac}/roles"), &role).await.ok();
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.ok();
    let boats = "/apis/sea.example/v1/namespaces/default/boats";
    for jason in identities.both("jason", None) {
        jason
            .get(boats)
            .await
            .refused(404, "the server could not find the requested resource");
        let (row, schema) = crate::rows::boats();
        identities.world.running.add_row(row, schema).await.unwrap();
        assert_eq!(jason.get(boats).await.code, 200);
        assert_eq!(jason.get(&format!("{boats}/argo")).await.code, 403);
        let resource = api::GroupResource {
            group: "sea.example".into(),
            resource: "boats".into(),
        };
        assert!(identities.world.running.remove_row(&resource).await);
    }
}

#[tokio::test]
async fn admission_is_upstreams() {
    let identities = Identities::start().await;
    for (index, admin) in identities.both("admin", Some(SYSTEM_MASTERS)).into_iter().enumerate() {
        let map = json!({"metadata": {"name": "a"}});
        admin
            .post("/api/v1/namespaces/none/configmaps", &map)
            .await
            .refused(404, "namespaces \"none\" not found");
        let namespace = format!("n{index}");
        admin
            .post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}}))
            .await
            .ok();
        let pods = format!("/api/v1/namespaces/{namespace}/pods");
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        admin
            .post(&pods, &pod)
            .await
            .refused(403, "error looking up service account");
        admin
            .post(
                &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
                &json!({"metadata": {"name": "default"}}),
            )
            .await
            .ok();
        let made = admin.post(&pods, &pod).await.ok();
        assert_eq!(
            (&made["spec"]["serviceAccountName"], &made["spec"]["priority"]),
            (&json!("default"), &json!(0))
        );
        assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        assert!(made["spec"]["volumes"][0]["projected"].is_object(), "{made}");
        admin.delete(&format!("/api/v1/namespaces/{namespace}")).await.ok();
        let answer = admin
            .post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map)
            .await;
        answer.refused(403, "because it is being terminated");
        assert_eq!(admin.delete("/api/v1/namespaces/default").await.code, 403);
    }
}

#[tokio::test]
async fn tokens_are_bound_to_what_lives() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = admin.post(accounts, &json!({"metadata": {"name": "robot"}})).await.ok();
    let request = json!({"spec": {"expirationSeconds": 600}});
    let issued = admin.post(&format!("{accounts}/robot/token"), &request).await.ok();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    admin
        .post(
            &format!("{accounts}/robot/token"),
            &json!({"spec": {"expirationSeconds": 5}}),
        )
        .await
        .refused(422, "less than 10 minutes");
    // Whoever read the account a while ago means that one, and none of the same name.
    assert_eq!(issued["metadata"]["uid"], account["metadata"]["uid"]);
    let stranger = json!({"metadata": {"uid": "another"}, "spec": {"expirationSeconds": 600}});
    admin.post(&format!("{accounts}/robot/token"), &stranger).await.refused(
        409,
        "the UID in the token request (another) does not match the UID of the service account",
    );
    let misnamed = json!({"metadata": {"name": "other"}, "spec": {"expirationSeconds": 600}});
    admin.post(&format!("{accounts}/robot/token"), &misnamed).await.refused(
        422,
        "metadata.name: Invalid value: \"other\": must match the service account name if specified",
    );
    let shown = token.clone();
    let robot = identities.https(Credentials::Token(Arc::new(move || shown.clone())));
    let me = robot
        .post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}))
        .await
        .ok();
    let user = &me["status"]["userInfo"];
    assert_eq!(
        (&user["username"], &user["uid"]),
        (
            &json!("system:serviceaccount:default:robot"),
            &account["metadata"]["uid"]
        )
    );
    let review = json!({"spec": {"token": token}});
    let reviewed = admin
        .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await
        .ok();
    assert_eq!(reviewed["status"]["authenticated"], true);
    robot
        .get("/api/v1/pods")
        .await
        .refused(403, "User \"system:serviceaccount:default:robot\" cannot list");
    // A token is for whom it names, and the API server is not among them.
    let request = json!({"spec": {"expirationSeconds": 600, "audiences": ["vault"]}});
    let issued = admin.post(&format!("{accounts}/robot/token"), &request).await.ok();
    let of_vault = issued["status"]["token"].as_str().unwrap().to_owned();
    let vault = identities.with_token(&of_vault);
    vault.get("/api/v1/pods").await.refused(401, "Unauthorized");
    for (audiences, expect) in [
        (json!(["vault", "x"]), json!(["vault"])),
        (json!(["x"]), Value::Null),
        (Value::Null, Value::Null),
    ] {
        let review = json!({"spec": {"token": of_vault, "audiences": audiences}});
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let status = admin.post(reviews, &review).await.ok()["status"].clone();
        let authenticated = status["authenticated"] == true;
        assert_eq!(
            (authenticated, &status["audiences"]),
            (!expect.is_null(), &expect),
            "{audiences}"
        );
    }
    // Others verify tokens by the keys that the discovery document leads to.
    let discovery = admin.get("/.well-known/openid-configuration").await.ok();
    let issuer = "https://kubernetes.default.svc.cluster.local";
    assert_eq!(
        (
            &discovery["issuer"],
            &discovery["id_token_signing_alg_values_supported"]
        ),
        (&json!(issuer), &json!(["ES256"]))
    );
    assert!(
        discovery["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"),
        "{discovery}"
    );
    let index = admin.get("/openapi/v3").await.ok();
    for path in [".well-known/openid-configuration", "openid/v1/jwks"] {
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
        let document = admin.get(url).await.ok();
        assert!(document["paths"][format!("/{path}/")]["get"].is_object(), "{path}");
    }
    let keys = admin.get("/openid/v1/jwks").await.ok();
    let header = of_vault.split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(
        (&keys["keys"][0]["kid"], &keys["keys"][0]["d"]),
        (&header["kid"], &Value::Null)
    );
    admin.delete(&format!("{accounts}/robot")).await.ok();
    robot.get("/api/v1/pods").await.refused(401, "Unauthorized");
    let broken = identities.https(Credentials::Token(Arc::new(|| "x.y.z".into())));
    broken.get("/api/v1/pods").await.refused(401, "Unauthorized");
}

#[tokio::test]
async fn a_node_reaches_its_own_and_nothing_else() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    admin
        .post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await
        .ok();
    for secret in ["mine", "other"] {
        admin
            .post(
                "/api/v1/namespaces/default/secrets",
                &json!({"metadata": {"name": secret}}),
            )
            .await
            .ok();
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i",
        "envFrom": [{"secretRef": {"name": "mine"}}]}]}});
    admin.post("/api/v1/namespaces/default/pods", &pod).await.ok();
    for (index, node) in identities
        .both("system:node:n1", Some("system:nodes"))
        .into_iter()
        .enumerate()
    {
        if index == 0 {
            node.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))
                .await
                .ok();
        }
        assert_eq!(
            node.post("/api/v1/nodes", &json!({"metadata": {"name": "n2"}}))
                .await
                .code,
            403
        );
        assert_eq!(node.get("/api/v1/namespaces/default/secrets/mine").await.code, 200);
        assert_eq!(node.get("/api/v1/namespaces/default/secrets/other").await.code, 403);
        assert_eq!(node.get("/api/v1/namespaces/default/secrets").await.code, 403);
        let ready = json!({"status": {"phase": "Running"}});
        assert_eq!(
            node.patch("/api/v1/namespaces/default/pods/p/status", "strategic", &ready)
                .await
                .code,
            200
        );
        let list = node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await;
        assert_eq!(list.ok()["items"].as_array().unwrap().len(), 1);
    }
}

/// Who the server says that one is.
async fn who(api: &Api, headers: &[(&str, &str)]) -> Result<serde_json::Value, u16> {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let answer = api.call(&format!("POST {path}"), headers, "{}").await;
    match answer.code {
        201 => Ok(answer.value()["status"]["userInfo"].clone()),
        code => Err(code),
    }
}

#[tokio::test]
async fn a_front_proxy_speaks_for_others_and_nobody_else_does() {
    let identities = Identities::start().await;
    let sent = [
        ("x-remote-user", "jane"),
        ("x-remote-group", SYSTEM_MASTERS),
        ("x-remote-extra-scopes", "view"),
        ("x-remote-uid", "7"),
    ];
    let front = identities.with_certificate(&identities.proxies, "front", Some("proxies"));
    let jane = who(&front, &sent).await.unwrap();
    let groups = json!([SYSTEM_MASTERS, "system:authenticated"]);
    let expect = json!({"username": "jane", "uid": "7", "groups": groups, "extra": {"scopes": ["view"]}});
    assert_eq!(jane, expect);
    // It acts with the rights of the one that it names, and impersonation is of that one.
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let nobody = [("x-remote-user", "nobody"), ("impersonate-user", "admin")];
    let answer = front.call(&format!("POST {path}"), &nobody, "{}").await;
    answer.refused(403, "User \"nobody\" cannot impersonate");
    // Without a name the proxy is nobody: its authority signs no clients.
    assert_eq!(who(&front, &[("x-remote-group", SYSTEM_MASTERS)]).await, Err(401));
    let other = identities.with_certificate(&identities.proxies, "other", None);
    assert_eq!(who(&other, &sent).await, Err(401));
    let mut own_name = who(
        &identities.with_certificate(&identities.authority, "front", None),
        &sent,
    )
    .await
    .unwrap();
    own_name.as_object_mut().unwrap().remove("extra");
    assert_eq!(
        own_name,
        json!({"username": "front", "groups": ["system:authenticated"]})
    );
    let anonymous = who(&identities.https(Credentials::Anonymous), &sent).await;
    assert_eq!(anonymous, Err(403));
}

#[tokio::test]
async fn what_is_trusted_is_published_for_extension_servers() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let published = async |admin: &Api| {
        let selected = "/api/v1/namespaces/kube-system/configmaps?watch=true&timeoutSeconds=60&sendInitialEvents=true\
             &resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name%3Dextension-apiserver-authentication";
        let mut watch = admin.watch(selected).await;
        loop {
            let event = watch.next().await.unwrap();
            if event["type"] == "ADDED" {
                return event["object"]["data"].clone();
            }
        }
    };
    let data = published(&admin).await;
    let own = &identities.authority.pair().certificate_pem.replace('\r', "");
    assert_eq!(data["client-ca-file"].as_str().unwrap().trim(), own.trim());
    assert_eq!(data["requestheader-allowed-names"], r#"["front"]"#);
    admin.delete(path).await.ok();
    assert_eq!(published(&admin).await, data);
}

#[tokio::test]
async fn bootstrap_tokens_are_of_secrets_that_live() {
    let identities = Identities::start().await;
    let [admin, _] = identities.both("admin", Some(SYSTEM_MASTERS));
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = json!({
        "metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        },
    });
    let machine = identities.with_token("abcdef.0123456789abcdef");
    assert_eq!(who(&machine, &[]).await, Err(401));
    admin.post(secrets, &secret).await.ok();
    let groups = json!([
        "system:bootstrappers",
        "system:bootstrappers:workers",
        "system:authenticated"
    ]);
    let user = json!({"username": "system:bootstrap:abcdef", "groups": groups});
    assert_eq!(who(&machine, &[]).await.unwrap(), user);
    let review = json!({"spec": {"token": "abcdef.0123456789abcdef"}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let status = admin.post(reviews, &review).await.ok()["status"].clone();
    assert_eq!((&status["authenticated"], &status["user"]), (&json!(true), &user));
    let wrong = identities.with_token("abcdef.0123456789abcdeg");
    assert_eq!(who(&wrong, &[]).await, Err(401));
    admin.delete(&format!("{secrets}/bootstrap-token-abcdef")).await.ok();
    assert_eq!(who(&machine, &[]).await, Err(401));
}
