//! Who may do what by flags: kube-apiserver's, with the real `kubectl` as the users that they make.

use std::path::{Path, PathBuf};
use std::process::Output;

use apiserver::pki::{Pair, dns_names};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::certificates::shown;
use crate::cluster::{Cluster, PATIENCE, Workplace, fail, succeed};
use crate::node_cluster::until;
use crate::services::{Issuer, Service, authority, serving};

/// A cluster without a node, with flags.
pub fn up(cluster: &Cluster, flags: &[String]) {
    let flags = flags.iter().map(String::as_str);
    let words: Vec<&str> = ["--quiet", "up", "--no-node", "--api-port", "0"]
        .into_iter()
        .chain(flags)
        .collect();
    succeed(&cluster.trireme(&words));
}

/// A place to work in as somebody else than the administrator.
fn place_of(cluster: &Cluster, name: &str, user: Value) -> Workplace {
    let dir = cluster.dir.join("work").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let mut config = cluster.config();
    config["users"][0]["user"] = user;
    std::fs::write(dir.join("kubeconfig"), config.to_string()).unwrap();
    Workplace {
        namespace: "default".into(),
        dir,
    }
}

pub fn with_token(cluster: &Cluster, token: &str) -> Workplace {
    // The end of a token is its signature.
    let name = &token[token.len().saturating_sub(40)..];
    place_of(cluster, name, json!({"token": token}))
}

fn with_certificate(cluster: &Cluster, name: &str, pair: &Pair) -> Workplace {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let user =
        json!({"client-certificate-data": encode(&pair.certificate_pem), "client-key-data": encode(&pair.key_pem)});
    place_of(cluster, name, user)
}

/// What the server says to somebody who asks who he is.
pub fn whoami(place: &Workplace) -> Output {
    let shape = "jsonpath={.status.userInfo.username} {.status.userInfo.groups}";
    place.kubectl(&["auth", "whoami", "-o", shape])
}

#[track_caller]
pub fn is_nobody(place: &Workplace) {
    let told = fail(&whoami(place));
    assert!(told.contains("You must be logged in to the server"), "{told}");
}

/// Puts another text into a file's place, as certificate managers do.
pub fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

pub fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

pub fn flag(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}

/// Waits until something stands in the metrics.
#[track_caller]
pub fn until_metric(cluster: &Cluster, line: &str) {
    until(line, || {
        cluster
            .kubectl_ok(&["get", "--raw", "/metrics"])
            .contains(line)
            .then_some(())
    });
}

fn issuers(issuer: &Issuer, prefix: &str) -> String {
    let config = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [{
        "issuer": {"url": issuer.service.url, "certificateAuthority": issuer.service.ca_pem, "audiences": ["trireme"]},
        "claimMappings": {
            "username": {"expression": format!("'{prefix}:' + claims.sub")},
            "groups": {"expression": "['team-' + claims['kubernetes.io'].namespace]"},
        },
        "claimValidationRules": [{"expression": "claims.sub != 'mallory'", "message": "not you"}],
        "userValidationRules": [{"expression": "!user.groups.exists(g, g == 'team-root')", "message": "reserved"}],
    }]});
    config.to_string()
}

#[test]
fn tokens_of_files_issuers_and_webhooks_make_users() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let issuer = Issuer::start();
    let webhook = Service::start(|_, _, review| {
        let knows = review["spec"]["token"] == "of-the-webhook" && review["spec"]["audiences"].is_array();
        let user = json!({"username": "ann", "uid": "9", "groups": ["ops"]});
        let status = if knows {
            json!({"authenticated": true, "user": user})
        } else {
            json!({"authenticated": false})
        };
        json!({"kind": "TokenReview", "apiVersion": review["apiVersion"], "status": status})
    });
    let tokens = write(dir.path(), "tokens.csv", "of-the-file,jane,7,\"dev,qa\"\n");
    let config = write(dir.path(), "issuers.yaml", &issuers(&issuer, "one"));
    let service = write(dir.path(), "webhook.yaml", &webhook.kubeconfig().to_string());
    let broken = [flag("token-auth-file", &service)];
    let words = ["--quiet", "up", "--no-node", &broken[0]];
    assert!(fail(&cluster.trireme(&words)).contains("error[AUTHENTICATION]"));
    let flags = [
        flag("token-auth-file", &tokens),
        flag("authentication-config", &config),
        flag("authentication-token-webhook-config-file", &service),
        "--authentication-token-webhook-version=v1".to_owned(),
        "--enable-bootstrap-token-auth".to_owned(),
    ];
    up(&cluster, &flags);

    let joe = with_token(&cluster, &issuer.token("joe", "blue"));
    // An issuer is asked beside the start.
    until("the issuer's user", || whoami(&joe).status.success().then_some(()));
    for (place, expect) in [
        (
            with_token(&cluster, "of-the-file"),
            "jane [\"dev\",\"qa\",\"system:authenticated\"]",
        ),
        (
            with_token(&cluster, "of-the-webhook"),
            "ann [\"ops\",\"system:authenticated\"]",
        ),
        (
            with_token(&cluster, &issuer.token("joe", "blue")),
            "one:joe [\"team-blue\",\"system:authenticated\"]",
        ),
    ] {
        assert_eq!(succeed(&whoami(&place)), expect);
        assert!(fail(&place.kubectl(&["get", "secrets"])).contains("secrets is forbidden"));
    }
    for token in [
        "of-nobody",
        &issuer.token("mallory", "blue"),
        &issuer.token("joe", "root"),
    ] {
        is_nobody(&with_token(&cluster, token));
    }
    // Another issuer's key under the same name.
    let forged = Issuer::start().token("joe", "blue");
    is_nobody(&with_token(&cluster, &forged));

    replace(&config, &issuers(&issuer, "two"));
    until("another configuration", || {
        succeed(&whoami(&joe)).starts_with("two:joe ").then_some(())
    });
    replace(&config, "nothing of the kind");
    until_metric(
        &cluster,
        "apiserver_authentication_config_controller_automatic_reloads_total{status=\"failure\"} 1",
    );
    assert!(succeed(&whoami(&joe)).starts_with("two:joe "));

    // Bootstrap tokens sign what joins read.
    cluster.kubectl_ok(&[
        "create",
        "configmap",
        "cluster-info",
        "-n",
        "kube-public",
        "--from-literal=kubeconfig=x",
    ]);
    let secret = [
        "create",
        "secret",
        "generic",
        "bootstrap-token-abcdef",
        "-n",
        "kube-system",
    ];
    let more = [
        "--type=bootstrap.kubernetes.io/token",
        "--from-literal=token-id=abcdef",
        "--from-literal=token-secret=0123456789abcdef",
        "--from-literal=usage-bootstrap-signing=true",
        "--from-literal=usage-bootstrap-authentication=true",
    ];
    cluster.kubectl_ok(&[&secret[..], &more].concat());
    cluster.kubectl_ok(&[
        "wait",
        "--for=jsonpath={.data.jws-kubeconfig-abcdef}",
        "configmap/cluster-info",
        "-n",
        "kube-public",
        PATIENCE,
    ]);
    let told = succeed(&whoami(&with_token(&cluster, "abcdef.0123456789abcdef")));
    assert!(told.starts_with("system:bootstrap:abcdef "), "{told}");
}

#[test]
fn policies_and_plug_ins_of_flags_count_until_they_are_taken_back() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let tokens = write(dir.path(), "tokens.csv", "t,jane,7,dev\n");
    let policy =
        |spec: Value| json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec});
    let policies = [
        policy(json!({"user": "jane", "namespace": "default", "resource": "pods", "readonly": true})),
        policy(json!({"group": "dev", "nonResourcePath": "/metrics"})),
    ];
    let policies = write(dir.path(), "policies", &policies.map(|one| one.to_string()).join("\n"));
    let plugins = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [
        {"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": {"bound": "env=dev,disk=ssd"}}}]});
    let plugins = write(dir.path(), "plugins.yaml", &plugins.to_string());
    let flags = [
        flag("token-auth-file", &tokens),
        "--authorization-mode=Node,RBAC,ABAC".to_owned(),
        flag("authorization-policy-file", &policies),
        "--enable-admission-plugins=PodNodeSelector".to_owned(),
        flag("admission-control-config-file", &plugins),
    ];
    up(&cluster, &flags);
    let jane = with_token(&cluster, "t");
    let check = || {
        jane.kubectl_ok(&["get", "pods", "-n", "default"]);
        jane.kubectl_ok(&["get", "--raw", "/metrics"]);
        for words in [
            &["get", "pods", "-n", "kube-system"][..],
            &["delete", "pod", "x", "-n", "default"],
            &["get", "configmaps", "-n", "default"],
        ] {
            let told = fail(&jane.kubectl(words));
            assert!(told.contains("is forbidden: User \"jane\" cannot"), "{told}");
        }
    };
    check();
    let bound = cluster.workplace("bound");
    bound.kubectl_ok(&[
        "annotate",
        "namespace",
        "bound",
        "scheduler.alpha.kubernetes.io/node-selector=env=dev",
    ]);
    let run = |name: &str, key: &str, value: &str| {
        let overrides = json!({"spec": {"nodeSelector": {key: value}}});
        bound.kubectl(&["run", name, "--image=x", &format!("--overrides={overrides}")])
    };
    succeed(&run("a", "disk", "ssd"));
    assert_eq!(
        bound.get(&["pod", "a"])["spec"]["nodeSelector"],
        json!({"disk": "ssd", "env": "dev"})
    );
    for (key, value, expect) in [
        (
            "env",
            "prod",
            "pod node label selector conflicts with its namespace node label selector",
        ),
        (
            "zone",
            "x",
            "pod node label selector labels conflict with its namespace whitelist",
        ),
    ] {
        let told = fail(&run("b", key, value));
        assert!(told.contains(expect), "{told}");
    }

    // The next start keeps what was said, and words of nothing take it back.
    succeed(&cluster.trireme(&["down"]));
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node"]));
    check();
    fail(&run("b", "zone", "x"));
    succeed(&cluster.trireme(&["down"]));
    let back = ["--authorization-mode=", "--enable-admission-plugins="];
    succeed(&cluster.trireme(&[&["--quiet", "up", "--no-node"][..], &back].concat()));
    let told = fail(&jane.kubectl(&["get", "pods", "-n", "default"]));
    assert!(told.contains("is forbidden: User \"jane\" cannot"), "{told}");
    succeed(&run("b", "zone", "x"));
}

#[test]
fn certificates_of_files_are_read_again() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let [ours, first, second] = [(); 3].map(|()| authority());
    let pair = serving(&ours, "one.example.com");
    let certificate = write(dir.path(), "tls.crt", &pair.certificate_pem);
    let key = write(dir.path(), "tls.key", &pair.key_pem);
    let clients = write(dir.path(), "clients.crt", &first.pair().certificate_pem);
    let flags = [
        flag("tls-cert-file", &certificate),
        flag("tls-private-key-file", &key),
        flag("client-ca-file", &clients),
    ];
    up(&cluster, &flags);
    let seen = || dns_names(&shown(&cluster, &ours.pair().certificate_pem, "127.0.0.1")).join(" ");
    assert_eq!(seen(), "one.example.com");
    // The administrator asks for the cluster's own.
    assert!(succeed(&cluster.trireme(&["status"])).contains("ready"));
    let own = dns_names(&shown(&cluster, &cluster.ca_pem(), "trireme"));
    assert!(own.contains(&"kubernetes.default.svc".to_owned()), "{own:?}");

    let pair = serving(&ours, "two.example.com");
    // The certificate first: until its key is there, the pair before is shown.
    replace(&certificate, &pair.certificate_pem);
    until_metric(
        &cluster,
        "trireme_certificate_file_reloads_total{files=\"serving-cert\",status=\"failure\"} 1",
    );
    assert_eq!(seen(), "one.example.com");
    replace(&key, &pair.key_pem);
    until("the other certificate", || (seen() == "two.example.com").then_some(()));

    let now = base::Clock::real().now();
    let of = |authority: &apiserver::pki::Authority, name: &str| {
        let pair = authority.issue_client(name, Some("dev"), now).unwrap();
        with_certificate(&cluster, name, &pair)
    };
    let (ann, ben) = (of(&first, "ann"), of(&second, "ben"));
    assert_eq!(succeed(&whoami(&ann)), "ann [\"dev\",\"system:authenticated\"]");
    is_nobody(&ben);
    replace(&clients, &second.pair().certificate_pem);
    until("the other authority", || whoami(&ben).status.success().then_some(()));
    is_nobody(&ann);
    // What is no bundle changes nothing, and the cluster's own authority always counts.
    replace(&clients, "nothing of the kind");
    until_metric(
        &cluster,
        "trireme_certificate_file_reloads_total{files=\"client-ca-bundle\",status=\"failure\"} 1",
    );
    assert_eq!(succeed(&whoami(&ben)), "ben [\"dev\",\"system:authenticated\"]");
}

#[test]
fn authorizers_of_a_file_change_while_the_server_runs() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let tokens = write(dir.path(), "tokens.csv", "t,jane,7,dev\n");
    let policies = write(
        dir.path(),
        "policies",
        "{\"user\": \"jane\", \"namespace\": \"default\", \"resource\": \"pods\", \"readonly\": true}\n",
    );
    // Says yes to what no policy speaks of.
    let webhook = Service::start(|_, _, review| {
        let asked = &review["spec"];
        let allowed = asked["user"] == "jane" && asked["resourceAttributes"]["resource"] == "configmaps";
        json!({"kind": "SubjectAccessReview", "apiVersion": review["apiVersion"], "status": {"allowed": allowed}})
    });
    let service = write(dir.path(), "webhook.yaml", &webhook.kubeconfig().to_string());
    let hook = json!({"type": "Webhook", "name": "hook", "webhook": {
        "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
        "matchConditionSubjectAccessReviewVersion": "v1",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": service},
        "matchConditions": [{"expression": "has(request.resourceAttributes)"}],
    }});
    let config = |authorizers: &[Value]| {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers,
        })
        .to_string()
    };
    let own = |kind: &str| json!({"type": kind, "name": kind.to_lowercase()});
    let [node, rbac, abac] = ["Node", "RBAC", "ABAC"].map(own);
    let begun = [node.clone(), rbac.clone(), abac.clone()];
    let file = write(dir.path(), "authorization.yaml", &config(&begun));
    let named = flag("authorization-config", &file);
    let words = ["--quiet", "up", "--no-node", &named];
    let error = fail(&cluster.trireme(&words));
    assert!(error.contains("open : No such file or directory"), "{error}");
    let flags = [
        named,
        flag("authorization-policy-file", &policies),
        flag("token-auth-file", &tokens),
    ];
    up(&cluster, &flags);

    let jane = with_token(&cluster, "t");
    let may = |resource: &str| jane.kubectl(&["get", resource, "-n", "default"]).status.success();
    assert!(may("pods") && !may("configmaps") && !may("secrets"));
    let reloads = |status: &str, count: u32| {
        format!("apiserver_authorization_config_controller_automatic_reloads_total{{status=\"{status}\"}} {count}")
    };
    replace(&file, &config(&[begun.to_vec(), vec![hook]].concat()));
    until("what the webhook allows", || may("configmaps").then_some(()));
    assert!(may("pods") && !may("secrets"));
    until_metric(&cluster, &reloads("success", 1));
    let decisions = "apiserver_authorization_decisions_total{type=\"Webhook\",name=\"hook\",decision=\"allowed\"}";
    until_metric(&cluster, decisions);

    // What the server began with has to stay; all else stays as it was.
    replace(&file, &config(&[node.clone(), rbac.clone()]));
    until_metric(&cluster, &reloads("failure", 1));
    replace(&file, &config(&[begun.to_vec(), vec![own("AlwaysMaybe")]].concat()));
    until_metric(&cluster, &reloads("failure", 2));
    assert!(may("pods") && may("configmaps") && !may("secrets"));
    replace(&file, &config(&begun));
    until_metric(&cluster, &reloads("success", 2));
    assert!(may("pods") && !may("configmaps"));
}
