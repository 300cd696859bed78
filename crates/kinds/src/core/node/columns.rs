//! What `kubectl get nodes` shows.

use std::collections::BTreeSet;

use api::Value;

use crate::print::{AGE, NAME, NONE, UNKNOWN, age, name, or, text, wide};
use crate::row::{Columns, PrintContext};
use crate::view::View;

/// The columns.
pub const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Whether the node is ready and may be scheduled on."),
        text("Roles", "The roles of the node."),
        AGE,
        text("Version", "The version of the node's kubelet."),
        wide("Internal-IP", "The first internal address."),
        wide("External-IP", "The first external address."),
        wide("OS-Image", "The operating system."),
        wide("Kernel-Version", "The kernel's version."),
        wide("Container-Runtime", "The container runtime and its version."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let info = object.at("status.nodeInfo");
    let address = |kind: &str| {
        let found = object.list("status.addresses").iter().find(|a| a.text("type") == kind);
        found.map_or(NONE, |a| a.text("address"))
    };
    vec![
        name(object),
        status(object).into(),
        roles(object).into(),
        age(object, context),
        info.text("kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        or(info.text("osImage"), UNKNOWN).into(),
        or(info.text("kernelVersion"), UNKNOWN).into(),
        or(info.text("containerRuntimeVersion"), UNKNOWN).into(),
    ]
}

fn status(object: &Value) -> String {
    // The last condition of a type counts, as in upstream's map.
    let ready = object
        .list("status.conditions")
        .iter()
        .rfind(|c| c.text("type") == "Ready");
    let ready = match ready {
        Some(condition) if condition.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match object.flag("spec.unschedulable") {
        true => format!("{ready},SchedulingDisabled"),
        false => ready.into(),
    }
}

fn roles(object: &Value) -> String {
    let roles: BTreeSet<&str> = object
        .entries("metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    or(&roles.into_iter().collect::<Vec<_>>().join(","), NONE).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_one_line() {
        let context = PrintContext { now_seconds: 60 };
        let node = json!({
            "metadata": {"name": "n1", "creationTimestamp": "1970-01-01T00:00:00Z", "labels": {
                "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "False"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}});
        assert_eq!(
            Value::Array(cells(&node, &context)),
            json!([
                "n1",
                "NotReady,SchedulingDisabled",
                "control-plane,worker",
                "60s",
                "v1.36.0",
                "10.0.0.1",
                "<none>",
                "Debian",
                "<unknown>",
                "<unknown>"
            ])
        );
        let bare = cells(&json!({"metadata": {"name": "n"}}), &context);
        assert_eq!(
            (&bare[1], &bare[2], &bare[3]),
            (&json!("Unknown"), &json!("<none>"), &json!("<unknown>"))
        );
    }
}
