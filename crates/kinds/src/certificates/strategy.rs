//! What of a request may be written, and through which door.
//!
//! Invariant: who asks is who authentication found; a request never changes; only `approval` adds an approval, and only
//! `status` a certificate. Source: `pkg/registry/certificates/certificates/strategy.go`.

use api::Value;
use api::field::ErrorList;
use serde_json::json;

use super::validation::{self, Tolerated};
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
                let mut conditions = object.list("status.conditions").to_vec();
                for verdict in VERDICTS {
                    keep_verdict(&mut conditions, old, verdict);
                }
                set_conditions(object, dated(conditions, old, context.now));
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            validation::spec(&object.get("spec"), &Tolerated::none());
            validation::status(&object, &Tolerated::none());
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            let tolerated = Tolerated::by(old, object.value);
            validation::spec(&object.get("spec"), &tolerated);
            validation::status(&object, &tolerated);
            validation::change(&object, old, context.subresource);
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        Some(match subresource {
            "" => &["spec", "status"],
            "approval" => &["spec", "status.certificate"],
            _ => &["spec", "status.conditions"],
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

/// Keeps what the old request says of a verdict, when the new one has it as often; else validation refuses it.
fn keep_verdict(conditions: &mut [Value], old: &Value, verdict: &str) {
    let of = |condition: &&Value| condition.text("type") == verdict;
    let before: Vec<&Value> = old.list("status.conditions").iter().filter(of).collect();
    if conditions.iter().filter(of).count() != before.len() {
        return;
    }
    let now = conditions
        .iter_mut()
        .filter(|condition| condition.text("type") == verdict);
    for (now, before) in now.zip(before) {
        *now = before.clone();
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
