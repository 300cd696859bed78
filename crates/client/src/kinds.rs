//! The typed structs of `k8s-openapi` as kinds. Their decoders are instantiated here, once, behind plain functions, and
//! not in every crate that reads a Pod (they are large). `managedFields` is dropped: it is often half of an object, and
//! nobody who reads a typed object looks at it (whoever does, reads a `Value`).

use k8s_openapi::api::{
    apps, batch, certificates, coordination, core, discovery, networking, node, policy, scheduling, storage,
};

use crate::kind::{Kind, Meta, Object};
use crate::resource::{Resource, resources};

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
                let mut object: Self = serde_json::from_slice(json)?;
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
