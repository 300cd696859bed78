//! What upstream makes of sparse objects, kind by kind: little in, everything that it fills in out.
//!
//! Source: `pkg/apis/*/v1/defaults.go` and `zz_generated.defaults.go` of v1.36.

use crate::testing::yaml;

/// (kind, what is given, what is filled in) without metadata; the kinds of which nothing is filled in are not here.
const TABLE: &[(&str, &str, &str)] = &[
    (
        "Pod",
        "spec: {containers: [{name: a, image: i, ports: [{containerPort: 1}], resources: {limits: {cpu: 100u}}, livenessProbe: \
         {httpGet: {port: 1}}, readinessProbe: {grpc: {port: 1}}, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \
         metadata.name}}}]}], volumes: [{name: v}]}",
        "{spec: {containers: [{name: a, image: i, imagePullPolicy: Always, terminationMessagePath: /dev/termination-log, \
         terminationMessagePolicy: File, ports: [{containerPort: 1, protocol: TCP}], resources: {limits: {cpu: 1m}, requests: \
         {cpu: 1m}}, livenessProbe: {httpGet: {port: 1, path: /, scheme: HTTP}, timeoutSeconds: 1, periodSeconds: 10, \
         successThreshold: 1, failureThreshold: 3}, readinessProbe: {grpc: {port: 1, service: ''}, timeoutSeconds: 1, \
         periodSeconds: 10, successThreshold: 1, failureThreshold: 3}, env: [{name: A, valueFrom: {fieldRef: {fieldPath: \
         metadata.name, apiVersion: v1}}}]}], volumes: [{name: v, emptyDir: {}}], dnsPolicy: ClusterFirst, restartPolicy: \
         Always, terminationGracePeriodSeconds: 30, schedulerName: default-scheduler, securityContext: {}, \
         enableServiceLinks: true}}",
    ),
    (
        "Pod",
        "spec: {hostNetwork: true, serviceAccountName: s, containers: [{name: a, image: 'i:1', ports: [{containerPort: 1}], \
         lifecycle: {preStop: {httpGet: {port: 1}}}}], volumes: [{name: a, secret: {}}, {name: b, projected: {sources: \
         [{serviceAccountToken: {path: t}}]}}, {name: c, hostPath: {path: /}}, {name: d, image: {reference: 'i@sha256:1'}}]}",
        "{spec: {hostNetwork: true, serviceAccountName: s, serviceAccount: s, containers: [{name: a, image: 'i:1', \
         imagePullPolicy: IfNotPresent, terminationMessagePath: /dev/termination-log, terminationMessagePolicy: File, ports: \
         [{containerPort: 1, hostPort: 1, protocol: TCP}], lifecycle: {preStop: {httpGet: {port: 1, path: /, scheme: HTTP}}}}], \
         volumes: [{name: a, secret: {defaultMode: 420}}, {name: b, projected: {defaultMode: 420, sources: \
         [{serviceAccountToken: {path: t, expirationSeconds: 3600}}]}}, {name: c, hostPath: {path: /, type: ''}}, {name: d, \
         image: {reference: 'i@sha256:1', pullPolicy: IfNotPresent}}], dnsPolicy: ClusterFirst, restartPolicy: Always, \
         terminationGracePeriodSeconds: 30, schedulerName: default-scheduler, securityContext: {}, enableServiceLinks: true}}",
    ),
    (
        "PodTemplate",
        "template: {spec: {containers: [{name: a, image: 'i:1', resources: {limits: {cpu: '1'}}}]}}",
        "{template: {spec: {containers: [{name: a, image: 'i:1', imagePullPolicy: IfNotPresent, terminationMessagePath: \
         /dev/termination-log, terminationMessagePolicy: File, resources: {limits: {cpu: '1'}}}], dnsPolicy: ClusterFirst, \
         restartPolicy: Always, terminationGracePeriodSeconds: 30, schedulerName: default-scheduler, securityContext: {}}}}",
    ),
    ("ReplicationController", "spec: {}", "spec: {replicas: 1}"),
    ("ReplicaSet", "spec: {}", "spec: {replicas: 1}"),
    (
        "Deployment",
        "spec: {strategy: {rollingUpdate: {maxSurge: 1}}}",
        "spec: {replicas: 1, strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 25%}}, \
         revisionHistoryLimit: 10, progressDeadlineSeconds: 600}",
    ),
    (
        "Deployment",
        "spec: {replicas: 0, strategy: {type: Recreate}}",
        "spec: {replicas: 0, strategy: {type: Recreate}, revisionHistoryLimit: 10, progressDeadlineSeconds: 600}",
    ),
    (
        "DaemonSet",
        "spec: {}",
        "spec: {updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}, revisionHistoryLimit: \
         10}",
    ),
    (
        "DaemonSet",
        "spec: {updateStrategy: {type: OnDelete}}",
        "spec: {updateStrategy: {type: OnDelete}, revisionHistoryLimit: 10}",
    ),
    (
        "StatefulSet",
        "spec: {volumeClaimTemplates: [{spec: {resources: {requests: {storage: 100u}}}}]}",
        "spec: {volumeClaimTemplates: [{apiVersion: v1, kind: PersistentVolumeClaim, spec: {volumeMode: Filesystem, resources: \
         {requests: {storage: 1m}}}, status: {phase: Pending}}], podManagementPolicy: OrderedReady, updateStrategy: {type: \
         RollingUpdate, rollingUpdate: {partition: 0}}, persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, \
         whenScaled: Retain}, replicas: 1, revisionHistoryLimit: 10}",
    ),
    (
        "Job",
        "spec: {}",
        "spec: {completions: 1, parallelism: 1, backoffLimit: 6, completionMode: NonIndexed, suspend: false, manualSelector: \
         false, podReplacementPolicy: TerminatingOrFailed}",
    ),
    (
        "Job",
        "spec: {parallelism: 3, backoffLimitPerIndex: 1, podFailurePolicy: {rules: [{onPodConditions: [{type: a}]}]}}",
        "spec: {parallelism: 3, backoffLimitPerIndex: 1, podFailurePolicy: {rules: [{onPodConditions: [{type: a, status: \
         'True'}]}]}, backoffLimit: 2147483647, completionMode: NonIndexed, suspend: false, manualSelector: false, \
         podReplacementPolicy: Failed}",
    ),
    (
        "CronJob",
        "spec: {jobTemplate: {spec: {}}}",
        "spec: {jobTemplate: {spec: {}}, concurrencyPolicy: Allow, suspend: false, successfulJobsHistoryLimit: 3, \
         failedJobsHistoryLimit: 1}",
    ),
    (
        "Service",
        "spec: {ports: [{port: 1}, {port: 2, targetPort: web}]}",
        "spec: {type: ClusterIP, sessionAffinity: None, internalTrafficPolicy: Cluster, ports: [{port: 1, targetPort: 1, \
         protocol: TCP}, {port: 2, targetPort: web, protocol: TCP}]}",
    ),
    (
        "Service",
        "{spec: {type: LoadBalancer, sessionAffinity: ClientIP}, status: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {hostname: \
         a}]}}}",
        "{spec: {type: LoadBalancer, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 10800}}, \
         externalTrafficPolicy: Cluster, internalTrafficPolicy: Cluster, allocateLoadBalancerNodePorts: true}, status: \
         {loadBalancer: {ingress: [{ip: 1.2.3.4, ipMode: VIP}, {hostname: a}]}}}",
    ),
    ("Secret", "{}", "type: Opaque"),
    (
        "Endpoints",
        "subsets: [{ports: [{port: 1}]}]",
        "subsets: [{ports: [{port: 1, protocol: TCP}]}]",
    ),
    (
        "EndpointSlice",
        "ports: [{port: 1}]",
        "ports: [{port: 1, name: '', protocol: TCP}]",
    ),
    ("Namespace", "{}", "status: {phase: Active}"),
    (
        "Node",
        "status: {capacity: {cpu: 100u}}",
        "status: {capacity: {cpu: 1m}, allocatable: {cpu: 1m}}",
    ),
    (
        "LimitRange",
        "spec: {limits: [{type: Container, max: {cpu: 100u}, min: {memory: '1'}}, {type: Pod, max: {cpu: 100u}}]}",
        "spec: {limits: [{type: Container, max: {cpu: 1m}, min: {memory: '1'}, default: {cpu: 1m}, defaultRequest: {cpu: 1m, \
         memory: '1'}}, {type: Pod, max: {cpu: 1m}}]}",
    ),
    (
        "PersistentVolumeClaim",
        "spec: {}",
        "{spec: {volumeMode: Filesystem}, status: {phase: Pending}}",
    ),
    (
        "PersistentVolume",
        "spec: {}",
        "{spec: {volumeMode: Filesystem, persistentVolumeReclaimPolicy: Retain}, status: {phase: Pending}}",
    ),
    (
        "HorizontalPodAutoscaler",
        "spec: {maxReplicas: 2}",
        "spec: {maxReplicas: 2, minReplicas: 1, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, \
         averageUtilization: 80}}}]}",
    ),
    (
        "IngressClass",
        "spec: {parameters: {kind: a, name: b}}",
        "spec: {parameters: {kind: a, name: b, scope: Cluster}}",
    ),
    (
        "RuntimeClass",
        "overhead: {podFixed: {cpu: 100u}}",
        "overhead: {podFixed: {cpu: 1m}}",
    ),
    (
        "PriorityClass",
        "value: 1",
        "{value: 1, preemptionPolicy: PreemptLowerPriority}",
    ),
    (
        "RoleBinding",
        "{roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: ServiceAccount, name: s}]}",
        "{roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}, subjects: [{apiGroup: \
         rbac.authorization.k8s.io, kind: User, name: u}, {kind: ServiceAccount, name: s}]}",
    ),
    (
        "StorageClass",
        "{}",
        "{reclaimPolicy: Delete, volumeBindingMode: Immediate}",
    ),
    (
        "CSIDriver",
        "spec: {}",
        "spec: {attachRequired: true, podInfoOnMount: false, storageCapacity: false, fsGroupPolicy: ReadWriteOnceWithFSType, \
         volumeLifecycleModes: [Persistent], requiresRepublish: false, seLinuxMount: false}",
    ),
];

#[test]
fn sparse_objects_become_full() {
    let rows = crate::rows();
    for (kind, sparse, full) in TABLE {
        let row = rows
            .iter()
            .find(|row| row.kind == *kind)
            .expect("a kind that is served");
        let (mut object, full) = (yaml(sparse), yaml(full));
        row.strategy.default(&mut object);
        // What is empty is not written.
        for field in ["spec", "status"] {
            if object[field] == serde_json::json!({}) || object[field].is_null() {
                object.as_object_mut().expect("an object").remove(field);
            }
        }
        assert_eq!(object, full, "{kind}: {sparse}");
    }
}
