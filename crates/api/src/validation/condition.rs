//! `metav1.Condition` in lists of statuses.

use super::{label_name, regex_error};
use crate::Value;
use crate::field::{Error, ErrorList, Path};

const REASON_BYTES_MAX: usize = 1024;
const MESSAGE_BYTES_MAX: usize = 32 * 1024;

/// A list of conditions: each type once.
pub fn conditions(list: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let path = path.index(index);
        let kind = item["type"].as_str().unwrap_or_default();
        if seen.contains(&kind) {
            errors.push(Error::duplicate(&path, kind));
        } else {
            seen.push(kind);
        }
        errors.extend(condition(item, &path));
    }
    errors
}

/// One condition.
pub fn condition(condition: &Value, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let text = |name: &str| condition[name].as_str().unwrap_or_default();
    match text("type") {
        "" => errors.push(Error::required(&path.child("type"), "is required")),
        kind => errors.extend(label_name(kind, &path.child("type"))),
    }
    match text("status") {
        "" => errors.push(Error::required(&path.child("status"), "")),
        "True" | "False" | "Unknown" => {}
        other => {
            let supported = ["False", "True", "Unknown"];
            errors.push(Error::not_supported(&path.child("status"), other, &supported));
        }
    }
    let generation = condition["observedGeneration"].as_i64().unwrap_or(0);
    if generation < 0 {
        let path = path.child("observedGeneration");
        errors.push(Error::invalid(
            &path,
            generation,
            "must be greater than or equal to zero",
        ));
    }
    if text("lastTransitionTime").is_empty() {
        errors.push(Error::required(&path.child("lastTransitionTime"), ""));
    }
    let (reason, reason_path) = (text("reason"), path.child("reason"));
    if reason.is_empty() {
        errors.push(Error::required(&reason_path, ""));
    } else {
        if !is_reason(reason) {
            errors.push(Error::invalid(&reason_path, reason, reason_message()));
        }
        if reason.len() > REASON_BYTES_MAX {
            errors.push(Error::too_long(&reason_path, REASON_BYTES_MAX as i64));
        }
    }
    if text("message").len() > MESSAGE_BYTES_MAX {
        errors.push(Error::too_long(&path.child("message"), MESSAGE_BYTES_MAX as i64));
    }
    errors
}

fn is_reason(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let ends = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match text.as_bytes() {
        [] => false,
        [only] => only.is_ascii_alphabetic(),
        [first, between @ .., last] => {
            first.is_ascii_alphabetic() && ends(*last) && between.iter().all(|byte| inner(*byte))
        }
    }
}

fn reason_message() -> String {
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    regex_error(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_checked() {
        let good =
            json!({"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z", "reason": "A:B"});
        let with = |name: &str, value: Value| {
            let mut condition = good.clone();
            condition[name] = value;
            condition
        };
        let path = Path::new("c");
        for (list, expect) in [
            (json!([good]), ""),
            (json!([good, good]), "c[1]: Duplicate value: \"Ready\""),
            (
                json!([with("type", json!(""))]),
                "c[0].type: Required value: is required",
            ),
            (
                json!([with("status", json!("true"))]),
                "c[0].status: Unsupported value: \"true\": supported values: \"False\", \"True\", \"Unknown\"",
            ),
            (json!([with("reason", json!(""))]), "c[0].reason: Required value"),
            (
                json!([with("reason", json!("x".repeat(1025)))]),
                "c[0].reason: Too long: may not be more than 1024 bytes",
            ),
            (
                json!([with("lastTransitionTime", json!(null))]),
                "c[0].lastTransitionTime: Required value",
            ),
            (
                json!([with("observedGeneration", json!(-1))]),
                "c[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
            ),
        ] {
            assert_eq!(
                conditions(&list, &path)
                    .first()
                    .map(Error::to_string)
                    .unwrap_or_default(),
                expect
            );
        }
        for (reason, good) in [
            ("a", true),
            ("1", false),
            ("A_", true),
            ("A:", false),
            ("_", false),
            ("A,b:C", true),
        ] {
            assert_eq!(is_reason(reason), good, "{reason}");
        }
    }
}
