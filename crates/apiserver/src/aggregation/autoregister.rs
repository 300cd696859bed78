//! Keeps an APIService for each group version that this server answers for.
//!
//! Those that are built in are made and corrected once after the start: whoever deletes or changes one has it so until the next
//! start. Those of custom resources follow their CustomResourceDefinitions. What is to be done is a plain function.
//! Source: `k8s.io/kube-aggregator/pkg/controllers/autoregister` and `pkg/controlplane/controller/crdregistration`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{GroupResource, Value, meta};
use base::Shutdown;
use client::queue::WorkQueue;
use client::worker::{Next, run};
use client::{Client, DeleteParams, Error};
use parking_lot::Mutex;
use serde_json::json;

use super::priorities::{self, CUSTOM, Priority};
use super::service::name_of;
use super::{API_SERVICES, api_services};
use crate::cluster::{Change, Changes, Cluster};
use crate::server::Server;

/// Upstream's workers.
const WORKERS: usize = 5;
/// Says that an APIService is kept here, and how.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// How an APIService is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Managed {
    /// Once after the start.
    OnStart,
    /// Always.
    Always,
}

/// An APIService that there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    group: String,
    version: String,
    priority: Priority,
    managed: Managed,
}

/// An APIService that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    managed: Option<Managed>,
    /// Whether it was there when the server started.
    was_at_start: bool,
    /// Whether it says what it should.
    is_right: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Nothing,
    Create,
    Update,
    Delete,
}

struct Controller {
    server: Arc<Server>,
    client: Client,
    wanted: Mutex<BTreeMap<String, Wanted>>,
    at_start: BTreeSet<String>,
    /// What was looked at once without an error.
    synced: Mutex<BTreeSet<String>>,
    queue: WorkQueue<String>,
}

/// Starts the controller.
pub(super) fn start(server: &Arc<Server>, client: &Client, shutdown: &Shutdown) {
    let registry = server.registry.load_full();
    let discovery = server.discovery(&registry);
    let built_in = discovery.group_versions().filter_map(|path| built_in(&path));
    let wanted: BTreeMap<String, Wanted> = built_in
        .map(|wanted| (name_of(&wanted.group, &wanted.version), wanted))
        .collect();
    server.aggregation.await_available(wanted.keys().cloned());
    let there = Cluster::list(&*server.storage, &api_services(), None);
    let queue = WorkQueue::<String>::new().named("autoregister");
    let controller = Arc::new(Controller {
        server: server.clone(),
        client: client.clone(),
        wanted: Mutex::new(wanted),
        at_start: there.iter().map(|object| object.name().to_owned()).collect(),
        synced: Mutex::default(),
        queue: queue.clone(),
    });
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        // What custom resources there are is known before anything is deleted for want of them.
        let mut changes = Cluster::changes(&*controller.server.storage, &definitions());
        let mut known = Definitions::default();
        if let Some(first) = changes.try_next() {
            known.take(first);
            controller.want(known.group_versions());
        }
        let names: Vec<String> = controller.wanted.lock().keys().cloned().collect();
        names.into_iter().for_each(|name| queue.add(name));
        controller.server.aggregation.subscribe(&queue);
        let (following, until) = (controller.clone(), stop.clone());
        stop.spawn(async move { until.until(following.follow(changes, known)).await });
        let work = move |name: String| {
            let controller = controller.clone();
            async move { controller.look(&name).await }
        };
        run(queue, WORKERS, stop.clone(), work).await;
    });
}

fn definitions() -> GroupResource {
    GroupResource {
        group: "apiextensions.k8s.io".into(),
        resource: "customresourcedefinitions".into(),
    }
}

/// The APIService of `api/v1` or `apis/GROUP/VERSION`, when that is built in.
fn built_in(path: &str) -> Option<Wanted> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    Some(Wanted {
        priority: priorities::built_in(group, version)?,
        group: group.to_owned(),
        version: version.to_owned(),
        managed: Managed::OnStart,
    })
}

/// The group versions that CustomResourceDefinitions serve.
#[derive(Default)]
struct Definitions {
    /// By the definition.
    served: BTreeMap<String, Vec<GroupVersion>>,
    /// How many definitions serve each.
    counts: BTreeMap<GroupVersion, usize>,
}

type GroupVersion = (String, String);

// === impl Definitions ===

impl Definitions {
    /// Whether a group version came or went.
    fn take(&mut self, change: Change) -> bool {
        match change {
            Change::Reset(all) => {
                *self = Definitions::default();
                for object in &all {
                    self.put(object.name(), served(&object.value()));
                }
                true
            }
            Change::Changed { new: Some(new), .. } => self.put(new.name(), served(&new.value())),
            Change::Changed { old: Some(old), .. } => self.put(old.name(), Vec::new()),
            Change::Changed { .. } => false,
        }
    }

    /// The same for one definition. Most changes of one say nothing new here.
    fn put(&mut self, name: &str, served: Vec<GroupVersion>) -> bool {
        let before = match served.is_empty() {
            true => self.served.remove(name),
            false => self.served.insert(name.to_owned(), served.clone()),
        };
        let mut changes = false;
        for group_version in served {
            let count = self.counts.entry(group_version).or_default();
            *count += 1;
            changes |= *count == 1;
        }
        for group_version in before.unwrap_or_default() {
            let Some(count) = self.counts.get_mut(&group_version) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group_version);
                changes = true;
            }
        }
        changes
    }

    fn group_versions(&self) -> impl Iterator<Item = &GroupVersion> {
        self.counts.keys()
    }
}

fn served(definition: &Value) -> Vec<GroupVersion> {
    let group = definition["spec"]["group"].as_str().unwrap_or("");
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|version| version["served"].as_bool().unwrap_or(false));
    let names = served.filter_map(|version| version["name"].as_str());
    names.map(|version| (group.to_owned(), version.to_owned())).collect()
}

// === impl Controller ===

impl Controller {
    async fn follow(&self, mut changes: Box<dyn Changes>, mut known: Definitions) {
        while let Some(change) = changes.next().await {
            if known.take(change) {
                self.want(known.group_versions());
            }
        }
    }

    /// The group versions of custom resources are these now.
    fn want<'g>(&self, custom: impl Iterator<Item = &'g GroupVersion>) {
        let mut wanted = self.wanted.lock();
        let named: BTreeMap<String, &GroupVersion> = custom.map(|of| (name_of(&of.0, &of.1), of)).collect();
        let gone = |(name, wanted): (&String, &Wanted)| {
            (wanted.managed == Managed::Always && !named.contains_key(name)).then(|| name.clone())
        };
        let gone: Vec<String> = wanted.iter().filter_map(gone).collect();
        for name in gone {
            wanted.remove(&name);
            self.queue.add(name);
        }
        for (name, (group, version)) in named {
            if !wanted.contains_key(&name) {
                let custom = Wanted {
                    group: group.clone(),
                    version: version.clone(),
                    priority: CUSTOM,
                    managed: Managed::Always,
                };
                wanted.insert(name.clone(), custom);
                self.queue.add(name);
            }
        }
    }

    async fn look(&self, name: &str) -> Result<Next, Error> {
        let wanted = self.wanted.lock().get(name).cloned();
        let object = Cluster::get(&*self.server.storage, &api_services(), "", name);
        let object = object.map(|object| object.value());
        let found = object.as_ref().map(|object| Found {
            managed: managed(object),
            was_at_start: self.at_start.contains(name),
            is_right: wanted.as_ref().is_some_and(|wanted| object["spec"] == wanted.spec()),
        });
        let has_synced = self.synced.lock().contains(name);
        let action = decide(wanted.as_ref().map(|wanted| wanted.managed), found, has_synced);
        self.act(action, name, object, wanted).await?;
        self.synced.lock().insert(name.to_owned());
        Ok(Next::Wait)
    }

    async fn act(
        &self,
        action: Action,
        name: &str,
        object: Option<Value>,
        wanted: Option<Wanted>,
    ) -> Result<(), Error> {
        let client = &self.client;
        let outcome = match (action, object, wanted) {
            (Action::Create, _, Some(wanted)) => client.create_in(&API_SERVICES, "", &wanted.object(name)).await,
            (Action::Update, Some(mut object), Some(wanted)) => {
                object["spec"] = wanted.spec();
                client.update(&API_SERVICES, "", name, None, &object).await
            }
            (Action::Delete, Some(object), _) => {
                let same = DeleteParams::uid(meta::uid(&object));
                client.delete(&API_SERVICES, "", name, &same).await
            }
            _ => return Ok(()),
        };
        match outcome {
            // It came, changed or went meanwhile, which tells of itself.
            Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

fn managed(object: &Value) -> Option<Managed> {
    match object["metadata"]["labels"][MANAGED].as_str() {
        Some("onstart") => Some(Managed::OnStart),
        Some("true") => Some(Managed::Always),
        _ => None,
    }
}

/// What is to be done about one APIService: upstream's `checkAPIService`, row by row.
fn decide(wanted: Option<Managed>, found: Option<Found>, has_synced: bool) -> Action {
    match (wanted, found) {
        (None, None) => Action::Nothing,
        (Some(Managed::OnStart), _) if has_synced => Action::Nothing,
        (Some(_), None) => Action::Create,
        (_, Some(Found { managed: None, .. })) => Action::Nothing,
        (
            _,
            Some(Found {
                managed: Some(Managed::OnStart),
                was_at_start,
                ..
            }),
        ) if has_synced || !was_at_start => Action::Nothing,
        (None, Some(_)) => Action::Delete,
        (Some(_), Some(found)) if found.is_right => Action::Nothing,
        (Some(_), Some(_)) => Action::Update,
    }
}

// === impl Wanted ===

impl Wanted {
    fn spec(&self) -> Value {
        let mut spec = json!({
            "version": self.version,
            "groupPriorityMinimum": self.priority.group, "versionPriority": self.priority.version,
        });
        if !self.group.is_empty() {
            spec["group"] = self.group.clone().into();
        }
        spec
    }

    fn object(&self, name: &str) -> Value {
        let managed = match self.managed {
            Managed::OnStart => "onstart",
            Managed::Always => "true",
        };
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": self.spec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_upstream_holds() {
        use Action::{Create, Delete, Nothing, Update};
        use Managed::{Always, OnStart};
        let found = |managed, was_at_start, is_right| {
            Some(Found {
                managed,
                was_at_start,
                is_right,
            })
        };
        for (wanted, found, has_synced, expect) in [
            // Not there.
            (None, None, false, Nothing),
            (Some(OnStart), None, false, Create),
            (Some(OnStart), None, true, Nothing),
            (Some(Always), None, false, Create),
            (Some(Always), None, true, Create),
            // Somebody else's.
            (None, found(None, true, false), false, Nothing),
            (Some(OnStart), found(None, true, false), false, Nothing),
            (Some(Always), found(None, true, false), false, Nothing),
            // Made after the start.
            (None, found(Some(OnStart), false, false), false, Nothing),
            (Some(OnStart), found(Some(OnStart), false, false), false, Nothing),
            (Some(Always), found(Some(OnStart), false, false), false, Nothing),
            // There before it, once.
            (None, found(Some(OnStart), true, false), false, Delete),
            (None, found(Some(OnStart), true, false), true, Nothing),
            (Some(OnStart), found(Some(OnStart), true, false), false, Update),
            (Some(OnStart), found(Some(OnStart), true, true), false, Nothing),
            (Some(OnStart), found(Some(OnStart), true, false), true, Nothing),
            (Some(Always), found(Some(OnStart), true, false), false, Update),
            (Some(Always), found(Some(OnStart), true, false), true, Nothing),
            // Kept always.
            (None, found(Some(Always), false, false), true, Delete),
            (Some(OnStart), found(Some(Always), false, false), false, Update),
            (Some(OnStart), found(Some(Always), false, false), true, Nothing),
            (Some(Always), found(Some(Always), true, false), true, Update),
            (Some(Always), found(Some(Always), true, true), true, Nothing),
        ] {
            assert_eq!(
                decide(wanted, found, has_synced),
                expect,
                "{wanted:?} {found:?} {has_synced}"
            );
        }
    }

    #[test]
    fn group_versions_become_api_services() {
        let core = built_in("api/v1").unwrap();
        assert_eq!(
            core.object("v1."),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": "v1.", "labels": {MANAGED: "onstart"}},
                "spec": {"version": "v1", "groupPriorityMinimum": 18_000, "versionPriority": 1},
            })
        );
        assert_eq!(managed(&core.object("v1.")), Some(Managed::OnStart));
        assert_eq!(built_in("apis/apiregistration.k8s.io/v1"), None, "it has none");
        let definition = json!({"spec": {"group": "example.com", "versions": [
            {"name": "v1", "served": true}, {"name": "v1beta1", "served": false},
        ]}});
        assert_eq!(served(&definition), [("example.com".to_owned(), "v1".to_owned())]);
    }

    #[test]
    fn a_group_version_is_there_as_long_as_a_definition_serves_it() {
        let of = |versions: &[&str]| -> Vec<GroupVersion> {
            let versions = versions.iter();
            versions
                .map(|version| ("g".to_owned(), (*version).to_owned()))
                .collect()
        };
        let mut known = Definitions::default();
        for (name, versions, expect, left) in [
            ("a.g", &["v1"][..], true, &["v1"][..]),
            ("a.g", &["v1"], false, &["v1"]),
            ("b.g", &["v1"], false, &["v1"]),
            ("b.g", &["v1", "v2"], true, &["v1", "v2"]),
            ("a.g", &[], false, &["v1", "v2"]),
            ("b.g", &["v2"], true, &["v2"]),
            ("b.g", &[], true, &[]),
            ("b.g", &[], false, &[]),
        ] {
            assert_eq!(known.put(name, of(versions)), expect, "{name} {versions:?}");
            let there: Vec<GroupVersion> = known.group_versions().cloned().collect();
            assert_eq!(there, of(left), "{name} {versions:?}");
        }
        assert!(known.served.is_empty());
    }
}
