//! What webhooks and policies have in common: which requests they are about, and under which conditions.
//!
//! Source: `validateRuleWithOperations`, `validateMatchResources` and `validateMatchConditions` in
//! `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use api::field::Error;
use api::validation::{label_selector, path_segment_name, qualified_name};

use super::expressions::Known;
use crate::check::At;
use crate::view::View;

/// What happens when a webhook or policy fails, sorted.
pub const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
/// Whether other versions of a resource are meant, sorted.
pub const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const CONDITIONS_MAX: usize = 64;

/// Operations on resources.
pub fn rule(rule: &At) {
    let operations = rule.get("operations");
    operations.required();
    alone(&operations, "if '*' is present, must not specify other operations");
    for operation in rule.items("operations") {
        operation.one_of(&OPERATIONS);
    }
    let (groups, versions) = (rule.get("apiGroups"), rule.get("apiVersions"));
    groups.required();
    alone(&groups, "if '*' is present, must not specify other API groups");
    versions.required();
    alone(&versions, "if '*' is present, must not specify other API versions");
    for version in rule.items("apiVersions") {
        version.required();
    }
    resources(rule);
    let scope = rule.get("scope");
    if scope.is_set() {
        scope.one_of(&SCOPES);
    }
}

fn alone(list: &At, message: &str) {
    let texts: Vec<&str> = list.value.texts("").collect();
    list.ensure(texts.len() <= 1 || !texts.contains(&"*"), message);
}

/// Resources and subresources, none of which another one covers.
fn resources(rule: &At) {
    let list = rule.get("resources");
    list.required();
    let (mut every_sub_of, mut every_with) = (BTreeSet::new(), BTreeSet::new());
    for item in rule.items("resources") {
        let text = item.text();
        item.required();
        let Some((resource, sub)) = text.split_once('/') else {
            continue;
        };
        if every_sub_of.contains(resource) {
            item.invalid(format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if every_with.contains(sub) {
            item.invalid(format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            every_sub_of.insert(resource);
        }
        if resource == "*" {
            every_with.insert(sub);
        }
    }
    let texts: Vec<&str> = list.value.texts("").collect();
    if texts.len() > 1 && texts.contains(&"*/*") {
        list.invalid("if '*/*' is present, must not specify other resources");
    }
    // Upstream asks this of the last resource without a subresource.
    let last = texts.iter().rfind(|text| !text.contains('/'));
    if texts.contains(&"*") && last.is_some_and(|last| *last != "*") {
        list.invalid("if '*' is present, must not specify other resources without subresources");
    }
}

/// The requests that a policy is about.
pub fn match_resources(matched: &At) {
    matched.get("matchPolicy").one_of(&MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = matched.get(field);
        match selector.is_set() {
            true => selector.extend(label_selector(selector.value, false, &selector.path)),
            false => selector.missing(""),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for named in matched.items(list) {
            let mut seen = BTreeSet::new();
            for name in named.items("resourceNames") {
                name.check(path_segment_name(name.text()));
                name.unique(&mut seen);
            }
            rule(&named);
        }
    }
}

/// Conditions of one more request: each has a name of its own and an expression that compiles, with `params` where the
/// policy has some.
pub fn match_conditions(parent: &At, known: &Known, params: bool) {
    let count = parent.value.list("matchConditions").len();
    if count > CONDITIONS_MAX {
        let path = &parent.get("matchConditions").path;
        parent.report.push(Error::too_many(path, count, CONDITIONS_MAX));
    }
    let mut seen = BTreeSet::new();
    for condition in parent.items("matchConditions") {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        if expression.text().trim().is_empty() {
            expression.missing("");
        } else {
            super::expressions::condition(&expression, known, params);
        }
        if name.required() {
            name.check(qualified_name(name.text()));
            name.unique(&mut seen);
        }
    }
}

/// How a server is called: by a URL or as a Service.
pub fn client_config(config: &At) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => self::url(&url),
        (false, true) => self::service(&service),
        _ => config.missing("exactly one of url or service is required"),
    }
}

/// Source: `ValidateWebhookURL` of `k8s.io/apiserver/pkg/util/webhook`.
fn url(url: &At) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (rest, fragment) = url.text().split_once('#').unwrap_or((url.text(), ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once(':').unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").unwrap_or("").split('/').next().unwrap_or("");
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        url.invalid_as(scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        url.invalid_as(host, format!("host must be specified{FORM}"));
    }
    for (part, message) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            url.invalid_as(part, message);
        }
    }
}

/// Source: `ValidateWebhookService` of `k8s.io/apiserver/pkg/util/webhook`.
fn service(service: &At) {
    // Upstream hands in name and namespace in the other order than they are taken, and tells of each the other.
    for (field, told) in [("name", "namespace"), ("namespace", "name")] {
        if service.get(field).is_empty() {
            service.get(told).missing("");
        }
    }
    let port = service.get("port");
    let broken = api::validation::port_number(port.number().unwrap_or(0));
    if !broken.is_empty() {
        port.invalid(format!("port is not valid: {}", broken.join(", ")));
    }
    path(&service.get("path"));
}

fn path(path: &At) {
    match path.text() {
        "" | "/" => return,
        "//" => return path.invalid("segment[0] may not be empty"),
        text if !text.starts_with('/') => path.invalid("must start with a '/'"),
        _ => {}
    }
    let mut characters = path.text().chars();
    characters.next();
    let steps = characters.as_str();
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (index, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            path.invalid(format!("segment[{index}] may not be empty"));
            continue;
        }
        for message in api::validation::dns1123_subdomain(step) {
            path.invalid(format!("segment[{index}]: {message}"));
        }
    }
}
