//! What a user is told of a pod that is accepted but hardly meant.
//!
//! Source: `pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Value;
use api::field::Path;
use api::validation::{dns1123_label, ip_warnings};

use crate::view::View;

/// Labels of nodes that have a new name.
pub const DEPRECATED_NODE_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Of a new pod.
pub fn pod(pod: &Value) -> Vec<String> {
    let mut warnings = name(pod, "the Pod's hostname");
    warnings.extend(of_spec("spec", pod.at("spec")));
    warnings
}

/// What is said of a node's label that has a new name.
pub fn deprecated_node_label(key: &str) -> Option<String> {
    let (_, new) = DEPRECATED_NODE_LABELS.iter().find(|(old, _)| *old == key)?;
    Some(format!("deprecated since v1.14; use \"{new}\" instead"))
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
pub fn template(path: &str, template: &Value, old: Option<&Value>) -> Vec<String> {
    let path = format!("{path}.spec");
    let known: Vec<String> = old.map(|old| of_spec(&path, old.at("spec"))).unwrap_or_default();
    let mut warnings = of_spec(&path, template.at("spec"));
    warnings.retain(|warning| !known.contains(warning));
    warnings
}

fn of_spec(path: &str, spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, _) in spec.entries("nodeSelector") {
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {message}"));
        }
    }
    let mut addresses = BTreeSet::new();
    for (index, alias) in spec.list("hostAliases").iter().enumerate() {
        let (field, address) = (format!("{path}.hostAliases[{index}].ip"), alias.text("ip"));
        warnings.extend(ip_warnings(&Path::new(&field), address));
        if !addresses.insert(address) {
            warnings.push(format!("{field}: duplicate ip {address:?}"));
        }
    }
    let mut secrets = BTreeSet::new();
    for (index, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        let name = secret.text("name");
        if name.is_empty() {
            let message = format!("{path}.imagePullSecrets[{index}].name: invalid empty name \"\"");
            warnings.push(message);
        } else if !secrets.insert(name) {
            warnings.push(format!(
                "{path}.imagePullSecrets[{index}].name: duplicate name {name:?}"
            ));
        }
    }
    for (index, volume) in spec.list("volumes").iter().enumerate() {
        for (field, message) in [
            ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
            ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
            ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ] {
            if volume.has(field) {
                warnings.push(format!("{path}.volumes[{index}].{field}: {message}"));
            }
        }
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in spec.list(list).iter().enumerate() {
            of_container(&format!("{path}.{list}[{index}]"), container, &mut warnings);
        }
    }
    if spec.count("terminationGracePeriodSeconds") < 0 {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

fn of_container(path: &str, container: &Value, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, variable) in container.list("env").iter().enumerate() {
        let name = variable.text("name");
        // A later value that refers to the earlier one extends it, and is meant.
        let extends = variable.text("value").contains(&format!("$({name})"));
        if !seen.insert(name) && !extends {
            let message = "which may be dropped when using apply";
            let hidden = format!("hides previous definition of {name:?}, {message}");
            warnings.push(format!("{path}.env[{index}]: {hidden}"));
        }
    }
    for list in ["limits", "requests"] {
        let storage = container.at("resources").at(list).get("ephemeral-storage");
        let memory = container.at("resources").at(list).get("memory");
        for (resource, value) in [("ephemeral-storage", storage), ("memory", memory)] {
            let text = value.and_then(Value::as_str).unwrap_or("");
            if text.ends_with('m') {
                warnings.push(format!(
                    "{path}.resources.{list}[{resource}]: fractional byte value {text:?} is invalid, must be an integer"
                ));
            }
        }
    }
    let mut ports = BTreeMap::new();
    for (index, port) in container.list("ports").iter().enumerate() {
        let key = (
            port.count("containerPort"),
            port.text("protocol"),
            port.count("hostPort"),
            port.text("hostIP"),
        );
        match ports.get(&key) {
            Some(first) => {
                let with = format!("duplicate port definition with {path}.ports[{first}]");
                warnings.push(format!("{path}.ports[{index}]: {with}"));
            }
            None => drop(ports.insert(key, index)),
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
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an \
                 integer",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
        assert!(template("spec.template", &pod, Some(&pod)).is_empty());
        let dotted = self::pod(&json!({"metadata": {"name": "a.b"}}));
        assert!(
            dotted[0].starts_with("metadata.name: this is used in the Pod's hostname"),
            "{dotted:?}"
        );
    }
}
