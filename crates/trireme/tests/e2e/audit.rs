//! The audit log as somebody with the real `kubectl` fills it: what the policy says of each request, and nothing more.

use std::path::Path;
use std::sync::{Arc, Mutex};

use regex::Regex;
use serde_json::{Value, json};

use crate::access::{flag, up, write};
use crate::cluster::{Cluster, fail, succeed};
use crate::node_cluster::until;
use crate::services::Service;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  verbs: [get, list, watch]
  resources: [{group: '', resources: [configmaps]}]
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: '', resources: [configmaps]}]
- level: None
";

/// What nobody may read in the log: as it is, and as the API carries it.
const SECRET: [&str; 2] = ["hunter2", "aHVudGVyMg=="];

/// The events about objects of ours, in their order.
fn events(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    for secret in SECRET {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    let events = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line));
    let is_ours = |event: &Value| {
        ["told", "hidden"]
            .map(Value::from)
            .contains(&event["objectRef"]["name"])
    };
    events.filter(is_ours).collect()
}

fn shape(event: &Value) -> Value {
    let reference = &event["objectRef"];
    json!([
        event["level"],
        event["verb"],
        reference["resource"],
        reference["name"],
        event["responseStatus"]["code"],
        event["requestObject"]["data"],
        event["responseObject"]["kind"]
    ])
}

#[test]
fn the_log_tells_what_the_policy_says() {
    let (cluster, place) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let (policy, log) = (place.path().join("policy.yaml"), place.path().join("logs/audit.log"));
    let named = format!("--audit-policy-file={}", policy.display());
    let path = format!("--audit-log-path={}", log.display());
    let up = ["--quiet", "up", "--no-node", "--api-port", "0", &named, &path];

    std::fs::write(&policy, POLICY.replace("Metadata", "Everything")).unwrap();
    let error = fail(&cluster.trireme(&up));
    let expect = "rules[1].level: Unsupported value: \"Everything\"";
    assert!(
        error.contains("error[AUDIT_POLICY]") && error.contains(expect),
        "{error}"
    );
    assert!(
        !cluster.dir.join("run/server.process").exists(),
        "something was started"
    );

    std::fs::write(&policy, POLICY).unwrap();
    succeed(&cluster.trireme(&up));
    let who = cluster.kubectl_ok(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]);
    let create = ["create", "configmap", "told", "--from-literal=a=1"];
    let created = cluster.kubectl(&[&create[..], &["-v=8"]].concat());
    succeed(&created);
    fail(&cluster.kubectl(&create));
    cluster.kubectl_ok(&["get", "configmap", "told"]);
    let data = format!("--from-literal=password={}", SECRET[0]);
    cluster.kubectl_ok(&["create", "secret", "generic", "hidden", &data]);
    cluster.kubectl_ok(&["get", "secret", "hidden", "-o", "yaml"]);
    let metrics = cluster.kubectl_ok(&["get", "--raw", "/metrics"]);
    assert!(
        metrics.contains("apiserver_audit_level_total{level=\"Metadata\"}"),
        "{metrics}"
    );
    // What was told is in the file when the server has ended.
    succeed(&cluster.trireme(&["down"]));
    let first = events(&log);
    let expect = [
        json!(["RequestResponse", "create", "configmaps", "told", 201, {"a": "1"}, "ConfigMap"]),
        json!(["RequestResponse", "create", "configmaps", "told", 409, {"a": "1"}, "Status"]),
        json!(["Metadata", "create", "secrets", "hidden", 201, null, null]),
        json!(["Metadata", "get", "secrets", "hidden", 200, null, null]),
    ];
    assert_eq!(first.iter().map(shape).collect::<Vec<_>>(), expect);
    for event in &first {
        assert_eq!(
            (&event["kind"], &event["apiVersion"]),
            (&json!("Event"), &json!("audit.k8s.io/v1"))
        );
        assert_eq!(event["stage"], "ResponseComplete");
        assert_eq!(event["user"]["username"], who.as_str());
        assert_eq!(event["objectRef"]["namespace"], "default");
        assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
        assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
        assert!(event["userAgent"].as_str().unwrap().starts_with("kubectl"), "{event}");
        assert!(
            event["responseObject"]["metadata"]["managedFields"].is_null(),
            "{event}"
        );
    }
    assert_eq!(first[1]["responseStatus"]["reason"], "AlreadyExists");
    let headers = String::from_utf8_lossy(&created.stderr);
    let ids = Regex::new(r"Audit-Id: (\S+)").unwrap();
    let ids: Vec<&str> = ids
        .captures_iter(&headers)
        .map(|found| found.get(1).unwrap().as_str())
        .collect();
    let id = first[0]["auditID"].as_str().unwrap();
    assert!(ids.contains(&id), "{id} is none of {ids:?}");

    // The next start keeps the log, and goes on in the same file.
    succeed(&cluster.trireme(&["--quiet", "up", "--no-node"]));
    cluster.kubectl_ok(&["delete", "configmap", "told"]);
    succeed(&cluster.trireme(&["down"]));
    let second = events(&log);
    assert_eq!((&second[..4], second.len()), (&first[..], 5));
    let expect = json!(["RequestResponse", "delete", "configmaps", "told", 200]);
    assert_eq!(
        shape(&second[4]).as_array().unwrap()[..5],
        expect.as_array().unwrap()[..]
    );

    // A name of nothing turns it off.
    let off = ["--audit-log-path=", "--audit-policy-file="];
    succeed(&cluster.trireme(&[&["--quiet", "up", "--no-node"][..], &off].concat()));
    cluster.kubectl_ok(&create);
    succeed(&cluster.trireme(&["down"]));
    assert_eq!(events(&log), second);
}

/// So many events a batch has at most.
const BATCH_EVENTS_MAX: usize = 2;

#[test]
fn a_webhook_is_told_in_batches() {
    let (cluster, place) = (Cluster::prepare(), tempfile::tempdir().unwrap());
    let told = Arc::new(Mutex::new(Vec::<Vec<Value>>::new()));
    let webhook = Service::start({
        let told = told.clone();
        move |_, _, list| {
            assert_eq!(
                (&list["kind"], &list["apiVersion"]),
                (&json!("EventList"), &json!("audit.k8s.io/v1"))
            );
            told.lock().unwrap().push(list["items"].as_array().unwrap().clone());
            json!({})
        }
    });
    let policy = write(place.path(), "policy.yaml", POLICY);
    let service = write(place.path(), "webhook.yaml", &webhook.kubeconfig().to_string());
    let broken = flag("audit-webhook-config-file", &policy);
    let error = fail(&cluster.trireme(&["--quiet", "up", "--no-node", &broken]));
    assert!(error.contains("error[AUDIT_WEBHOOK]"), "{error}");
    let flags = [
        flag("audit-policy-file", &policy),
        flag("audit-webhook-config-file", &service),
        "--audit-webhook-batch-max-wait=200ms".to_owned(),
        format!("--audit-webhook-batch-max-size={BATCH_EVENTS_MAX}"),
        "--audit-webhook-batch-throttle-enable=false".to_owned(),
    ];
    up(&cluster, &flags);
    let names = ["one", "two", "three", "four", "five"];
    for name in names {
        cluster.kubectl_ok(&["create", "configmap", name]);
    }
    let data = format!("--from-literal=password={}", SECRET[0]);
    cluster.kubectl_ok(&["create", "secret", "generic", "hidden", &data]);
    let of = |events: &[Value], name: &str| {
        let mut own = events.iter().filter(|event| event["objectRef"]["name"] == name);
        own.next().cloned()
    };
    let all = || told.lock().unwrap().concat();
    let hidden = until("the last event", || of(&all(), "hidden"));
    let (events, batches) = (all(), told.lock().unwrap().clone());
    assert!(
        batches
            .iter()
            .all(|batch| (1..=BATCH_EVENTS_MAX).contains(&batch.len())),
        "{batches:?}"
    );
    for name in names {
        let event = of(&events, name).expect(name);
        assert_eq!(
            shape(&event).as_array().unwrap()[..5],
            [
                json!("RequestResponse"),
                json!("create"),
                json!("configmaps"),
                json!(name),
                json!(201)
            ]
        );
    }
    assert_eq!(
        shape(&hidden),
        json!(["Metadata", "create", "secrets", "hidden", 201, null, null])
    );
    let text = serde_json::to_string(&events).unwrap();
    assert!(SECRET.iter().all(|secret| !text.contains(secret)));
    // What waits when the server ends is told before it is gone.
    cluster.kubectl_ok(&["delete", "configmap", "one"]);
    succeed(&cluster.trireme(&["down"]));
    assert!(
        all()
            .iter()
            .any(|event| event["verb"] == "delete" && event["objectRef"]["name"] == "one")
    );
}
