//! Tokens of service accounts by kube-apiserver's flags: other keys and issuers, and what was issued before them.

use std::path::Path;
use std::sync::Arc;

use apiserver::tokens::{Claims, KubernetesClaims, Reference, Signer, SigningKey, TokenSettings};
use base::{Clock, Random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper_util::service::TowerToHyperService;
use rcgen::{PublicKeyData as _, SigningKey as _};
use rpc::external_jwt::external_jwt_signer_server::{ExternalJwtSigner, ExternalJwtSignerServer};
use rpc::external_jwt::{
    FetchKeysRequest, FetchKeysResponse, Key, MetadataRequest, MetadataResponse, SignJwtRequest, SignJwtResponse,
    Timestamp,
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::access::{flag, is_nobody, up, whoami, with_token, write};
use crate::cluster::{Cluster, decode, fail, succeed};
use crate::grpc;
use crate::node_cluster::until;

/// A key of no use outside of tests.
const RSA_KEY: &str = include_str!("../../../apiserver/src/tokens/testdata/rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../../apiserver/src/tokens/testdata/rsa-public.pem");
const RSA_ID: &str = include_str!("../../../apiserver/src/tokens/testdata/rsa.id");

const OLD: &str = "https://kubernetes.default.svc.cluster.local";
const NEW: &str = "https://tokens.example";
const BUILDER: &str = "system:serviceaccount:default:builder";
/// Foreign tokens end long after the test.
const LIFE_SECONDS: i64 = 24 * 60 * 60;

/// A part of a token: 0 is its header, 1 its claims.
fn part(token: &str, at: usize) -> Value {
    serde_json::from_slice(&BASE64.decode(token.split('.').nth(at).unwrap()).unwrap()).unwrap()
}

/// A token that another program signs, of that issuer and for that audience.
fn foreign(key: &str, issuer: &str, audience: &str, uid: &str) -> String {
    let key = SigningKey::from_pem(key).unwrap();
    let signer = Signer::new(key, Vec::new(), TokenSettings::default(), Random::real());
    let now = Clock::real().now().as_second();
    let claims = Claims {
        audiences: vec![audience.into()],
        issuer: issuer.into(),
        subject: BUILDER.into(),
        expires: Some(now + LIFE_SECONDS),
        kubernetes: KubernetesClaims {
            namespace: "default".into(),
            account: Reference {
                name: "builder".into(),
                uid: uid.into(),
            },
            ..KubernetesClaims::default()
        },
        ..Claims::default()
    };
    signer.sign(&claims).unwrap()
}

fn get(cluster: &Cluster, path: &str) -> Value {
    serde_json::from_str(&cluster.kubectl_ok(&["get", "--raw", path])).unwrap()
}

fn issued(cluster: &Cluster, words: &[&str]) -> String {
    let create = ["create", "token", "builder"];
    cluster.kubectl_ok(&[&create[..], words].concat()).trim().to_owned()
}

#[test]
fn other_keys_and_issuers_are_taken_beside_the_old() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    up(&cluster, &[]);
    cluster.kubectl_ok(&["create", "serviceaccount", "builder"]);
    let uid = cluster.kubectl_ok(&["get", "serviceaccount", "builder", "-o", "jsonpath={.metadata.uid}"]);
    let old = issued(&cluster, &[]);
    assert_eq!(
        (&part(&old, 0)["alg"], &part(&old, 1)["iss"]),
        (&json!("ES256"), &json!(OLD))
    );
    let old_keys = get(&cluster, "/openid/v1/jwks");
    let own_id = part(&old, 0)["kid"].clone();
    assert_eq!(old_keys["keys"][0]["kid"], own_id);
    succeed(&cluster.trireme(&["down"]));

    let foreign_key = rcgen::KeyPair::generate().unwrap();
    let foreign_pem = foreign_key.serialize_pem();
    let signing = write(dir.path(), "signing.pem", RSA_KEY);
    let public = write(
        dir.path(),
        "public.pem",
        &format!("{RSA_PUBLIC}{}", foreign_key.public_key_pem()),
    );
    let flags = [
        format!("--service-account-issuer={NEW}"),
        format!("--service-account-issuer={OLD}"),
        flag("service-account-signing-key-file", &signing),
        flag("service-account-key-file", &public),
        flag("service-account-key-file", &cluster.dir.join("data/pki/sa.key")),
        format!("--api-audiences=api,{OLD}"),
        "--service-account-max-token-expiration=1h".to_owned(),
        "--service-account-jwks-uri=https://tokens.example/keys".to_owned(),
    ];
    up(&cluster, &flags);
    let told = |token: &str| succeed(&whoami(&with_token(&cluster, token)));
    assert!(told(&old).starts_with(BUILDER), "a token of before");

    let new = issued(&cluster, &[]);
    assert_eq!(part(&new, 0), json!({"alg": "RS256", "kid": RSA_ID.trim()}));
    assert_eq!(
        (&part(&new, 1)["iss"], &part(&new, 1)["aud"]),
        (&json!(NEW), &json!(["api", OLD]))
    );
    assert!(told(&new).starts_with(BUILDER));
    let long = cluster.kubectl(&["create", "token", "builder", "--duration=2h"]);
    let claims = part(succeed(&long).trim(), 1);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    let warned = String::from_utf8_lossy(&long.stderr).into_owned();
    assert!(
        warned.contains("requested expiration of 7200 seconds shortened to 3600 seconds"),
        "{warned}"
    );

    let stranger = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert!(told(&foreign(&foreign_pem, NEW, "api", &uid)).starts_with(BUILDER));
    for (token, why) in [
        (foreign(&stranger, NEW, "api", &uid), "a key of nobody"),
        (
            foreign(&foreign_pem, "https://else", "api", &uid),
            "an issuer of nobody",
        ),
        (foreign(&foreign_pem, NEW, "vault", &uid), "for somebody else"),
        (
            foreign(&foreign_pem, NEW, NEW, &uid),
            "for the issuer, which is no audience of ours",
        ),
        (
            foreign(&foreign_pem, NEW, "api", "another"),
            "another account of that name",
        ),
    ] {
        assert!(!whoami(&with_token(&cluster, &token)).status.success(), "{why}");
    }
    let vault = issued(&cluster, &["--audience=vault"]);
    is_nobody(&with_token(&cluster, &vault));
    let review = |audiences: Value| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": vault, "audiences": audiences}});
        let file = write(dir.path(), "review.json", &review.to_string());
        let text = cluster.kubectl_ok(&["create", "-o", "json", "-f", &file.display().to_string()]);
        serde_json::from_str::<Value>(&text).unwrap()["status"].clone()
    };
    let status = review(json!(["vault", "x"]));
    assert_eq!(
        (&status["authenticated"], &status["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    let refused = review(json!(["x"]));
    assert!(!refused["authenticated"].as_bool().unwrap_or(false), "{refused}");
    let why = "token audiences [\"vault\"] is invalid for the target audiences [\"x\"]";
    assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");

    let discovery = get(&cluster, "/.well-known/openid-configuration");
    assert_eq!(
        (&discovery["issuer"], &discovery["jwks_uri"]),
        (&json!(NEW), &json!("https://tokens.example/keys"))
    );
    assert_eq!(
        discovery["id_token_signing_alg_values_supported"],
        json!(["ES256", "RS256"])
    );
    let keys = get(&cluster, "/openid/v1/jwks");
    let of_keys = |field: &str| -> Vec<Value> {
        let keys = keys["keys"].as_array().unwrap().iter();
        keys.map(|key| key[field].clone()).collect()
    };
    assert_eq!(of_keys("alg"), ["RS256", "ES256", "ES256"]);
    assert_eq!(
        (&of_keys("kid")[0], &of_keys("kid")[2]),
        (&json!(RSA_ID.trim()), &own_id)
    );
    assert!(of_keys("d").iter().all(Value::is_null));
}

#[test]
fn the_use_of_a_secrets_token_is_told() {
    let (cluster, dir) = (Cluster::shared(), tempfile::tempdir().unwrap());
    cluster.kubectl_ok(&["create", "serviceaccount", "keeper"]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "keeper-token", "annotations": {"kubernetes.io/service-account.name": "keeper"}}});
    let file = write(dir.path(), "secret.json", &secret.to_string());
    cluster.kubectl_ok(&["create", "-f", &file.display().to_string()]);
    let get = |path: &str| cluster.kubectl_ok(&["get", "secret", "keeper-token", "-o", &format!("jsonpath={path}")]);
    let token = until("a token", || {
        Some(get("{.data.token}")).filter(|token| !token.is_empty())
    });
    let keeper = with_token(cluster, &decode(&json!(token)));
    let told = whoami(&keeper);
    assert!(succeed(&told).starts_with("system:serviceaccount:default:keeper "));
    assert!(told.stderr.is_empty(), "{told:?}");
    let day = until("the day of its use", || {
        let day = get("{.metadata.labels.kubernetes\\.io/legacy-token-last-used}");
        (!day.is_empty()).then_some(day)
    });
    let since = [
        "get",
        "configmap",
        "-n",
        "kube-system",
        "kube-apiserver-legacy-service-account-token-tracking",
        "-o",
        "jsonpath={.data.since}",
    ];
    let since = cluster.kubectl_ok(&since);
    assert!(since.len() == 10 && since <= day, "{since} {day}");

    let listed = r#"{"secrets": [{"name": "keeper-token"}]}"#;
    cluster.kubectl_ok(&["patch", "serviceaccount", "keeper", "-p", listed]);
    let told = whoami(&keeper);
    succeed(&told);
    let warned = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        warned.contains("Warning: Use tokens from the TokenRequest API or manually created secret-based tokens"),
        "{warned}"
    );
    let mark = "kubernetes.io/legacy-token-invalid-since=2020-01-01";
    cluster.kubectl_ok(&["label", "secret", "keeper-token", mark]);
    is_nobody(&keeper);
}

/// A program with one key, on a thread of its own.
#[derive(Clone)]
struct Remote(Arc<rcgen::KeyPair>);

/// A signature as tokens have it: both numbers of 32 bytes, which DER writes without zeros before them and with a sign.
fn fixed(mut der: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::new();
    der = &der[2..];
    while let [2, length, rest @ ..] = der {
        let (number, rest) = rest.split_at(usize::from(*length));
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = &number[zeros..];
        numbers.resize(numbers.len() + 32 - number.len(), 0);
        numbers.extend_from_slice(number);
        der = rest;
    }
    numbers
}

#[tonic::async_trait]
impl ExternalJwtSigner for Remote {
    async fn sign(&self, request: Request<SignJwtRequest>) -> Result<Response<SignJwtResponse>, Status> {
        let header = BASE64.encode(json!({"alg": "ES256", "kid": "theirs", "typ": "JWT"}).to_string());
        let signed = format!("{header}.{}", request.into_inner().claims);
        let signature = BASE64.encode(fixed(&self.0.sign(signed.as_bytes()).unwrap()));
        Ok(Response::new(SignJwtResponse { header, signature }))
    }

    async fn fetch_keys(&self, _: Request<FetchKeysRequest>) -> Result<Response<FetchKeysResponse>, Status> {
        Ok(Response::new(FetchKeysResponse {
            keys: vec![Key {
                key_id: "theirs".into(),
                key: self.0.subject_public_key_info(),
                exclude_from_oidc_discovery: false,
            }],
            data_timestamp: Some(Timestamp::default()),
            refresh_hint_seconds: 3600,
        }))
    }

    async fn metadata(&self, _: Request<MetadataRequest>) -> Result<Response<MetadataResponse>, Status> {
        Ok(Response::new(MetadataResponse {
            max_token_expiration_seconds: 7200,
        }))
    }
}

impl Remote {
    /// Serves on a socket until the answer is dropped.
    fn serve(&self, socket: &Path) -> tokio::runtime::Runtime {
        grpc::serve(
            socket,
            TowerToHyperService::new(ExternalJwtSignerServer::new(self.clone())),
        )
    }
}

#[test]
fn another_program_signs() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let remote = Remote(Arc::new(rcgen::KeyPair::generate().unwrap()));
    let socket = dir.path().join("signer.sock");
    let serving = remote.serve(&socket);
    let endpoint = flag("service-account-signing-endpoint", &socket);
    let too_long = cluster.trireme(&[
        "--quiet",
        "up",
        "--no-node",
        "--api-port",
        "0",
        &endpoint,
        "--service-account-max-token-expiration=3h",
    ]);
    let why = "service-account-max-token-expiration cannot be set longer than the token expiration supported by \
               service-account-signing-endpoint: 3h0m0s > 2h0m0s";
    let told = fail(&too_long);
    assert!(told.contains(why), "{told}");
    up(&cluster, &[endpoint, "--service-account-max-token-expiration=".into()]);
    cluster.kubectl_ok(&["create", "serviceaccount", "builder"]);
    let token = issued(&cluster, &["--duration=3h"]);
    assert_eq!(part(&token, 0)["kid"], "theirs");
    let claims = part(&token, 1);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    assert!(succeed(&whoami(&with_token(&cluster, &token))).starts_with(BUILDER));
    assert_eq!(get(&cluster, "/openid/v1/jwks")["keys"][0]["kid"], "theirs");
    // What it signed counts without it; nothing new is signed.
    serving.shutdown_background();
    assert!(succeed(&whoami(&with_token(&cluster, &token))).starts_with(BUILDER));
}
