//! Discovery: what is served, in the three shapes that clients ask for: `/api`, `/apis` and their group versions (v1),
//! and aggregated (`apidiscovery.k8s.io/v2`; upstream removed v2beta1 in v1.33) with an ETag; each of them in JSON, YAML and
//! protobuf.
//!
//! Made from the registry and kept until it changes.

mod messages;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::OnceLock;

use http::HeaderMap;
use http::Response;
use http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use serde_json::json;
use sha2::{Digest, Sha256};

use api::codec::yaml;
use api::{Map, Status, Value};
use client::{Body, body_of};
use kinds::row::ServedVersion;

use crate::aggregation::discovery::Own;
use crate::aggregation::priorities;
use crate::call::Call;
use crate::registry::Registry;
use crate::respond::negotiate::{self, Media, Offers};
use crate::respond::{self, body};
use crate::virtuals::{self, Virtual};

/// The group and the kind of aggregated documents.
const GROUP: &str = "apidiscovery.k8s.io";
const VERSION: &str = "v2";
const KIND: &str = "APIGroupDiscoveryList";

/// Everything about discovery for one registry.
pub struct Discovery {
    /// The registry's.
    pub epoch: u64,
    groups: Vec<Group>,
    aggregated_core: Aggregated,
}

struct Group {
    name: String,
    /// Preferred first.
    versions: Vec<Version>,
}

struct Version {
    version: String,
    resources: Vec<Entry>,
}

/// An aggregated document in all that it is asked for.
pub(crate) struct Aggregated {
    json: bytes::Bytes,
    /// For people; made for the first who asks, as the others.
    indented: OnceLock<bytes::Bytes>,
    yaml: OnceLock<bytes::Bytes>,
    protobuf: OnceLock<bytes::Bytes>,
    /// Of the JSON, in whatever it is encoded (upstream: `calculateETag`).
    etag: String,
}

/// One resource or virtual resource with its subresources.
struct Entry {
    plural: String,
    singular: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<&'static str>,
    short_names: Vec<String>,
    categories: Vec<String>,
    subresources: Vec<SubEntry>,
    /// The version whose hash tells migrators what is stored.
    stored: String,
    /// Whether it is a custom resource.
    is_custom: bool,
}

struct SubEntry {
    name: &'static str,
    /// The body's group, version and kind; the group version is left out of the v1 shape when it is the resource's own.
    kind: (String, String, String),
    verbs: Vec<&'static str>,
}

impl Discovery {
    /// Builds all documents.
    pub fn new(registry: &Registry) -> Discovery {
        let groups = collect(registry);
        let core = groups.iter().filter(|group| group.name.is_empty());
        let aggregated_core = Aggregated::of(core.map(Group::aggregated).collect());
        Discovery {
            epoch: registry.epoch,
            aggregated_core,
            groups,
        }
    }

    /// `/api`.
    pub fn core(&self, call: &Call) -> Result<Response<Body>, Status> {
        let legacy = json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": call.server.advertised}],
        });
        negotiated(call, &legacy, &self.aggregated_core)
    }

    /// Every group version with its entry, for [`crate::aggregation`], which puts those of other servers beside them.
    pub(crate) fn own(&self) -> Vec<Own> {
        let of = |group: &Group, version: &Version| Own {
            group: group.name.clone(),
            version: version.version.clone(),
            listed: version.aggregated(&group.name),
        };
        let groups = self.groups.iter();
        groups
            .flat_map(|group| group.versions.iter().map(move |version| of(group, version)))
            .collect()
    }

    /// `/api/v1` and `/apis/<group>/<version>`.
    pub fn version(&self, call: &Call, group: &str, version: &str) -> Result<Response<Body>, Status> {
        let group = self
            .groups
            .iter()
            .find(|own| own.name == group)
            .ok_or_else(Status::no_such_path)?;
        let version = group
            .versions
            .iter()
            .find(|own| own.version == version)
            .ok_or_else(Status::no_such_path)?;
        plain(call, &version.v1(&group.name))
    }

    /// The group versions, for OpenAPI's index and the path list: `api/v1`, `apis/apps/v1`.
    pub fn group_versions(&self) -> impl Iterator<Item = String> {
        self.groups.iter().flat_map(|group| {
            group.versions.iter().map(|version| match &*group.name {
                "" => format!("api/{}", version.version),
                name => format!("apis/{name}/{}", version.version),
            })
        })
    }
}

/// The aggregated document for who asks for it, the older one for everybody else.
pub(crate) fn negotiated(call: &Call, legacy: &Value, aggregated: &Aggregated) -> Result<Response<Body>, Status> {
    tracing::trace!(target: "walk", "discovery");
    let accept = negotiate::accept(&call.headers);
    for clause in negotiate::clauses(&accept) {
        let Some(media) = Media::of(&clause) else { continue };
        if clause.param("as").is_empty() {
            break;
        }
        if [clause.param("g"), clause.param("v"), clause.param("as")] == [GROUP, VERSION, KIND] {
            let pretty = call.output.pretty || clause.param("pretty") == "1";
            return aggregated.answer(&call.headers, media, pretty);
        }
    }
    plain(call, legacy)
}

/// A document in what is asked for.
pub(crate) fn plain(call: &Call, document: &Value) -> Result<Response<Body>, Status> {
    let output = negotiate::negotiate(&call.headers, &call.query, Offers::PLAIN)?;
    let mut response = respond::negotiated(&output, document);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

impl Aggregated {
    /// The document of some groups.
    pub(crate) fn of(items: Vec<Value>) -> Aggregated {
        let document = json!({
            "kind": KIND,
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "metadata": {},
            "items": items,
        });
        let bytes = body::document(&document, false);
        let etag = format!("\"{:X}\"", Sha256::digest(&bytes));
        Aggregated {
            json: bytes.into(),
            indented: OnceLock::new(),
            yaml: OnceLock::new(),
            protobuf: OnceLock::new(),
            etag,
        }
    }

    fn bytes(&self, media: Media, pretty: bool) -> bytes::Bytes {
        let value = || serde_json::from_slice(&self.json).expect("invariant: we made it of a tree");
        let made = match media {
            Media::Json if pretty => self.indented.get_or_init(|| body::document(&value(), true).into()),
            Media::Json => return self.json.clone(),
            Media::Yaml => self.yaml.get_or_init(|| yaml::encode(&value()).into()),
            Media::Protobuf => self.protobuf.get_or_init(|| messages::encode(&value()).into()),
        };
        made.clone()
    }

    fn answer(&self, headers: &HeaderMap, media: Media, pretty: bool) -> Result<Response<Body>, Status> {
        let known = headers
            .get(IF_NONE_MATCH)
            .is_some_and(|value| value.as_bytes() == self.etag.as_bytes());
        let mut response = if known {
            let mut response = Response::new(body_of(""));
            *response.status_mut() = http::StatusCode::NOT_MODIFIED;
            response
        } else {
            let bytes = self.bytes(media, pretty);
            body::compressed(headers, bytes.len(), body::typed(200, media.as_str(), bytes))
        };
        let media = format!("{};g={GROUP};v={VERSION};as={KIND}", media.as_str());
        let media = HeaderValue::from_str(&media).map_err(Status::internal)?;
        response.headers_mut().insert(CONTENT_TYPE, media);
        let headers = response.headers_mut();
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            headers.insert(ETAG, etag);
        }
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public"));
        Ok(response)
    }
}

fn collect(registry: &Registry) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut add = |group: &str, version: &str, entry: Entry| {
        let index = match places.get(group) {
            Some(index) => *index,
            None => {
                places.insert(group.to_owned(), groups.len());
                groups.push(Group {
                    name: group.to_owned(),
                    versions: Vec::new(),
                });
                groups.len() - 1
            }
        };
        let versions = &mut groups[index].versions;
        match versions.iter_mut().find(|own| own.version == version) {
            Some(own) => own.resources.push(entry),
            None => versions.push(Version {
                version: version.to_owned(),
                resources: vec![entry],
            }),
        }
    };
    for served in registry.served() {
        add(
            &served.gvr.group,
            &served.gvr.version,
            Entry::of(served.kind.row.singular.as_ref(), served.version(), served),
        );
    }
    for entry in virtuals::ALL {
        add(entry.group, entry.version, Entry::of_virtual(entry));
    }
    // Upstream's order; groups that it does not know follow by name.
    groups.sort_by_cached_key(|group| {
        let versions = group.versions.iter();
        let priority = versions.map(|version| priorities::local(&group.name, &version.version).group);
        (Reverse(priority.max()), group.name.clone())
    });
    for group in &mut groups {
        group
            .versions
            .sort_by_key(|version| Reverse(version_rank(&version.version)));
        for version in &mut group.versions {
            version.resources.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    groups
}

/// Kubernetes' order of versions: v2, v1, v1beta2, v1beta1, v1alpha1, then others.
pub(crate) fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let (stability, major, minor) = match (rest.split_once("alpha"), rest.split_once("beta")) {
        (Some((major, minor)), _) => (1, major, minor),
        (_, Some((major, minor))) => (2, major, minor),
        _ => (3, rest, "0"),
    };
    match (major.parse(), minor.parse()) {
        (Ok(major), Ok(minor)) => (stability, major, minor),
        _ => (0, 0, 0),
    }
}

impl Entry {
    fn of(singular: &str, version: &ServedVersion, served: &crate::registry::Served) -> Entry {
        let own = &served.gvk;
        let subresources = version.subresources.iter().map(|subresource| {
            let kind = match subresource.kind {
                Some((group, version, kind)) => (group.into(), version.into(), kind.into()),
                None => (own.group.clone(), own.version.clone(), own.kind.clone()),
            };
            SubEntry {
                name: subresource.name,
                kind,
                verbs: sorted(subresource.verbs),
            }
        });
        let mut verbs = sorted(version.verbs);
        // Of what is going nothing new is made.
        if served
            .kind
            .custom
            .as_ref()
            .is_some_and(|custom| custom.definition.terminating)
        {
            verbs.retain(|verb| !matches!(*verb, "create" | "patch" | "update"));
        }
        let mut subresources: Vec<SubEntry> = subresources.collect();
        subresources.sort_by_key(|subresource| subresource.name);
        Entry {
            plural: served.gvr.resource.clone(),
            singular: singular.to_owned(),
            kind: own.kind.clone(),
            namespaced: served.kind.row.namespaced,
            verbs,
            short_names: version.short_names().into_iter().map(str::to_owned).collect(),
            categories: version.categories().into_iter().map(str::to_owned).collect(),
            subresources,
            stored: match &served.kind.custom {
                Some(custom) => custom.definition.versions[custom.definition.storage]
                    .gvk
                    .version
                    .clone(),
                None => own.version.clone(),
            },
            is_custom: served.kind.custom.is_some(),
        }
    }

    fn of_virtual(entry: &Virtual) -> Entry {
        Entry {
            plural: entry.plural.into(),
            singular: entry.kind.to_lowercase(),
            kind: entry.kind.into(),
            namespaced: entry.namespaced,
            verbs: sorted(entry.verbs),
            short_names: entry.short_names.iter().map(|name| (*name).to_owned()).collect(),
            categories: Vec::new(),
            subresources: Vec::new(),
            stored: entry.version.into(),
            is_custom: false,
        }
    }
}

fn sorted(verbs: &[&'static str]) -> Vec<&'static str> {
    let mut verbs = verbs.to_vec();
    verbs.sort_unstable();
    verbs
}

impl Group {
    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|version| version.aggregated(&self.name))
            .collect();
        let mut metadata = Map::new();
        if !self.name.is_empty() {
            metadata.insert("name".into(), self.name.clone().into());
        }
        metadata.insert("creationTimestamp".into(), Value::Null);
        json!({"metadata": metadata, "versions": versions})
    }
}

impl Version {
    fn v1(&self, group: &str) -> Value {
        let group_version = if group.is_empty() {
            self.version.clone()
        } else {
            format!("{group}/{}", self.version)
        };
        let mut resources = Vec::new();
        for entry in &self.resources {
            let mut resource = json!({
                "name": entry.plural, "singularName": entry.singular, "namespaced": entry.namespaced,
                "kind": entry.kind, "verbs": entry.verbs,
            });
            if !entry.short_names.is_empty() {
                resource["shortNames"] = json!(entry.short_names);
            }
            if !entry.categories.is_empty() {
                resource["categories"] = json!(entry.categories);
            }
            if entry.verbs.contains(&"list") {
                resource["storageVersionHash"] = storage_version_hash(group, &entry.stored, &entry.kind).into();
            }
            resources.push(resource);
            for sub in &entry.subresources {
                let mut resource = json!({
                    "name": format!("{}/{}", entry.plural, sub.name), "singularName": "",
                    "namespaced": entry.namespaced, "kind": sub.kind.2, "verbs": sub.verbs,
                });
                if (&*sub.kind.0, &*sub.kind.1) != (group, &*self.version) {
                    resource["group"] = sub.kind.0.clone().into();
                    resource["version"] = sub.kind.1.clone().into();
                }
                resources.push(resource);
            }
        }
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
    }

    fn aggregated(&self, group: &str) -> Value {
        let resources: Vec<Value> = self
            .resources
            .iter()
            .map(|entry| entry.aggregated(group, &self.version))
            .collect();
        json!({"version": self.version, "resources": resources, "freshness": "Current"})
    }
}

impl Entry {
    fn aggregated(&self, group: &str, version: &str) -> Value {
        // Of what is built in, the group and version of the list go without saying; definitions of custom resources say them.
        let kind = |own: &str, of: &str, kind: &str| match !self.is_custom && (own, of) == (group, version) {
            true => json!({"group": "", "version": "", "kind": kind}),
            false => json!({"group": own, "version": of, "kind": kind}),
        };
        let mut resource = json!({
            "resource": self.plural,
            "responseKind": kind(group, version, &self.kind),
            "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": self.singular,
            "verbs": self.verbs,
        });
        if !self.short_names.is_empty() {
            resource["shortNames"] = json!(self.short_names);
        }
        if !self.categories.is_empty() {
            resource["categories"] = json!(self.categories);
        }
        if !self.subresources.is_empty() {
            let subs = self.subresources.iter().map(|sub| {
                let (group, version, name) = &sub.kind;
                json!({
                    "subresource": sub.name,
                    "responseKind": kind(group, version, name),
                    "verbs": sub.verbs,
                })
            });
            resource["subresources"] = subs.collect();
        }
        resource
    }
}

/// Upstream's hash of what is stored: the same for the same kind, so that migrators notice changes.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_kubernetes_orders_them() {
        let mut versions = ["v1alpha1", "v1", "v1beta2", "v2", "foo", "v1beta10"];
        versions.sort_by_key(|version| Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
