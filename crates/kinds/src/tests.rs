//! The rows as a whole: complete, and as upstream lays them out.

use std::collections::BTreeSet;

use crate::row::{Propagation, StorageKind};

fn all() -> Vec<std::sync::Arc<StorageKind>> {
    [crate::rows(), crate::rows_without_effect()].concat()
}

#[test]
fn keys_follow_upstreams_etcd_layout() {
    let special = [
        ("nodes", "/registry/minions"),
        ("services", "/registry/services/specs"),
        ("endpoints", "/registry/services/endpoints"),
        ("replicationcontrollers", "/registry/controllers"),
        ("ingresses", "/registry/ingress"),
        ("apiservices", "/registry/apiregistration.k8s.io/apiservices"),
        (
            "customresourcedefinitions",
            "/registry/apiextensions.k8s.io/customresourcedefinitions",
        ),
    ];
    let mut seen = BTreeSet::new();
    for row in all() {
        let expect = special.iter().find(|(plural, _)| *plural == row.plural);
        let expect = expect.map_or_else(|| format!("/registry/{}", row.plural), |(_, key)| key.to_string());
        assert_eq!(row.key_prefix, expect);
        assert!(seen.insert(row.key_prefix.clone()), "{} is there twice", row.key_prefix);
    }
}

#[test]
fn columns_and_cells_agree() {
    let object = serde_json::json!({"metadata": {"name": "x"}});
    for row in all() {
        for served in &row.served {
            let columns = served
                .columns
                .as_ref()
                .expect("every built-in kind prints its own columns");
            let cells = (columns.cells)(&object, &crate::row::PrintContext { now_seconds: 0 });
            assert_eq!(columns.definitions.len(), cells.len(), "{}", row.kind);
        }
    }
}

#[test]
fn only_jobs_and_replication_controllers_orphan() {
    let orphaning: Vec<String> = all()
        .iter()
        .filter(|row| row.delete.default_propagation == Propagation::Orphan)
        .map(|row| row.plural.to_string())
        .collect();
    assert_eq!(orphaning, ["replicationcontrollers", "jobs"]);
}

#[test]
fn the_table_names_every_kind() {
    let table = crate::table_of_kinds();
    for row in all() {
        assert!(table.contains(&format!("| {} |", row.kind)), "{}", row.kind);
    }
}
