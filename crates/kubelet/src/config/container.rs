//! One container.
//!
//! Source: `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`generateContainerConfig`).

use client::k8s_openapi::api::core::v1::{Container, Pod};
use rpc::cri;

use super::sandbox::Node;
use super::{hash, identity, resources, security};
use crate::cri::{ANNOTATION_HASH, LABEL_CONTAINER_NAME, LABEL_POD_NAME, LABEL_POD_NAMESPACE, LABEL_POD_UID};

/// Where a container leaves its last word when it does not say.
const TERMINATION_PATH: &str = "/dev/termination-log";

/// What was made ready for a container before it is made.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The image as it was found.
    pub image_ref: String,
    /// The command with its variables in place.
    pub command: Vec<String>,
    /// The arguments with their variables in place.
    pub args: Vec<String>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The mounts.
    pub mounts: Vec<cri::Mount>,
    /// How many runs came before.
    pub attempt: u32,
    /// The run whose processes an ephemeral container is to see.
    pub target: Option<String>,
}

/// What the runtime is asked for.
pub fn container(pod: &Pod, container: &Container, wanted: Wanted, node: &Node) -> cri::ContainerConfig {
    let (namespace, pod_name, uid) = identity(pod);
    let name = &container.name;
    let labels = [
        (LABEL_CONTAINER_NAME, name.as_str()),
        (LABEL_POD_NAME, pod_name),
        (LABEL_POD_NAMESPACE, namespace),
        (LABEL_POD_UID, uid),
    ];
    let path = container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty());
    let annotations = [
        (ANNOTATION_HASH, hash(container)),
        ("io.kubernetes.container.restartCount", wanted.attempt.to_string()),
        (
            "io.kubernetes.container.terminationMessagePath",
            path.unwrap_or(TERMINATION_PATH).to_owned(),
        ),
        (
            "io.kubernetes.container.terminationMessagePolicy",
            container
                .termination_message_policy
                .clone()
                .unwrap_or_else(|| "File".into()),
        ),
    ];
    let image = container.image.clone().unwrap_or_default();
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: name.clone(),
            attempt: wanted.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: wanted.image_ref,
            user_specified_image: image,
            ..cri::ImageSpec::default()
        }),
        command: wanted.command,
        args: wanted.args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: wanted
            .environment
            .into_iter()
            .map(|(key, value)| cri::KeyValue {
                key,
                value: value.into_bytes(),
            })
            .collect(),
        mounts: wanted.mounts,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(),
        log_path: format!("{name}/{}.log", wanted.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources(pod, container, node.memory_bytes)),
            security_context: Some(security_context(pod, container, wanted.target)),
        }),
        ..cri::ContainerConfig::default()
    }
}

/// A target's processes are seen unless all of the pod, or of the node, are anyway.
/// Source: `kuberuntime_container_linux.go` (`generateLinuxContainerConfig`).
fn security_context(pod: &Pod, container: &Container, target: Option<String>) -> cri::LinuxContainerSecurityContext {
    let mut context = security::of_container(pod, container);
    if let (Some(target), Some(options)) = (target, &mut context.namespace_options)
        && options.pid() == cri::NamespaceMode::Container
    {
        options.set_pid(cri::NamespaceMode::Target);
        options.target_id = target;
    }
    context
}

#[cfg(test)]
mod tests {
    use super::super::sandbox::tests::node;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_found_again_and_keeps_its_names() {
        let pod: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "demo:1", "terminationMessagePath": "/last"}]},
        }))
        .unwrap();
        let wanted = Wanted {
            image_ref: "sha256:1".into(),
            attempt: 2,
            environment: vec![("A".into(), "b".into())],
            ..Wanted::default()
        };
        let config = container(&pod, &pod.spec.as_ref().unwrap().containers[0], wanted, &node());
        assert_eq!(config.labels[LABEL_CONTAINER_NAME], "c");
        assert_eq!(config.log_path, "c/2.log");
        assert_eq!(
            config.annotations["io.kubernetes.container.terminationMessagePath"],
            "/last"
        );
        let image = config.image.unwrap();
        assert_eq!((&*image.image, &*image.user_specified_image), ("sha256:1", "demo:1"));
        assert_eq!(config.envs[0].value, b"b");
    }

    #[test]
    fn a_target_is_joined_unless_its_processes_are_seen_anyway() {
        for (spec, expect) in [
            (json!({}), (cri::NamespaceMode::Target, "t")),
            (json!({"shareProcessNamespace": true}), (cri::NamespaceMode::Pod, "")),
            (json!({"hostPID": true}), (cri::NamespaceMode::Node, "")),
        ] {
            let mut pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
            let given: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let given = given.spec.unwrap();
            let own = pod.spec.as_mut().unwrap();
            own.share_process_namespace = given.share_process_namespace;
            own.host_pid = given.host_pid;
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let options = security_context(&pod, container, Some("t".into()))
                .namespace_options
                .unwrap();
            assert_eq!((options.pid(), &*options.target_id), expect, "{pod:?}");
        }
    }
}
