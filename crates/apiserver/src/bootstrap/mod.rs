//! What every cluster starts with: the RBAC policy, namespaces, priority classes and the `kubernetes` Service.

pub mod policy;
