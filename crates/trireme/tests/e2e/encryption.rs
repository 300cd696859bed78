//! Encryption at rest by kube-apiserver's flags: a key service of others that changes its key, and a file that changes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use hyper_util::service::TowerToHyperService;
use rpc::kms::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use rpc::kms::{DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::access::{flag, replace, until_metric, up, write};
use crate::cluster::{Cluster, decode, fail, succeed};
use crate::grpc;

/// What nobody may read in the store: as it is, and as the API carries it.
const SECRET: [&str; 2] = ["hunter2", "aHVudGVyMg=="];

/// A key service on a thread of its own. Its key is a number; what it seals under the number is turned around.
#[derive(Clone, Default)]
struct KeyService(Arc<Counts>);

#[derive(Default)]
struct Counts {
    key: AtomicU32,
    encrypted: AtomicU32,
    /// By the key before the one that it has.
    decrypted_old: AtomicU32,
}

#[tonic::async_trait]
impl KeyManagementService for KeyService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            version: "v2".into(),
            healthz: "ok".into(),
            key_id: self.key_id(),
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        self.0.encrypted.fetch_add(1, Ordering::SeqCst);
        let mut ciphertext = request.into_inner().plaintext;
        ciphertext.reverse();
        Ok(Response::new(EncryptResponse {
            ciphertext,
            key_id: self.key_id(),
            annotations: Default::default(),
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        if request.key_id != self.key_id() {
            self.0.decrypted_old.fetch_add(1, Ordering::SeqCst);
        }
        let mut plaintext = request.ciphertext;
        plaintext.reverse();
        Ok(Response::new(DecryptResponse { plaintext }))
    }
}

impl KeyService {
    fn key_id(&self) -> String {
        format!("key-{}", self.0.key.load(Ordering::SeqCst))
    }

    /// Serves on a socket until the answer is dropped.
    fn serve(&self, socket: &Path) -> tokio::runtime::Runtime {
        grpc::serve(
            socket,
            TowerToHyperService::new(KeyManagementServiceServer::new(self.clone())),
        )
    }
}

/// Whether the store's files have a text somewhere.
fn stored(cluster: &Cluster, text: &str) -> bool {
    fn look(directory: &Path, text: &[u8]) -> bool {
        std::fs::read_dir(directory).unwrap().flatten().any(|entry| {
            let path = entry.path();
            match path.is_dir() {
                true => look(&path, text),
                // A file of the store may go while it is looked for.
                false => std::fs::read(&path)
                    .unwrap_or_default()
                    .windows(text.len())
                    .any(|part| part == text),
            }
        })
    }
    look(&cluster.dir.join("data/store"), text.as_bytes())
}

fn configuration(providers: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: [{providers}]\n"
    )
}

#[track_caller]
fn create(cluster: &Cluster, name: &str) {
    let data = format!("--from-literal=password={}", SECRET[0]);
    cluster.kubectl_ok(&["create", "secret", "generic", name, &data]);
}

#[track_caller]
fn is_readable(cluster: &Cluster, name: &str) {
    let text = cluster.kubectl_ok(&["get", "secret", name, "-o", "jsonpath={.data.password}"]);
    assert_eq!(decode(&json!(text)), SECRET[0]);
}

#[test]
fn a_key_service_changes_its_key_over_a_restart() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let (service, socket) = (KeyService::default(), dir.path().join("kms.sock"));
    let kms = format!(
        "{{kms: {{apiVersion: v2, name: ours, endpoint: 'unix://{}'}}}}",
        socket.display()
    );
    let file = write(
        dir.path(),
        "encryption.yaml",
        &configuration(&format!("{kms}, {{identity: {{}}}}")),
    );
    let serving = service.serve(&socket);
    up(&cluster, &[flag("encryption-provider-config", &file)]);
    create(&cluster, "old");
    is_readable(&cluster, "old");
    assert_eq!(service.0.encrypted.load(Ordering::SeqCst), 1, "one seed seals all");
    let ready = cluster.kubectl_ok(&["get", "--raw", "/readyz?verbose"]);
    assert!(ready.contains("[+]kms-providers ok"), "{ready}");
    succeed(&cluster.trireme(&["down"]));
    assert!(stored(&cluster, "k8s:enc:kms:v2:ours:") && stored(&cluster, "key-0"));
    for text in SECRET {
        assert!(!stored(&cluster, text), "{text} is in the store");
    }

    service.0.key.store(1, Ordering::SeqCst);
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node"]));
    is_readable(&cluster, "old");
    assert!(
        service.0.decrypted_old.load(Ordering::SeqCst) > 0,
        "the service knows its old key"
    );
    create(&cluster, "new");
    // Whoever writes it again, without a change even, seals it with the new key.
    let whole = cluster.kubectl_ok(&["get", "secret", "old", "-o", "json"]);
    let whole = write(dir.path(), "old.json", &whole);
    cluster.kubectl_ok(&["replace", "-f", &whole.display().to_string()]);
    succeed(&cluster.trireme(&["down"]));
    assert!(stored(&cluster, "key-1"));
    assert_eq!(service.0.encrypted.load(Ordering::SeqCst), 2, "one seed for each key");
    // What the store still has of the old key is the history of the last minutes.
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node"]));
    ["old", "new"].iter().for_each(|name| is_readable(&cluster, name));
    serving.shutdown_background();
}

#[test]
fn a_changed_file_seals_with_another_key() {
    let (cluster, dir) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let key = |letter: &str| {
        let secret = base64::engine::general_purpose::STANDARD.encode(letter.repeat(32));
        format!("{{keys: [{{name: {letter}, secret: {secret}}}]}}")
    };
    let first = configuration(&format!("{{secretbox: {}}}", key("a")));
    let file = write(dir.path(), "encryption.yaml", &first.replace("secretbox", "aesxyz"));
    let named = flag("encryption-provider-config", &file);
    let error = fail(&cluster.trireme(&["--quiet", "up", "--no-node", &named]));
    assert!(error.contains("aesxyz"), "{error}");

    replace(&file, &first);
    up(
        &cluster,
        &[named, "--encryption-provider-config-automatic-reload".to_owned()],
    );
    create(&cluster, "one");
    assert!(stored(&cluster, "k8s:enc:secretbox:v1:a:") && !stored(&cluster, "k8s:enc:aesgcm:"));

    let reloads = |status: &str| {
        format!("apiserver_encryption_config_controller_automatic_reloads_total{{status=\"{status}\"}} 1")
    };
    replace(&file, "nothing of the kind");
    until_metric(&cluster, &reloads("failure"));
    is_readable(&cluster, "one");
    let second = configuration(&format!("{{aesgcm: {}}}, {{secretbox: {}}}", key("b"), key("a")));
    replace(&file, &second);
    until_metric(&cluster, &reloads("success"));
    is_readable(&cluster, "one");
    create(&cluster, "two");
    is_readable(&cluster, "two");
    assert!(stored(&cluster, "k8s:enc:aesgcm:v1:b:"));
    for text in SECRET {
        assert!(!stored(&cluster, text), "{text} is in the store");
    }
}
