//! Defaults and what happens around a write of a claim.
//!
//! Source: `SetDefaults_PersistentVolumeClaim`, `pkg/registry/core/persistentvolumeclaim/strategy.go` and
//! `pkg/api/persistentvolumeclaim/util.go`.

use api::Value;
use api::field::ErrorList;
use api::quantity::Quantity;
use serde_json::json;

use super::super::persistentvolume::CLASS_ANNOTATION;
use super::validation;
use crate::check::Report;
use crate::core::pod::round_up;
use crate::gates;
use crate::generic;
use crate::row::{Strategy, WriteContext};
use crate::view::{Edit, View};

const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

/// Claims.
pub struct PersistentVolumeClaims;

impl Strategy for PersistentVolumeClaims {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.existing("spec") {
            round_up(spec.existing("resources.limits"));
            round_up(spec.existing("resources.requests"));
        }
        super::default_spec(object.existing("spec"));
        object.object("status");
        let status = &mut object["status"];
        status.put_default("phase", "Pending");
        round_up(status.existing("capacity"));
        round_up(status.existing("allocatedResources"));
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        object.put("status", json!({"phase": "Pending"}));
        gates::drop_disabled(object, None, "core.v1.PersistentVolumeClaim");
        data_sources(object, &Value::Null);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        gates::drop_disabled(object, Some(old), "core.v1.PersistentVolumeClaim");
        if context.subresource != "status" {
            data_sources(object, old);
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validation::validate_spec(&object.get("spec"), &Value::Null)
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => validation::status(&object),
            _ => {
                // What was stored before there was a second field for it says the same in both now.
                let mut old = old.clone();
                same_data_source(&mut old);
                validation::validate_spec(&object.get("spec"), old.at("spec"));
                validation::update(&object, &old);
            }
        })
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        match context.subresource {
            "" => warnings(object),
            _ => Vec::new(),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// `dataSource` and `dataSourceRef` are one fact in two fields. Before there was the second, the first silently took
/// nothing but claims and snapshots, and still does.
fn data_sources(object: &mut Value, old: &Value) {
    let in_use = ["dataSource", "dataSourceRef"]
        .iter()
        .any(|source| old.at("spec").has(source));
    let Some(spec) = object.existing("spec") else { return };
    if !in_use && !spec.has("dataSourceRef") && !is_claim_or_snapshot(spec.at("dataSource")) {
        spec.cut("dataSource");
    }
    same_data_source(object);
}

/// What one of the two fields says, the other says too.
fn same_data_source(object: &mut Value) {
    let Some(spec) = object.existing("spec") else { return };
    match (spec.has("dataSource"), spec.has("dataSourceRef")) {
        (true, false) => spec.put("dataSourceRef", spec.at("dataSource").clone()),
        (false, true) if spec.text("dataSourceRef.namespace").is_empty() => {
            let mut source = spec.at("dataSourceRef").clone();
            source.cut("namespace");
            spec.put("dataSource", source);
        }
        _ => {}
    }
}

fn is_claim_or_snapshot(source: &Value) -> bool {
    matches!(
        (source.text("kind"), source.text("apiGroup")),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", SNAPSHOT_GROUP)
    )
}

fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if api::meta::annotation(object, CLASS_ANNOTATION).is_some() {
        warnings.push(format!(
            "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
    warnings.extend(spec_warnings("spec", object.at("spec")));
    warnings
}

/// What a user is told of a claim's spec at a path.
pub fn spec_warnings(path: &str, spec: &Value) -> Vec<String> {
    let amount = |list: &str| Quantity::from_value(spec.at("resources").at(list).at("storage")).ok();
    ["requests", "limits"]
        .into_iter()
        .filter_map(|list| Some((list, amount(list)?)))
        .filter(|(_, amount)| amount.milli_value() % 1000 != 0)
        .map(|(list, amount)| {
            let amount = amount.to_string();
            format!("{path}.resources.{list}[storage]: fractional byte value {amount:?} is invalid, must be an integer")
        })
        .collect()
}
