//! From a pod's definition to what the runtime is asked for: plain functions.

mod container;
mod dns_limits;
mod image_name;
mod resources;
mod sandbox;
mod security;
pub mod whole;

use std::hash::{Hash as _, Hasher as _};

use client::k8s_openapi::api::core::v1::{Container, Pod};

pub use container::{Wanted, container};
pub use image_name::check_image_name;
pub use resources::{cgroup_parent, oom_score_adj, qos_class, resources};
pub use sandbox::{Node, Resolver, dns_warnings, hostname, log_directory, sandbox};
pub use security::check_non_root;

/// A hash of the part of a container's definition whose change restarts it: name and image, as upstream's
/// `HashContainer` since 1.31.
pub fn hash(container: &Container) -> String {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    (&container.name, &container.image).hash(&mut hasher);
    format!("{:x}", hasher.finish())
}

/// FNV-1a: the same in every build, as a hash that outlives a process has to be.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The pod's namespace, name and uid.
pub fn identity(pod: &Pod) -> (&str, &str, &str) {
    let metadata = &pod.metadata;
    (
        metadata.namespace.as_deref().unwrap_or(""),
        metadata.name.as_deref().unwrap_or(""),
        metadata.uid.as_deref().unwrap_or(""),
    )
}
