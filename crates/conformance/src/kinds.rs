//! The kinds that the walks go over.

/// What a client has to know of a kind.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Empty for the first group.
    pub group: &'static str,
    pub kind: &'static str,
    /// As in paths.
    pub plural: &'static str,
    pub namespaced: bool,
}

impl Kind {
    /// `GROUP/v1`, or `v1`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => "v1".into(),
            group => format!("{group}/v1"),
        }
    }
}

const fn namespaced(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group,
        kind,
        plural,
        namespaced: true,
    }
}

const fn of_cluster(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind {
        group,
        kind,
        plural,
        namespaced: false,
    }
}

pub const CONFIG_MAPS: Kind = namespaced("", "ConfigMap", "configmaps");
pub const ENDPOINTS: Kind = namespaced("", "Endpoints", "endpoints");
pub const EVENTS: Kind = namespaced("", "Event", "events");
pub const LIMIT_RANGES: Kind = namespaced("", "LimitRange", "limitranges");
pub const NAMESPACES: Kind = of_cluster("", "Namespace", "namespaces");
pub const NODES: Kind = of_cluster("", "Node", "nodes");
pub const PERSISTENT_VOLUMES: Kind = of_cluster("", "PersistentVolume", "persistentvolumes");
pub const PERSISTENT_VOLUME_CLAIMS: Kind = namespaced("", "PersistentVolumeClaim", "persistentvolumeclaims");
pub const PODS: Kind = namespaced("", "Pod", "pods");
pub const POD_TEMPLATES: Kind = namespaced("", "PodTemplate", "podtemplates");
pub const RESOURCE_QUOTAS: Kind = namespaced("", "ResourceQuota", "resourcequotas");
pub const SECRETS: Kind = namespaced("", "Secret", "secrets");
pub const SERVICE_ACCOUNTS: Kind = namespaced("", "ServiceAccount", "serviceaccounts");
pub const SERVICES: Kind = namespaced("", "Service", "services");
pub const CRON_JOBS: Kind = namespaced("batch", "CronJob", "cronjobs");
pub const ENDPOINT_SLICES: Kind = namespaced("discovery.k8s.io", "EndpointSlice", "endpointslices");
pub const FLOW_SCHEMAS: Kind = of_cluster("flowcontrol.apiserver.k8s.io", "FlowSchema", "flowschemas");
pub const PRIORITY_LEVELS: Kind = of_cluster(
    "flowcontrol.apiserver.k8s.io",
    "PriorityLevelConfiguration",
    "prioritylevelconfigurations",
);
pub const IP_ADDRESSES: Kind = of_cluster("networking.k8s.io", "IPAddress", "ipaddresses");
pub const SERVICE_CIDRS: Kind = of_cluster("networking.k8s.io", "ServiceCIDR", "servicecidrs");
pub const RUNTIME_CLASSES: Kind = of_cluster("node.k8s.io", "RuntimeClass", "runtimeclasses");
pub const DEVICE_CLASSES: Kind = of_cluster("resource.k8s.io", "DeviceClass", "deviceclasses");
pub const RESOURCE_CLAIMS: Kind = namespaced("resource.k8s.io", "ResourceClaim", "resourceclaims");
pub const RESOURCE_CLAIM_TEMPLATES: Kind =
    namespaced("resource.k8s.io", "ResourceClaimTemplate", "resourceclaimtemplates");
pub const RESOURCE_SLICES: Kind = of_cluster("resource.k8s.io", "ResourceSlice", "resourceslices");
pub const CSI_DRIVERS: Kind = of_cluster("storage.k8s.io", "CSIDriver", "csidrivers");
pub const CSI_NODES: Kind = of_cluster("storage.k8s.io", "CSINode", "csinodes");
pub const CSI_STORAGE_CAPACITIES: Kind = namespaced("storage.k8s.io", "CSIStorageCapacity", "csistoragecapacities");
pub const STORAGE_CLASSES: Kind = of_cluster("storage.k8s.io", "StorageClass", "storageclasses");
pub const VOLUME_ATTACHMENTS: Kind = of_cluster("storage.k8s.io", "VolumeAttachment", "volumeattachments");
pub const VOLUME_ATTRIBUTES_CLASSES: Kind =
    of_cluster("storage.k8s.io", "VolumeAttributesClass", "volumeattributesclasses");
