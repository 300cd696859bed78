//! Rules for security contexts of pods and containers.
//!
//! Source: `ValidateSecurityContext`, `validatePodSpecSecurityContext` and what they call in
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use api::Value;
use api::validation::{group_id, user_id};
use regex::Regex;
use serde_json::json;

use super::tolerated::Tolerated;
use super::{paths, windows};
use crate::check::At;
use crate::view::View;

const SECCOMP_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// The prefix of annotations that named AppArmor profiles before the field did.
pub const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// PATH_MAX - 1.
const APPARMOR_PROFILE_BYTES_MAX: usize = 4095;
const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL_PATTERN: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
static SYSCTL: LazyLock<Regex> = LazyLock::new(|| Regex::new(SYSCTL_PATTERN).expect("invariant: a constant pattern"));

/// The security context of a container.
pub fn container(context: &At, host_users: bool) {
    if !context.is_set() {
        return;
    }
    ids(context);
    let mount = context.get("procMount");
    if mount.is_set() {
        mount.one_of(&["Default", "Unmasked"]);
        if host_users && mount.text() == "Unmasked" {
            mount.invalid("`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"));
    if context.value.boolean("allowPrivilegeEscalation") == Some(false) {
        if context.value.flag("privileged") {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context
            .value
            .texts("capabilities.add")
            .any(|capability| capability == "CAP_SYS_ADMIN")
        {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    windows::options(&context.get("windowsOptions"));
    apparmor(&context.get("appArmorProfile"));
}

/// The security context of a pod.
pub fn pod(spec: &At, tolerated: Tolerated) {
    let context = spec.get("securityContext");
    if !context.is_set() {
        return;
    }
    id(&context.get("fsGroup"), group_id);
    ids(&context);
    for group in context.items("supplementalGroups") {
        id(&group, group_id);
    }
    let shared = spec.value.flag("shareProcessNamespace");
    if shared && spec.value.flag("hostPID") {
        let field = context.get("shareProcessNamespace");
        field.invalid_as(true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context);
    if !tolerated.host_sysctls {
        host_sysctls(spec);
    }
    let policy = context.get("fsGroupChangePolicy");
    if policy.is_set() {
        policy.one_of(&["Always", "OnRootMismatch"]);
    }
    seccomp(&context.get("seccompProfile"));
    windows::options(&context.get("windowsOptions"));
    apparmor(&context.get("appArmorProfile"));
    let policy = context.get("supplementalGroupsPolicy");
    if policy.is_set() {
        policy.one_of(&["Merge", "Strict"]);
    }
    let policy = context.get("seLinuxChangePolicy");
    if policy.is_set() {
        // `MountOption` is for clusters with the feature SELinuxMount.
        match tolerated.selinux_change_policy {
            true => policy.one_of(&["MountOption", "Recursive"]),
            false => policy.one_of(&["Recursive"]),
        }
    }
}

fn ids(context: &At) {
    id(&context.get("runAsUser"), user_id);
    id(&context.get("runAsGroup"), group_id);
}

fn id(field: &At, rule: fn(i64) -> Vec<String>) {
    if let Some(number) = field.number() {
        field.check(rule(number));
    }
}

fn seccomp(profile: &At) {
    if !profile.is_set() {
        return;
    }
    let kind = profile.get("type");
    match kind.text() {
        "" => kind.missing("type is required when seccompProfile is set"),
        _ => kind.one_of(&SECCOMP_TYPES),
    }
    let local = profile.get("localhostProfile");
    if kind.text() == "Localhost" {
        match local.is_set() {
            true => paths::local_descending(&local),
            false => local.missing("must be set when seccomp type is Localhost"),
        }
    } else if local.is_set() {
        local.invalid_as(profile.value.clone(), "can only be set when seccomp type is Localhost");
    }
}

fn apparmor(profile: &At) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            let text = local.text();
            let trimmed = text.trim();
            if local.is_set() && trimmed != text {
                local.invalid("must not be padded with whitespace");
            } else if trimmed.is_empty() {
                local.missing("must be set when AppArmor type is Localhost");
            }
            if text.len() > APPARMOR_PROFILE_BYTES_MAX {
                local.too_long(APPARMOR_PROFILE_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                local.invalid("can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.missing("type is required when appArmorProfile is set"),
        _ => kind.not_supported(&SECCOMP_TYPES),
    }
}

fn sysctls(context: &At) {
    let mut seen = BTreeSet::new();
    for sysctl in context.items("sysctls") {
        let name = sysctl.get("name");
        let text = name.text();
        if name.required() {
            if text.len() > SYSCTL_BYTES_MAX || !SYSCTL.is_match(text) {
                name.invalid(format!(
                    "must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL_PATTERN}"
                ));
            } else if seen.contains(text) {
                name.duplicate(text);
            }
        }
        seen.insert(text);
    }
}

/// What a pod shares with the host is not the pod's to set.
pub fn host_sysctls(spec: &At) {
    for sysctl in spec.items("securityContext.sysctls") {
        let name = sysctl.get("name");
        match sysctl_namespace(name.text()) {
            Some("net") if spec.value.flag("hostNetwork") => {
                name.invalid("may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if spec.value.flag("hostIPC") => name.invalid("may not be specified when 'hostIPC' is true"),
            _ => {}
        }
    }
}

/// Which kernel namespace a sysctl belongs to, slashes and dots being one.
fn sysctl_namespace(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    match name.as_str() {
        "kernel.sem" | "kernel.msgmax" | "kernel.msgmnb" | "kernel.msgmni" => Some("ipc"),
        _ if name.starts_with("kernel.shm") || name.starts_with("fs.mqueue.") => Some("ipc"),
        _ if name.starts_with("net.") => Some("net"),
        _ => None,
    }
}

/// The profile that the annotation of old names. Source: `ApparmorFieldForAnnotation` in `pkg/api/pod/util.go`.
pub fn apparmor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        name => {
            let name = name.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

/// Annotations that named seccomp and AppArmor profiles before the fields did.
pub fn annotations(pod: &At) {
    let annotations = pod.get("metadata.annotations");
    for (key, value) in pod.entries("metadata.annotations") {
        let of_seccomp = key == SECCOMP_POD_ANNOTATION || key.starts_with(SECCOMP_CONTAINER_ANNOTATION);
        if of_seccomp {
            seccomp_name(&annotations.elsewhere(annotations.path.child(key), value.value));
        }
        if let Some(container) = key.strip_prefix(APPARMOR_ANNOTATION) {
            if !containers(pod.value.at("spec")).any(|c| c.text("name") == container) {
                value.invalid_as(container, "container not found");
            }
            let name = value.text();
            let known = ["", "runtime/default", "unconfined"].contains(&name) || name.starts_with("localhost/");
            if !known {
                value.invalid(format!("invalid AppArmor profile name: {name:?}"));
            }
        }
    }
}

fn seccomp_name(name: &At) {
    match name.text() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        text => match text.strip_prefix("localhost/") {
            Some(rest) => {
                let rest = Value::from(rest);
                paths::local_descending(&At {
                    value: &rest,
                    path: name.path.clone(),
                    report: name.report,
                });
            }
            None => name.invalid("must be a valid seccomp profile"),
        },
    }
}

/// All containers of a pod spec, in the order in which upstream visits them.
pub fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.list(list))
}

/// All containers of a pod spec and where they are.
pub fn containers_at<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.items(list))
        .collect()
}

/// When a pod is made, annotations and fields must tell the same.
pub fn annotations_match_fields(pod: &At) {
    let spec = pod.get("spec");
    let annotation = |key: &str| api::meta::annotation(pod.value, key);
    let differs = |at: At, what: &str| at.forbidden(format!("{what} in annotation and field must match"));
    let agree = |what: &'static str, found: Option<&str>, profile: &At| {
        let Some(found) = found.filter(|_| profile.is_set()) else {
            return;
        };
        let local = profile.value.text("localhostProfile");
        match profile.value.text("type") {
            "Unconfined" if found != "unconfined" => differs(profile.get("type"), &format!("{what} type")),
            "RuntimeDefault" if found != "runtime/default" && (what != "seccomp" || found != "docker/default") => {
                differs(profile.get("type"), &format!("{what} type"));
            }
            "Localhost" => match found.strip_prefix("localhost/") {
                None => differs(profile.get("type"), &format!("{what} type")),
                Some(name) if name != local || local.is_empty() => {
                    differs(profile.get("localhostProfile"), &format!("{what} profile"));
                }
                Some(_) => {}
            },
            _ => {}
        }
    };
    let of_pod = spec.get("securityContext.seccompProfile");
    agree("seccomp", annotation(SECCOMP_POD_ANNOTATION), &of_pod);
    for container in containers_at(&spec) {
        let key = format!("{SECCOMP_CONTAINER_ANNOTATION}{}", container.value.text("name"));
        agree(
            "seccomp",
            annotation(&key),
            &container.get("securityContext.seccompProfile"),
        );
    }
    if spec.value.text("os.name") == "windows" {
        return;
    }
    for container in containers_at(&spec) {
        let key = format!("{APPARMOR_ANNOTATION}{}", container.value.text("name"));
        let own = container.get("securityContext.appArmorProfile");
        let inherited = own.elsewhere(own.path.clone(), spec.value.at("securityContext.appArmorProfile"));
        let profile = if own.is_set() { own } else { inherited };
        agree("apparmor", annotation(&key), &profile);
    }
}
