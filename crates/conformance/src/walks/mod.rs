//! The walks: a module a subject, a function one of upstream's tests, whose name its comment has. [`kube_program`]
//! is not of upstream: it does what else programs of kube-rs do.

use std::pin::Pin;

/// A walk that was begun.
type Walking = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A walk to begin.
pub struct Walk {
    /// `MODULE::FUNCTION`.
    pub name: &'static str,
    pub begin: fn() -> Walking,
}

/// The modules with their walks, and all of them as a list.
macro_rules! walks {
    ($($module:ident: $($walk:ident)*;)*) => {
        $(mod $module;)*

        /// All walks.
        pub fn all() -> Vec<Walk> {
            vec![$($(Walk {
                name: concat!(stringify!($module), "::", stringify!($walk)),
                begin: || Box::pin($module::$walk()),
            },)*)*]
        }
    };
}

walks! {
    chunking: chunks after_compaction;
    cron_jobs: api_operations;
    discovery: resources_of_each_group aggregated_documents aggregated_client;
    dynamic_resources: device_class claim claim_template slice;
    endpoints: slices slices_of_no_pods endpoints_of_no_pods mirroring of_the_api_server;
    events: lifecycle;
    field_validation: unknown_and_duplicate_fields unknown_metadata;
    flowcontrol: flow_schema priority_level;
    immutable: config_map secret;
    kube_program: the_server_tells_its_version objects_are_applied_with_owners_and_conflicts
        an_entry_is_made_changed_and_deleted_with_a_precondition a_deployment_runs_is_scaled_and_its_pod_evicted
        a_reflector_follows_what_changes a_controller_reconciles_and_finalizes events_are_published_as_a_series
        an_account_s_token_is_a_client_s_identity;
    limit_ranges: collection;
    namespaces: status finalizer pods_go_first;
    nodes: lifecycle;
    pods: invalid_sysctls overhead_of_a_runtime_class inline_volumes;
    quotas: lifecycle status;
    service_accounts: root_certificate token subject_reviews;
    service_cidrs: service_cidr ip_address;
    services: status_lifecycle delete_collection;
    storage: storage_class volume_attributes_class csi_node csi_driver csi_storage_capacity volume_attachment
        volume_attachment_status;
    volumes: status lifecycle;
}
