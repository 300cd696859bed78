//! The apps group.

mod controllerrevision;
mod daemonset;
mod deployment;
mod replicaset;
mod statefulset;
pub(crate) mod workload;

use crate::row::StorageKind;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        controllerrevision::row(),
        daemonset::row(),
        deployment::row(),
        replicaset::row(),
        statefulset::row(),
    ]
}
