//! Pods with real containers: how they start, fail, come back and end, and what they see of the cluster.

use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};

use crate::cluster::{Workplace, fail};
use crate::node_cluster::{IMAGE, OTHER_IMAGE, create, log_until, pods, shared, shown, until, until_pods};

fn place(name: &str) -> Workplace {
    shared().workplace(name)
}

fn seconds(value: &Value) -> jiff::Timestamp {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no time: {value}"))
        .parse()
        .unwrap()
}

#[test]
fn pods_end_as_their_containers_do() {
    let place = place("node-ends");
    let pod = |name: &str, policy: &str, container: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: {policy}, containers: [{{name: c, {container}}}]}}}}\n"
        )
    };
    let runs = |words: &str| format!("image: 'IMAGE', command: [/bin/demo, {words}]");
    let eats = format!("{}, resources: {{limits: {{memory: 16Mi}}}}", runs("eat, '64'"));
    let needs = "image: 'IMAGE', env: [{name: A, valueFrom: {configMapKeyRef: {name: nope, key: a}}}]";
    let last_word = runs("sh, -c, write /dev/termination-log farewell; exit 5");
    let cases = [
        ("fine", "Never", runs("echo, hello"), "Completed", json!(0)),
        ("wrong", "Never", runs("exit, '3'"), "Error", json!(3)),
        ("word", "Never", last_word, "Error", json!(5)),
        ("eater", "Never", eats, "OOMKilled", json!(137)),
        (
            "nothing",
            "Never",
            runs("'true'").replace("/bin/demo", "/bin/nothing"),
            "StartError",
            json!(128),
        ),
        ("loop", "Always", runs("exit, '4'"), "CrashLoopBackOff", Value::Null),
        (
            "keeps-on",
            "OnFailure",
            runs("exit, '6'"),
            "CrashLoopBackOff",
            Value::Null,
        ),
        (
            "no-image",
            "Never",
            "image: 'trireme.local/none:1'".into(),
            "ImagePullBackOff",
            Value::Null,
        ),
        (
            "no-map",
            "Never",
            needs.into(),
            "CreateContainerConfigError",
            Value::Null,
        ),
        (
            "broken",
            "Always",
            runs("'true'").replace("/bin/demo", "/bin/nothing"),
            "CrashLoopBackOff",
            Value::Null,
        ),
        (
            "bad-name",
            "Never",
            "image: 'trireme.local/Bad:1'".into(),
            "InvalidImageName",
            Value::Null,
        ),
        (
            "never",
            "Never",
            "image: 'trireme.local/none:2', imagePullPolicy: Never".into(),
            "ErrImageNeverPull",
            Value::Null,
        ),
    ];
    create(
        &place,
        &cases
            .iter()
            .map(|(name, policy, container, ..)| pod(name, policy, container))
            .collect::<String>(),
    );
    for (name, policy, _, expect, code) in &cases {
        until_pods(shared(), &place, &format!("{name} as {expect}"), || {
            (shown(&place, name) == *expect).then_some(())
        });
        let pod = place.get(&["pod", name]);
        let container = &pod["status"]["containerStatuses"][0];
        assert_eq!(
            container["state"]["terminated"]["exitCode"], *code,
            "{name} {container}"
        );
        let phase = match (*policy, *expect) {
            (_, "Completed") => "Succeeded",
            ("Never", _) if !code.is_null() => "Failed",
            (_, "CrashLoopBackOff") => "Running",
            _ => "Pending",
        };
        assert_eq!(pod["status"]["phase"], phase, "{name}");
    }
    let events = place.kubectl_ok(&["events", "--for", "pod/no-image"]);
    for expect in [
        "Back-off pulling image \"trireme.local/none:1\"",
        "Error: ErrImagePull",
        "Error: ImagePullBackOff",
    ] {
        assert!(events.contains(expect), "{expect} in {events}");
    }
    let bad_name = "Failed to apply default image tag \"trireme.local/Bad:1\": couldn't parse image reference \
                    \"trireme.local/Bad:1\": invalid reference format: repository name (Bad) must be lowercase";
    for (name, expect) in [
        ("bad-name", bad_name),
        ("bad-name", "Error: InvalidImageName"),
        ("fine", "Container created"),
        ("fine", "Container started"),
        (
            "broken",
            "Back-off restarting failed container c in pod broken_node-ends",
        ),
    ] {
        let events = place.kubectl_ok(&["events", "--for", &format!("pod/{name}")]);
        assert!(events.contains(expect), "{expect} in {events}");
    }
    let fine = place.get(&["pod", "fine"]);
    let conditions = fine["status"]["conditions"].as_array().unwrap();
    let initialized = conditions.iter().find(|c| c["type"] == "Initialized").unwrap();
    assert_eq!(initialized["reason"], "PodCompleted");
    let word = place.get(&["pod", "word"]);
    assert_eq!(
        word["status"]["containerStatuses"][0]["state"]["terminated"]["message"],
        "farewell\n"
    );
    assert_eq!(place.kubectl_ok(&["logs", "fine"]), "hello\n");

    // The first restart came at once, the second one after ten seconds.
    place.kubectl_ok(&[
        "wait",
        "pod/loop",
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=2",
        crate::cluster::PATIENCE,
    ]);
    until_pods(shared(), &place, "the third run's end", || {
        (shown(&place, "loop") == "CrashLoopBackOff").then_some(())
    });
    let pod = place.get(&["pod", "loop"]);
    let container = &pod["status"]["containerStatuses"][0];
    let message = container["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("back-off 20s restarting failed container=c pod=loop_node-ends("),
        "{message}"
    );
    let events = place.kubectl_ok(&["events", "--for", "pod/loop"]);
    assert!(
        events.contains("Back-off restarting failed container c in pod loop_node-ends"),
        "{events}"
    );
    // Another image is another container: it is tried at once, and its pauses begin anew.
    place.kubectl_ok(&["set", "image", "pod/loop", &format!("c={OTHER_IMAGE}")]);
    until_pods(shared(), &place, "the first pause again", || {
        let waiting = place.get(&["pod", "loop"])["status"]["containerStatuses"][0]["state"]["waiting"].take();
        let message = waiting["message"].as_str().unwrap_or_default().to_owned();
        message.starts_with("back-off 10s restarting").then_some(())
    });
}

#[test]
fn init_containers_run_before_and_sidecars_beside() {
    let place = place("node-init");
    create(
        &place,
        r#"
{apiVersion: v1, kind: Pod, metadata: {name: order}, spec: {restartPolicy: Never,
  volumes: [{name: d, emptyDir: {}}],
  initContainers: [
    {name: first, image: 'IMAGE', command: [/bin/demo, write, /d/a, one], volumeMounts: [{name: d, mountPath: /d}]},
    {name: beside, restartPolicy: Always, image: 'IMAGE', command: [/bin/demo, sh, -c, 'touch /d/beside; sleep inf'], volumeMounts: [{name: d, mountPath: /d}],
      startupProbe: {periodSeconds: 1, exec: {command: [/bin/demo, stat, /d/beside]}}},
    {name: second, image: 'IMAGE', command: [/bin/demo, sh, -c, 'cat /d/a && ls /d'], volumeMounts: [{name: d, mountPath: /d}]}],
  containers: [{name: main, image: 'IMAGE', command: [/bin/demo, cat, /d/a], volumeMounts: [{name: d, mountPath: /d}]}],
  terminationGracePeriodSeconds: 1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stuck}, spec: {restartPolicy: Always,
  initContainers: [{name: bad, image: 'IMAGE', command: [/bin/demo, exit, '9']}],
  containers: [{name: main, image: 'IMAGE', command: [/bin/demo, sleep, inf]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: failed}, spec: {restartPolicy: Never,
  initContainers: [{name: bad, image: 'IMAGE', command: [/bin/demo, exit, '9']}],
  containers: [{name: main, image: 'IMAGE', command: [/bin/demo, sleep, inf]}]}}
"#,
    );
    place.wait("pod/order", "jsonpath={.status.phase}=Succeeded");
    assert_eq!(place.kubectl_ok(&["logs", "order", "-c", "second"]), "one\na\nbeside\n");
    assert_eq!(place.kubectl_ok(&["logs", "order", "-c", "main"]), "one\n");
    until_pods(shared(), &place, "init back-off", || {
        (shown(&place, "stuck") == "Init:CrashLoopBackOff").then_some(())
    });
    until_pods(shared(), &place, "init failure", || {
        (shown(&place, "failed") == "Init:Error").then_some(())
    });
    assert_eq!(place.get(&["pod", "failed"])["status"]["phase"], "Failed");
    let stuck = place.get(&["pod", "stuck"]);
    assert_eq!(stuck["status"]["phase"], "Pending");
    assert_eq!(
        stuck["status"]["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
}

#[test]
fn probes_decide_who_runs_and_who_serves() {
    let place = place("node-probes");
    create(
        &place,
        r#"
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', ports: [{name: http, containerPort: 8080}], env: [{name: DRAIN_SECONDS, value: '0'}],
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1},
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1, failureThreshold: 1}}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: live}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}],
    livenessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: exec}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}],
    readinessProbe: {exec: {command: [/bin/demo, ls, /tmp/ready]}, periodSeconds: 1}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: late}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sleep, inf],
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1}}]}}
"#,
    );
    place.wait("pod/web", "condition=Ready");
    let slice = "endpointslice/".to_owned()
        + place.get(&["endpointslices", "-l", "kubernetes.io/service-name=web"])["items"][0]["metadata"]["name"]
            .as_str()
            .unwrap();
    place.wait(&slice, "jsonpath={.endpoints[0].conditions.ready}=true");
    let proxy = |pod: &str, path: &str| {
        place.kubectl_ok(&[
            "get",
            "--raw",
            &format!("/api/v1/namespaces/node-probes/pods/{pod}:8080/proxy/{path}"),
        ])
    };
    assert_eq!(proxy("web", "unready"), "web is unready now\n");
    place.wait("pod/web", "condition=Ready=false");
    place.kubectl_ok(&[
        "wait",
        &slice,
        "--for=jsonpath={.endpoints[0].conditions.ready}=false",
        "--timeout=2s",
    ]);
    let said = fail(&place.kubectl(&["exec", "web", "--", "/bin/demo", "get", "http://web/"]));
    assert!(said.contains("Connection refused"), "{said}");
    assert_eq!(proxy("web", "ready"), "web is ready now\n");
    place.wait(&slice, "jsonpath={.endpoints[0].conditions.ready}=true");

    place.wait("pod/live", "condition=Ready");
    proxy("live", "unready");
    place.wait("pod/live", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    place.wait("pod/live", "condition=Ready");
    let events = place.kubectl_ok(&["events", "--for", "pod/live"]);
    assert!(
        events.contains("Liveness probe failed: HTTP probe failed with statuscode: 503"),
        "{events}"
    );
    assert!(
        events.contains("Container c failed liveness probe, will be restarted"),
        "{events}"
    );

    assert_eq!(
        place.get(&["pod", "exec"])["status"]["containerStatuses"][0]["ready"],
        false
    );
    place.kubectl_ok(&["exec", "exec", "--", "/bin/demo", "mkdir", "/tmp/ready"]);
    place.wait("pod/exec", "condition=Ready");

    until_pods(shared(), &place, "a restart by the startup probe", || {
        let count = place.get(&["pod", "late"])["status"]["containerStatuses"][0]["restartCount"].as_u64();
        (count >= Some(1)).then_some(())
    });
    let events = place.kubectl_ok(&["events", "--for", "pod/late"]);
    assert!(
        events.contains("Container c failed startup probe, will be restarted"),
        "{events}"
    );
}

#[test]
fn pods_end_with_grace_and_are_replaced() {
    let place = place("node-grace");
    let marks = place.dir.join("marks");
    std::fs::create_dir(&marks).unwrap();
    create(&place, &r#"
{apiVersion: v1, kind: Pod, metadata: {name: hooks}, spec: {terminationGracePeriodSeconds: 20, volumes: [{name: m, hostPath: {path: 'MARKS', type: Directory}}],
  containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}], volumeMounts: [{name: m, mountPath: /m}],
    lifecycle: {postStart: {exec: {command: [/bin/demo, write, /m/post, started]}},
                preStop: {exec: {command: [/bin/demo, sh, -c, 'sleep 0.5; write /m/pre stopped']}}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: unhooked}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sleep, inf],
    lifecycle: {postStart: {exec: {command: [/bin/demo, sh, -c, 'echo secret; exit 3']}}}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stubborn}, spec: {terminationGracePeriodSeconds: 2, volumes: [{name: m, hostPath: {path: 'MARKS'}}],
  containers: [{name: c, image: 'IMAGE', command: [/bin/demo, stubborn]}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}},
  spec: {containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}]}]}}}}
"#.replace("MARKS", &marks.display().to_string()));
    let mark = |name: &str| std::fs::read_to_string(marks.join(name)).unwrap_or_default();
    place.wait("pod/hooks", "condition=Ready");
    assert_eq!((mark("post").as_str(), mark("pre").as_str()), ("started\n", ""));
    place.kubectl_ok(&["delete", "pod", "hooks", crate::cluster::PATIENCE]);
    assert_eq!(mark("pre"), "stopped\n");

    // A hook that fails ends its container, and what it said stays between the two.
    until("the end of a container by its hook", || {
        (shown(&place, "unhooked") == "PostStartHookError").then_some(())
    });
    let events = place.kubectl_ok(&["events", "--for", "pod/unhooked"]);
    for expect in ["PostStartHook failed", "FailedPostStartHook"] {
        assert!(events.contains(expect), "{expect} in {events}");
    }
    assert!(!events.contains("secret"), "{events}");

    place.wait("pod/stubborn", "condition=Ready");
    let logs = place.kubectl_ok(&["logs", "stubborn"]);
    assert_eq!(logs, "stubborn\n");
    place.kubectl_ok(&["delete", "pod", "stubborn", "--wait=false"]);
    // Its last word is of one who does not want to end.
    assert_eq!(log_until(&place, "stubborn", "no\n"), "stubborn\nno\n");
    place.kubectl_ok(&["wait", "--for=delete", "pod/stubborn", crate::cluster::PATIENCE]);

    place.kubectl_ok(&["rollout", "status", "deployment/web", crate::cluster::PATIENCE]);
    let old = pods(&place, "app=web").into_keys().next().unwrap();
    place.kubectl_ok(&["delete", "pod", &old, crate::cluster::PATIENCE]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", crate::cluster::PATIENCE]);
    let new: Vec<String> = pods(&place, "app=web").into_keys().collect();
    assert!(new.len() == 1 && new[0] != old, "{old} {new:?}");
}

#[test]
fn containers_see_what_their_pod_gives_them() {
    let place = place("node-sees");
    let host = place.dir.join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("of-the-node"), "").unwrap();
    create(&place, &r#"
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: blue, a.txt: "first\n"}}
---
{apiVersion: v1, kind: Secret, metadata: {name: hidden}, stringData: {password: s3cret}}
---
apiVersion: v1
kind: Pod
metadata: {name: sees, labels: {tier: x}, annotations: {note: hi}}
spec:
  securityContext: {runAsUser: 1000, runAsGroup: 2000, fsGroup: 3000}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: IMAGE
    command: [/bin/demo, sh, -c, "env; probe; sleep inf"]
    env:
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: password}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}
    - {name: BOTH, value: "$(POD)-$(COLOUR)"}
    envFrom: [{prefix: P_, configMapRef: {name: settings}}]
    resources: {limits: {memory: 32Mi, cpu: 500m}}
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}, seccompProfile: {type: RuntimeDefault}}
    volumeMounts:
    - {name: all, mountPath: /all}
    - {name: settings, mountPath: /settings}
    - {name: secret, mountPath: /secret}
    - {name: host, mountPath: /host, readOnly: true}
    - {name: scratch, mountPath: /scratch}
  volumes:
  - name: all
    projected:
      sources:
      - configMap: {name: settings, items: [{key: a.txt, path: cm/a.txt}]}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
  - {name: settings, configMap: {name: settings}}
  - {name: secret, secret: {secretName: hidden, defaultMode: 0440}}
  - {name: host, hostPath: {path: HOST, type: Directory}}
  - {name: scratch, emptyDir: {medium: Memory}}
---
{apiVersion: v1, kind: Pod, metadata: {name: plain}, spec: {restartPolicy: Never, containers: [{name: c, image: 'IMAGE', command: [/bin/demo, probe]}]}}
---
# Mounts spread on a node as on a machine that systemd started: what asks for it is not refused.
{apiVersion: v1, kind: Pod, metadata: {name: spreads}, spec: {terminationGracePeriodSeconds: 1, volumes: [{name: host, hostPath: {path: HOST}}, {name: e, emptyDir: {}}],
  containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sleep, inf], securityContext: {privileged: true},
    volumeMounts: [{name: host, mountPath: /host, mountPropagation: HostToContainer}, {name: e, mountPath: /e, mountPropagation: Bidirectional}]}]}}
"#.replace("HOST", &host.display().to_string()));
    place.wait("pod/sees", "condition=Ready");
    let run = |words: &[&str]| place.kubectl_ok(&[&["exec", "sees", "--", "/bin/demo"], words].concat());
    let log = log_until(&place, "sees", "descriptors: ");
    let pod = place.get(&["pod", "sees"]);
    let ip = pod["status"]["podIP"].as_str().unwrap();
    // What the container was given, as its status tells it.
    let status = &pod["status"]["containerStatuses"][0];
    let given = json!({"limits": {"cpu": "500m", "memory": "32Mi"}, "requests": {"cpu": "500m", "memory": "32Mi"}});
    assert_eq!(status["resources"], given);
    assert_eq!(status["allocatedResources"], given["requests"]);
    assert_eq!(
        status["user"],
        json!({"linux": {"uid": 1000, "gid": 2000, "supplementalGroups": [2000, 3000]}})
    );
    let mounts = status["volumeMounts"].as_array().unwrap();
    let of_host = mounts.iter().find(|mount| mount["name"] == "host").unwrap();
    assert_eq!(
        *of_host,
        json!({"name": "host", "mountPath": "/host", "readOnly": true, "recursiveReadOnly": "Disabled"})
    );
    assert_eq!(pod["status"]["qosClass"], "Guaranteed");
    for expect in [
        "POD=sees",
        "COLOUR=blue",
        "PASSWORD=s3cret",
        "MEMORY=33554432",
        "BOTH=sees-blue",
        "P_colour=blue",
        &format!("IP={ip}"),
        &format!("NODE={}", pod["spec"]["nodeName"].as_str().unwrap()),
        "HOSTNAME=sees",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "Uid: 1000 1000 1000 1000",
        "Groups: 2000 3000 ",
        "CapBnd: 0000000000000400",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "root-write: Read-only file system (os error 30)",
        "mount: Operation not permitted (os error 1)",
        "stdin-null: true",
        "descriptors: 3",
    ] {
        assert!(log.lines().any(|line| line == expect), "{expect} in {log}");
    }
    place.wait("pod/spreads", "condition=Ready");
    // What a pod gets that asks for nothing: the default capabilities and the default profile.
    place.wait("pod/plain", "jsonpath={.status.phase}=Succeeded");
    let plain = place.kubectl_ok(&["logs", "plain"]);
    for expect in [
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "Seccomp: 2",
        "Uid: 0 0 0 0",
        "mknod-kmsg: Operation not permitted (os error 1)",
    ] {
        assert!(plain.lines().any(|line| line == expect), "{expect} in {plain}");
    }
    for (words, expect) in [
        (&["cat", "/all/cm/a.txt"][..], "first\n"),
        (&["cat", "/all/labels"], "tier=\"x\""),
        (&["cat", "/secret/password"], "s3cret"),
        (&["ls", "/host"], "of-the-node\n"),
        (&["id"], "uid=1000 gid=2000 groups=2000,3000\n"),
        (&["hostname"], "sees\n"),
    ] {
        assert_eq!(run(words), expect, "{words:?}");
    }
    assert!(
        run(&["cat", "/etc/resolv.conf"])
            .contains("search node-sees.svc.cluster.local svc.cluster.local cluster.local\n")
    );
    run(&["write", "/scratch/x", "y"]);

    // The token is this pod's, and the API takes it.
    const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(run(&["cat", &format!("{ACCOUNT}/namespace")]), "node-sees");
    assert_eq!(
        run(&["cat", &format!("{ACCOUNT}/ca.crt")]).trim(),
        shared().ca_pem().trim()
    );
    let token = run(&["cat", &format!("{ACCOUNT}/token")]);
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = place.kubectl_with(&["create", "-o", "json", "-f", "-"], &review.to_string());
    let answer: Value = serde_json::from_str(&crate::cluster::succeed(&answer)).unwrap();
    assert_eq!(
        answer["status"]["user"]["username"],
        "system:serviceaccount:node-sees:default"
    );
    assert_eq!(
        answer["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"],
        json!(["sees"])
    );
    // Its server is there under its name: it speaks TLS only and says so, or hangs up.
    let said = place.kubectl(&[
        "exec",
        "sees",
        "--",
        "/bin/demo",
        "get",
        "http://kubernetes.default:443/",
    ]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(
        !said.contains("refused") && !said.contains("no such host") && !said.contains("timed out"),
        "{said}"
    );

    // Changes are seen while it runs, the environment stays.
    place.kubectl_ok(&[
        "patch",
        "configmap",
        "settings",
        "-p",
        r#"{"data":{"a.txt":"second\n","new":"n"}}"#,
    ]);
    until("the new text in the volumes", || {
        let texts = [run(&["cat", "/settings/a.txt"]), run(&["cat", "/all/cm/a.txt"])];
        (texts == ["second\n", "second\n"]).then_some(())
    });
    assert_eq!(
        run(&["ls", "/settings"])
            .lines()
            .filter(|name| !name.starts_with(".."))
            .collect::<Vec<_>>(),
        ["a.txt", "colour", "new"]
    );
    place.kubectl_ok(&["label", "pod", "sees", "tier=y", "--overwrite"]);
    until("the new label in the volume", || {
        (run(&["cat", "/all/labels"]) == "tier=\"y\"").then_some(())
    });

    // Nothing of its volumes stays when it goes, but what belongs to the node.
    let volumes = shared().dir.join(format!(
        "data/nodes/{}/pods/{}",
        crate::node_cluster::name(shared()),
        pod["metadata"]["uid"].as_str().unwrap()
    ));
    place.kubectl_ok(&["delete", "pod", "sees", crate::cluster::PATIENCE]);
    assert!(!volumes.exists(), "{}", volumes.display());
    assert!(std::fs::metadata(host.join("of-the-node")).unwrap().size() == 0);
}

#[test]
fn people_look_into_containers() {
    let place = place("node-looks");
    create(
        &place,
        r#"
{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: talks}, spec: {restartPolicy: Never, containers: [{name: c, image: 'IMAGE', command: [/bin/demo, spam, '200', '5']}]}}
"#,
    );
    place.wait("pod/talks", "jsonpath={.status.containerStatuses[0].started}=true");
    let followed = place.kubectl_ok(&["logs", "-f", "talks"]);
    let lines: Vec<String> = (0..200)
        .map(|index| format!("line {index}"))
        .chain(["done".into()])
        .collect();
    assert_eq!(followed.lines().collect::<Vec<_>>(), lines);
    assert_eq!(place.kubectl_ok(&["logs", "talks", "--tail=2"]), "line 199\ndone\n");

    place.wait("pod/web", "condition=Ready");
    let (said, code) = place.shell("kubectl exec web -- /bin/demo exit 7");
    assert_eq!((said.trim(), code), ("command terminated with exit code 7", 7));
    let echoed = place.kubectl_with(
        &["exec", "-i", "web", "--", "/bin/demo", "cat"],
        "through standard input\n",
    );
    assert_eq!(crate::cluster::succeed(&echoed), "through standard input\n");
    std::fs::write(place.dir.join("up.txt"), "there and back\n").unwrap();
    place.kubectl_ok(&["cp", "up.txt", "web:/tmp/up.txt"]);
    place.kubectl_ok(&["cp", "web:/tmp/up.txt", "down.txt"]);
    assert_eq!(
        std::fs::read_to_string(place.dir.join("down.txt")).unwrap(),
        "there and back\n"
    );

    let _ = place.kubectl(&[
        "get",
        "--raw",
        "/api/v1/namespaces/node-looks/pods/web:8080/proxy/crash?code=3",
    ]);
    place.wait("pod/web", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    let before = place.kubectl_ok(&["logs", "--previous", "web"]);
    assert_eq!(before, "web serves port 8080\nweb crashes as told\n");
    place.wait("pod/web", "condition=Ready");
    let web = place.get(&["pod", "web"]);
    let last = &web["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
    assert!(seconds(&last["finishedAt"]) >= seconds(&last["startedAt"]));
    assert_eq!(web["spec"]["containers"][0]["image"], IMAGE);
}
