//! The resource quota controller: `status.hard` follows `spec.hard`, and `status.used` what is there.
//!
//! The API server charges a quota in the transaction that writes an object; this controller counts again when something
//! went, changed, or was there before the quota. Invariant: a count never takes back a charge for an object that the
//! controller has not heard of yet. A charge has the revision of its object, so counting waits until the charged resource
//! is known up to the quota's revision, and the write names that revision.
//!
//! Source: `pkg/controller/resourcequota/resource_quota_controller.go`.

mod monitor;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api::{GroupResource, Value, meta};
use client::informer::{Delta, Informer, Selection};
use client::queue::WorkQueue;
use client::worker::Next;
use client::{Error, Resource, resources};
use jiff::Timestamp;
use parking_lot::Mutex;
use quota::{Amounts, DeviceClasses, Quota, amounts, tracked_by};

use crate::context::{Context, Name, Pace, synced};
use monitor::{Devices, Monitor};

/// Source: `--concurrent-resource-quota-syncs`.
const WORKERS: usize = 5;
/// What claims are for, and pods ask for by name.
const DEVICE_CLASSES: Resource = Resource::new("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", false);
/// What a resource has to be able to do to be counted. Source: `GetQuotableResources`.
const COUNTABLE: [&str; 4] = ["create", "list", "watch", "delete"];

/// Starts the controller.
pub(crate) fn start(context: Context) {
    let quotas = context
        .informers
        .informer_of::<Value>(resources::RESOURCE_QUOTAS, Selection::all());
    let controller = Arc::new(Controller {
        context: context.clone(),
        quotas: quotas.clone(),
        queue: WorkQueue::new().named("resourcequota_primary"),
        monitors: Mutex::default(),
        classes: OnceLock::new(),
        written: Mutex::default(),
        charged: Mutex::default(),
        pace: Pace::default(),
    });
    context.watch(&quotas, {
        let controller = controller.clone();
        move |delta| controller.heard(&delta)
    });
    let queue = controller.queue.clone();
    context.work(queue, vec![synced(&quotas)], WORKERS, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    context: Context,
    quotas: Informer<Value>,
    queue: WorkQueue<Name>,
    monitors: Mutex<HashMap<GroupResource, Arc<dyn Monitor>>>,
    /// Known once claims for devices are counted.
    classes: OnceLock<Informer<Value>>,
    /// What the controller itself wrote last as `status.used`: no charge.
    written: Mutex<HashMap<Name, Amounts>>,
    /// Up to which revision a resource has to be known before a quota is counted.
    charged: Mutex<HashMap<Name, BTreeMap<GroupResource, u64>>>,
    pace: Pace,
}

fn key_of(quota: &Value) -> Name {
    (meta::namespace(quota).to_owned(), meta::name(quota).to_owned())
}

impl Controller {
    fn heard(&self, delta: &Delta<Value>) {
        let Some(quota) = delta.object() else { return };
        let key = key_of(quota);
        match delta {
            Delta::Updated { old, new } => {
                let (old, new_read) = (Quota::of(old), Quota::of(new));
                let revision = meta::resource_version(new).parse().unwrap_or(0);
                if self.written.lock().get(&key) != Some(&new_read.used) {
                    let mut charged = self.charged.lock();
                    for resource in charged_resources(&old.used, &new_read.used) {
                        charged.entry(key.clone()).or_default().insert(resource, revision);
                    }
                }
            }
            Delta::Deleted(_) => {
                self.written.lock().remove(&key);
                self.charged.lock().remove(&key);
                self.pace.forget(&key);
            }
            Delta::Added(_) | Delta::Synced => {}
        }
        self.queue.add(key);
    }

    async fn sync(self: &Arc<Self>, key: &Name) -> Result<Next, Error> {
        let Some(stored) = self.quotas.get(&key.0, &key.1) else {
            return Ok(Next::Wait);
        };
        let quota = Quota::of(&stored);
        let resources: BTreeSet<GroupResource> = quota.wanted.keys().flat_map(|name| tracked_by(name)).collect();
        let mut monitors = Vec::new();
        for resource in resources {
            if let Some(monitor) = self.monitor(&resource).await? {
                if !monitor.synced().await {
                    return Ok(Next::Wait);
                }
                monitors.push((resource, monitor));
            }
        }
        for (resource, monitor) in &monitors {
            let charged = self.charged.lock().get(key).and_then(|all| all.get(resource).copied());
            if let Some(revision) = charged.filter(|revision| monitor.revision() < *revision) {
                self.count_after(key, monitor.seen(revision));
                return Ok(Next::Wait);
            }
        }
        let now = self.context.clock.now();
        let classes = match self.classes.get() {
            Some(classes) if !synced(classes).await => return Ok(Next::Wait),
            Some(classes) => DeviceClasses::of(classes.list().iter().map(|class| Value::clone(class))),
            None => DeviceClasses::default(),
        };
        let is_pods = |resource: &GroupResource| resource.group.is_empty() && resource.resource == "pods";
        let pods = monitors.iter().find(|(resource, _)| is_pods(resource));
        let devices = Devices {
            classes: &classes,
            pods: pods.map(|(_, monitor)| &**monitor),
        };
        let counts: Vec<_> = monitors
            .iter()
            .map(|(_, monitor)| monitor.count(&key.0, &quota, now, &devices))
            .collect();
        let until = counts.iter().filter_map(|count| count.until).min();
        let next = until.map_or(Next::Wait, |until| Next::After(wait(now, until)));
        let used = used(&quota, counts.iter().map(|count| &count.used));
        if used == quota.used && quota.wanted == quota.hard {
            return Ok(next);
        }
        if quota.wanted == quota.hard
            && let Some(delay) = self.pace.wait(key, counts.iter().map(|count| count.objects).sum())
        {
            return Ok(Next::After(delay));
        }
        let mut body = Value::clone(&stored);
        let shown = used
            .iter()
            .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
        body["status"] = serde_json::json!({"hard": body["spec"]["hard"], "used": Value::Object(shown.collect())});
        self.written.lock().insert(key.clone(), used);
        let resource = &resources::RESOURCE_QUOTAS;
        match self
            .context
            .client
            .update(resource, &key.0, &key.1, Some("status"), &body)
            .await
        {
            Ok(written) => {
                self.quotas.seen(meta::resource_version(&written)).await;
                Ok(next)
            }
            Err(error) if error.is_not_found() => Ok(Next::Wait),
            Err(error) if error.is_conflict() => Ok(Next::Retry),
            Err(error) => Err(error),
        }
    }

    /// The monitor of a resource; `None`: it is not served, and nothing of it counts.
    async fn monitor(self: &Arc<Self>, wanted: &GroupResource) -> Result<Option<Arc<dyn Monitor>>, Error> {
        if let Some(monitor) = self.monitors.lock().get(wanted) {
            return Ok(Some(monitor.clone()));
        }
        let found = self.context.informers.client().discover().await?;
        let mut countable = found.preferred(&COUNTABLE).into_iter();
        let Some(resource) = countable.find(|one| one.namespaced && one.group_resource() == *wanted) else {
            return Ok(None);
        };
        if *wanted == claims() {
            self.follow_classes();
        }
        let mut monitors = self.monitors.lock();
        let monitor = monitors.entry(wanted.clone()).or_insert_with(|| {
            let controller = Arc::downgrade(self);
            monitor::start(&self.context, resource, move |namespace| {
                if let Some(controller) = controller.upgrade() {
                    controller.recount(namespace);
                }
            })
        });
        Ok(Some(monitor.clone()))
    }

    /// A class that comes, goes or stands for something else changes what all claims take.
    fn follow_classes(self: &Arc<Self>) {
        self.classes.get_or_init(|| {
            let classes = self
                .context
                .informers
                .informer_of::<Value>(DEVICE_CLASSES, Selection::all());
            let controller = Arc::downgrade(self);
            self.context.watch(&classes, move |delta| {
                let Some(controller) = controller.upgrade().filter(|_| !matches!(delta, Delta::Synced)) else {
                    return;
                };
                for quota in controller.quotas.list() {
                    controller.queue.add(key_of(&quota));
                }
            });
            classes
        });
    }

    fn recount(&self, namespace: &str) {
        for quota in self.quotas.list_namespace(namespace) {
            self.queue.add(key_of(&quota));
        }
    }

    /// Counts once a charged object is known.
    fn count_after(&self, key: &Name, known: futures::future::BoxFuture<'static, bool>) {
        let (queue, key, stop) = (self.queue.clone(), key.clone(), self.context.shutdown.clone());
        self.context.shutdown.spawn(async move {
            if stop.until(known).await == Some(true) {
                queue.add(key);
            }
        });
    }
}

fn claims() -> GroupResource {
    GroupResource {
        group: DEVICE_CLASSES.group.to_string(),
        resource: "resourceclaims".into(),
    }
}

/// The resources of which something else is used now.
fn charged_resources(old: &Amounts, new: &Amounts) -> BTreeSet<GroupResource> {
    let changed = new.iter().filter(|(name, amount)| old.get(*name) != Some(amount));
    changed.flat_map(|(name, _)| tracked_by(name)).collect()
}

/// What is used of all that is limited: as counted, and as it was where nothing counts it.
fn used<'a>(quota: &Quota, counts: impl Iterator<Item = &'a Amounts>) -> Amounts {
    let mut used = quota.used.clone();
    used.retain(|name, _| quota.wanted.contains_key(name));
    let mut counted = Amounts::new();
    counts.for_each(|count| amounts::add(&mut counted, count));
    used.extend(counted);
    used
}

fn wait(now: Timestamp, until: Timestamp) -> Duration {
    let left = until.duration_since(now).unsigned_abs();
    // Only after that moment it is less.
    left + Duration::from_millis(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testkit::Bench;

    const CONFIG_MAPS: Resource = Resource::new("", "v1", "configmaps", "ConfigMap", true);

    fn quota(hard: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "n"},
            "spec": {"hard": hard}})
    }

    fn pod(name: &str, cpu: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    fn bench() -> Bench {
        let bench = Bench::new();
        bench.api.serve(resources::RESOURCE_QUOTAS);
        bench.api.serve(resources::PODS);
        bench.api.serve(CONFIG_MAPS);
        bench
    }

    fn status(bench: &Bench) -> Value {
        let quota = bench.api.get(&resources::RESOURCE_QUOTAS, "n", "q").unwrap();
        quota["status"].clone()
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_follows_what_is_there() {
        let bench = bench();
        bench.api.put(pod("a", "1"));
        let hard = json!({"pods": "5", "requests.cpu": "4", "configmaps": "9", "count/widgets.example.com": "1"});
        bench.api.put(quota(hard.clone()));
        start(bench.context("resourcequota-controller"));
        bench.idle().await;
        let expect = |pods: &str, cpu: &str, maps: &str| json!({"hard": hard, "used": {"configmaps": maps, "pods": pods, "requests.cpu": cpu}});
        assert_eq!(status(&bench), expect("1", "1", "0"));
        bench.api.put(pod("b", "500m"));
        bench
            .api
            .put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}}));
        bench.idle().await;
        assert_eq!(status(&bench), expect("2", "1500m", "1"));
        bench.set_status(&resources::PODS, "n", "a", json!({"phase": "Succeeded"}));
        bench.api.remove(&CONFIG_MAPS, "n", "m");
        bench.idle().await;
        assert_eq!(status(&bench), expect("1", "500m", "0"));
        bench.api.edit(&resources::RESOURCE_QUOTAS, "n", "q", |quota| {
            quota["spec"]["hard"] = json!({"pods": "1"})
        });
        bench.idle().await;
        assert_eq!(status(&bench), json!({"hard": {"pods": "1"}, "used": {"pods": "1"}}));
        bench.api.take_requests();
        bench.idle().await;
        assert_eq!(bench.api.take_writes(), Vec::<String>::new(), "idle means idle");
        bench.end().await;
    }

    /// Pods ask for devices by name, claims by class; a claim that was made for a pod takes nothing more.
    #[tokio::test(start_paused = true)]
    async fn devices_count_by_the_name_that_their_class_stands_for() {
        const CLAIMS: Resource = Resource::new("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true);
        let bench = bench();
        bench.api.serve(CLAIMS);
        bench.api.serve(DEVICE_CLASSES);
        let claim = |name: &str| {
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name, "namespace": "n"},
                "spec": {"devices": {"requests": [{"exactly": {"deviceClassName": "gpu", "count": 2}}]}}})
        };
        let mut pod = pod("p", "1");
        pod["spec"]["containers"][0]["resources"]["requests"] = json!({"example.com/gpu": "2"});
        bench.api.put(pod);
        bench.api.put(claim("own"));
        bench.api.put(quota(json!({"requests.example.com/gpu": "9"})));
        start(bench.context("resourcequota-controller"));
        bench.idle().await;
        let used = |bench: &Bench| status(bench)["used"]["requests.example.com/gpu"].clone();
        assert_eq!(used(&bench), "2");
        let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"},
            "spec": {"extendedResourceName": "example.com/gpu"}});
        bench.api.put(class);
        bench.idle().await;
        assert_eq!(used(&bench), "4");
        let stored = bench.api.get(&resources::PODS, "n", "p").unwrap();
        let mut made = claim("made");
        made["metadata"]["annotations"] = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
        made["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p",
            "uid": stored["metadata"]["uid"], "controller": true}]);
        bench.api.put(made);
        bench.idle().await;
        assert_eq!(used(&bench), "4");
        // Made for itself, it takes the same and counts beside the pod.
        let forget = |claim: &mut Value| claim["metadata"]["annotations"] = json!({});
        bench.api.edit(&CLAIMS, "n", "made", forget);
        bench.idle().await;
        assert_eq!(used(&bench), "6");
        bench.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_charge_for_what_is_not_known_yet_stays() {
        let bench = bench();
        bench.api.put(quota(json!({"pods": "5"})));
        start(bench.context("resourcequota-controller"));
        bench.idle().await;
        assert_eq!(status(&bench)["used"]["pods"], "0");
        // The server writes pod and charge; the controller hears of the charge first.
        bench.api.freeze_watches_of(&resources::PODS);
        bench.api.put(pod("a", "1"));
        bench.api.edit(&resources::RESOURCE_QUOTAS, "n", "q", |quota| {
            quota["status"]["used"] = json!({"pods": "1"})
        });
        bench.idle().await;
        assert_eq!(status(&bench)["used"]["pods"], "1");
        bench.api.thaw_watches();
        bench.api.put(pod("b", "1"));
        bench.idle().await;
        assert_eq!(status(&bench)["used"]["pods"], "2");
        bench.end().await;
    }
}
