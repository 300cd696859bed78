//! The selectors of an access review: which of a list's objects the question is about, as requirements or as text.
//!
//! A selector only narrows the question. What cannot be read is left out, which asks for more than was meant, and the
//! answer says so; requirements with operators of later versions are left out one by one.
//! Source: `pkg/registry/authorization/util/helpers.go`, `pkg/apis/authorization/validation/validation.go` and
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`.

use api::field::{Error, ErrorList, Path};
use api::selector::{FieldSelector, FieldTerm, LabelSelector, Operator, Requirement};
use api::{Value, validation};

use super::{strings, text};

/// What a review's `resourceAttributes` select.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selectors {
    /// By fields.
    pub fields: Vec<FieldTerm>,
    /// By labels.
    pub labels: LabelSelector,
    /// What was left out, for `status.evaluationError`.
    pub ignored: Vec<String>,
}

// === impl Selectors ===

impl Selectors {
    /// Reads what [`check`] has looked at.
    pub(super) fn of(resource: &Value) -> Selectors {
        let mut selectors = Selectors::default();
        let mut ignored = Vec::new();
        let (selector, mut broken) = (&resource["fieldSelector"], false);
        match text(selector, "rawSelector") {
            "" => {
                for requirement in requirements(selector) {
                    match field_term(requirement) {
                        Some(term) => selectors.fields.push(term),
                        None => broken = true,
                    }
                }
            }
            raw => match FieldSelector::parse(raw) {
                Ok(parsed) => selectors.fields = parsed.requirements().to_vec(),
                Err(_) => broken = true,
            },
        }
        ignored.extend(broken.then(|| left_out("fieldSelector", selectors.fields.is_empty())));
        let (selector, mut broken) = (&resource["labelSelector"], false);
        match text(selector, "rawSelector") {
            "" => {
                for requirement in requirements(selector) {
                    match label_requirement(requirement) {
                        Some(requirement) => selectors.labels.add(requirement),
                        None => broken = true,
                    }
                }
            }
            raw => match LabelSelector::parse(raw) {
                Ok(parsed) => selectors.labels = parsed,
                Err(_) => broken = true,
            },
        }
        ignored.extend(broken.then(|| left_out("labelSelector", selectors.labels.is_everything())));
        selectors.ignored = ignored;
        selectors
    }
}

fn left_out(field: &str, wholly: bool) -> String {
    let partially = if wholly { "" } else { "partially " };
    format!("spec.resourceAttributes.{field} {partially}ignored due to parse error")
}

fn requirements(selector: &Value) -> &[Value] {
    selector["requirements"].as_array().map_or(&[], Vec::as_slice)
}

fn field_term(requirement: &Value) -> Option<FieldTerm> {
    let [value] = &strings(&requirement["values"])[..] else {
        return None;
    };
    Some(FieldTerm {
        field: text(requirement, "key").to_owned(),
        equal: match text(requirement, "operator") {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        },
        value: value.clone(),
    })
}

fn label_requirement(requirement: &Value) -> Option<Requirement> {
    let operator = match text(requirement, "operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Requirement::new(text(requirement, "key"), operator, strings(&requirement["values"])).ok()
}

/// What is wrong with the selectors of `resourceAttributes`, which are at `path`.
pub(super) fn check(resource: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for field in ["fieldSelector", "labelSelector"] {
        let (selector, path) = (&resource[field], path.child(field));
        if !selector.is_object() {
            continue;
        }
        let (raw, all) = (text(selector, "rawSelector"), requirements(selector));
        if !raw.is_empty() && !all.is_empty() {
            let why = "may not specified at the same time as requirements";
            errors.push(Error::invalid(&path.child("rawSelector"), raw, why));
        }
        if raw.is_empty() && all.is_empty() {
            let why = format!("when {path} is specified, requirements or rawSelector is required");
            errors.push(Error::required(&path.child("requirements"), why));
        }
        for (at, requirement) in all.iter().enumerate() {
            let path = path.child("requirements").index(at);
            check_requirement(requirement, field == "labelSelector", &path, &mut errors);
        }
    }
    errors
}

/// Operators that are not known are those of later clients.
fn check_requirement(requirement: &Value, of_labels: bool, path: &Path, errors: &mut ErrorList) {
    let (key, values) = (text(requirement, "key"), strings(&requirement["values"]));
    if !of_labels && key.is_empty() {
        errors.push(Error::required(&path.child("key"), "must be specified"));
    }
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path.child("values"), why));
        }
        _ => {}
    }
    if of_labels {
        let name = validation::qualified_name(key);
        errors.extend(name.into_iter().map(|why| Error::invalid(&path.child("key"), key, why)));
        for (at, value) in values.iter().enumerate() {
            let broken = validation::label_value(value);
            let path = path.child("values").index(at);
            errors.extend(broken.into_iter().map(|why| Error::invalid(&path, value.clone(), why)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(selectors: &Selectors) -> String {
        let text = |term: &FieldTerm| {
            let operator = if term.equal { "=" } else { "!=" };
            format!("{}{operator}{}", term.field, term.value)
        };
        selectors.fields.iter().map(text).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn selectors_are_read_and_what_is_not_understood_is_told() {
        let part = |field: &str| format!("spec.resourceAttributes.{field} partially ignored due to parse error");
        let whole = |field: &str| format!("spec.resourceAttributes.{field} ignored due to parse error");
        for (resource, fields, labels, ignored) in [
            (json!({}), "", "", vec![]),
            (
                json!({"fieldSelector": {"rawSelector": "spec.nodeName=a,x!=1"}, "labelSelector": {"rawSelector": "a in (b,c),!d"}}),
                "spec.nodeName=a,x!=1",
                "a in (b,c),!d",
                vec![],
            ),
            (
                json!({"fieldSelector": {"requirements": [
                        {"key": "spec.nodeName", "operator": "In", "values": ["a,b=c"]},
                        {"key": "x", "operator": "NotIn", "values": ["1"]}]},
                    "labelSelector": {"requirements": [
                        {"key": "a", "operator": "NotIn", "values": ["b", "c"]}, {"key": "d", "operator": "Exists"}]}}),
                "spec.nodeName=a,b=c,x!=1",
                "a notin (b,c),d",
                vec![],
            ),
            (
                json!({"fieldSelector": {"requirements": [
                        {"key": "a", "operator": "In", "values": ["1", "2"]}, {"key": "b", "operator": "In", "values": ["1"]}]},
                    "labelSelector": {"requirements": [{"key": "a", "operator": "Later", "values": ["b"]}]}}),
                "b=1",
                "",
                vec![part("fieldSelector"), whole("labelSelector")],
            ),
            (
                json!({"fieldSelector": {"rawSelector": "nonsense"}, "labelSelector": {"rawSelector": "a in"}}),
                "",
                "",
                vec![whole("fieldSelector"), whole("labelSelector")],
            ),
            // A key is a key, whatever it looks like as text.
            (
                json!({"fieldSelector": {"requirements": [{"key": "x=1,spec.nodeName", "operator": "Exists"}]}}),
                "",
                "",
                vec![whole("fieldSelector")],
            ),
        ] {
            let got = Selectors::of(&resource);
            assert_eq!(
                (&*texts(&got), &*got.labels.to_string()),
                (fields, labels),
                "{resource}"
            );
            assert_eq!(got.ignored, ignored, "{resource}");
        }
        let forged = json!({"fieldSelector": {"requirements": [
            {"key": "x=1,spec.nodeName", "operator": "In", "values": ["a"]}]}});
        let found = Selectors::of(&forged).fields;
        assert!(found.iter().all(|term| term.field != "spec.nodeName"));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        let path = Path::new("spec").child("resourceAttributes");
        for (resource, expect) in [
            (json!({"fieldSelector": {"rawSelector": "nonsense"}}), vec![]),
            (
                json!({"labelSelector": {"requirements": [{"key": "a", "operator": "Later"}]}}),
                vec![],
            ),
            (
                json!({"fieldSelector": {}}),
                vec![
                    "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
                ],
            ),
            (
                json!({"labelSelector": {"rawSelector": "a", "requirements": [{"key": "a", "operator": "Exists"}]}}),
                vec![
                    "spec.resourceAttributes.labelSelector.rawSelector: Invalid value: \"a\": may not specified at the same time as requirements",
                ],
            ),
            (
                json!({"fieldSelector": {"requirements": [{"operator": "In"}, {"key": "a", "operator": "Exists", "values": ["x"]}]}}),
                vec![
                    "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must be specified",
                    "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                    "spec.resourceAttributes.fieldSelector.requirements[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ],
            ),
        ] {
            let got: Vec<String> = check(&resource, &path).iter().map(ToString::to_string).collect();
            assert_eq!(got, expect, "{resource}");
        }
        let bad = json!({"labelSelector": {"requirements": [{"key": "-", "operator": "In", "values": ["*"]}]}});
        assert_eq!(check(&bad, &path).len(), 2);
    }
}
