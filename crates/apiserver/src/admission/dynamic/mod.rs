//! Dynamic admission: what policies and webhooks, which cluster administrators write, have in common.
//!
//! [`follow`] keeps up with the objects that say what they do, [`matching`] says which of them are about a request and in which
//! version they see it, [`expression`] compiles CEL, [`evaluate`] runs it over what [`input`] shows, and [`answers`] lets
//! expressions, which cannot wait, ask authorizers, who may have to.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin`, `webhook/predicates`, `webhook/matchconditions` and `cel`.

pub mod answers;
pub mod evaluate;
pub mod expression;
pub mod follow;
pub mod input;
pub mod matching;

use api::Value;

/// The group of policies and of webhooks' configurations.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// The elements of a list in a spec.
pub fn items<'v>(spec: &'v Value, list: &str) -> &'v [Value] {
    spec[list].as_array().map_or(&[], Vec::as_slice)
}

/// Errors as upstream joins them: several in brackets, each once.
pub fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    match &mut errors[..] {
        [one] => std::mem::take(one),
        many => format!("[{}]", many.join(", ")),
    }
}
