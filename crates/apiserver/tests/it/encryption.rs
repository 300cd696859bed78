//! An `EncryptionConfiguration` through the whole server: what the store has, what another program stored, and a key service
//! that changes its key and goes away.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aes_gcm::aes::Aes256;
use apiserver::sealing::{Encryption, EncryptionConfig, Sealer, Sealing};
use base::{Clock, Random};
use bytes::Bytes;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockEncryptMut as _, KeyIvInit as _};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rpc::kms::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use rpc::kms::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use serde_json::json;
use store::{Engine, KeyRange, Transaction};
use tonic::{Request, Response, Status};

use crate::world::{Api, World};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// How long something may take that happens at once.
const PATIENCE: Duration = Duration::from_secs(60);

async fn encryption(providers: &str) -> Encryption {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers: [{providers}]\n"
    );
    let config = EncryptionConfig::from_text(&text).unwrap();
    Encryption::start(config, &Random::seeded(4)).await.unwrap()
}

/// Thirty-two times this letter, as a key by that name.
fn key(letter: &str) -> String {
    use base64::Engine as _;
    let secret = base64::engine::general_purpose::STANDARD.encode(letter.repeat(32));
    format!("{{name: {letter}, secret: {secret}}}")
}

async fn open(engine: &Arc<dyn Engine>, sealing: &Arc<Sealing>) -> World {
    World::over(engine.clone(), Vec::new(), |config| config.sealing = sealing.clone()).await
}

async fn engine() -> Arc<dyn Engine> {
    store::testing::engine_in_memory(Clock::real(), Random::seeded(1)).await
}

/// What the store has of a Secret.
async fn stored(engine: &Arc<dyn Engine>, name: &str) -> Bytes {
    let range = KeyRange::prefix(format!("/registry/secrets/default/{name}").as_bytes());
    engine.range(range, None).await.unwrap().records[0].value.clone()
}

async fn begins(engine: &Arc<dyn Engine>, name: &str, prefix: &str) {
    let value = stored(engine, name).await;
    assert!(value.starts_with(prefix.as_bytes()), "{name}: {}", value.escape_ascii());
    let readable = value.windows(7).any(|window| window == b"hunter2");
    assert_eq!(readable, prefix == "{", "{name}");
}

async fn make(api: &Api, name: &str) {
    let secret = json!({"metadata": {"name": name, "labels": {"x": "hunter2"}}});
    api.post(SECRETS, &secret).await.ok();
}

/// Writes an object as it is; whether that was a write.
async fn touch(api: &Api, name: &str) -> bool {
    let path = format!("{SECRETS}/{name}");
    let before = api.get(&path).await.ok();
    let after = api.put(&path, &before).await.ok();
    before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]
}

#[tokio::test]
async fn keys_are_rotated_while_the_server_runs() {
    let engine = engine().await;
    let local = Sealer::from_text(
        &Sealer::new_keys(&Random::seeded(2)),
        [api::GroupResource {
            group: String::new(),
            resource: "secrets".into(),
        }],
        Random::seeded(3),
    );
    let sealing = Arc::new(Sealing::new(Some(local.unwrap()), None));
    let world = open(&engine, &sealing).await;
    let api = world.api();
    make(&api, "a").await;
    assert!(
        !stored(&engine, "a").await.starts_with(b"k8s:enc:"),
        "a local key seals"
    );
    for (providers, prefix) in [
        (
            format!("{{secretbox: {{keys: [{}]}}}}", key("a")),
            "k8s:enc:secretbox:v1:a:",
        ),
        (
            format!("{{secretbox: {{keys: [{}, {}]}}}}", key("b"), key("a")),
            "k8s:enc:secretbox:v1:b:",
        ),
        (
            format!(
                "{{aesgcm: {{keys: [{}]}}}}, {{secretbox: {{keys: [{}]}}}}",
                key("c"),
                key("b")
            ),
            "k8s:enc:aesgcm:v1:c:",
        ),
        (format!("{{identity: {{}}}}, {{aesgcm: {{keys: [{}]}}}}", key("c")), "{"),
        (
            format!("{{aescbc: {{keys: [{}]}}}}, {{identity: {{}}}}", key("d")),
            "k8s:enc:aescbc:v1:d:",
        ),
    ] {
        sealing.replace(encryption(&providers).await);
        assert!(touch(&api, "a").await, "{prefix}: stale");
        begins(&engine, "a", prefix).await;
        assert!(!touch(&api, "a").await, "{prefix}: nothing to do");
    }
    // A server that is started with the file reads it; one whose file has lost the key does not, and harms nobody else.
    let api = open(&engine, &sealing).await.api();
    assert_eq!(
        api.get(&format!("{SECRETS}/a")).await.ok()["metadata"]["labels"]["x"],
        "hunter2"
    );
    let lost = Arc::new(Sealing::new(None, Some(encryption("{identity: {}}").await)));
    let world = open(&engine, &lost).await;
    let api = world.api();
    let why = "the object stored under /registry/secrets/default/a cannot be read";
    api.get(&format!("{SECRETS}/a")).await.refused(500, why);
    let metrics = String::from_utf8(api.get("/metrics").await.bytes.to_vec()).unwrap();
    let counted = "apiserver_storage_decode_errors_total{group=\"\",resource=\"secrets\"}";
    assert!(metrics.contains(counted), "{metrics}");
    make(&api, "b").await;
    begins(&engine, "b", "{").await;
    // With the key it opens again, without a restart.
    lost.replace(encryption(&format!("{{identity: {{}}}}, {{aescbc: {{keys: [{}]}}}}", key("d"))).await);
    readable(&api, "a").await;
}

/// Waits until an object opens that did not. It is asked again and again: nobody is told when a plug-in answers again.
async fn readable(api: &Api, name: &str) {
    let path = format!("{SECRETS}/{name}");
    let opens = async {
        while api.get(&path).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, opens).await.expect("it opens");
}

/// What upstream's API server leaves in an etcd: protobuf, sealed or not.
#[tokio::test]
async fn what_upstream_stored_is_read() {
    let engine = engine().await;
    let kind = api::GroupVersionKind::new("", "v1", "Secret");
    let schema = api::schema::SchemaRef::builtin(&kind).unwrap();
    let secret = |name: &str| {
        let object = json!({
            "apiVersion": "v1", "data": {"k": "aHVudGVyMg=="}, "kind": "Secret",
            "metadata": {"creationTimestamp": "2026-01-02T03:04:05Z", "name": name, "namespace": "default", "uid": "u"},
            "type": "Opaque",
        });
        api::codec::protobuf::encode(&object, &schema).unwrap()
    };
    let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&[b'd'; 32], &[9; 16]).unwrap();
    let mut sealed = b"k8s:enc:aescbc:v1:d:".to_vec();
    sealed.extend([9; 16]);
    sealed.extend(cipher.encrypt_padded_vec_mut::<Pkcs7>(&secret("sealed")));
    for (name, value) in [("plain", secret("plain")), ("sealed", sealed)] {
        let key = format!("/registry/secrets/default/{name}");
        engine.commit(Transaction::create(key, value)).await.unwrap();
    }
    let providers = format!("{{aescbc: {{keys: [{}]}}}}, {{identity: {{}}}}", key("d"));
    let sealing = Arc::new(Sealing::new(None, Some(encryption(&providers).await)));
    let api = open(&engine, &sealing).await.api();
    for name in ["plain", "sealed"] {
        let read = api.get(&format!("{SECRETS}/{name}")).await.ok();
        assert_eq!(
            (&read["data"]["k"], &read["type"]),
            (&json!("aHVudGVyMg=="), &json!("Opaque"))
        );
        assert!(touch(&api, name).await, "{name}: stored in our form");
        begins(&engine, name, "k8s:enc:aescbc:v1:d:").await;
    }
}

/// v1.36 stores some kinds in the version before the one that it serves, so that v1.35 can read them.
#[tokio::test]
async fn what_upstream_stored_in_an_older_version_is_read() {
    let engine = engine().await;
    let kind = api::GroupVersionKind::new(
        "admissionregistration.k8s.io",
        "v1beta1",
        "MutatingAdmissionPolicyBinding",
    );
    let schema = api::schema::SchemaRef::builtin(&kind).unwrap();
    let prefix = "/registry/mutatingadmissionpolicybindings";
    for (name, encode) in [("one", true), ("two", false)] {
        let object = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": name, "uid": "u"},
            "spec": {"policyName": "p"}});
        let bytes = match encode {
            true => api::codec::protobuf::encode(&object, &schema).unwrap(),
            false => object.to_string().into_bytes(),
        };
        engine
            .commit(Transaction::create(format!("{prefix}/{name}"), bytes))
            .await
            .unwrap();
    }
    let api = open(&engine, &Arc::new(Sealing::default())).await.api();
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
    let list = api.get(path).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
    for name in ["one", "two"] {
        let read = api.get(&format!("{path}/{name}")).await.ok();
        assert_eq!(read["apiVersion"], "admissionregistration.k8s.io/v1");
        assert_eq!(read["spec"]["policyName"], "p");
    }
}

/// A key service in this process. Its key is a number; what it seals is turned around.
#[derive(Clone, Default)]
struct Plugin {
    key: Arc<AtomicU32>,
    seeds: Arc<AtomicU32>,
}

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            version: "v2".into(),
            healthz: "ok".into(),
            key_id: self.key.load(Ordering::SeqCst).to_string(),
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        self.seeds.fetch_add(1, Ordering::SeqCst);
        let mut ciphertext = request.into_inner().plaintext;
        ciphertext.reverse();
        Ok(Response::new(EncryptResponse {
            ciphertext,
            key_id: self.key.load(Ordering::SeqCst).to_string(),
            annotations: [("kms.example.com".to_owned(), b"note".to_vec())].into(),
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        if request.annotations.get("kms.example.com").map(Vec::as_slice) != Some(b"note") {
            return Err(Status::invalid_argument(
                "the annotations are not those of the encryption",
            ));
        }
        let mut plaintext = request.ciphertext;
        plaintext.reverse();
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}

impl Plugin {
    /// Serves on a socket, on a thread of its own as the real ones do, until the answer is dropped.
    fn serve(&self, socket: &Path) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let _ = std::fs::remove_file(socket);
        let _entered = runtime.enter();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let service = KeyManagementServiceServer::new(self.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let builder = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        runtime
    }
}

#[tokio::test]
async fn a_key_service_seals_changes_its_key_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("kms.sock");
    let (plugin, engine) = (Plugin::default(), engine().await);
    let serving = plugin.serve(&socket);
    let providers = format!(
        "{{kms: {{apiVersion: v2, name: k, endpoint: 'unix://{}'}}}}, {{identity: {{}}}}",
        socket.display()
    );
    let sealing = Arc::new(Sealing::new(None, Some(encryption(&providers).await)));
    let world = open(&engine, &sealing).await;
    let api = world.api();
    let prefix = "k8s:enc:kms:v2:k:";
    for name in ["a", "b"] {
        make(&api, name).await;
        begins(&engine, name, prefix).await;
        assert!(!touch(&api, name).await);
    }
    assert_eq!(plugin.seeds.load(Ordering::SeqCst), 1, "one seed for all");
    assert_eq!(api.get("/readyz/kms-providers").await.code, 200);
    // Another key makes what the old one sealed stale.
    plugin.key.store(1, Ordering::SeqCst);
    sealing.configured().unwrap().ask().await;
    assert!(touch(&api, "a").await && !touch(&api, "a").await);
    assert_eq!(plugin.seeds.load(Ordering::SeqCst), 2);
    // What was sealed stays readable without the service, and the last seed goes on for a while.
    serving.shutdown_background();
    sealing.configured().unwrap().ask().await;
    let down = api.get("/readyz/kms-providers").await;
    assert_eq!(down.code, 500);
    assert_eq!(api.get("/livez").await.code, 200, "a restart would mend nothing");
    make(&api, "c").await;
    assert_eq!(api.get(&format!("{SECRETS}/b")).await.code, 200);
    // A server that starts without the service serves the rest, and Secrets once it is back.
    let sealing = Arc::new(Sealing::new(None, Some(encryption(&providers).await)));
    let world = open(&engine, &sealing).await;
    let api = world.api();
    assert_eq!(api.get(&format!("{SECRETS}/a")).await.code, 500);
    let secret = json!({"metadata": {"name": "d"}});
    assert_eq!(api.post(SECRETS, &secret).await.code, 500);
    assert_eq!(api.get("/api/v1/namespaces/default/configmaps").await.code, 200);
    let serving = plugin.serve(&socket);
    sealing.configured().unwrap().ask().await;
    for name in ["a", "b", "c"] {
        readable(&api, name).await;
    }
    make(&api, "d").await;
    begins(&engine, "d", prefix).await;
    serving.shutdown_background();
}
