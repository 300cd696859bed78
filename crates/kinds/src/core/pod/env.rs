//! Rules for a container's environment.
//!
//! Source: `ValidateEnv`, `ValidateEnvFrom` and what they call in `pkg/apis/core/validation/validation.go`.

use api::quantity::Quantity;
use api::validation::{config_map_key, dns1123_label, qualified_name, relaxed_env_var_name};

use super::paths;
use crate::check::At;
use crate::names;

/// `env` and `envFrom`.
pub fn validate(container: &At) {
    for variable in container.items("env") {
        let name = variable.get("name");
        if name.required() {
            name.check(relaxed_env_var_name(name.text()));
        }
        value_from(&variable);
    }
    let list = container.get("envFrom");
    for source in container.items("envFrom") {
        env_from(&source, &list);
    }
}

fn value_from(variable: &At) {
    let from = variable.get("valueFrom");
    if !from.is_set() {
        return;
    }
    let mut sources = 0;
    type Rule = fn(&At);
    let rules: [(&str, Rule); 5] = [
        ("fieldRef", |reference| field_reference(reference, &ENV_FIELDS)),
        ("resourceFieldRef", |reference| resource_reference(reference, false)),
        ("configMapKeyRef", key_reference),
        ("secretKeyRef", key_reference),
        ("fileKeyRef", file_key_reference),
    ];
    for (source, rule) in rules {
        let reference = from.get(source);
        if reference.is_set() {
            sources += 1;
            rule(&reference);
        }
    }
    if sources == 0 {
        from.invalid_as(
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !variable.get("value").is_empty() {
        from.invalid_as("", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        from.invalid_as("", "may not have more than one field specified at a time");
    }
}

/// Errors about the number of sources are told of the list, as upstream does.
fn env_from(source: &At, list: &At) {
    let prefix = source.get("prefix");
    if !prefix.is_empty() {
        prefix.check(relaxed_env_var_name(prefix.text()));
    }
    let mut sources = 0;
    for kind in ["configMapRef", "secretRef"] {
        let reference = source.get(kind);
        if reference.is_set() {
            sources += 1;
            let name = reference.get("name");
            if name.required() {
                name.check(names::subdomain(name.text(), true));
            }
        }
    }
    match sources {
        0 => list.invalid_as("", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => list.invalid_as("", "may not have more than one field specified at a time"),
    }
}

/// Fields that a variable can show.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that a file of a volume can show.
pub const VOLUME_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Labels that can be written but that no place accepts (upstream converts them first).
const KNOWN_FIELDS: [&str; 15] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// A reference to a field of the pod.
pub fn field_reference(reference: &At, supported: &[&str]) {
    let version = reference.get("apiVersion");
    let field = reference.get("fieldPath");
    if !version.required() || !field.required() {
        return;
    }
    let unreadable = |why: String| field.invalid(format!("error converting fieldPath: {why}"));
    if version.text() != "v1" {
        return unreadable(format!("unsupported pod version: {}", version.text()));
    }
    let text = field.text();
    if let Some((path, subscript)) = text.strip_suffix("']").and_then(|text| text.split_once("['")) {
        match path {
            "metadata.annotations" => qualified(reference, &subscript.to_lowercase()),
            "metadata.labels" => qualified(reference, subscript),
            _ => unreadable(format!("field label does not support subscript: {text}")),
        }
        return;
    }
    if !KNOWN_FIELDS.contains(&text) {
        return unreadable(format!("field label not supported: {text}"));
    }
    let converted = if text == "spec.host" { "spec.nodeName" } else { text };
    if !supported.contains(&converted) {
        field.not_supported(supported);
    }
}

fn qualified(reference: &At, name: &str) {
    for message in qualified_name(name) {
        reference.invalid_as(name, message);
    }
}

const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];

/// A reference to a resource of a container; in a volume it must name the container.
pub fn resource_reference(reference: &At, in_volume: bool) {
    let resource = reference.get("resource");
    let text = resource.text();
    let huge = HUGE_PAGES.iter().any(|prefix| text.starts_with(prefix));
    if in_volume && reference.get("containerName").is_empty() {
        reference.get("containerName").missing("");
    } else if resource.required() && !RESOURCE_FIELDS.contains(&text) && !huge {
        resource.not_supported(&RESOURCE_FIELDS);
    }
    divisor(reference, text);
}

const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

fn divisor(reference: &At, resource: &str) {
    let divisor = reference.get("divisor");
    let Ok(quantity) = Quantity::from_value(divisor.value) else {
        return;
    };
    if quantity.is_zero() {
        return;
    }
    let text = quantity.to_string();
    let kind = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !["1m", "1"].contains(&text.as_str()) {
                divisor.invalid_as(
                    resource,
                    "only divisor's values 1m and 1 are supported with the cpu resource",
                );
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix)) => "hugepages",
        _ => return,
    };
    if !BYTE_DIVISORS.contains(&text.as_str()) {
        let values = BYTE_DIVISORS.join(", ");
        divisor.invalid_as(
            resource,
            format!("only divisor's values {values} are supported with the {kind} resource"),
        );
    }
}

fn key_reference(reference: &At) {
    let name = reference.get("name");
    for message in names::subdomain(name.text(), false) {
        name.invalid_as(name.text(), message);
    }
    let key = reference.get("key");
    if key.required() {
        key.check(config_map_key(key.text()));
    }
}

fn file_key_reference(reference: &At) {
    let key = reference.get("key");
    if key.required() {
        key.check(relaxed_env_var_name(key.text()));
    }
    let volume = reference.get("volumeName");
    if volume.required() {
        volume.check(dns1123_label(volume.text()));
    }
    let path = reference.get("path");
    if path.required() {
        paths::no_backsteps(&path);
    }
}
