//! The rules of a claim, also of the claims that templates make.
//!
//! Source: `ValidatePersistentVolumeClaimSpec`, `ValidatePersistentVolumeClaimUpdate` and
//! `ValidatePersistentVolumeClaimStatusUpdate` in `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::field::Path;
use api::quantity::Quantity;
use api::validation::{annotations, dns1123_subdomain, label_selector, labels, qualified_name};

use super::super::persistentvolume::validation::{VOLUME_MODES, basic_resource, each_access_mode};
use super::super::persistentvolume::{CLASS_ANNOTATION, resource_version};
use crate::check::At;
use crate::core::pod::resources;
use crate::difference::difference;
use crate::names;
use crate::view::{Edit, View};

/// How far the growing of a volume can be, sorted.
const RESIZE_STATUSES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

/// The rules of the claim that an ephemeral volume makes. Source: `ValidatePersistentVolumeClaimTemplate`.
pub fn validate_template(template: &At) {
    template_metadata(&template.get("metadata"));
    validate_spec(&template.get("spec"), &Value::Null);
}

/// The metadata of what is made from a template: labels and annotations alone. Source: `ValidateTemplateObjectMeta`.
pub fn template_metadata(metadata: &At) {
    let (notes, marks) = (metadata.get("annotations"), metadata.get("labels"));
    notes.extend(annotations(notes.value, &notes.path));
    marks.extend(labels(marks.value, &marks.path));
    for (field, value) in metadata.entries("") {
        if !["annotations", "labels"].contains(&field) && !value.is_empty() {
            metadata.get(field).forbidden("cannot be set");
        }
    }
}

/// A claim's spec; what was broken in `old` already may stay so.
pub fn validate_spec(spec: &At, old: &Value) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.missing("at least 1 access mode is required");
    }
    let selector = spec.get("selector");
    let known = !label_selector(old.at("selector"), false, &selector.path).is_empty();
    selector.extend(label_selector(selector.value, known, &selector.path));
    each_access_mode(&modes);
    let resources = spec.get("resources");
    let storage = spec.get("resources.requests.storage");
    let storage = storage.elsewhere(resources.path.key("storage"), storage.value);
    match Quantity::from_value(storage.value) {
        _ if !storage.is_set() => storage.missing(""),
        Ok(size) if size.sign() <= 0 => storage.invalid("must be greater than zero"),
        _ => {}
    }
    for class in ["storageClassName", "volumeAttributesClassName"] {
        let class = spec.get(class);
        if !class.is_empty() {
            class.check(names::subdomain(class.text(), false));
        }
    }
    let mode = spec.get("volumeMode");
    if mode.is_set() {
        mode.one_of(&VOLUME_MODES);
    }
    let any_group = ["dataSource", "dataSourceRef"]
        .iter()
        .any(|source| old.at(source).has("apiGroup"));
    data_sources(spec, any_group);
}

fn data_sources(spec: &At, any_group: bool) {
    let (source, reference) = (spec.get("dataSource"), spec.get("dataSourceRef"));
    for data in [&source, &reference] {
        if !data.is_set() {
            continue;
        }
        data.get("name").required();
        data.get("kind").required();
        let group = data.get("apiGroup");
        let kind = data.value.text("kind");
        if group.is_empty() && kind != "PersistentVolumeClaim" {
            data.invalid_as(
                kind,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
        if !group.is_empty() && !any_group {
            group.check(dns1123_subdomain(group.text()));
        }
    }
    let same = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| source.value.at(field) == reference.value.at(field));
    if source.is_set() && reference.is_set() && !same {
        spec.invalid_as(source.path.to_string(), "must match dataSourceRef");
    }
}

/// What may change: the volume once, the size of a bound claim, the class of its attributes.
pub fn update(object: &At, old: &Value) {
    let mut spec = object.value.at("spec").clone();
    let mut old_spec = old.at("spec").clone();
    if old_spec.text("volumeName").is_empty() {
        old_spec.copy_from(&spec, "volumeName");
    }
    storage_class(object, old, &mut spec);
    if object.value.text("status.phase") == "Bound" && spec.has("resources.requests") {
        spec.copy_from(&old_spec, "resources.requests.storage");
    }
    if object.value.text("status.phase") == "Bound" {
        spec.copy_from(&old_spec, "volumeAttributesClassName");
    }
    if spec != old_spec {
        object.get("spec").forbidden(format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
            difference(&old_spec, &spec)
        ));
    }
    let size =
        |object: &Value, field: &str| Quantity::from_value(object.at(field)).unwrap_or_else(|_| Quantity::zero());
    let request = "spec.resources.requests.storage";
    let new_size = size(object.value, request);
    if new_size < size(old, request) && new_size <= size(old, "status.capacity.storage") {
        object
            .get(request)
            .forbidden("field can not be less than status.capacity");
    }
    let mode = object.get("spec.volumeMode");
    object
        .elsewhere(Path::new("volumeMode"), mode.value)
        .unchanged(old.at("spec.volumeMode"));
    let class = object.get("spec.volumeAttributesClassName");
    let changed = *class.value != *old.at("spec.volumeAttributesClassName");
    if changed && old.has("status.currentVolumeAttributesClassName") {
        // What is in effect can be replaced, and not taken away.
        let effective = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        match class.value.as_str() {
            None => class.forbidden(format!("update to nil {effective}")),
            Some("") => class.forbidden(format!("update to empty string {effective}")),
            Some(_) => {}
        }
    }
}

/// The class may be named where it was not: by the field in place of the annotation, or for the first time.
fn storage_class(object: &At, old: &Value, spec: &mut Value) {
    let annotation = |object: &Value| api::meta::annotation(object, CLASS_ANNOTATION).map(str::to_string);
    let (new_note, old_note) = (annotation(object.value), annotation(old));
    let (class, old_class) = (
        object.value.at("spec.storageClassName"),
        old.at("spec.storageClassName"),
    );
    let upgraded = old_note.is_some()
        && old_class.is_null()
        && class.as_str() == old_note.as_deref()
        && (new_note.is_none() || new_note == old_note);
    if upgraded {
        spec.cut("storageClassName");
        return;
    }
    let (new_text, old_text) = (new_note.unwrap_or_default(), old_note.clone().unwrap_or_default());
    if new_text != old_text {
        let path = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
        object
            .elsewhere(path, object.value)
            .invalid_as(new_text, "field is immutable");
    }
    let named = !class.is_null() && old_class.is_null();
    if named && old_note.is_none_or(|note| class.as_str() == Some(&note)) {
        spec.copy_from(old.at("spec"), "storageClassName");
    }
}

/// A status: amounts and how far growing is.
pub fn status(object: &At) {
    resource_version(object);
    if object.value.list("spec.accessModes").is_empty() {
        object
            .elsewhere(Path::new("Spec.accessModes"), object.value)
            .missing("");
    }
    for (_, amount) in object.entries("status.capacity") {
        basic_resource(&amount);
    }
    let statuses = Path::new("status.allocatedResourceStatus");
    for (resource, status) in object.entries("status.allocatedResourceStatuses") {
        let at = object.elsewhere(statuses.clone(), status.value);
        resource_key(resource, &at);
        if !RESIZE_STATUSES.contains(&status.text()) {
            let shown = Value::from(resource);
            object
                .elsewhere(statuses.clone(), &shown)
                .not_supported(&RESIZE_STATUSES);
        }
    }
    for (resource, amount) in object.entries("status.allocatedResources") {
        let at = object.elsewhere(Path::new("status.allocatedResources"), amount.value);
        if !resource_key(resource, &at) {
            continue;
        }
        let before = object.report.len();
        basic_resource(&amount);
        if object.report.len() == before {
            resources::amount("storage", &amount);
        }
    }
}

/// Of Kubernetes' own resources a claim has storage alone. Returns whether the name is one.
fn resource_key(resource: &str, at: &At) -> bool {
    let broken = qualified_name(resource);
    let named = broken.is_empty();
    for message in broken {
        at.invalid_as(resource, message);
    }
    if !named {
        return false;
    }
    let allowed = !resources::is_native(resource) || resource == "storage";
    if !allowed {
        let shown = Value::from(resource);
        at.elsewhere(at.path.clone(), &shown).not_supported(&["storage"]);
    }
    allowed
}
