//! CSIDriver.
//!
//! Source of the rules: `SetDefaults_CSIDriver` in `pkg/apis/storage/v1/defaults.go`, `ValidateCSIDriver` and
//! `ValidateCSIDriverUpdate` in `pkg/apis/storage/validation/validation.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::{ErrorList, Path};
use serde_json::json;

use crate::build::Row;
use crate::check::{At, Report};
use crate::gates;
use crate::print::{AGE, NAME, NONE, UNSET, age, boolean, joined, name, or, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// A token lives at least ten minutes and at most this many seconds.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const TOKEN_SECONDS_MIN: i64 = 600;
/// How often a node asks at most what it can hold.
const ALLOCATABLE_PERIOD_SECONDS_MIN: i64 = 10;

const TOKENS_IN_ATTRIBUTES: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of \
     tokens in volume attributes";

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "CSIDriver", "csidrivers")
        .strategy(CsiDrivers)
        .conditional_update()
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

fn default(object: &mut Value) {
    object.object("spec");
    let spec = &mut object["spec"];
    spec.put_default("attachRequired", true);
    spec.put_default("podInfoOnMount", false);
    spec.put_default("storageCapacity", false);
    spec.put_default("fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.put("volumeLifecycleModes", json!(["Persistent"]));
    }
    spec.put_default("requiresRepublish", false);
    spec.put_default("seLinuxMount", false);
}

struct CsiDrivers;

impl Strategy for CsiDrivers {
    fn default(&self, object: &mut Value) {
        default(object);
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        gates::drop_disabled(object, None, "storage.v1.CSIDriver");
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        gates::drop_disabled(object, Some(old), "storage.v1.CSIDriver");
        // Upstream counts changes and not the object itself: a new one has no number.
        if object.at("spec") != old.at("spec") {
            let next = old.count("metadata.generation").saturating_add(1);
            object.object("metadata").insert("generation".into(), next.into());
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            let spec = object.get("spec");
            validate(&spec);
            // Upstream calls the field of `attachRequired` so.
            let attach = Path::new("spec.attachedRequired");
            object
                .elsewhere(attach, spec.value.at("attachRequired"))
                .unchanged(old.at("spec.attachRequired"));
            spec.get("volumeLifecycleModes")
                .unchanged(old.at("spec.volumeLifecycleModes"));
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let spec = object.at("spec");
        let changed = old.is_none_or(|old| old.at("spec.tokenRequests") != spec.at("tokenRequests"));
        let told = changed && !spec.list("tokenRequests").is_empty() && !spec.has("serviceAccountTokenInSecrets");
        told.then(|| TOKENS_IN_ATTRIBUTES.to_owned()).into_iter().collect()
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(spec: &At) {
    spec.get("fsGroupPolicy")
        .one_of(&["File", "None", "ReadWriteOnceWithFSType"]);
    let mut audiences = BTreeSet::new();
    for token in spec.items("tokenRequests") {
        let (audience, seconds) = (token.get("audience"), token.get("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            audience.duplicate(audience.text());
            continue;
        }
        match seconds.number() {
            Some(number) if number < TOKEN_SECONDS_MIN => {
                seconds.invalid("may not specify a duration less than 10 minutes");
            }
            Some(number) if number > TOKEN_SECONDS_MAX => {
                seconds.invalid("may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    let secrets = spec.get("serviceAccountTokenInSecrets");
    if secrets.is_set() && spec.get("tokenRequests").is_empty() {
        secrets.invalid("serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
    let modes = spec.get("volumeLifecycleModes");
    for mode in spec.value.list("volumeLifecycleModes") {
        modes
            .elsewhere(modes.path.clone(), mode)
            .one_of(&["Persistent", "Ephemeral"]);
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period
        .number()
        .is_some_and(|period| period < ALLOCATABLE_PERIOD_SECONDS_MIN)
    {
        period.invalid("must be greater than or equal to 10 seconds");
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        boolean("AttachRequired", "Whether volumes are attached first."),
        boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
        boolean("StorageCapacity", "Whether the scheduler looks at capacity."),
        text("TokenRequests", "Audiences of the tokens that the driver gets."),
        boolean("RequiresRepublish", "Whether volumes are published again and again."),
        text("Modes", "Persistent, Ephemeral or both."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let spec = object.at("spec");
    let tokens = match spec.has("tokenRequests") {
        true => joined(spec.list("tokenRequests"), "audience"),
        false => UNSET.into(),
    };
    let modes: Vec<&str> = spec.texts("volumeLifecycleModes").collect();
    vec![
        name(object),
        spec.boolean("attachRequired").unwrap_or(true).into(),
        spec.flag("podInfoOnMount").into(),
        spec.flag("storageCapacity").into(),
        tokens.into(),
        spec.flag("requiresRepublish").into(),
        or(&modes.join(","), NONE).into(),
        age(object, context),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn create() {
        for case in [
            Case::new("defaults")
                .object("spec: {}")
                .field("spec.attachRequired", true)
                .field("spec.podInfoOnMount", false)
                .field("spec.storageCapacity", false)
                .field("spec.fsGroupPolicy", "ReadWriteOnceWithFSType")
                .field("spec.volumeLifecycleModes", json!(["Persistent"]))
                .field("spec.requiresRepublish", false)
                .field("spec.seLinuxMount", false),
            Case::new("features that are off")
                .object("spec: {preventPodSchedulingIfMissing: true}")
                .field("spec.preventPodSchedulingIfMissing", ()),
            Case::new("words")
                .object("spec: {fsGroupPolicy: Some, volumeLifecycleModes: [Persistent, Once]}")
                .errors(&[
                    "spec.fsGroupPolicy: Unsupported value: \"Some\": supported values: \"File\", \"None\", \
                     \"ReadWriteOnceWithFSType\"",
                    "spec.volumeLifecycleModes: Unsupported value: \"Once\": supported values: \"Persistent\", \
                     \"Ephemeral\"",
                ]),
            Case::new("tokens")
                .object(
                    "spec: {tokenRequests: [{audience: a}, {audience: a}, {audience: b, expirationSeconds: 599}, \
                     {audience: c, expirationSeconds: 4294967297}, {audience: '', expirationSeconds: 600}]}",
                )
                .errors(&[
                    "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
                    "spec.tokenRequests[2].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 \
                     minutes",
                    "spec.tokenRequests[3].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger \
                     than 2^32 seconds",
                ]),
            Case::new("secrets without tokens")
                .object("spec: {serviceAccountTokenInSecrets: true}")
                .errors(&[
                    "spec.serviceAccountTokenInSecrets: Invalid value: true: serviceAccountTokenInSecrets is set but no \
                     tokenRequests are specified",
                ]),
            Case::new("a short period")
                .object("spec: {nodeAllocatableUpdatePeriodSeconds: 9}")
                .errors(&[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
                ]),
        ] {
            check(&CsiDrivers, case);
        }
    }

    #[test]
    fn update() {
        for case in [
            Case::new("may change").old("spec: {}").object(
                "spec: {podInfoOnMount: true, storageCapacity: true, fsGroupPolicy: File, requiresRepublish: true, \
                 seLinuxMount: true, tokenRequests: [{audience: a}]}",
            ),
            Case::new("what stays")
                .old("spec: {}")
                .object("spec: {attachRequired: false, volumeLifecycleModes: [Ephemeral]}")
                .errors(&[
                    "spec.attachedRequired: Invalid value: false: field is immutable",
                    "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
                ]),
        ] {
            check(&CsiDrivers, case);
        }
        let context = WriteContext {
            now: "",
            subresource: "",
            user: crate::row::Writer::named(""),
            version: "v1",
        };
        let tokens = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
        assert_eq!(CsiDrivers.warnings(&tokens, None, &context), [TOKENS_IN_ATTRIBUTES]);
        assert!(CsiDrivers.warnings(&tokens, Some(&tokens), &context).is_empty());
        let (old, new) = (
            json!({"spec": {"seLinuxMount": false}}),
            json!({"spec": {"seLinuxMount": true}}),
        );
        assert!(CsiDrivers.generation_changed(&new, &old));
    }
}
