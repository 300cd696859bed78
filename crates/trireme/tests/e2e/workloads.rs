//! What controllers and scheduler do, seen through `kubectl`: the objects behind a Deployment and a Service, garbage
//! collection, namespaces and their content.

use serde_json::{Value, json};

use testkit::HollowNode;

use crate::cluster::{Cluster, PATIENCE, Workplace, fail};

/// A namespace with a Deployment of that many pods, all of them available.
fn with_deployment(namespace: &str, replicas: u32) -> Workplace {
    let place = Cluster::shared().workplace(namespace);
    place.kubectl_ok(&[
        "create",
        "deployment",
        "web",
        "--image=nginx:1",
        &format!("--replicas={replicas}"),
        "--port=80",
    ]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    place
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[test]
fn objects_of_a_deployment_own_each_other() {
    let place = with_deployment("w-owners", 2);
    let deployment = place.get(&["deployment", "web"]);
    let sets = place.get(&["replicasets"]);
    let set = &sets["items"][0];
    let hash = set["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
    assert_eq!(set["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(
        set["metadata"]["ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": deployment["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true}])
    );
    let pods = place.get(&["pods"]);
    assert_eq!(pods["items"].as_array().unwrap().len(), 2);
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["metadata"]["generateName"], format!("web-{hash}-"));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], set["metadata"]["uid"]);
        assert_eq!(pod["spec"]["nodeName"], "fake-0");
    }
    assert_eq!(deployment["status"]["availableReplicas"], 2);
    assert_eq!(
        deployment["status"]["observedGeneration"],
        deployment["metadata"]["generation"]
    );
}

#[test]
fn a_replication_controller_keeps_its_pods() {
    let place = Cluster::shared().workplace("w-forerunner");
    let controller = r#"{"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}}"#;
    let created = place.kubectl_with(&["create", "-f", "-"], controller);
    assert!(created.status.success(), "{created:?}");
    place.wait("rc/web", "jsonpath={.status.readyReplicas}=2");
    place.kubectl_ok(&["scale", "rc/web", "--replicas=1"]);
    place.wait("rc/web", "jsonpath={.status.replicas}=1");
    let status = &place.get(&["rc", "web"])["status"];
    assert_eq!(status["observedGeneration"], 2, "{status}");
    assert_eq!(status["availableReplicas"], 1, "{status}");
}

#[test]
fn a_deleted_pod_is_replaced() {
    let place = with_deployment("w-replace", 1);
    let before = place.get(&["pods"]);
    place.kubectl_ok(&["delete", "pod", names(&before)[0]]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    place.wait("deployment/web", "jsonpath={.status.availableReplicas}=1");
    let after = place.get(&["pods"]);
    assert_eq!(names(&after).len(), 1);
    assert_ne!(names(&after), names(&before));
}

#[test]
fn ready_pods_are_endpoints_of_their_service() {
    let place = with_deployment("w-endpoints", 2);
    place.kubectl_ok(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]);
    place.kubectl_ok(&[
        "wait",
        "--for=jsonpath={.endpoints[1].conditions.ready}=true",
        "endpointslice",
        "-l",
        "kubernetes.io/service-name=web",
        PATIENCE,
    ]);
    let pods = place.get(&["pods"]);
    let mut addresses: Vec<&str> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap())
        .collect();
    addresses.sort_unstable();
    let slices = place.get(&["endpointslices", "-l", "kubernetes.io/service-name=web"]);
    let slice = &slices["items"][0];
    let mut there: Vec<&str> = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["addresses"][0].as_str().unwrap())
        .collect();
    there.sort_unstable();
    assert_eq!(there, addresses);
    assert_eq!(slice["ports"], json!([{"name": "", "port": 8080, "protocol": "TCP"}]));
    place.wait("endpoints/web", "jsonpath={.subsets[0].addresses[1].ip}");

    // A pod that is not ready leaves.
    let name = names(&pods)[0];
    let unready = r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#;
    place.kubectl_ok(&["patch", "pod", name, "--subresource=status", "-p", unready]);
    let index = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .position(|end| end["targetRef"]["name"] == name)
        .unwrap();
    place.wait(
        &format!("endpointslice/{}", slice["metadata"]["name"].as_str().unwrap()),
        &format!("jsonpath={{.endpoints[{index}].conditions.ready}}=false"),
    );
    place.wait("deployment/web", "jsonpath={.status.availableReplicas}=1");

    // A service that goes takes them along.
    place.kubectl_ok(&["delete", "service", "web"]);
    place.kubectl_ok(&[
        "wait",
        "--for=delete",
        "endpointslice",
        "-l",
        "kubernetes.io/service-name=web",
        PATIENCE,
    ]);
    place.kubectl_ok(&["wait", "--for=delete", "endpoints/web", PATIENCE]);
}

#[test]
fn a_rolling_update_never_has_too_few_or_too_many_pods() {
    let place = with_deployment("w-rolling", 4);
    place.kubectl_ok(&["set", "image", "deployment/web", "nginx=nginx:2"]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    let sets = place.get(&["replicasets"]);
    let mut replicas: Vec<(i64, &str)> = sets["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| {
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"]
                .as_str()
                .unwrap();
            (set["spec"]["replicas"].as_i64().unwrap(), image)
        })
        .collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [(0, "nginx:1"), (4, "nginx:2")]);
    // 25% of 4: one more and one less than four at any time. The events tell each step.
    let events = place.get(&[
        "events",
        "--field-selector",
        "involvedObject.kind=Deployment,reason=ScalingReplicaSet",
    ]);
    let steps: Vec<String> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["message"].as_str().unwrap().to_owned())
        .collect();
    assert!(steps.iter().any(|step| step.ends_with("from 4 to 3")), "{steps:?}");
    assert!(steps.iter().all(|step| !step.ends_with("to 5")), "{steps:?}");
    place.kubectl_ok(&["rollout", "undo", "deployment/web"]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    let deployment = place.get(&["deployment", "web"]);
    assert_eq!(
        deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
        "3"
    );
}

#[test]
fn deleting_an_owner_deletes_or_orphans_what_it_owns() {
    for (cascade, orphans) in [("background", false), ("foreground", false), ("orphan", true)] {
        let place = with_deployment(&format!("w-gc-{cascade}"), 1);
        place.kubectl_ok(&["delete", "deployment", "web", &format!("--cascade={cascade}"), PATIENCE]);
        fail(&place.kubectl(&["get", "deployment", "web"]));
        if orphans {
            let sets = place.get(&["replicasets"]);
            assert_eq!(
                sets["items"][0]["metadata"]["ownerReferences"],
                Value::Null,
                "{cascade}"
            );
            assert_eq!(sets["items"][0]["status"]["readyReplicas"], 1);
            assert_eq!(names(&place.get(&["pods"])).len(), 1);
            place.kubectl_ok(&["delete", "replicaset", "--all", "--cascade=background"]);
        }
        place.kubectl_ok(&["wait", "--for=delete", "replicaset", "-l", "app=web", PATIENCE]);
        place.kubectl_ok(&["wait", "--for=delete", "pod", "-l", "app=web", PATIENCE]);
        assert_eq!(names(&place.get(&["pods,replicasets"])), [""; 0], "{cascade}");
    }
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let place = with_deployment("w-namespace", 2);
    place.kubectl_ok(&["expose", "deployment", "web", "--port=80"]);
    place.kubectl_ok(&["create", "configmap", "held"]);
    place.kubectl_ok(&[
        "patch",
        "configmap",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":["example.com/hold"]}}"#,
    ]);
    place.kubectl_ok(&["delete", "namespace", "w-namespace", "--wait=false"]);

    // A finalizer of somebody holds it, and the namespace says so. Source: pkg/controller/namespace/deletion/status_condition_utils.go
    place.wait("namespace/w-namespace", "condition=NamespaceFinalizersRemaining");
    let namespace = place.get(&["namespace", "w-namespace"]);
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let conditions = namespace["status"]["conditions"].as_array().unwrap();
    let message = |kind: &str| {
        let condition = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
        (
            condition["status"].as_str().unwrap().to_owned(),
            condition["message"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(
        message("NamespaceFinalizersRemaining"),
        (
            "True".into(),
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances".into()
        )
    );
    assert_eq!(
        message("NamespaceDeletionDiscoveryFailure").1,
        "All resources successfully discovered"
    );
    let error = fail(&place.kubectl(&["create", "configmap", "late"]));
    let expected = "error: failed to create configmap: configmaps \"late\" is forbidden: unable to create new content in namespace w-namespace because it is being terminated\n";
    assert_eq!(error, expected);

    place.kubectl_ok(&[
        "patch",
        "configmap",
        "held",
        "--type=merge",
        "-p",
        r#"{"metadata":{"finalizers":null}}"#,
    ]);
    place.kubectl_ok(&["wait", "--for=delete", "namespace/w-namespace", PATIENCE]);
    let kinds =
        "pods,replicasets,deployments,services,endpoints,endpointslices,configmaps,secrets,serviceaccounts,events";
    let left = place.get(&[kinds, "-A", "--field-selector", "metadata.namespace=w-namespace"]);
    assert_eq!(names(&left), [""; 0]);
    // The same name is free again.
    place.kubectl_ok(&["create", "namespace", "w-namespace"]);
    place.wait("serviceaccount/default", "create");
}

#[test]
fn cluster_ips_are_given_once_kept_and_given_back() {
    let place = Cluster::shared().workplace("w-addresses");
    let address = |name: &str| {
        place.get(&["service", name])["spec"]["clusterIP"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    place.kubectl_ok(&["create", "service", "clusterip", "a", "--tcp=80"]);
    place.kubectl_ok(&["create", "service", "clusterip", "b", "--tcp=80"]);
    place.kubectl_ok(&[
        "create",
        "service",
        "clusterip",
        "headless",
        "--tcp=80",
        "--clusterip=None",
    ]);
    let (a, b) = (address("a"), address("b"));
    assert_ne!(a, b);
    assert_eq!(address("headless"), "None");
    let taken = fail(&place.kubectl(&[
        "create",
        "service",
        "clusterip",
        "c",
        "--tcp=80",
        &format!("--clusterip={a}"),
    ]));
    // Source: pkg/registry/core/service/ipallocator (ErrAllocated), storage/alloc.go
    let expected = format!(
        "error: failed to create ClusterIP service: Service \"c\" is invalid: spec.clusterIPs: Invalid value: [\"{a}\"]: failed to allocate IP {a}: provided IP is already allocated\n"
    );
    assert_eq!(taken, expected);
    let changed = fail(&place.kubectl(&[
        "patch",
        "service",
        "a",
        "-p",
        &format!(r#"{{"spec":{{"clusterIP":"{b}","clusterIPs":["{b}"]}}}}"#),
    ]));
    assert!(
        changed.contains("spec.clusterIPs[0]: Invalid value: [\"") && changed.contains("may not change once set"),
        "{changed}"
    );
    place.kubectl_ok(&["delete", "service", "a"]);
    place.kubectl_ok(&[
        "create",
        "service",
        "clusterip",
        "c",
        "--tcp=80",
        &format!("--clusterip={a}"),
    ]);
    assert_eq!(address("c"), a, "an address that was given back can be asked for");
}

#[test]
fn pods_wait_for_a_node_that_fits() {
    let place = Cluster::shared().workplace("w-scheduling");
    for (name, spec, message) in [
        (
            "selector",
            r#""nodeSelector":{"disk":"ssd"}"#,
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        ("memory", r#""x":0"#, "1 Insufficient memory"),
    ] {
        let requests = if name == "memory" {
            r#","resources":{"requests":{"memory":"1Ti"}}"#
        } else {
            ""
        };
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"{requests}}}]{}}}}}"#,
            if name == "memory" {
                String::new()
            } else {
                format!(",{spec}")
            }
        );
        crate::cluster::succeed(&place.kubectl_with(&["create", "-f", "-"], &pod));
        place.wait(&format!("pod/{name}"), "condition=PodScheduled=false");
        let pod = place.get(&["pod", name]);
        let condition = &pod["status"]["conditions"][0];
        assert_eq!(condition["reason"], "Unschedulable");
        let text = condition["message"].as_str().unwrap();
        let expect = format!(
            "0/1 nodes are available: {message}. no new claims to deallocate, preemption: 0/1 nodes are available: \
             1 Preemption is not helpful for scheduling."
        );
        assert_eq!(text, expect);
    }
}

#[test]
fn a_drain_waits_for_the_budget() {
    // Its nodes are cordoned, which would be in the way of others.
    let cluster = Cluster::start();
    let _drained = HollowNode::start(cluster.client(), "drained");
    let place = cluster.workplace("w-drain");
    let budget = ["create", "pdb", "web", "--selector=app=web", "--min-available=100%"];
    place.kubectl_ok(&budget);
    place.kubectl_ok(&["create", "deployment", "web", "--image=nginx:1", "--replicas=4"]);
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    let counted = r#"jsonpath={.status.currentHealthy}=4"#;
    place.wait("pdb/web", counted);
    // From here on there is a place to go to.
    let _other = HollowNode::start(cluster.client(), "other");
    let seen = place.kubectl_ok(&["get", "pdb", "web"]);
    assert!(
        seen.contains("ALLOWED DISRUPTIONS") && seen.contains("100%") && seen.contains("N/A"),
        "{seen}"
    );
    let drain = |patience: &str| place.kubectl(&["drain", "drained", patience]);
    let said = fail(&drain("--timeout=2s"));
    assert!(
        said.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{said}"
    );
    let pods = place.get(&["pods"]);
    assert_eq!(pods["items"].as_array().unwrap().len(), 4, "nothing went");
    let two = r#"{"spec": {"minAvailable": 2}}"#;
    place.kubectl_ok(&["patch", "pdb", "web", "--type=merge", "-p", two]);
    place.wait("pdb/web", r#"jsonpath={.status.disruptionsAllowed}=2"#);
    let said = drain(PATIENCE);
    assert!(said.status.success(), "{}", fail(&said));
    let pods = place.get(&["pods", "--field-selector=spec.nodeName=drained"]);
    assert_eq!(pods["items"], json!([]));
    place.kubectl_ok(&["rollout", "status", "deployment/web", PATIENCE]);
    place.wait("pdb/web", counted);
}
