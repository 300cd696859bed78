//! Which of upstream's feature gates are on here, as `kubernetes_feature_enabled` tells.
//!
//! Only gates that change what a client of the API sees stand here, with their stages in v1.36. Source:
//! `pkg/features/kube_features.go`. What of fields is dropped because a gate is off decides `kinds`.

/// Name, stage (empty: generally available) and whether it is on.
pub const GATES: [(&str, &str, bool); 33] = [
    ("APIResponseCompression", "BETA", true),
    ("APIServerTracing", "", true),
    ("AnonymousAuthConfigurableEndpoints", "", true),
    ("AuthorizeWithSelectors", "", true),
    ("BtreeWatchCache", "", true),
    ("CBORServingAndStorage", "ALPHA", false),
    ("ConsistentListFromCache", "", true),
    ("ConstrainedImpersonation", "BETA", true),
    ("DRAPrioritizedList", "", true),
    ("DRAResourceClaimDeviceStatus", "BETA", true),
    ("DynamicResourceAllocation", "", false),
    ("InPlacePodVerticalScaling", "", true),
    ("KMSv1", "DEPRECATED", false),
    ("ListFromCacheSnapshot", "BETA", true),
    ("MutableCSINodeAllocatableCount", "", true),
    ("MutatingAdmissionPolicy", "", true),
    ("OpenAPIEnums", "BETA", true),
    ("PodLevelResources", "BETA", true),
    ("RemoteRequestHeaderUID", "BETA", true),
    ("RetryGenerateName", "", true),
    ("SELinuxMountReadWriteOncePod", "", true),
    ("ShardedListAndWatch", "ALPHA", false),
    ("SizeBasedListCostEstimate", "BETA", false),
    ("StorageVersionAPI", "ALPHA", false),
    ("StorageVersionHash", "BETA", true),
    ("StructuredAuthenticationConfiguration", "", true),
    ("StructuredAuthenticationConfigurationEgressSelector", "BETA", false),
    ("SupplementalGroupsPolicy", "", true),
    ("TokenRequestServiceAccountUIDValidation", "BETA", true),
    ("UnauthenticatedHTTP2DOSMitigation", "BETA", false),
    ("UnknownVersionInteroperabilityProxy", "BETA", false),
    ("VolumeAttributesClass", "", true),
    ("WatchList", "BETA", true),
];
