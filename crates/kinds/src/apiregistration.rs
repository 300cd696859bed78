//! The apiregistration.k8s.io group: APIService, which says who answers for a group version.
//!
//! Source of the rules: `ValidateAPIService` in `k8s.io/kube-aggregator/pkg/apis/apiregistration/validation`, and
//! `pkg/registry/apiservice` there.

use api::Value;
use api::field::ErrorList;
use api::validation::{dns1035_label, dns1123_subdomain, port_number};
use serde_json::json;

use crate::build::Row;
use crate::check::{At, Report};
use crate::core::decoded_length;
use crate::generic;
use crate::names;
use crate::print::{AGE, NAME, age, name, text};
use crate::row::{Columns, PrintContext, StorageKind, Strategy, WriteContext};
use crate::view::{Edit, View};

/// The kinds.
pub fn rows() -> Vec<StorageKind> {
    let row = Row::cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices")
        .stored_under("apiregistration.k8s.io/apiservices")
        .categories(&["api-extensions"])
        .named(names::path_segment)
        .strategy(ApiServices)
        .conditional_update()
        .status()
        .columns(COLUMNS);
    vec![row.build()]
}

const COLUMNS: Columns = Columns {
    definitions: &[
        NAME,
        text("Service", "The reference to the service that hosts this API endpoint."),
        text("Available", "Whether this service is available."),
        AGE,
    ],
    cells,
};

fn cells(object: &Value, context: &PrintContext) -> Vec<Value> {
    let service = match object.at("spec.service") {
        Value::Null => "Local".into(),
        service => format!("{}/{}", service.text("namespace"), service.text("name")),
    };
    let available = object
        .list("status.conditions")
        .iter()
        .find(|c| c.text("type") == "Available");
    let available = match available {
        Some(condition) if condition.text("status") == "True" || condition.text("reason").is_empty() => {
            condition.text("status").to_owned()
        }
        Some(condition) => format!("{} ({})", condition.text("status"), condition.text("reason")),
        None => "Unknown".into(),
    };
    vec![name(object), service.into(), available.into(), age(object, context)]
}

const PORT_DEFAULT: i64 = 443;
const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, object: &mut Value) {
        if let Some(service) = object.existing("spec.service") {
            service.put_default("port", PORT_DEFAULT);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        generic::reset_status(object);
        if !object.has("spec.service") {
            let local = json!({"type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available", "lastTransitionTime": context.now});
            object.put("status", json!({"conditions": [local]}));
        }
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
        if context.subresource == "status" {
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                object.copy_from(old, &format!("metadata.{field}"));
            }
        }
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| validate(&object))
    }

    fn validate_update(&self, object: &Value, _old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object),
            _ => validate(&object),
        })
    }

    fn reset_fields(&self, subresource: &str) -> Option<&'static [&'static str]> {
        Some(match subresource {
            "status" => &["spec", "metadata"],
            _ => &["status"],
        })
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn validate(object: &At) {
    let spec = object.get("spec");
    let (group, version) = (spec.get("group"), spec.get("version"));
    let required = format!("{}.{}", version.text(), group.text());
    let name = object.get("metadata.name");
    let right = name.is_empty() || name.text() == required;
    name.ensure(right, format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
    match group.text() {
        "" if version.text() != "v1" => group.missing("only v1 may have an empty group and it better be legacy kube"),
        "" => {}
        text => group.check(dns1123_subdomain(text)),
    }
    version.check(dns1035_label(version.text()));
    for (field, max) in [
        ("groupPriorityMinimum", GROUP_PRIORITY_MAX),
        ("versionPriority", VERSION_PRIORITY_MAX),
    ] {
        let at = spec.get(field);
        let number = at.number().unwrap_or(0);
        if !(1..=max).contains(&number) {
            at.invalid_as(number, format!("must be positive and less than {max}"));
        }
    }
    match spec.value.has("service") {
        true => service(&spec),
        false => local(&spec),
    }
}

/// Answered here: nothing is said of a server.
fn local(spec: &At) {
    let (bundle, skip) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !bundle.is_empty() {
        let size = format!("{} bytes", decoded_length(bundle.text()));
        bundle.invalid_as(size, "local APIServices may not have a caBundle");
    }
    let skips = skip.value == &Value::Bool(true);
    skip.ensure(!skips, "local APIServices may not have insecureSkipTLSVerify");
}

fn service(spec: &At) {
    let service = spec.get("service");
    service.get("namespace").required();
    service.get("name").required();
    let port = service.get("port");
    let broken = port_number(port.number().unwrap_or(0));
    if !broken.is_empty() {
        port.invalid(format!("port is not valid: {}", broken.join(", ")));
    }
    let skip = spec.get("insecureSkipTLSVerify");
    let skips = skip.value == &Value::Bool(true);
    skip.ensure(
        !skips || spec.get("caBundle").is_empty(),
        "may not be true if caBundle is present",
    );
}

fn status(object: &At) {
    for condition in object.items("status.conditions") {
        condition.get("status").one_of(&["True", "False", "Unknown"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, NOW, SUBDOMAIN, check};

    #[test]
    fn rules() {
        let spec = "group: g, version: v1, groupPriorityMinimum: 1, versionPriority: 1";
        for case in [
            Case::new("local")
                .object("metadata: {name: v1.}\nspec: {version: v1, groupPriorityMinimum: 1, versionPriority: 1}")
                .field("status.conditions.0.reason", "Local")
                .field("status.conditions.0.lastTransitionTime", NOW),
            Case::new("of a service")
                .object(&format!("metadata: {{name: v1.g}}\nspec: {{{spec}, service: {{name: s, namespace: n}}}}"))
                .field("spec.service.port", 443)
                .field("status.conditions", ()),
            Case::new("names")
                .object("metadata: {name: a}\nspec: {group: G, version: v2, groupPriorityMinimum: 20001, versionPriority: 0}")
                .errors(&[
                    "metadata.name: Invalid value: \"a\": must be `spec.version+\".\"+spec.group`: \"v2.G\"",
                    &format!("spec.group: Invalid value: \"G\": {SUBDOMAIN}"),
                    "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                    "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                ]),
            Case::new("no group")
                .object("metadata: {name: v2.}\nspec: {version: v2, groupPriorityMinimum: 1, versionPriority: 1}")
                .errors(&["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"]),
            Case::new("local without a server")
                .object(&format!(
                    "metadata: {{name: v1.g}}\nspec: {{{spec}, caBundle: YWJj, insecureSkipTLSVerify: true}}"
                ))
                .errors(&[
                    "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
                ]),
            Case::new("a broken service")
                .object(&format!(
                    "metadata: {{name: v1.g}}\nspec: {{{spec}, caBundle: YWJj, insecureSkipTLSVerify: true, service: {{port: -1}}}}"
                ))
                .errors(&[
                    "spec.service.namespace: Required value",
                    "spec.service.name: Required value",
                    "spec.service.port: Invalid value: -1: port is not valid: must be between 1 and 65535, inclusive",
                    "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
                ]),
            Case::new("status alone")
                .old(&format!("metadata: {{name: v1.g, labels: {{a: b}}}}\nspec: {{{spec}}}"))
                .object("metadata: {name: v1.g}\nspec: {}\nstatus: {conditions: [{type: Available, status: Unknown}]}")
                .subresource("status")
                .field("metadata.labels.a", "b")
                .field("spec.version", "v1")
                .field("status.conditions.0.status", "Unknown"),
            Case::new("status")
                .old(&format!("metadata: {{name: v1.g}}\nspec: {{{spec}}}"))
                .object("status: {conditions: [{type: Available, status: Maybe}]}")
                .subresource("status")
                .errors(&[
                    "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \
                     \"Unknown\"",
                ]),
        ] {
            check(&ApiServices, case);
        }
    }
}
