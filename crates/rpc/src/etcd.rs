//! etcd's API, version 3: what an API server asks an etcd, and what our store answers in etcd's place.

/// Services and messages.
#[allow(clippy::all, missing_docs)]
#[rustfmt::skip]
#[path = "generated/etcdserverpb.rs"]
pub mod etcdserverpb;

/// Keys with their values, and events.
#[allow(clippy::all, missing_docs)]
#[rustfmt::skip]
#[path = "generated/mvccpb.rs"]
pub mod mvccpb;

/// Permissions.
#[allow(clippy::all, missing_docs)]
#[rustfmt::skip]
#[path = "generated/authpb.rs"]
pub mod authpb;
