//! One folder a resource: defaulting, validation, strategy and columns, and the rows that the API server serves.
//!
//! Used by `apiserver` only. No IO, no `async`, no clock. Rules are plain functions over hub objects in normal form;
//! whoever changes an object through a [`row::Strategy`] normalizes it again before it is stored or shown.

pub mod apiextensions;
pub mod custom;
pub mod fields;
pub mod row;

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod build;
mod certificates;
mod check;
mod coordination;
mod core;
mod difference;
mod discovery;
mod docs;
mod flowcontrol;
mod gates;
mod generic;
mod names;
mod networking;
mod node;
mod policy;
mod print;
mod rbac;
mod resource;
mod scheduling;
mod storage;
mod view;

pub use docs::table_of_kinds;
pub use flowcontrol::bootstrap as flow_control_bootstrap;
pub use print::age;
pub use row::Writer;

use std::sync::Arc;

use row::StorageKind;

/// Every built-in kind that is served, in the order of upstream's groups.
pub fn rows() -> Vec<Arc<StorageKind>> {
    let groups = [
        core::rows(),
        apps::rows(),
        autoscaling::rows(),
        batch::rows(),
        certificates::rows(),
        networking::rows(),
        rbac::rows(),
        storage::rows(),
        scheduling::rows(),
        coordination::rows(),
        node::rows(),
        policy::rows(),
        discovery::rows(),
        resource::rows(),
        flowcontrol::rows(),
        admissionregistration::rows(),
        apiextensions::rows(),
        apiregistration::rows(),
    ];
    groups.into_iter().flatten().map(Arc::new).collect()
}

#[cfg(test)]
mod defaults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

#[cfg(test)]
mod testing;
