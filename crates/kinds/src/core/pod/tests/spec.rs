//! Rules of a pod as a whole.

use super::{Pods, check, check_spec, pod};
use crate::row::{Strategy, WriteContext};
use crate::testing::{Case, LABEL, SUBDOMAIN, yaml};

#[test]
fn policies() {
    check_spec(
        "restartPolicy: X, dnsPolicy: Y, preemptionPolicy: Z",
        &[
            "restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "dnsPolicy: Unsupported value: \"Y\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \
             \"Default\", \"None\"",
            "preemptionPolicy: Unsupported value: \"Z\": supported values: \"PreemptLowerPriority\", \"Never\"",
        ],
    );
    check_spec(
        "activeDeadlineSeconds: 0",
        &["activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    );
}

#[test]
fn names() {
    for (field, rule) in [
        ("serviceAccountName", SUBDOMAIN),
        ("nodeName", SUBDOMAIN),
        ("priorityClassName", SUBDOMAIN),
        ("runtimeClassName", SUBDOMAIN),
        ("hostname", LABEL),
        ("subdomain", LABEL),
    ] {
        check_spec(
            &format!("{field}: A"),
            &[&format!("{field}: Invalid value: \"A\": {rule}")],
        );
    }
}

#[test]
fn dns() {
    check_spec(
        "dnsPolicy: None",
        &["dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check_spec(
        "dnsPolicy: None, dnsConfig: {}",
        &["dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None"],
    );
    check_spec(
        "dnsConfig: {searches: [a_b.c., .], options: [{name: ndots, value: '5'}]}",
        &[],
    );
    check_spec(
        "dnsConfig: {nameservers: [x, 1.1.1.1, 1.1.1.2, 1.1.1.3], searches: [A], options: [{}]}",
        &[
            "dnsConfig.nameservers: Invalid value: [\"x\",\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\"]: must not have more than 3 \
             nameservers",
            "dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
            &format!(
                "dnsConfig.searches[0]: Invalid value: \"A\": {}",
                api::validation::dns1123_subdomain_underscore("A")[0]
            ),
            "dnsConfig.options[0]: Required value: must not be empty",
        ],
    );
    let many: Vec<String> = (0..33).map(|n| format!("s{n}")).collect();
    let list = format!("{many:?}").replace(", ", ",");
    check_spec(
        &format!("dnsConfig: {{searches: {list}}}"),
        &[&format!(
            "dnsConfig.searches: Invalid value: {list}: must not have more than 32 search paths"
        )],
    );
}

#[test]
fn host_aliases() {
    check_spec(
        "hostAliases: [{ip: x, hostnames: [A]}]",
        &[
            "hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            &format!("hostAliases[0].hostnames[0]: Invalid value: \"A\": {SUBDOMAIN}"),
        ],
    );
}

#[test]
fn overhead() {
    check_spec("overhead: {cpu: 100m}", &[]);
    check_spec(
        "overhead: {x: 1, cpu: -1}",
        &[
            "overhead.limits[cpu]: Invalid value: -1: must be greater than or equal to 0",
            "overhead.limits[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "overhead.limits[x]: Invalid value: \"x\": must be a standard resource for containers",
        ],
    );
}

#[test]
fn host_ports() {
    let object = pod("ports: [{containerPort: 80, hostPort: 81}]", "hostNetwork: true");
    let case = Case::new("another host port").object(&object);
    let error = "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` \
                 is true";
    check(&Pods, case.errors(&[error]));
}

#[test]
fn fields_of_features_that_are_off_are_dropped() {
    let group = "schedulingGroup: {podGroupName: x}";
    check(
        &Pods,
        Case::new(group)
            .object(&pod("", group))
            .field("spec.schedulingGroup", ()),
    );
    let signal = pod("lifecycle: {stopSignal: SIGUSR1}", "os: {name: linux}");
    check(
        &Pods,
        Case::new("signal")
            .object(&signal)
            .field("spec.containers.0.lifecycle.stopSignal", ()),
    );
}

#[test]
fn host_names() {
    for (spec, errors) in [
        ("hostnameOverride: a.example.com", vec![]),
        (
            "hostnameOverride: A, setHostnameAsFQDN: true",
            vec![
                "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true".to_string(),
                format!("spec.hostnameOverride: Invalid value: \"A\": {SUBDOMAIN}"),
            ],
        ),
        (
            "hostnameOverride: a, hostNetwork: true",
            vec!["spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true".to_string()],
        ),
    ] {
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        check(&Pods, Case::new(spec).object(&pod("", spec)).errors(&errors));
    }
}

/// Claims, and variables from files.
#[test]
fn claims_and_files() {
    let validate = |spec: &str| -> Vec<String> {
        let mut pod = yaml(&pod("", spec));
        Pods.default(&mut pod);
        let context = WriteContext {
            now: "",
            subresource: "",
            user: crate::row::Writer::named(""),
            version: "v1",
        };
        Pods.validate_create(&pod, &context)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        validate(
            "resourceClaims: [{}, {name: a, resourceClaimName: b, resourceClaimTemplateName: c}, {name: a, \
             resourceClaimName: B}]"
        ),
        [
            "spec.resourceClaims[0].name: Required value".to_string(),
            "spec.resourceClaims[0]: Invalid value: {}: must specify one of: `resourceClaimName`, \
             `resourceClaimTemplateName`"
                .into(),
            "spec.resourceClaims[1]: Invalid value: \
             {\"name\":\"a\",\"resourceClaimName\":\"b\",\"resourceClaimTemplateName\":\"c\"}: at most one of \
             `resourceClaimName` or `resourceClaimTemplateName` may be specified"
                .into(),
            "spec.resourceClaims[2].name: Duplicate value: \"a\"".into(),
            format!("spec.resourceClaims[2].resourceClaimName: Invalid value: \"B\": {SUBDOMAIN}"),
        ]
    );
    assert_eq!(
        validate(
            "volumes: [{name: v, secret: {secretName: s}}], initContainers: [{name: b, image: i, env: [{name: A, \
             valueFrom: {fileKeyRef: {volumeName: v, path: ../p}}}], resources: {claims: [{name: c}]}}]"
        ),
        [
            "spec.initContainers[0].env[0].valueFrom.fileKeyRef.key: Required value",
            "spec.initContainers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: \"../p\": must not contain '..'",
            "spec.initContainers[0].resources.claims[0]: Not found: \"c\": must be one of the names in \
             pod.spec.resourceClaims which is empty",
            "spec.initContainers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"v\": referenced volume must \
             be of type emptyDir",
        ]
    );
}

#[test]
fn ephemeral_containers_come_later() {
    check_spec(
        "ephemeralContainers: [{name: e, image: i}]",
        &["ephemeralContainers: Forbidden: cannot be set on create"],
    );
}

#[test]
fn deletion_is_graceful() {
    let grace = |pod: &str, requested| Pods.grace_period_seconds(&yaml(pod), requested);
    let running = "{spec: {nodeName: n, terminationGracePeriodSeconds: 30}, status: {phase: Running}}";
    for (pod, requested, expect) in [
        (running, None, Some(30)),
        (running, Some(5), Some(5)),
        (running, Some(0), None),
        (running, Some(-1), Some(1)),
        ("{spec: {terminationGracePeriodSeconds: 30}}", None, None),
        (
            "{spec: {nodeName: n, terminationGracePeriodSeconds: 30}, status: {phase: Failed}}",
            Some(5),
            None,
        ),
    ] {
        assert_eq!(grace(pod, requested), expect, "{pod} {requested:?}");
    }
}
