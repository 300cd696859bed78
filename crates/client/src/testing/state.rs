//! The fake server's objects and what a write does to them.

use std::collections::BTreeMap;

use api::{GroupResource, Map, Status, StatusCause, Value};
use base::{Clock, Random};

use super::Seen;
use crate::resource::{Resource, resources};

/// The verbs of an ordinary resource.
pub(super) const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// What happened at a revision.
pub(super) struct Happened {
    pub revision: u64,
    pub resource: String,
    /// Before, with its own revision; absent when it was not there.
    pub old: Option<Value>,
    /// After; absent when it is gone.
    pub new: Option<Value>,
}

pub(super) struct State {
    pub clock: Clock,
    pub random: Random,
    pub revision: u64,
    /// History before this revision is forgotten.
    pub compacted: u64,
    pub history: Vec<Happened>,
    pub requests: Vec<Seen>,
    pub served: Vec<(Resource, &'static [&'static str])>,
    /// By resource, then namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
}

/// How an object is deleted, as its options say.
#[derive(Default)]
pub(super) struct Deletion {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<String>,
    pub grace_seconds: Option<i64>,
}

impl State {
    pub(super) fn new(clock: Clock, random: Random) -> State {
        let mut state = State {
            clock,
            random,
            // Zero means "any" to whoever asks for it, so no state has it.
            revision: 1,
            compacted: 0,
            history: Vec::new(),
            requests: Vec::new(),
            served: Vec::new(),
            objects: BTreeMap::new(),
        };
        use resources::*;
        for resource in [
            CONFIG_MAPS,
            CERTIFICATE_SIGNING_REQUESTS,
            ENDPOINTS,
            EVENTS,
            NAMESPACES,
            NODES,
            PERSISTENT_VOLUME_CLAIMS,
            PERSISTENT_VOLUMES,
            PODS,
            REPLICATION_CONTROLLERS,
            SECRETS,
            SERVICE_ACCOUNTS,
            SERVICES,
            CONTROLLER_REVISIONS,
            DAEMON_SETS,
            DEPLOYMENTS,
            REPLICA_SETS,
            STATEFUL_SETS,
            JOBS,
            CRON_JOBS,
            LEASES,
            ENDPOINT_SLICES,
            IP_ADDRESSES,
            SERVICE_CIDRS,
            PRIORITY_CLASSES,
            RUNTIME_CLASSES,
            STORAGE_CLASSES,
            POD_DISRUPTION_BUDGETS,
            CSI_NODES,
        ] {
            state.serve(resource, VERBS);
        }
        state
    }

    pub(super) fn serve(&mut self, resource: Resource, verbs: &'static [&'static str]) {
        self.served.retain(|(served, _)| *served != resource);
        self.served.push((resource, verbs));
    }

    pub(super) fn stop_serving(&mut self, resource: &Resource) {
        self.served.retain(|(served, _)| served != resource);
        self.objects.remove(&resource.to_string());
    }

    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
    }

    pub(super) fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.objects
            .get(&resource.to_string())?
            .get(&(namespace.to_string(), name.to_string()))
            .cloned()
    }

    pub(super) fn list(&self, resource: &Resource, namespace: &str) -> Vec<Value> {
        let objects = self.objects.get(&resource.to_string()).into_iter().flatten();
        objects
            .filter(|((ns, _), _)| namespace.is_empty() || ns == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(super) fn put(&mut self, object: Value) -> Result<Value, Status> {
        let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
        let served = self.served.iter().find(|(resource, _)| {
            Some(resource.api_version().as_str()) == api_version && Some(&*resource.kind) == kind
        });
        let Some((resource, _)) = served else {
            return Err(Status::bad_request(format!("{api_version:?} {kind:?} is not served")));
        };
        let resource = resource.clone();
        let namespace = api::meta::namespace(&object).to_string();
        self.insert_new(&resource, &namespace, object)
    }

    /// A create through the API: the namespace must be there, unless it never was one (tests need not make them).
    pub(super) fn create(&mut self, resource: &Resource, namespace: &str, object: Value) -> Result<Value, Status> {
        if resource.namespaced
            && let Some(home) = self.get(&resources::NAMESPACES, "", namespace)
            && api::meta::is_deleting(&home)
        {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut status = Status::forbidden(&resource.group_resource(), api::meta::name(&object), &why);
            if let Some(details) = &mut status.details {
                details.causes.push(StatusCause {
                    reason: "NamespaceTerminating".into(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".into(),
                });
            }
            return Err(status);
        }
        self.insert_new(resource, namespace, object)
    }

    fn insert_new(&mut self, resource: &Resource, namespace: &str, mut object: Value) -> Result<Value, Status> {
        if resource.namespaced && namespace.is_empty() {
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.to_string().into();
        if api::meta::name(&object).is_empty() {
            let prefix = api::meta::text(&object, "generateName").to_string();
            if prefix.is_empty() {
                return Err(Status::bad_request("name or generateName is required"));
            }
            let name = format!("{prefix}{}", self.random.suffix(5));
            api::meta::set_text(&mut object, "name", &name);
        }
        let name = api::meta::name(&object).to_string();
        let group_resource: GroupResource = resource.group_resource();
        if self.get(resource, namespace, &name).is_some() {
            return Err(Status::already_exists(&group_resource, &name));
        }
        if api::meta::uid(&object).is_empty() {
            let uid = self.random.uuid();
            api::meta::set_text(&mut object, "uid", &uid);
        }
        let now = self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        if api::meta::text(&object, "creationTimestamp").is_empty() {
            api::meta::set_text(&mut object, "creationTimestamp", &now);
        }
        if resource.namespaced {
            api::meta::set_text(&mut object, "namespace", namespace);
        }
        if object.get("spec").is_some() && api::meta::metadata(&object).is_some_and(|m| !m.contains_key("generation")) {
            api::meta::metadata_mut(&mut object).insert("generation".into(), 1.into());
        }
        if resource.plural == "namespaces" && object.pointer("/spec/finalizers").is_none() {
            object["spec"]["finalizers"] = serde_json::json!(["kubernetes"]);
            object["status"]["phase"] = "Active".into();
        }
        if resource.plural == "pods" && object.pointer("/status/phase").is_none() {
            object["status"]["phase"] = "Pending".into();
        }
        Ok(self
            .store(resource, namespace, &name, Some(object))
            .expect("invariant: an object was given"))
    }

    /// Writes an edited object: checks what must not change, raises the generation, and lets go what waited for this.
    pub(super) fn write(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        mut edited: Value,
    ) -> Result<Value, Status> {
        let group_resource = resource.group_resource();
        let Some(live) = self.get(resource, namespace, name) else {
            return Err(Status::not_found(&group_resource, name));
        };
        let asked = api::meta::resource_version(&edited);
        if !asked.is_empty() && asked != api::meta::resource_version(&live) {
            return Err(Status::modified(&group_resource, name));
        }
        let uid = api::meta::uid(&edited);
        if !uid.is_empty() && uid != api::meta::uid(&live) {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                api::meta::uid(&live)
            );
            return Err(Status::conflict(&group_resource, name, &why));
        }
        if edited.get("metadata").is_none() {
            edited["metadata"] = live["metadata"].clone();
        }
        for field in [
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "name",
            "namespace",
        ] {
            let kept = live["metadata"].get(field).cloned();
            let metadata = api::meta::metadata_mut(&mut edited);
            match kept {
                Some(kept) => drop(metadata.insert(field.into(), kept)),
                None => drop(metadata.remove(field)),
            }
        }
        match subresource {
            // A status write changes the status and, as upstream, labels and annotations no more than it must.
            "status" => {
                let status = edited.get("status").cloned();
                let mut kept = live.clone();
                match status {
                    Some(status) => kept["status"] = status,
                    None => drop(kept.as_object_mut().map(|object| object.remove("status"))),
                }
                if let Some(conditions) = edited["metadata"].get("annotations") {
                    kept["metadata"]["annotations"] = conditions.clone();
                }
                edited = kept;
            }
            "finalize" => {
                let finalizers = edited["spec"]
                    .get("finalizers")
                    .cloned()
                    .unwrap_or(Value::Array(Vec::new()));
                edited = live.clone();
                edited["spec"]["finalizers"] = finalizers;
            }
            _ => {
                if has_status(resource)
                    && let Some(object) = edited.as_object_mut()
                {
                    match live.get("status") {
                        Some(status) => drop(object.insert("status".into(), status.clone())),
                        None => drop(object.remove("status")),
                    }
                }
                // Upstream's deployments count annotations as well.
                let annotated = resource.plural == "deployments"
                    && edited["metadata"].get("annotations") != live["metadata"].get("annotations");
                let changed = edited.get("spec") != live.get("spec") || annotated;
                if changed && live["metadata"].get("generation").is_some() {
                    let generation = live["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                    edited["metadata"]["generation"] = generation.into();
                }
            }
        }
        edited["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        if edited == live {
            return Ok(live);
        }
        let stored = self
            .store(resource, namespace, name, Some(edited))
            .expect("invariant: an object was given");
        Ok(self.let_go(resource, namespace, name).unwrap_or(stored))
    }

    /// Removes an object that is being deleted and that nothing holds any more; returns its last state.
    fn let_go(&mut self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        let object = self.get(resource, namespace, name)?;
        if !api::meta::is_deleting(&object) || api::meta::finalizers(&object).next().is_some() {
            return None;
        }
        if resource.plural == "namespaces" {
            let held = object.pointer("/spec/finalizers").and_then(Value::as_array);
            if held.is_some_and(|finalizers| !finalizers.is_empty()) {
                return None;
            }
        } else if object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0 {
            return None;
        }
        self.store(resource, namespace, name, None)
    }

    pub(super) fn delete(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        how: &Deletion,
    ) -> Result<Value, Status> {
        let group_resource = resource.group_resource();
        let Some(mut object) = self.get(resource, namespace, name) else {
            return Err(Status::not_found(&group_resource, name));
        };
        let uid = api::meta::uid(&object);
        if let Some(asked) = how.uid.as_deref().filter(|asked| *asked != uid) {
            let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
            return Err(Status::conflict(&group_resource, name, &why));
        }
        if how
            .resource_version
            .as_deref()
            .is_some_and(|asked| asked != api::meta::resource_version(&object))
        {
            return Err(Status::modified(&group_resource, name));
        }
        let mut finalizers: Vec<Value> = api::meta::finalizers(&object).map(Value::from).collect();
        if let Some(policy) = how.propagation.as_deref() {
            finalizers.retain(|finalizer| finalizer != "orphan" && finalizer != "foregroundDeletion");
            match policy {
                "Orphan" => finalizers.push("orphan".into()),
                "Foreground" => finalizers.push("foregroundDeletion".into()),
                _ => {}
            }
        }
        let bound = object.pointer("/spec/nodeName").is_some() && resource.plural == "pods";
        let default_grace = object
            .pointer("/spec/terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .unwrap_or(30);
        let phase = object.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
        let grace = if bound && !matches!(phase, "Succeeded" | "Failed") {
            how.grace_seconds.unwrap_or(default_grace)
        } else {
            0
        };
        if !api::meta::is_deleting(&object) {
            let now = self.clock.now() + jiff::SignedDuration::from_secs(grace);
            api::meta::set_text(
                &mut object,
                "deletionTimestamp",
                &now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            );
            if resource.plural == "namespaces" {
                object["status"]["phase"] = "Terminating".into();
            }
        }
        let metadata: &mut Map = api::meta::metadata_mut(&mut object);
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
        if finalizers.is_empty() {
            metadata.remove("finalizers");
        } else {
            metadata.insert("finalizers".into(), finalizers.into());
        }
        if Some(&object) == self.get(resource, namespace, name).as_ref() {
            return Ok(object);
        }
        let direct = grace == 0 && api::meta::finalizers(&object).next().is_none() && resource.plural != "namespaces";
        if direct {
            return Ok(self
                .store(resource, namespace, name, None)
                .expect("invariant: it was there"));
        }
        Ok(self
            .store(resource, namespace, name, Some(object))
            .expect("invariant: an object was given"))
    }

    pub(super) fn edit(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Value {
        let mut object = self
            .get(resource, namespace, name)
            .unwrap_or_else(|| panic!("edit: no {resource} {namespace}/{name}"));
        let spec = object.get("spec").cloned();
        change(&mut object);
        if object.get("spec") != spec.as_ref() && object["metadata"].get("generation").is_some() {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object["metadata"]["generation"] = generation.into();
        }
        let stored = self
            .store(resource, namespace, name, Some(object))
            .expect("invariant: an object was given");
        self.let_go(resource, namespace, name).unwrap_or(stored)
    }

    pub(super) fn remove(&mut self, resource: &Resource, namespace: &str, name: &str) -> bool {
        self.get(resource, namespace, name).is_some() && self.store(resource, namespace, name, None).is_some()
    }

    /// One revision: stores the object, or removes it and returns its last state at the new revision.
    fn store(&mut self, resource: &Resource, namespace: &str, name: &str, new: Option<Value>) -> Option<Value> {
        self.revision += 1;
        let revision = self.revision.to_string();
        let table = self.objects.entry(resource.to_string()).or_default();
        let key = (namespace.to_string(), name.to_string());
        let new = new.map(|mut object| {
            api::meta::set_text(&mut object, "resourceVersion", &revision);
            object
        });
        let old = match &new {
            Some(object) => table.insert(key, object.clone()),
            None => table.remove(&key),
        };
        let last = old.clone().map(|mut object| {
            api::meta::set_text(&mut object, "resourceVersion", &revision);
            object
        });
        self.history.push(Happened {
            revision: self.revision,
            resource: resource.to_string(),
            old,
            new: new.clone(),
        });
        new.or(last)
    }
}

fn has_status(resource: &Resource) -> bool {
    matches!(
        &*resource.plural,
        "namespaces"
            | "nodes"
            | "pods"
            | "services"
            | "deployments"
            | "replicasets"
            | "statefulsets"
            | "daemonsets"
            | "jobs"
    )
}
