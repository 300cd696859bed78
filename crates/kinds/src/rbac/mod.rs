//! The rbac.authorization.k8s.io group: Role, ClusterRole and their bindings.

mod bindings;
mod columns;
mod roles;

use crate::build::Row;
use crate::names;
use crate::row::StorageKind;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The served kinds.
pub fn rows() -> Vec<StorageKind> {
    vec![
        shared(Row::cluster(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings"))
            .strategy(bindings::Bindings { namespaced: false })
            .columns(columns::BINDING)
            .build(),
        shared(Row::cluster(GROUP, "v1", "ClusterRole", "clusterroles"))
            .strategy(roles::Roles { namespaced: false })
            .build(),
        shared(Row::namespaced(GROUP, "v1", "RoleBinding", "rolebindings"))
            .strategy(bindings::Bindings { namespaced: true })
            .columns(columns::BINDING)
            .build(),
        shared(Row::namespaced(GROUP, "v1", "Role", "roles"))
            .strategy(roles::Roles { namespaced: true })
            .build(),
    ]
}

fn shared(row: Row) -> Row {
    row.named(names::path_segment).created_by_put()
}
