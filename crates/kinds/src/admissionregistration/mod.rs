//! The admissionregistration.k8s.io group: policies, and configurations of webhooks.

mod expressions;
mod mutating;
mod policies;
pub(crate) mod rules;
#[cfg(test)]
mod tests;
mod validating;
mod webhooks;

use api::Value;

use crate::build::Row;
use crate::print::{AGE, NAME, UNSET, age, integer, name, text};
use crate::row::{Columns, PrintContext, StorageKind};
use crate::view::View;

const GROUP: &str = "admissionregistration.k8s.io";
const CATEGORIES: &[&str] = &["api-extensions"];

/// The kinds of the group.
pub fn rows() -> Vec<StorageKind> {
    vec![
        shared("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .strategy(mutating::MutatingPolicies)
            .columns(MUTATING_POLICY)
            .build(),
        shared("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            .strategy(mutating::MutatingBindings)
            .columns(BINDING)
            .build(),
        shared("MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
            .strategy(webhooks::Webhooks { mutating: true })
            .columns(WEBHOOKS)
            .build(),
        shared("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .strategy(validating::ValidatingPolicies)
            .status()
            .columns(VALIDATING_POLICY)
            .build(),
        shared("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
            .strategy(validating::ValidatingBindings)
            .columns(BINDING)
            .build(),
        shared("ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
            .strategy(webhooks::Webhooks { mutating: false })
            .columns(WEBHOOKS)
            .build(),
    ]
}

fn shared(kind: &'static str, plural: &'static str) -> Row {
    Row::cluster(GROUP, "v1", kind, plural)
        .categories(CATEGORIES)
        .generation()
        .conditional_update()
}

const WEBHOOKS: Columns = Columns {
    definitions: &[NAME, integer("Webhooks", "How many webhooks it has."), AGE],
    cells: |object, context| vec![name(object), object.list("webhooks").len().into(), age(object, context)],
};

const VALIDATING_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        integer("Validations", "How many validations it has."),
        text("ParamKind", "The kind of its parameters."),
        AGE,
    ],
    cells: |object, context| policy_cells(object, "spec.validations", context),
};

const MUTATING_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        integer("Mutations", "How many mutations it has."),
        text("ParamKind", "The kind of its parameters."),
        AGE,
    ],
    cells: |object, context| policy_cells(object, "spec.mutations", context),
};

fn policy_cells(object: &Value, rules: &str, context: &PrintContext) -> Vec<Value> {
    let kind = match object.at("spec.paramKind") {
        Value::Null => UNSET.into(),
        kind => format!("{}/{}", kind.text("apiVersion"), kind.text("kind")),
    };
    vec![
        name(object),
        object.list(rules).len().into(),
        kind.into(),
        age(object, context),
    ]
}

const BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text("PolicyName", "The policy that is bound."),
        text("ParamRef", "The object with the policy's parameters."),
        AGE,
    ],
    cells: |object, context| {
        let reference = object.at("spec.paramRef");
        let parameters = match (reference.text("name"), reference.text("namespace")) {
            ("", _) => UNSET.into(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        vec![
            name(object),
            object.text("spec.policyName").into(),
            parameters.into(),
            age(object, context),
        ]
    },
};
