//! What is filled in.

use serde_json::json;

use super::{Pods, check, pod};
use crate::testing::Case;

#[test]
fn of_a_pod() {
    let case = Case::new("the least of a pod")
        .object(&pod("", ""))
        .field("spec.dnsPolicy", "ClusterFirst")
        .field("spec.restartPolicy", "Always")
        .field("spec.terminationGracePeriodSeconds", 30)
        .field("spec.schedulerName", "default-scheduler")
        .field("spec.securityContext", json!({}))
        .field("spec.enableServiceLinks", true)
        .field("spec.serviceAccountName", ())
        .field("spec.containers.0.imagePullPolicy", "Always")
        .field("spec.containers.0.terminationMessagePath", "/dev/termination-log")
        .field("spec.containers.0.terminationMessagePolicy", "File")
        .field("status.phase", "Pending")
        .field("status.qosClass", "BestEffort");
    check(&Pods, case);
}

#[test]
fn one_fact_in_two_fields() {
    for case in [
        Case::new("account")
            .object(&pod("", "serviceAccount: s"))
            .field("spec.serviceAccountName", "s"),
        Case::new("account, the new way")
            .object(&pod("", "serviceAccountName: s, serviceAccount: t"))
            .field("spec.serviceAccount", "s"),
    ] {
        check(&Pods, case);
    }
    let old = pod("", "");
    for (status, field, expect) in [
        ("{podIP: 10.0.0.1}", "status.podIPs", json!([{"ip": "10.0.0.1"}])),
        ("{podIPs: [{ip: 10.0.0.1}]}", "status.podIP", json!("10.0.0.1")),
        (
            "{podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.1}]}",
            "status.podIPs",
            json!([{"ip": "10.0.0.2"}]),
        ),
    ] {
        let new = format!("{{metadata: {{name: p}}, status: {status}}}");
        let case = Case::new(status).subresource("status").old(&old).object(&new);
        check(&Pods, case.field(field, expect));
    }
}

#[test]
fn pull_policies_follow_the_tag() {
    for (image, expect) in [
        ("i", "Always"),
        ("i:latest", "Always"),
        ("i:1", "IfNotPresent"),
        ("r.example:5000/i", "Always"),
        ("r.example:5000/i:1", "IfNotPresent"),
        ("i@sha256:0123", "IfNotPresent"),
        ("i:latest@sha256:0123", "Always"),
        ("Upper", "IfNotPresent"),
    ] {
        let object = format!("{{metadata: {{name: p}}, spec: {{containers: [{{name: a, image: '{image}'}}]}}}}");
        let case = Case::new(image).object(&object);
        check(&Pods, case.field("spec.containers.0.imagePullPolicy", expect));
    }
}

#[test]
fn of_containers() {
    let container = "ports: [{containerPort: 80}], env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], \
                     resources: {limits: {cpu: 1, memory: 1500m, ephemeral-storage: 100u}}, livenessProbe: {httpGet: \
                     {port: 80}}, readinessProbe: {grpc: {port: 80}, periodSeconds: 3}, startupProbe: {exec: {command: \
                     [a]}}, lifecycle: {preStop: {httpGet: {port: 80}}, postStart: {httpGet: {port: 80, path: /x}}}";
    let limits = json!({"cpu": 1, "memory": "1500m", "ephemeral-storage": "1m"});
    let probe = |handler: &str, action: serde_json::Value, period: i64| {
        json!({handler: action, "timeoutSeconds": 1, "periodSeconds": period, "successThreshold": 1,
            "failureThreshold": 3})
    };
    let get = |path: &str| json!({"path": path, "port": 80, "scheme": "HTTP"});
    let case = Case::new("a container")
        .object(&pod(container, ""))
        .field("spec.containers.0.ports.0.protocol", "TCP")
        .field("spec.containers.0.env.0.valueFrom.fieldRef.apiVersion", "v1")
        .field("spec.containers.0.resources.limits", limits)
        .field("spec.containers.0.resources.requests.cpu", 1)
        .field("spec.containers.0.livenessProbe", probe("httpGet", get("/"), 10))
        .field(
            "spec.containers.0.readinessProbe",
            probe("grpc", json!({"port": 80, "service": ""}), 3),
        )
        .field(
            "spec.containers.0.startupProbe",
            probe("exec", json!({"command": ["a"]}), 10),
        )
        .field("spec.containers.0.lifecycle.preStop.httpGet", get("/"))
        .field("spec.containers.0.lifecycle.postStart.httpGet", get("/x"))
        .field("status.qosClass", "Guaranteed");
    check(&Pods, case);
}

#[test]
fn ports_on_the_hosts_network() {
    let case = Case::new("host network")
        .object(&pod("ports: [{containerPort: 80}]", "hostNetwork: true"))
        .field("spec.containers.0.ports.0.hostPort", 80);
    check(&Pods, case);
}

#[test]
fn of_volumes() {
    for (source, field, expect) in [
        ("", "emptyDir", json!({})),
        ("secret: {secretName: a}", "secret.defaultMode", json!(420)),
        ("configMap: {name: a}", "configMap.defaultMode", json!(420)),
        ("downwardAPI: {}", "downwardAPI.defaultMode", json!(420)),
        (
            "downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}",
            "downwardAPI.items.0.fieldRef.apiVersion",
            json!("v1"),
        ),
        ("projected: {}", "projected.defaultMode", json!(420)),
        (
            "projected: {sources: [{serviceAccountToken: {path: t}}]}",
            "projected.sources.0.serviceAccountToken.expirationSeconds",
            json!(3600),
        ),
        (
            "projected: {sources: [{downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}}]}",
            "projected.sources.0.downwardAPI.items.0.fieldRef.apiVersion",
            json!("v1"),
        ),
        ("hostPath: {path: /a}", "hostPath.type", json!("")),
        ("image: {reference: 'a:1'}", "image.pullPolicy", json!("IfNotPresent")),
        (
            "iscsi: {targetPortal: a, iqn: 'iqn.2026-01.a:b'}",
            "iscsi.iscsiInterface",
            json!("default"),
        ),
        (
            "rbd: {monitors: [a], image: b}",
            "rbd.keyring",
            json!("/etc/ceph/keyring"),
        ),
        (
            "azureDisk: {diskName: a, diskURI: 'https://b'}",
            "azureDisk.cachingMode",
            json!("ReadWrite"),
        ),
        (
            "scaleIO: {gateway: a, system: b, volumeName: c}",
            "scaleIO.fsType",
            json!("xfs"),
        ),
        (
            "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: \
             1Gi}}}}}",
            "ephemeral.volumeClaimTemplate.spec.volumeMode",
            json!("Filesystem"),
        ),
    ] {
        let comma = if source.is_empty() { "" } else { ", " };
        let spec = format!("serviceAccountName: s, volumes: [{{name: v{comma}{source}}}]");
        let path = format!("spec.volumes.0.{field}");
        check(&Pods, Case::new(source).object(&pod("", &spec)).field(&path, expect));
    }
}

#[test]
fn quality_of_service() {
    for (resources, expect) in [
        ("{}", "BestEffort"),
        ("{limits: {cpu: 1, memory: 1Gi}}", "Guaranteed"),
        ("{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}", "Burstable"),
        ("{requests: {memory: 1Gi}}", "Burstable"),
        ("{requests: {cpu: 0}}", "BestEffort"),
    ] {
        let object = pod(&format!("resources: {resources}"), "");
        check(
            &Pods,
            Case::new(resources).object(&object).field("status.qosClass", expect),
        );
    }
}

#[test]
fn label_keys_are_merged_once() {
    let object = "{metadata: {name: p, labels: {app: web}}, spec: {containers: [{name: a, image: i}], \
                  topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, \
                  matchLabelKeys: [app, none], labelSelector: {}}], affinity: {podAntiAffinity: \
                  {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, mismatchLabelKeys: [app], \
                  labelSelector: {}}], preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: \
                  {topologyKey: h, matchLabelKeys: [app], labelSelector: {}}}]}}}}";
    let requirement = |operator: &str| json!([{"key": "app", "operator": operator, "values": ["web"]}]);
    let affinity = "spec.affinity.podAntiAffinity";
    let required =
        format!("{affinity}.requiredDuringSchedulingIgnoredDuringExecution.0.labelSelector.matchExpressions");
    let preferred = format!(
        "{affinity}.preferredDuringSchedulingIgnoredDuringExecution.0.podAffinityTerm.labelSelector.matchExpressions"
    );
    let case = Case::new("keys")
        .object(object)
        .field(
            "spec.topologySpreadConstraints.0.labelSelector.matchExpressions",
            requirement("In"),
        )
        .field(&required, requirement("NotIn"))
        .field(&preferred, requirement("In"));
    check(&Pods, case);
}

#[test]
fn a_gated_pod_says_so() {
    let case = Case::new("gated")
        .object(&pod("", "schedulingGates: [{name: a}]"))
        .field("status.conditions.0.reason", "SchedulingGated")
        .field("status.conditions.0.lastTransitionTime", crate::testing::NOW);
    check(&Pods, case);
}

#[test]
fn profiles_come_from_annotations() {
    let key = "container.apparmor.security.beta.kubernetes.io/a";
    for (annotation, context, expect) in [
        (
            "localhost/x",
            "{}",
            json!({"type": "Localhost", "localhostProfile": "x"}),
        ),
        (
            "runtime/default",
            "{appArmorProfile: {type: RuntimeDefault}}",
            json!(null),
        ),
        ("unconfined", "{}", json!({"type": "Unconfined"})),
    ] {
        let object = format!(
            "{{metadata: {{name: p, annotations: {{{key}: {annotation}}}}}, spec: {{securityContext: {context}, containers: \
             [{{name: a, image: i}}]}}}}"
        );
        let case = Case::new(annotation).object(&object);
        check(
            &Pods,
            case.field("spec.containers.0.securityContext.appArmorProfile", expect),
        );
    }
}
