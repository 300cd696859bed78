//! What old clients may still say of a node: taints and pods to avoid in annotations, which nobody reads any more, and the
//! configuration of kubelets, which only objects have that had it before. It has to be well formed all the same.
//!
//! Source: `ValidateNodeSpecificAnnotations`, `validateNodeConfigSourceSpec` and `validateNodeConfigStatus` in
//! `pkg/apis/core/validation/validation.go`.

use api::Value;
use api::codec::{Limits, json};
use api::validation::{config_map_key, dns1123_label, dns1123_subdomain};

use super::strategy::taint_list;
use crate::check::At;
use crate::view::View;

const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
const AVOID: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";

/// The annotations.
pub fn annotations(node: &At) {
    let all = node.get("metadata.annotations");
    let text = |key: &str| all.value.get(key).and_then(Value::as_str).unwrap_or("");
    if !text(TAINTS).is_empty() {
        match read(text(TAINTS), "array", "[]core.Taint") {
            Err(why) => all.invalid_as(TAINTS, why),
            Ok(taints) => {
                let list = taints.as_array().map(Vec::as_slice).unwrap_or_default();
                taint_list(node, &all.path.child(TAINTS), list);
            }
        }
    }
    if !text(AVOID).is_empty() {
        match read(text(AVOID), "object", "v1.AvoidPods") {
            Err(why) => {
                let at = all.elsewhere(all.path.child("AvoidPods"), all.value);
                at.invalid_as(AVOID, why);
            }
            Ok(avoided) => {
                for (index, entry) in avoided.list("preferAvoidPods").iter().enumerate() {
                    avoided_pods(&all.elsewhere(all.path.child(AVOID).index(index), entry));
                }
            }
        }
    }
}

/// JSON in a text, of one kind; null is none.
fn read(text: &str, wanted: &str, go_type: &str) -> Result<Value, String> {
    let decoded = json::decode(text.as_bytes(), &Limits::default()).map_err(|error| error.to_string())?;
    match json::kind_word(&decoded.value) {
        kind if kind == wanted || kind == "null" => Ok(decoded.value),
        kind => Err(format!("json: cannot unmarshal {kind} into Go value of type {go_type}")),
    }
}

fn avoided_pods(entry: &At) {
    let owner = entry.value.at("podSignature.podController");
    if owner.is_null() {
        entry.get("PodSignature").missing("");
    } else if !owner.flag("controller") {
        let at = entry.get("PodSignature.PodController.Controller");
        at.invalid_as(false, "must point to a controller");
    }
}

/// The sources of kubelets' configuration.
pub fn configuration(node: &At) {
    let source = node.get("spec.configSource");
    if source.is_set() {
        config_source(&source, false);
    }
    for field in ["assigned", "active", "lastKnownGood"] {
        let source = node.get("status.config").get(field);
        if source.is_set() {
            config_source(&source, true);
        }
    }
}

fn config_source(source: &At, in_status: bool) {
    let map = source.get("configMap");
    if !map.is_set() {
        return source.invalid("exactly one reference subfield must be non-nil");
    }
    for field in ["uid", "resourceVersion"] {
        let field_at = map.get(field);
        if in_status {
            field_at.required();
        } else if !field_at.is_empty() {
            field_at.forbidden(format!("{field} must not be set in spec"));
        }
    }
    let rules: [(&str, fn(&str) -> Vec<String>); 3] = [
        ("namespace", dns1123_label),
        ("name", dns1123_subdomain),
        ("kubeletConfigKey", config_map_key),
    ];
    for (field, rule) in rules {
        let field = map.get(field);
        if field.required() {
            field.check(rule(field.text()));
        }
    }
}
