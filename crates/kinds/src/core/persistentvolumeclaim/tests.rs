//! What upstream says of claims.

use serde_json::json;

use super::strategy::PersistentVolumeClaims;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, NOW, SUBDOMAIN, VALUE, check, yaml};

/// A claim for one gibibyte with more fields.
fn with(more: &str) -> String {
    format!("spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}{more}}}")
}

#[test]
fn create() {
    for case in [
        Case::new("a claim")
            .object(&format!("{}\nstatus: {{phase: Bound}}", with("")))
            .field("spec.volumeMode", "Filesystem")
            .field("status.phase", "Pending"),
        Case::new("an empty class is one").object(&with(", storageClassName: ''")),
        Case::new("nothing").object("spec: {}").errors(&[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ]),
        Case::new("no size")
            .object("spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: '0'}}}")
            .errors(&["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"]),
        Case::new("names and words")
            .object(&with(
                ", storageClassName: A, volumeAttributesClassName: B, volumeMode: Tape, selector: {matchLabels: {a: '?'}}",
            ))
            .errors(&[
                &format!("spec.selector.matchLabels: Invalid value: \"?\": {VALUE}"),
                &format!("spec.storageClassName: Invalid value: \"A\": {SUBDOMAIN}"),
                &format!("spec.volumeAttributesClassName: Invalid value: \"B\": {SUBDOMAIN}"),
                "spec.volumeMode: Unsupported value: \"Tape\": supported values: \"Block\", \"Filesystem\"",
            ]),
        Case::new("alone")
            .object("spec: {accessModes: [ReadWriteOncePod, ReadWriteMany], resources: {requests: {storage: 1Gi}}}")
            .errors(&["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]),
    ] {
        check(&PersistentVolumeClaims, case);
    }
}

#[test]
fn data_sources_are_one_fact() {
    let claim = json!({"apiGroup": null, "kind": "PersistentVolumeClaim", "name": "c"});
    for case in [
        Case::new("the old field fills the new one")
            .object(&with(", dataSource: {apiGroup: null, kind: PersistentVolumeClaim, name: c}"))
            .field("spec.dataSourceRef", claim.clone()),
        Case::new("and the other way round")
            .object(&with(", dataSourceRef: {apiGroup: null, kind: PersistentVolumeClaim, name: c}"))
            .field("spec.dataSource", claim.clone()),
        Case::new("across namespaces is off")
            .object(&with(
                ", dataSourceRef: {apiGroup: null, kind: PersistentVolumeClaim, name: c, namespace: n}",
            ))
            .field("spec.dataSourceRef", claim.clone())
            .field("spec.dataSource", claim),
        Case::new("the old field takes claims and snapshots only, and says nothing")
            .object(&with(", dataSource: {apiGroup: example.com, kind: Populator, name: p}"))
            .field("spec.dataSource", ())
            .field("spec.dataSourceRef", ()),
        Case::new("the new one takes anything with a group")
            .object(&with(", dataSourceRef: {apiGroup: example.com, kind: Populator, name: p}"))
            .field("spec.dataSource.kind", "Populator"),
        Case::new("but a group there is")
            .object(&with(", dataSourceRef: {kind: Pod, name: ''}"))
            .errors(&[
                "spec.dataSource.name: Required value",
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default \
                 apiGroup",
                "spec.dataSourceRef.name: Required value",
                "spec.dataSourceRef: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default \
                 apiGroup",
            ]),
        Case::new("two facts")
            .object(&with(
                ", dataSource: {kind: PersistentVolumeClaim, name: c}, dataSourceRef: {kind: PersistentVolumeClaim, name: d}",
            ))
            .errors(&["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"]),
    ] {
        check(&PersistentVolumeClaims, case);
    }
}

const BOUND: &str = "status: {phase: Bound}";
const IN_EFFECT: &str = "status: {phase: Bound, currentVolumeAttributesClassName: a}";
const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and \
                         volumeAttributesClassName for bound claims\n";

#[test]
fn update() {
    let bound = "status: {phase: Bound, capacity: {storage: 1Gi}}";
    let grown =
        |size: &str| format!("spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}}");
    let annotated =
        |class: &str| format!("metadata: {{annotations: {{volume.beta.kubernetes.io/storage-class: {class}}}}}");
    for case in [
        Case::new("a volume is bound once").old(&with("")).object(&with(", volumeName: v")),
        Case::new("and stays")
            .old(&with(", volumeName: v"))
            .object(&with(", volumeName: w"))
            .errors(&[&format!("{IMMUTABLE}  volumeName: \"v\" -> \"w\"\n")]),
        Case::new("only bound claims grow")
            .old(&with(""))
            .object(&grown("2Gi"))
            .errors(&[&format!(
                "{IMMUTABLE}  resources.requests.storage: \"1Gi\" -> \"2Gi\"\n"
            )]),
        Case::new("growing").old(&format!("{}\n{bound}", with(""))).object(&grown("2Gi")),
        Case::new("back from a size that failed").old(&format!("{}\n{bound}", grown("3Gi"))).object(&grown("2Gi")),
        Case::new("not below what there is")
            .old(&format!("{}\n{bound}", grown("3Gi")))
            .object(&grown("1Gi"))
            .errors(&["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]),
        Case::new("the mode stays")
            .old(&with(""))
            .object(&with(", volumeMode: Block"))
            .errors(&[
                &format!("{IMMUTABLE}  volumeMode: \"Filesystem\" -> \"Block\"\n"),
                "volumeMode: Invalid value: \"Block\": field is immutable",
            ]),
        Case::new("a class is named later").old(&with("")).object(&with(", storageClassName: s")),
        Case::new("and stays")
            .old(&with(", storageClassName: s"))
            .object(&with(", storageClassName: t"))
            .errors(&[&format!("{IMMUTABLE}  storageClassName: \"s\" -> \"t\"\n")]),
        Case::new("from the annotation to the field")
            .old(&format!("{}\n{}", annotated("s"), with("")))
            .object(&with(", storageClassName: s")),
        Case::new("the annotation stays")
            .old(&format!("{}\n{}", annotated("s"), with("")))
            .object(&format!("{}\n{}", annotated("t"), with("")))
            .errors(&[
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: Invalid value: \"t\": field is immutable",
            ]),
        Case::new("attributes of a bound claim change")
            .old(&format!("{}\n{BOUND}", with(", volumeAttributesClassName: a")))
            .object(&with(", volumeAttributesClassName: b")),
        Case::new("and go, before they are in effect")
            .old(&format!("{}\n{BOUND}", with(", volumeAttributesClassName: a")))
            .object(&with("")),
        Case::new("but not those of another")
            .old(&with(", volumeAttributesClassName: a"))
            .object(&with(", volumeAttributesClassName: b"))
            .errors(&[&format!("{IMMUTABLE}  volumeAttributesClassName: \"a\" -> \"b\"\n")]),
        Case::new("what is in effect does not go")
            .old(&format!("{}\n{IN_EFFECT}", with(", volumeAttributesClassName: a")))
            .object(&with(""))
            .errors(&[
                "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when \
                 status.currentVolumeAttributesClassName is not nil",
            ]),
        Case::new("nor becomes empty")
            .old(&format!("{}\n{IN_EFFECT}", with(", volumeAttributesClassName: a")))
            .object(&with(", volumeAttributesClassName: ''"))
            .errors(&[
                "spec.volumeAttributesClassName: Forbidden: update to empty string is forbidden when \
                 status.currentVolumeAttributesClassName is not nil",
            ]),
        Case::new("what was broken may stay")
            .old(&with(", selector: {matchExpressions: [{key: a, operator: In, values: ['?']}]}"))
            .object(&with(
                ", selector: {matchExpressions: [{key: a, operator: In, values: ['?']}]}, volumeName: v",
            )),
    ] {
        check(&PersistentVolumeClaims, case);
    }
}

#[test]
fn status() {
    let version = "metadata: {resourceVersion: '1'}";
    for case in [
        Case::new("bound")
            .object(&format!(
                "{version}\nspec: {{}}\nstatus: {{phase: Bound, accessModes: [ReadWriteOnce], capacity: {{storage: 1Gi}}, \
                 allocatedResources: {{storage: 2Gi}}, allocatedResourceStatuses: {{storage: NodeResizePending}}}}"
            ))
            .field("spec.accessModes.0", "ReadWriteOnce")
            .field("status.phase", "Bound"),
        Case::new("broken")
            .object(
                "status: {capacity: {storage: '-1'}, allocatedResources: {cpu: '1', storage: '-2'}, \
                 allocatedResourceStatuses: {storage: Growing, example.com/a: NodeResizePending}}",
            )
            .errors(&[
                "resourceVersion: Required value",
                "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "status.allocatedResourceStatus: Unsupported value: \"storage\": supported values: \
                 \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \
                 \"NodeResizeInfeasible\", \"NodeResizePending\"",
                "status.allocatedResources: Unsupported value: \"cpu\": supported values: \"storage\"",
                "status.allocatedResources[storage]: Invalid value: -2: must be a valid resource quantity",
            ]),
    ] {
        check(&PersistentVolumeClaims, case.old(&with("")).subresource("status"));
    }
}

#[test]
fn warnings() {
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("u"),
        version: "v1",
    };
    let claim = yaml(
        "metadata: {annotations: {volume.beta.kubernetes.io/storage-class: a}}\n\
         spec: {resources: {requests: {storage: 1500m}, limits: {storage: 100m}}}",
    );
    assert_eq!(
        PersistentVolumeClaims.warnings(&claim, None, &context),
        [
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \
             \"storageClassName\" attribute instead",
            "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.resources.limits[storage]: fractional byte value \"100m\" is invalid, must be an integer",
        ]
    );
}
