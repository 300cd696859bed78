//! Admission policies: what cluster administrators say in CEL about the requests of others.
//!
//! [`source`] follows policies and their bindings and compiles them, and [`params`] finds the objects that bindings name.
//! [`validating`] and [`mutating`] are the plug-ins; [`rights`] checks, when policies are written, that their writer may read
//! what they are about.
//!
//! A policy holds from the next request on after it was written: whoever decides drains what was committed. Where upstream
//! goes through policies and bindings in no order, here it is that of their names.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy`.

mod mutating;
mod params;
mod patches;
mod rights;
mod source;
#[cfg(test)]
mod tests;
mod validating;

pub use mutating::MutatingPolicies;
pub use rights::PolicyRights;
pub use validating::ValidatingPolicies;

use super::dynamic::GROUP;
use crate::pipeline::Review;

/// What no policy is about: it is not stored, and policies themselves, which could lock everybody out.
/// Source: `pkg/kubeapiserver/admission/exclusion/resources.go`.
const EXEMPT: [(&str, &str); 10] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    (GROUP, "mutatingadmissionpolicies"),
    (GROUP, "mutatingadmissionpolicybindings"),
    (GROUP, "validatingadmissionpolicies"),
    (GROUP, "validatingadmissionpolicybindings"),
];

fn is_exempt(review: &Review) -> bool {
    let (group, resource) = (&*review.resource.group, &*review.resource.resource);
    EXEMPT.contains(&(group, resource))
}
