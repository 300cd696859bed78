//! Label and field selectors: their text and object forms, and whether something matches.
//!
//! Error texts are upstream's (`k8s.io/apimachinery/pkg/labels` and `pkg/fields`), because clients see them.

mod field;
mod label;
mod lexer;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector was refused, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
