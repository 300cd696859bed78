//! The language of the API: what an object is, how it is read, compared, patched and written.
//!
//! Everything here is a plain function over values: no IO, no `async`, no clock. An object is a [`Value`] tree in
//! *normal form* (see `normalize`): keys sorted, nothing that upstream's Go types would leave out, everything they
//! would always write.

pub mod apply;
pub mod codec;
pub mod cron;
pub mod duration;
pub mod field;
pub mod gvk;
pub mod meta;
pub mod normalize;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod sparse;
pub mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod validation;

/// The tree of a decoded object.
pub type Value = serde_json::Value;
/// A JSON object with sorted keys.
pub type Map = serde_json::Map<String, Value>;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use status::{Reason, Status, StatusCause, StatusDetails};
