//! What a user may leave out of a pod or of a pod template.
//!
//! Source: `pkg/apis/core/v1/defaults.go` and the conversions of `pkg/apis/core/v1/conversion.go`, which keep old and
//! new spellings of one fact equal.

use api::Value;
use api::quantity::Quantity;
use serde_json::json;

use super::whole;
use crate::core::persistentvolumeclaim;
use crate::view::{Edit, View};

/// File modes of projected files when nothing is said: 0644.
const FILE_MODE_DEFAULT: i64 = 0o644;
/// How long a projected token lives when nothing is said.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// How long a pod may take to stop when nothing is said.
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// Annotations of Kubernetes 1.3 to 1.7, which init containers left; dropped since.
const INIT_CONTAINER_ANNOTATIONS: [&str; 4] = [
    "pod.beta.kubernetes.io/init-containers",
    "pod.alpha.kubernetes.io/init-containers",
    "pod.beta.kubernetes.io/init-container-statuses",
    "pod.alpha.kubernetes.io/init-container-statuses",
];

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The defaults of a pod.
pub fn pod(pod: &mut Value) {
    drop_init_container_annotations(pod);
    pod.object("spec");
    let spec = &mut pod["spec"];
    requests_from_limits(spec);
    whole::defaults(spec);
    spec.put_default("enableServiceLinks", true);
    if spec.flag("hostNetwork") {
        for list in ["containers", "initContainers"] {
            for port in spec.elements(list).flat_map(|container| container.elements("ports")) {
                if port.count("hostPort") == 0 && port.has("containerPort") {
                    port.put("hostPort", port.at("containerPort").clone());
                }
            }
        }
    }
    pod_spec(spec);
    status_addresses(pod);
}

/// The defaults of a pod template.
pub fn template(template: &mut Value) {
    drop_init_container_annotations(template);
    template.object("spec");
    pod_spec(&mut template["spec"]);
}

fn pod_spec(spec: &mut Value) {
    // One fact with an old and a new name: the new one decides.
    spec.put_default("serviceAccountName", spec.text("serviceAccount").to_string());
    let account = spec.text("serviceAccountName").to_string();
    spec.put("serviceAccount", account);

    spec.put_default("dnsPolicy", "ClusterFirst");
    spec.put_default("restartPolicy", "Always");
    spec.put_default("terminationGracePeriodSeconds", GRACE_SECONDS_DEFAULT);
    spec.put_default("schedulerName", "default-scheduler");
    spec.object("securityContext");
    for volume in spec.elements("volumes") {
        self::volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in spec.elements(list) {
            self::container(container);
        }
    }
    for amounts in ["overhead", "resources.limits", "resources.requests"] {
        round_up(spec.existing(amounts));
    }
    for empty in ["serviceAccountName", "serviceAccount"] {
        if spec.text(empty).is_empty() {
            spec.cut(empty);
        }
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container.text("image"));
    container.put_default("imagePullPolicy", policy);
    container.put_default("terminationMessagePath", "/dev/termination-log");
    container.put_default("terminationMessagePolicy", "File");
    for port in container.elements("ports") {
        port.put_default("protocol", "TCP");
    }
    for variable in container.elements("env") {
        field_version(variable.existing("valueFrom.fieldRef"));
        if let Some(key) = variable.existing("valueFrom.fileKeyRef") {
            key.put_default("optional", false);
        }
    }
    round_up(container.existing("resources.limits"));
    round_up(container.existing("resources.requests"));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.existing(probe) {
            self::probe(probe);
        }
    }
    for hook in ["lifecycle.postStart.httpGet", "lifecycle.preStop.httpGet"] {
        http_get(container.existing(hook));
    }
}

fn probe(probe: &mut Value) {
    for (field, default) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if probe.count(field) == 0 {
            probe.put(field, default);
        }
    }
    http_get(probe.existing("httpGet"));
    if let Some(grpc) = probe.existing("grpc")
        && !grpc.has("service")
    {
        grpc.put("service", "");
    }
}

fn http_get(action: Option<&mut Value>) {
    if let Some(action) = action {
        action.put_default("path", "/");
        action.put_default("scheme", "HTTP");
    }
}

fn volume(volume: &mut Value) {
    let has_source = volume
        .entries("")
        .any(|(field, value)| field != "name" && !value.is_null());
    if !has_source {
        volume.put("emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.existing(source) {
            source.put_default("defaultMode", FILE_MODE_DEFAULT);
        }
    }
    volume_source(volume);
    if let Some(image) = volume.existing("image") {
        let policy = pull_policy(image.text("reference"));
        image.put_default("pullPolicy", policy);
    }
    for item in volume.elements("downwardAPI.items") {
        field_version(item.existing("fieldRef"));
    }
    for source in volume.elements("projected.sources") {
        for item in source.elements("downwardAPI.items") {
            field_version(item.existing("fieldRef"));
        }
        if let Some(token) = source.existing("serviceAccountToken") {
            token.put_default("expirationSeconds", TOKEN_SECONDS_DEFAULT);
        }
    }
    let claim = volume.existing("ephemeral.volumeClaimTemplate.spec");
    if let Some(claim) = claim {
        round_up(claim.existing("resources.limits"));
        round_up(claim.existing("resources.requests"));
        persistentvolumeclaim::default_spec(Some(claim));
    }
}

/// What a volume of a pod and a persistent volume have in common.
pub fn volume_source(volume: &mut Value) {
    for (source, field, default) in [
        ("iscsi", "iscsiInterface", json!("default")),
        ("rbd", "pool", json!("rbd")),
        ("rbd", "user", json!("admin")),
        ("rbd", "keyring", json!("/etc/ceph/keyring")),
        ("azureDisk", "cachingMode", json!("ReadWrite")),
        ("azureDisk", "fsType", json!("ext4")),
        ("azureDisk", "readOnly", json!(false)),
        ("azureDisk", "kind", json!("Shared")),
        ("scaleIO", "storageMode", json!("ThinProvisioned")),
        ("scaleIO", "fsType", json!("xfs")),
    ] {
        if let Some(source) = volume.existing(source) {
            source.put_default(field, default);
        }
    }
    if let Some(host_path) = volume.existing("hostPath") {
        // An empty type is a value: "no check", and it is written.
        if !host_path.has("type") {
            host_path.put("type", "");
        }
    }
}

fn field_version(reference: Option<&mut Value>) {
    if let Some(reference) = reference {
        reference.put_default("apiVersion", "v1");
    }
}

/// `Always` for what moves, `IfNotPresent` for what has a tag or a digest.
fn pull_policy(image: &str) -> &'static str {
    match tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The tag of an image reference, `latest` when it has neither tag nor digest; `None` when it has only a digest or
/// cannot be read.
fn tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let (repository, tag) = match last.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (last, None),
    };
    let readable = !repository.is_empty() && !repository.chars().any(|c| c.is_ascii_uppercase() || c.is_whitespace());
    match (readable, tag, digest) {
        (false, ..) => None,
        (true, Some(tag), _) => Some(tag),
        (true, None, Some(_)) => None,
        (true, None, None) => Some("latest"),
    }
}

/// In a pod, not in a template, a limit is also the request unless that is given.
fn requests_from_limits(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in spec.elements(list) {
            let Some(limits) = container.at("resources.limits").as_object().cloned() else {
                continue;
            };
            let requests = container.object("resources.requests");
            for (resource, limit) in limits {
                requests.entry(resource).or_insert(limit);
            }
        }
    }
}

/// Quantities are kept to thousandths.
pub fn round_up(resources: Option<&mut Value>) {
    let Some(resources) = resources.and_then(Value::as_object_mut) else {
        return;
    };
    for value in resources.values_mut() {
        if let Ok(mut quantity) = Quantity::from_value(value)
            && !quantity.round_up(-3)
        {
            *value = quantity.to_string().into();
        }
    }
}

fn drop_init_container_annotations(object: &mut Value) {
    let Some(annotations) = object.existing("metadata.annotations").and_then(Value::as_object_mut) else {
        return;
    };
    for key in INIT_CONTAINER_ANNOTATIONS {
        annotations.remove(key);
    }
    if annotations.is_empty() {
        object.cut("metadata.annotations");
    }
}

/// `podIP` and the first of `podIPs` are one fact; where they differ, the older field decides.
fn status_addresses(pod: &mut Value) {
    if !pod.has("status") {
        return;
    }
    let single = pod.text("status.podIP").to_string();
    let first = pod
        .list("status.podIPs")
        .first()
        .map_or("", |address| address.text("ip"))
        .to_string();
    let status = &mut pod["status"];
    if !single.is_empty() && single != first {
        status.put("podIPs", json!([{"ip": single}]));
    } else if single.is_empty() && !first.is_empty() {
        status.put("podIP", first);
    }
}
