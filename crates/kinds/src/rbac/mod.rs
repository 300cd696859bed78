//! The rbac.authorization.k8s.io group: Role, ClusterRole and their bindings.

mod columns;

use crate::build::Row;
use crate::names;
use crate::row::StorageKind;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        shared(Row::cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings"))
            .columns(columns::BINDING)
            .build(),
        shared(Row::cluster(GROUP, "v1", "ClusterRole", "clusterroles")).build(),
        shared(Row::namespaced(GROUP, "v1", "RoleBinding", "rolebindings"))
            .columns(columns::BINDING)
            .build(),
        shared(Row::namespaced(GROUP, "v1", "Role", "roles")).build(),
    ]
}

fn shared(row: Row) -> Row {
    row.named(names::path_segment).created_by_put()
}
