//! Pod.

mod columns;
mod containers;
pub mod defaults;
mod devices;
mod env;
mod mounts;
pub mod paths;
mod projected;
pub mod resources;
mod restart;
pub mod scheduling;
mod security;
mod spec;
mod status;
mod strategy;
mod tolerated;
mod update;
pub mod volumes;
pub mod warnings;
mod whole;
mod windows;

#[cfg(test)]
mod tests;

use api::Value;

pub use containers::port as validate_port;
pub use defaults::round_up;

use crate::build::Row;
use crate::check::At;
use crate::row::StorageKind;
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Pod", "pods")
        .short(&["po"])
        .in_all()
        .strategy(strategy::Pods)
        .graceful()
        .returns_deleted()
        .generation()
        .handler("attach", Some(("", "v1", "PodAttachOptions")), CONNECT)
        .handler("binding", Some(("", "v1", "Binding")), &["create"])
        .view("ephemeralcontainers")
        .handler("eviction", Some(("policy", "v1", "Eviction")), &["create"])
        .handler("exec", Some(("", "v1", "PodExecOptions")), CONNECT)
        .handler("log", None, &["get"])
        .handler("portforward", Some(("", "v1", "PodPortForwardOptions")), CONNECT)
        .handler(
            "proxy",
            Some(("", "v1", "PodProxyOptions")),
            &["create", "delete", "get", "patch", "update"],
        )
        .view("resize")
        .status()
        .trigger(|object| Some(object.text("spec.nodeName").into()))
        .fields(FIELDS)
        .reads(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIPs",
            "status.nominatedNodeName",
        ])
        .columns(columns::COLUMNS)
        .build()
}

const CONNECT: &[&str] = &["create", "get"];

const FIELDS: &[(&str, fn(&Value) -> String)] = &[
    ("spec.nodeName", |object| object.text("spec.nodeName").into()),
    // What v1 clients from before spec.nodeName send.
    ("spec.host", |object| object.text("spec.nodeName").into()),
    ("spec.restartPolicy", |object| object.text("spec.restartPolicy").into()),
    ("spec.schedulerName", |object| object.text("spec.schedulerName").into()),
    ("spec.serviceAccountName", |object| {
        object.text("spec.serviceAccountName").into()
    }),
    ("spec.hostNetwork", |object| object.flag("spec.hostNetwork").to_string()),
    ("status.phase", |object| object.text("status.phase").into()),
    ("status.podIP", |object| {
        let first = object.list("status.podIPs").first();
        first.map_or("", |address| address.text("ip")).into()
    }),
    // Accepted, and empty for every pod, as upstream's attributes do not have it.
    ("status.podIPs", |_| String::new()),
    ("status.nominatedNodeName", |object| {
        object.text("status.nominatedNodeName").into()
    }),
];

/// The defaults of a pod template, wherever it stands.
pub fn default_template(template: Option<&mut Value>) {
    if let Some(template) = template {
        defaults::template(template);
    }
}

/// The rules of a pod template, wherever it stands; in an update, with the template before it.
pub fn validate_template(template: &At, old: Option<&Value>) {
    spec::template(template, old);
}

/// The rules of a pod template's labels and annotations; in an update, with the template before it.
pub fn validate_template_metadata(template: &At, old: Option<&Value>) {
    spec::template_metadata(template, tolerated::Tolerated::of(old));
}

/// What a user is told of an object that makes pods from the template at a path.
pub fn template_warnings(path: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut told = match old {
        None => name_warnings(object),
        Some(_) => Vec::new(),
    };
    told.extend(spec_warnings(path, object, old));
    told
}

/// What a user is told of the name of an object that makes pods.
pub fn name_warnings(object: &Value) -> Vec<String> {
    warnings::name(object, "Pod names and hostnames")
}

/// What a user is told of the template at a path, but for the name of the object: of a new object, and of each generation
/// of it.
pub fn spec_warnings(path: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    match is_generation(object, old) {
        true => warnings::template(path, object.at(path)),
        false => Vec::new(),
    }
}

/// Whether a write makes an object, or another generation of it.
pub fn is_generation(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old.count("metadata.generation") != object.count("metadata.generation"))
}
