//! Follows the definitions: decides their conditions, serves their resources, and stops to.
//!
//! One task does it, one definition after the other: names are given to who asks first. What upstream does in five controllers
//! over informers is here one look at a definition, each time that it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::normalize::{UnknownFields, normalize};
use api::{GroupResource, Status, Value, meta};
use base::Backoff;
use kinds::apiextensions::conditions::Condition;
use kinds::apiextensions::{CLEANUP_FINALIZER, conditions};
use kinds::custom::{Definition, is_true};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Guard, History, Transaction};
use tokio::time::Instant;

use super::{CustomKind, cleanup};
use crate::admission::webhook::{Clients, WebhookConfig};
use crate::allocation::Reservation;
use crate::call::rfc3339;
use crate::cluster::{self, Changes, Cluster, Object};
use crate::managed;
use crate::registry::RegistryError;
use crate::server::Server;
use crate::storage::WriteError;

/// Who writes the status.
const MANAGER: &str = "kube-apiserver";
/// First and longest pause before definitions are looked at again that the store did not let be served or told of.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

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
    /// The verdict over its schemas, which holds as long as the spec does.
    structure: Option<(Spec, Option<Condition>)>,
    /// How its resource is served now, if it is.
    served: Option<Facts>,
    /// The newest revision that was looked at or written here: its change says nothing new.
    seen: u64,
}

/// A spec without its content: the generation changes with it.
#[derive(Clone, PartialEq, Eq)]
struct Spec {
    uid: String,
    generation: i64,
}

/// Everything that decides how a resource is served.
struct Facts {
    resource: GroupResource,
    spec: Spec,
    /// Of the spec: a deletion is a generation, too.
    digest: [u8; 32],
    /// The accepted names.
    names: Value,
    terminating: bool,
}

/// A definition whose resource is to be served from now on, or otherwise than before.
struct Change {
    name: String,
    facts: Facts,
    custom: Arc<CustomKind>,
    /// Whether its watches go on: only what is said of the resource differs, not the resource.
    keeps_watches: bool,
}

/// Serves custom resources.
pub struct Controller {
    server: Arc<Server>,
    clients: Arc<Clients>,
    known: BTreeMap<String, Known>,
    changes: Box<dyn Changes>,
    /// Definitions to look at again, because the store did not do what was asked of it; and when.
    left: BTreeSet<String>,
    again: Option<Instant>,
    backoff: Backoff,
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
            left: BTreeSet::new(),
            again: None,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
        };
        // Clients that watched before a restart go on.
        while let Some(change) = controller.changes.try_next() {
            controller.take(change, History::Kept).await;
        }
        Some(controller)
    }

    /// Follows the definitions until the server ends.
    pub async fn run(mut self) {
        let end = self.server.shutdown.clone();
        loop {
            self.plan();
            let changes = self.changes.next();
            let change = match self.again {
                None => end.until(changes).await.map(Ok),
                Some(again) => end.until(tokio::time::timeout_at(again, changes)).await,
            };
            match change {
                Some(Ok(Some(change))) => self.take(change, History::FromNow).await,
                Some(Err(_)) => self.look_again().await,
                Some(Ok(None)) | None => return,
            }
        }
    }

    /// Sets the time of the next attempt, if one is needed.
    fn plan(&mut self) {
        if self.left.is_empty() {
            self.again = None;
            self.backoff.reset();
        } else if self.again.is_none() {
            self.again = Some(Instant::now() + self.backoff.next_delay());
        }
    }

    /// Looks again at what was left, at one definition after the other: what is wrong with one keeps none of the others.
    async fn look_again(&mut self) {
        self.again = None;
        for name in std::mem::take(&mut self.left) {
            if let Some(object) = Cluster::get(&*self.server.storage, &definitions(), "", &name) {
                let crd = object.value();
                // It may have been watched before the server's start.
                self.look(vec![(object, crd)], History::Kept).await;
            }
        }
    }

    async fn take(&mut self, change: cluster::Change, history: History) {
        match change {
            cluster::Change::Reset(objects) => {
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
                self.look(trees, history).await;
            }
            cluster::Change::Changed { new: Some(object), .. } => {
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
                self.look(vec![(object.clone(), crd)], history).await;
                if before.is_some() && before != names(&self.known) {
                    self.look_at_group_of(object.name(), history).await;
                }
            }
            cluster::Change::Changed { old, new: None } => {
                if let Some(old) = old {
                    self.forget(old.name()).await;
                    self.look_at_group_of(old.name(), history).await;
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
            structure: None,
            served: None,
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
    async fn look_at_group_of(&mut self, name: &str, history: History) {
        let Some((_, group)) = name.split_once('.') else { return };
        let others = self
            .known
            .iter()
            .filter(|(other, known)| known.group == group && *other != name);
        let others = others.filter_map(|(name, _)| Cluster::get(&*self.server.storage, &definitions(), "", name));
        let others: Vec<(Arc<Object>, Value)> = others.map(|object| (object.clone(), object.value())).collect();
        self.look(others, history).await;
    }

    /// Does what definitions ask for: gives names, serves what has them, and then tells it, each in one write.
    async fn look(&mut self, seen: Vec<(Arc<Object>, Value)>, history: History) {
        let now = rfc3339(self.server.clock.now());
        let (mut looked, mut changes) = (Vec::with_capacity(seen.len()), Vec::new());
        for (object, crd) in seen {
            let decided = self.decide(&object, &crd, &now);
            self.note(&decided);
            match self.changed(&object, &decided) {
                Ok(change) => {
                    changes.extend(change);
                    looked.push((object, crd, decided, true));
                }
                Err(why) => {
                    match why {
                        Some(why) => tracing::error!(name = object.name(), why, "a custom resource cannot be served"),
                        None => self.stop(object.name()).await,
                    }
                    looked.push((object, crd, decided, false));
                }
            }
        }
        if let Err(why) = self.serve(changes, history).await {
            self.left
                .extend(looked.iter().map(|(object, ..)| object.name().to_owned()));
            return tracing::error!(why, "custom resources cannot be served yet");
        }
        for (object, crd, mut decided, is_served) in looked {
            if is_served && conditions::awaits_establishment(&decided) && !object.is_deleting() {
                conditions::establish(&mut decided, &now);
            }
            self.settle(&object, &crd, decided).await;
        }
    }

    /// A definition with the conditions that it should have, but for Established.
    fn decide(&mut self, object: &Object, crd: &Value, now: &str) -> Value {
        let name = object.name();
        let group = crd["spec"]["group"].as_str().unwrap_or("");
        let same = self
            .known
            .iter()
            .filter(|(other, known)| known.group == group && **other != name);
        let others: Vec<&Value> = same.map(|(_, known)| &known.names).collect();
        let mut decided = conditions::decide(crd, &others, now);
        let spec = Spec::of(crd);
        let judged = self.known.get(name).and_then(|known| known.structure.clone());
        let structure = match judged {
            Some((of, structure)) if of == spec => structure,
            _ => {
                let structure = conditions::structure(crd);
                if let Some(known) = self.known.get_mut(name) {
                    known.structure = Some((spec, structure.clone()));
                }
                structure
            }
        };
        conditions::set_structure(&mut decided, structure.as_ref(), now);
        decided
    }

    /// Writes what was decided.
    async fn settle(&mut self, object: &Arc<Object>, crd: &Value, decided: Value) {
        let name = object.name();
        self.left.remove(name);
        if decided == *crd {
            self.saw(name, object);
        } else {
            match write(&self.server, object, crd, decided).await {
                Ok(Some(written)) => self.saw(name, &written),
                // Somebody else's write won; its change is on the way.
                Ok(None) => return,
                Err(status) => {
                    self.left.insert(name.to_owned());
                    return tracing::warn!(name, %status.message, "the status of a definition was not written");
                }
            }
        }
        if object.is_deleting() && meta::finalizers(crd).any(|finalizer| finalizer == CLEANUP_FINALIZER) {
            cleanup::start(&self.server, name, object.uid());
        }
    }

    /// What is to be done that the resource of a definition is served as it is now.
    ///
    /// # Errors
    /// It is not to be served, or, with the reason, cannot be.
    fn changed(&self, object: &Object, crd: &Value) -> Result<Option<Change>, Option<String>> {
        if !is_true(crd, "NamesAccepted") && !is_true(crd, "Established") {
            return Err(None);
        }
        let (name, spec) = (object.name(), Spec::of(crd));
        let (names, terminating) = (&crd["status"]["acceptedNames"], is_true(crd, "Terminating"));
        let before = self.known.get(name).and_then(|known| known.served.as_ref());
        let alike = before.filter(|before| before.names == *names && before.spec.uid == spec.uid);
        if alike.is_some_and(|before| before.spec == spec && before.terminating == terminating) {
            return Ok(None);
        }
        let digest = digest(&crd["spec"]);
        let keeps_watches = alike.is_some_and(|before| before.digest == digest);
        if keeps_watches && alike.is_some_and(|before| before.terminating == terminating) {
            return Ok(None);
        }
        let definition = Definition::of(crd)?;
        let resource = definition.resource();
        let registry = self.server.registry.load();
        if registry.kind(&resource).is_some_and(|kind| kind.custom.is_none()) {
            return Err(Some(RegistryError::Duplicate(resource).to_string()));
        }
        Ok(Some(Change {
            name: name.to_owned(),
            facts: Facts {
                resource,
                spec,
                digest,
                names: names.clone(),
                terminating,
            },
            custom: Arc::new(CustomKind::new(definition, &self.clients)),
            keeps_watches,
        }))
    }

    /// Puts resources into the registry, and their tables into the store or up to date.
    async fn serve(&mut self, changes: Vec<Change>, history: History) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        let storage = &self.server.storage;
        let before = self.server.registry.load_full();
        let registry = before.with_customs(changes.iter().map(|change| &change.custom));
        let registry = registry.map_err(|error| error.to_string())?;
        let (mut new, mut ended) = (Vec::new(), Vec::new());
        for change in &changes {
            let resource = &change.facts.resource;
            let kind = registry.kind(resource).cloned();
            let kind = kind.ok_or("there is no storage version")?;
            let known = before.kind(resource).and_then(|kind| kind.custom.as_ref());
            match known {
                None => new.push(kind),
                Some(_) if change.keeps_watches => {}
                Some(old) => {
                    if !is_stored_alike(old, &change.custom) {
                        let again = storage.again(&kind).await;
                        again.map_err(|error| error.to_string())?;
                    }
                    ended.push(kind);
                }
            }
        }
        if !new.is_empty() {
            let added = storage.add(&new, history).await;
            added.map_err(|error| error.to_string())?;
        }
        self.server.registry.store(Arc::new(registry));
        // Whoever watched a resource that is another one now begins again, as upstream has it.
        for kind in ended {
            storage.end_watches(&kind);
        }
        for change in changes {
            if let Some(known) = self.known.get_mut(&change.name) {
                known.served = Some(change.facts);
            }
        }
        Ok(())
    }

    async fn stop(&mut self, name: &str) {
        let Some(known) = self.known.get_mut(name) else { return };
        if let Some(Facts { resource, .. }) = known.served.take() {
            let registry = self.server.registry.load_full();
            if let Some(kind) = registry.kind(&resource).cloned() {
                self.server.registry.store(Arc::new(registry.without(&resource)));
                self.server.storage.remove(&kind).await;
            }
        }
    }

    async fn forget(&mut self, name: &str) {
        self.stop(name).await;
        self.known.remove(name);
    }
}

impl Spec {
    fn of(crd: &Value) -> Spec {
        Spec {
            uid: meta::uid(crd).to_owned(),
            generation: crd["metadata"]["generation"].as_i64().unwrap_or(0),
        }
    }
}

fn digest(spec: &Value) -> [u8; 32] {
    let mut hasher = Sha256::new();
    // A tree has only text keys, and a hasher takes everything.
    let _ = serde_json::to_writer(&mut hasher, spec);
    hasher.finalize().into()
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
        && old.conversion == new.conversion
        && texts(old) == texts(new)
        && fields(old) == fields(new)
}

/// Writes a definition over the one that was seen. None: somebody else was faster.
pub async fn write(
    server: &Arc<Server>,
    seen: &Arc<Object>,
    before: &Value,
    mut new: Value,
) -> Result<Option<Arc<Object>>, Status> {
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
        Ok(committed) => Ok(committed.object),
        Err(WriteError::Raced) => Ok(None),
        Err(WriteError::Failed(status) | WriteError::TooLarge(status)) => Err(status),
    }
}
