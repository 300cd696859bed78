//! Tokens that another program signs: its keys come and go, and it may refuse or be away.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::Parts;
use apiserver::authentication::{Authentication, CertificateAuthenticator};
use apiserver::authorization::AlwaysAllow;
use apiserver::cluster::Cluster;
use apiserver::pki::Authority;
use apiserver::tokens::{ClusterObjects, ExternalSigner, Issuer, Signer, TokenAuthenticator, TokenSettings};
use base::{Clock, Random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rpc::external_jwt::external_jwt_signer_server::{ExternalJwtSigner, ExternalJwtSignerServer};
use rpc::external_jwt::{
    FetchKeysRequest, FetchKeysResponse, Key, MetadataRequest, MetadataResponse, SignJwtRequest, SignJwtResponse,
    Timestamp,
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::world::{Api, World};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
/// Nothing takes this long on any machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Named {
    id: &'static str,
    pair: EcdsaKeyPair,
    public: Vec<u8>,
    is_hidden: bool,
}

fn named(id: &'static str, is_hidden: bool) -> Named {
    let pair = rcgen::KeyPair::generate().unwrap();
    let public = rustls_pemfile::read_one(&mut pair.public_key_pem().as_bytes());
    let Some(rustls_pemfile::Item::SubjectPublicKeyInfo(public)) = public.unwrap() else {
        panic!("a public key is no public key");
    };
    let (algorithm, secret) = (&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialize_der());
    Named {
        id,
        pair: EcdsaKeyPair::from_pkcs8(algorithm, &secret, &SystemRandom::new()).unwrap(),
        public: public.to_vec(),
        is_hidden,
    }
}

/// What the program does. The last key signs.
struct Says {
    keys: Vec<Named>,
    longest: i64,
    refresh: i64,
    refuses: bool,
}

#[derive(Clone)]
struct Remote(Arc<Mutex<Says>>);

impl Remote {
    fn new(keys: Vec<Named>) -> Remote {
        Remote(Arc::new(Mutex::new(Says {
            keys,
            longest: 7200,
            refresh: 3600,
            refuses: false,
        })))
    }

    fn serve(&self, socket: &Path) {
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let service = ExternalJwtSignerServer::new(self.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
    }
}

#[tonic::async_trait]
impl ExternalJwtSigner for Remote {
    async fn sign(&self, request: Request<SignJwtRequest>) -> Result<Response<SignJwtResponse>, Status> {
        let says = self.0.lock();
        if says.refuses {
            return Err(Status::unavailable("out of order"));
        }
        let key = says.keys.last().unwrap();
        let header = BASE64.encode(json!({"alg": "ES256", "kid": key.id, "typ": "JWT"}).to_string());
        let signed = format!("{header}.{}", request.into_inner().claims);
        let signature = key.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let signature = BASE64.encode(signature.as_ref());
        Ok(Response::new(SignJwtResponse { header, signature }))
    }

    async fn fetch_keys(&self, _: Request<FetchKeysRequest>) -> Result<Response<FetchKeysResponse>, Status> {
        let says = self.0.lock();
        let keys = says.keys.iter().map(|key| Key {
            key_id: key.id.into(),
            key: key.public.clone(),
            exclude_from_oidc_discovery: key.is_hidden,
        });
        Ok(Response::new(FetchKeysResponse {
            keys: keys.collect(),
            data_timestamp: Some(Timestamp {
                seconds: 1_700_000_000,
                nanos: 0,
            }),
            refresh_hint_seconds: says.refresh,
        }))
    }

    async fn metadata(&self, _: Request<MetadataRequest>) -> Result<Response<MetadataResponse>, Status> {
        Ok(Response::new(MetadataResponse {
            max_token_expiration_seconds: self.0.lock().longest,
        }))
    }
}

/// A server whose tokens that program signs.
async fn world(remote: &Remote) -> (World, Arc<ExternalSigner>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("signer.sock");
    remote.serve(&socket);
    let (external, longest) = ExternalSigner::connect(socket.to_str().unwrap()).await.unwrap();
    assert_eq!(longest, 7200);
    let signer = Signer::external(external.clone(), TokenSettings::default(), Random::real());
    let (signer, clock) = (Arc::new(signer), Clock::real());
    let authority = Authority::generate("cluster", clock.now(), Random::real()).unwrap();
    let certificates = Arc::new(CertificateAuthenticator::new(&authority.pair().certificate_pem).unwrap());
    let parts = move |cluster: Arc<dyn Cluster>| {
        let tokens = TokenAuthenticator::new(signer.clone(), Arc::new(ClusterObjects(cluster.clone())));
        Parts {
            authenticator: Arc::new(Authentication::new(certificates, tokens, clock.clone())),
            authorizer: Arc::new(AlwaysAllow),
            admission: Vec::new(),
            tokens: Some(Arc::new(Issuer::new(signer, cluster, clock))),
        }
    };
    let world = World::with(|config| config.parts = Box::new(parts)).await;
    let account = json!({"metadata": {"name": "robot"}});
    world.api().post(ACCOUNTS, &account).await.ok();
    (world, external, dir)
}

async fn token(api: &Api) -> String {
    let request = json!({"spec": {"expirationSeconds": 600}});
    let issued = api.post(&format!("{ACCOUNTS}/robot/token"), &request).await.ok();
    issued["status"]["token"].as_str().unwrap().to_owned()
}

/// The names of the keys that others are told of, and for how many seconds they may keep them.
async fn told(api: &Api) -> (Vec<String>, u64) {
    let answer = api.get("/openid/v1/jwks").await;
    let kept = answer.headers["cache-control"].to_str().unwrap().to_owned();
    let kept = kept.strip_prefix("public, max-age=").unwrap().parse().unwrap();
    let set = answer.ok();
    let keys = set["keys"].as_array().unwrap().iter();
    (keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect(), kept)
}

async fn is_robot(https: &Api, token: &str) -> bool {
    let answer = https.as_user(token).post(REVIEWS, &json!({})).await;
    answer.value()["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
}

#[tokio::test]
async fn keys_come_and_go_with_the_signer() {
    let remote = Remote::new(vec![named("one", false)]);
    let (world, _external, _dir) = world(&remote).await;
    let [api, https] = world.both().await;
    let first = token(&api).await;
    let header = BASE64.decode(first.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!(header, json!({"alg": "ES256", "kid": "one", "typ": "JWT"}));
    assert!(is_robot(&https, &first).await);
    let (keys, seconds) = told(&api).await;
    assert_eq!(keys, ["one"]);
    assert!((3000..=3600).contains(&seconds), "{seconds}");

    // A key that is not known is asked for.
    remote.0.lock().keys.push(named("two", false));
    let second = token(&api).await;
    assert!(is_robot(&https, &second).await);
    assert_eq!(told(&api).await.0, ["one", "two"]);
    // What a key signed that is there no longer does not count, though it was verified before.
    remote.0.lock().keys.remove(0);
    assert!(is_robot(&https, &first).await, "nobody asked yet");
    remote.0.lock().keys.push(named("three", false));
    let third = token(&api).await;
    for (token, expect) in [(&third, true), (&second, true), (&first, false)] {
        assert_eq!(is_robot(&https, token).await, expect);
    }
    let stranger = Remote::new(vec![named("three", false)]);
    let forged = {
        let claims = third.split('.').nth(1).unwrap().to_owned();
        let signed = stranger.sign(Request::new(SignJwtRequest { claims: claims.clone() }));
        let signed = signed.await.unwrap().into_inner();
        format!("{}.{claims}.{}", signed.header, signed.signature)
    };
    assert!(!is_robot(&https, &forged).await, "a stranger's key of that name");

    let path = format!("{ACCOUNTS}/robot/token");
    let request = json!({"spec": {"expirationSeconds": 600}});
    remote.0.lock().keys.push(named("hidden", true));
    api.post(&path, &request).await.refused(
        500,
        "Internal error occurred: failed to generate token: while validating header: key used for signing JWT (kid: hidden) is \
         excluded from OIDC discovery docs",
    );
    assert_eq!(
        told(&api).await.0,
        ["two", "three"],
        "it is no secret, but nobody's business"
    );
    remote.0.lock().refuses = true;
    api.post(&path, &request).await.refused(
        500,
        "failed to generate token: while signing jwt: rpc error: code = Unavailable desc = out of order",
    );
    assert!(is_robot(&https, &second).await, "what is known stays");
    for code in ["OK", "unknown-non-grpc", "Unavailable"] {
        let series = format!("apiserver_externaljwt_sign_request_total{{code=\"{code}\"}}");
        assert!(api.metric(&series).await > 0.0, "{code}");
    }
    assert!(
        api.metric("apiserver_externaljwt_fetch_keys_request_total{code=\"OK\"}")
            .await
            >= 4.0
    );
    assert_eq!(
        api.metric("apiserver_externaljwt_fetch_keys_data_timestamp ").await,
        1.7e9
    );
}

#[tokio::test]
async fn keys_are_asked_for_again_when_it_is_time() {
    let remote = Remote::new(vec![named("one", false)]);
    remote.0.lock().refresh = 1;
    let (world, external, _dir) = world(&remote).await;
    let api = world.api();
    external.follow(&world.running.shutdown_handle());
    remote.0.lock().keys.push(named("two", false));
    let seen = async {
        while told(&api).await.0 != ["one", "two"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, seen).await.expect("nobody asked again");
}

#[tokio::test]
async fn a_signer_that_cannot_be_used_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let start = "while setting up external-jwt-signer: while initially filling key cache: while performing initial cache fill: while \
                 fetching token verification keys: ";
    for (name, change, expect) in [
        (
            "none",
            Box::new(|says: &mut Says| says.keys.clear()) as Box<dyn Fn(&mut Says)>,
            format!("{start}found no keys"),
        ),
        (
            "hint",
            Box::new(|says| says.refresh = 0),
            format!("{start}found invalid refresh hint (0s)"),
        ),
        (
            "life",
            Box::new(|says| says.longest = 599),
            "max token life supported by external-jwt-signer (599s) is less than acceptable (min 600s)".to_owned(),
        ),
    ] {
        let remote = Remote::new(vec![named("one", false)]);
        change(&mut remote.0.lock());
        let socket = dir.path().join(name);
        remote.serve(&socket);
        let found = ExternalSigner::connect(socket.to_str().unwrap()).await;
        assert_eq!(found.err(), Some(expect));
    }
    // Whoever is not there yet is waited for.
    let socket = dir.path().join("late");
    let name = socket.to_str().unwrap();
    let (connected, ()) = tokio::join!(ExternalSigner::connect(name), async {
        tokio::task::yield_now().await;
        Remote::new(vec![named("one", false)]).serve(&socket);
    });
    assert!(connected.is_ok());
}
