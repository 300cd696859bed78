//! IngressClass.

use api::Value;
use api::field::ErrorList;
use api::validation::domain_prefixed_path;

use super::ingress;
use crate::build::Row;
use crate::check::{At, Report};
use crate::names;
use crate::print::{AGE, NAME, NONE, age, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The row.
pub fn row() -> StorageKind {
    Row::cluster(super::GROUP, "v1", "IngressClass", "ingressclasses")
        .strategy(IngressClasses)
        .generation()
        .columns(COLUMNS)
        .build()
}

const CONTROLLER_BYTES_MAX: usize = 250;
/// Marks the class of ingresses that name none.
const DEFAULT_ANNOTATION: &str = "ingressclass.kubernetes.io/is-default-class";

/// Source: `ValidateIngressClass` in `pkg/apis/networking/validation/validation.go`.
struct IngressClasses;

impl Strategy for IngressClasses {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.existing("spec.parameters") {
            parameters.put_default("scope", "Cluster");
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| spec(&object.get("spec")))
    }

    fn validate_update(&self, object: &Value, old: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            object.get("spec.controller").unchanged_text(old.at("spec.controller"));
            spec(&object.get("spec"));
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn spec(spec: &At) {
    let controller = spec.get("controller");
    if controller.text().len() > CONTROLLER_BYTES_MAX {
        controller.too_long(CONTROLLER_BYTES_MAX);
    }
    controller.extend(domain_prefixed_path(&controller.path, controller.text()));
    let parameters = spec.get("parameters");
    if parameters.is_set() {
        self::parameters(&parameters);
    }
}

fn parameters(parameters: &At) {
    ingress::reference(parameters);
    let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
    match scope.value.as_str() {
        None => scope.missing(""),
        Some("Namespace") if !namespace.is_set() => namespace.missing("`parameters.scope` is set to 'Namespace'"),
        Some("Namespace") => namespace.check(names::label(namespace.text(), false)),
        Some("Cluster") => namespace.forbidden_when_set("`parameters.scope` is set to 'Cluster'"),
        Some(_) => scope.not_supported(&["Cluster", "Namespace"]),
    }
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Controller", "Who serves ingresses of this class."),
        text("Parameters", "An object with the class's own settings."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let parameters = match object.at("spec.parameters") {
        Value::Null => NONE.into(),
        parameters => {
            let group = parameters.at("apiGroup").as_str().map(|group| format!(".{group}"));
            let (kind, name) = (parameters.text("kind"), parameters.text("name"));
            format!("{kind}{}/{name}", group.unwrap_or_default())
        }
    };
    let default = api::meta::annotation(object, DEFAULT_ANNOTATION) == Some("true");
    let mark = if default { " (default)" } else { "" };
    vec![
        format!("{}{mark}", object.text("metadata.name")).into(),
        object.text("spec.controller").into(),
        parameters.into(),
        age(object, context),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, LABEL, SUBDOMAIN, check};

    #[test]
    fn rules() {
        let class = |parameters: &str| format!("spec: {{controller: example.com/c, parameters: {parameters}}}");
        let long = format!("example.com/{}", "c".repeat(CONTROLLER_BYTES_MAX));
        for case in [
            Case::new("no parameters").object("spec: {controller: example.com/c}"),
            Case::new("parameters of the cluster")
                .object(&class("{kind: K, name: n}"))
                .field("spec.parameters.scope", "Cluster"),
            Case::new("parameters of a namespace").object(&class(
                "{apiGroup: a.b, kind: K, name: n, scope: Namespace, namespace: m}",
            )),
            Case::new("no controller")
                .object("spec: {}")
                .errors(&["spec.controller: Required value"]),
            Case::new("no path").object("spec: {controller: c}").errors(&[
                "spec.controller: Invalid value: \"c\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ]),
            Case::new("too long")
                .object(&format!("spec: {{controller: {long}}}"))
                .errors(&["spec.controller: Too long: may not be more than 250 bytes"]),
            Case::new("nothing in them").object(&class("{apiGroup: A}")).errors(&[
                &format!("spec.parameters.apiGroup: Invalid value: \"A\": {SUBDOMAIN}"),
                "spec.parameters.kind: Required value",
                "spec.parameters.name: Required value",
            ]),
            Case::new("a namespace is named")
                .object(&class("{kind: K, name: n, scope: Namespace}"))
                .errors(&["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]),
            Case::new("and well")
                .object(&class("{kind: K, name: n, scope: Namespace, namespace: A}"))
                .errors(&[&format!("spec.parameters.namespace: Invalid value: \"A\": {LABEL}")]),
            Case::new("and only then")
                .object(&class("{kind: K, name: n, namespace: m}"))
                .errors(&["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]),
            Case::new("some scope")
                .object(&class("{kind: K, name: n, scope: Some}"))
                .errors(&[
                    "spec.parameters.scope: Unsupported value: \"Some\": supported values: \"Cluster\", \"Namespace\"",
                ]),
            Case::new("the controller is for life")
                .old("spec: {controller: example.com/c}")
                .object("spec: {controller: example.com/d}")
                .errors(&["spec.controller: Invalid value: \"example.com/d\": field is immutable"]),
        ] {
            check(&IngressClasses, case);
        }
    }

    #[test]
    fn the_default_is_marked() {
        let context = PrintContext { now_seconds: 0 };
        let shown = |value: &str| {
            let annotations = serde_json::json!({DEFAULT_ANNOTATION: value});
            cells(
                &serde_json::json!({"metadata": {"name": "a", "annotations": annotations}}),
                &context,
            )[0]
            .clone()
        };
        assert_eq!((shown("true"), shown("false")), ("a (default)".into(), "a".into()));
    }
}
