//! What a user is told of ports that more than one container has.
//!
//! Source: `pkg/api/pod/warnings.go`.

use std::collections::BTreeMap;

use api::Value;

use super::CONTAINERS;
use crate::view::View;

/// The ports of all containers against each other.
pub fn of(path: &str, spec: &Value, warnings: &mut Vec<String>) {
    let mut ports: Vec<(String, &Value)> = Vec::new();
    for list in CONTAINERS {
        for (index, container) in spec.list(list).iter().enumerate() {
            for (port_index, port) in container.list("ports").iter().enumerate() {
                ports.push((format!("{path}.{list}[{index}].ports[{port_index}]"), port));
            }
        }
    }
    for (index, (at, port)) in ports.iter().enumerate() {
        if !port.text("hostIP").is_empty() && port.count("hostPort") == 0 {
            warnings.push(format!("{at}: hostIP set without hostPort: {}", as_go(port)));
        }
        for (before, other) in &ports[..index] {
            if let Some(how) = conflict(port, other) {
                warnings.push(format!("{at}: {how} port definition with {before}"));
            }
        }
    }
    let mut names = BTreeMap::new();
    for (at, port) in &ports {
        let name = port.text("name");
        if name.is_empty() {
            continue;
        }
        match names.get(name) {
            Some(other) => warnings.push(format!(
                "{at}: duplicate port name {name:?} with {other}, services and probes that select ports by name will \
                 use {other}"
            )),
            None => drop(names.insert(name, at)),
        }
    }
}

fn conflict(port: &Value, other: &Value) -> Option<&'static str> {
    if port.count("containerPort") != other.count("containerPort") || port.text("protocol") != other.text("protocol") {
        return None;
    }
    let (host, other_host) = (port.count("hostPort"), other.count("hostPort"));
    let (address, other_address) = (port.text("hostIP"), other.text("hostIP"));
    if host == other_host && address == other_address {
        Some("duplicate")
    } else if host == 0 || other_host == 0 {
        Some("overlapping")
    } else {
        let one_is_any = address.is_empty() != other_address.is_empty();
        (host == other_host && one_is_any).then_some("dangerously ambiguous")
    }
}

/// As Go prints the struct.
fn as_go(port: &Value) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        port.text("name"),
        port.count("hostPort"),
        port.count("containerPort"),
        port.text("protocol"),
        port.text("hostIP")
    )
}
