//! Rules of containers.

use super::{Pods, check, check_container, check_spec, pod};
use crate::testing::{Case, LABEL, QUALIFIED, SUBDOMAIN};

#[test]
fn names_and_images() {
    let bad = format!("containers[1].name: Invalid value: \"A\": {LABEL}");
    for (spec, errors) in [
        ("containers: []", vec!["containers: Required value"]),
        (
            "containers: [{name: a, image: ' i'}, {name: A, image: i}, {name: a}, {image: i}]",
            vec![
                "containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
                bad.as_str(),
                "containers[2].image: Required value",
                "containers[2].name: Duplicate value: \"a\"",
                "containers[3].name: Required value",
            ],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|error| format!("spec.{error}")).collect();
        let errors: Vec<&str> = errors.iter().map(String::as_str).collect();
        let object = format!("{{metadata: {{name: p}}, spec: {{{spec}}}}}");
        check(&Pods, Case::new(spec).object(&object).errors(&errors));
    }
}

#[test]
fn messages_and_pulls() {
    check_container(
        "terminationMessagePolicy: X, imagePullPolicy: Y",
        &[
            "terminationMessagePolicy: Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\"",
            "imagePullPolicy: Unsupported value: \"Y\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
}

#[test]
fn ports() {
    check_container(
        "ports: [{containerPort: 80, name: web, hostPort: 8080, hostIP: 127.0.0.1}]",
        &[],
    );
    check_container(
        "ports: [{name: a}, {containerPort: 70000, name: a}, {containerPort: 80, hostPort: 70000, protocol: X}, \
         {containerPort: 80, name: A-1234567890123456}]",
        &[
            "ports[0].containerPort: Required value",
            "ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[1].name: Duplicate value: \"a\"",
            "ports[2].hostPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "ports[3].name: Invalid value: \"A-1234567890123456\": must be no more than 15 characters",
            "ports[3].name: Invalid value: \"A-1234567890123456\": must contain at least one letter (a-z)",
            "ports[3].name: Invalid value: \"A-1234567890123456\": must contain only alpha-numeric characters (a-z, \
             0-9), and hyphens (-)",
        ],
    );
    check_container(
        "ports: [{containerPort: 80, hostPort: 80}, {containerPort: 81, hostPort: 80}]",
        &["ports[1].hostPort: Duplicate value: \"TCP//80\""],
    );
}

#[test]
fn environment() {
    let ref_errors: &[&str] = &[
        "env[0].name: Required value",
        "env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, \
         `secretKeyRef` or `fileKeyRef`",
        "env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        "env[3].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
    ];
    let key = "{name: a, key: b}";
    check_container(
        &format!(
            "env: [{{value: x}}, {{name: A, valueFrom: {{}}}}, {{name: B, value: x, valueFrom: {{secretKeyRef: {key}}}}}, \
             {{name: C, valueFrom: {{secretKeyRef: {key}, configMapKeyRef: {key}}}}}]"
        ),
        ref_errors,
    );
    check_container(
        "env: [{name: 'a=b', value: x}]",
        &[
            "env[0].name: Invalid value: \"a=b\": a valid environment variable name must consist only of printable ASCII \
             characters other than '='",
        ],
    );
    let subdomain = format!("env[0].valueFrom.configMapKeyRef.name: Invalid value: \"A\": {SUBDOMAIN}");
    check_container(
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: A}}}]",
        &[
            subdomain.as_str(),
            "env[0].valueFrom.configMapKeyRef.key: Required value",
        ],
    );
}

#[test]
fn references_to_the_pod() {
    let at = "env[0].valueFrom.fieldRef";
    for (field, error) in [
        ("{fieldPath: metadata.name}", None),
        ("{fieldPath: spec.host}", None),
        ("{fieldPath: \"metadata.labels['a.b/c']\"}", None),
        ("{}", Some(format!("{at}.fieldPath: Required value"))),
        (
            "{fieldPath: x}",
            Some(format!(
                "{at}.fieldPath: Invalid value: \"x\": error converting fieldPath: field label not supported: x"
            )),
        ),
        (
            "{fieldPath: metadata.name, apiVersion: v2}",
            Some(format!(
                "{at}.fieldPath: Invalid value: \"metadata.name\": error converting fieldPath: unsupported pod version: v2"
            )),
        ),
        (
            "{fieldPath: metadata.labels}",
            Some(format!(
                "{at}.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \
                 \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \
                 \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\""
            )),
        ),
        (
            "{fieldPath: \"metadata.annotations['a b']\"}",
            Some(format!("{at}: Invalid value: \"a b\": {QUALIFIED}")),
        ),
        (
            "{fieldPath: \"spec.nodeName['a']\"}",
            Some(format!(
                "{at}.fieldPath: Invalid value: \"spec.nodeName['a']\": error converting fieldPath: field label does not \
                 support subscript: spec.nodeName['a']"
            )),
        ),
    ] {
        let errors: Vec<&str> = error.iter().map(String::as_str).collect();
        check_container(
            &format!("env: [{{name: A, valueFrom: {{fieldRef: {field}}}}}]"),
            &errors,
        );
    }
}

#[test]
fn references_to_resources() {
    let at = "env[0].valueFrom.resourceFieldRef";
    let divisors = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    for (field, error) in [
        ("{resource: limits.cpu, divisor: 1m}", None),
        ("{resource: limits.hugepages-2Mi, divisor: 1Mi}", None),
        ("{}", Some(format!("{at}.resource: Required value"))),
        (
            "{resource: x}",
            Some(format!(
                "{at}.resource: Unsupported value: \"x\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \
                 \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\""
            )),
        ),
        (
            "{resource: limits.cpu, divisor: 2}",
            Some(format!(
                "{at}.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu \
                 resource"
            )),
        ),
        (
            "{resource: requests.memory, divisor: 2}",
            Some(format!(
                "{at}.divisor: Invalid value: \"requests.memory\": only divisor's values {divisors} are supported with \
                 the memory resource"
            )),
        ),
        (
            "{resource: limits.ephemeral-storage, divisor: 2}",
            Some(format!(
                "{at}.divisor: Invalid value: \"limits.ephemeral-storage\": only divisor's values {divisors} are \
                 supported with the local ephemeral storage resource"
            )),
        ),
        (
            "{resource: limits.hugepages-2Mi, divisor: 2}",
            Some(format!(
                "{at}.divisor: Invalid value: \"limits.hugepages-2Mi\": only divisor's values {divisors} are supported \
                 with the hugepages resource"
            )),
        ),
    ] {
        let errors: Vec<&str> = error.iter().map(String::as_str).collect();
        check_container(
            &format!("env: [{{name: A, valueFrom: {{resourceFieldRef: {field}}}}}]"),
            &errors,
        );
    }
}

#[test]
fn whole_environments() {
    check_container(
        "envFrom: [{configMapRef: {name: a}, prefix: X_}, {secretRef: {name: b}}]",
        &[],
    );
    check_container(
        "envFrom: [{}, {configMapRef: {}}, {configMapRef: {name: a}, secretRef: {name: b}}]",
        &[
            "envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            "envFrom[1].configMapRef.name: Required value",
            "envFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ],
    );
}

#[test]
fn mounts() {
    check_container("volumeMounts: [{name: v, mountPath: /a, subPath: b}]", &[]);
    check_container(
        "volumeMounts: [{}, {name: x, mountPath: /a}, {name: v, mountPath: /a, subPath: /b, subPathExpr: ../c}]",
        &[
            "volumeMounts[0].name: Required value",
            "volumeMounts[0].name: Not found: \"\"",
            "volumeMounts[0].mountPath: Required value",
            "volumeMounts[1].name: Not found: \"x\"",
            "volumeMounts[2].mountPath: Invalid value: \"/a\": must be unique",
            "volumeMounts.subPath: Invalid value: \"/b\": must be a relative path",
            "volumeMounts[2].subPathExpr: Invalid value: \"../c\": subPathExpr and subPath are mutually exclusive",
            "volumeMounts.subPathExpr: Invalid value: \"../c\": must not contain '..'",
        ],
    );
    check_container(
        "volumeMounts: [{name: v, mountPath: /a, mountPropagation: Bidirectional, recursiveReadOnly: Enabled}, {name: v, \
         mountPath: /b, mountPropagation: X, recursiveReadOnly: Y}]",
        &[
            "volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged \
             containers",
            "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not \
             specified",
            "volumeMounts.mountPropagation: Unsupported value: \"X\": supported values: \"Bidirectional\", \
             \"HostToContainer\", \"None\"",
            "volumeMounts.recursiveReadOnly: Unsupported value: \"Y\": supported values: \"Disabled\", \"Enabled\", \
             \"IfPossible\"",
        ],
    );
}

#[test]
fn devices() {
    check_container("volumeDevices: [{name: w, devicePath: /dev/a}]", &[]);
    check_container(
        "volumeMounts: [{name: w, mountPath: /m}], volumeDevices: [{name: v, devicePath: /dev/a}, {name: x, devicePath: \
         ../b}, {name: w, devicePath: /m}, {name: w, devicePath: /dev/a}, {}]",
        &[
            "volumeMounts[0].name: Invalid value: \"w\": must not already exist in volumeDevices",
            "volumeMounts[0].mountPath: Invalid value: \"/m\": must not already exist as a path in volumeDevices",
            "volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or \
             Ephemeral for block mode",
            "volumeDevices[1].name: Not found: \"x\"",
            "volumeDevices[1].devicePath: Invalid value: \"../b\": can not contain backsteps ('..')",
            "volumeDevices[2].name: Invalid value: \"w\": must not already exist in volumeMounts",
            "volumeDevices[2].devicePath: Invalid value: \"/m\": must not already exist as a path in volumeMounts",
            "volumeDevices[3].name: Invalid value: \"w\": must be unique",
            "volumeDevices[3].name: Invalid value: \"w\": must not already exist in volumeMounts",
            "volumeDevices[3].devicePath: Invalid value: \"/dev/a\": must be unique",
            "volumeDevices[4].name: Required value",
            "volumeDevices[4].name: Not found: \"\"",
            "volumeDevices[4].devicePath: Required value",
        ],
    );
}

#[test]
fn resources() {
    check_container(
        "resources: {limits: {cpu: 1, example.com/gpu: 1}, requests: {cpu: 500m}}",
        &[],
    );
    check_container(
        "resources: {limits: {cpu: 1, pods: 1, x: 1, a.kubernetes.io/b: 1, example.com/gpu: 500m}, requests: {cpu: 2, \
         memory: -1, example.com/gpu: 1, example.com/b: 1}}",
        &[
            "resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            "resources.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            "resources.limits[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "resources.limits[x]: Invalid value: \"x\": must be a standard resource for containers",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 500m",
            "resources.limits: Required value: Limit must be set for non overcommitable resources",
            "resources.requests[memory]: Invalid value: -1: must be greater than or equal to 0",
            // What defaulting made of the limits.
            "resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            "resources.requests[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "resources.requests[x]: Invalid value: \"x\": must be a standard resource for containers",
        ],
    );
    check_container(
        "resources: {limits: {hugepages-2Mi: 3Mi}}",
        &[
            "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of \
             hugepages-2Mi",
            "resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of \
             hugepages-2Mi",
            "resources: Forbidden: HugePages require cpu or memory",
        ],
    );
}

#[test]
fn resize_policies() {
    check_container(
        "resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: cpu, restartPolicy: X}, \
         {resourceName: disk}]",
        &[
            "resizePolicy[1]: Duplicate value: \"cpu\"",
            "resizePolicy: Unsupported value: \"X\": supported values: \"NotRequired\", \"RestartContainer\"",
            "resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
            "resizePolicy: Required value",
        ],
    );
    let never = "resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]";
    let case = Case::new(never).object(&pod(never, "restartPolicy: Never"));
    let error = "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when \
                 pod `restartPolicy` is 'Never'";
    check(&Pods, case.errors(&[error]));
}

#[test]
fn probes() {
    check_container(
        "livenessProbe: {exec: {command: [a]}, successThreshold: 2, terminationGracePeriodSeconds: 0}, readinessProbe: \
         {tcpSocket: {port: x-}, initialDelaySeconds: -1, terminationGracePeriodSeconds: 5}, startupProbe: {}",
        &[
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            "readinessProbe.tcpSocket.port: Invalid value: \"x-\": must not begin or end with a hyphen",
            "readinessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            "startupProbe: Required value: must specify a handler type",
        ],
    );
    check_container(
        "livenessProbe: {exec: {}, httpGet: {port: 80}}, readinessProbe: {httpGet: {port: 0, scheme: X, httpHeaders: \
         [{name: 'a b'}]}}, startupProbe: {grpc: {port: 0}}",
        &[
            "livenessProbe.exec.command: Required value",
            "livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
            "readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "readinessProbe.httpGet.scheme: Unsupported value: \"X\": supported values: \"HTTP\", \"HTTPS\"",
            "readinessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of \
             alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            "startupProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
}

#[test]
fn hooks() {
    check_container(
        "lifecycle: {preStop: {sleep: {seconds: 5}}, postStart: {exec: {command: [a]}}}",
        &[],
    );
    check_container(
        "lifecycle: {preStop: {sleep: {seconds: 31}}, postStart: {}}",
        &[
            "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
             terminationGracePeriodSeconds (30)",
            "lifecycle.postStart: Required value: must specify a handler type",
        ],
    );
}

#[test]
fn init_containers() {
    check_spec(
        "initContainers: [{name: b, image: i}, {name: c, image: i, restartPolicy: Always, livenessProbe: \
                {exec: {command: [a]}}}]",
        &[],
    );
    let forbidden = "Forbidden: may not be set for init containers without restartPolicy=Always";
    let lifecycle = format!("initContainers[0].lifecycle: {forbidden}");
    let probe = format!("initContainers[0].livenessProbe: {forbidden}");
    check_spec(
        "initContainers: [{name: a, image: i, lifecycle: {}, livenessProbe: {exec: {command: [a]}}}, {name: b, image: i, \
         restartPolicy: Never}]",
        &[
            "initContainers[0].name: Duplicate value: \"a\"",
            lifecycle.as_str(),
            probe.as_str(),
        ],
    );
    let restarts = "resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}]";
    check_spec(
        &format!(
            "initContainers: [{{name: b, image: i, restartPolicy: Always, {restarts}}}, {{name: c, image: i, {restarts}}}]"
        ),
        &[
            "initContainers[1].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set to \
             'RestartContainer' for non-sidecar initContainers",
        ],
    );
}
