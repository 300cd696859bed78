//! Rules for where a container mounts the pod's volumes.
//!
//! Source: `ValidateVolumeMounts` and `ValidateVolumeDevices` in `pkg/apis/core/validation/validation.go`. Some errors
//! name the list and not its element, as upstream's do.

use std::collections::{BTreeMap, BTreeSet};

use api::Value;

use super::paths;
use crate::check::At;
use crate::view::View;

/// The pod's valid volumes by name.
pub type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// `volumeMounts` and `volumeDevices`.
pub fn validate(container: &At, volumes: &Volumes) {
    let mounts = pairs(container.value.list("volumeMounts"), "mountPath");
    let devices = pairs(container.value.list("volumeDevices"), "devicePath");
    volume_mounts(container, &devices, volumes);
    volume_devices(container, &mounts, volumes);
}

fn pairs<'a>(list: &'a [Value], path: &str) -> Vec<(&'a str, &'a str)> {
    list.iter()
        .map(|entry| (entry.text("name"), entry.text(path)))
        .collect()
}

fn volume_mounts(container: &At, devices: &[(&str, &str)], volumes: &Volumes) {
    let list = container.get("volumeMounts");
    let mut seen = BTreeSet::new();
    for mount in container.items("volumeMounts") {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.required();
        if !volumes.contains_key(name.text()) {
            name.not_found();
        }
        path.required();
        if !seen.insert(path.text()) {
            path.invalid("must be unique");
        }
        if devices.iter().any(|(device, _)| *device == name.text()) {
            name.invalid("must not already exist in volumeDevices");
        }
        if devices.iter().any(|(_, device)| *device == path.text()) {
            path.invalid("must not already exist as a path in volumeDevices");
        }
        if !mount.get("subPath").is_empty() {
            paths::local_descending(&of_list(&list, &mount, "subPath"));
        }
        let expression = mount.get("subPathExpr");
        if !expression.is_empty() {
            if !mount.get("subPath").is_empty() {
                expression.invalid("subPathExpr and subPath are mutually exclusive");
            }
            paths::local_descending(&of_list(&list, &mount, "subPathExpr"));
        }
        propagation(&of_list(&list, &mount, "mountPropagation"), container);
        recursive_read_only(&of_list(&list, &mount, "recursiveReadOnly"), &mount);
    }
}

/// A field of an element, said to be one of the list.
fn of_list<'a>(list: &At<'a>, mount: &At<'a>, field: &str) -> At<'a> {
    list.elsewhere(list.path.child(field), mount.value.at(field))
}

fn propagation(propagation: &At, container: &At) {
    if !propagation.is_set() {
        return;
    }
    propagation.one_of(&["Bidirectional", "HostToContainer", "None"]);
    if propagation.text() == "Bidirectional" && !container.value.flag("securityContext.privileged") {
        propagation.forbidden("Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(field: &At, mount: &At) {
    if !field.is_set() {
        return;
    }
    match field.text() {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.value.flag("readOnly") {
                field.forbidden("may only be specified when readOnly is true");
            }
            if !matches!(mount.value.text("mountPropagation"), "" | "None") {
                field.forbidden("may only be specified when mountPropagation is None or not specified");
            }
        }
        _ => field.not_supported(&["Disabled", "Enabled", "IfPossible"]),
    }
}

fn volume_devices(container: &At, mounts: &[(&str, &str)], volumes: &Volumes) {
    let (mut names, mut device_paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.items("volumeDevices") {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.required();
        if names.contains(name.text()) {
            name.invalid("must be unique");
        }
        match volumes.get(name.text()) {
            None => name.not_found(),
            Some(volume) if volume.has("persistentVolumeClaim") || volume.has("ephemeral") => {}
            Some(_) => {
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
        }
        path.required();
        if device_paths.contains(path.text()) {
            path.invalid("must be unique");
        }
        if path.text().split('/').any(|part| part == "..") {
            path.invalid("can not contain backsteps ('..')");
        } else {
            device_paths.insert(path.text());
        }
        if mounts.iter().any(|(mount, _)| *mount == name.text()) {
            name.invalid("must not already exist in volumeMounts");
        }
        if mounts.iter().any(|(_, mount)| *mount == path.text()) {
            path.invalid("must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name.text());
        }
    }
}
