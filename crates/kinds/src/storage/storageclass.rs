//! StorageClass.
//!
//! Source of the rules: `ValidateStorageClass` and `ValidateStorageClassUpdate` in
//! `pkg/apis/storage/validation/validation.go`, `ValidateTopologySelectorTerm` in
//! `pkg/apis/core/validation/validation.go`; of the warnings: `pkg/api/storage/util.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::Value;
use api::field::ErrorList;
use api::validation::label_name;

use super::parameters;
use crate::build::Row;
use crate::check::{At, Report};
use crate::core::pod::warnings::deprecated_node_label;
use crate::print::{AGE, NAME, age, or, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "StorageClass", "storageclasses")
        .short(&["sc"])
        .strategy(StorageClasses)
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Provisioner", "Who makes volumes of this class."),
        text("ReclaimPolicy", "What happens to a volume when its claim goes."),
        text("VolumeBindingMode", "When claims are bound."),
        text("AllowVolumeExpansion", "Whether volumes can grow."),
        AGE,
    ],
    cells,
};

const DEFAULT_ANNOTATIONS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let is_default = DEFAULT_ANNOTATIONS
        .iter()
        .any(|key| api::meta::annotation(object, key) == Some("true"));
    let default = if is_default { " (default)" } else { "" };
    vec![
        format!("{}{default}", object.text("metadata.name")).into(),
        object.text("provisioner").into(),
        or(object.text("reclaimPolicy"), "Delete").into(),
        or(object.text("volumeBindingMode"), "Immediate").into(),
        object.flag("allowVolumeExpansion").into(),
        age(object, context),
    ]
}

struct StorageClasses;

impl Strategy for StorageClasses {
    fn default(&self, object: &mut Value) {
        object.put_default("reclaimPolicy", "Delete");
        object.put_default("volumeBindingMode", "Immediate");
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validate(&object);
            object.get("provisioner").unchanged_text(old.at("provisioner"));
            for field in ["parameters", "reclaimPolicy", "volumeBindingMode"] {
                object.get(field).unchanged(old.at(field));
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, topology) in object.list("allowedTopologies").iter().enumerate() {
            for (j, expression) in topology.list("matchLabelExpressions").iter().enumerate() {
                if let Some(message) = deprecated_node_label(expression.text("key")) {
                    let at = format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key");
                    warnings.push(format!("{at}: {message}"));
                }
            }
        }
        warnings
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    parameters::driver(&object.get("provisioner"));
    parameters::parameters(object, true);
    let policy = object.get("reclaimPolicy");
    if !policy.is_empty() {
        policy.one_of(&["Delete", "Retain"]);
    }
    object
        .get("volumeBindingMode")
        .one_of(&["Immediate", "WaitForFirstConsumer"]);
    allowed_topologies(object);
}

/// Terms differ, and so do the keys and values of one.
fn allowed_topologies(object: &At) {
    let mut seen = BTreeSet::new();
    for term in object.items("allowedTopologies") {
        let mut keys = BTreeMap::new();
        for expression in term.items("matchLabelExpressions") {
            let (key, values) = (expression.get("key"), expression.get("values"));
            if values.is_empty() {
                values.missing("");
            }
            let mut distinct = BTreeSet::new();
            for value in expression.items("values") {
                value.unique(&mut distinct);
            }
            key.extend(label_name(key.text(), &key.path));
            if keys.insert(key.text(), distinct).is_some() {
                key.duplicate(key.text());
            }
        }
        // Upstream takes a term without expressions for one that it saw.
        if keys.is_empty() || !seen.insert(keys) {
            term.get("matchLabelExpressions").duplicate("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, LABEL_NAME_EMPTY, NOW, check, yaml};

    #[test]
    fn create() {
        for case in [
            Case::new("least")
                .object("provisioner: example.com/disk")
                .field("reclaimPolicy", "Delete")
                .field("volumeBindingMode", "Immediate"),
            Case::new("full").object(
                "provisioner: kubernetes.io/GCE-pd\nparameters: {type: ssd}\nreclaimPolicy: Retain\n\
                 volumeBindingMode: WaitForFirstConsumer\nallowVolumeExpansion: true\nmountOptions: [ro]\n\
                 allowedTopologies: [{matchLabelExpressions: [{key: zone, values: [a, b]}]}]",
            ),
            Case::new("nobody")
                .object("{}")
                .errors(&["provisioner: Required value"]),
            Case::new("empty key")
                .object("provisioner: p\nparameters: {'': x}")
                .errors(&["parameters: Invalid value: \"\": field can not be empty."]),
            Case::new("unknown words")
                .object("provisioner: p\nreclaimPolicy: Recycle\nvolumeBindingMode: Later")
                .errors(&[
                    "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                    "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \
                     \"WaitForFirstConsumer\"",
                ]),
        ] {
            check(&StorageClasses, case);
        }
        let large = format!("provisioner: p\nparameters: {{a: {}}}", "x".repeat(256 * 1024));
        let errors = ["parameters: Too long: may not be more than 262144 bytes"];
        check(&StorageClasses, Case::new("large").object(&large).errors(&errors));
    }

    #[test]
    fn topologies() {
        let term = "{matchLabelExpressions: [{key: zone, values: [a]}]}";
        let twice = format!("provisioner: p\nallowedTopologies: [{term}, {term}]");
        for case in [
            Case::new("a term twice")
                .object(&twice)
                .errors(&["allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\""]),
            Case::new("an expression")
                .object(
                    "provisioner: p\nallowedTopologies: [{matchLabelExpressions: [{key: z, values: [a, a]}, \
                     {key: z, values: []}, {key: '', values: [a]}]}]",
                )
                .errors(&[
                    "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                    "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                    "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"z\"",
                    &format!(
                        "allowedTopologies[0].matchLabelExpressions[2].key: {}",
                        LABEL_NAME_EMPTY[0]
                    ),
                    &format!(
                        "allowedTopologies[0].matchLabelExpressions[2].key: {}",
                        LABEL_NAME_EMPTY[1]
                    ),
                ]),
        ] {
            check(&StorageClasses, case);
        }
        let context = WriteContext {
            now: NOW,
            subresource: "",
            user: crate::row::Writer::named("u"),
            version: "v1",
        };
        let old = yaml(
            "allowedTopologies: [{matchLabelExpressions: [{key: failure-domain.beta.kubernetes.io/zone, values: [a]}]}]",
        );
        assert_eq!(
            StorageClasses.warnings(&old, None, &context),
            [
                "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
            ]
        );
    }

    #[test]
    fn update() {
        let old = "provisioner: p\nparameters: {a: b}";
        for case in [
            Case::new("may grow").old(old).object(
                "provisioner: p\nparameters: {a: b}\nallowVolumeExpansion: true\nmountOptions: [ro]\n\
                 metadata: {labels: {a: b}}",
            ),
            Case::new("all that stays")
                .old(old)
                .object(
                    "provisioner: q\nparameters: {a: c}\nreclaimPolicy: Retain\nvolumeBindingMode: WaitForFirstConsumer",
                )
                .errors(&[
                    "parameters: Invalid value: {\"a\":\"c\"}: field is immutable",
                    "provisioner: Invalid value: \"q\": field is immutable",
                    "reclaimPolicy: Invalid value: \"Retain\": field is immutable",
                    "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
                ]),
        ] {
            check(&StorageClasses, case);
        }
    }
}
