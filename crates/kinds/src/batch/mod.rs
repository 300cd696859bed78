//! The batch group.

mod cronjob;
mod job;

use crate::row::StorageKind;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![cronjob::row(), job::row()]
}
