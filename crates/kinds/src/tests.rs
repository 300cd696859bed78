//! The rows as a whole: complete, and as upstream lays them out.

use std::collections::BTreeSet;

use api::normalize::{UnknownFields, normalize};
use api::schema::SchemaRef;
use api::{GroupVersionKind, Value};
use serde_json::json;

use crate::row::{Propagation, StorageKind, WriteContext};

fn all() -> Vec<std::sync::Arc<StorageKind>> {
    crate::rows()
}

#[test]
fn keys_follow_upstreams_etcd_layout() {
    let special = [
        ("nodes", "/registry/minions"),
        ("services", "/registry/services/specs"),
        ("endpoints", "/registry/services/endpoints"),
        ("replicationcontrollers", "/registry/controllers"),
        ("ingresses", "/registry/ingress"),
        ("apiservices", "/registry/apiregistration.k8s.io/apiservices"),
        (
            "customresourcedefinitions",
            "/registry/apiextensions.k8s.io/customresourcedefinitions",
        ),
    ];
    let mut seen = BTreeSet::new();
    for row in all() {
        let expect = special.iter().find(|(plural, _)| *plural == row.plural);
        let expect = expect.map_or_else(|| format!("/registry/{}", row.plural), |(_, key)| key.to_string());
        assert_eq!(row.key_prefix, expect);
        assert!(seen.insert(row.key_prefix.clone()), "{} is there twice", row.key_prefix);
    }
}

#[test]
fn columns_and_cells_agree() {
    let object = serde_json::json!({"metadata": {"name": "x"}});
    for row in all() {
        for served in &row.served {
            let columns = served
                .columns
                .as_ref()
                .expect("every built-in kind prints its own columns");
            let cells = (columns.cells)(&object, &crate::row::PrintContext { now_seconds: 0 });
            assert_eq!(columns.definitions.len(), cells.len(), "{}", row.kind);
        }
    }
}

#[test]
fn only_jobs_and_replication_controllers_orphan() {
    let orphaning: Vec<String> = all()
        .iter()
        .filter(|row| row.delete.default_propagation == Propagation::Orphan)
        .map(|row| row.plural.to_string())
        .collect();
    assert_eq!(orphaning, ["replicationcontrollers", "jobs"]);
}

#[test]
fn the_table_names_every_kind() {
    let table = crate::table_of_kinds();
    for row in all() {
        assert!(table.contains(&format!("| {} |", row.kind)), "{}", row.kind);
    }
}

/// Defaults of every kind name fields that exist, change nothing the second time, and agree with the normal form.
#[test]
fn defaults_are_in_normal_form() {
    for row in all() {
        let mut spec = json!({"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}, "ports": [{"port": 80}],
            "parameters": {"kind": "a", "name": "b"}, "behavior": {}, "limited": {"limitResponse": {"queuing": {}}},
            "devices": {"requests": [{"name": "a", "exactly": {"deviceClassName": "c"}}]},
            "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}}});
        if row.kind != "ResourceClaim" {
            spec["devices"] = Value::Null;
        }
        let mut object =
            json!({"apiVersion": api_version(&row), "kind": row.kind, "metadata": {"name": "x"}, "spec": spec});
        // The generous object above has fields that this kind has not; from here on there must be none.
        normal(&row, &mut object, UnknownFields::Ignore);
        row.strategy.default(&mut object);
        let defaulted = object.clone();
        normal(&row, &mut object, UnknownFields::Report);
        assert_eq!(defaulted, object, "{}: defaults keep the normal form", row.kind);
        let once = object.clone();
        row.strategy.default(&mut object);
        normal(&row, &mut object, UnknownFields::Report);
        assert_eq!(object, once, "{}", row.kind);
    }
}

/// The least that upstream accepts of each deep kind, in normal form with defaults.
pub fn least(row: &StorageKind) -> Value {
    let template = "{metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: i}]}}";
    let request = format!(
        "spec: {{request: {}, signerName: example.com/s, usages: [client auth]}}",
        crate::certificates::tests::REQUEST
    );
    let workload = format!("spec: {{selector: {{matchLabels: {{a: b}}}}, template: {template}}}");
    let webhook =
        "webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://h'}}]";
    let rule = "{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}";
    let policy =
        format!("spec: {{validations: [{{expression: 'true'}}], matchConstraints: {{resourceRules: [{rule}]}}}}");
    let examples = [
        ("Pod", "spec: {containers: [{name: a, image: i}]}"),
        ("Deployment", &workload),
        ("ReplicaSet", &workload),
        ("DaemonSet", &workload),
        ("StatefulSet", &workload),
        ("ControllerRevision", "{revision: 1, data: {spec: {}}}"),
        ("PodTemplate", "template: {spec: {containers: [{name: a, image: i}]}}"),
        (
            "ReplicationController",
            "spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: i}]}}}",
        ),
        (
            "Job",
            "spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}}",
        ),
        (
            "CronJob",
            "spec: {schedule: 0 * * * *, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: i}]}}}}}",
        ),
        (
            "HorizontalPodAutoscaler",
            "spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}, maxReplicas: 3}",
        ),
        (
            "Ingress",
            "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}}",
        ),
        ("IngressClass", "spec: {controller: example.com/c}"),
        (
            "IPAddress",
            "spec: {parentRef: {resource: services, namespace: n, name: s}}",
        ),
        ("ServiceCIDR", "spec: {cidrs: [10.0.0.0/24]}"),
        ("RuntimeClass", "handler: h"),
        ("Service", "spec: {ports: [{port: 80}]}"),
        ("ConfigMap", "{}"),
        ("Secret", "stringData: {a: b}"),
        ("Namespace", "{}"),
        ("Node", "status: {capacity: {cpu: '1'}}"),
        ("ServiceAccount", "secrets: [{name: a}]"),
        ("Event", "involvedObject: {namespace: n}"),
        ("Lease", "spec: {holderIdentity: h}"),
        (
            "EndpointSlice",
            "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]",
        ),
        (
            "Endpoints",
            "subsets: [{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}]}]",
        ),
        ("Role", "rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]"),
        (
            "ClusterRole",
            "aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}",
        ),
        (
            "RoleBinding",
            "roleRef: {kind: Role, name: r}\nsubjects: [{kind: User, name: u}]",
        ),
        ("ClusterRoleBinding", "roleRef: {kind: ClusterRole, name: r}"),
        ("PriorityClass", "value: 5"),
        (
            "LimitRange",
            "spec: {limits: [{type: Container, max: {cpu: '1'}, min: {cpu: 100m}}]}",
        ),
        ("CertificateSigningRequest", &request),
        (
            "PersistentVolume",
            "spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /a}}",
        ),
        (
            "PersistentVolumeClaim",
            "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}",
        ),
        ("StorageClass", "provisioner: example.com/p"),
        ("VolumeAttributesClass", "driverName: d\nparameters: {a: b}"),
        (
            "VolumeAttachment",
            "spec: {attacher: a, nodeName: n, source: {persistentVolumeName: v}}",
        ),
        ("MutatingWebhookConfiguration", webhook),
        ("ValidatingWebhookConfiguration", webhook),
        ("ValidatingAdmissionPolicy", &policy),
        (
            "MutatingAdmissionPolicy",
            "spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules: [{operations: ['*'], apiGroups: ['*'], apiVersions: \
             ['*'], resources: ['*']}]}, mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}}]}",
        ),
        ("MutatingAdmissionPolicyBinding", "spec: {policyName: p}"),
        (
            "ValidatingAdmissionPolicyBinding",
            "spec: {policyName: p, validationActions: [Deny]}",
        ),
        (
            "CustomResourceDefinition",
            "spec: {group: n.example, scope: Cluster, names: {plural: x, kind: X}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}",
        ),
        (
            "APIService",
            "spec: {group: '', version: v1, groupPriorityMinimum: 1, versionPriority: 1}",
        ),
        ("DeviceClass", "spec: {selectors: [{cel: {expression: 'true'}}]}"),
        (
            "ResourceClaim",
            "spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}",
        ),
        (
            "ResourceClaimTemplate",
            "spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: c}}]}}}",
        ),
        (
            "ResourceSlice",
            "spec: {driver: d, pool: {name: p, resourceSliceCount: 1}, nodeName: n}",
        ),
        ("ResourceQuota", "spec: {hard: {pods: '1'}}"),
        ("PodDisruptionBudget", "spec: {minAvailable: 1, selector: {}}"),
        ("NetworkPolicy", "spec: {podSelector: {}}"),
        (
            "FlowSchema",
            "spec: {matchingPrecedence: 500, priorityLevelConfiguration: {name: l}}",
        ),
        (
            "PriorityLevelConfiguration",
            "spec: {type: Limited, limited: {limitResponse: {type: Reject}}}",
        ),
        ("CSIDriver", "spec: {tokenRequests: [{audience: a}]}"),
        ("CSINode", "spec: {drivers: [{name: d, nodeID: n}]}"),
        ("CSIStorageCapacity", "storageClassName: s\ncapacity: 1Gi"),
    ];
    let example = examples.iter().find(|(kind, _)| *kind == row.kind);
    let (_, example) = example.unwrap_or_else(|| panic!("{} has no example", row.kind));
    let mut object = crate::testing::yaml(example);
    object["apiVersion"] = api_version(row).into();
    object["kind"] = row.kind.as_ref().into();
    object["metadata"] = json!({"name": "x", "namespace": "n", "uid": "u"});
    if row.kind == "APIService" {
        // Its name says its version and group.
        object["metadata"]["name"] = "v1.".into();
    }
    if row.kind == "CustomResourceDefinition" {
        // Its name says its plural and group.
        object["metadata"]["name"] = "x.n.example".into();
    }
    normal(row, &mut object, UnknownFields::Report);
    row.strategy.default(&mut object);
    normal(row, &mut object, UnknownFields::Report);
    object
}

/// What a server does with a new object: the least that upstream accepts of each deep kind is valid, and stays as it
/// is when it comes back in an update.
#[test]
fn the_least_of_every_deep_kind_is_valid() {
    for row in crate::rows().into_iter().filter(|row| row.strategy.is_deep()) {
        let mut object = least(&row);
        let context = WriteContext {
            now: crate::testing::NOW,
            subresource: "",
            user: crate::row::Writer::named("u"),
            version: &row.hub,
        };
        row.strategy.prepare_for_create(&mut object, &context);
        row.strategy.default(&mut object);
        normal(&row, &mut object, UnknownFields::Report);
        let errors = row.strategy.validate_create(&object, &context);
        assert!(errors.is_empty(), "{}: {errors:?}", row.kind);
        let stored = object.clone();
        row.strategy.default(&mut object);
        row.strategy.prepare_for_update(&mut object, &stored, &context);
        normal(&row, &mut object, UnknownFields::Report);
        assert_eq!(object, stored, "{}: an update that changes nothing", row.kind);
        assert!(!row.strategy.generation_changed(&object, &stored), "{}", row.kind);
        let errors = row.strategy.validate_update(&object, &stored, &context);
        assert!(errors.is_empty(), "{}: {errors:?}", row.kind);
    }
}

fn api_version(row: &StorageKind) -> String {
    match &*row.group {
        "" => row.hub.to_string(),
        group => format!("{group}/{}", row.hub),
    }
}

fn normal(row: &StorageKind, object: &mut Value, unknown: UnknownFields) {
    let gvk = GroupVersionKind::new(&row.group, &row.hub, &row.kind);
    let schema = SchemaRef::builtin(&gvk).unwrap_or_else(|| panic!("{gvk} has no schema"));
    let found = normalize(object, &schema, unknown).unwrap_or_else(|error| panic!("{gvk}: {error:?}\n{object:#}"));
    assert!(found.is_empty(), "{gvk}: {found:?}");
}

/// Nothing that upstream serves in a stable version and stores is missing, and nothing is there besides; verbs and
/// subresources are upstream's.
#[test]
fn rows_are_what_upstream_serves() {
    let proxied = ["create", "delete", "get", "patch", "update"].map(String::from);
    let mut expected = BTreeSet::new();
    for fact in api::schema::resources() {
        let stable = !fact.group_version.version.contains("alpha") && !fact.group_version.version.contains("beta");
        if !stable || !fact.verbs.iter().any(|verb| verb == "watch") {
            continue;
        }
        expected.insert(line(
            &fact.group_version.to_string(),
            fact.plural,
            &fact.kind,
            fact.namespaced,
            &fact.verbs,
        ));
        for (name, subresource) in &fact.subresources {
            // Discovery words `connect` as the methods that connect.
            let verbs = match (subresource.verbs[0].as_str(), name.as_str()) {
                ("connect", "proxy") => proxied.to_vec(),
                ("connect", _) => vec!["create".to_string(), "get".to_string()],
                _ => subresource.verbs.clone(),
            };
            let path = format!("{}/{name}", fact.plural);
            // OpenAPI names the object there, discovery the options: `PodExecOptions`.
            let kind = match subresource.verbs[0].as_str() {
                "connect" => format!("{}{}Options", fact.kind, connected(name)),
                _ => subresource.gvk.kind.to_string(),
            };
            expected.insert(line(
                &fact.group_version.to_string(),
                &path,
                &kind,
                fact.namespaced,
                &verbs,
            ));
        }
    }
    let mut found = BTreeSet::new();
    for row in all() {
        for served in &row.served {
            let version = match &*served.group {
                "" => served.version.to_string(),
                group => format!("{group}/{}", served.version),
            };
            found.insert(line(&version, &row.plural, &row.kind, row.namespaced, served.verbs));
            for subresource in &served.subresources {
                let path = format!("{}/{}", row.plural, subresource.name);
                let kind = subresource.kind.map_or(&*row.kind, |(_, _, kind)| kind);
                found.insert(line(&version, &path, kind, row.namespaced, subresource.verbs));
            }
        }
    }
    let missing: Vec<_> = expected.difference(&found).collect();
    let besides: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && besides.is_empty(),
        "missing {missing:#?}\nbesides {besides:#?}"
    );
}

fn line(version: &str, path: &str, kind: &str, namespaced: bool, verbs: &[impl AsRef<str> + Ord]) -> String {
    let verbs: BTreeSet<&str> = verbs.iter().map(AsRef::as_ref).collect();
    format!("{version} {path} {kind} namespaced={namespaced} {verbs:?}")
}

/// The subresource as its options are called: `PortForward`.
fn connected(name: &str) -> String {
    match name {
        "portforward" => "PortForward".into(),
        name => name[..1].to_uppercase() + &name[1..],
    }
}

/// Upstream's table of field selectors: `AddFieldLabelConversionFunc` of each group in v1.36, and its own words for what is
/// not in it. Kinds that it does not name take the names of objects only.
#[test]
fn fields_of_selectors_are_upstreams() {
    let event = "kind namespace name uid apiVersion resourceVersion fieldPath";
    let event = |object: &str| {
        let fields = event.split(' ').map(|field| format!("{object}.{field}"));
        fields.collect::<Vec<_>>().join(" ")
    };
    let (core_event, new_event) = (event("involvedObject"), event("regarding"));
    let core_event = format!("{core_event} reason reportingComponent source type");
    let new_event = format!("{new_event} reason reportingController type");
    let pod = "spec.nodeName spec.host spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork \
        status.phase status.podIP status.podIPs status.nominatedNodeName";
    let table = [
        ("", "Pod", pod),
        ("", "Node", "spec.unschedulable"),
        ("", "ReplicationController", "status.replicas"),
        ("", "Event", &core_event),
        ("events.k8s.io", "Event", &new_event),
        ("", "Namespace", "status.phase"),
        ("", "Secret", "type"),
        ("", "Service", "spec.clusterIP spec.type"),
        ("batch", "Job", "status.successful"),
        ("certificates.k8s.io", "CertificateSigningRequest", "spec.signerName"),
        ("resource.k8s.io", "ResourceSlice", "spec.nodeName spec.driver"),
    ];
    for row in crate::rows() {
        for version in &row.served {
            let own = table
                .iter()
                .find(|(group, kind, _)| *group == version.group && *kind == row.kind);
            let mut expect: Vec<&str> = own.map_or("", |(_, _, fields)| fields).split_whitespace().collect();
            let mut served: Vec<&str> = version.selectable_fields.iter().map(|(name, _)| *name).collect();
            expect.sort_unstable();
            served.sort_unstable();
            assert_eq!(served, expect, "{} {}", version.group, row.kind);
            assert_eq!(row.check_field(version, "metadata.name"), Ok(()));
            let in_namespace = row.check_field(version, "metadata.namespace");
            assert_eq!(in_namespace.is_ok(), row.namespaced || own.is_none(), "{}", row.kind);
            let refused = row.check_field(version, "spec.no").unwrap_err();
            let expect = match (own, &*row.kind) {
                (None, _) => {
                    "\"spec.no\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                }
                (_, "Job") => "field label \"spec.no\" not supported for Job",
                (_, "ResourceSlice") => "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.no",
                _ => "field label not supported: spec.no",
            };
            assert_eq!(refused, expect, "{}", row.kind);
        }
    }
}
