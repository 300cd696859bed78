//! Rules for pods of Windows nodes, and for the operating system that a pod names. We run none, and store them as
//! upstream does.
//!
//! Source: `validateWindowsSecurityContextOptions`, `validateWindowsHostProcessPod`, `validateOS`, `validateLinux` and
//! `validateWindows` in `pkg/apis/core/validation/validation.go`.

use std::sync::LazyLock;

use api::validation::dns1123_subdomain;
use regex::Regex;

use super::security::containers_at;
use crate::check::At;
use crate::view::View;

const CREDENTIAL_KIB_MAX: usize = 64;
const DOMAIN_CHARACTERS_MAX: usize = 256;
const USER_CHARACTERS_MAX: usize = 104;

static NETBIOS: LazyLock<Regex> = LazyLock::new(|| rule(r#"^[^\\/:\*\?"<>|\.][^\\/:\*\?"<>|]{0,14}$"#));
static DOMAIN: LazyLock<Regex> = LazyLock::new(|| {
    rule(r"^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$")
});

fn rule(pattern: &str) -> Regex {
    Regex::new(pattern).expect("invariant: a constant pattern")
}

/// `windowsOptions` of a security context.
pub fn options(options: &At) {
    if !options.is_set() {
        return;
    }
    let name = options.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.check(dns1123_subdomain(name.text()));
    }
    let credential = options.get("gmsaCredentialSpec");
    match credential.text().len() {
        0 if credential.is_set() => credential.invalid("gmsaCredentialSpec cannot be an empty string"),
        length if length > CREDENTIAL_KIB_MAX * 1024 => {
            credential.invalid(format!(
                "gmsaCredentialSpec size must be under {CREDENTIAL_KIB_MAX} KiB"
            ));
        }
        _ => {}
    }
    let user = options.get("runAsUserName");
    if user.is_set() {
        user_name(&user);
    }
}

fn user_name(field: &At) {
    let text = field.text();
    if text.is_empty() {
        return field.invalid("runAsUserName cannot be an empty string");
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return field.invalid("runAsUserName cannot contain control characters");
    }
    let (domain, user) = match text.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return field.invalid("runAsUserName cannot contain more than one backslash");
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, text),
    };
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_CHARACTERS_MAX {
            field.invalid(format!(
                "runAsUserName's Domain length must be under {DOMAIN_CHARACTERS_MAX} characters"
            ));
        }
        if !NETBIOS.is_match(domain) && !DOMAIN.is_match(domain) {
            field.invalid("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        field.invalid("runAsUserName's User cannot be empty");
    } else if user.len() > USER_CHARACTERS_MAX {
        field.invalid(format!(
            "runAsUserName's User length must not be longer than {USER_CHARACTERS_MAX} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        field.invalid("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.chars().any(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        field.invalid(r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#);
    }
}

/// HostProcess containers: all of a pod's or none, and on the host's network.
pub fn host_process(spec: &At) {
    let field = "securityContext.windowsOptions.hostProcess";
    let of_pod = spec.value.boolean(field);
    let (mut all, mut host) = (0, 0);
    for container in containers_at(spec) {
        all += 1;
        let own = container.value.boolean(field);
        if let (Some(of_pod), Some(own)) = (of_pod, own) {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            container.get(field).ensure(of_pod == own, detail);
        }
        host += usize::from(own.or(of_pod) == Some(true));
    }
    if host == 0 {
        return;
    }
    if host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        spec.invalid_as("", detail);
    }
    if !spec.value.flag("hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        spec.get("hostNetwork").invalid_as(false, detail);
    }
}

const NOT_IN_WINDOWS_PODS: [&str; 15] = [
    "securityContext.appArmorProfile",
    "securityContext.seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    "securityContext.seccompProfile",
    "securityContext.fsGroup",
    "securityContext.fsGroupChangePolicy",
    "securityContext.sysctls",
    "shareProcessNamespace",
    "securityContext.runAsUser",
    "securityContext.runAsGroup",
    "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy",
    "securityContext.seLinuxChangePolicy",
];

const NOT_IN_WINDOWS_CONTAINERS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `os`, and what a pod of that system must not have.
pub fn operating_system(spec: &At) {
    let os = spec.get("os");
    if !os.is_set() {
        return;
    }
    let name = os.get("name");
    match name.text() {
        "" => name.missing(""),
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            spec.get("securityContext.windowsOptions").forbidden_when_set(detail);
            for container in containers_at(spec) {
                container
                    .get("securityContext.windowsOptions")
                    .forbidden_when_set(detail);
            }
        }
        "windows" => {
            let detail = "cannot be set for a windows pod";
            for field in NOT_IN_WINDOWS_PODS {
                spec.get(field).forbidden_when_set(detail);
            }
            for container in containers_at(spec) {
                for field in NOT_IN_WINDOWS_CONTAINERS {
                    container.get("securityContext").get(field).forbidden_when_set(detail);
                }
            }
        }
        _ => os
            .elsewhere(os.path.clone(), name.value)
            .not_supported(&["linux", "windows"]),
    }
}
