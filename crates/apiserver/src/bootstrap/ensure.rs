//! Makes what is absent, and adds back rules and subjects that were taken from the policy.
//!
//! Source of the reconciliation: `pkg/registry/rbac/reconciliation`: rules and subjects are added, never removed, and
//! not at all where the annotation `rbac.authorization.kubernetes.io/autoupdate` says `false`.

use std::collections::HashMap;

use api::{Value, meta};
use client::{Client, List, ListParams, Patch, Resource, resources};
use futures::StreamExt as _;
use serde_json::json;

use super::objects::{Addresses, component_bindings, namespaces, priority_classes, services};
use super::policy;
use crate::allocation::default_service_cidr;
use crate::authorization::Rule;
use crate::flowcontrol;

/// Writes at a time: enough to share the log's syncs.
const WRITES_AT_A_TIME: usize = 64;
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Why the cluster could not be brought into its first shape.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A line of the policy; a test reads all of them.
    #[error("{0}")]
    Policy(String),
    /// A read or write failed.
    #[error("cannot make {what}: {source}")]
    Api {
        /// The object or resource.
        what: String,
        /// Why.
        source: client::Error,
    },
}

/// Brings the cluster into its first shape. Order matters: namespaces come before what is in them.
///
/// # Errors
/// The first write that failed; a later start tries again.
pub async fn ensure(client: &Client, addresses: &Addresses) -> Result<(), BootstrapError> {
    let policy = policy::objects().map_err(BootstrapError::Policy)?;
    let mut rest = policy;
    rest.extend(component_bindings());
    rest.extend(priority_classes());
    rest.push(default_service_cidr(addresses.service_range));
    rest.extend(services(addresses));
    rest.extend(flowcontrol::first_objects());
    ensure_all(client, namespaces()).await?;
    ensure_all(client, rest).await
}

async fn ensure_all(client: &Client, wanted: Vec<Value>) -> Result<(), BootstrapError> {
    let mut present: HashMap<(String, String, String), Value> = HashMap::new();
    let kinds: HashMap<String, Resource> = wanted.iter().map(|o| (kind(o), resource_of(o))).collect();
    for (kind, resource) in &kinds {
        let listed = client.list_in::<Value>(resource, "", &ListParams::default()).await;
        let list: List<Value> = listed.map_err(|source| BootstrapError::Api {
            what: resource.to_string(),
            source,
        })?;
        for object in list.items {
            let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
            present.insert((kind.clone(), namespace, name), object);
        }
    }
    let writes = wanted.into_iter().filter_map(|object| {
        let resource = kinds[&kind(&object)].clone();
        let key = (
            kind(&object),
            meta::namespace(&object).to_owned(),
            meta::name(&object).to_owned(),
        );
        let write = match present.get(&key) {
            None => Write::Create(object),
            Some(there) => Write::Patch(addition(there, &object)?),
        };
        Some(write_one(client, resource, key.1, key.2, write))
    });
    let mut outcomes = futures::stream::iter(writes).buffer_unordered(WRITES_AT_A_TIME);
    while let Some(outcome) = outcomes.next().await {
        outcome?;
    }
    Ok(())
}

enum Write {
    Create(Value),
    Patch(Value),
}

async fn write_one(
    client: &Client,
    resource: Resource,
    namespace: String,
    name: String,
    write: Write,
) -> Result<(), BootstrapError> {
    let outcome = match write {
        Write::Create(object) => client.create_in(&resource, &namespace, &object).await.map(drop),
        Write::Patch(patch) => client
            .patch(&resource, &namespace, &name, None, &Patch::Merge, &patch)
            .await
            .map(drop),
    };
    match outcome {
        // Another server of the same cluster was first.
        Err(error) if error.is_already_exists() || error.is_conflict() => Ok(()),
        Err(source) => Err(BootstrapError::Api {
            what: format!("{resource} {namespace}/{name}"),
            source,
        }),
        Ok(()) => Ok(()),
    }
}

/// The merge patch that adds what the object lacks; `None` when it lacks nothing or is not to be touched.
fn addition(there: &Value, wanted: &Value) -> Option<Value> {
    if meta::gvk(wanted).group == RBAC {
        if meta::annotation(there, AUTOUPDATE) == Some("false") {
            return None;
        }
        if wanted.get("aggregationRule").is_some() {
            return None;
        }
        let (field, missing) = if wanted.get("roleRef").is_some() {
            let has = |subject: &Value| list(there, "subjects").iter().any(|own| same_subject(own, subject));
            (
                "subjects",
                list(wanted, "subjects")
                    .iter()
                    .filter(|subject| !has(subject))
                    .cloned()
                    .collect::<Vec<_>>(),
            )
        } else {
            let own = Rule::of_role(there);
            let rules = Rule::of_role(wanted);
            let missing = list(wanted, "rules")
                .iter()
                .zip(&rules)
                .filter(|(_, rule)| !Rule::cover(&own, rule));
            ("rules", missing.map(|(value, _)| value.clone()).collect())
        };
        if missing.is_empty() {
            return None;
        }
        let all: Vec<&Value> = list(there, field).iter().chain(&missing).collect();
        let version = meta::resource_version(there);
        return Some(json!({"metadata": {"resourceVersion": version}, field: all}));
    }
    // Where the API server is may have changed since the last start.
    let field = match &*kind(wanted) {
        "EndpointSlice" => "endpoints",
        "Endpoints" => "subsets",
        _ => return None,
    };
    let address = |object: &Value| {
        let first = &object[field][0]["addresses"][0];
        first.as_str().or(first["ip"].as_str()).map(str::to_owned)
    };
    (address(there) != address(wanted)).then(|| json!({field: wanted[field]}))
}

fn same_subject(a: &Value, b: &Value) -> bool {
    ["kind", "name", "namespace"]
        .iter()
        .all(|field| a.get(*field) == b.get(*field))
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object
        .get(field)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn kind(object: &Value) -> String {
    object["kind"].as_str().unwrap_or("").to_owned()
}

fn resource_of(object: &Value) -> Resource {
    const CLUSTER_ROLES: Resource = Resource::new(RBAC, "v1", "clusterroles", "ClusterRole", false);
    const CLUSTER_ROLE_BINDINGS: Resource =
        Resource::new(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", false);
    const ROLES: Resource = Resource::new(RBAC, "v1", "roles", "Role", true);
    const ROLE_BINDINGS: Resource = Resource::new(RBAC, "v1", "rolebindings", "RoleBinding", true);
    match &*kind(object) {
        "ClusterRole" => CLUSTER_ROLES,
        "ClusterRoleBinding" => CLUSTER_ROLE_BINDINGS,
        "Role" => ROLES,
        "RoleBinding" => ROLE_BINDINGS,
        "Namespace" => resources::NAMESPACES,
        "PriorityClass" => resources::PRIORITY_CLASSES,
        "Service" => resources::SERVICES,
        "ServiceCIDR" => resources::SERVICE_CIDRS,
        "Endpoints" => resources::ENDPOINTS,
        "FlowSchema" => flowcontrol::SCHEMAS,
        "PriorityLevelConfiguration" => flowcontrol::LEVELS,
        _ => resources::ENDPOINT_SLICES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Value, autoupdate: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "x", "resourceVersion": "7", "annotations": {AUTOUPDATE: autoupdate}}, "rules": rules,
        })
    }

    #[test]
    fn what_was_taken_is_added_and_what_was_added_stays() {
        let get = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        let wanted = role(json!([get]), "true");
        assert_eq!(addition(&role(json!([get, list]), "true"), &wanted), None);
        assert_eq!(addition(&role(json!([]), "false"), &wanted), None);
        assert_eq!(
            addition(&role(json!([list]), "true"), &wanted),
            Some(json!({"metadata": {"resourceVersion": "7"}, "rules": [list, get]}))
        );
    }

    #[test]
    fn the_api_servers_address_follows() {
        let slice = |ip: &str| json!({"kind": "EndpointSlice", "endpoints": [{"addresses": [ip]}]});
        assert_eq!(addition(&slice("1.2.3.4"), &slice("1.2.3.4")), None);
        assert_eq!(
            addition(&slice("1.2.3.4"), &slice("1.2.3.5")),
            Some(json!({"endpoints": [{"addresses": ["1.2.3.5"]}]}))
        );
    }
}
