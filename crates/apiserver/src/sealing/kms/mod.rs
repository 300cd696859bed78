//! A KMS v2 provider: a plug-in has the keys, and seals the seed from which the key of each value is made.
//!
//! The service is asked regularly how it is and which key it writes with. With another key there is another seed; with the
//! same the seed stays. Invariants:
//! - a value is sealed only with a seed that the service confirmed less than [`SEED_LIFE`] ago; what was sealed opens for
//!   ever, with the service's help when its seed is not known yet;
//! - after a seed that the service did not open it is left alone for a moment, so that a thousand values do not wait for it
//!   one after another. When it answers again, what did not open is told of.
//!
//! Sources: `k8s.io/apiserver/pkg/storage/value/encrypt/envelope/kmsv2/envelope.go` and
//! `pkg/server/options/encryptionconfig/config.go` (`kmsv2PluginProbe`).

mod client;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base::Random;
use parking_lot::Mutex;
use prost::Message as _;
use rpc::kms::{DecryptRequest, EncryptRequest, EncryptedDekSourceType, EncryptedObject, StatusResponse};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::client::Client;
pub(super) use self::client::KmsRuntime;
use super::ciphers::{Gcm, SEED_BYTES_MIN, Seed};
use super::config::KmsConfig;
use crate::metrics::{Transformation, shared};

/// How often a service is asked that is well, and one that is not. Upstream's readiness checks ask as often
/// (`kmsPluginHealthzPositiveTTL`, `kmsPluginHealthzNegativeTTL`); nothing tells when a service changes its key.
const ASK_INTERVAL: Duration = Duration::from_secs(20);
const ASK_AGAIN_INTERVAL: Duration = Duration::from_secs(3);
/// How long a seed seals after the service was last well. Source: `kmsv2PluginWriteDEKSourceMaxTTL`.
const SEED_LIFE: Duration = Duration::from_secs(180);
/// Source: `KeyIDMaxSize`.
const KEY_ID_BYTES_MAX: usize = 1024;
/// Source: `encryptedDEKSourceMaxSize`.
const SOURCE_BYTES_MAX: usize = 1024;
/// Source: `annotationsMaxSize`.
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;
/// Opened seeds that are kept: there is one for each start of each server and each key of the service.
const OPENED_MAX: usize = 4096;

/// A key service and what is known of it.
pub(super) struct Kms {
    name: String,
    /// What is in front of its values.
    prefix: String,
    client: Client,
    random: Random,
    /// What seals now.
    state: ArcSwapOption<State>,
    health: Mutex<Result<(), String>>,
    /// The version that the service said first.
    version: OnceLock<String>,
    asking: tokio::sync::Mutex<()>,
    opened: Mutex<Opened>,
    /// Until when the service is not asked to open anything.
    left_alone: Mutex<Option<Instant>>,
    recovered: Arc<Notify>,
}

/// A seed and what is stored beside each value that it seals.
struct State {
    seed: Arc<Dek>,
    key_id: String,
    source: Vec<u8>,
    annotations: HashMap<String, Vec<u8>>,
    /// Moved on when the service is well.
    good_until: Mutex<Instant>,
}

/// What the service opened.
enum Dek {
    Seed(Seed),
    /// Of the years before seeds.
    Key(Gcm),
}

/// Opened seeds by a digest of their sealed form, and the order in which they came.
#[derive(Default)]
struct Opened {
    deks: HashMap<[u8; 32], Arc<Dek>>,
    order: VecDeque<[u8; 32]>,
}

impl Kms {
    /// Begins to ask the service from time to time; [`Kms::ask`] is the first time.
    pub(super) fn start(config: KmsConfig, runtime: &KmsRuntime, random: Random, recovered: Arc<Notify>) -> Arc<Kms> {
        let kms = Arc::new(Kms {
            prefix: format!("k8s:enc:kms:v2:{}:", config.name),
            client: Client::new(runtime, &config.name, &config.path, config.timeout),
            name: config.name,
            random,
            state: ArcSwapOption::empty(),
            health: Mutex::new(Err("it was not asked yet".into())),
            version: OnceLock::new(),
            asking: tokio::sync::Mutex::default(),
            opened: Mutex::default(),
            left_alone: Mutex::default(),
            recovered,
        });
        let asking = kms.clone();
        kms.client.spawn(async move {
            loop {
                let healthy = asking.health().is_ok();
                tokio::time::sleep(if healthy { ASK_INTERVAL } else { ASK_AGAIN_INTERVAL }).await;
                asking.check().await;
            }
        });
        kms
    }

    /// Asks the service now.
    pub(super) async fn ask(self: &Arc<Kms>) {
        let (done, asked) = oneshot::channel();
        let asking = self.clone();
        self.client.spawn(async move {
            asking.check().await;
            // Whoever asked may be gone.
            let _ = done.send(());
        });
        // An error is the thread's end, and the server's with it.
        let _ = asked.await;
    }

    /// What the service said last.
    pub(super) fn health(&self) -> Result<(), String> {
        self.health.lock().clone()
    }

    /// What its values begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What seals now, told apart by the service's key.
    pub(super) fn writer(&self) -> String {
        let key_id = self.state.load().as_ref().map(|state| state.key_id.clone());
        sealed_by(&self.prefix, &key_id.unwrap_or_default(), true)
    }

    /// Appends prefix and envelope of a value.
    pub(super) fn seal(&self, store_key: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let state = self.state.load_full().ok_or("got unexpected nil transformer")?;
        let late = Instant::now().saturating_duration_since(*state.good_until.lock());
        if !late.is_zero() {
            let key = hash_of(&state.key_id);
            return Err(format!(
                "encryptedDEKSource with keyID hash \"{key}\" expired {late:.0?} ago"
            ));
        }
        let mut data = Vec::new();
        match &*state.seed {
            Dek::Seed(seed) => seed.seal(store_key, value, &self.random, &mut data),
            Dek::Key(key) => key.seal(store_key, value, &self.random, &mut data),
        }
        let object = EncryptedObject {
            encrypted_data: data,
            key_id: state.key_id.clone(),
            encrypted_dek_source: state.source.clone(),
            annotations: state.annotations.clone(),
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        self.used(Transformation::ToStorage, &state.key_id);
        out.extend_from_slice(self.prefix.as_bytes());
        object
            .encode(out)
            .map_err(|error| format!("the envelope cannot be written: {error}"))
    }

    /// Opens an envelope; says also what sealed it.
    pub(super) fn open(&self, store_key: &[u8], envelope: &[u8]) -> Result<(Vec<u8>, String), String> {
        let object = EncryptedObject::decode(envelope).map_err(|error| error.to_string())?;
        check_envelope(&object)?;
        let is_seed = object.encrypted_dek_source_type() == EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed;
        let digest = digest(&object);
        let known = self.opened.lock().deks.get(&digest).cloned();
        let dek = match known {
            Some(dek) => dek,
            None => {
                let dek = Arc::new(self.open_dek(&object, is_seed)?);
                self.keep(digest, dek.clone());
                dek
            }
        };
        let opened = match &*dek {
            Dek::Seed(seed) => seed.open(store_key, &object.encrypted_data),
            Dek::Key(key) => key.open(store_key, &object.encrypted_data),
        }?;
        self.used(Transformation::FromStorage, &object.key_id);
        Ok((opened, sealed_by(&self.prefix, &object.key_id, is_seed)))
    }

    fn used(&self, way: Transformation, key_id: &str) {
        shared().key_services.used(&self.name, way, hash_of(key_id));
    }

    /// Keeps what the service opened or sealed.
    fn keep(&self, digest: [u8; 32], dek: Arc<Dek>) {
        let mut opened = self.opened.lock();
        opened.keep(digest, dek);
        shared().key_services.kept(&self.name, opened.deks.len());
    }

    fn open_dek(&self, object: &EncryptedObject, is_seed: bool) -> Result<Dek, String> {
        if self.left_alone.lock().is_some_and(|until| Instant::now() < until) {
            return Err("failed to decrypt DEK, error: the service has just failed".into());
        }
        let opened = self.client.decrypt(DecryptRequest {
            ciphertext: object.encrypted_dek_source.clone(),
            uid: self.random.uuid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        });
        let source = opened.map_err(|error| {
            *self.left_alone.lock() = Some(Instant::now() + ASK_AGAIN_INTERVAL);
            format!("failed to decrypt DEK, error: {error}")
        })?;
        Dek::new(&source.plaintext, is_seed)
    }

    /// Asks how the service is, and takes another seed when it has another key.
    async fn check(&self) {
        let _one = self.asking.lock().await;
        let outcome = match self.client.status().await {
            Ok(status) => self.judge(status).await,
            Err(error) => Err(format!(
                "failed to perform status section of the healthz check for KMS Provider {}, error: {error}",
                self.name
            )),
        };
        if let Err(why) = &outcome {
            tracing::warn!(%why, "a key service is not well");
        }
        let well = outcome.is_ok();
        *self.health.lock() = outcome;
        if well && self.left_alone.lock().take().is_some() {
            self.recovered.notify_one();
        }
    }

    async fn judge(&self, status: StatusResponse) -> Result<(), String> {
        let mut wrong = Vec::new();
        if status.healthz != "ok" {
            wrong.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        let first = match &*status.version {
            "v2" | "v2beta1" => self.version.get_or_init(|| status.version.clone()),
            version => {
                wrong.push(format!("expected KMSv2 API version v2, got {version}"));
                &status.version
            }
        };
        if *first != status.version {
            wrong.push(format!(
                "KMSv2 API version should not change after the initial status response version {first}, got {}",
                status.version
            ));
        }
        let metrics = &shared().key_services;
        match check_key_id(&status.key_id) {
            Err(why) => {
                metrics.invalid(&self.name, if status.key_id.is_empty() { "empty" } else { "too_long" });
                let hash = hash_of(&status.key_id);
                wrong.push(format!("got invalid KMSv2 KeyID hash \"{hash}\": {why}"));
            }
            Ok(()) => {
                metrics.told(&self.name, hash_of(&status.key_id));
                wrong.extend(self.confirm(&status.key_id).await.err());
            }
        }
        let why = match &wrong[..] {
            [] => return Ok(()),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Err(format!("kmsv2 Provider {} is not healthy, error: {why}", self.name))
    }

    /// The service writes with this key: the seed of that key goes on, or there is a new one.
    async fn confirm(&self, key_id: &str) -> Result<(), String> {
        let good_until = Instant::now() + SEED_LIFE;
        if let Some(state) = self.state.load_full().filter(|state| state.key_id == key_id) {
            *state.good_until.lock() = good_until;
            return Ok(());
        }
        let seed: [u8; SEED_BYTES_MIN] = self.random.bytes();
        let request = EncryptRequest {
            plaintext: seed.to_vec(),
            uid: self.random.uuid(),
        };
        let sealed = self.client.encrypt(request).await;
        let sealed = sealed.map_err(|error| format!("failed to rotate DEK, failed to encrypt DEK, error: {error}"))?;
        if sealed.key_id != key_id {
            return Err(format!(
                "failed to rotate DEK, statusKeyIDHash=\"{}\", encryptKeyIDHash=\"{}\"",
                hash_of(key_id),
                hash_of(&sealed.key_id)
            ));
        }
        let object = EncryptedObject {
            // Any but the empty one is good.
            encrypted_data: vec![0],
            key_id: sealed.key_id,
            encrypted_dek_source: sealed.ciphertext,
            annotations: sealed.annotations,
            encrypted_dek_source_type: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
        };
        check_envelope(&object).map_err(|why| format!("failed to rotate DEK, {why}"))?;
        let seed = Arc::new(Dek::new(&seed, true)?);
        self.keep(digest(&object), seed.clone());
        self.state.store(Some(Arc::new(State {
            seed,
            key_id: object.key_id,
            source: object.encrypted_dek_source,
            annotations: object.annotations,
            good_until: Mutex::new(good_until),
        })));
        Ok(())
    }
}

impl Dek {
    fn new(source: &[u8], is_seed: bool) -> Result<Dek, String> {
        let made = match is_seed {
            true => Seed::new(source).map(Dek::Seed),
            false => Gcm::new(source).map(Dek::Key),
        };
        made.ok_or_else(|| format!("invalid seed length {} used for key generation", source.len()))
    }
}

impl Opened {
    fn keep(&mut self, digest: [u8; 32], dek: Arc<Dek>) {
        if self.deks.insert(digest, dek).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() > OPENED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.deks.remove(&oldest);
        }
    }
}

fn sealed_by(prefix: &str, key_id: &str, is_seed: bool) -> String {
    let kind = if is_seed { "seed" } else { "key" };
    format!("{prefix}{kind}:{key_id}")
}

/// What tells sealed seeds apart.
fn digest(object: &EncryptedObject) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut part = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    part(&object.encrypted_dek_source_type.to_le_bytes());
    part(&object.encrypted_dek_source);
    part(object.key_id.as_bytes());
    for (name, value) in object.annotations.iter().collect::<BTreeMap<_, _>>() {
        part(name.as_bytes());
        part(value);
    }
    digest.finalize().into()
}

fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("keyID is empty".into()),
        len if len > KEY_ID_BYTES_MAX => Err(format!(
            "keyID is {len} bytes, which exceeds the max size of {KEY_ID_BYTES_MAX}"
        )),
        _ => Ok(()),
    }
}

/// Source: `ValidateEncryptedObject`.
fn check_envelope(object: &EncryptedObject) -> Result<(), String> {
    let kind = object.encrypted_dek_source_type;
    if EncryptedDekSourceType::try_from(kind).is_err() {
        return Err(format!("unknown encryptedDEKSourceType: {kind}"));
    }
    if object.encrypted_data.is_empty() {
        return Err("encrypted data is empty".into());
    }
    let source = match object.encrypted_dek_source.len() {
        0 => Err("encrypted DEK source is empty".to_owned()),
        len if len > SOURCE_BYTES_MAX => Err(format!(
            "encrypted DEK source is {len} bytes, which exceeds the max size of {SOURCE_BYTES_MAX}"
        )),
        _ => Ok(()),
    };
    source.map_err(|why| format!("failed to validate encrypted DEK source: {why}"))?;
    check_key_id(&object.key_id).map_err(|why| format!("failed to validate key id: {why}"))?;
    check_annotations(&object.annotations).map_err(|why| format!("failed to validate annotations: {why}"))
}

fn check_annotations(annotations: &HashMap<String, Vec<u8>>) -> Result<(), String> {
    let bytes: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ANNOTATIONS_BYTES_MAX {
        return Err(format!(
            "total size of annotations is {bytes}, which exceeds the max size of {ANNOTATIONS_BYTES_MAX}"
        ));
    }
    let bad = |name: &&String| !name.contains('.') || !api::validation::dns1123_subdomain(name).is_empty();
    match annotations.keys().find(bad) {
        Some(name) => Err(format!(
            "annotations: Invalid value: {}: should be a domain with at least two segments separated by dots",
            api::field::quote(name)
        )),
        None => Ok(()),
    }
}

fn hash_of(key_id: &str) -> String {
    if key_id.is_empty() {
        return String::new();
    }
    let digits = Sha256::digest(key_id.as_bytes());
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
