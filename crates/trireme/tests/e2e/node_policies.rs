//! NetworkPolicies as people use them: what is denied is denied from a pod's first packet on, and what is allowed works by
//! address, name and port.

use crate::cluster::{Workplace, fail};
use crate::node_cluster::{create, shared, until};

const SERVER: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: server, labels: {app: server}}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}], ports: [{name: web, containerPort: 8080}],
    readinessProbe: {httpGet: {path: /readyz, port: web}, periodSeconds: 1}}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: server}, spec: {selector: {app: server}, ports: [{port: 80, targetPort: web}]}}
---
";
const CLIENT: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: client, labels: {app: client}}, spec: {terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}]}]}}
";
const DENY_ALL: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: deny-all}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
";
/// Clients of the other namespace, by the name of the port.
const ALLOW: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow}, spec: {podSelector: {matchLabels: {app: server}},
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: netpol-other}}, podSelector: {matchLabels: {app: client}}}],
    ports: [{port: web}]}]}}
";
/// As charts write it.
const ALLOW_DNS: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: allow-dns}, spec: {podSelector: {}, policyTypes: [Egress],
  egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}],
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]}]}}
";

/// What the demo program says of a connection that gets no answer.
const NO_ANSWER: &str = "timed out";

#[track_caller]
fn reached(place: &Workplace, url: &str) {
    until("the way open", || {
        let said = place.kubectl(&["exec", "client", "--", "/bin/demo", "get", url]);
        said.status.success().then_some(())
    });
}

#[track_caller]
fn closed(place: &Workplace, url: &str) {
    until("the way closed", || {
        let said = place.kubectl(&["exec", "client", "--", "/bin/demo", "get", url]);
        (!said.status.success() && fail(&said).contains(NO_ANSWER)).then_some(())
    });
}

#[test]
fn policies_hold_for_pods_names_and_ports() {
    let here = shared().workplace("netpol");
    let other = shared().workplace("netpol-other");
    create(&here, &format!("{SERVER}{CLIENT}"));
    create(&other, CLIENT);
    for (place, pod) in [(&here, "server"), (&here, "client"), (&other, "client")] {
        place.wait(&format!("pod/{pod}"), "condition=Ready");
    }
    let address = |place: &Workplace, pod: &str| -> String {
        let pod = place.get(&["pod", pod]);
        pod["status"]["podIP"].as_str().unwrap().to_owned()
    };
    let direct = format!("http://{}:8080/hostname", address(&here, "server"));
    let by_service = "http://server.netpol.svc.cluster.local/hostname";
    for place in [&here, &other] {
        reached(place, &direct);
        reached(place, by_service);
    }

    create(&here, DENY_ALL);
    std::thread::scope(|scope| {
        scope.spawn(|| closed(&here, &direct));
        scope.spawn(|| closed(&other, &direct));
        scope.spawn(|| closed(&other, by_service));
    });
    let shown = here.kubectl_ok(&["get", "netpol"]);
    assert!(shown.contains("POD-SELECTOR") && shown.contains("deny-all"), "{shown}");
    let said = here.kubectl_ok(&["describe", "networkpolicy", "deny-all"]);
    assert!(said.contains("Policy Types: Ingress, Egress"), "{said}");

    // The first packet of a new pod; and the node's probes still reach one.
    let target = format!("http://{}:8080/hostname", address(&other, "client"));
    let first = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: first}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: 'IMAGE',
           command: [/bin/demo, get, '{target}']}}]}}}}\n---\n"
    );
    create(
        &here,
        &(first
            + &CLIENT.replace("name: client", "name: probed").replace(
                "env: [",
                "readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}, env: [",
            )),
    );
    here.wait("pod/probed", "condition=Ready");
    here.wait("pod/first", "jsonpath={.status.phase}=Failed");
    let said = here.kubectl_ok(&["logs", "first"]);
    assert!(said.contains(NO_ANSWER), "{said}");

    create(&here, ALLOW_DNS);
    until("names", || {
        let said = here.kubectl(&["exec", "client", "--", "/bin/demo", "resolve", "server"]);
        said.status.success().then_some(())
    });

    create(&here, ALLOW);
    reached(&other, by_service);
    reached(&other, &direct);
    let said = here.kubectl_ok(&["describe", "networkpolicy", "allow"]);
    for line in [
        "To Port: web/TCP",
        "NamespaceSelector: kubernetes.io/metadata.name=netpol-other",
        "PodSelector: app=client",
    ] {
        assert!(said.contains(line), "{said}");
    }
    // A client that is no longer one.
    other.kubectl_ok(&["label", "pod", "client", "app=nobody", "--overwrite"]);
    std::thread::scope(|scope| {
        scope.spawn(|| closed(&here, by_service));
        scope.spawn(|| closed(&other, &direct));
    });

    here.kubectl_ok(&["delete", "networkpolicy", "--all"]);
    for place in [&here, &other] {
        reached(place, &direct);
        reached(place, by_service);
    }
}
