//! Patches: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch.
//!
//! All three are plain functions from the live tree (in the version of the request) and the decoded patch to the
//! patched tree, which the caller normalizes and defaults afterwards. Semantics and texts are those of the libraries
//! upstream's server uses (`gopkg.in/evanphx/json-patch.v4` and `k8s.io/apimachinery/pkg/util/strategicpatch`), not
//! those of the RFCs where they differ.

mod json;
mod lists;
mod merge;
mod strategic;

pub use json::{COPY_BYTES_MAX, OPERATIONS_MAX, json_patch, json_patch_unknown_fields};
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

use crate::{Reason, Status, Value};

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed: 400.
    #[error("{0}")]
    BadRequest(String),
    /// The patch is well formed and does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// The patch has too many operations: 413.
    #[error("{0}")]
    TooLarge(String),
    /// What upstream has no code for: 500, without a reason.
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// The answer to the client. For 422 upstream keeps the cause to itself.
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::BadRequest(message) => Status::bad_request(message),
            PatchError::Unprocessable(_) => {
                let message = "the server rejected our request due to an error in our request";
                let mut status = Status::failure(Reason::Invalid, message);
                status.details = Some(Default::default());
                status
            }
            PatchError::TooLarge(message) => Status::failure(
                Reason::RequestEntityTooLarge,
                format!("Request entity too large: {message}"),
            ),
            PatchError::Internal(message) => Status::failure(Reason::Unknown, message),
        }
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`. Error texts of strategic merge show values this way.
pub(crate) fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

/// Levels of objects and lists.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
