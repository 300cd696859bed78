//! Admission policies as an administrator with the real `kubectl` has them, and who is told of what they do: the audit log,
//! the metrics, and a server that starts anew. What policies do to requests is in the transcript `policies`.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, fail, succeed};

const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, verbs: [create], resources: [{group: '', resources: [configmaps]}]}
- level: None
";

const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: short}
spec:
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  matchConditions:
  - {name: not-for-all, expression: object.metadata.name != 'passed-over'}
  validations:
  - {expression: object.metadata.name.size() < 6, message: too long a name}
  auditAnnotations:
  - {key: length, valueExpression: "'of ' + string(object.metadata.name.size())"}
  - {key: never, valueExpression: "null"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: told}
spec: {policyName: short, validationActions: [Audit]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: marked}
spec:
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{data: {'mark': 'yes'}}"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: marked}
spec: {policyName: marked}
"#;

/// The annotations of events about a ConfigMap, without those of the authorizer.
fn annotations(log: &Path, name: &str) -> Value {
    let text = std::fs::read_to_string(log).unwrap();
    let mut events = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line));
    let event = events.find(|event| event["objectRef"]["name"] == name);
    let mut annotations = event.unwrap_or_else(|| panic!("nothing of {name} in {text}"))["annotations"].take();
    let told = annotations.as_object_mut().unwrap();
    told.retain(|key, _| !key.starts_with("authorization.k8s.io/"));
    annotations
}

#[test]
fn policies_are_told_of_and_hold_from_the_start() {
    let (cluster, place) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let log = place.path().join("audit.log");
    let audit = format!("--audit-policy-file={}", write("audit.yaml", AUDIT));
    let path = format!("--audit-log-path={}", log.display());
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node", "--api-port", "0", &audit, &path]));
    cluster.kubectl_ok(&["apply", "-f", &write("policies.yaml", POLICIES)]);
    cluster.kubectl_ok(&["create", "configmap", "too-long"]);
    cluster.kubectl_ok(&["create", "configmap", "passed-over"]);
    let deny = r#"{"spec":{"validationActions":["Deny"]}}"#;
    let binding = "validatingadmissionpolicybinding/told";
    cluster.kubectl_ok(&["patch", binding, "--type=merge", "-p", deny]);
    let refused = "configmaps \"also-long\" is forbidden: ValidatingAdmissionPolicy 'short' with binding 'told' denied request: \
                   too long a name";
    let error = fail(&cluster.kubectl(&["create", "configmap", "also-long"]));
    assert!(error.contains(refused), "{error}");
    let metrics = cluster.kubectl_ok(&["get", "--raw", "/metrics"]);
    for line in [
        r#"apiserver_validating_admission_policy_check_total{policy="short",policy_binding="told",error_type="invalid_error",enforcement_action="audit"} 1"#,
        r#"apiserver_validating_admission_policy_check_total{policy="short",policy_binding="told",error_type="invalid_error",enforcement_action="deny"} 1"#,
        r#"apiserver_mutating_admission_policy_check_total{policy="marked",policy_binding="marked",error_type="no_error"} 3"#,
        r#"apiserver_admission_match_condition_evaluation_seconds_count{name="short",kind="policy",type="validate",operation="CREATE"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    succeed(&cluster.trireme(&["down"]));
    let failure = r#"[{"message":"too long a name","policy":"short","binding":"told","expressionIndex":0,"validationActions":["Audit"]}]"#;
    assert_eq!(
        annotations(&log, "too-long"),
        json!({"short/length": "of 8", "validation.policy.admission.k8s.io/validation_failure": failure})
    );
    assert_eq!(annotations(&log, "passed-over"), json!({}));
    assert_eq!(annotations(&log, "also-long"), json!({"short/length": "of 9"}));

    // What is first asked of a server that starts anew is judged already.
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node"]));
    let error = fail(&cluster.kubectl(&["create", "configmap", "also-long"]));
    assert!(error.contains(refused), "{error}");
    cluster.kubectl_ok(&["create", "configmap", "brief"]);
    let marked = cluster.kubectl_ok(&["get", "configmap", "brief", "-o", "jsonpath={.data}"]);
    assert_eq!(marked, r#"{"mark":"yes"}"#);
}
