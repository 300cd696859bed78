//! Pods reach pods, Services and names, people reach them through the API server, and nothing else answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sys::netns::NetworkNamespace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::{Workplace, fail};
use crate::node_cluster::{OTHER_IMAGE, create, holder, pods, shared, until};

const WEB: &str = r#"
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 2, selector: {matchLabels: {app: web}},
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}},
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'IMAGE', ports: [{name: http, containerPort: 8080}],
    readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 1}}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}}
"#;

fn ready(place: &Workplace) {
    place.kubectl_ok(&["rollout", "status", "deployment/web", crate::cluster::PATIENCE]);
}

#[test]
fn services_and_names_lead_to_pods() {
    let place = shared().workplace("node-net");
    create(&place, WEB);
    create(
        &place,
        r#"
{apiVersion: v1, kind: Service, metadata: {name: headless}, spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {selector: {app: nobody}, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: alone, labels: {app: alone}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: 'IMAGE', env: [{name: DRAIN_SECONDS, value: '0'}]}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: alone}, spec: {selector: {app: alone}, ports: [{port: 80, targetPort: 8080}]}}
"#,
    );
    ready(&place);
    place.wait("pod/alone", "condition=Ready");
    let run = |words: &[&str]| place.kubectl_ok(&[&["exec", "alone", "--", "/bin/demo"], words].concat());
    let refused = |words: &[&str]| fail(&place.kubectl(&[&["exec", "alone", "--", "/bin/demo"], words].concat()));
    let web = pods(&place, "app=web");
    let addresses: BTreeSet<&str> = web
        .values()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap())
        .collect();
    let cluster_ip = place.get(&["service", "web"])["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    until("the endpoints at work", || {
        let said = place.kubectl(&["exec", "alone", "--", "/bin/demo", "get", "http://web/count"]);
        said.status.success().then_some(())
    });

    // Twenty connections meet both pods but for one case in half a million.
    for url in [
        format!("http://{cluster_ip}/"),
        "http://web/".into(),
        "http://web.node-net.svc.cluster.local/".into(),
    ] {
        let said = run(&["get", &url, "20"]);
        let seen: BTreeSet<&str> = said
            .split_whitespace()
            .filter(|word| word.starts_with("web-"))
            .collect();
        assert_eq!(seen, web.keys().map(String::as_str).collect(), "{url}");
    }
    for name in [
        "web",
        "web.node-net",
        "web.node-net.svc",
        "web.node-net.svc.cluster.local",
        "web.node-net.svc.cluster.local.",
    ] {
        assert_eq!(run(&["resolve", name]).trim(), cluster_ip, "{name}");
    }
    let headless = run(&["resolve", "headless"]);
    assert_eq!(headless.lines().collect::<BTreeSet<_>>(), addresses);
    // A pod meets itself through its own Service.
    assert_eq!(run(&["get", "http://alone.node-net/hostname"]), "alone\n");
    for address in &addresses {
        assert!(run(&["get", &format!("http://{address}:8080/hostname")]).starts_with("web-"));
    }
    for (url, expect) in [
        ("http://10.111.222.33/", "Connection refused"),
        ("http://nobody/", "Connection refused"),
        (&format!("http://{cluster_ip}:81/"), "Connection refused"),
        ("http://absent/", "no such host"),
        ("http://example.com/", "no such host"),
    ] {
        let said = refused(&["get", url]);
        let expected = said.contains(expect) || (expect == "no such host" && said.contains("get: "));
        assert!(expected, "{url}: {said}");
    }

    // From the outside, through the API server.
    let raw = |path: &str| place.kubectl_ok(&["get", "--raw", &format!("/api/v1/namespaces/node-net/{path}")]);
    for path in [
        "services/web/proxy/hostname",
        "services/web:http/proxy/hostname",
        "services/http:web:http/proxy/hostname",
        "services/web:80/proxy/hostname",
    ] {
        assert!(web.contains_key(raw(path).trim()), "{path}");
    }
    assert_eq!(raw("pods/alone:8080/proxy/hostname"), "alone\n");
    let said = fail(&place.kubectl(&["get", "--raw", "/api/v1/namespaces/node-net/services/nobody/proxy/"]));
    assert!(said.contains("no endpoints available for service"), "{said}");

    // What is gone does not answer any more.
    place.kubectl_ok(&["delete", "service", "web"]);
    until("the Service's end", || {
        let said = place.kubectl(&[
            "exec",
            "alone",
            "--",
            "/bin/demo",
            "get",
            &format!("http://{cluster_ip}/"),
        ]);
        String::from_utf8_lossy(&said.stderr)
            .contains("Connection refused")
            .then_some(())
    });
}

/// Every answer of the load: pod and number.
type Answers = Vec<Result<(String, u64), String>>;

#[test]
fn updates_under_load_fail_nobody() {
    let place = shared().workplace("node-roll");
    create(&place, WEB);
    ready(&place);
    let namespace = Arc::new(NetworkNamespace::open(format!("/proc/{}/ns/net", holder(shared())).as_ref()).unwrap());
    let service = place.get(&["service", "web"])["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let service: SocketAddr = format!("{service}:80").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    until("the Service answering", || {
        runtime.block_on(ask(&namespace, service, "/count")).ok()
    });

    let stop = Arc::new(AtomicBool::new(false));
    let load = runtime.spawn(load(namespace, service, stop.clone()));
    for words in [
        vec!["set", "env", "deployment/web", "ROUND=1"],
        vec!["set", "image", "deployment/web", &format!("c={OTHER_IMAGE}")],
        vec!["rollout", "restart", "deployment/web"],
    ] {
        let before: BTreeSet<String> = pods(&place, "app=web").into_keys().collect();
        place.kubectl_ok(&words);
        ready(&place);
        let new = place.get(&["replicasets", "-l", "app=web"]);
        assert!(
            new["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|set| set["status"]["readyReplicas"] == 2),
            "{before:?}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    let (answers, took) = runtime.block_on(load).unwrap();

    let failures: Vec<&String> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(
        failures.is_empty(),
        "{} of {}: {:?}",
        failures.len(),
        answers.len(),
        &failures[..failures.len().min(5)]
    );
    let rate = answers.len() as f64 / took.as_secs_f64();
    println!("{} connections in {took:?}, {rate:.0}/s", answers.len());
    assert!(answers.len() >= 100, "{} connections say little", answers.len());
    let mut numbers: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (pod, number) in answers.into_iter().flatten() {
        assert!(
            numbers.entry(pod.clone()).or_default().insert(number),
            "{pod} said {number} twice"
        );
    }
    assert!(
        numbers.len() >= 8,
        "two pods and three times two more: {:?}",
        numbers.keys()
    );
    for (pod, numbers) in numbers {
        assert_eq!(numbers, (1..=numbers.len() as u64).collect(), "{pod}");
    }
}

/// A new connection every few milliseconds until it is stopped.
async fn load(namespace: Arc<NetworkNamespace>, service: SocketAddr, stop: Arc<AtomicBool>) -> (Answers, Duration) {
    let (mut tasks, begun) = (tokio::task::JoinSet::new(), Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(4));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    while !stop.load(Ordering::SeqCst) {
        tick.tick().await;
        let namespace = namespace.clone();
        tasks.spawn(async move {
            let text = ask(&namespace, service, "/").await.map_err(|error| error.to_string())?;
            let words: Vec<&str> = text.split_whitespace().collect();
            match words[..] {
                [pod, "has", "answered", number] => Ok((pod.to_owned(), number.parse().map_err(|_| text.clone())?)),
                _ => Err(format!("not an answer: {text:?}")),
            }
        });
    }
    let answers = tasks.join_all().await;
    (answers, begun.elapsed())
}

async fn ask(namespace: &NetworkNamespace, service: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = network::dial_in(namespace, service, Duration::from_secs(10)).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(format!("{answer:?}"))),
    }
}

/// A pod in the node's network has its address and name, answers there, and its port is the node's.
#[test]
fn a_pod_may_use_the_nodes_network() {
    let place = shared().workplace("node-host-network");
    create(
        &place,
        "
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true, containers: [{name: c, image: 'IMAGE',
  env: [{name: PORT, value: '18080'}], ports: [{containerPort: 18080}], readinessProbe: {httpGet: {path: /readyz, port: 18080}, periodSeconds: 1}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: guest}, spec: {containers: [{name: c, image: 'IMAGE'}]}}
",
    );
    place.wait("pod/host", "condition=Ready");
    place.wait("pod/guest", "condition=Ready");
    let (host, guest) = (place.get(&["pod", "host"]), place.get(&["pod", "guest"]));
    let address = host["status"]["hostIP"].as_str().unwrap();
    assert_eq!(host["status"]["podIP"], address);
    assert_eq!(host["spec"]["containers"][0]["ports"][0]["hostPort"], 18080);
    assert_ne!(guest["status"]["podIP"], address);
    let run = |pod: &str, words: &[&str]| place.kubectl_ok(&[&["exec", pod, "--", "/bin/demo"], words].concat());
    let node = crate::node_cluster::name(shared());
    assert_eq!(run("host", &["hostname"]).trim(), node);
    assert_eq!(run("guest", &["hostname"]).trim(), "guest");
    let url = format!("http://{address}:18080/hostname");
    assert_eq!(run("guest", &["get", &url]).trim(), node);
    // The links of pods are seen from the node, and only the own one from a pod.
    let links = |pod: &str| {
        let table = run(pod, &["cat", "/proc/net/dev"]);
        let ours = table.lines().filter(|line| line.trim_start().starts_with("tri"));
        ours.count()
    };
    assert!(links("host") > 0);
    assert_eq!(links("guest"), 0);
}

#[test]
fn host_ports_lead_to_pods_by_address_and_protocol() {
    let place = shared().workplace("node-host-ports");
    let port = |address: &str, protocol: &str| {
        format!("{{containerPort: 8080, hostPort: 18099, hostIP: '{address}', protocol: {protocol}}}")
    };
    let address = "10.243.0.10";
    let pods = [
        ("near", port("127.0.0.1", "TCP")),
        ("far", port(address, "TCP")),
        ("datagrams", port(address, "UDP")),
    ];
    let pods = pods.map(|(name, port)| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1,
               containers: [{{name: c, image: 'IMAGE', env: [{{name: DRAIN_SECONDS, value: '0'}}], ports: [{port}]}}]}}}}\n---\n"
        )
    });
    let host = "{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true, terminationGracePeriodSeconds: 0,
               containers: [{name: c, image: 'IMAGE', env: [{name: PORT, value: '18098'}]}]}}";
    create(&place, &(pods.concat() + host));
    for pod in ["near", "far", "datagrams", "host"] {
        place.wait(&format!("pod/{pod}"), "condition=Ready");
    }
    let said = place.get(&["pod", "host"]);
    assert_eq!(said["status"]["hostIP"], address);
    let get = |from: &str, address: &str| {
        let url = format!("http://{address}:18099/hostname");
        place.kubectl_ok(&["exec", from, "--", "/bin/demo", "get", &url])
    };
    for (from, address, expect) in [
        ("host", "127.0.0.1", "near"),
        ("host", address, "far"),
        ("near", address, "far"),
        ("far", address, "far"),
    ] {
        assert_eq!(get(from, address).trim(), expect, "from {from} to {address}");
    }
    // The port goes with its pod.
    place.kubectl_ok(&["delete", "pod", "far"]);
    let url = format!("http://{address}:18099/hostname");
    let said = fail(&place.kubectl(&["exec", "near", "--", "/bin/demo", "get", &url]));
    assert!(said.contains("Connection refused"), "{said}");
}

#[test]
fn node_ports_lead_to_services() {
    let place = shared().workplace("node-ports");
    create(
        &place,
        "
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: 'IMAGE'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true, terminationGracePeriodSeconds: 0,
  containers: [{name: c, image: 'IMAGE', env: [{name: PORT, value: '18097'}]}]}}
",
    );
    for pod in ["web", "host"] {
        place.wait(&format!("pod/{pod}"), "condition=Ready");
    }
    place.kubectl_ok(&[
        "expose",
        "pod",
        "web",
        "--type=LoadBalancer",
        "--port=80",
        "--target-port=8080",
    ]);
    let service = place.get(&["service", "web"]);
    let port = &service["spec"]["ports"][0]["nodePort"];
    let seen = place.kubectl_ok(&["get", "service", "web"]);
    assert!(
        seen.contains(&format!("80:{port}/TCP")) && seen.contains("<pending>"),
        "{seen}"
    );
    let address = place.get(&["pod", "host"])["status"]["hostIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let url = format!("http://{address}:{port}/hostname");
    // The rules come after the endpoints.
    let said = until("the node port at work", || {
        let said = place.kubectl(&["exec", "host", "--", "/bin/demo", "get", &url]);
        said.status.success().then(|| String::from_utf8(said.stdout).unwrap())
    });
    assert_eq!(said.trim(), "web");
    assert_eq!(
        place
            .kubectl_ok(&["exec", "web", "--", "/bin/demo", "get", &url])
            .trim(),
        "web"
    );
    place.kubectl_ok(&["patch", "service", "web", "-p", r#"{"spec": {"type": "ClusterIP"}}"#]);
    let closed = until("the node port's end", || {
        let said = place.kubectl(&["exec", "host", "--", "/bin/demo", "get", &url]);
        (!said.status.success()).then(|| fail(&said))
    });
    assert!(closed.contains("Connection refused"), "{closed}");
}

#[test]
fn ranges_of_services_come_and_go() {
    // A cluster of its own: another range is another table of rules for everybody.
    let cluster = crate::node_cluster::start();
    let place = cluster.workplace("ranges");
    let first = place.kubectl_ok(&["get", "servicecidr"]);
    assert!(
        first.contains("kubernetes") && first.contains("10.96.0.0/12"),
        "{first}"
    );
    place.kubectl_ok(&[
        "wait",
        "servicecidr/kubernetes",
        "--for=condition=Ready",
        crate::cluster::PATIENCE,
    ]);
    let seen = place.kubectl_ok(&["get", "ipaddress"]);
    assert!(
        seen.contains("services/default/kubernetes") && seen.contains("services/kube-system/kube-dns"),
        "{seen}"
    );
    create(
        &place,
        "
{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [203.0.113.0/24]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: 'IMAGE'}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: host}, spec: {hostNetwork: true, terminationGracePeriodSeconds: 0,
  containers: [{name: c, image: 'IMAGE', env: [{name: PORT, value: '18098'}]}]}}
",
    );
    place.wait("servicecidr/more", "condition=Ready");
    create(
        &place,
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 203.0.113.10, selector: {app: web}, \
         ports: [{port: 80, targetPort: 8080}]}}",
    );
    let seen = place.kubectl_ok(&["get", "ipaddress", "203.0.113.10"]);
    assert!(seen.contains("services/ranges/web"), "{seen}");
    for pod in ["web", "host"] {
        place.wait(&format!("pod/{pod}"), "condition=Ready");
        let get = |url: &str| place.kubectl(&["exec", pod, "--", "/bin/demo", "get", url]);
        until("the Service at work", || {
            let said = get("http://203.0.113.10/hostname");
            said.status.success().then_some(())
        });
        let said = fail(&get("http://203.0.113.99/"));
        assert!(said.contains("Connection refused"), "from {pod}: {said}");
    }
    // It stays while somebody has an address of it, and gives no more of them.
    place.kubectl_ok(&["delete", "servicecidr", "more", "--wait=false"]);
    place.wait(
        "servicecidr/more",
        r#"jsonpath={.status.conditions[0].reason}=Terminating"#,
    );
    let said = fail(&place.kubectl(&[
        "create",
        "service",
        "clusterip",
        "x",
        "--clusterip=203.0.113.11",
        "--tcp=80",
    ]));
    assert!(
        said.contains("the provided network does not match the current range"),
        "{said}"
    );
    // What somebody removes by hand is made again.
    place.kubectl_ok(&["delete", "ipaddress", "203.0.113.10"]);
    place.kubectl_ok(&[
        "wait",
        "ipaddress/203.0.113.10",
        "--for=create",
        crate::cluster::PATIENCE,
    ]);
    place.kubectl_ok(&["delete", "service", "web"]);
    place.wait("servicecidr/more", "delete");
    let said = place.kubectl_ok(&["get", "ipaddress"]);
    assert!(!said.contains("203.0.113"), "{said}");
}
