//! Which resources the server has: what the garbage collector and the namespace controller work over.
//!
//! Asks for aggregated discovery (two requests) and falls back to the plain lists (one request a version).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde::Deserialize;

use crate::resource::Resource;
use crate::{Client, Error, Result};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// A resource the server has, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedResource {
    /// Its name.
    pub resource: Resource,
    /// Its verbs, such as `list` and `deletecollection`.
    pub verbs: Vec<String>,
    /// Its subresources, such as `status`.
    pub subresources: Vec<String>,
    /// Whether this is the version the server prefers for the group.
    pub preferred: bool,
}

impl ServedResource {
    /// Whether it has all of these verbs.
    pub fn supports(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|have| have == verb))
    }
}

/// What discovery found.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// All resources of all versions.
    pub resources: Vec<ServedResource>,
    /// Groups (`group/version`) whose resources could not be told (an aggregated server is away), with the reason.
    pub failed: Vec<(String, String)>,
}

impl Discovered {
    /// Each resource once, in the version the server prefers among those that have the verbs.
    pub fn preferred(&self, verbs: &[&str]) -> Vec<Resource> {
        let mut chosen: Vec<&ServedResource> = Vec::new();
        let mut places: HashMap<(&str, &str), usize> = HashMap::new();
        for candidate in self.resources.iter().filter(|served| served.supports(verbs)) {
            let resource = &candidate.resource;
            match places.entry((&*resource.group, &*resource.plural)) {
                Entry::Vacant(place) => {
                    place.insert(chosen.len());
                    chosen.push(candidate);
                }
                Entry::Occupied(place) => {
                    let have = &mut chosen[*place.get()];
                    if candidate.preferred && !have.preferred {
                        *have = candidate;
                    }
                }
            }
        }
        chosen.into_iter().map(|served| served.resource.clone()).collect()
    }
}

impl Client {
    /// Asks the server for all its resources.
    pub async fn discover(&self) -> Result<Discovered> {
        let mut found = Discovered::default();
        for root in ["/api", "/apis"] {
            let bytes = self.get_raw(root, AGGREGATED).await?;
            let answer: Answer =
                serde_json::from_slice(&bytes).map_err(|error| Error::decode(format!("discovery of {root}"), error))?;
            match answer.kind.as_str() {
                "APIGroupDiscoveryList" => answer.items.into_iter().for_each(|group| group.add_to(&mut found)),
                "APIVersions" => {
                    for (index, version) in answer.versions.iter().enumerate() {
                        self.discover_version("", version, index == 0, &mut found).await;
                    }
                }
                _ => {
                    for group in answer.groups {
                        for version in &group.versions {
                            let preferred = version.version == group.preferred_version.version;
                            self.discover_version(&group.name, &version.version, preferred, &mut found)
                                .await;
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    async fn discover_version(&self, group: &str, version: &str, preferred: bool, found: &mut Discovered) {
        let (path, name) = if group.is_empty() {
            (format!("/api/{version}"), version.to_string())
        } else {
            (format!("/apis/{group}/{version}"), format!("{group}/{version}"))
        };
        let answer = self.get_raw(&path, "application/json").await.and_then(|bytes| {
            serde_json::from_slice::<PlainList>(&bytes).map_err(|error| Error::decode(path.clone(), error))
        });
        let list = match answer {
            Ok(list) => list.resources,
            Err(error) => return found.failed.push((name, error.to_string())),
        };
        for row in list.iter().filter(|row| !row.name.contains('/')) {
            let prefix = format!("{}/", row.name);
            let resource = Resource {
                group: group.to_string().into(),
                version: version.to_string().into(),
                plural: row.name.clone().into(),
                kind: row.kind.clone().into(),
                namespaced: row.namespaced,
            };
            let subresources = list
                .iter()
                .filter_map(|other| other.name.strip_prefix(&prefix))
                .map(String::from);
            found.resources.push(ServedResource {
                resource,
                verbs: row.verbs.clone(),
                subresources: subresources.collect(),
                preferred,
            });
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    kind: String,
    items: Vec<Group>,
    versions: Vec<String>,
    groups: Vec<PlainGroup>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Group {
    metadata: Name,
    versions: Vec<Version>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Name {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Version {
    version: String,
    freshness: String,
    resources: Vec<Row>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Row {
    resource: String,
    response_kind: Option<ResponseKind>,
    scope: String,
    verbs: Vec<String>,
    subresources: Vec<Subresource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseKind {
    kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subresource {
    subresource: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PlainGroup {
    name: String,
    versions: Vec<PlainVersion>,
    preferred_version: PlainVersion,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PlainVersion {
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PlainList {
    resources: Vec<PlainRow>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PlainRow {
    name: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
}

impl Group {
    fn add_to(self, found: &mut Discovered) {
        let group = self.metadata.name;
        for (index, version) in self.versions.into_iter().enumerate() {
            if version.freshness == "Stale" {
                let name = if group.is_empty() {
                    version.version.clone()
                } else {
                    format!("{group}/{}", version.version)
                };
                let why = format!("stale GroupVersion discovery: {name}");
                found.failed.push((name, why));
            }
            for row in version.resources {
                // A resource without a kind of its own exists only for its subresources.
                let Some(kind) = row.response_kind else { continue };
                let resource = Resource {
                    group: group.clone().into(),
                    version: version.version.clone().into(),
                    plural: row.resource.into(),
                    kind: kind.kind.into(),
                    namespaced: row.scope == "Namespaced",
                };
                let subresources = row.subresources.into_iter().map(|sub| sub.subresource).collect();
                found.resources.push(ServedResource {
                    resource,
                    verbs: row.verbs,
                    subresources,
                    preferred: index == 0,
                });
            }
        }
    }
}
