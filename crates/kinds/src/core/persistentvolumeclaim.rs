//! PersistentVolumeClaim.

use api::Value;
use api::quantity::Quantity;
use api::validation::{annotations, dns1123_subdomain, label_selector, labels};

use super::persistentvolume::{class, phase};
use crate::build::Row;
use crate::check::At;
use crate::generic::WithStatus;
use crate::names;
use crate::print::{AGE, NAME, UNSET, access_modes, age, name, or, text, wide};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .strategy(WithStatus(default))
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    default_spec(object.existing("spec"));
    object.object("status");
    object["status"].put_default("phase", "Pending");
}

/// The defaults of a claim's spec, also in templates of other kinds.
pub fn default_spec(spec: Option<&mut Value>) {
    if let Some(spec) = spec {
        spec.put_default("volumeMode", "Filesystem");
    }
}

/// The rules of the claim that an ephemeral volume makes. Source: `ValidatePersistentVolumeClaimTemplate` in
/// `pkg/apis/core/validation/validation.go`.
pub fn validate_template(template: &At) {
    let metadata = template.get("metadata");
    let (notes, marks) = (metadata.get("annotations"), metadata.get("labels"));
    notes.extend(annotations(notes.value, &notes.path));
    marks.extend(labels(marks.value, &marks.path));
    for (field, value) in metadata.entries("") {
        if !["annotations", "labels"].contains(&field) && !value.is_empty() {
            metadata.get(field).forbidden("cannot be set");
        }
    }
    validate_spec(&template.get("spec"));
}

/// What a user is told of a claim's spec at a path.
pub fn warnings(path: &str, spec: &Value) -> Vec<String> {
    let amount = |list: &str| Quantity::from_value(spec.at("resources").at(list).at("storage")).ok();
    ["requests", "limits"]
        .into_iter()
        .filter_map(|list| Some((list, amount(list)?)))
        .filter(|(_, amount)| amount.milli_value() % 1000 != 0)
        .map(|(list, amount)| {
            let amount = amount.to_string();
            format!("{path}.resources.{list}[storage]: fractional byte value {amount:?} is invalid, must be an integer")
        })
        .collect()
}

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The rules of the spec of a claim that is made.
pub fn validate_spec(spec: &At) {
    let modes = spec.get("accessModes");
    if modes.is_empty() {
        modes.missing("at least 1 access mode is required");
    }
    let selector = spec.get("selector");
    selector.extend(label_selector(selector.value, false, &selector.path));
    let (mut alone, mut shared) = (false, false);
    for mode in spec.value.list("accessModes") {
        modes.elsewhere(modes.path.clone(), mode).one_of(&ACCESS_MODES);
        match mode.as_str() {
            Some("ReadWriteOncePod") => alone = true,
            Some(mode) => shared |= ACCESS_MODES.contains(&mode),
            None => {}
        }
    }
    if alone && shared {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
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
        mode.one_of(&["Block", "Filesystem"]);
    }
    data_sources(spec);
}

fn data_sources(spec: &At) {
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
        if !group.is_empty() {
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

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Status", "Pending, Bound or Lost."),
        text("Volume", "The volume it is bound to."),
        text("Capacity", "How much fits."),
        text("Access Modes", "How it can be mounted."),
        text("StorageClass", "Its storage class."),
        text("VolumeAttributesClass", "Its volume attributes class."),
        AGE,
        wide("VolumeMode", "Filesystem or Block."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let volume = object.text("spec.volumeName");
    let (capacity, modes) = match volume.is_empty() {
        true => (String::new(), String::new()),
        false => (
            or(object.text("status.capacity.storage"), "0").to_string(),
            access_modes(object.list("status.accessModes")),
        ),
    };
    vec![
        name(object),
        phase(object).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(object).into(),
        or(object.text("spec.volumeAttributesClassName"), UNSET).into(),
        age(object, context),
        or(object.text("spec.volumeMode"), UNSET).into(),
    ]
}
