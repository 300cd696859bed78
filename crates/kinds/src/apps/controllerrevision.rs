//! ControllerRevision.

use api::Value;
use api::field::ErrorList;

use crate::build::Row;
use crate::check::{At, Report};
use crate::print::{AGE, NAME, NONE, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::View;

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("apps", "v1", "ControllerRevision", "controllerrevisions")
        .strategy(ControllerRevisions)
        .columns(COLUMNS)
        .build()
}

/// Source: `ValidateControllerRevisionCreate` and `ValidateControllerRevisionUpdate` in
/// `pkg/apis/apps/validation/validation.go`.
struct ControllerRevisions;

impl Strategy for ControllerRevisions {
    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            number(&object);
            let data = object.get("data");
            match data.value {
                Value::Null => data.missing("data is mandatory"),
                Value::Object(_) => {}
                _ => data.missing("data must be a valid JSON object"),
            }
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            number(&object);
            object.get("data").unchanged(old.at("data"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn number(object: &At) {
    object.get("revision").non_negative();
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "The object whose history this is part of."),
        text("Revision", "The number of the revision."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let owner = object
        .list("metadata.ownerReferences")
        .iter()
        .find(|o| o.flag("controller"));
    let controller = owner.map_or(NONE.into(), |owner| {
        let kind = match owner.text("apiVersion").split_once('/') {
            Some((group, _)) => format!("{}.{group}", owner.text("kind")),
            None => owner.text("kind").into(),
        };
        format!("{}/{}", kind.to_lowercase(), owner.text("name"))
    });
    vec![
        name(object),
        controller.into(),
        object.count("revision").into(),
        age(object, context),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, check};

    #[test]
    fn rules() {
        let old = "{revision: 1, data: {spec: {a: b}}}";
        for case in [
            Case::new("a revision").object(old),
            Case::new("of what?").object("revision: -1").errors(&[
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ]),
            Case::new("of no object")
                .object("data: [1]")
                .errors(&["data: Required value: data must be a valid JSON object"]),
            Case::new("a number may change").old(old).object(&old.replace('1', "2")),
            Case::new("history may not")
                .old(old)
                .object(&old.replace('b', "c"))
                .errors(&["data: Invalid value: {\"spec\":{\"a\":\"c\"}}: field is immutable"]),
        ] {
            check(&ControllerRevisions, case);
        }
    }
}
