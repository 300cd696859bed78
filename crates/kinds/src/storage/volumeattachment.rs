//! VolumeAttachment.
//!
//! Source of the rules: `ValidateVolumeAttachment`, `ValidateVolumeAttachmentV1` and `ValidateVolumeAttachmentUpdate` in
//! `pkg/apis/storage/validation/validation.go`, `pkg/registry/storage/volumeattachment/strategy.go`.

use api::Value;
use api::field::ErrorList;

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::pod::{defaults, volumes};
use crate::core::{round_up, validate_inline_volume};
use crate::gates;
use crate::generic;
use crate::names;
use crate::print::{AGE, NAME, age, boolean, name, text};
use crate::row::{Column, Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// What a driver hands on from attaching, and what it says of an error.
const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "VolumeAttachment", "volumeattachments")
        .strategy(VolumeAttachments)
        .conditional_update()
        .status()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        Column {
            format: "name",
            ..text("Attacher", "Who attaches the volume.")
        },
        text("PV", "The volume."),
        text("Node", "The node."),
        boolean("Attached", "Whether it is attached."),
        AGE,
    ],
    cells: |object, context| {
        vec![
            name(object),
            object.text("spec.attacher").into(),
            object.text("spec.source.persistentVolumeName").into(),
            object.text("spec.nodeName").into(),
            object.flag("status.attached").into(),
            age(object, context),
        ]
    },
};

struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    fn default(&self, object: &mut Value) {
        if let Some(volume) = object.existing("spec.source.inlineVolumeSpec") {
            defaults::volume_source(volume);
            round_up(volume.existing("capacity"));
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
        gates::drop_disabled(object, None, "storage.v1.VolumeAttachment");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            generic::keep_metadata(object, old);
        }
        gates::drop_disabled(object, Some(old), "storage.v1.VolumeAttachment");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validate(&object);
            object.get("spec").unchanged(old.at("spec"));
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        match subresource {
            "status" => Some(&["metadata", "spec"]),
            _ => None,
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    volumes::driver_name(&object.get("spec.attacher"));
    let volume = object.get("spec.source.persistentVolumeName");
    if volume.is_set() {
        volume.check(names::subdomain(volume.text(), false));
    }
    source(&object.get("spec.source"));
    let node = object.get("spec.nodeName");
    node.check(names::subdomain(node.text(), false));
    let size: usize = object
        .entries("status.attachmentMetadata")
        .iter()
        .map(|(key, value)| key.len() + value.text().len())
        .sum();
    if size > METADATA_BYTES_MAX {
        object.get("status.attachmentMetadata").too_long(METADATA_BYTES_MAX);
    }
    for error in ["status.attachError", "status.detachError"] {
        volume_error(&object.get(error));
    }
}

fn source(source: &At) {
    let (volume, inline) = (source.get("persistentVolumeName"), source.get("inlineVolumeSpec"));
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (volume.is_set(), inline.is_set()) {
        (false, false) => source.missing(one),
        (true, true) => source.forbidden(one),
        (true, false) if volume.is_empty() => volume.missing("must specify non empty persistentVolumeName"),
        (true, false) => {}
        (false, true) => validate_inline_volume(&inline),
    }
}

fn volume_error(error: &At) {
    let (message, code) = (error.get("message"), error.get("errorCode"));
    if message.text().len() > MESSAGE_BYTES_MAX {
        // Upstream names the limit of the other field here.
        message.too_long(METADATA_BYTES_MAX);
    }
    code.in_range(0, i64::from(i32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, SUBDOMAIN, check};

    #[test]
    fn create() {
        let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        for case in [
            Case::new("of a volume")
                .object("spec: {attacher: a, nodeName: n, source: {persistentVolumeName: v}}\nstatus: {attached: true}")
                .field("status.attached", ()),
            Case::new("inline").object(
                "spec: {attacher: a, nodeName: n, source: {inlineVolumeSpec: {accessModes: [ReadWriteOnce], \
                 csi: {driver: d, volumeHandle: h}}}}",
            ),
            Case::new("inline is no volume of its own")
                .object(
                    "spec: {attacher: a, nodeName: n, source: {inlineVolumeSpec: {accessModes: [ReadWriteOnce], \
                     capacity: {storage: 1Gi}, claimRef: {name: c}, storageClassName: s, volumeMode: Block, \
                     persistentVolumeReclaimPolicy: Delete, nodeAffinity: {}, hostPath: {path: /a}}}}",
                )
                .errors(&[
                    "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline \
                     volumes",
                    "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline \
                     volumes",
                    "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.persistentVolumeReclaimPolicy: Forbidden: may only be Retain in the \
                     context of inline volumes",
                    "spec.source.inlineVolumeSpec.nodeAffinity: Forbidden: may not be specified in the context of inline \
                     volumes",
                    "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of \
                     inline volumes",
                    "spec.source.inlineVolumeSpec.volumeMode: Forbidden: may not specify volumeMode other than Filesystem \
                     in the context of inline volumes",
                ]),
            Case::new("nothing").object("spec: {attacher: '', nodeName: '', source: {}}").errors(&[
                "spec.attacher: Required value",
                &format!("spec.source: Required value: {one}"),
                &format!("spec.nodeName: Invalid value: \"\": {SUBDOMAIN}"),
            ]),
            Case::new("both")
                .object(
                    "spec: {attacher: a, nodeName: n, source: {persistentVolumeName: v, inlineVolumeSpec: {}}}",
                )
                .errors(&[&format!("spec.source: Forbidden: {one}")]),
            Case::new("no name")
                .object("spec: {attacher: a, nodeName: n, source: {persistentVolumeName: ''}}")
                .errors(&[
                    "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
                    &format!("spec.source.persistentVolumeName: Invalid value: \"\": {SUBDOMAIN}"),
                ]),
        ] {
            check(&VolumeAttachments, case);
        }
    }

    #[test]
    fn update() {
        let old = "spec: {attacher: a, nodeName: n, source: {persistentVolumeName: v}}";
        let long = "x".repeat(1025);
        for case in [
            Case::new("the spec stays")
                .old(old)
                .object("spec: {attacher: b, nodeName: n, source: {persistentVolumeName: v}}")
                .errors(&[
                    "spec: Invalid value: {\"attacher\":\"b\",\"nodeName\":\"n\",\"source\":{\"persistentVolumeName\":\"v\"}}: \
                     field is immutable",
                ]),
            Case::new("status")
                .old(old)
                .object("metadata: {labels: {a: b}}\nstatus: {attached: true, attachmentMetadata: {a: b}}")
                .subresource("status")
                .field("metadata.labels", ())
                .field("status.attached", true)
                .field("spec.attacher", "a"),
            Case::new("a long error")
                .old(old)
                .object(&format!("status: {{attachError: {{message: {long}, errorCode: -1}}}}"))
                .subresource("status")
                .errors(&[
                    "status.attachError.message: Too long: may not be more than 262144 bytes",
                    "status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ]),
        ] {
            check(&VolumeAttachments, case);
        }
    }
}
