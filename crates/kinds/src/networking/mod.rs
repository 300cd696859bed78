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
        networkpolicy::row(),
        servicecidr::row(),
    ]
}
