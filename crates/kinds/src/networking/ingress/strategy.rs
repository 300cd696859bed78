//! The rules of an Ingress and what happens around its writes.
//!
//! Source: `ValidateIngressCreate`, `ValidateIngressUpdate` and `ValidateIngressStatusUpdate` in
//! `pkg/apis/networking/validation/validation.go`, and `pkg/registry/networking/ingress/strategy.go`.

use api::Value;
use api::field::{ErrorList, Path};
use api::validation::{
    dns1123_subdomain, ip_legacy, ip_warnings, parse_ip_sloppy, path_segment_name, port_name,
    wildcard_dns1123_subdomain,
};

use crate::check::{At, Report};
use crate::generic;
use crate::names;
use crate::row::{Strategy, WriteContext};
use crate::view::View;

/// What named the class before there was a field.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const SEQUENCES_FORBIDDEN: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const ENDS_FORBIDDEN: [&str; 2] = ["/..", "/."];

/// Ingresses.
pub struct Ingresses;

/// Which rules a stored ingress may go on breaking: they are younger than some ingresses.
#[derive(Clone, Copy, Default)]
struct Tolerated {
    /// The names of secrets.
    secrets: bool,
    /// The paths of hosts with a wildcard.
    wildcards: bool,
}

impl Strategy for Ingresses {
    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        generic::reset_status(object);
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &WriteContext) {
        generic::keep_apart(object, old, context);
    }

    fn validate_create(&self, object: &Value, _context: &WriteContext) -> ErrorList {
        Report::of(object, |object| {
            spec(&object.get("spec"), Tolerated::default());
            class_is_told_once(&object);
        })
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &WriteContext) -> ErrorList {
        Report::of(object, |object| match context.subresource {
            "status" => status(&object, old),
            _ => spec(&object.get("spec"), tolerated(old.at("spec"))),
        })
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &WriteContext) -> Vec<String> {
        let by_annotation = api::meta::annotation(object, CLASS_ANNOTATION).is_some();
        match old {
            None if by_annotation && !object.has("spec.ingressClassName") => {
                vec![format!(
                    "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
                )]
            }
            Some(_) if context.subresource == "status" => {
                let path = Path::new("status").child("loadBalancer").child("ingress");
                let points = object.list("status.loadBalancer.ingress").iter().enumerate();
                points
                    .flat_map(|(index, point)| ip_warnings(&path.index(index), point.text("ip")))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn is_deep(&self) -> bool {
        true
    }
}

fn tolerated(old: &Value) -> Tolerated {
    let broken = |value: &Value, rule: fn(&At)| !Report::of(value, |at| rule(&at)).is_empty();
    let wildcard = |rule: &Value| rule.text("host").contains('*') && broken(rule, http);
    Tolerated {
        secrets: old.list("tls").iter().any(|tls| broken(tls, secret_name)),
        wildcards: old.list("rules").iter().any(wildcard),
    }
}

/// A class in the annotation of old and one in the field are the same.
fn class_is_told_once(ingress: &At) {
    let class = ingress.get("spec.ingressClassName");
    let annotation = api::meta::annotation(ingress.value, CLASS_ANNOTATION);
    if let Some(told) = annotation.filter(|told| class.is_set() && *told != class.text()) {
        let path = Path::new("annotations").child(CLASS_ANNOTATION);
        let at = ingress.elsewhere(path, ingress.value);
        at.invalid_as(told, "must match `ingressClassName` when both are specified");
    }
}

fn spec(spec: &At, tolerated: Tolerated) {
    let (backend, rules) = (spec.get("defaultBackend"), spec.get("rules"));
    if rules.is_empty() && !backend.is_set() {
        spec.invalid_as(
            rules.value.clone(),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if backend.is_set() {
        self::backend(&backend);
    }
    for rule in spec.items("rules") {
        host(&rule.get("host"));
        if !(tolerated.wildcards && rule.value.text("host").contains('*')) {
            http(&rule);
        }
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            host_name(&host);
        }
        if !tolerated.secrets {
            secret_name(&tls);
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        class.check(names::subdomain(class.text(), false));
    }
}

fn host(host: &At) {
    if host.is_empty() {
        return;
    }
    not_an_address(host);
    host_name(host);
}

/// A name in DNS, or all below one.
fn host_name(host: &At) {
    host.check(match host.text().contains('*') {
        true => wildcard_dns1123_subdomain(host.text()),
        false => dns1123_subdomain(host.text()),
    });
}

fn not_an_address(host: &At) {
    let is_name = parse_ip_sloppy(host.text()).is_none();
    host.ensure(is_name, "must be a DNS name, not an IP address");
}

fn secret_name(tls: &At) {
    let name = tls.get("secretName");
    if !name.is_empty() {
        name.check(names::subdomain(name.text(), false));
    }
}

/// The paths of a rule.
fn http(rule: &At) {
    let http = rule.get("http");
    if !http.is_set() {
        return;
    }
    http.get("paths").required();
    for path in http.items("paths") {
        self::path(&path);
    }
}

fn path(path: &At) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    if !kind.is_set() {
        return kind.missing("pathType must be specified");
    }
    let absolute = || {
        if !text.text().starts_with('/') {
            text.invalid_as(text.text(), "must be an absolute path");
        }
    };
    match kind.text() {
        "Exact" | "Prefix" => {
            absolute();
            for sequence in SEQUENCES_FORBIDDEN.iter().filter(|part| text.text().contains(**part)) {
                text.invalid(format!("must not contain '{sequence}'"));
            }
            for end in ENDS_FORBIDDEN.iter().filter(|end| text.text().ends_with(**end)) {
                text.invalid(format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if text.is_empty() => {}
        "ImplementationSpecific" => absolute(),
        _ => kind.not_supported(&PATH_TYPES),
    }
    backend(&path.get("backend"));
}

fn backend(backend: &At) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => backend.invalid_as("", "cannot set both resource and service backends"),
        (true, false) => reference(&resource),
        (false, true) => self::service(backend, &service),
        (false, false) => backend.invalid_as("", "resource or service backend is required"),
    }
}

fn service(backend: &At, service: &At) {
    let name = service.get("name");
    if name.required() {
        name.check(names::label(name.text(), false));
    }
    let (port, number) = (service.get("port.name"), service.get("port.number"));
    let numbered = number.number().unwrap_or(0) != 0;
    match (!port.is_empty(), numbered) {
        (true, true) => backend.invalid_as("", "cannot set both port name & port number"),
        (true, false) => port.check(port_name(port.text())),
        (false, true) => number.port_number(),
        (false, false) => backend.missing("port name or number is required"),
    }
}

/// Another object: its group, if any, its kind and its name.
pub fn reference(reference: &At) {
    let group = reference.get("apiGroup");
    if group.is_set() {
        group.check(dns1123_subdomain(group.text()));
    }
    for field in ["kind", "name"] {
        let field = reference.get(field);
        if field.required() {
            field.check(path_segment_name(field.text()));
        }
    }
}

/// Addresses that were there may stay as they are.
fn status(ingress: &At, old: &Value) {
    let before = old.list("status.loadBalancer.ingress").iter();
    let before: Vec<&str> = before.map(|point| point.text("ip")).collect();
    for point in ingress.items("status.loadBalancer.ingress") {
        let (address, name) = (point.get("ip"), point.get("hostname"));
        if !address.is_empty() {
            address.extend(ip_legacy(&address.path, address.text(), true, &before));
        }
        if !name.is_empty() {
            name.check(dns1123_subdomain(name.text()));
            not_an_address(&name);
        }
    }
}
