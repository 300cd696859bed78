//! What `kubectl get` shows of role bindings.

use api::Value;

use crate::print::{AGE, NAME, age, name, text, wide};
use crate::row::{Columns, PrintContext};
use crate::view::View;

/// The columns.
pub const BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text("Role", "The role that is granted."),
        AGE,
        wide("Users", "The users that have it."),
        wide("Groups", "The groups that have it."),
        wide("ServiceAccounts", "The service accounts that have it."),
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let of = |kind: &str| -> Value {
        let subjects = object.list("subjects").iter().filter(|s| s.text("kind") == kind);
        let names: Vec<String> = subjects
            .map(|subject| match subject.text("namespace") {
                namespace if kind == "ServiceAccount" => {
                    format!("{namespace}/{}", subject.text("name"))
                }
                _ => subject.text("name").into(),
            })
            .collect();
        names.join(", ").into()
    };
    vec![
        name(object),
        format!("{}/{}", object.text("roleRef.kind"), object.text("roleRef.name")).into(),
        age(object, context),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}
