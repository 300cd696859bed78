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

/// Nothing but metadata is checked; of the references to secrets only the name is kept.
struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        keep_names(object);
    }

    fn prepare_for_update(&self, object: &mut Value, _old: &Value, _context: &WriteContext) {
        keep_names(object);
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
    use crate::testing::{Case, check};
    use serde_json::json;

    #[test]
    fn only_names_of_secrets_are_kept() {
        let case = Case::new("references")
            .object("secrets: [{name: a, namespace: b, kind: Secret}]")
            .field("secrets", json!([{"name": "a"}]));
        check(&super::ServiceAccounts, case);
    }
}
