//! The typed structs of `k8s-openapi` as kinds. Their decoders are instantiated here, once, behind plain functions, and
//! not in every crate that reads a Pod (they are large). `managedFields` is dropped: it is often half of an object, and
//! nobody who reads a typed object looks at it (whoever does, reads a `Value`).

use k8s_openapi::api::{apps, batch, coordination, core, discovery, networking, node, policy, scheduling, storage};

use crate::kind::{Kind, Meta, Object};
use crate::resource::{Resource, resources};

macro_rules! kinds {
    ($($kind:ty => $resource:ident,)*) => {$(
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
    )*};
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
    coordination::v1::Lease => LEASES,
    discovery::v1::EndpointSlice => ENDPOINT_SLICES,
    networking::v1::Ingress => INGRESSES,
    networking::v1::NetworkPolicy => NETWORK_POLICIES,
    node::v1::RuntimeClass => RUNTIME_CLASSES,
    policy::v1::PodDisruptionBudget => POD_DISRUPTION_BUDGETS,
    scheduling::v1::PriorityClass => PRIORITY_CLASSES,
    storage::v1::StorageClass => STORAGE_CLASSES,
}
