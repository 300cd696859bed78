//! Label selectors inside objects.
//!
//! Source: `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use super::{label_value, labels, qualified_name};
use crate::Value;
use crate::field::{Error, ErrorList, Path};

/// The rule of a label's key.
pub fn label_name(name: &str, path: &Path) -> ErrorList {
    let broken = qualified_name(name).into_iter();
    broken.map(|detail| Error::invalid(path, name, detail)).collect()
}

/// A selector in object form. `allow_invalid_values` is for updates of objects that already have such values.
pub fn label_selector(selector: &Value, allow_invalid_values: bool, path: &Path) -> ErrorList {
    let mut errors = labels(&selector["matchLabels"], &path.child("matchLabels"));
    let path = path.child("matchExpressions");
    for (index, requirement) in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        errors.extend(label_selector_requirement(
            requirement,
            allow_invalid_values,
            &path.index(index),
        ));
    }
    errors
}

/// One of `matchExpressions`.
pub fn label_selector_requirement(requirement: &Value, allow_invalid_values: bool, path: &Path) -> ErrorList {
    let mut errors = Vec::new();
    let text = |name: &str| requirement[name].as_str().unwrap_or_default();
    let values = requirement["values"].as_array().map(Vec::as_slice).unwrap_or_default();
    match text("operator") {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" => {}
        other => errors.push(Error::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    errors.extend(label_name(text("key"), &path.child("key")));
    if !allow_invalid_values {
        for (index, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let path = path.child("values").index(index);
            errors.extend(
                label_value(value)
                    .into_iter()
                    .map(|detail| Error::invalid(&path, value, detail)),
            );
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_are_checked() {
        let path = Path::new("s");
        for (requirement, expect) in [
            (json!({"key": "a", "operator": "In", "values": ["b"]}), ""),
            (json!({"key": "a", "operator": "Exists"}), ""),
            (
                json!({"key": "a", "operator": "NotIn"}),
                "s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ),
            (
                json!({"key": "a", "operator": "Exists", "values": ["x"]}),
                "s.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            (
                json!({"key": "a", "operator": "Gt"}),
                "s.matchExpressions[0].operator: Invalid value: \"Gt\": not a valid selector operator",
            ),
            (
                json!({"key": "", "operator": "Exists"}),
                "s.matchExpressions[0].key: Invalid value: \"\": name part must be non-empty",
            ),
        ] {
            let errors = label_selector(&json!({"matchExpressions": [requirement]}), false, &path);
            let first = errors.first().map(Error::to_string).unwrap_or_default();
            assert_eq!(first, expect);
        }
        let bad_value = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]});
        assert_eq!(
            label_selector(&bad_value, false, &path)[0].field,
            "s.matchExpressions[0].values[0]"
        );
        assert_eq!(label_selector(&bad_value, true, &path), vec![]);
        assert_eq!(
            label_selector(&json!({"matchLabels": {"a": "-"}}), true, &path)[0].field,
            "s.matchLabels"
        );
    }
}
