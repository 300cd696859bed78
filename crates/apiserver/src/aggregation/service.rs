//! APIServices as the server looks at them: who answers for a group version, and where it stands among the others.
//!
//! Source: `k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper`.

use std::cmp::Reverse;

use api::Value;

/// The port of a Service when an APIService names none.
const PORT_DEFAULT: u16 = 443;
/// What an APIService's name ends its version with.
const SEPARATOR: char = '.';

/// One APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiService {
    /// `VERSION.GROUP`.
    pub name: String,
    /// The group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Where its group stands: groups with larger numbers come first.
    pub group_priority: i64,
    /// Where its version stands in the group.
    pub version_priority: i64,
    /// Who answers; `None`: this server.
    pub backend: Option<Backend>,
    /// Whether it is known to answer.
    pub is_available: bool,
}

/// A server that answers for a group version, and how it is known to be the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Where it is.
    pub service: ServiceReference,
    /// Who signs its certificate, as base64 of PEM; empty: whom this machine trusts.
    pub ca_bundle: String,
    /// Whether any certificate will do.
    pub takes_any_certificate: bool,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ServiceReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The number of its port.
    pub port: u16,
}

// === impl ApiService ===

impl ApiService {
    /// Reads an object.
    pub fn of(object: &Value) -> ApiService {
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or("").to_owned();
        let service = &spec["service"];
        let backend = service.is_object().then(|| Backend {
            service: ServiceReference {
                namespace: service["namespace"].as_str().unwrap_or("").to_owned(),
                name: service["name"].as_str().unwrap_or("").to_owned(),
                port: service["port"]
                    .as_u64()
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(PORT_DEFAULT),
            },
            ca_bundle: text("caBundle"),
            takes_any_certificate: spec["insecureSkipTLSVerify"].as_bool().unwrap_or(false),
        });
        ApiService {
            name: api::meta::name(object).to_owned(),
            group: text("group"),
            version: text("version"),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(0),
            version_priority: spec["versionPriority"].as_i64().unwrap_or(0),
            backend,
            is_available: available(object).is_some_and(|condition| condition["status"] == "True"),
        }
    }
}

/// The condition Available of an APIService.
pub(crate) fn available(object: &Value) -> Option<&Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Available")
}

/// The name of the APIService of a group version.
pub(crate) fn name_of(group: &str, version: &str) -> String {
    format!("{version}{SEPARATOR}{group}")
}

/// One version of a group, as it is put in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranked<T> {
    /// The version.
    pub version: String,
    /// Where its group stands, as this version says.
    pub group_priority: i64,
    /// Where it stands in the group.
    pub version_priority: i64,
    /// What it is.
    pub what: T,
}

/// Puts groups and their versions in order: by priority, groups of the same one by what `tie` makes of them, versions of the
/// same one as Kubernetes orders versions.
pub(crate) fn in_order<T, K: Ord>(
    groups: impl IntoIterator<Item = (String, Vec<Ranked<T>>)>,
    tie: impl Fn(&str, &[Ranked<T>]) -> K,
) -> Vec<(String, Vec<Ranked<T>>)> {
    let mut groups: Vec<_> = groups.into_iter().collect();
    for (_, versions) in &mut groups {
        let rank = |one: &Ranked<T>| Reverse((one.version_priority, crate::discovery::version_rank(&one.version)));
        versions.sort_by_key(rank);
    }
    groups.sort_by_cached_key(|(name, versions)| (Reverse(priority(versions)), tie(name, versions)));
    groups
}

/// The highest priority that a version claims for its group.
pub(crate) fn priority<T>(versions: &[Ranked<T>]) -> i64 {
    let all = versions.iter().map(|version| version.group_priority);
    all.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_read() {
        let object = json!({
            "metadata": {"name": "v1.g"},
            "spec": {"group": "g", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 20,
                "service": {"namespace": "n", "name": "s"}, "insecureSkipTLSVerify": true},
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        let read = ApiService::of(&object);
        assert_eq!(name_of(&read.group, &read.version), read.name);
        assert_eq!(
            (read.group_priority, read.version_priority, read.is_available),
            (10, 20, true)
        );
        let backend = read.backend.unwrap();
        assert_eq!((backend.service.port, backend.takes_any_certificate), (443, true));
        let local = json!({"metadata": {"name": "v1."}, "spec": {"version": "v1"}});
        let read = ApiService::of(&local);
        assert!(read.backend.is_none() && !read.is_available);
    }

    #[test]
    fn groups_and_versions_stand_in_order() {
        let version = |version: &str, group_priority, version_priority| Ranked {
            version: version.to_owned(),
            group_priority,
            version_priority,
            what: (),
        };
        let groups = [
            ("b", vec![version("v1", 100, 1), version("v2", 300, 1)]),
            ("c", vec![version("v1beta1", 200, 9), version("v1", 200, 1)]),
            ("a", vec![version("v1", 200, 1)]),
        ];
        let groups = groups.map(|(name, versions)| (name.to_owned(), versions));
        let sorted = in_order(groups, |name, _| name.to_owned());
        let names: Vec<String> = sorted
            .iter()
            .map(|(name, versions)| {
                let versions: Vec<&str> = versions.iter().map(|version| &*version.version).collect();
                format!("{name}: {}", versions.join(" "))
            })
            .collect();
        assert_eq!(names, ["b: v2 v1", "a: v1", "c: v1beta1 v1"]);
    }
}
