//! Pods, by example.

mod containers;
mod defaults;
mod restart;
mod scheduling;
mod security;
mod spec;
mod status;
mod update;
mod volumes;
mod whole;

use super::strategy::Pods;
use crate::testing::{Case, check};

/// A pod in flow YAML with one container, whose fields follow, and a spec, whose fields follow.
fn pod(container: &str, spec: &str) -> String {
    let container = if container.is_empty() {
        String::new()
    } else {
        format!(", {container}")
    };
    let spec = if spec.is_empty() {
        String::new()
    } else {
        format!(", {spec}")
    };
    format!("{{metadata: {{name: p}}, spec: {{containers: [{{name: a, image: i{container}}}]{spec}}}}}")
}

/// Fields of a container and the errors they earn, below `spec.containers[0]`.
fn check_container(fields: &str, errors: &[&str]) {
    let errors: Vec<String> = errors
        .iter()
        .map(|error| format!("spec.containers[0].{error}"))
        .collect();
    let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
    let volumes = "volumes: [{name: v}, {name: w, persistentVolumeClaim: {claimName: c}}]";
    check(&Pods, Case::new(fields).object(&pod(fields, volumes)).errors(&errors));
}

/// Fields of a pod spec and the errors they earn, below `spec`; those that start with a colon are of the spec itself.
fn check_spec(fields: &str, errors: &[&str]) {
    let of = |error: &&str| match error.starts_with(':') {
        true => format!("spec{error}"),
        false => format!("spec.{error}"),
    };
    let errors: Vec<String> = errors.iter().map(of).collect();
    let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
    check(&Pods, Case::new(fields).object(&pod("", fields)).errors(&errors));
}

/// A volume's source and the errors it earns, below `spec.volumes[0]`.
fn check_volume(source: &str, errors: &[&str]) {
    let errors: Vec<String> = errors.iter().map(|error| format!("volumes[0].{error}")).collect();
    let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
    check_spec(
        &format!("serviceAccountName: s, volumes: [{{name: v, {source}}}]"),
        &errors,
    );
}

/// An update of a pod and the errors it earns.
fn check_update(subresource: &'static str, old: &str, new: &str, errors: &[&str]) {
    check(
        &Pods,
        Case::new(new)
            .subresource(subresource)
            .old(old)
            .object(new)
            .errors(errors),
    );
}
