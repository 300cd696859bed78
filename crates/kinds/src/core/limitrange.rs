//! LimitRange (not served: nothing enforces it yet).

use crate::build::Row;
use crate::row::StorageKind;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "LimitRange", "limitranges")
        .short(&["limits"])
        .created_by_put()
        .build()
}
