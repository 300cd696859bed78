//! The rules of texts, numbers and metadata that all kinds share.
//!
//! Functions on single values return what is wrong in upstream's words (empty: nothing); those on fields return
//! [`crate::field::Error`]s. Source: `k8s.io/apimachinery/pkg/util/validation`, `pkg/api/validate/content`,
//! `pkg/api/validation` and `pkg/apis/meta/v1/validation` of the 1.36 branch. Clients and tests match on the texts.

mod condition;
mod ip;
mod metadata;
mod names;
mod numbers;
mod options;
mod selector;

pub use condition::{condition, conditions};
pub use ip::{
    cidr, cidr_legacy, cidr_warnings, interface_address, ip, ip_legacy, ip_warnings, parse_cidr_sloppy, parse_ip_sloppy,
};
pub use metadata::{
    ANNOTATIONS_SIZE_MAX, NameRule, annotations, finalizer_name, finalizers, immutable, labels, managed_fields,
    object_meta, object_meta_common, object_meta_update, owner_references,
};
pub use names::{
    c_identifier, config_map_key, dns1035_label, dns1123_label, dns1123_subdomain, dns1123_subdomain_underscore,
    domain_prefixed_key, domain_prefixed_path, env_var_name, fully_qualified_domain_name, fully_qualified_name,
    http_header_name, label_value, name_is_dns_label, name_is_dns_subdomain, name_is_dns1035_label,
    name_is_path_segment, path_segment_name, path_segment_prefix, port_name, qualified_name, relaxed_env_var_name,
    wildcard_dns1123_subdomain,
};
pub use numbers::{
    PercentError, group_id, in_range, int_or_percent, non_negative, percent, port_number, scaled_int_or_percent,
    user_id,
};
pub use options::{
    FIELD_MANAGER_LENGTH_MAX, create_options, delete_options, dry_run, field_manager, field_validation, patch_options,
    update_options,
};
pub use selector::{label_name, label_selector, label_selector_requirement};

/// `msg (e.g. 'a',  or 'b', regex used for validation is 'fmt')`.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

/// `must be no more than N characters`: the older wording of the length rule.
pub fn max_length_characters(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// `must be no more than N bytes`: the newer wording of the length rule.
pub fn max_length_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between A and B, inclusive`.
pub fn range_error(min: i64, max: i64) -> String {
    format!("must be between {min} and {max}, inclusive")
}
