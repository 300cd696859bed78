//! Pods that are resized while they run.

use serde_json::{Value, json};

use crate::cluster::{Workplace, fail};
use crate::node_cluster::{cgroup_directories, create, process_of, shared, until_event, until_pods};

fn resize(place: &Workplace, pod: &str, resources: &Value) {
    let patch = json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
    place.kubectl_ok(&["patch", "pod", pod, "--subresource", "resize", "-p", &patch.to_string()]);
}

fn until_given(place: &Workplace, pod: &str, resources: &Value) -> Value {
    until_pods(shared(), place, &format!("{pod} with {resources}"), || {
        let status = place.get(&["pod", pod])["status"]["containerStatuses"][0].clone();
        let is_given = status["resources"] == *resources && status["state"]["running"].is_object();
        is_given.then_some(status)
    })
}

#[test]
fn a_pod_is_resized_in_place() {
    let place = shared().workplace("node-resize");
    let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": "400m", "memory": "64Mi"}});
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 1, containers: [
            {name: c, image: 'IMAGE', command: [/bin/demo, sleep, inf],
             resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}],
             resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 400m, memory: 64Mi}}}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let before = until_given(&place, "p", &resources("10m", "16Mi"));
    let id = before["containerID"].as_str().unwrap().to_owned();
    let process = process_of(&id);

    // CPU, and less memory asked for: the container goes on, its control group tells.
    let quota = json!({"requests": {"cpu": "20m", "memory": "8Mi"}, "limits": {"cpu": "300m", "memory": "64Mi"}});
    resize(&place, "p", &quota);
    let after = until_given(&place, "p", &quota);
    assert_eq!(after["allocatedResources"], quota["requests"]);
    assert_eq!(
        (&after["containerID"], after["restartCount"].as_i64()),
        (&json!(id), Some(0))
    );
    assert_eq!(process_of(&id), process);
    let pid = process.split(' ').next().unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| {
        let path = line.split(':').nth(2)?;
        path.contains(id.rsplit('/').next()?)
            .then(|| path.trim_start_matches('/').to_owned())
    });
    let files = cgroup_directories(&own.unwrap());
    let read = |name: &str| {
        files
            .iter()
            .find_map(|dir| std::fs::read_to_string(dir.join(name)).ok())
    };
    let told = read("cpu.cfs_quota_us").or_else(|| read("cpu.max")).unwrap();
    assert!(told.starts_with("30000"), "{told}");

    // Memory: this container wants to be started anew for it.
    let memory = json!({"requests": {"cpu": "20m", "memory": "8Mi"}, "limits": {"cpu": "300m", "memory": "96Mi"}});
    resize(&place, "p", &memory);
    let after = until_given(&place, "p", &memory);
    assert_eq!(after["restartCount"], 1);

    // More than the node has: nobody takes it.
    let wish = json!({"spec": {"containers": [{"name": "c", "resources": {
        "requests": {"cpu": "20m", "memory": "900Gi"}, "limits": {"cpu": "300m", "memory": "900Gi"}}}]}});
    let refused = place.kubectl(&["patch", "pod", "p", "--subresource", "resize", "-p", &wish.to_string()]);
    let expect = format!("memory, requested: {}, allocatable: ", 900_i64 << 30);
    let refused = fail(&refused);
    assert!(refused.contains(&expect), "{refused}");
    let status = &place.get(&["pod", "p"])["status"]["containerStatuses"][0];
    assert_eq!(
        (&status["resources"], &status["allocatedResources"]),
        (&memory, &memory["requests"])
    );
    for expect in [
        "Pod resize started: {\"containers\":[{\"name\":\"c\"",
        "Pod resize completed: ",
        "Container c resize requires restart",
    ] {
        until_event(&place, "p", expect);
    }
}
