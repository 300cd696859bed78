//! The IPAddress of each cluster IP, which says to everybody whose it is.
//!
//! Invariant: it is written and removed in the transaction that gives the address to its Service or takes it back. What is
//! otherwise, an older server or somebody's hand has made; [`super::repair`] puts it right.
//!
//! Source: `pkg/registry/core/service/ipallocator/ipallocator.go`.

use std::net::IpAddr;

use api::{GroupResource, Status, Value, meta};
use serde_json::json;
use store::{Guard, Operation, Transaction};

use super::ranges::GROUP;
use crate::call::rfc3339;
use crate::managed;
use crate::server::Server;

/// Label of an IPAddress: `IPv4` or `IPv6`.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Label of an IPAddress: who keeps it.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Those of Services are kept by this.
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Who writes them: upstream's server writes through its own API.
const MANAGER: &str = "kube-apiserver";

/// `ipaddresses.networking.k8s.io`.
pub(super) fn ip_addresses() -> GroupResource {
    GroupResource {
        group: GROUP.into(),
        resource: "ipaddresses".into(),
    }
}

pub(super) fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// Whether the allocator keeps it.
pub(super) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"][MANAGED_BY] == ALLOCATOR
}

/// Whether it has the labels that the allocator gives.
pub(super) fn has_labels(object: &Value, address: IpAddr) -> bool {
    is_ours(object) && object["metadata"]["labels"][FAMILY] == family(address)
}

/// An IPAddress as the allocator makes it.
fn made(address: IpAddr, namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address.to_string(), "labels": {FAMILY: family(address), MANAGED_BY: ALLOCATOR}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// The key of an address' object; `None`: the kind is not served, and nothing is written.
fn key(server: &Server, address: IpAddr) -> Option<String> {
    let registry = server.registry.load();
    Some(registry.kind(&ip_addresses())?.key("", &address.to_string()))
}

/// Adds the making of an IPAddress for a Service, which nobody may have by then.
pub(super) fn add(
    server: &Server,
    transaction: &mut Transaction,
    address: IpAddr,
    (namespace, name): (&str, &str),
) -> Result<(), Status> {
    let registry = server.registry.load();
    let Some(served) = registry.find(GROUP, "v1", "ipaddresses") else {
        return Ok(());
    };
    let mut object = made(address, namespace, name);
    let now = rfc3339(server.clock.now());
    meta::set_text(&mut object, "creationTimestamp", &now);
    meta::set_text(&mut object, "uid", &server.random.uuid());
    api::normalize::normalize(&mut object, &served.kind.schema, api::normalize::UnknownFields::Ignore)
        .map_err(Status::internal)?;
    managed::update(served, "", None, &mut object, MANAGER, &now)?;
    let key = served.kind.key("", &address.to_string());
    let put = server.storage.put(&served.kind, &key, &object, None)?;
    transaction.guards.push(Guard::Absent(key.into()));
    transaction.operations.push(put);
    Ok(())
}

/// Adds the removal of an address' IPAddress.
pub(super) fn remove(server: &Server, transaction: &mut Transaction, address: IpAddr) {
    if let Some(key) = key(server, address) {
        transaction.operations.push(Operation::Delete(key.into()));
    }
}
