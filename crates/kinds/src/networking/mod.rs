//! The networking.k8s.io group.

mod ingress;
mod ingressclass;
mod ipaddress;
mod networkpolicy;
mod servicecidr;

use crate::row::StorageKind;

const GROUP: &str = "networking.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        ingressclass::row(),
        ingress::row(),
        ipaddress::row(),
        servicecidr::row(),
    ]
}

/// The kinds without effect.
pub fn rows_without_effect() -> Vec<StorageKind> {
    vec![networkpolicy::row()]
}
