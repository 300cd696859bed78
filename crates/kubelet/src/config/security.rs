//! Security contexts: the pod's, with the container's own above it.
//!
//! Source: `pkg/securitycontext/util.go` and `pkg/kubelet/kuberuntime/security_context.go`.

use client::k8s_openapi::api::core::v1::{
    Capabilities, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};
use rpc::cri;

/// Paths that no container may look into.
/// Source: `k8s.io/kubernetes/pkg/securitycontext/util.go` (`defaultMaskedPaths`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that no container may write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Which namespaces a pod shares with its node.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    let spec = pod.spec.as_ref();
    let is = |field: Option<bool>| field.unwrap_or(false);
    let mode = |node: bool, otherwise| (if node { cri::NamespaceMode::Node } else { otherwise }) as i32;
    let shared = spec.is_some_and(|spec| is(spec.share_process_namespace));
    let own = if shared {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: mode(spec.is_some_and(|spec| is(spec.host_network)), cri::NamespaceMode::Pod),
        pid: mode(spec.is_some_and(|spec| is(spec.host_pid)), own),
        ipc: mode(spec.is_some_and(|spec| is(spec.host_ipc)), cri::NamespaceMode::Pod),
        ..cri::NamespaceOption::default()
    }
}

/// The pod's own context, for its sandbox.
pub fn of_pod(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let none = PodSecurityContext::default();
    let own = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .unwrap_or(&none);
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let privileged = |container: &Container| {
        container
            .security_context
            .as_ref()
            .and_then(|context| context.privileged)
            .unwrap_or(false)
    };
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: number(own.run_as_user),
        run_as_group: number(own.run_as_group),
        supplemental_groups: groups(own),
        privileged: containers.clone().any(privileged),
        // A pod's sandbox has no program of its own: it runs as what its containers may be at most.
        seccomp: Some(seccomp(own.seccomp_profile.as_ref())),
        ..cri::LinuxSandboxSecurityContext::default()
    }
}

/// The context of a container.
pub fn of_container(pod: &Pod, container: &Container) -> cri::LinuxContainerSecurityContext {
    let (pod_none, none) = (PodSecurityContext::default(), SecurityContext::default());
    let shared = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .unwrap_or(&pod_none);
    let own = container.security_context.as_ref().unwrap_or(&none);
    let privileged = own.privileged.unwrap_or(false);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked {
            Vec::new()
        } else {
            list.iter().map(|path| path.to_string()).collect()
        }
    };
    let added = own
        .capabilities
        .as_ref()
        .and_then(|c| c.add.as_ref())
        .into_iter()
        .flatten();
    let admin = added
        .clone()
        .any(|capability| matches!(&**capability, "SYS_ADMIN" | "CAP_SYS_ADMIN"));
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(capabilities),
        privileged,
        namespace_options: Some(namespaces(pod)),
        run_as_user: number(own.run_as_user.or(shared.run_as_user)),
        run_as_group: number(own.run_as_group.or(shared.run_as_group)),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(shared),
        supplemental_groups_policy: match shared.supplemental_groups_policy.as_deref() {
            Some("Strict") => cri::SupplementalGroupsPolicy::Strict as i32,
            _ => cri::SupplementalGroupsPolicy::Merge as i32,
        },
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged && !admin,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(match privileged {
            true => profile(cri::security_profile::ProfileType::Unconfined, ""),
            false => seccomp(own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref())),
        }),
        ..cri::LinuxContainerSecurityContext::default()
    }
}

/// Whether the container may run as the user that its image names: `runAsNonRoot` is checked before it is made.
///
/// # Errors
/// Upstream's words, for the container's waiting state.
pub fn check_non_root(pod: &Pod, container: &Container, image: &cri::Image) -> Result<(), String> {
    let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let wanted = own
        .and_then(|own| own.run_as_non_root)
        .or(shared.and_then(|shared| shared.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let user = own
        .and_then(|own| own.run_as_user)
        .or(shared.and_then(|shared| shared.run_as_user));
    let name = &container.name;
    match (user, image.uid.as_ref().map(|uid| uid.value), &*image.username) {
        (Some(0), ..) => Err(format!(
            "container's runAsUser breaks non-root policy (container: {name})"
        )),
        (Some(_), ..) => Ok(()),
        (None, Some(0), _) => Err(format!(
            "container has runAsNonRoot and image will run as root (container: {name})"
        )),
        (None, Some(_), _) => Ok(()),
        (None, None, "") => Err(format!(
            "container has runAsNonRoot and image will run as root (container: {name})"
        )),
        (None, None, user) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
             (container: {name})"
        )),
    }
}

fn number(value: Option<i64>) -> Option<cri::Int64Value> {
    value.map(|value| cri::Int64Value { value })
}

fn groups(context: &PodSecurityContext) -> Vec<i64> {
    let more = context.supplemental_groups.iter().flatten().copied();
    more.chain(context.fs_group).collect()
}

fn capabilities(own: &Capabilities) -> cri::Capability {
    cri::Capability {
        add_capabilities: own.add.clone().unwrap_or_default(),
        drop_capabilities: own.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

/// No profile means the runtime's own (upstream's `SeccompDefault`): secure by default (D13).
fn seccomp(own: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    match own.map(|own| &*own.type_) {
        Some("Unconfined") => profile(ProfileType::Unconfined, ""),
        Some("Localhost") => profile(
            ProfileType::Localhost,
            own.and_then(|own| own.localhost_profile.as_deref()).unwrap_or(""),
        ),
        _ => profile(ProfileType::RuntimeDefault, ""),
    }
}

fn profile(kind: cri::security_profile::ProfileType, path: &str) -> cri::SecurityProfile {
    cri::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod_context: Value, own: Value) -> cri::LinuxContainerSecurityContext {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {},
            "spec": {"securityContext": pod_context, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap();
        of_container(&pod, &pod.spec.as_ref().unwrap().containers[0])
    }

    #[test]
    fn the_containers_own_context_stands_above_the_pods() {
        let got = of(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3}),
            json!({"runAsUser": 4}),
        );
        assert_eq!(
            (got.run_as_user.unwrap().value, got.run_as_group.unwrap().value),
            (4, 2)
        );
        assert_eq!(got.supplemental_groups, [3]);
    }

    #[test]
    fn a_container_is_fenced_unless_it_says_else() {
        use cri::security_profile::ProfileType;
        let seccomp = |got: &cri::LinuxContainerSecurityContext| got.seccomp.clone().unwrap().profile_type;
        let plain = of(json!({}), json!({}));
        assert_eq!(seccomp(&plain), ProfileType::RuntimeDefault as i32);
        assert!(plain.masked_paths.contains(&"/proc/kcore".to_owned()) && !plain.no_new_privs);
        let privileged = of(
            json!({}),
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
        );
        assert_eq!(seccomp(&privileged), ProfileType::Unconfined as i32);
        assert!(privileged.masked_paths.is_empty() && !privileged.no_new_privs);
        assert!(of(json!({}), json!({"allowPrivilegeEscalation": false})).no_new_privs);
    }

    #[test]
    fn non_root_is_checked() {
        let check = |own: Value, uid: Option<i64>, username: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {},
                "spec": {"containers": [{"name": "c", "securityContext": own}]},
            }))
            .unwrap();
            let image = cri::Image {
                uid: number(uid),
                username: username.into(),
                ..cri::Image::default()
            };
            check_non_root(&pod, &pod.spec.as_ref().unwrap().containers[0], &image).is_ok()
        };
        for (own, uid, username, ok) in [
            (json!({}), Some(0), "", true),
            (json!({"runAsNonRoot": true}), Some(0), "", false),
            (json!({"runAsNonRoot": true}), Some(5), "", true),
            (json!({"runAsNonRoot": true}), None, "", false),
            (json!({"runAsNonRoot": true}), None, "app", false),
            (json!({"runAsNonRoot": true, "runAsUser": 7}), Some(0), "", true),
            (json!({"runAsNonRoot": true, "runAsUser": 0}), Some(5), "", false),
        ] {
            assert_eq!(check(own.clone(), uid, username), ok, "{own} {uid:?} {username}");
        }
    }
}
