//! Objects on the wire: JSON, YAML and protobuf, each to and from one [`Value`](crate::Value).
//!
//! A decoder only reads syntax; [`normalize`](crate::normalize::normalize) then gives the tree its meaning.

mod error;
pub mod json;
mod media;
pub mod protobuf;
pub(crate) mod time;
pub mod yaml;

pub use error::{DecodeError, DecodeErrorKind};
pub use media::MediaType;

use crate::Value;

/// How much a decoder takes before it refuses. The size of the body is the caller's to check, before it reads it all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Levels of objects and lists.
    pub depth_max: usize,
}

/// Upstream's decoder gives up at 10,000 levels. Every pass over a tree here is a recursion (4 KiB of stack a level in a
/// debug build), and a task has 2 MiB for all it does; no object that means something has a hundred levels.
pub const DEPTH_MAX: usize = 256;

impl Default for Limits {
    fn default() -> Self {
        Limits { depth_max: DEPTH_MAX }
    }
}

/// How many repeated fields are told; upstream stops there too (`sigs.k8s.io/json`).
pub const STRICT_ERRORS_MAX: usize = 100;

/// A tree and what strict field validation has to say of its syntax.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The tree; of a repeated field it has the last value.
    pub value: Value,
    /// The fields that were given twice: their paths in JSON ([`json::strict_errors`]), go-yaml's lines in YAML
    /// ([`yaml::strict_error`]).
    pub duplicates: Vec<String>,
}
