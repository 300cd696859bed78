//! What a user is told of a pod that is accepted but hardly meant.
//!
//! Source: `pkg/api/pod/warnings.go`.

mod affinity;
mod paths;
mod ports;

use std::collections::BTreeSet;

use api::Value;
use api::field::Path;
use api::quantity::Quantity;
use api::validation::{dns1123_label, ip_warnings};

use super::security::apparmor_profile;
use crate::view::View;

/// The lists of containers, in the order in which upstream visits them.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// Annotations that fields replaced: since when, and by which.
const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "v1.16+; use the \"priorityClassName\"",
    ),
    ("security.alpha.kubernetes.io/sysctls", "v1.11+; use the \"sysctls\""),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "v1.11+; use the \"sysctls\"",
    ),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const APPARMOR_CONTAINER: &str = super::security::APPARMOR_ANNOTATION;

/// Labels of nodes that are out of use, and what is said of them. Source: `pkg/api/node/util.go`.
const DEPRECATED_NODE_LABELS: [(&str, &str); 8] = [
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// Of a new pod.
pub fn pod(pod: &Value) -> Vec<String> {
    let mut warnings = name(pod, "the Pod's hostname");
    warnings.extend(of_spec("", pod));
    warnings
}

/// What is said of a node's label that is out of use.
pub fn deprecated_node_label(key: &str) -> Option<&'static str> {
    let found = DEPRECATED_NODE_LABELS.iter().find(|(old, _)| *old == key);
    found.map(|(_, message)| *message)
}

/// Of a selector of nodes at a path. Source: `GetWarningsForNodeSelector`.
pub fn node_selector(path: &str, selector: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, expression) in selector.list("matchExpressions").iter().enumerate() {
        let key = expression.text("key");
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{path}.matchExpressions[{index}].key: {key} is {message}"));
        }
    }
    for (label, _) in selector.entries("matchLabels") {
        if let Some(message) = deprecated_node_label(label) {
            warnings.push(format!("{path}.matchLabels.{label}: {message}"));
        }
    }
    warnings
}

/// Of a name that becomes part of others.
pub fn name(object: &Value, used_in: &str) -> Vec<String> {
    let broken = dns1123_label(object.text("metadata.name"));
    if broken.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: \
         [{}]",
        broken.join(" ")
    )]
}

/// Of a pod template at a path: `spec.template`.
pub fn template(path: &str, template: &Value) -> Vec<String> {
    of_spec(path, template)
}

/// Addresses of a pod's status that are read differently by different programs.
pub fn status(pod: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for list in ["podIPs", "hostIPs"] {
        for (index, address) in pod.at("status").list(list).iter().enumerate() {
            let at = Path::new("status").child(list).index(index).child("ip");
            warnings.extend(ip_warnings(&at, address.text("ip")));
        }
    }
    warnings
}

fn of_spec(path: &str, template: &Value) -> Vec<String> {
    let (meta, spec) = (template.at("metadata"), template.at("spec"));
    let at = if path.is_empty() {
        String::new()
    } else {
        format!("{path}.")
    };
    let notes = format!("{at}metadata.annotations");
    // A pod's own annotations become fields when it is made; who writes a template is told.
    let is_template = !path.is_empty();
    let path = &format!("{at}spec");
    let mut warnings = Vec::new();
    for (key, _) in spec.entries("nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {message}"));
        }
    }
    affinity::of_nodes(path, spec, &mut warnings);
    affinity::spread(path, spec, &mut warnings);
    for (key, instead) in DEPRECATED_ANNOTATIONS {
        if api::meta::annotation(template, key).is_some() {
            warnings.push(format!("{notes}[{key}]: non-functional in {instead} field instead"));
        }
    }
    volumes(path, spec, &mut warnings);
    paths::overlapping(spec.list("volumes"), &mut warnings);
    named(path, spec, &mut warnings);
    fractions(&format!("{path}.overhead"), spec.at("overhead"), &mut warnings);
    let unconfined = |context: &Value| !context.has("seccompProfile");
    let mut seccomp = |name: &str| {
        if meta.at("annotations").get(name).is_some() {
            let field = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
            warnings.push(format!("{notes}[{name}]: {field}"));
        }
    };
    if unconfined(spec.at("securityContext")) {
        seccomp(SECCOMP_POD);
    }
    for list in CONTAINERS {
        for container in spec.list(list) {
            if unconfined(container.at("securityContext")) {
                seccomp(&format!("{SECCOMP_CONTAINER}{}", container.text("name")));
            }
        }
    }
    for list in CONTAINERS {
        for (index, container) in spec.list(list).iter().enumerate() {
            let key = format!("{APPARMOR_CONTAINER}{}", container.text("name"));
            let given = meta.at("annotations").get(&key).and_then(Value::as_str);
            if let Some(given) = given.filter(|_| is_template && !container.has("securityContext.appArmorProfile")) {
                let of_pod = spec.at("securityContext.appArmorProfile");
                if of_pod.is_null() || apparmor_profile(given).as_ref() != Some(of_pod) {
                    let field = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
                    warnings.push(format!("{notes}[{key}]: {field}"));
                }
            }
            of_container(&format!("{path}.{list}[{index}]"), container, &mut warnings);
        }
    }
    ports::of(path, spec, &mut warnings);
    if spec.count("terminationGracePeriodSeconds") < 0 {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    affinity::of_pods(path, spec, &mut warnings);
    addresses(path, spec, &mut warnings);
    warnings
}

/// Plug-ins that are gone, and the claims that ephemeral volumes make.
fn volumes(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        for (field, shown, message) in [
            (
                "photonPersistentDisk",
                "photonPersistentDisk",
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            (
                "gitRepo",
                "gitRepo",
                "deprecated in v1.11, and disabled by default in v1.33+",
            ),
            ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
            (
                "storageos",
                "storageOS",
                "deprecated in v1.22, non-functional in v1.25+",
            ),
            ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
            (
                "glusterfs",
                "glusterfs",
                "deprecated in v1.25, non-functional in v1.26+",
            ),
            ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if volume.has(field) {
                warnings.push(format!("{path}.volumes[{index}].{shown}: {message}"));
            }
        }
        if volume.has("ephemeral.volumeClaimTemplate") {
            let at = format!("{path}.volumes[{index}].ephemeral.volumeClaimTemplate.spec");
            let claim = volume.at("ephemeral.volumeClaimTemplate.spec");
            warnings.extend(crate::core::persistentvolumeclaim::warnings(&at, claim));
        }
    }
}

/// Aliases and secrets that are named twice or not at all.
fn named(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        let address = alias.text("ip");
        if !seen.insert(address) {
            warnings.push(format!("{path}.hostAliases[{index}].ip: duplicate ip {address:?}"));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        let (name, at) = (secret.text("name"), format!("{path}.imagePullSecrets[{index}].name"));
        if !seen.insert(name) {
            warnings.push(format!("{at}: duplicate name {name:?}"));
        }
        if name.is_empty() {
            warnings.push(format!("{at}: invalid empty name \"\""));
        }
    }
}

/// Addresses that are read differently by different programs.
fn addresses(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    for (index, server) in spec.texts("dnsConfig.nameservers").enumerate() {
        let at = format!("{path}.dnsConfig.nameservers[{index}]");
        warnings.extend(ip_warnings(&Path::new(&at), server));
    }
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        let at = format!("{path}.hostAliases[{index}].ip");
        warnings.extend(ip_warnings(&Path::new(&at), alias.text("ip")));
    }
}

/// A part of a byte is a mistake: most often `m` for `M`.
fn fractions(path: &str, amounts: &Value, warnings: &mut Vec<String>) {
    for resource in ["memory", "ephemeral-storage"] {
        let Some(value) = amounts.get(resource) else { continue };
        let Ok(amount) = Quantity::from_value(value) else {
            continue;
        };
        if amount.milli_value() % 1000 != 0 {
            let text = amount.to_string();
            warnings.push(format!(
                "{path}[{resource}]: fractional byte value {text:?} is invalid, must be an integer"
            ));
        }
    }
}

fn of_container(path: &str, container: &Value, warnings: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        fractions(
            &format!("{path}.resources.{list}"),
            container.at("resources").at(list),
            warnings,
        );
    }
    let mut seen = BTreeSet::new();
    for (index, variable) in container.list("env").iter().enumerate() {
        let (name, value) = (variable.text("name"), variable.text("value"));
        // A later value that refers to the earlier one extends it, and is meant.
        let before = format!("$({name})");
        let extends = !variable.has("valueFrom") && value != before && value.contains(&before);
        if !seen.insert(name) && !extends {
            let message = "which may be dropped when using apply";
            let hidden = format!("hides previous definition of {name:?}, {message}");
            warnings.push(format!("{path}.env[{index}]: {hidden}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings_are_told_once() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {
            "terminationGracePeriodSeconds": -1, "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "volumes": [{"name": "a", "rbd": {}}],
            "containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"},
                {"name": "A", "value": "$(A):3"}], "resources": {"limits": {"memory": "100m"}}}]}});
        assert_eq!(
            self::pod(&pod),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an \
                 integer",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        assert_eq!(template("spec.template", &pod).len(), 5);
        let annotated = |of_pod: Value| {
            json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}},
                "spec": {"securityContext": {"appArmorProfile": of_pod}, "containers": [{"name": "c"}]}})
        };
        assert_eq!(
            template("spec.template", &annotated(json!({"type": "Unconfined"}))),
            [
                "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use \
              the \"appArmorProfile\" field instead"
            ]
        );
        assert!(template("spec.template", &annotated(json!({"type": "RuntimeDefault"}))).is_empty());
        let old = json!({"matchLabels": {"beta.kubernetes.io/instance-type": "a"},
            "matchExpressions": [{"key": "node-role.kubernetes.io/master", "operator": "Exists"}]});
        assert_eq!(
            node_selector("nodeTopology", &old),
            [
                "nodeTopology.matchExpressions[0].key: node-role.kubernetes.io/master is use \
                 \"node-role.kubernetes.io/control-plane\" instead",
                "nodeTopology.matchLabels.beta.kubernetes.io/instance-type: deprecated since v1.17; use \
                 \"node.kubernetes.io/instance-type\" instead",
            ]
        );
        let addresses = json!({"status": {"podIPs": [{"ip": "10.0.0.01"}], "hostIPs": [{"ip": "10.0.0.1"}]}});
        assert_eq!(status(&addresses).len(), 1);
        let dotted = self::pod(&json!({"metadata": {"name": "a.b"}}));
        assert!(
            dotted[0].starts_with("metadata.name: this is used in the Pod's hostname"),
            "{dotted:?}"
        );
    }
}
