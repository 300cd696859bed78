//! The apiextensions.k8s.io group: CustomResourceDefinition (not served yet).

use crate::build::Row;
use crate::generic::WithStatus;
use crate::row::StorageKind;

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    let row = Row::cluster(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    )
    .stored_under("apiextensions.k8s.io/customresourcedefinitions")
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .strategy(WithStatus::PLAIN)
    .generation()
    .conditional_update()
    .status();
    vec![row.build()]
}
