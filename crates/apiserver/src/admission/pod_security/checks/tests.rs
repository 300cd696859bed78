//! One example or more a check, in upstream's words.

use serde_json::json;

use super::super::policy::LATEST;
use super::*;

/// A pod that the restricted level takes, with changes to its spec and its container.
fn pod(spec: Value, security: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "a"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    for (field, value) in spec.as_object().unwrap() {
        pod["spec"][field] = value.clone();
    }
    for (field, value) in security.as_object().unwrap() {
        pod["spec"]["containers"][0]["securityContext"][field] = value.clone();
    }
    pod
}

/// What a level and version forbid of a pod, as `reason: detail`.
fn found(level: Level, version: Minor, pod: &Value) -> Vec<String> {
    let rule = Rule { level, version };
    let all = violations(rule, &pod["metadata"], &pod["spec"]);
    all.into_iter()
        .map(|one| format!("{}: {}", one.reason, one.detail))
        .collect()
}

#[test]
fn the_baseline_forbids() {
    let two = json!([{"name": "x", "ports": [{"hostPort": 81}, {"hostPort": 0}]},
        {"name": "y", "ports": [{"hostPort": 443}], "livenessProbe": {"httpGet": {"host": "h"}},
         "lifecycle": {"preStop": {"tcpSocket": {"host": "g"}}}}]);
    for (spec, security, expect) in [
        (json!({}), json!({}), &[][..]),
        (
            json!({"hostNetwork": true, "hostIPC": true}),
            json!({}),
            &["host namespaces: hostNetwork=true, hostIPC=true"],
        ),
        (
            json!({}),
            json!({"privileged": true}),
            &["privileged: container \"c\" must not set securityContext.privileged=true"],
        ),
        (
            json!({}),
            json!({"capabilities": {"add": ["SYS_ADMIN", "CHOWN", "NET_RAW"]}}),
            &[
                "non-default capabilities: container \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add",
            ],
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "emptyDir": {}}]}),
            json!({}),
            &["hostPath volumes: volume \"v\""],
        ),
        (
            json!({"containers": two}),
            json!({}),
            &[
                "hostPort: containers \"x\", \"y\" use hostPorts 443, 81",
                "probe or lifecycle host: container \"y\" uses probe or lifecycle hosts \"g\", \"h\"",
            ],
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            json!({}),
            &["forbidden AppArmor profile: pod must not set AppArmor profile type to \"Unconfined\""],
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
            json!({"seLinuxOptions": {"role": "r"}}),
            &[
                "seLinuxOptions: pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may not be set",
            ],
        ),
        (
            json!({}),
            json!({"procMount": "Unmasked"}),
            &["procMount: container \"c\" must not set securityContext.procMount to \"Unmasked\""],
        ),
        (json!({"hostUsers": false}), json!({"procMount": "Unmasked"}), &[]),
        (
            json!({}),
            json!({"seccompProfile": {"type": "Unconfined"}}),
            &["seccompProfile: container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\""],
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.sem"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            json!({}),
            &["forbidden sysctls: kernel.sem"],
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            json!({}),
            &["hostProcess: pod must not set securityContext.windowsOptions.hostProcess=true"],
        ),
        (
            json!({"ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]}),
            json!({}),
            &["privileged: container \"e\" must not set securityContext.privileged=true"],
        ),
    ] {
        let pod = pod(spec, security);
        assert_eq!(found(Level::Baseline, LATEST, &pod), expect, "{pod}");
        assert!(found(Level::Privileged, LATEST, &pod).is_empty());
    }
}

#[test]
fn the_restricted_level_forbids_more() {
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}, {"name": "d"}]}});
    let all = [
        "allowPrivilegeEscalation != false: containers \"c\", \"d\" must set securityContext.allowPrivilegeEscalation=false",
        "unrestricted capabilities: containers \"c\", \"d\" must set securityContext.capabilities.drop=[\"ALL\"]",
        "runAsNonRoot != true: pod or containers \"c\", \"d\" must set securityContext.runAsNonRoot=true",
        "seccompProfile: pod or containers \"c\", \"d\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
    ];
    assert_eq!(found(Level::Restricted, LATEST, &plain), all);
    let mut windows = plain.clone();
    windows["spec"]["os"] = json!({"name": "windows"});
    assert_eq!(found(Level::Restricted, LATEST, &windows), [all[2]]);
    assert_eq!(found(Level::Restricted, 24, &windows), all);
    for (spec, security, expect) in [
        (json!({}), json!({}), &[][..]),
        (
            json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "x", "secret": {}}]}),
            json!({}),
            &["restricted volume types: volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\""],
        ),
        (
            json!({}),
            json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}}),
            &[
                "unrestricted capabilities: container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add",
            ],
        ),
        (
            json!({}),
            json!({"runAsUser": 0, "runAsNonRoot": false}),
            &[
                "runAsNonRoot != true: container \"c\" must not set securityContext.runAsNonRoot=false",
                "runAsUser=0: container \"c\" must not set runAsUser=0",
            ],
        ),
        (
            json!({"hostUsers": false}),
            json!({"runAsUser": 0, "runAsNonRoot": false}),
            &[],
        ),
        (
            json!({"hostUsers": false}),
            json!({"procMount": "Unmasked"}),
            &["procMount: container \"c\" must not set securityContext.procMount to \"Unmasked\""],
        ),
    ] {
        let pod = pod(spec, security);
        assert_eq!(found(Level::Restricted, LATEST, &pod), expect, "{pod}");
    }
}

#[test]
fn older_rules_are_what_they_were() {
    let with_sysctl = |name: &str| pod(json!({"securityContext": {"sysctls": [{"name": name}]}}), json!({}));
    for (name, since) in SAFE_SYSCTLS {
        let sysctl = with_sysctl(name);
        assert!(found(Level::Baseline, since, &sysctl).is_empty(), "{name}");
        assert_eq!(
            found(Level::Baseline, since.saturating_sub(1), &sysctl).is_empty(),
            since == 0,
            "{name}"
        );
    }
    let engine = pod(json!({}), json!({"seLinuxOptions": {"type": "container_engine_t"}}));
    assert_eq!(
        [30, 31].map(|version| found(Level::Baseline, version, &engine).len()),
        [1, 0]
    );
    let mut annotated = pod(json!({}), json!({"seccompProfile": {"type": "Unconfined"}}));
    annotated["metadata"]["annotations"] = json!({"container.seccomp.security.alpha.kubernetes.io/c": "unconfined"});
    let old = "seccompProfile: forbidden annotation container.seccomp.security.alpha.kubernetes.io/c=\"unconfined\"";
    assert_eq!(found(Level::Baseline, 18, &annotated), [old]);
    let users = pod(json!({"hostUsers": false}), json!({"runAsUser": 0}));
    assert_eq!(
        [22, 34, 35].map(|version| found(Level::Restricted, version, &users).len()),
        [0, 1, 0]
    );
    let nothing = json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        [0, 8, 19, 22].map(|version| found(Level::Restricted, version, &nothing).len()),
        [1, 2, 3, 4]
    );
}
