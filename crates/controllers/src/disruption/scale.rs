//! How many pods those who control some pods ask for: from the copies of the usual kinds, and from the `scale`
//! subresource of any other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::discovery::{Discovered, ServedResource};
use client::informer::Informer;
use client::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use client::{Client, Meta, Metadata, resources, view_kind};
use serde::Deserialize;
use tokio::time::Instant;

use crate::context::Context;
use crate::owners::controller_of;
use crate::views::{Deployment, Pod, ReplicaSet, ReplicationController};

/// What is served is asked for again after this time (upstream: the mapper's reset period).
const DISCOVERY_AGE_MAX: Duration = Duration::from_secs(30);

/// A StatefulSet, of which only the scale counts here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StatefulSet {
    metadata: Metadata,
    spec: StatefulSetSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StatefulSetSpec {
    replicas: Option<i32>,
}

view_kind!(StatefulSet, resources::STATEFUL_SETS);

/// A `scale` subresource.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scale {
    metadata: Metadata,
    spec: StatefulSetSpec,
}

/// The controllers of pods.
pub(super) struct Scales {
    client: Client,
    pub(super) sets: Informer<ReplicaSet>,
    pub(super) older: Informer<ReplicationController>,
    pub(super) deployments: Informer<Deployment>,
    pub(super) stateful: Informer<StatefulSet>,
    discovered: tokio::sync::Mutex<Option<(Instant, Arc<Discovered>)>>,
}

/// What the controllers of some pods ask for together, and the pods that nobody controls.
pub(super) struct Total {
    pub scale: i32,
    pub unmanaged: Vec<String>,
}

// === impl Scales ===

impl Scales {
    pub(super) fn new(context: &Context) -> Scales {
        Scales {
            client: context.client.clone(),
            sets: context.informers.informer(),
            older: context.informers.informer(),
            deployments: context.informers.informer(),
            stateful: context.informers.informer(),
            discovered: tokio::sync::Mutex::new(None),
        }
    }

    /// # Errors
    /// A pod whose controller is not found, or has no scale.
    pub(super) async fn of(&self, pods: &[Arc<Pod>]) -> Result<Total, String> {
        let mut scales: HashMap<String, i32> = HashMap::new();
        let mut unmanaged = Vec::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged.push(pod.metadata.name().to_owned());
                continue;
            };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace();
            let found = match self.known(owner, namespace) {
                Some(found) => Some(found),
                None => self.asked(owner, namespace).await?,
            };
            let name = api::field::quote(pod.metadata.name());
            let (uid, scale) = found.ok_or_else(|| format!("found no controllers for pod {name}"))?;
            scales.insert(uid, scale);
        }
        Ok(Total {
            scale: scales.values().fold(0, |sum, scale| sum.saturating_add(*scale)),
            unmanaged,
        })
    }

    /// The uid and scale of a controller of one of the usual kinds; of a ReplicaSet's Deployment where it has one.
    fn known(&self, owner: &OwnerReference, namespace: &str) -> Option<(String, i32)> {
        let (group, _) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let same = |metadata: &Metadata, owner: &OwnerReference| metadata.uid() == owner.uid;
        let scale = |metadata: &Metadata, replicas: Option<i32>| (metadata.uid().to_owned(), replicas.unwrap_or(1));
        match (&*owner.kind, group) {
            ("ReplicationController", "") => {
                let older = self.older.get(namespace, &owner.name)?;
                let set = &older.0;
                same(&set.metadata, owner).then(|| scale(&set.metadata, set.spec.replicas))
            }
            ("ReplicaSet", "apps" | "extensions") => {
                let set = self.sets.get(namespace, &owner.name)?;
                if !same(&set.metadata, owner) {
                    return None;
                }
                match controller_of(&set.metadata).filter(|above| above.kind == "Deployment") {
                    None => Some(scale(&set.metadata, set.spec.replicas)),
                    Some(above) => {
                        let deployment = self.deployments.get(namespace, &above.name)?;
                        let replicas = deployment.spec.replicas;
                        same(&deployment.metadata, above).then(|| scale(&deployment.metadata, replicas))
                    }
                }
            }
            ("StatefulSet", "apps") => {
                let set = self.stateful.get(namespace, &owner.name)?;
                same(&set.metadata, owner).then(|| scale(&set.metadata, set.spec.replicas))
            }
            _ => None,
        }
    }

    /// The same of any other kind, by its `scale` subresource.
    async fn asked(&self, owner: &OwnerReference, namespace: &str) -> Result<Option<(String, i32)>, String> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = &owner.kind;
        let found = self.discovered().await?;
        let is_it = |served: &&ServedResource| {
            let resource = &served.resource;
            resource.group == group && resource.version == version && resource.kind == *kind
        };
        let Some(served) = found.resources.iter().find(is_it) else {
            let quoted = api::field::quote(kind);
            let version = api::field::quote(&owner.api_version);
            return Err(format!("no matches for kind {quoted} in version {version}"));
        };
        let resource = &served.resource;
        if !served.subresources.iter().any(|name| name == "scale") {
            return Err(format!("{resource} does not implement the scale subresource"));
        }
        let path = resource.path(namespace, Some(&owner.name), Some("scale"));
        let scale = match self.client.get_raw(&path, "application/json").await {
            Ok(bytes) => serde_json::from_slice::<Scale>(&bytes).map_err(|error| error.to_string())?,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let same = scale.metadata.uid() == owner.uid;
        Ok(same.then(|| (owner.uid.clone(), scale.spec.replicas.unwrap_or(0))))
    }

    async fn discovered(&self) -> Result<Arc<Discovered>, String> {
        let mut known = self.discovered.lock().await;
        if let Some((_, found)) = known.as_ref().filter(|(at, _)| at.elapsed() < DISCOVERY_AGE_MAX) {
            return Ok(found.clone());
        }
        let found = Arc::new(self.client.discover().await.map_err(|error| error.to_string())?);
        *known = Some((Instant::now(), found.clone()));
        Ok(found)
    }
}
