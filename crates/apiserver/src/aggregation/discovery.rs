//! Discovery of all group versions, whoever answers for them: what other servers say of theirs, put together with our own.
//!
//! Each server is asked for its aggregated discovery, and when it knows none, for the list of the group version. A server that
//! does not answer has its group versions listed without resources, as stale; clients know that there is more than they see.
//! Source: `k8s.io/kube-aggregator/pkg/apiserver/{handler_discovery,handler_apis}.go`, and
//! `k8s.io/apiserver/pkg/endpoints/discovery/aggregated`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{Status, Value};
use base::Shutdown;
use client::Body;
use client::queue::WorkQueue;
use client::worker::Next;
use http::Response;
use http::header::{CONTENT_TYPE, ETAG};
use http::response::Parts;
use parking_lot::Mutex;
use serde_json::json;

use super::availability::own_user;
use super::priorities::{self, Priority};
use super::remote::{Question, Remote};
use super::service::{ApiService, Ranked, ServiceReference, in_order, name_of};
use super::{Aggregation, Entry, Table};
use crate::call::Call;
use crate::discovery::{Aggregated, Discovery, negotiated, plain};
use crate::request::UserInfo;

/// Upstream's workers.
const WORKERS: usize = 2;
/// How often a server is asked for what may have changed, and at most how long until it is asked again after it failed.
/// Source: `discoveryRefreshInterval`.
const REFRESH: Duration = Duration::from_secs(60);
/// How soon it is asked again after it failed for the first time.
const RETRY_INITIAL: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer: this server's own is a tenth of a megabyte, and thousands of kinds are ten times that.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is asked for. Both versions have the same shape.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// A group and a version of it.
type GroupVersion = (String, String);

/// What other servers say of their group versions.
#[derive(Default)]
pub(crate) struct Discovered {
    epoch: AtomicU64,
    versions: Mutex<BTreeMap<GroupVersion, Value>>,
    /// What servers said of all their group versions at once, with the tag under which they said it.
    said: Mutex<HashMap<ServiceReference, (String, HashMap<GroupVersion, Value>)>>,
    /// The documents of all group versions.
    merged: Mutex<Option<Arc<Merged>>>,
}

/// The documents of all group versions but those of the core group.
pub(crate) struct Merged {
    /// Of our own discovery, of the APIServices, and of what other servers say.
    epochs: (u64, u64, u64),
    groups: Vec<Value>,
    aggregated: Aggregated,
}

/// A group version of our own, as it is listed.
pub(crate) struct Own {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The entry of aggregated discovery.
    pub listed: Value,
}

/// Starts to ask the servers of APIServices.
pub(super) fn start(aggregation: &Arc<Aggregation>, shutdown: &Shutdown) {
    let queue = WorkQueue::<String>::with_retry(RETRY_INITIAL, REFRESH).named("discovery-manager");
    aggregation.work(queue, WORKERS, shutdown, sync);
}

async fn sync(aggregation: Arc<Aggregation>, name: String) -> Result<Next, String> {
    let name = &*name;
    let discovered = &aggregation.discovered;
    let table = aggregation.table();
    discovered.keep_only(&table);
    let Some(entry) = table.get(name).filter(|entry| entry.remote.is_some()) else {
        return Ok(Next::Wait);
    };
    let service = &entry.service;
    if !service.is_available {
        // When it is, that is told.
        discovered.put(service, stale(service));
        return Ok(Next::Wait);
    }
    match fetch(discovered, entry).await {
        Ok(version) => {
            discovered.put(service, version);
            Ok(Next::After(REFRESH))
        }
        Err(why) => {
            discovered.put(service, stale(service));
            Err(why)
        }
    }
}

/// A group version of which nothing is known.
fn stale(service: &ApiService) -> Value {
    json!({"version": service.version, "freshness": "Stale"})
}

/// What a server says of a group version now.
async fn fetch(discovered: &Discovered, entry: &Entry) -> Result<Value, String> {
    let (service, remote) = match &entry.remote {
        Some(remote) => (&entry.service, remote),
        None => return Err("service unavailable".into()),
    };
    let reference = &remote.backend().service;
    let known = discovered.said.lock().get(reference).cloned();
    let etag = known.as_ref().map_or("", |(etag, _)| etag);
    let (head, body) = ask(remote, "/apis", ACCEPT, etag, own_user()).await?;
    let key = (service.group.clone(), service.version.clone());
    let of = |said: &HashMap<GroupVersion, Value>| {
        let nothing = || json!({"version": service.version, "freshness": "Current"});
        said.get(&key).cloned().unwrap_or_else(nothing)
    };
    match (head.status.as_u16(), known) {
        (304, Some((_, said))) => return Ok(of(&said)),
        (503, _) => {
            let ServiceReference { namespace, name, port } = reference;
            return Err(format!(
                "service {namespace}/{name}:{port} returned non-success response code: 503"
            ));
        }
        (200, _) if is_aggregated(&head) => {
            let list: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let said = read(&list);
            let etag = head.headers.get(ETAG).and_then(|value| value.to_str().ok());
            let found = of(&said);
            let etag = etag.unwrap_or("").to_owned();
            discovered.said.lock().insert(reference.clone(), (etag, said));
            return Ok(found);
        }
        _ => {}
    }
    let path = match &*service.group {
        "" => format!("/api/{}", service.version),
        group => format!("/apis/{group}/{}", service.version),
    };
    let user = UserInfo {
        groups: Vec::new(),
        ..own_user()
    };
    let (head, body) = ask(remote, &path, "application/json", "", user).await?;
    if head.status.as_u16() != 200 {
        let said = String::from_utf8_lossy(&body);
        return Err(format!(
            "failed to download legacy discovery for {path}: {} {said}",
            head.status.as_u16()
        ));
    }
    let list: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let resources = converted(&list["resources"])?;
    Ok(json!({"version": service.version, "resources": resources, "freshness": "Current"}))
}

async fn ask(
    remote: &Remote,
    path: &str,
    accept: &str,
    etag: &str,
    user: UserInfo,
) -> Result<(Parts, bytes::Bytes), String> {
    let endpoint = remote.endpoint()?;
    let question = Question {
        path,
        accept,
        etag,
        user,
        bytes_max: ANSWER_BYTES_MAX,
    };
    let asked = tokio::time::timeout(TIMEOUT, remote.ask(&endpoint, &question)).await;
    asked.unwrap_or_else(|_| Err("request timed out".into()))
}

/// Whether an answer is aggregated discovery: a server that knows none answers something else.
fn is_aggregated(head: &Parts) -> bool {
    let media = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let mut parts = media.unwrap_or("").split(';').map(str::trim);
    let json = parts.next() == Some("application/json");
    let params: Vec<&str> = parts.collect();
    let version = params.contains(&"v=v2") || params.contains(&"v=v2beta1");
    json && version && params.contains(&"g=apidiscovery.k8s.io") && params.contains(&"as=APIGroupDiscoveryList")
}

/// The group versions of an aggregated document. Only what has a name is taken over: what is passed on is ours to answer for.
fn read(list: &Value) -> HashMap<GroupVersion, Value> {
    let mut all = HashMap::new();
    for group in items(&list["items"]) {
        let name = text(&group["metadata"]["name"]);
        for version in items(&group["versions"]) {
            let resources: Vec<Value> = items(&version["resources"]).map(resource).collect();
            let entry = json!({"version": text(&version["version"]), "resources": resources, "freshness": "Current"});
            all.insert((name.clone(), text(&version["version"])), entry);
        }
    }
    all
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}

fn texts(value: &Value) -> Vec<&str> {
    items(value).filter_map(Value::as_str).collect()
}

fn resource(from: &Value) -> Value {
    let mut resource = json!({
        "resource": text(&from["resource"]), "responseKind": kind(&from["responseKind"]), "scope": text(&from["scope"]),
        "singularResource": text(&from["singularResource"]), "verbs": texts(&from["verbs"]),
    });
    for field in ["shortNames", "categories"] {
        let texts = texts(&from[field]);
        if !texts.is_empty() {
            resource[field] = json!(texts);
        }
    }
    let subresources: Vec<Value> = items(&from["subresources"])
        .map(|sub| {
            json!({"subresource": text(&sub["subresource"]), "responseKind": kind(&sub["responseKind"]),
                "verbs": texts(&sub["verbs"])})
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = subresources.into();
    }
    resource
}

/// There is always one: older clients fall over what has none (kubernetes/kubernetes#118361).
fn kind(from: &Value) -> Value {
    json!({"group": text(&from["group"]), "version": text(&from["version"]), "kind": text(&from["kind"])})
}

/// The older list of a group version's resources in the new shape.
/// Source: `ConvertGroupVersionIntoToDiscovery` of `k8s.io/apiserver/pkg/endpoints/installer.go`.
fn converted(list: &Value) -> Result<Vec<Value>, String> {
    let mut resources: Vec<Value> = Vec::new();
    for from in items(list).filter(|from| from.is_object()) {
        let full = text(&from["name"]);
        let scope = match from["namespaced"].as_bool() {
            Some(true) => "Namespaced",
            _ => "Cluster",
        };
        let Some((parent, name)) = full.split_once('/') else {
            let mut one = from.clone();
            one["resource"] = full.into();
            one["scope"] = scope.into();
            one["singularResource"] = from["singularName"].clone();
            one["responseKind"] = kind(from);
            resources.push(resource(&one));
            continue;
        };
        let index = match resources.iter().position(|resource| resource["resource"] == parent) {
            Some(index) => index,
            None => {
                resources.push(resource(&json!({"resource": parent, "scope": scope})));
                resources.len() - 1
            }
        };
        let owner = &mut resources[index];
        if owner["scope"] != scope {
            let own = text(&owner["scope"]);
            return Err(format!(
                "Error: parent {parent} (scope: {own}) and subresource {name} (scope: {scope}) scope do not match"
            ));
        }
        let sub = json!({"subresource": name, "responseKind": kind(from), "verbs": texts(&from["verbs"])});
        match owner["subresources"].as_array_mut() {
            Some(subresources) => subresources.push(sub),
            None => owner["subresources"] = json!([sub]),
        }
    }
    Ok(resources)
}

// === impl Discovered ===

impl Discovered {
    fn put(&self, service: &ApiService, version: Value) {
        let key = (service.group.clone(), service.version.clone());
        let mut versions = self.versions.lock();
        if versions.get(&key) != Some(&version) {
            versions.insert(key, version);
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets what is said of group versions that other servers do not answer for any more.
    fn keep_only(&self, table: &Table) {
        let mut versions = self.versions.lock();
        let before = versions.len();
        versions.retain(|(group, version), _| table.remote(group, version).is_some());
        if versions.len() != before {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        drop(versions);
        let is_led_to = |reference: &ServiceReference| {
            let mut remotes = table.all().filter_map(|entry| entry.remote.as_ref());
            remotes.any(|remote| remote.backend().service == *reference)
        };
        self.said.lock().retain(|reference, _| is_led_to(reference));
    }
}

// === impl Aggregation ===

impl Aggregation {
    /// The documents of all group versions, made once for each state of them.
    pub fn merged(&self, local: &Discovery) -> Arc<Merged> {
        let table = self.table();
        let epochs = (local.epoch, table.epoch, self.discovered.epoch.load(Ordering::Relaxed));
        let mut kept = self.discovered.merged.lock();
        if let Some(made) = kept.as_ref()
            && made.epochs == epochs
        {
            return made.clone();
        }
        let own = local.own();
        let groups = legacy(&table, &own);
        let items = aggregated(&table, own, &self.discovered.versions.lock());
        let made = Arc::new(Merged {
            epochs,
            groups,
            aggregated: Aggregated::of(items),
        });
        *kept = Some(made.clone());
        made
    }
}

/// `/apis`.
pub(crate) fn groups(call: &Call) -> Result<Response<Body>, Status> {
    let local = call.server.discovery(&call.registry);
    let merged = call.server.aggregation.merged(&local);
    let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": merged.groups});
    negotiated(call, &list, &merged.aggregated)
}

/// `/apis/GROUP`.
pub(crate) fn group(call: &Call, name: &str) -> Result<Response<Body>, Status> {
    let local = call.server.discovery(&call.registry);
    let merged = call.server.aggregation.merged(&local);
    let group = merged.groups.iter().find(|group| group["name"] == name);
    let mut group = group.ok_or_else(Status::no_such_path)?.clone();
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    plain(call, &group)
}

/// The groups as `/apis` lists them for whoever asks for no more: what APIServices say, and our own that have none (yet).
fn legacy(table: &Table, own: &[Own]) -> Vec<Value> {
    let mut groups: BTreeMap<String, Vec<Ranked<()>>> = BTreeMap::new();
    let mut add = |group: &str, version: &str, priority: Priority| {
        let versions = groups.entry(group.to_owned()).or_default();
        versions.push(Ranked {
            version: version.to_owned(),
            group_priority: priority.group,
            version_priority: priority.version,
            what: (),
        });
    };
    for entry in table.all() {
        let service = &entry.service;
        let priority = Priority {
            group: service.group_priority,
            version: service.version_priority,
        };
        add(&service.group, &service.version, priority);
    }
    for Own { group, version, .. } in own {
        if table.get(&name_of(group, version)).is_none() {
            add(group, version, priorities::local(group, version));
        }
    }
    groups.remove("");
    // The group of APIServices is named first, whatever others claim; of those alike, upstream's first APIService by name.
    let sorted = in_order(groups, |group, versions| {
        let names = versions.iter().map(|version| name_of(group, &version.version));
        (group != priorities::OWN_GROUP, names.min())
    });
    let listed = |(name, versions): (String, Vec<Ranked<()>>)| {
        let versions = versions.iter().map(|version| {
            let version = &version.version;
            json!({"groupVersion": format!("{name}/{version}"), "version": version})
        });
        let versions: Vec<Value> = versions.collect();
        json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
    };
    sorted.into_iter().map(listed).collect()
}

/// The groups of aggregated discovery: our own, and those of others in place of or beside them.
fn aggregated(table: &Table, own: Vec<Own>, others: &BTreeMap<GroupVersion, Value>) -> Vec<Value> {
    let mut groups: BTreeMap<String, Vec<Ranked<Value>>> = BTreeMap::new();
    let mut add = |group: String, version: String, priority: Priority, what: Value| {
        groups.entry(group).or_default().push(Ranked {
            version,
            group_priority: priority.group,
            version_priority: priority.version,
            what,
        });
    };
    for Own { group, version, listed } in own {
        let key = (group, version);
        if !others.contains_key(&key) {
            let priority = priorities::local(&key.0, &key.1);
            add(key.0, key.1, priority, listed);
        }
    }
    for ((group, version), listed) in others {
        if let Some(entry) = table.remote(group, version) {
            let priority = Priority {
                group: entry.service.group_priority,
                version: entry.service.version_priority,
            };
            add(group.clone(), version.clone(), priority, listed.clone());
        }
    }
    groups.remove("");
    let sorted = in_order(groups, |group, _| group.to_owned());
    let listed = |(name, versions): (String, Vec<Ranked<Value>>)| {
        let versions: Vec<Value> = versions.into_iter().map(|version| version.what).collect();
        json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
    };
    sorted.into_iter().map(listed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(group: &str, version: &str) -> Own {
        Own {
            group: group.into(),
            version: version.into(),
            listed: json!({"version": version, "resources": [], "freshness": "Current"}),
        }
    }

    fn table(services: &[(&str, &str, i64, i64)]) -> Table {
        let entry = |(group, version, group_priority, version_priority): &(&str, &str, i64, i64)| {
            let name = name_of(group, version);
            let service = ApiService {
                name: name.clone(),
                group: (*group).into(),
                version: (*version).into(),
                group_priority: *group_priority,
                version_priority: *version_priority,
                backend: None,
                is_available: true,
            };
            (name, Arc::new(Entry { service, remote: None }))
        };
        Table {
            epoch: 1,
            services: services.iter().map(entry).collect(),
            remotes: BTreeMap::new(),
        }
    }

    #[test]
    fn groups_are_listed_as_api_services_say() {
        let own = [
            own("", "v1"),
            own("apps", "v1"),
            own("autoscaling", "v1"),
            own("autoscaling", "v2"),
            own("apiregistration.k8s.io", "v1"),
            own("example.com", "v1"),
        ];
        let table = table(&[
            ("", "v1", 18_000, 1),
            ("apps", "v1", 17_800, 15),
            ("wardle.example.com", "v1beta1", 20_000, 1),
            ("wardle.example.com", "v1", 2000, 100),
            ("custom.metrics.k8s.io", "v1beta1", 100, 100),
        ]);
        let listed: Vec<String> = legacy(&table, &own)
            .iter()
            .map(|group| {
                let versions: Vec<&str> = items(&group["versions"])
                    .filter_map(|version| version["version"].as_str())
                    .collect();
                assert_eq!(group["preferredVersion"], group["versions"][0]);
                format!("{} {}", text(&group["name"]), versions.join(","))
            })
            .collect();
        assert_eq!(
            listed,
            [
                "apiregistration.k8s.io v1",
                "wardle.example.com v1,v1beta1",
                "apps v1",
                "autoscaling v2,v1",
                "example.com v1",
                "custom.metrics.k8s.io v1beta1",
            ]
        );
    }

    #[test]
    fn older_lists_are_converted() {
        let list = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"],
                "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "orphans/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale",
                "verbs": ["update"]},
        ]);
        let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
        assert_eq!(
            converted(&list).unwrap(),
            [
                json!({"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced",
                    "responseKind": kind("", "", "Flunder"), "verbs": ["get", "list"], "shortNames": ["fl"],
                    "subresources": [{"subresource": "status", "responseKind": kind("", "", "Flunder"), "verbs": ["get"]}]}),
                json!({"resource": "orphans", "singularResource": "", "scope": "Cluster", "responseKind": kind("", "", ""),
                    "verbs": [], "subresources": [{"subresource": "scale", "verbs": ["update"],
                    "responseKind": kind("autoscaling", "v1", "Scale")}]}),
            ]
        );
        let mixed = json!([{"name": "a", "namespaced": true}, {"name": "a/status", "namespaced": false}]);
        assert_eq!(
            converted(&mixed).unwrap_err(),
            "Error: parent a (scope: Namespaced) and subresource status (scope: Cluster) scope do not match"
        );
    }

    #[test]
    fn aggregated_answers_are_told_by_their_type() {
        for (media, expect) in [
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                true,
            ),
            (
                "application/json; g=apidiscovery.k8s.io; v=v2beta1; as=APIGroupDiscoveryList",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList",
                false,
            ),
            ("application/json", false),
        ] {
            let response = Response::builder().header(CONTENT_TYPE, media).body(()).unwrap();
            assert_eq!(is_aggregated(&response.into_parts().0), expect, "{media}");
        }
    }
}
