//! Rules of security contexts.

use super::{Pods, check, check_container, check_spec};
use crate::testing::Case;

const RANGE: &str = "must be between 0 and 2147483647, inclusive";

#[test]
fn of_containers() {
    check_container(
        "securityContext: {runAsUser: 0, privileged: true, procMount: Default}",
        &[],
    );
    check_container(
        "securityContext: {runAsUser: -1, runAsGroup: -1, procMount: Unmasked}",
        &[
            &format!("securityContext.runAsUser: Invalid value: -1: {RANGE}"),
            &format!("securityContext.runAsGroup: Invalid value: -1: {RANGE}"),
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ],
    );
    check_container(
        "securityContext: {procMount: X}",
        &["securityContext.procMount: Unsupported value: \"X\": supported values: \"Default\", \"Unmasked\""],
    );
    check_container(
        "securityContext: {allowPrivilegeEscalation: false, privileged: true}",
        &[
            "securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set \
             `allowPrivilegeEscalation` to false and `privileged` to true",
        ],
    );
    check_container(
        "securityContext: {allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}}",
        &["securityContext: Invalid value: \
             {\"allowPrivilegeEscalation\":false,\"capabilities\":{\"add\":[\"CAP_SYS_ADMIN\"]}}: cannot set \
             `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"],
    );
}

#[test]
fn profiles() {
    for (profile, error) in [
        ("seccompProfile: {type: RuntimeDefault}", None),
        ("seccompProfile: {type: Localhost, localhostProfile: a/b}", None),
        (
            "seccompProfile: {}",
            Some("seccompProfile.type: Required value: type is required when seccompProfile is set"),
        ),
        (
            "seccompProfile: {type: X}",
            Some(
                "seccompProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \
                 \"Unconfined\"",
            ),
        ),
        (
            "seccompProfile: {type: Localhost}",
            Some("seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"),
        ),
        (
            "seccompProfile: {type: Localhost, localhostProfile: ../a}",
            Some("seccompProfile.localhostProfile: Invalid value: \"../a\": must not contain '..'"),
        ),
        (
            "seccompProfile: {type: Unconfined, localhostProfile: a}",
            Some(
                "seccompProfile.localhostProfile: Invalid value: {\"localhostProfile\":\"a\",\"type\":\"Unconfined\"}: can \
                 only be set when seccomp type is Localhost",
            ),
        ),
        ("appArmorProfile: {type: Localhost, localhostProfile: a}", None),
        (
            "appArmorProfile: {}",
            Some("appArmorProfile.type: Required value: type is required when appArmorProfile is set"),
        ),
        (
            "appArmorProfile: {type: X}",
            Some(
                "appArmorProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \
                 \"Unconfined\"",
            ),
        ),
        (
            "appArmorProfile: {type: Localhost}",
            Some("appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost"),
        ),
        (
            "appArmorProfile: {type: Localhost, localhostProfile: ' a'}",
            Some("appArmorProfile.localhostProfile: Invalid value: \" a\": must not be padded with whitespace"),
        ),
        (
            "appArmorProfile: {type: Unconfined, localhostProfile: a}",
            Some(
                "appArmorProfile.localhostProfile: Invalid value: \"a\": can only be set when AppArmor type is Localhost",
            ),
        ),
    ] {
        let errors: Vec<String> = error.iter().map(|error| format!("securityContext.{error}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check_container(&format!("securityContext: {{{profile}}}"), &errors);
        check_spec(&format!("securityContext: {{{profile}}}"), &errors);
    }
}

#[test]
fn of_pods() {
    check_spec(
        "securityContext: {fsGroup: -1, runAsUser: -1, runAsGroup: -1, supplementalGroups: [1, -1], fsGroupChangePolicy: \
         X, supplementalGroupsPolicy: Y}",
        &[
            &format!("securityContext.fsGroup: Invalid value: -1: {RANGE}"),
            &format!("securityContext.runAsUser: Invalid value: -1: {RANGE}"),
            &format!("securityContext.runAsGroup: Invalid value: -1: {RANGE}"),
            &format!("securityContext.supplementalGroups[1]: Invalid value: -1: {RANGE}"),
            "securityContext.fsGroupChangePolicy: Unsupported value: \"X\": supported values: \"Always\", \
             \"OnRootMismatch\"",
            "securityContext.supplementalGroupsPolicy: Unsupported value: \"Y\": supported values: \"Merge\", \"Strict\"",
        ],
    );
    check_spec(
        "shareProcessNamespace: true, hostPID: true",
        &[
            "securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be \
             enabled",
        ],
    );
}

#[test]
fn sysctls() {
    check_spec(
        "securityContext: {sysctls: [{name: net.core.somaxconn, value: '1'}, {name: a/b_c, value: '1'}]}",
        &[],
    );
    let at = "securityContext.sysctls";
    check_spec(
        "hostNetwork: true, hostIPC: true, securityContext: {sysctls: [{}, {name: A}, {name: a}, {name: a}, {name: \
         net.a}, {name: kernel.shmmax}]}",
        &[
            &format!("{at}[0].name: Required value"),
            &format!(
                "{at}[1].name: Invalid value: \"A\": must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            )
            .replace("\\\\", "\\"),
            &format!("{at}[3].name: Duplicate value: \"a\""),
            &format!("{at}[4].name: Invalid value: \"net.a\": may not be specified when 'hostNetwork' is true"),
            &format!("{at}[5].name: Invalid value: \"kernel.shmmax\": may not be specified when 'hostIPC' is true"),
        ],
    );
}

#[test]
fn user_namespaces() {
    check_spec(
        "hostUsers: false, hostNetwork: true, hostPID: true, hostIPC: true",
        &[
            "hostNetwork: Forbidden: when `hostUsers` is false",
            "HostPID: Forbidden: when `hostUsers` is false",
            "HostIPC: Forbidden: when `hostUsers` is false",
        ],
    );
}

#[test]
fn annotations() {
    let apparmor = "container.apparmor.security.beta.kubernetes.io";
    let at = "metadata.annotations";
    let pod = |annotations: &str, context: &str| {
        format!(
            "{{metadata: {{name: p, annotations: {{{annotations}}}}}, spec: {{containers: [{{name: a, image: i, \
             securityContext: {{{context}}}}}]}}}}"
        )
    };
    let seccomp = "container.seccomp.security.alpha.kubernetes.io/a";
    let field = "spec.containers[0].securityContext";
    for (object, errors) in [
        (pod(&format!("{apparmor}/a: localhost/x"), ""), vec![]),
        (
            pod(&format!("{apparmor}/b: y"), ""),
            vec![
                format!("{at}[{apparmor}/b]: Invalid value: \"b\": container not found"),
                format!("{at}[{apparmor}/b]: Invalid value: \"y\": invalid AppArmor profile name: \"y\""),
            ],
        ),
        (
            pod(&format!("{seccomp}: x"), ""),
            vec![format!(
                "{at}.{seccomp}: Invalid value: \"x\": must be a valid seccomp profile"
            )],
        ),
        (
            pod(
                &format!("{seccomp}: unconfined"),
                "seccompProfile: {type: RuntimeDefault}",
            ),
            vec![format!(
                "{field}.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"
            )],
        ),
        (
            pod(
                &format!("{apparmor}/a: localhost/x"),
                "appArmorProfile: {type: Localhost, localhostProfile: y}",
            ),
            vec![format!(
                "{field}.appArmorProfile.localhostProfile: Forbidden: apparmor profile in annotation and field must match"
            )],
        ),
        (
            pod(
                "kubernetes.io/config.mirror: x, controller.kubernetes.io/pod-deletion-cost: '+1'",
                "",
            ),
            vec![
                format!(
                    "{at}[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod \
                     annotation is set"
                ),
                format!(
                    "{at}[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer"
                ),
            ],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Pods, Case::new(&object).object(&object).errors(&errors));
    }
}

#[test]
fn windows() {
    check_container(
        "securityContext: {windowsOptions: {runAsUserName: 'DOMAIN\\user'}}",
        &[],
    );
    let at = "securityContext.windowsOptions";
    for (options, error) in [
        (
            "{runAsUserName: ''}",
            "runAsUserName: Invalid value: \"\": runAsUserName cannot be an empty string",
        ),
        (
            "{runAsUserName: 'a\\b\\c'}",
            "runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
        ),
        (
            "{runAsUserName: 'a*b'}",
            "runAsUserName: Invalid value: \"a*b\": runAsUserName's User cannot contain the following characters: \
             \"/\\:;|=,+*?<>@[]",
        ),
        (
            "{runAsUserName: '..'}",
            "runAsUserName: Invalid value: \"..\": runAsUserName's User cannot contain only periods or spaces",
        ),
        (
            "{runAsUserName: 'a*\\b'}",
            "runAsUserName: Invalid value: \"a*\\\\b\": runAsUserName's Domain doesn't match the NetBios nor the DNS \
             format",
        ),
        (
            "{gmsaCredentialSpec: ''}",
            "gmsaCredentialSpec: Invalid value: \"\": gmsaCredentialSpec cannot be an empty string",
        ),
        ("{gmsaCredentialSpecName: A}", "gmsaCredentialSpecName"),
    ] {
        let error = match error {
            "gmsaCredentialSpecName" => format!("{at}.{error}: Invalid value: \"A\": {}", crate::testing::SUBDOMAIN),
            error => format!("{at}.{error}"),
        };
        check_container(&format!("securityContext: {{windowsOptions: {options}}}"), &[&error]);
    }
}

#[test]
fn operating_systems() {
    check_spec("os: {name: linux}", &[]);
    check_spec("os: {}", &["os.name: Required value"]);
    check_spec(
        "os: {name: plan9}",
        &["os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
    );
    check_spec(
        "os: {name: linux}, securityContext: {windowsOptions: {}}",
        &["securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
    );
    check_spec(
        "os: {name: windows}, hostPID: true, securityContext: {runAsUser: 1}, initContainers: [{name: b, image: i, \
         securityContext: {privileged: true}}]",
        &[
            "hostPID: Forbidden: cannot be set for a windows pod",
            "securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            "initContainers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ],
    );
    check_spec(
        "securityContext: {windowsOptions: {hostProcess: true}}, initContainers: [{name: b, image: i, securityContext: \
         {windowsOptions: {hostProcess: false}}}]",
        &[
            "initContainers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value \
             must be identical if both are specified, was true",
            ": Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers",
            "hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
        ],
    );
}
