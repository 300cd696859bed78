//! The downward API: a pod's own fields and resources as text, for environment variables and for files.
//!
//! Source: `k8s.io/kubernetes/pkg/fieldpath/fieldpath.go`, `pkg/api/v1/resource/helpers.go` and
//! `pkg/kubelet/kubelet_resources.go`.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use client::k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::config::whole;

/// What the downward API tells that is not in the pod.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's addresses, the first one first.
    pub host_ips: Vec<String>,
    /// What the node has for pods, which stands for a limit that is not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// The resources whose absent limit is what the node has.
const DEFAULTED_LIMITS: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// A field of a pod that needs nothing but the pod: what a volume may show.
///
/// # Errors
/// The text upstream has for it.
pub fn pod_field(pod: &Pod, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| Ok(value.clone().unwrap_or_default());
    if let Some((field, key)) = split_subscript(path) {
        let map = match field {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => {
                return Err(format!(
                    "fieldPath {} does not support subscript",
                    api::field::quote(path)
                ));
            }
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => Ok(format_map(meta.labels.as_ref())),
        "metadata.annotations" => Ok(format_map(meta.annotations.as_ref())),
        other => Err(format!("unsupported fieldPath: {other}")),
    }
}

/// A field of a pod that runs here: what an environment variable may show.
///
/// # Errors
/// The text upstream has for it.
pub fn runtime_field(pod: &Pod, path: &str, node: &NodeFacts, pod_ips: &[String]) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    match path {
        "spec.nodeName" => Ok(spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default()),
        "spec.serviceAccountName" => Ok(spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default()),
        "status.hostIP" => Ok(node.host_ips.first().cloned().unwrap_or_default()),
        "status.hostIPs" => Ok(node.host_ips.join(",")),
        "status.podIP" => Ok(pod_ips.first().cloned().unwrap_or_default()),
        "status.podIPs" => Ok(pod_ips.join(",")),
        // Only files show whole maps.
        "metadata.labels" | "metadata.annotations" => Err(format!("field label not supported: {path}")),
        other => pod_field(pod, other),
    }
}

/// A container's request or limit in steps of the divisor, rounded up. Without a container's name in the selector it is
/// `own`'s.
///
/// # Errors
/// The text upstream has for it.
pub fn resource_field(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    node: &NodeFacts,
) -> Result<String, String> {
    let name = selector.container_name.as_deref().unwrap_or("");
    let container = if name.is_empty() {
        own
    } else {
        container_named(pod, name)
    };
    let container = container.ok_or_else(|| format!("container {name} not found"))?;
    let Some((side, resource)) = selector.resource.split_once('.') else {
        return Err(format!("unsupported container resource : {}", selector.resource));
    };
    let known = DEFAULTED_LIMITS.contains(&resource) || resource.starts_with("hugepages-");
    let resources = container.resources.as_ref();
    let (values, is_limit) = match side {
        "limits" => (resources.and_then(|resources| resources.limits.as_ref()), true),
        "requests" => (resources.and_then(|resources| resources.requests.as_ref()), false),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    if !known {
        return Err(format!("unsupported container resource : {}", selector.resource));
    }
    let set = values
        .and_then(|values| values.get(resource))
        .and_then(|value| Quantity::parse(&value.0).ok());
    let set = set.filter(|value| !(is_limit && value.is_zero()));
    let value = match set {
        None if is_limit && DEFAULTED_LIMITS.contains(&resource) => {
            // What the pod as a whole may have, or else all that the node has.
            let whole = whole::limit_of(pod, container, resource);
            whole.or_else(|| node.allocatable.get(resource).cloned())
        }
        set => set,
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|divisor| Quantity::parse(&divisor.0).ok());
    let divisor = divisor
        .filter(|divisor| !divisor.is_zero())
        .unwrap_or_else(|| Quantity::new(1, Default::default()));
    let steps = match resource {
        "cpu" => ratio_up(value.unwrap_or_default().milli_value(), divisor.milli_value()),
        _ => ratio_up(value.unwrap_or_default().value(), divisor.value()),
    };
    Ok(steps.to_string())
}

fn ratio_up(value: i64, divisor: i64) -> i64 {
    // Validation lets only positive divisors through; a pod from elsewhere must not end this process.
    let divisor = divisor.max(1);
    value / divisor + i64::from(value % divisor > 0)
}

fn container_named<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.into_iter().find(|container| container.name == name)
}

/// `metadata.labels['key']` as field and key.
fn split_subscript(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_suffix("']")?;
    let (field, key) = rest.split_once("['")?;
    (!field.is_empty()).then_some((field, key))
}

/// A map as lines `key="value"`, sorted by key.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", api::field::quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "1\n\"x\""},
                "annotations": {"example.com/k": "v"},
            },
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {
                    "limits": {"cpu": "1500m", "memory": "64Mi", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1m"},
                }},
                {"name": "d"},
            ]},
        }))
        .unwrap()
    }

    fn node() -> NodeFacts {
        NodeFacts {
            host_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            allocatable: [("cpu".to_owned(), Quantity::parse("4").unwrap())].into(),
        }
    }

    #[test]
    fn fields() {
        let ips = ["10.1.0.2".to_owned(), "fd00::2".to_owned()];
        for (path, expect) in [
            ("metadata.name", Ok("p")),
            ("metadata.namespace", Ok("n")),
            ("metadata.uid", Ok("u")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['example.com/k']", Ok("v")),
            ("spec.nodeName", Ok("node")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.hostIP", Ok("10.0.0.1")),
            ("status.hostIPs", Ok("10.0.0.1,fd00::1")),
            ("status.podIP", Ok("10.1.0.2")),
            ("status.podIPs", Ok("10.1.0.2,fd00::2")),
            ("spec.restartPolicy", Err("unsupported fieldPath: spec.restartPolicy")),
            (
                "metadata.name['x']",
                Err("fieldPath \"metadata.name['x']\" does not support subscript"),
            ),
        ] {
            let got = runtime_field(&pod(), path, &node(), &ips);
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{path}");
        }
        assert_eq!(
            pod_field(&pod(), "metadata.labels").unwrap(),
            "a=\"1\\n\\\"x\\\"\"\nb=\"2\""
        );
    }

    #[test]
    fn resources() {
        for (selector, expect) in [
            (json!({"resource": "limits.cpu"}), Ok("2")),
            (json!({"resource": "limits.cpu", "divisor": "1m"}), Ok("1500")),
            (json!({"resource": "limits.cpu", "divisor": "0"}), Ok("2")),
            (json!({"resource": "limits.memory"}), Ok("67108864")),
            (json!({"resource": "limits.memory", "divisor": "1Mi"}), Ok("64")),
            (json!({"resource": "limits.memory", "divisor": "1G"}), Ok("1")),
            (json!({"resource": "limits.hugepages-2Mi"}), Ok("4194304")),
            (json!({"resource": "requests.cpu"}), Ok("1")),
            (json!({"resource": "requests.memory"}), Ok("0")),
            (json!({"resource": "limits.cpu", "containerName": "d"}), Ok("4")),
            (
                json!({"resource": "limits.cpu", "containerName": "x"}),
                Err("container x not found"),
            ),
            (
                json!({"resource": "limits.gpu"}),
                Err("unsupported container resource : limits.gpu"),
            ),
        ] {
            let pod = pod();
            let own = pod.spec.as_ref().map(|spec| &spec.containers[0]);
            let got = resource_field(&serde_json::from_value(selector.clone()).unwrap(), &pod, own, &node());
            assert_eq!(got.as_deref().map_err(String::as_str), expect, "{selector}");
        }
    }
}
