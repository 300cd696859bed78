//! The node.k8s.io group: RuntimeClass.

use std::collections::BTreeSet;

use api::Value;
use api::field::ErrorList;
use api::validation::labels;

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::pod;
use crate::core::pod::{resources, scheduling, warnings};
use crate::names;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![row()]
}

fn row() -> StorageKind {
    Row::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .conditional_update()
        .created_by_put()
        .strategy(RuntimeClasses)
        .columns(COLUMNS)
        .build()
}

/// Source: `pkg/apis/node/validation/validation.go` and `pkg/registry/node/runtimeclass/strategy.go`.
struct RuntimeClasses;

impl Strategy for RuntimeClasses {
    fn default(&self, object: &mut Value) {
        pod::round_up(object.existing("overhead.podFixed"));
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| class(&object))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            class(&object);
            object.get("handler").unchanged(old.at("handler"));
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let labels = object.entries("scheduling.nodeSelector");
        let deprecated = labels.filter_map(|(key, _)| warnings::deprecated_node_label(key));
        deprecated
            .map(|text| format!("scheduling.nodeSelector: {text}"))
            .collect()
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn class(class: &At) {
    let handler = class.get("handler");
    if handler.required() {
        handler.check(names::label(handler.text(), false));
    }
    let overhead = class.get("overhead");
    if overhead.is_set() {
        // Upstream's path leaves out the field between.
        let fixed = overhead.elsewhere(overhead.path.clone(), overhead.value.at("podFixed"));
        resources::overhead(&fixed, false);
    }
    let placement = class.get("scheduling");
    if placement.is_set() {
        let selector = placement.get("nodeSelector");
        selector.extend(labels(selector.value, &selector.path));
        scheduling::tolerations(&placement, "tolerations");
        tolerations_differ(&placement);
    }
}

fn tolerations_differ(placement: &At) {
    let mut seen = BTreeSet::new();
    for toleration in placement.items("tolerations") {
        let fields = ["key", "operator", "value", "effect"].map(|field| toleration.value.text(field));
        if !seen.insert(fields) {
            toleration.duplicate(toleration.value.clone());
        }
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, text("Handler", "What the container runtime calls it."), AGE],
    cells: |object, context| vec![name(object), object.text("handler").into(), age(object, context)],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Writer;
    use crate::testing::{Case, LABEL, NOW, check, yaml};

    #[test]
    fn rules() {
        let with = |fields: &str| format!("{{handler: h, {fields}}}");
        for case in [
            Case::new("a class").object("handler: h"),
            Case::new("no handler").object("{}").errors(&["handler: Required value"]),
            Case::new("no name")
                .object("handler: H")
                .errors(&[&format!("handler: Invalid value: \"H\": {LABEL}")]),
            Case::new("what it costs")
                .object(&with("overhead: {podFixed: {cpu: 100u, memory: 1Mi}}"))
                .field("overhead.podFixed.cpu", "1m"),
            Case::new("nothing that there is")
                .object(&with("overhead: {podFixed: {hair: '1'}}"))
                .errors(&[
                    "overhead.limits[hair]: Invalid value: \"hair\": must be a standard resource type or fully qualified",
                    "overhead.limits[hair]: Invalid value: \"hair\": must be a standard resource for containers",
                ]),
            Case::new("whole pages")
                .object(&with("overhead: {podFixed: {cpu: '1', hugepages-2Mi: 3Mi}}"))
                .errors(&[
                    "overhead.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of \
                     hugepages-2Mi",
                ]),
            Case::new("where it runs").object(&with(
                "scheduling: {nodeSelector: {a: b}, tolerations: [{key: a, operator: Exists}, {key: b, operator: Exists}]}",
            )),
            Case::new("the same twice")
                .object(&with(
                    "scheduling: {tolerations: [{key: a, operator: Exists, effect: NoExecute}, {key: a, operator: Exists, \
                     effect: NoExecute, tolerationSeconds: 3}]}",
                ))
                .errors(&[
                    "scheduling.tolerations[1]: Duplicate value: \
                     {\"effect\":\"NoExecute\",\"key\":\"a\",\"operator\":\"Exists\",\"tolerationSeconds\":3}",
                ]),
            Case::new("the handler is for life")
                .old("handler: h")
                .object("handler: i")
                .errors(&["handler: Invalid value: \"i\": field is immutable"]),
        ] {
            check(&RuntimeClasses, case);
        }
    }

    #[test]
    fn old_labels_are_warned_of() {
        let context = WriteContext {
            now: NOW,
            subresource: "",
            user: Writer::named("tester"),
            version: "v1",
        };
        let object = yaml("{handler: h, scheduling: {nodeSelector: {beta.kubernetes.io/os: linux}}}");
        assert_eq!(
            RuntimeClasses.warnings(&object, None, &context),
            ["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
        );
    }
}
