//! From a pod's definition to what is to be done for each of its volumes: fetches what they show, touches no disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::quantity::Quantity;
use client::k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, ProjectedVolumeSource, Volume};
use jiff::{SignedDuration, Timestamp};

use super::objects::{ObjectError, Objects};
use super::ownership;
use super::payload::{self, File, MODE_DEFAULT, Payload};
use super::tokens::{Request, TokenCache};
use crate::env::NodeFacts;

/// The life of a token whose definition names none.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// A volume that could not be brought up to date is tried again after so long, when nothing changes before.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

/// What is to be done for one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A directory of the pod's own.
    EmptyDirectory {
        /// Whether it is in memory.
        memory: bool,
        /// Its size there; absent: the pod's or the node's memory.
        size_bytes: Option<u64>,
    },
    /// Files that are replaced all at once.
    Files {
        /// The part of the directory's name, such as `configmap`.
        kind: &'static str,
        /// Whether they must not reach a disk.
        memory: bool,
        /// The files.
        payload: Payload,
    },
    /// A path of the node.
    HostPath {
        /// The path.
        path: PathBuf,
        /// What has to be there.
        kind: String,
    },
}

/// What is to be done for a pod.
#[derive(Debug, Default)]
pub struct Gathered {
    /// By name, in the definition's order; or why a volume cannot be.
    pub volumes: Vec<(String, Result<Work, String>)>,
    /// When the first token grows old.
    pub refresh_at: Option<Timestamp>,
}

impl Gathered {
    /// When to look again, if nothing happens before.
    pub fn retry_at(&self, now: Timestamp) -> Option<Timestamp> {
        let failed = self.volumes.iter().any(|(_, work)| work.is_err());
        let retry = failed.then(|| now.checked_add(RETRY).unwrap_or(Timestamp::MAX));
        self.refresh_at.into_iter().chain(retry).min()
    }
}

/// Fetches what the volumes of a pod show.
pub async fn gather(pod: &Pod, node: &NodeFacts, objects: &dyn Objects, tokens: &TokenCache) -> Gathered {
    let mut gatherer = Gatherer {
        pod,
        node,
        objects,
        tokens,
        refresh_at: None,
    };
    let mut volumes = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let work = gatherer.volume(volume).await.and_then(|work| match work {
            Work::Files { payload, .. } if payload::validate(&payload).is_err() => {
                Err(payload::validate(&payload).err().unwrap_or_default())
            }
            work => Ok(work),
        });
        volumes.push((volume.name.clone(), work));
    }
    Gathered {
        volumes,
        refresh_at: gatherer.refresh_at,
    }
}

/// The memory that a pod's directories in memory may take together at most: its limit, or the node's memory.
pub fn memory_bytes(pod: &Pod, node: &NodeFacts) -> Option<u64> {
    let node_bytes = node
        .allocatable
        .get("memory")
        .and_then(|value| u64::try_from(value.value()).ok());
    let spec = pod.spec.as_ref();
    let limits = spec.into_iter().flat_map(|spec| &spec.containers).map(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        let limit = Quantity::parse(&limits.get("memory")?.0).ok()?;
        u64::try_from(limit.value()).ok().filter(|bytes| *bytes > 0)
    });
    // One container without a limit: the pod has none.
    let pod_bytes = limits
        .collect::<Option<Vec<u64>>>()
        .map(|limits| limits.into_iter().fold(0, u64::saturating_add));
    let pod_bytes = pod_bytes.filter(|bytes| *bytes > 0);
    match (pod_bytes, node_bytes) {
        (Some(pod), Some(node)) => Some(pod.min(node)),
        (pod, node) => pod.or(node),
    }
}

struct Gatherer<'a> {
    pod: &'a Pod,
    node: &'a NodeFacts,
    objects: &'a dyn Objects,
    tokens: &'a TokenCache,
    refresh_at: Option<Timestamp>,
}

// === impl Gatherer ===

impl Gatherer<'_> {
    async fn volume(&mut self, volume: &Volume) -> Result<Work, String> {
        let namespace = self.namespace();
        if let Some(source) = &volume.empty_dir {
            return empty_dir(source);
        }
        if let Some(source) = &volume.host_path {
            return Ok(Work::HostPath {
                path: source.path.clone().into(),
                kind: source.type_.clone().unwrap_or_default(),
            });
        }
        if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or(false);
            let object = optional_object(self.objects.config_map(&namespace, &source.name).await, optional)?;
            let mode = payload::mode(source.default_mode, MODE_DEFAULT);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = payload::of_config_map(items, object.as_deref(), mode, optional)?;
            return Ok(Work::Files {
                kind: "configmap",
                memory: false,
                payload,
            });
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional.unwrap_or(false);
            let name = source.secret_name.as_deref().unwrap_or("");
            let object = optional_object(self.objects.secret(&namespace, name).await, optional)?;
            let mode = payload::mode(source.default_mode, MODE_DEFAULT);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = payload::of_secret(items, object.as_deref(), mode, optional)?;
            return Ok(Work::Files {
                kind: "secret",
                memory: true,
                payload,
            });
        }
        if let Some(source) = &volume.downward_api {
            let mode = payload::mode(source.default_mode, MODE_DEFAULT);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = payload::of_downward_api(items, self.pod, self.node, mode)?;
            return Ok(Work::Files {
                kind: "downward-api",
                memory: true,
                payload,
            });
        }
        if let Some(source) = &volume.projected {
            let payload = self.projected(source).await?;
            return Ok(Work::Files {
                kind: "projected",
                memory: true,
                payload,
            });
        }
        let plugin = unsupported(volume).unwrap_or("unknown");
        Err(format!(
            "no volume plugin matched name: {plugin} (volumes of this kind are not supported by this version of Trireme)"
        ))
    }

    /// All sources are tried, so that every failure is told.
    async fn projected(&mut self, source: &ProjectedVolumeSource) -> Result<Payload, String> {
        let default_mode = payload::mode(source.default_mode, MODE_DEFAULT);
        let namespace = self.namespace();
        let (mut payload, mut errors) = (Payload::new(), Vec::new());
        for source in source.sources.iter().flatten() {
            let part = if let Some(secret) = &source.secret {
                let optional = secret.optional.unwrap_or(false);
                let object = optional_object(self.objects.secret(&namespace, &secret.name).await, optional);
                let items = secret.items.as_deref().unwrap_or_default();
                object.and_then(|object| payload::of_secret(items, object.as_deref(), default_mode, optional))
            } else if let Some(config_map) = &source.config_map {
                let optional = config_map.optional.unwrap_or(false);
                let object = optional_object(self.objects.config_map(&namespace, &config_map.name).await, optional);
                let items = config_map.items.as_deref().unwrap_or_default();
                object.and_then(|object| payload::of_config_map(items, object.as_deref(), default_mode, optional))
            } else if let Some(downward) = &source.downward_api {
                let items = downward.items.as_deref().unwrap_or_default();
                payload::of_downward_api(items, self.pod, self.node, default_mode)
            } else if let Some(token) = &source.service_account_token {
                let seconds = token.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT);
                let audience = token.audience.clone().unwrap_or_default();
                self.token(audience, seconds, default_mode)
                    .await
                    .map(|file| [(token.path.clone(), file)].into())
            } else if source.cluster_trust_bundle.is_some() {
                Err("ClusterTrustBundle projection is not supported by this version of Trireme".into())
            } else if source.pod_certificate.is_some() {
                Err("PodCertificate projection is not supported by this version of Trireme".into())
            } else {
                Ok(Payload::new())
            };
            match part {
                Ok(part) => payload.extend(part),
                Err(why) => errors.push(why),
            }
        }
        match errors.as_slice() {
            [] => Ok(payload),
            [only] => Err(only.clone()),
            // As upstream's aggregate prints itself.
            several => Err(format!("[{}]", several.join(", "))),
        }
    }

    async fn token(&mut self, audience: String, expiration_seconds: i64, default_mode: u32) -> Result<File, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let account = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default();
        let request = Request {
            namespace: self.namespace(),
            account,
            pod: text(&self.pod.metadata.name),
            uid: text(&self.pod.metadata.uid),
            audience,
            expiration_seconds,
        };
        let token = self.tokens.get(&request).await?;
        self.refresh_at = Some(
            self.refresh_at
                .map_or(token.refresh_at, |known| known.min(token.refresh_at)),
        );
        let owner = ownership::common_user(self.pod);
        // With a group the file gets 0640 when the volume's ownership is set.
        let mode = if owner.is_some() || ownership::fs_group(self.pod).is_some() {
            0o600
        } else {
            default_mode
        };
        Ok(File {
            data: token.text.into_bytes(),
            mode,
            owner,
        })
    }

    fn namespace(&self) -> String {
        self.pod.metadata.namespace.clone().unwrap_or_default()
    }
}

fn optional_object<T>(found: Result<T, ObjectError>, optional: bool) -> Result<Option<T>, String> {
    match found {
        Ok(object) => Ok(Some(object)),
        Err(error) if optional && error.is_not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn empty_dir(source: &EmptyDirVolumeSource) -> Result<Work, String> {
    let limit = source
        .size_limit
        .as_ref()
        .and_then(|limit| Quantity::parse(&limit.0).ok());
    let size_bytes = limit
        .and_then(|limit| u64::try_from(limit.value()).ok())
        .filter(|bytes| *bytes > 0);
    match source.medium.as_deref().unwrap_or("") {
        "" => Ok(Work::EmptyDirectory {
            memory: false,
            size_bytes,
        }),
        "Memory" => Ok(Work::EmptyDirectory {
            memory: true,
            size_bytes,
        }),
        other if other.starts_with("HugePages") => Err(format!(
            "storage medium {} is not supported by this version of Trireme",
            api::field::quote(other)
        )),
        other => Err(format!("unknown storage medium {}", api::field::quote(other))),
    }
}

/// Upstream's name of the plugin for a kind that is not available.
fn unsupported(volume: &Volume) -> Option<&'static str> {
    let kinds: BTreeMap<&'static str, bool> = [
        ("kubernetes.io/aws-ebs", volume.aws_elastic_block_store.is_some()),
        ("kubernetes.io/azure-disk", volume.azure_disk.is_some()),
        ("kubernetes.io/azure-file", volume.azure_file.is_some()),
        ("kubernetes.io/cephfs", volume.cephfs.is_some()),
        ("kubernetes.io/cinder", volume.cinder.is_some()),
        ("kubernetes.io/csi", volume.csi.is_some()),
        ("kubernetes.io/ephemeral", volume.ephemeral.is_some()),
        ("kubernetes.io/fc", volume.fc.is_some()),
        ("kubernetes.io/flexvolume", volume.flex_volume.is_some()),
        ("kubernetes.io/flocker", volume.flocker.is_some()),
        ("kubernetes.io/gce-pd", volume.gce_persistent_disk.is_some()),
        ("kubernetes.io/git-repo", volume.git_repo.is_some()),
        ("kubernetes.io/glusterfs", volume.glusterfs.is_some()),
        ("kubernetes.io/image", volume.image.is_some()),
        ("kubernetes.io/iscsi", volume.iscsi.is_some()),
        ("kubernetes.io/nfs", volume.nfs.is_some()),
        (
            "kubernetes.io/persistent-volume-claim",
            volume.persistent_volume_claim.is_some(),
        ),
        ("kubernetes.io/photon-pd", volume.photon_persistent_disk.is_some()),
        ("kubernetes.io/portworx-volume", volume.portworx_volume.is_some()),
        ("kubernetes.io/quobyte", volume.quobyte.is_some()),
        ("kubernetes.io/rbd", volume.rbd.is_some()),
        ("kubernetes.io/scaleio", volume.scale_io.is_some()),
        ("kubernetes.io/storageos", volume.storageos.is_some()),
        ("kubernetes.io/vsphere-volume", volume.vsphere_volume.is_some()),
    ]
    .into();
    kinds.into_iter().find(|(_, is)| *is).map(|(name, _)| name)
}
