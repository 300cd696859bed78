//! The parts as a real cluster has them: certificates, tokens, RBAC, the Node authorizer and all admission plug-ins, over
//! what bootstrap makes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use apiserver::authentication::{Authentication, CertificateAuthenticator};
use apiserver::authorization::{Chain, NodeAuthorizer, Rbac};
use apiserver::cluster::Cluster;
use apiserver::pipeline::Authorizer;
use apiserver::pki::Authority;
use apiserver::request::{SYSTEM_MASTERS, UserInfo};
use apiserver::tokens::{ClusterObjects, Issuer, Signer, TokenAuthenticator};
use apiserver::{Parts, Running, bootstrap};
use base::{Clock, Random};
use client::https::{Credentials, HttpsTransport};
use client::{Client, Transport};
use serde_json::json;

use crate::world::{Api, World};

struct Identities {
    world: World,
    authority: Authority,
    address: std::net::SocketAddr,
    server_ca: String,
}

impl Identities {
    async fn start() -> Identities {
        let (clock, random) = (Clock::real(), Random::real());
        let authority = Authority::generate("cluster", clock.now(), random.clone()).unwrap();
        let certificates = CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap();
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Arc::new(Signer::from_pem(&key, random.clone()).unwrap());
        let policy = bootstrap::policy::objects().unwrap();
        let is_node_role =
            |object: &&api::Value| object["kind"] == "ClusterRole" && object["metadata"]["name"] == "system:node";
        let node_role = policy.iter().find(is_node_role).cloned().unwrap();
        let parts = move |cluster: Arc<dyn Cluster>| {
            let rbac = Arc::new(Rbac::new(&*cluster));
            let node = Arc::new(NodeAuthorizer::new(&*cluster, &node_role));
            let authorizer: Arc<dyn Authorizer> = Arc::new(Chain::new(vec![node, rbac.clone()]));
            let tokens = TokenAuthenticator::new(signer.clone(), Arc::new(ClusterObjects(cluster.clone())));
            Parts {
                authenticator: Arc::new(Authentication::new(certificates, tokens, clock.clone())),
                admission: apiserver::admission::plugins(rbac, authorizer.clone(), random),
                authorizer,
                tokens: Some(Arc::new(Issuer::new(signer, cluster, clock))),
            }
        };
        let world = World::with(|config| config.parts = Box::new(parts)).await;
        let addresses = bootstrap::Addresses {
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
        let (address, server_ca) = world.listen().await;
        Identities {
            world,
            authority,
            address,
            server_ca,
        }
    }

    /// The same user by both transports.
    fn both(&self, user: &str, group: Option<&str>) -> [Api; 2] {
        let groups: Vec<&str> = group.into_iter().collect();
        let pair = self.authority.issue_client(user, group, Clock::real().now()).unwrap();
        let credentials = Credentials::Certificate {
            chain_pem: pair.certificate_pem,
            key_pem: pair.key_pem,
        };
        [as_user(&self.world.running, user, &groups), self.https(credentials)]
    }

    fn https(&self, credentials: Credentials) -> Api {
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
