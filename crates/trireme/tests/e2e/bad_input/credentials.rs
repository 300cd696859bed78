//! Certificates and tokens that are wrong, stolen or out of date.

use client::https::Credentials;

use super::ask;
use crate::cluster::Cluster;

#[test]
fn certificates_and_tokens() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let token = cluster.account_token();
    let stolen = {
        let other = Cluster::start();
        (other.account_token(), other.administrator())
    };
    // The last character of a signature has bits that say nothing: change one in the middle.
    let at = token.len() - 20;
    let mut forged = token.clone();
    forged.replace_range(at..=at, if &token[at..=at] == "A" { "B" } else { "A" });
    cluster.kubectl_ok(&["create", "serviceaccount", "gone"]);
    let gone = cluster.kubectl_ok(&["create", "token", "gone"]).trim().to_owned();
    cluster.kubectl_ok(&["delete", "serviceaccount", "gone"]);
    let anonymous = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    let account = "pods is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
    let of_secret = |secret: &str| {
        let place = cluster.workplace(&format!("holds-{secret}"));
        let manifest = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","metadata":{{"name":"{secret}",
               "annotations":{{"kubernetes.io/service-account.name":"default"}}}}}}"#
        );
        place.wait("serviceaccount/default", "create");
        crate::cluster::succeed(&place.kubectl_with(&["create", "-f", "-"], &manifest));
        place.wait(&format!("secret/{secret}"), "jsonpath={.data.token}");
        crate::cluster::decode(&place.get(&["secret", secret])["data"]["token"])
    };
    let (kept, ended) = (of_secret("kept"), of_secret("ended"));
    cluster.kubectl_ok(&["delete", "secret", "ended", "--namespace=holds-ended"]);
    let of_kept = account.replace("default:default", "holds-kept:default");
    let other_audience = cluster
        .kubectl_ok(&["create", "token", "default", "--audience=vault"])
        .trim()
        .to_owned();
    let bearer = |token: &str| {
        let token = token.to_owned();
        Credentials::Token(std::sync::Arc::new(move || token.clone()))
    };
    runtime.block_on(async {
        for (what, credentials, code, reason, message) in [
            ("nobody", Credentials::Anonymous, 403, "Forbidden", anonymous),
            ("a service account", bearer(&token), 403, "Forbidden", account),
            ("a secret's token", bearer(&kept), 403, "Forbidden", &of_kept),
            (
                "a token of a secret that is gone",
                bearer(&ended),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a token that is none",
                bearer("x.y.z"),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            ("a forged token", bearer(&forged), 401, "Unauthorized", "Unauthorized"),
            (
                "a token of another cluster",
                bearer(&stolen.0),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a token of an account that is gone",
                bearer(&gone),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a token for somebody else",
                bearer(&other_audience),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
            (
                "a certificate of another cluster",
                stolen.1.clone(),
                401,
                "Unauthorized",
                "Unauthorized",
            ),
        ] {
            let server = cluster.transport(credentials);
            let (came, status) = ask(&*server, "GET", "/api/v1/pods", "", Vec::new()).await;
            let came = (
                came,
                status["reason"].as_str().unwrap_or_default(),
                status["message"].as_str().unwrap_or_default(),
            );
            assert_eq!(came, (code, reason, message), "{what}");
        }
        let server = cluster.transport(Credentials::Anonymous);
        for (path, code) in [
            ("/healthz", 200),
            ("/livez", 200),
            ("/readyz", 200),
            ("/version", 200),
            ("/metrics", 403),
            ("/api", 403),
        ] {
            assert_eq!(ask(&*server, "GET", path, "", Vec::new()).await.0, code, "{path}");
        }
    });
}
