//! Ingresses, by example.

use super::strategy::Ingresses;
use crate::row::{Strategy, WriteContext, Writer};
use crate::testing::{Case, LABEL, NOW, SUBDOMAIN, check, yaml};

const SERVICE: &str = "service: {name: s, port: {number: 80}}";

/// An ingress in flow YAML: fields of its spec.
fn ingress(spec: &str) -> String {
    format!("{{metadata: {{name: i}}, spec: {{{spec}}}}}")
}

/// An ingress with one path.
fn with_path(path: &str) -> String {
    ingress(&format!(
        "rules: [{{host: a.example.com, http: {{paths: [{{{path}}}]}}}}]"
    ))
}

#[test]
fn specs() {
    let wildcard = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
                    of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
                    '*.example.com', regex used for validation is \
                    '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    for (spec, errors) in [
        (format!("defaultBackend: {{{SERVICE}}}"), vec![]),
        (
            format!("defaultBackend: {{{SERVICE}}}, ingressClassName: nginx"),
            vec![],
        ),
        (
            String::new(),
            vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified".to_string()],
        ),
        (
            "rules: [{host: 10.0.0.1}]".into(),
            vec!["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address".into()],
        ),
        ("rules: [{host: '*.a.b'}]".into(), vec![]),
        (
            "rules: [{host: 'a.*.b'}]".into(),
            vec![format!("spec.rules[0].host: Invalid value: \"a.*.b\": {wildcard}")],
        ),
        (
            "rules: [{host: A}]".into(),
            vec![format!("spec.rules[0].host: Invalid value: \"A\": {SUBDOMAIN}")],
        ),
        (
            "rules: [{http: {paths: []}}]".into(),
            vec!["spec.rules[0].http.paths: Required value".into()],
        ),
        (
            format!("defaultBackend: {{{SERVICE}}}, tls: [{{hosts: [A, '*.a'], secretName: B}}]"),
            vec![
                format!("spec.tls[0].hosts[0]: Invalid value: \"A\": {SUBDOMAIN}"),
                format!("spec.tls[0].secretName: Invalid value: \"B\": {SUBDOMAIN}"),
            ],
        ),
        (
            format!("defaultBackend: {{{SERVICE}}}, ingressClassName: A"),
            vec![format!("spec.ingressClassName: Invalid value: \"A\": {SUBDOMAIN}")],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Ingresses, Case::new(&spec).object(&ingress(&spec)).errors(&errors));
    }
}

#[test]
fn paths_and_backends() {
    let at = "spec.rules[0].http.paths[0]";
    for (path, errors) in [
        (format!("pathType: Prefix, path: /, backend: {{{SERVICE}}}"), vec![]),
        (format!("pathType: ImplementationSpecific, backend: {{{SERVICE}}}"), vec![]),
        (format!("pathType: ImplementationSpecific, path: '/a//b', backend: {{{SERVICE}}}"), vec![]),
        (
            format!("pathType: ImplementationSpecific, path: a, backend: {{{SERVICE}}}"),
            vec!["path: Invalid value: \"a\": must be an absolute path".to_string()],
        ),
        (
            format!("backend: {{{SERVICE}}}"),
            vec!["pathType: Required value: pathType must be specified".into()],
        ),
        (
            format!("pathType: Some, backend: {{{SERVICE}}}"),
            vec![
                "pathType: Unsupported value: \"Some\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                    .into(),
            ],
        ),
        (
            format!("pathType: Exact, backend: {{{SERVICE}}}"),
            vec!["path: Invalid value: \"\": must be an absolute path".into()],
        ),
        (
            format!("pathType: Prefix, path: /a//b/./c%2f/.., backend: {{{SERVICE}}}"),
            vec![
                "path: Invalid value: \"/a//b/./c%2f/..\": must not contain '//'".into(),
                "path: Invalid value: \"/a//b/./c%2f/..\": must not contain '/./'".into(),
                "path: Invalid value: \"/a//b/./c%2f/..\": must not contain '%2f'".into(),
                "path: Invalid value: \"/a//b/./c%2f/..\": cannot end with '/..'".into(),
            ],
        ),
        (
            "pathType: Prefix, path: /, backend: {}".into(),
            vec!["backend: Invalid value: \"\": resource or service backend is required".into()],
        ),
        (
            format!("pathType: Prefix, path: /, backend: {{{SERVICE}, resource: {{kind: a, name: b}}}}"),
            vec!["backend: Invalid value: \"\": cannot set both resource and service backends".into()],
        ),
        (
            "pathType: Prefix, path: /, backend: {resource: {apiGroup: A, kind: a/b}}".into(),
            vec![
                format!("backend.resource.apiGroup: Invalid value: \"A\": {SUBDOMAIN}"),
                "backend.resource.kind: Invalid value: \"a/b\": may not contain '/'".into(),
                "backend.resource.name: Required value".into(),
            ],
        ),
        (
            "pathType: Prefix, path: /, backend: {service: {port: {}}}".into(),
            vec![
                "backend.service.name: Required value".into(),
                "backend: Required value: port name or number is required".into(),
            ],
        ),
        ("pathType: Prefix, path: /, backend: {service: {name: 1s, port: {name: web}}}".into(), vec![]),
        (
            "pathType: Prefix, path: /, backend: {service: {name: S, port: {name: '1', number: 2}}}".into(),
            vec![
                format!("backend.service.name: Invalid value: \"S\": {LABEL}"),
                "backend: Invalid value: \"\": cannot set both port name & port number".into(),
            ],
        ),
        (
            "pathType: Prefix, path: /, backend: {service: {name: s, port: {name: '1'}}}".into(),
            vec!["backend.service.port.name: Invalid value: \"1\": must contain at least one letter (a-z)".into()],
        ),
        (
            "pathType: Prefix, path: /, backend: {service: {name: s, port: {number: 70000}}}".into(),
            vec!["backend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive".into()],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|error| format!("{at}.{error}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Ingresses, Case::new(&path).object(&with_path(&path)).errors(&errors));
    }
}

#[test]
fn classes() {
    let annotated = |class: &str, spec: &str| {
        ingress(&format!("defaultBackend: {{{SERVICE}}}{spec}")).replace(
            "name: i",
            &format!("name: i, annotations: {{kubernetes.io/ingress.class: {class}}}"),
        )
    };
    let differs = "annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both \
                   are specified";
    for case in [
        Case::new("by annotation").object(&annotated("a", "")),
        Case::new("by both").object(&annotated("a", ", ingressClassName: a")),
        Case::new("by two")
            .object(&annotated("a", ", ingressClassName: b"))
            .errors(&[differs]),
        Case::new("which is looked at once")
            .old(&annotated("a", ""))
            .object(&annotated("a", ", ingressClassName: b")),
    ] {
        check(&Ingresses, case);
    }
    let context = WriteContext {
        now: NOW,
        subresource: "",
        user: Writer::named("tester"),
        version: "v1",
    };
    let object = yaml(&annotated("a", ""));
    assert_eq!(
        Ingresses.warnings(&object, None, &context),
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    );
    assert!(Ingresses.warnings(&object, Some(&object), &context).is_empty());
}

#[test]
fn update() {
    let secret = format!("defaultBackend: {{{SERVICE}}}, tls: [{{secretName: B}}]");
    let wildcard =
        format!("rules: [{{host: '*.a', http: {{paths: [{{pathType: Prefix, path: a, backend: {{{SERVICE}}}}}]}}}}]");
    let good = format!("defaultBackend: {{{SERVICE}}}");
    let with_status = |points: &str| {
        let spec = ingress(&good);
        format!(
            "{}, status: {{loadBalancer: {{ingress: {points}}}}}}}",
            &spec[..spec.len() - 1]
        )
    };
    let leading = "must not have leading 0s";
    for case in [
        Case::new("a secret's name that was stored")
            .old(&ingress(&secret))
            .object(&ingress(&secret.replace("name: s", "name: t"))),
        Case::new("a wildcard's path that was stored")
            .old(&ingress(&wildcard))
            .object(&ingress(&wildcard.replace("name: s", "name: t"))),
        Case::new("but no new one")
            .old(&ingress(&good))
            .object(&ingress(&wildcard))
            .errors(&["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"]),
        Case::new("status is written apart")
            .old(&ingress(&good))
            .subresource("status")
            .object("{metadata: {name: i}, status: {loadBalancer: {ingress: [{ip: 10.0.0.1}, {hostname: a.b}]}}}")
            .field("spec.defaultBackend.service.name", "s")
            .field("status.loadBalancer.ingress.0.ip", "10.0.0.1"),
        Case::new("addresses")
            .old(&with_status("[{ip: 10.0.0.01}]"))
            .subresource("status")
            .object("{status: {loadBalancer: {ingress: [{ip: 10.0.0.01}, {ip: 10.0.0.02}, {hostname: A}, {hostname: 10.0.0.1}]}}}")
            .errors(&[
                &format!("status.loadBalancer.ingress[1].ip: Invalid value: \"10.0.0.02\": {leading}"),
                &format!("status.loadBalancer.ingress[2].hostname: Invalid value: \"A\": {SUBDOMAIN}"),
                "status.loadBalancer.ingress[3].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ]),
    ] {
        check(&Ingresses, case);
    }
}
