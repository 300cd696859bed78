//! Follows the definitions: decides their conditions, serves their resources, and stops to.
//!
//! One task does it, one definition after the other: names are given to who asks first. What upstream does in five controllers
//! over informers is here one look at a definition, each time that it changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::normalize::{UnknownFields, normalize};
use api::{GroupResource, Status, Value, meta};
use kinds::apiextensions::{CLEANUP_FINALIZER, conditions};
use kinds::custom::{Definition, is_true};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Guard, Transaction};

use super::{CustomKind, cleanup};
use crate::admission::webhook::{Clients, WebhookConfig};
use crate::allocation::Reservation;
use crate::call::rfc3339;
use crate::cluster::{Change, Changes, Cluster, Object};
use crate::managed;
use crate::server::Server;
use crate::storage::WriteError;

/// Who writes the status.
const MANAGER: &str = "kube-apiserver";

/// The definitions.
pub fn definitions() -> GroupResource {
    GroupResource {
        group: "apiextensions.k8s.io".into(),
        resource: "customresourcedefinitions".into(),
    }
}

/// What is known of a definition.
struct Known {
    group: String,
    /// What claims names in the group: a definition with nothing but its accepted names.
    names: Value,
    /// Of everything that decides how its resource is served.
    digest: Option<[u8; 32]>,
    resource: Option<GroupResource>,
    /// The newest revision that was looked at or written here: its change says nothing new.
    seen: u64,
}

/// Serves custom resources.
pub struct Controller {
    server: Arc<Server>,
    clients: Arc<Clients>,
    known: BTreeMap<String, Known>,
    changes: Box<dyn Changes>,
}

impl Controller {
    /// Serves what is defined already; [`Controller::run`] follows from there. None: there are no definitions here.
    pub async fn start(server: &Arc<Server>) -> Option<Controller> {
        server.registry.load().kind(&definitions())?;
        let mut controller = Controller {
            server: server.clone(),
            clients: Arc::new(Clients::new(WebhookConfig::default(), server.random.fork())),
            known: BTreeMap::new(),
            changes: Cluster::changes(&*server.storage, &definitions()),
        };
        while let Some(change) = controller.changes.try_next() {
            controller.take(change).await;
        }
        Some(controller)
    }

    /// Follows the definitions until the server ends.
    pub async fn run(mut self) {
        let end = self.server.shutdown.clone();
        while let Some(Some(change)) = end.until(self.changes.next()).await {
            self.take(change).await;
        }
    }

    async fn take(&mut self, change: Change) {
        match change {
            Change::Reset(objects) => {
                let gone: Vec<String> = {
                    let is_there = |name: &String| objects.iter().any(|object| object.name() == name);
                    self.known.keys().filter(|name| !is_there(name)).cloned().collect()
                };
                for name in gone {
                    self.forget(&name).await;
                }
                // All names that are taken are known before the first is given.
                let trees: Vec<(Arc<Object>, Value)> =
                    objects.iter().map(|object| (object.clone(), object.value())).collect();
                for (_, crd) in &trees {
                    self.note(crd);
                }
                for (object, crd) in trees {
                    self.look(&object, crd).await;
                }
            }
            Change::Changed { new: Some(object), .. } => {
                // Of several changes the last one counts: what it says is there already.
                let newest = Cluster::get(&*self.server.storage, &definitions(), "", object.name());
                let Some(object) = newest else { return };
                if self
                    .known
                    .get(object.name())
                    .is_some_and(|known| known.seen == object.revision())
                {
                    return;
                }
                let crd = object.value();
                let names = |known: &BTreeMap<String, Known>| known.get(object.name()).map(|known| known.names.clone());
                let before = names(&self.known);
                self.note(&crd);
                self.look(&object, crd).await;
                if before.is_some() && before != names(&self.known) {
                    self.look_at_group_of(object.name()).await;
                }
            }
            Change::Changed { old, new: None } => {
                if let Some(old) = old {
                    self.forget(old.name()).await;
                    self.look_at_group_of(old.name()).await;
                }
            }
        }
    }

    fn note(&mut self, crd: &Value) {
        let name = meta::name(crd).to_owned();
        let names = json!({"status": {"acceptedNames": crd["status"]["acceptedNames"]}});
        let group = crd["spec"]["group"].as_str().unwrap_or("").to_owned();
        let known = self.known.entry(name).or_insert_with(|| Known {
            group: String::new(),
            names: Value::Null,
            digest: None,
            resource: None,
            seen: 0,
        });
        (known.group, known.names) = (group, names);
    }

    fn saw(&mut self, name: &str, object: &Object) {
        if let Some(known) = self.known.get_mut(name) {
            known.seen = object.revision();
        }
    }

    /// The others of a group may have what one gave up.
    async fn look_at_group_of(&mut self, name: &str) {
        let Some((_, group)) = name.split_once('.') else { return };
        let others = self
            .known
            .iter()
            .filter(|(other, known)| known.group == group && *other != name);
        let others: Vec<String> = others.map(|(name, _)| name.clone()).collect();
        for other in others {
            if let Some(object) = Cluster::get(&*self.server.storage, &definitions(), "", &other) {
                let crd = object.value();
                self.look(&object, crd).await;
            }
        }
    }

    /// Does what one definition asks for.
    async fn look(&mut self, object: &Arc<Object>, crd: Value) {
        let name = object.name().to_owned();
        let group = crd["spec"]["group"].as_str().unwrap_or("");
        let same = self
            .known
            .iter()
            .filter(|(other, known)| known.group == group && **other != name);
        let others: Vec<Value> = same.map(|(_, known)| known.names.clone()).collect();
        let now = self.now();
        let decided = conditions::decide(&crd, &others, &now);
        let mut newest = (object.clone(), crd);
        if decided != newest.1 {
            match write(&self.server, &newest.0, &newest.1, decided).await {
                Ok(Some(written)) => newest = written,
                // Somebody else's write won; its change is on the way.
                Ok(None) => return,
                Err(status) => {
                    return tracing::warn!(name, %status.message, "the status of a definition was not written");
                }
            }
        }
        let (object, crd) = newest;
        self.note(&crd);
        self.saw(&name, &object);
        if let Err(why) = self.serve(&name, &crd).await {
            tracing::error!(name, why, "a custom resource cannot be served");
            return;
        }
        if conditions::awaits_establishment(&crd) && !object.is_deleting() {
            let established = conditions::established(&crd, &now);
            match write(&self.server, &object, &crd, established).await {
                Ok(Some((written, _))) => self.saw(&name, &written),
                // Somebody else's write won; its change is on the way.
                Ok(None) => {}
                Err(status) => tracing::warn!(name, %status.message, "the status of a definition was not written"),
            }
        }
        if object.is_deleting() && meta::finalizers(&crd).any(|finalizer| finalizer == CLEANUP_FINALIZER) {
            cleanup::start(&self.server, &name, object.uid());
        }
    }

    /// Serves the resource of a definition as it is now, or no longer.
    async fn serve(&mut self, name: &str, crd: &Value) -> Result<(), String> {
        let is_served = is_true(crd, "NamesAccepted") || is_true(crd, "Established");
        let Some(known) = self.known.get(name) else {
            return Ok(());
        };
        if !is_served {
            self.stop(name).await;
            return Ok(());
        }
        let terminating = is_true(crd, "Terminating");
        let facts = json!([
            crd["spec"],
            crd["status"]["acceptedNames"],
            crd["metadata"]["uid"],
            terminating
        ]);
        let digest: [u8; 32] = Sha256::digest(facts.to_string()).into();
        if known.digest == Some(digest) {
            return Ok(());
        }
        let definition = Definition::of(crd)?;
        let resource = GroupResource {
            group: definition.group.clone(),
            resource: definition.plural.clone(),
        };
        let custom = Arc::new(CustomKind::new(definition, &self.clients));
        serve(&self.server, &custom, &resource).await?;
        if let Some(known) = self.known.get_mut(name) {
            known.digest = Some(digest);
            known.resource = Some(resource);
        }
        Ok(())
    }

    async fn stop(&mut self, name: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        known.digest = None;
        if let Some(resource) = known.resource.take() {
            let registry = self.server.registry.load_full();
            if let Some(kind) = registry.kind(&resource).cloned() {
                let registry = Arc::new(registry.without(&resource));
                self.server.registry.store(registry.clone());
                self.server.storage.remove(&registry, &kind).await;
            }
        }
    }

    async fn forget(&mut self, name: &str) {
        self.stop(name).await;
        self.known.remove(name);
    }

    fn now(&self) -> String {
        rfc3339(self.server.clock.now())
    }
}

/// Puts a resource into the registry, and its table into the store or up to date.
async fn serve(server: &Arc<Server>, custom: &Arc<CustomKind>, resource: &GroupResource) -> Result<(), String> {
    let before = server.registry.load_full();
    let registry = before.with_custom(custom).map_err(|error| error.to_string())?;
    let Some(kind) = registry.kind(resource).cloned() else {
        return Err("there is no storage version".into());
    };
    let known = before.kind(resource).and_then(|kind| kind.custom.clone());
    let registry = Arc::new(registry);
    match known {
        Some(old) if is_stored_alike(&old, custom) => {}
        Some(_) => {
            let again = server.storage.again(&registry, &kind).await;
            again.map_err(|error| error.to_string())?;
        }
        None => {
            let added = server.storage.add(&registry, &kind).await;
            added.map_err(|error| error.to_string())?;
        }
    }
    server.registry.store(registry);
    Ok(())
}

/// Whether objects in memory are the same under both definitions.
fn is_stored_alike(old: &CustomKind, new: &CustomKind) -> bool {
    let (old, new) = (&old.definition, &new.definition);
    let texts = |definition: &Definition| -> Vec<(String, Arc<str>)> {
        let versions = definition.versions.iter();
        versions
            .map(|version| (version.gvk.version.clone(), version.text.clone()))
            .collect()
    };
    let fields = |definition: &Definition| -> Vec<String> {
        let storage = &definition.versions[definition.storage];
        storage.selectable.iter().map(|(name, _)| name.clone()).collect()
    };
    old.uid == new.uid
        && old.storage == new.storage
        && old.conversion["strategy"] == new.conversion["strategy"]
        && texts(old) == texts(new)
        && fields(old) == fields(new)
}

/// Writes a definition over the one that was seen. None: somebody else was faster.
pub async fn write(
    server: &Arc<Server>,
    seen: &Arc<Object>,
    before: &Value,
    mut new: Value,
) -> Result<Option<(Arc<Object>, Value)>, Status> {
    let registry = server.registry.load_full();
    let served = registry.find("apiextensions.k8s.io", "v1", &definitions().resource);
    let served = served.ok_or_else(Status::no_such_path)?;
    let now = rfc3339(server.clock.now());
    managed::update(served, "status", Some(before), &mut new, MANAGER, &now)?;
    let kind = &served.kind;
    normalize(&mut new, &kind.schema, UnknownFields::Ignore).map_err(Status::internal)?;
    let key = kind.key("", seen.name());
    let is_gone = meta::finalizers(&new).next().is_none() && seen.is_deleting();
    let operation = match is_gone {
        true => store::Operation::Delete(key.clone().into()),
        false => server.storage.put(kind, &key, &new, None)?,
    };
    let transaction = Transaction {
        guards: vec![Guard::ModRevision(key.into(), seen.revision())],
        operations: vec![operation],
    };
    match crate::commit::commit(server, transaction, Reservation::none()).await {
        Ok(committed) => Ok(committed.object.map(|object| {
            let value = object.value();
            (object, value)
        })),
        Err(WriteError::Raced) => Ok(None),
        Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => Err(status),
    }
}
