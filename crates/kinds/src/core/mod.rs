//! The core group, `v1`.

mod configmap;
mod endpoints;
mod event;
mod limitrange;
mod namespace;
mod node;
mod persistentvolume;
pub mod persistentvolumeclaim;
pub mod pod;
mod podtemplate;
mod replicationcontroller;
mod resourcequota;
mod secret;
mod service;
mod serviceaccount;

pub use configmap::decoded_length;
pub use persistentvolume::validation::inline as validate_inline_volume;
pub use pod::round_up;
pub use service::endpoint_address;

use crate::row::StorageKind;

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        configmap::row(),
        endpoints::row(),
        event::row(),
        limitrange::row(),
        namespace::row(),
        node::row(),
        persistentvolumeclaim::row(),
        persistentvolume::row(),
        pod::row(),
        podtemplate::row(),
        replicationcontroller::row(),
        resourcequota::row(),
        secret::row(),
        serviceaccount::row(),
        service::row(),
    ]
}
