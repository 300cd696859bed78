//! The typed structs of `k8s-openapi` as kinds. Their decoders are instantiated here, once, behind plain functions, and
//! not in every crate that reads a Pod (they are large). `managedFields` is dropped: it is often half of an object, and
//! nobody who reads a typed object looks at it (whoever does, reads a `Value`).

use k8s_openapi::api::{
    apps, batch, certificates, coordination, core, discovery, networking, node, policy, scheduling, storage,
};

use crate::kind::{Kind, Meta, Object};
use crate::resource::{Resource, resources};

/// The time that Go takes for none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// An object whose conditions all say when they came to be. Go writes a time that was never set as `null`, and clients set
/// none; the structs want one in a `metav1.Condition`. None: there is nothing to mend.
fn timed(json: &[u8]) -> Option<serde_json::Value> {
    let mut object: serde_json::Value = serde_json::from_slice(json).ok()?;
    let conditions = object.pointer_mut("/status/conditions")?.as_array_mut()?;
    let mut mended = false;
    for condition in conditions.iter_mut().filter_map(serde_json::Value::as_object_mut) {
        let time = condition.entry("lastTransitionTime").or_insert(serde_json::Value::Null);
        if time.is_null() {
            (*time, mended) = (NO_TIME.into(), true);
        }
    }
    mended.then_some(object)
}

macro_rules! kinds {
    ($($kind:ty => $resource:ident,)*) => {
        /// What is left of an object that goes through the struct of its kind; for tests of all kinds.
        #[cfg(test)]
        type Through = fn(&serde_json::Value) -> Result<serde_json::Value, serde_json::Error>;

        #[cfg(test)]
        const ALL: &[(Resource, Through)] = &[$(
            (resources::$resource, |object| serde_json::to_value(<$kind as serde::Deserialize>::deserialize(object)?)),
        )*];
        $(
        impl Object for $kind {
            #[inline(never)]
            fn decode(json: &[u8]) -> Result<Self, serde_json::Error> {
                let mut object: Self = match serde_json::from_slice(json) {
                    Ok(object) => object,
                    Err(error) => serde_json::from_value(timed(json).ok_or(error)?)?,
                };
                object.metadata.managed_fields = None;
                Ok(object)
            }

            fn meta(&self) -> &dyn Meta {
                &self.metadata
            }
        }

        impl Kind for $kind {
            const RESOURCE: Resource = resources::$resource;
        }
        )*
    };
}

kinds! {
    core::v1::ConfigMap => CONFIG_MAPS,
    core::v1::Endpoints => ENDPOINTS,
    core::v1::Event => EVENTS,
    core::v1::Namespace => NAMESPACES,
    core::v1::Node => NODES,
    core::v1::PersistentVolume => PERSISTENT_VOLUMES,
    core::v1::PersistentVolumeClaim => PERSISTENT_VOLUME_CLAIMS,
    core::v1::Pod => PODS,
    core::v1::ReplicationController => REPLICATION_CONTROLLERS,
    core::v1::Secret => SECRETS,
    core::v1::Service => SERVICES,
    core::v1::ServiceAccount => SERVICE_ACCOUNTS,
    apps::v1::ControllerRevision => CONTROLLER_REVISIONS,
    apps::v1::DaemonSet => DAEMON_SETS,
    apps::v1::Deployment => DEPLOYMENTS,
    apps::v1::ReplicaSet => REPLICA_SETS,
    apps::v1::StatefulSet => STATEFUL_SETS,
    batch::v1::Job => JOBS,
    batch::v1::CronJob => CRON_JOBS,
    certificates::v1::CertificateSigningRequest => CERTIFICATE_SIGNING_REQUESTS,
    coordination::v1::Lease => LEASES,
    discovery::v1::EndpointSlice => ENDPOINT_SLICES,
    networking::v1::Ingress => INGRESSES,
    networking::v1::NetworkPolicy => NETWORK_POLICIES,
    node::v1::RuntimeClass => RUNTIME_CLASSES,
    policy::v1::PodDisruptionBudget => POD_DISRUPTION_BUDGETS,
    scheduling::v1::PriorityClass => PRIORITY_CLASSES,
    storage::v1::StorageClass => STORAGE_CLASSES,
}

#[cfg(test)]
mod tests {
    use api::Value;
    use api::normalize::{UnknownFields, normalize};
    use api::schema::SchemaRef;
    use api::testing::{FILLS, object as made};

    use super::*;

    #[test]
    fn conditions_that_never_changed_are_read() {
        let read = |conditions: &str| {
            let json = format!(r#"{{"metadata":{{"name":"a"}},"status":{{"conditions":{conditions}}}}}"#);
            core::v1::Service::decode(json.as_bytes())
        };
        for time in [r#""lastTransitionTime":null,"#, ""] {
            let service = read(&format!(r#"[{{{time}"type":"A","status":"True"}}]"#)).unwrap();
            let conditions = service.status.unwrap().conditions.unwrap();
            assert_eq!(conditions[0].last_transition_time.0.to_string(), NO_TIME);
            assert_eq!((&*conditions[0].type_, &*conditions[0].status), ("A", "True"));
        }
        assert!(read("7").is_err());
        assert!(read(r#"[{"lastTransitionTime":"soon"}]"#).is_err());
    }

    /// The fields of `left` that `right` has not, or has otherwise. What is empty may be absent, or empty in another way.
    fn lost(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
        match (left, right) {
            (left, right) if is_empty(left) && is_empty(right) => {}
            (Value::Object(left), Value::Object(right)) => {
                for (name, value) in left {
                    lost(
                        &format!("{path}.{name}"),
                        value,
                        right.get(name).unwrap_or(&Value::Null),
                        found,
                    );
                }
            }
            (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
                left.iter()
                    .zip(right)
                    .for_each(|(left, right)| lost(path, left, right, found));
            }
            // A field that a struct always has (the bytes of a request) is empty where the object has null.
            (Value::Null, Value::String(text)) if text.is_empty() => {}
            _ if left == right => {}
            _ => found.push(format!("{path}: {left} {right}")),
        }
    }

    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.values().all(is_empty),
            _ => false,
        }
    }

    /// Full, sparse, zero and null objects of every kind with a struct are read, and nothing of them is lost.
    #[test]
    fn structs_keep_every_field() {
        for (resource, through) in ALL {
            let gvk = api::GroupVersionKind::new(&resource.group, &resource.version, &resource.kind);
            let schema = SchemaRef::builtin(&gvk).unwrap();
            for fill in FILLS {
                let mut object = made(&gvk, schema.node(), fill);
                normalize(&mut object, &schema, UnknownFields::Report).unwrap();
                let back = through(&object).unwrap_or_else(|error| panic!("{gvk} {fill:?}: {error}\n{object:#}"));
                let mut found = Vec::new();
                lost("", &object, &back, &mut found);
                assert!(found.is_empty(), "{gvk} {fill:?}: {found:#?}");
            }
        }
    }
}
