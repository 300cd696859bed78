//! PodTemplate.

use api::Value;
use api::field::ErrorList;

use super::pod;
use crate::build::Row;
use crate::check::Report;
use crate::gates;
use crate::print::{NAME, container_images, container_names, labels, name, text};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "PodTemplate", "podtemplates")
        .strategy(PodTemplates)
        .returns_deleted()
        .generation()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Containers", "Names of each container in the template."),
        text("Images", "Images referenced by each container in the template."),
        text("Pod Labels", "The labels of the template."),
    ],
    cells: |object, _| {
        let spec = object.at("template.spec");
        vec![
            name(object),
            container_names(spec),
            container_images(spec),
            labels(object.at("template.metadata.labels")).into(),
        ]
    },
};

struct PodTemplates;

impl Strategy for PodTemplates {
    fn default(&self, object: &mut Value) {
        pod::default_template(object.existing("template"));
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        drop_disabled(object, None);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, _context: &WriteContext) {
        drop_disabled(object, Some(old));
    }

    fn generation_changed(&self, object: &Value, old: &Value) -> bool {
        object.at("template") != old.at("template")
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        validate(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        validate(object, Some(old))
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        pod::spec_warnings("template", object, old)
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn drop_disabled(object: &mut Value, old: Option<&Value>) {
    if let Some(template) = object.existing("template") {
        gates::drop_disabled(template, old.map(|old| old.at("template")), "core.v1.PodTemplateSpec");
    }
}

fn validate(object: &Value, old: Option<&Value>) -> ErrorList {
    let old = old.map(|old| old.at("template"));
    Report::of(object, |object| pod::validate_template(&object.get("template"), old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};
    use serde_json::json;

    #[test]
    fn rules() {
        let template = "{template: {spec: {containers: [{name: a, image: i}]}}}";
        for case in [
            Case::new("any restart policy")
                .object("{template: {spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}}")
                .field("template.spec.dnsPolicy", "ClusterFirst"),
            Case::new("nothing").object("{}").field("template", ()).errors(&[
                "template.spec.containers: Required value",
                "template.spec.restartPolicy: Required value",
                "template.spec.dnsPolicy: Required value",
                "template.spec.terminationGracePeriodSeconds: Required value",
            ]),
            Case::new("an update is checked")
                .old(template)
                .object("{template: {spec: {}}}")
                .errors(&["template.spec.containers: Required value"]),
        ] {
            check(&PodTemplates, case);
        }
        let of = |image: &str| json!({"template": {"spec": {"containers": [{"name": "a", "image": image}]}}});
        assert!(PodTemplates.generation_changed(&of("a"), &of("b")));
        assert!(!PodTemplates.generation_changed(&of("a"), &of("a")));
    }
}
