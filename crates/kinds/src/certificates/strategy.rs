//! What of a request may be written, and through which door.
//!
//! Invariant: who asks is who authentication found; a request never changes; only `approval` adds an approval, and only
//! `status` a certificate. Source: `pkg/registry/certificates/certificates/strategy.go`.

use api::Value;
use api::field::ErrorList;
use serde_json::json;

use super::validation;
use crate::check::Report;
use crate::generic;
use crate::row::{Strategy, WriteContext, Writer};
use crate::view::{Edit, View};

/// The conditions that only `approval` writes.
const VERDICTS: [&str; 2] = ["Approved", "Denied"];

pub(super) struct Requests;

impl Strategy for Requests {
    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        generic::reset_status(object);
        identity(object, context.user);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        match context.subresource {
            "" => {
                object.copy_from(old, "spec");
                object.copy_from(old, "status");
            }
            "approval" => {
                let conditions = object.list("status.conditions").to_vec();
                generic::keep_all_but_status(object, old);
                object.copy_from(old, "status");
                set_conditions(object, dated(conditions, old, context.now));
            }
            _ => {
                generic::keep_all_but_status(object, old);
                let is_verdict = |condition: &&Value| VERDICTS.contains(&condition.text("type"));
                let mut conditions: Vec<Value> = old
                    .list("status.conditions")
                    .iter()
                    .filter(is_verdict)
                    .cloned()
                    .collect();
                let others = object.list("status.conditions").iter();
                conditions.extend(others.filter(|condition| !is_verdict(condition)).cloned());
                set_conditions(object, dated(conditions, old, context.now));
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validation::spec(&object.get("spec"));
            validation::status(&object);
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validation::status(&object);
            validation::change(&object, old, context.subresource);
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

/// Who asks, as authentication found.
fn identity(object: &mut Value, writer: Writer) {
    let spec = object.object("spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    for (field, value) in [("username", writer.name), ("uid", writer.uid)] {
        if !value.is_empty() {
            spec.insert(field.into(), value.into());
        }
    }
    if !writer.groups.is_empty() {
        spec.insert("groups".into(), json!(writer.groups));
    }
    if let Some(extra) = writer.extra.filter(|extra| !extra.is_empty()) {
        spec.insert("extra".into(), json!(extra));
    }
}

fn set_conditions(object: &mut Value, conditions: Vec<Value>) {
    if conditions.is_empty() {
        drop(object.cut("status.conditions"));
    } else {
        object.object("status").insert("conditions".into(), conditions.into());
    }
}

/// Writes the times that were left out: a condition that was there with this status keeps the time of its change.
fn dated(mut conditions: Vec<Value>, old: &Value, now: &str) -> Vec<Value> {
    for condition in &mut conditions {
        if condition.text("lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = now.into();
        }
        if condition.text("lastTransitionTime").is_empty() {
            let same = |known: &&Value| known["type"] == condition["type"] && known["status"] == condition["status"];
            let known = old.list("status.conditions").iter().find(same);
            let since = known.map(|known| known.text("lastTransitionTime").to_owned());
            let since = since.filter(|since| !since.is_empty());
            condition["lastTransitionTime"] = since.unwrap_or_else(|| now.to_owned()).into();
        }
    }
    conditions
}
