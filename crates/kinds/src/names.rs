//! Rules for `metadata.name`, in the shape rows want them: `(name, is a prefix) -> messages`.
//!
//! Sources: `k8s.io/apimachinery/pkg/api/validation/generic.go` and `pkg/apis/core/validation/validation.go`.

use api::field::Path;
use api::validation;

/// Most kinds: a lowercase DNS subdomain of at most 253 characters.
pub fn subdomain(name: &str, prefix: bool) -> Vec<String> {
    validation::name_is_dns_subdomain(name, prefix)
}

/// Namespaces and Services: a lowercase DNS label of at most 63 characters.
pub fn label(name: &str, prefix: bool) -> Vec<String> {
    validation::name_is_dns_label(name, prefix)
}

/// RBAC kinds: anything that can be one segment of a path.
pub fn path_segment(name: &str, prefix: bool) -> Vec<String> {
    validation::name_is_path_segment(name, prefix)
}

/// IPAddresses: the canonical form of the address.
pub fn ip_address(name: &str, _prefix: bool) -> Vec<String> {
    let errors = validation::ip(&Path::root(), name);
    errors.into_iter().map(|error| error.detail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        type Rule = fn(&str, bool) -> Vec<String>;
        for (rule, name, prefix, good) in [
            (subdomain as Rule, "a.b-c", false, true),
            (subdomain, "a-", false, false),
            (subdomain, "a-", true, true),
            (label, "a.b", false, false),
            (label, "1a", false, true),
            (path_segment, "system:node", false, true),
            (path_segment, "a/b", false, false),
            (path_segment, "..", false, false),
            (ip_address, "10.0.0.1", false, true),
            (ip_address, "2001:DB8::1", false, false),
        ] {
            assert_eq!(rule(name, prefix).is_empty(), good, "{name}");
        }
    }
}
