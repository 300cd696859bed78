//! Measures decoding: the schema, and one pod in every encoding. Run with `--release`.
//!
//! With a directory as argument it also writes all OpenAPI documents of the built-in kinds there, for clients to try.

use std::hint::black_box;
use std::time::{Duration, Instant};

use api::codec::{Limits, json, protobuf, yaml};
use api::normalize::{UnknownFields, normalize};
use api::openapi::{self, Source};
use api::schema::{SchemaRef, decode_again};
use api::{GroupVersion, GroupVersionKind, Value};

/// The example measures real time on purpose.
#[allow(clippy::disallowed_methods)]
fn time(what: &str, mut run: impl FnMut()) {
    run();
    let mut runs = 0u32;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        run();
        runs += 1;
    }
    println!(
        "{what:32} {:>9.1} us",
        start.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
    );
}

/// A pod of about 13 kB, with what real ones hold.
fn pod() -> Value {
    let containers: Vec<Value> = (0..6)
        .map(|index| {
            let env: Vec<Value> = (0..14)
                .map(|at| serde_json::json!({"name": format!("VARIABLE_{at}"), "value": format!("value of variable {at}")}))
                .collect();
            serde_json::json!({"name": format!("c{index}"), "image": "registry.example.com/team/app:v1.2.3", "env": env,
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "250m", "memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                "volumeMounts": [{"name": "kube-api-access", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true}})
        })
        .collect();
    let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|ty| serde_json::json!({"type": ty, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-21T00:06:36Z"}))
        .collect();
    serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "app-7c9d8f6b5-abcde", "namespace": "default", "uid": "6d2b1c1e-0000-4000-8000-000000000000",
            "creationTimestamp": "2026-11-21T00:06:36Z", "labels": {"app": "app", "pod-template-hash": "7c9d8f6b5"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-7c9d8f6b5", "uid": "u", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": containers, "nodeName": "node-1", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "conditions": conditions, "hostIP": "10.0.0.1", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}], "startTime": "2026-11-21T00:06:36Z"}})
}

fn main() {
    let graph = decode_again();
    println!("schema: {} kB of tables", graph.memory_bytes() / 1024);
    time("schema: read", || {
        black_box(decode_again());
    });

    let schema = SchemaRef::builtin(&GroupVersionKind::new("", "v1", "Pod")).expect("invariant: pods are built in");
    let limits = Limits::default();
    let mut pod = pod();
    normalize(&mut pod, &schema, UnknownFields::Ignore).expect("invariant: the pod is well formed");
    let text = json::encode(&pod);
    let wire = protobuf::encode(&pod, &schema).expect("invariant: the pod is in normal form");
    let yaml = yaml::encode(&pod);
    println!(
        "pod: {} bytes of JSON, {} of protobuf, {} of YAML",
        text.len(),
        wire.len(),
        yaml.len()
    );
    time("pod: JSON decode", || {
        black_box(json::decode(black_box(&text), &limits).expect("invariant: just encoded"));
    });
    time("pod: serde_json, for comparison", || {
        black_box(serde_json::from_slice::<Value>(black_box(&text)).expect("invariant: just encoded"));
    });
    time("pod: clone", || {
        black_box(pod.clone());
    });
    time("pod: clone and normalize", || {
        let mut copy = pod.clone();
        black_box(normalize(&mut copy, &schema, UnknownFields::Report).expect("invariant: in normal form"));
    });
    time("pod: JSON encode", || {
        black_box(json::encode(black_box(&pod)));
    });
    time("pod: protobuf decode", || {
        black_box(protobuf::decode(black_box(&wire)).expect("invariant: just encoded"));
    });
    time("pod: protobuf encode", || {
        black_box(protobuf::encode(black_box(&pod), &schema).expect("invariant: in normal form"));
    });
    time("pod: YAML decode", || {
        black_box(yaml::decode(black_box(yaml.as_bytes()), &limits).expect("invariant: just encoded"));
    });

    let resources = openapi::builtin_resources();
    let source = Source {
        resources: &resources,
        version: "v1.36.0",
        is_issuer: true,
        describe: &openapi::undescribed,
    };
    let core = GroupVersion::new("", "v1");
    println!(
        "OpenAPI: v3 of v1 {} kB",
        json::encode(&openapi::v3(&source, &core)).len() / 1024
    );
    time("OpenAPI: v3 of v1", || {
        black_box(json::encode(&openapi::v3(&source, &core)));
    });
    let document = openapi::v2(&source);
    println!(
        "OpenAPI: v2 {} kB, protobuf {} kB",
        json::encode(&document).len() / 1024,
        openapi::v2_protobuf(&document).len() / 1024
    );
    time("OpenAPI: v2", || {
        black_box(openapi::v2(&source));
    });
    time("OpenAPI: v2 to protobuf", || {
        black_box(openapi::v2_protobuf(&document));
    });
    if let Some(directory) = std::env::args().nth(1) {
        write_documents(&directory, &source);
    }
}

fn write_documents(directory: &str, source: &Source<'_>) {
    let write = |name: String, bytes: Vec<u8>| {
        let path = format!("{directory}/{name}");
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
    };
    let document = openapi::v2(source);
    write("v2.json".into(), json::encode(&document));
    write("v2.pb".into(), openapi::v2_protobuf(&document));
    let mut versions: Vec<String> = Vec::new();
    for row in source.resources {
        let version = GroupVersion::new(&*row.gvk.group, &*row.gvk.version);
        let name = format!("v3-{}.json", version.to_string().replace('/', "_"));
        if !versions.contains(&name) {
            write(name.clone(), json::encode(&openapi::v3(source, &version)));
            versions.push(name);
        }
    }
}
