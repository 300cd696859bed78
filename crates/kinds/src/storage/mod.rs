//! The storage.k8s.io group.

mod csidriver;
mod csinode;
mod csistoragecapacity;
mod parameters;
mod storageclass;
mod volumeattachment;
mod volumeattributesclass;

use crate::row::StorageKind;

const GROUP: &str = "storage.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        csidriver::row(),
        csinode::row(),
        csistoragecapacity::row(),
        storageclass::row(),
        volumeattachment::row(),
        volumeattributesclass::row(),
    ]
}
