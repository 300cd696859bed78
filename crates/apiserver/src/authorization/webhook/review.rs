//! The question to a webhook: who wants to do what, as `SubjectAccessReview` of `authorization.k8s.io`.
//!
//! A list's selectors go along: they only narrow what is asked for.

use api::selector::{FieldTerm, LabelSelector, Operator};
use api::{Map, Value};
use serde_json::json;

use crate::authorization::config::ReviewVersion;
use crate::request::{Attributes, UserInfo};

/// The spec of a review in `v1`.
pub(super) fn spec(user: &UserInfo, attributes: &Attributes) -> Value {
    let mut spec = Map::new();
    let about = match attributes.is_resource {
        true => ("resourceAttributes", resource(attributes)),
        false => (
            "nonResourceAttributes",
            texts(&[("path", &attributes.path), ("verb", &attributes.verb)]),
        ),
    };
    spec.insert(about.0.into(), Value::Object(about.1));
    spec.extend(texts(&[("user", &user.name), ("uid", &user.uid)]));
    if !user.groups.is_empty() {
        spec.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra".into(), json!(user.extra));
    }
    Value::Object(spec)
}

/// The whole review in that version.
pub(super) fn review(mut spec: Value, version: ReviewVersion) -> Value {
    let version = match version {
        ReviewVersion::V1 => "authorization.k8s.io/v1",
        ReviewVersion::V1Beta1 => {
            // It had another name there.
            let fields = spec.as_object_mut();
            if let Some((fields, groups)) = fields.and_then(|fields| fields.remove("groups").map(|all| (fields, all))) {
                fields.insert("group".into(), groups);
            }
            "authorization.k8s.io/v1beta1"
        }
    };
    json!({"kind": "SubjectAccessReview", "apiVersion": version, "metadata": {}, "spec": spec,
        "status": {"allowed": false}})
}

fn texts(fields: &[(&str, &str)]) -> Map {
    let given = fields.iter().filter(|(_, text)| !text.is_empty());
    given
        .map(|(field, text)| ((*field).to_owned(), Value::from(*text)))
        .collect()
}

fn resource(attributes: &Attributes) -> Map {
    let mut resource = texts(&[
        ("namespace", &attributes.namespace),
        ("verb", &attributes.verb),
        ("group", &attributes.group),
        ("version", &attributes.version),
        ("resource", &attributes.resource),
        ("subresource", &attributes.subresource),
        ("name", &attributes.name),
    ]);
    for (field, requirements) in [
        ("fieldSelector", fields(&attributes.field_selector)),
        ("labelSelector", labels(&attributes.label_selector)),
    ] {
        if !requirements.is_empty() {
            resource.insert(field.into(), json!({"requirements": requirements}));
        }
    }
    resource
}

fn fields(terms: &[FieldTerm]) -> Vec<Value> {
    let requirement = |term: &FieldTerm| {
        let operator = if term.equal { "In" } else { "NotIn" };
        json!({"key": term.field, "operator": operator, "values": [term.value]})
    };
    terms.iter().map(requirement).collect()
}

fn labels(selector: &LabelSelector) -> Vec<Value> {
    let requirement = |requirement: &api::selector::Requirement| {
        let operator = match requirement.operator() {
            Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // A review has no word for them.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut told = json!({"key": requirement.key(), "operator": operator});
        if !requirement.values().is_empty() {
            told["values"] = json!(requirement.values());
        }
        Some(told)
    };
    selector.requirements().iter().filter_map(requirement).collect()
}

#[cfg(test)]
mod tests {
    use api::selector::FieldSelector;

    use super::*;

    #[test]
    fn requests_become_reviews() {
        let mut jane = UserInfo::new("jane", ["dev"]);
        jane.extra.insert("k".into(), vec!["v".into()]);
        let list = Attributes {
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            is_resource: true,
            field_selector: FieldSelector::parse("spec.nodeName=a,status.phase!=Failed")
                .unwrap()
                .requirements()
                .to_vec(),
            label_selector: LabelSelector::parse("app in (x,y),!old,n>5").unwrap(),
            ..Attributes::default()
        };
        let who = json!({"user": "jane", "groups": ["dev", "system:authenticated"], "extra": {"k": ["v"]}});
        let mut expect = who.clone();
        expect["resourceAttributes"] = json!({"verb": "list", "version": "v1", "resource": "pods",
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]}]},
            "labelSelector": {"requirements": [
                {"key": "app", "operator": "In", "values": ["x", "y"]},
                {"key": "old", "operator": "DoesNotExist"}]}});
        assert_eq!(spec(&jane, &list), expect);
        let path = Attributes {
            verb: "get".into(),
            path: "/healthz".into(),
            ..Attributes::default()
        };
        let mut expect = who;
        expect["nonResourceAttributes"] = json!({"path": "/healthz", "verb": "get"});
        assert_eq!(spec(&jane, &path), expect);
        let old = review(expect, ReviewVersion::V1Beta1);
        assert_eq!(old["apiVersion"], "authorization.k8s.io/v1beta1");
        assert_eq!(old["spec"]["group"], json!(["dev", "system:authenticated"]));
        assert!(old["spec"]["groups"].is_null());
    }
}
