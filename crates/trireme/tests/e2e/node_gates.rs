//! What newer fields of a pod do on its node: containers that are started again by rules of their own, variables from files,
//! resources of the pod as a whole, claims.

use serde_json::{Value, json};

use crate::cluster::{Workplace, fail};
use crate::node_cluster::{
    cgroup_directories, create, kill, log_until, name, process_of, shared, until_event, until_pods,
};

fn status_of(place: &Workplace, pod: &str, list: &str, name: &str) -> Option<Value> {
    let pod = place.get(&["pod", pod]);
    let all = pod["status"][list].as_array()?.clone();
    all.into_iter().find(|status| status["name"] == name)
}

fn condition(place: &Workplace, pod: &str, kind: &str) -> Option<Value> {
    let pod = place.get(&["pod", pod]);
    let all = pod["status"]["conditions"].as_array()?.clone();
    all.into_iter().find(|condition| condition["type"] == kind)
}

#[test]
fn a_containers_own_rules_come_before_its_pods_policy() {
    let place = shared().workplace("node-rules");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 1,
    initContainers: [{name: i, image: 'IMAGE', restartPolicy: OnFailure, volumeMounts: [{name: v, mountPath: /v}],
        command: [/bin/demo, sh, -c, 'stat /v/i && exit 0; touch /v/i; exit 1']}],
    containers: [
        {name: again, image: 'IMAGE', restartPolicy: Never, volumeMounts: [{name: v, mountPath: /v}],
         restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}],
         command: [/bin/demo, sh, -c, 'stat /v/done && exit 3; touch /v/done; exit 42']},
        {name: once, image: 'IMAGE', command: [/bin/demo, exit, '42']}],
    volumes: [{name: v, emptyDir: {}}]}}",
    );
    until_pods(shared(), &place, "the end of the pod", || {
        (place.get(&["pod", "p"])["status"]["phase"] == "Failed").then_some(())
    });
    for (list, name, restarts, code) in [
        ("initContainerStatuses", "i", 1, 0),
        ("containerStatuses", "again", 1, 3),
        ("containerStatuses", "once", 0, 42),
    ] {
        let status = status_of(&place, "p", list, name).unwrap();
        assert_eq!(
            (&status["restartCount"], &status["state"]["terminated"]["exitCode"]),
            (&json!(restarts), &json!(code)),
            "{status}"
        );
    }
}

#[test]
fn all_containers_start_anew_when_one_wants_it() {
    let place = shared().workplace("node-restart-all");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 1,
    initContainers: [{name: i, image: 'IMAGE', command: [/bin/demo, 'true']},
        {name: s, image: 'IMAGE', restartPolicy: Always, command: [/bin/demo, sleep, inf]}],
    containers: [
        {name: other, image: 'IMAGE', command: [/bin/demo, sleep, inf]},
        {name: first, image: 'IMAGE', restartPolicy: Never, command: [/bin/demo, sleep, inf],
         restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [137]}}]}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let restarting = || condition(&place, "p", "AllContainersRestarting").map(|told| told["status"].clone());
    assert_eq!(restarting(), Some(json!("False")));
    let address = || place.get(&["pod", "p"])["status"]["podIP"].clone();
    let home = address();
    let before = status_of(&place, "p", "containerStatuses", "first").unwrap();
    let process = process_of(before["containerID"].as_str().unwrap());
    kill(process.split(' ').next().unwrap().parse().unwrap());
    let all = [
        ("initContainerStatuses", "i"),
        ("initContainerStatuses", "s"),
        ("containerStatuses", "other"),
        ("containerStatuses", "first"),
    ];
    until_pods(shared(), &place, "all containers for the second time", || {
        let again = |(list, name)| status_of(&place, "p", list, name).is_some_and(|status| status["restartCount"] == 1);
        let ready = condition(&place, "p", "Ready").is_some_and(|ready| ready["status"] == "True");
        (ready && all.into_iter().all(again) && restarting() == Some(json!("False"))).then_some(())
    });
    // It was one pod all the time.
    assert_eq!(
        (place.get(&["pod", "p"])["status"]["phase"].clone(), address()),
        (json!("Running"), home)
    );
    for (list, name) in all {
        let status = status_of(&place, "p", list, name).unwrap();
        let last = &status["lastState"]["terminated"];
        assert_eq!(last["reason"], "RestartingAllContainers", "{status}");
    }
}

#[test]
fn a_variable_comes_from_a_file_that_an_init_container_left() {
    let place = shared().workplace("node-env-files");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never,
    initContainers: [{name: i, image: 'IMAGE', volumeMounts: [{name: v, mountPath: /v}],
        command: [/bin/demo, write, /v/env, \"COLOUR='deep blue' # a comment\"]}],
    containers: [{name: c, image: 'IMAGE', command: [/bin/demo, echo, 'it is $(A) and $(B).'], env: [
        {name: A, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: COLOUR}}},
        {name: B, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: NONE, optional: true}}}]}],
    volumes: [{name: v, emptyDir: {}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: none}, spec: {restartPolicy: Never,
    containers: [{name: c, image: 'IMAGE', env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: A}}}]}],
    volumes: [{name: v, emptyDir: {}}]}}",
    );
    until_pods(shared(), &place, "the end of the pod", || {
        (place.get(&["pod", "p"])["status"]["phase"] == "Succeeded").then_some(())
    });
    log_until(&place, "p", "it is deep blue and $(B).");
    let waiting = until_pods(shared(), &place, "the reason of waiting", || {
        let waiting = status_of(&place, "none", "containerStatuses", "c")?["state"]["waiting"].clone();
        (waiting["reason"] == "CreateContainerConfigError").then_some(waiting)
    });
    assert_eq!(waiting["message"], "couldn't parse env file");
}

#[test]
fn a_pod_has_resources_as_a_whole() {
    let place = shared().workplace("node-whole");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 1,
    resources: {requests: {cpu: 20m}, limits: {cpu: 400m, memory: 64Mi}},
    containers: [
        {name: a, image: 'IMAGE', command: [/bin/demo, sleep, inf], env: [
            {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}]},
        {name: b, image: 'IMAGE', command: [/bin/demo, sleep, inf],
         resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {cpu: 100m}}}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let pod = place.get(&["pod", "p"]);
    // What the pod leaves open its containers say, and then its own limits.
    let requests = json!({"cpu": "20m", "memory": "8Mi"});
    assert_eq!(pod["spec"]["resources"]["requests"], requests);
    let status = &pod["status"];
    assert_eq!(
        (&status["qosClass"], &status["allocatedResources"]),
        (&json!("Burstable"), &requests)
    );
    let limits = json!({"cpu": "400m", "memory": "64Mi"});
    assert_eq!(status["resources"], json!({"requests": requests, "limits": limits}));
    assert_eq!(
        place
            .kubectl_ok(&["exec", "p", "-c", "a", "--", "/bin/demo", "printenv", "LIMIT"])
            .trim(),
        "64"
    );

    let group = |container: &str, up: usize| {
        let id = status_of(&place, "p", "containerStatuses", container).unwrap()["containerID"].clone();
        let id = id.as_str().unwrap().to_owned();
        let process = process_of(&id);
        let pid = process.split(' ').next().unwrap();
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let own = groups.lines().find_map(|line| {
            let path = line.split(':').nth(2)?;
            path.contains(id.rsplit('/').next()?)
                .then(|| path.trim_start_matches('/').to_owned())
        });
        let own = own.unwrap();
        let name = std::path::Path::new(&own).ancestors().nth(up).unwrap().to_owned();
        let files = cgroup_directories(name.to_str().unwrap());
        let read = |names: [&str; 2]| {
            let all = files.iter().flat_map(|dir| names.map(|name| dir.join(name)));
            let text = all
                .filter_map(|path| std::fs::read_to_string(path).ok())
                .next()
                .unwrap();
            text.split_whitespace().next().unwrap().to_owned()
        };
        (
            read(["cpu.cfs_quota_us", "cpu.max"]),
            read(["memory.limit_in_bytes", "memory.max"]),
        )
    };
    let told = |quota: &str, memory: i64| (quota.to_owned(), memory.to_string());
    assert_eq!(group("a", 1), told("40000", 64 << 20), "the pod");
    assert_eq!(group("a", 0), told("40000", 64 << 20), "a container without limits");
    assert_eq!(
        group("b", 0),
        told("10000", 64 << 20),
        "a container with a limit of its own"
    );

    // The pod is resized, and nothing of it is started anew.
    for (cpu, memory, quota) in [("600m", "96Mi", "60000"), ("300m", "48Mi", "30000")] {
        let patch = json!({"spec": {"resources": {"limits": {"cpu": cpu, "memory": memory}}}});
        place.kubectl_ok(&["patch", "pod", "p", "--subresource", "resize", "-p", &patch.to_string()]);
        let wanted = json!({"cpu": cpu, "memory": memory});
        until_pods(shared(), &place, &format!("a pod with {wanted}"), || {
            (place.get(&["pod", "p"])["status"]["resources"]["limits"] == wanted).then_some(())
        });
        let bytes = memory.trim_end_matches("Mi").parse::<i64>().unwrap() << 20;
        assert_eq!(group("a", 1), told(quota, bytes));
        assert_eq!(group("a", 0), told(quota, bytes));
        assert_eq!(group("b", 0), told("10000", bytes));
    }
    for name in ["a", "b"] {
        let status = status_of(&place, "p", "containerStatuses", name).unwrap();
        assert_eq!(status["restartCount"], 0);
    }
    until_event(&place, "p", "Pod resize completed: ");
    let too_much = json!({"spec": {"resources": {"requests": {"memory": "900Gi"}, "limits": {"memory": "900Gi"}}}});
    let refused = place.kubectl(&[
        "patch",
        "pod",
        "p",
        "--subresource",
        "resize",
        "-p",
        &too_much.to_string(),
    ]);
    let refused = fail(&refused);
    assert!(
        refused
            .contains("node didn't have enough allocatable resources: memory, requested: 966367641600, allocatable: "),
        "{refused}"
    );
}

#[test]
fn claims_wait_for_drivers_that_are_not_there() {
    let place = shared().workplace("node-claims");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [
            {name: c, image: 'IMAGE', resources: {claims: [{name: gpu}]}}],
            resourceClaims: [{name: gpu, resourceClaimName: mine}]}}",
    );
    until_pods(shared(), &place, "the scheduler's reason", || {
        let told = condition(&place, "p", "PodScheduled")?;
        let message = told["message"].as_str()?;
        (told["status"] == "False" && message.contains("resource claims are not supported")).then_some(())
    });
    // Past the scheduler it gets no further either.
    let node = name(shared());
    create(
        &place,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: bound}}, spec: {{nodeName: {node}, containers: [
            {{name: c, image: 'IMAGE', resources: {{claims: [{{name: gpu}}]}}}}],
            resourceClaims: [{{name: gpu, resourceClaimName: mine}}]}}}}"
        ),
    );
    until_event(&place, "bound", "Failed to prepare dynamic resources: ");
    assert!(place.get(&["pod", "bound"])["status"]["containerStatuses"][0]["state"]["running"].is_null());
}
