//! Conflicts of an apply, and the other reasons why it fails.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go`.

use super::element::{PathElement, path_text};
use super::managers::{ManagerId, Operation};
use super::set::FieldSet;
use crate::field::quote;
use crate::{Reason, Status, StatusCause, StatusDetails};

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: ManagerId,
    /// Which field.
    pub path: Vec<PathElement>,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// Fields are owned by others: 409, unless forced.
    Conflicts(Vec<Conflict>),
    /// The configuration is not one of this object: 400.
    BadRequest(String),
    /// The configuration does not fit the schema: 500, as upstream has no code for it.
    Internal(String),
}

impl ApplyError {
    /// The answer to the client.
    pub fn to_status(&self) -> Status {
        match self {
            ApplyError::BadRequest(message) => Status::bad_request(message),
            ApplyError::Internal(message) => Status::failure(Reason::Unknown, message),
            ApplyError::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|conflict| StatusCause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", printed(&conflict.manager)),
                    field: path_text(&conflict.path),
                });
                let mut status = Status::failure(Reason::Conflict, self.to_string());
                status.details = Some(StatusDetails {
                    causes: causes.collect(),
                    ..Default::default()
                });
                status
            }
        }
    }
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApplyError::BadRequest(message) | ApplyError::Internal(message) => f.write_str(message),
            ApplyError::Conflicts(conflicts) => f.write_str(&conflicts_text(conflicts)),
        }
    }
}

impl std::error::Error for ApplyError {}

/// All paths of the sets as conflicts.
pub(super) fn conflicts_of<'a>(sets: impl IntoIterator<Item = (&'a ManagerId, &'a FieldSet)>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (manager, set) in sets {
        for path in set.paths() {
            let manager = manager.clone();
            conflicts.push(Conflict { manager, path });
        }
    }
    conflicts
}

fn conflicts_text(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        let (manager, path) = (printed(&only.manager), path_text(&only.path));
        return format!("Apply failed with 1 conflict: conflict with {manager}: {path}");
    }
    let mut lines = Vec::new();
    for group in conflicts.chunk_by(|a, b| a.manager == b.manager) {
        lines.push(format!("conflicts with {}:", printed(&group[0].manager)));
        lines.extend(group.iter().map(|conflict| format!("- {}", path_text(&conflict.path))));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

fn printed(id: &ManagerId) -> String {
    let mut text = quote(&id.manager);
    if !id.subresource.is_empty() {
        text.push_str(&format!(" with subresource {}", quote(&id.subresource)));
    }
    if id.operation == Operation::Update {
        text.push_str(&format!(" using {}", id.api_version));
    }
    text
}
