//! ServiceAccount.
//!
//! Source of the rules: `pkg/registry/core/serviceaccount/strategy.go`.

use api::Value;
use serde_json::json;

use crate::build::Row;
use crate::print::{AGE, NAME, age, name};
use crate::row::{Columns, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::namespaced("", "v1", "ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .strategy(ServiceAccounts)
        .handler(
            "token",
            Some(("authentication.k8s.io", "v1", "TokenRequest")),
            &["create"],
        )
        .returns_deleted()
        .columns(COLUMNS)
        .build()
}

const COLUMNS: Columns = Columns {
    definitions: &[NAME, AGE],
    cells: |object, context| vec![name(object), age(object, context)],
};

/// Restricts which secrets its pods may mount.
const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

/// Nothing but metadata is checked; of the references to secrets only the name is kept.
struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        keep_names(object);
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value, _context: &WriteContext) {
        keep_names(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, _context: &WriteContext) -> Vec<String> {
        let has = |object: &Value| api::meta::annotation(object, MOUNTABLE_SECRETS).is_some();
        match has(object) && !old.is_some_and(has) {
            true => vec![format!(
                "metadata.annotations[{MOUNTABLE_SECRETS}]: deprecated in v1.32+; prefer separate namespaces to isolate access \
                 to mounted secrets"
            )],
            false => Vec::new(),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn keep_names(object: &mut Value) {
    for secret in object.elements("secrets") {
        let name = secret.text("name").to_string();
        *secret = if name.is_empty() {
            json!({})
        } else {
            json!({"name": name})
        };
    }
}

#[cfg(test)]
mod tests {
    use crate::row::{Strategy as _, WriteContext, Writer};
    use crate::testing::{Case, NOW, check};
    use serde_json::json;

    #[test]
    fn a_deprecated_annotation_is_told_of_when_it_comes() {
        let context = WriteContext {
            now: NOW,
            subresource: "",
            user: Writer::named("tester"),
            version: "v1",
        };
        let with = json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
        let count = |object, old| super::ServiceAccounts.warnings(object, old, &context).len();
        assert_eq!([count(&with, None), count(&with, Some(&with))], [1, 0]);
        assert_eq!([count(&with, Some(&json!({}))), count(&json!({}), Some(&with))], [1, 0]);
    }

    #[test]
    fn only_names_of_secrets_are_kept() {
        let case = Case::new("references")
            .object("secrets: [{name: a, namespace: b, kind: Secret}]")
            .field("secrets", json!([{"name": "a"}]));
        check(&super::ServiceAccounts, case);
    }
}
