//! Rules for containers of all three kinds.
//!
//! Source: `validateContainers`, `validateInitContainers`, `validateEphemeralContainers` and what they call in
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::validation::{dns1123_label, http_header_name, port_name, port_number};

use super::mounts::{self, Volumes};
use super::tolerated::Tolerated;
use super::{env, resources, restart, security};
use crate::check::At;
use crate::view::View;

const NOT_FOR_PLAIN_INIT: &str = "may not be set for init containers without restartPolicy=Always";
const NOT_FOR_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// What an ephemeral container cannot have.
const NOT_IN_EPHEMERAL: [&str; 7] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

/// What the rules of a container need to know of its pod.
pub struct Pod<'a> {
    /// The valid volumes.
    pub volumes: Volumes<'a>,
    /// The names of its resource claims.
    pub claims: BTreeSet<String>,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// Whether it shares the host's users.
    pub host_users: bool,
    /// `restartPolicy`.
    pub restart_policy: &'a str,
    /// `os.name`, if `os` is set.
    pub os: Option<&'a str>,
    /// Which rules an update may go on breaking.
    pub tolerated: Tolerated,
}

/// `containers`: at least one.
pub fn regular(spec: &At, pod: &Pod) {
    let containers = spec.items("containers");
    if containers.is_empty() {
        return spec.get("containers").missing("");
    }
    let mut names = BTreeSet::new();
    for container in &containers {
        common(container, pod);
        container.get("name").unique(&mut names);
        lifecycle(&container.get("lifecycle"), pod);
        probes(container, pod);
        restart::validate(container);
    }
    host_ports(&containers);
}

/// `initContainers`; their names differ from those of the containers too.
pub fn init(spec: &At, pod: &Pod) {
    let mut names: BTreeSet<String> = spec
        .value
        .list("containers")
        .iter()
        .map(|c| c.text("name").into())
        .collect();
    for container in spec.items("initContainers") {
        common(&container, pod);
        restart::validate_init(&container);
        let name = container.get("name");
        if !name.is_empty() || names.contains("") {
            name.unique(&mut names);
        }
        // Upstream counts each init container alone and calls it the first.
        let first = container.elsewhere(spec.path.child("initContainers").index(0), container.value);
        host_ports(&[first]);
        if container.value.text("restartPolicy") == "Always" {
            lifecycle(&container.get("lifecycle"), pod);
            probes(&container, pod);
        } else {
            for field in ["lifecycle"].iter().chain(&PROBES) {
                container.get(field).forbidden_when_set(NOT_FOR_PLAIN_INIT);
            }
            if !pod.tolerated.init_restarts {
                no_restart_to_resize(&container);
            }
        }
    }
}

/// An init container that ends by itself is not started anew to be resized.
pub fn no_restart_to_resize(container: &At) {
    for policy in container.items("resizePolicy") {
        let restart = policy.get("restartPolicy");
        if restart.text() == "RestartContainer" {
            restart.invalid("must not be set to 'RestartContainer' for non-sidecar initContainers");
        }
    }
}

/// `ephemeralContainers`.
pub fn ephemeral(spec: &At, pod: &Pod) {
    let others: BTreeSet<String> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.value.list(list))
        .map(|container| container.text("name").into())
        .collect();
    let mut names = others.clone();
    for container in spec.items("ephemeralContainers") {
        common(&container, pod);
        image_is_trimmed(&container);
        container.get("name").unique(&mut names);
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found();
        }
        for field in NOT_IN_EPHEMERAL {
            let field = container.get(field);
            if !field.is_empty() {
                field.forbidden(NOT_FOR_EPHEMERAL);
            }
        }
        for field in ["restartPolicy", "restartPolicyRules"] {
            container.get(field).forbidden_when_set(NOT_FOR_EPHEMERAL);
        }
        for mount in container.items("volumeMounts") {
            for field in ["subPath", "subPathExpr"] {
                let field = mount.get(field);
                if !field.is_empty() {
                    field.forbidden(NOT_FOR_EPHEMERAL);
                }
            }
        }
    }
}

/// Only pods, not templates, mind blanks around an image.
pub fn image_is_trimmed(container: &At) {
    let image = container.get("image");
    image.ensure(
        image.text().trim().len() == image.text().len(),
        "must not have leading or trailing whitespace",
    );
}

fn common(container: &At, pod: &Pod) {
    let name = container.get("name");
    if name.required() {
        name.check(dns1123_label(name.text()));
    }
    container.get("image").required();
    container
        .get("terminationMessagePolicy")
        .required_one_of(&["File", "FallbackToLogsOnError"]);
    ports(container);
    env::validate(container);
    mounts::validate(container, &pod.volumes);
    pull_policy(&container.get("imagePullPolicy"));
    let resources = container.get("resources");
    let partial_pages = pod.tolerated.partial_huge_pages;
    resources::requirements(&resources, &pod.claims, partial_pages, resources::container_name);
    resize_policy(container, pod);
    security::container(&container.get("securityContext"), pod.host_users);
}

/// `Always`, `IfNotPresent` or `Never`.
pub fn pull_policy(policy: &At) {
    policy.required_one_of(&["Always", "IfNotPresent", "Never"]);
}

fn ports(container: &At) {
    let mut names = BTreeSet::new();
    for port in container.items("ports") {
        let name = port.get("name");
        if !name.is_empty() {
            let broken = port_name(name.text());
            match broken.is_empty() {
                true => name.unique(&mut names),
                false => name.check(broken),
            }
        }
        let number = port.get("containerPort");
        match number.number().unwrap_or(0) {
            0 => number.missing(""),
            _ => number.port_number(),
        }
        let host = port.get("hostPort");
        if host.number().unwrap_or(0) != 0 {
            host.port_number();
        }
        port.get("protocol").required_one_of(&["SCTP", "TCP", "UDP"]);
    }
}

/// A host port can be had once.
fn host_ports(containers: &[At]) {
    let mut seen = BTreeSet::new();
    for port in containers.iter().flat_map(|container| container.items("ports")) {
        let host = port.get("hostPort");
        let number = host.number().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let (protocol, address) = (port.value.text("protocol"), port.value.text("hostIP"));
        let key = format!("{protocol}/{address}/{number}");
        if !seen.insert(key.clone()) {
            host.duplicate(key);
        }
    }
}

fn probes(container: &At, pod: &Pod) {
    for kind in PROBES {
        let probe = container.get(kind);
        if !probe.is_set() {
            continue;
        }
        handler(&probe, &["exec", "httpGet", "tcpSocket", "grpc"], pod);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            probe.get(field).non_negative();
        }
        let grace = probe.get("terminationGracePeriodSeconds");
        if grace.number().is_some_and(|seconds| seconds <= 0) {
            grace.invalid("must be greater than 0");
        }
        if kind == "readinessProbe" {
            grace.ensure(!grace.is_set(), "must not be set for readinessProbes");
        } else {
            let threshold = probe.get("successThreshold");
            threshold.ensure(threshold.number() == Some(1), "must be 1");
        }
    }
}

fn lifecycle(lifecycle: &At, pod: &Pod) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], pod);
        }
    }
    let signal = lifecycle.get("stopSignal");
    if !signal.is_set() {
        return;
    }
    match pod.os {
        None => signal.forbidden("may not be set for containers with empty `spec.os.name`"),
        Some("windows") => signal.one_of(&["SIGKILL", "SIGTERM"]),
        Some(_) => {}
    }
}

/// Exactly one action.
fn handler(handler: &At, kinds: &[&str], pod: &Pod) {
    let mut found = false;
    for kind in kinds {
        let action = handler.get(kind);
        if !action.is_set() {
            continue;
        }
        if found {
            action.forbidden("may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => drop(action.get("command").required()),
            "httpGet" => http_get(&action),
            "tcpSocket" => port(&action.get("port")),
            "grpc" => {
                let port = action.get("port");
                for message in port_number(port.number().unwrap_or(0)) {
                    port.invalid_as(port.number().unwrap_or(0), message);
                }
            }
            _ => sleep(&action, pod),
        }
    }
    if !found {
        handler.missing("must specify a handler type");
    }
}

fn http_get(action: &At) {
    action.get("path").required();
    port(&action.get("port"));
    action.get("scheme").one_of(&["HTTP", "HTTPS"]);
    for header in action.items("httpHeaders") {
        let name = header.get("name");
        name.elsewhere(action.path.child("httpHeaders"), name.value)
            .check(http_header_name(name.text()));
    }
}

/// The number or the name of a port.
pub fn port(port: &At) {
    match port.value {
        Value::String(name) => port.check(port_name(name)),
        _ => {
            let number = port.number().unwrap_or(0);
            for message in port_number(number) {
                port.invalid_as(number, message);
            }
        }
    }
}

fn sleep(action: &At, pod: &Pod) {
    let seconds = action.value.count("seconds");
    if let Some(grace) = pod.grace_seconds.filter(|grace| !(0..=*grace).contains(&seconds)) {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_as(seconds, detail);
    }
}

fn resize_policy(container: &At, pod: &Pod) {
    let list = container.get("resizePolicy");
    let mut seen = BTreeSet::new();
    for policy in container.items("resizePolicy") {
        let resource = policy.value.text("resourceName");
        if !seen.insert(resource) {
            policy.duplicate(resource);
        }
        let restart = policy.value.at("restartPolicy");
        for (field, supported) in [
            ("resourceName", ["cpu", "memory"]),
            ("restartPolicy", ["NotRequired", "RestartContainer"]),
        ] {
            list.elsewhere(list.path.clone(), policy.value.at(field))
                .required_one_of(&supported);
        }
        if pod.restart_policy == "Never" && restart != "NotRequired" {
            list.invalid_as(
                restart.clone(),
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}
