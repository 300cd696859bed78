//! The conditions of a CustomResourceDefinition, and the names that it may have in its group.
//!
//! Source: the controllers of `k8s.io/apiextensions-apiserver/pkg/controller` (`status`, `establish`, `nonstructuralschema`,
//! `apiapproval`) and `pkg/apihelpers/helpers.go`.

use std::collections::BTreeSet;

use api::Value;
use api::field::{Error, ErrorList, Path, aggregate, quote};
use serde_json::json;

use super::structural;
use crate::view::{Edit, View};

const APPROVED: &str = "api-approved.kubernetes.io";

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The type, such as `Established`.
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Why, as a word.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// What stands in the status once names and approval were looked at, given the definitions of the same group. The result is the
/// whole object; equal to what was given when there is nothing to do.
pub fn decide(crd: &Value, others: &[&Value], now: &str) -> Value {
    let mut decided = crd.clone();
    if crd.at("spec.names") != crd.at("status.acceptedNames") {
        accept_names(&mut decided, others, now);
    }
    match approval(&decided) {
        Some(condition) => set(&mut decided, &condition, now),
        None => remove(&mut decided, "KubernetesAPIApprovalPolicyConformant"),
    }
    decided
}

/// Tells, or does not any more, what [`structure`] has found.
pub fn set_structure(crd: &mut Value, structure: Option<&Condition>, now: &str) {
    match structure {
        Some(condition) => set(crd, condition, now),
        None => remove(crd, "NonStructuralSchema"),
    }
}

/// Whether the names are accepted and the resource is only to be served.
pub fn awaits_establishment(crd: &Value) -> bool {
    is_true(crd, "NamesAccepted") && !is_true(crd, "Established")
}

/// Tells that the resource is served.
pub fn establish(crd: &mut Value, now: &str) {
    let condition = Condition {
        kind: "Established",
        status: "True",
        reason: "InitialNamesAccepted",
        message: "the initial names have been accepted".into(),
    };
    set(crd, &condition, now);
}

/// Sets a condition; its time changes with its status.
pub fn set(crd: &mut Value, condition: &Condition, now: &str) {
    let status = crd.object("status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let found = conditions.iter_mut().find(|own| own.text("type") == condition.kind);
    let new = json!({"type": condition.kind, "status": condition.status, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": now});
    match found {
        None => conditions.push(new),
        Some(own) => {
            let time = own.at("lastTransitionTime").clone();
            let keeps = own.text("status") == condition.status && !time.is_null();
            for field in ["status", "reason", "message"] {
                own.put(field, new[field].clone());
            }
            if !keeps {
                own.put("lastTransitionTime", now);
            }
        }
    }
}

fn remove(crd: &mut Value, kind: &str) {
    if let Some(Value::Array(conditions)) = crd.existing("status.conditions") {
        conditions.retain(|own| own.text("type") != kind);
    }
}

fn is_true(crd: &Value, kind: &str) -> bool {
    crate::custom::is_true(crd, kind)
}

/// Names are taken when nobody else in the group has them: the first who asks has them.
fn accept_names(crd: &mut Value, others: &[&Value], now: &str) {
    let (mut resources, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    // The definition's own names are among them, as upstream; they are equal to what it asks for or not.
    for other in others.iter().copied().chain([&*crd]) {
        let names = other.at("status.acceptedNames");
        resources.extend([names.text("plural").to_owned(), names.text("singular").to_owned()]);
        resources.extend(names.texts("shortNames").map(str::to_owned));
        kinds.extend([names.text("kind").to_owned(), names.text("listKind").to_owned()]);
    }
    let wanted = crd.at("spec.names").clone();
    let mut accepted = crd.at("status.acceptedNames").clone();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut conflict: Option<(&'static str, String)> = None;
    let in_use = |name: &str| format!("{} is already in use", quote(name));
    let before = accepted.clone();
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &resources),
        ("singular", "SingularConflict", &resources),
    ] {
        let name = wanted.text(field);
        match name != before.text(field) && taken.contains(name) {
            true => conflict = Some((reason, in_use(name))),
            false => accepted.put(field, name),
        }
    }
    let own: Vec<&str> = before.texts("shortNames").collect();
    let short: Vec<&str> = wanted.texts("shortNames").collect();
    if own != short {
        let taken: Vec<String> = short
            .iter()
            .filter(|name| !own.contains(name) && resources.contains(**name))
            .map(|name| in_use(name))
            .collect();
        match &taken[..] {
            [] => accepted.copy_from(&wanted, "shortNames"),
            [one] => conflict = Some(("ShortNamesConflict", one.clone())),
            many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
        }
    }
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        let name = wanted.text(field);
        match name != before.text(field) && kinds.contains(name) {
            true => conflict = Some((reason, in_use(name))),
            false => accepted.put(field, name),
        }
    }
    accepted.copy_from(&wanted, "categories");
    crd.object("status").insert("acceptedNames".into(), accepted);
    let names_accepted = match conflict {
        None => Condition {
            kind: "NamesAccepted",
            status: "True",
            reason: "NoConflicts",
            message: "no conflicts found".into(),
        },
        Some((reason, message)) => Condition {
            kind: "NamesAccepted",
            status: "False",
            reason,
            message,
        },
    };
    let is_accepted = names_accepted.status == "True";
    set(crd, &names_accepted, now);
    if is_true(crd, "Established") {
        return;
    }
    let waiting = match is_accepted {
        true => ("Installing", "the initial names have been accepted"),
        false => ("NotAccepted", "not all names are accepted"),
    };
    let condition = Condition {
        kind: "Established",
        status: "False",
        reason: waiting.0,
        message: waiting.1.into(),
    };
    set(crd, &condition, now);
}

/// What the annotation of a group of Kubernetes' own says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Approval {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

/// Whether a group is the community's, so that its definitions have to be approved.
fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')))
}

fn approval_of(crd: &Value) -> (Approval, String) {
    let annotation = api::meta::annotation(crd, APPROVED).unwrap_or("");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = annotation
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    let name = quote(APPROVED);
    match annotation {
        "" => (
            Approval::Missing,
            format!("protected groups must have approval annotation {name}, {see}"),
        ),
        text if text.starts_with("unapproved") => (Approval::Bypassed, format!("not approved: {}", quote(text))),
        text if is_url => (Approval::Approved, format!("approved in {text}")),
        _ => (
            Approval::Invalid,
            format!(
                "protected groups must have approval annotation {name} with either a URL or a reason starting with \"unapproved\", {see}"
            ),
        ),
    }
}

/// The rule that definitions in the community's groups say who approved them.
pub(super) fn validate_approval(crd: &Value, old: Option<&Value>) -> ErrorList {
    if !is_protected(crd.text("spec.group")) {
        return ErrorList::new();
    }
    let (state, reason) = approval_of(crd);
    if old.is_some_and(|old| approval_of(old).0 == state) {
        return ErrorList::new();
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    let annotation = api::meta::annotation(crd, APPROVED).unwrap_or("");
    match state {
        Approval::Invalid => vec![Error::invalid(&path, annotation, reason)],
        Approval::Missing => vec![Error::required(&path, reason)],
        Approval::Approved | Approval::Bypassed => ErrorList::new(),
    }
}

fn approval(crd: &Value) -> Option<Condition> {
    if !is_protected(crd.text("spec.group")) {
        return None;
    }
    let (state, message) = approval_of(crd);
    let (status, reason) = match state {
        Approval::Invalid => ("False", "InvalidAnnotation"),
        Approval::Missing => ("False", "MissingAnnotation"),
        Approval::Approved => ("True", "ApprovedAnnotation"),
        Approval::Bypassed => ("False", "UnapprovedAnnotation"),
    };
    Some(Condition {
        kind: "KubernetesAPIApprovalPolicyConformant",
        status,
        reason,
        message,
    })
}

/// Whether a definition is older than structural schemas. It depends on the spec alone, and costs the most of all conditions.
pub fn structure(crd: &Value) -> Option<Condition> {
    let mut errors = ErrorList::new();
    if crd.flag("spec.preserveUnknownFields") {
        let path = Path::new("spec").child("preserveUnknownFields");
        errors.push(Error::invalid(&path, true, "must be false"));
    }
    for (index, version) in crd.list("spec.versions").iter().enumerate() {
        let schema = version.at("schema.openAPIV3Schema");
        if schema.is_object() {
            let path = Path::new("spec").child("versions").index(index);
            errors.extend(structural::validate(
                schema,
                &path.child("schema").child("openAPIV3Schema"),
            ));
        }
    }
    (!errors.is_empty()).then(|| Condition {
        kind: "NonStructuralSchema",
        status: "True",
        reason: "Violations",
        message: aggregate(&errors),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {"group": "example.com", "versions": [],
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"),
                "shortNames": short}}, "status": {}})
    }

    fn condition(crd: &Value, kind: &str) -> (String, String) {
        let found = crd
            .list("status.conditions")
            .iter()
            .find(|own| own.text("type") == kind);
        let found = found.unwrap_or(&Value::Null);
        (found.text("status").into(), found.text("reason").into())
    }

    #[test]
    fn the_first_who_asks_has_a_name() {
        let first = decide(&named("widgets", "Widget", &["w"]), &[], "t1");
        assert_eq!(
            condition(&first, "NamesAccepted"),
            ("True".into(), "NoConflicts".into())
        );
        assert_eq!(condition(&first, "Established"), ("False".into(), "Installing".into()));
        assert!(awaits_establishment(&first));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(decide(&first, &[], "t2"), first);
        let mut first = first;
        establish(&mut first, "t2");
        assert!(!awaits_establishment(&first));
        let second = decide(&named("gadgets", "Widget", &["w"]), &[&first], "t3");
        assert_eq!(
            condition(&second, "NamesAccepted"),
            ("False".into(), "ListKindConflict".into())
        );
        assert_eq!(
            condition(&second, "Established"),
            ("False".into(), "NotAccepted".into())
        );
        assert_eq!(second["status"]["acceptedNames"]["plural"], "gadgets");
        assert!(second["status"]["acceptedNames"]["kind"].is_null());
        // The name is free again.
        let third = decide(&second, &[], "t4");
        assert_eq!(
            condition(&third, "NamesAccepted"),
            ("True".into(), "NoConflicts".into())
        );
    }

    #[test]
    fn groups_of_the_community_need_an_approval() {
        for (group, annotation, expect) in [
            ("example.com", "", ""),
            ("x.k8s.io", "", "MissingAnnotation"),
            (
                "x.k8s.io",
                "https://github.com/kubernetes/kubernetes/pull/78458",
                "ApprovedAnnotation",
            ),
            ("kubernetes.io", "unapproved, experimental", "UnapprovedAnnotation"),
            ("x.kubernetes.io", "somebody", "InvalidAnnotation"),
            ("xk8s.io", "", ""),
        ] {
            let mut crd = named("widgets", "Widget", &[]);
            crd["spec"]["group"] = group.into();
            crd["metadata"]["annotations"] = json!({APPROVED: annotation});
            let decided = decide(&crd, &[], "t");
            assert_eq!(
                condition(&decided, "KubernetesAPIApprovalPolicyConformant").1,
                expect,
                "{group} {annotation}"
            );
            let is_refused = !validate_approval(&crd, None).is_empty();
            assert_eq!(
                is_refused,
                matches!(expect, "MissingAnnotation" | "InvalidAnnotation"),
                "{group} {annotation}"
            );
        }
    }
}
