//! Pod.

mod columns;

use api::Value;

use crate::build::Row;
use crate::generic::WithStatus;
use crate::row::StorageKind;
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "Pod", "pods")
        .short(&["po"])
        .in_all()
        .strategy(WithStatus::PLAIN)
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
pub fn default_template(_template: Option<&mut Value>) {}
