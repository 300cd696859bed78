//! Rules that a pod or a template may go on breaking in an update, because what is stored breaks them already: it is older
//! than the rule.
//!
//! Source: `GetValidationOptionsFromPodSpecAndMeta` in `pkg/api/pod/util.go`. Each is found by running the rule itself.

use api::Value;

use super::{containers, projected, resources, scheduling, security, spec};
use crate::check::{At, Report};
use crate::view::View;

/// What the old object broke; nothing for a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tolerated {
    /// The annotation of the cost of a deletion is no number.
    pub deletion_cost: bool,
    /// An amount of huge pages is no multiple of their size.
    pub partial_huge_pages: bool,
    /// A selector of pod (anti-)affinity is broken: its values may be no label values.
    pub affinity_values: bool,
    /// A required node affinity has values that are no label values.
    pub node_affinity_values: bool,
    /// The selector of a spread constraint is broken.
    pub spread_selectors: bool,
    /// The label keys of a spread constraint are checked by the older rule.
    pub spread_keys: bool,
    /// The path of a projected token leaves its volume.
    pub token_paths: bool,
    /// A sysctl belongs to a namespace that the pod shares with the host.
    pub host_sysctls: bool,
    /// Block devices in a user namespace.
    pub devices: bool,
    /// An init container that ends by itself is to be started anew to be resized.
    pub init_restarts: bool,
    /// How labels of SELinux are changed is said already; new pods may only say what all nodes do.
    pub selinux_change_policy: bool,
}

impl Tolerated {
    /// What the old pod or template broke.
    pub fn of(old: Option<&Value>) -> Tolerated {
        let Some(old) = old else {
            return Tolerated::default();
        };
        let broken = |rule: fn(&At)| !Report::of(old, |pod| rule(&pod)).is_empty();
        Tolerated {
            deletion_cost: broken(spec::deletion_cost),
            partial_huge_pages: broken(|pod| resources::whole_pages_everywhere(&pod.get("spec"))),
            affinity_values: broken(|pod| scheduling::affinity_selectors(&pod.get("spec"))),
            node_affinity_values: broken(|pod| scheduling::node_affinity_values(&pod.get("spec"))),
            spread_selectors: broken(|pod| scheduling::spread_selectors(&pod.get("spec"))),
            spread_keys: broken(|pod| scheduling::spread_keys(&pod.get("spec"))),
            token_paths: broken(|pod| {
                for volume in pod.items("spec.volumes") {
                    projected::token_paths(&volume.get("projected"));
                }
            }),
            host_sysctls: broken(|pod| security::host_sysctls(&pod.get("spec"))),
            devices: broken(|pod| spec::devices(&pod.get("spec"))),
            init_restarts: broken(|pod| {
                let init = pod.items("spec.initContainers");
                let plain = init.iter().filter(|c| c.value.text("restartPolicy") != "Always");
                plain.for_each(containers::no_restart_to_resize);
            }),
            selinux_change_policy: old.has("spec.securityContext.seLinuxChangePolicy"),
        }
    }
}
