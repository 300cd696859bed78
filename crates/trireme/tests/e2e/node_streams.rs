//! Ephemeral containers, attach and port-forward with the real `kubectl`, over WebSockets and over plain SPDY.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::cluster::{Workplace, succeed};
use crate::node_cluster::{IMAGE, create, shared, until, until_pods};
use crate::terminal::Terminal;

/// The variables that turn kubectl's WebSockets off.
const SPDY: [(&str, &str); 2] = [
    ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"),
    ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false"),
];

fn ephemeral(place: &Workplace, pod: &str, name: &str, state: &str) -> Value {
    until_pods(shared(), place, &format!("{name} as {state}"), || {
        let pod = place.get(&["pod", pod]);
        let statuses = pod["status"]["ephemeralContainerStatuses"].as_array()?.clone();
        let own = statuses.into_iter().find(|status| status["name"] == name)?;
        own["state"][state].is_object().then_some(own)
    })
}

#[test]
fn an_ephemeral_container_looks_into_its_target() {
    let place = shared().workplace("streams-debug");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'IMAGE', command: [/bin/demo, sleep, '100001']}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let debug = |name: &str, words: &[&str]| {
        let image = format!("--image={IMAGE}");
        let arguments = ["debug", "p", &image, "--target=c", "-c", name, "--", "/bin/demo"];
        place.kubectl_ok(&[&arguments, words].concat());
    };
    debug("look", &["sh", "-c", "echo here; sleep inf"]);
    ephemeral(&place, "p", "look", "running");
    let first = place.kubectl_ok(&["exec", "p", "-c", "look", "--", "/bin/demo", "cat", "/proc/1/cmdline"]);
    assert!(first.contains("100001"), "{first:?}");
    assert_eq!(place.kubectl_ok(&["logs", "p", "-c", "look"]), "here\n");
    debug("fails", &["exit", "3"]);
    let failed = ephemeral(&place, "p", "fails", "terminated");
    assert_eq!(
        (
            &failed["state"]["terminated"]["exitCode"],
            &failed["restartCount"],
            &failed["ready"]
        ),
        (&json!(3), &json!(0), &json!(false))
    );
    // Whether it runs or not is nothing to the pod.
    let pod = place.get(&["pod", "p"]);
    let ready = pod["status"]["conditions"].as_array().unwrap().iter();
    let ready: Vec<&Value> = ready.filter(|c| c["status"] != "True").collect();
    assert!(ready.is_empty() && pod["status"]["phase"] == "Running", "{ready:?}");
    until("the events of the container", || {
        let events = place.get(&["events", "--field-selector", "involvedObject.name=p"]);
        let events = events["items"].as_array()?.clone().into_iter();
        let of_look = events.filter(|event| event["involvedObject"]["fieldPath"] == "spec.ephemeralContainers{look}");
        let reasons: Vec<String> = of_look
            .filter_map(|event| Some(event["reason"].as_str()?.to_owned()))
            .collect();
        let are_there = ["Pulled", "Created", "Started"]
            .iter()
            .all(|reason| reasons.iter().any(|own| own == reason));
        are_there.then_some(())
    });
    place.kubectl_ok(&["delete", "pod", "p", "--grace-period=1"]);
}

#[test]
fn stdin_goes_to_a_container_that_is_attached() {
    let place = shared().workplace("streams-attach");
    let image = format!("--image={IMAGE}");
    let run = |name: &'static str, command: &'static str| {
        let options = ["run", "-i", "--rm", "--restart=Never", name, &image, "--command", "--"];
        [&options[..], &["/bin/demo", command]].concat()
    };
    let said = place.kubectl_with(&run("once", "cat"), "hello\n");
    assert!(succeed(&said).contains("hello\n"));
    // More than all buffers on the way hold, both ways at once.
    let (count, _) = place.shell(&format!(
        "head -c 3000000 /dev/zero | kubectl {} 2>/dev/null | tr -cd '\\0' | wc -c",
        run("bulk", "cat").join(" ")
    ));
    assert_eq!(count.trim(), "3000000");
    // The exit code is the container's.
    let failed = place.kubectl_with(&run("fails", "sh"), "exit 5\n");
    assert_eq!(failed.status.code(), Some(5), "{failed:?}");

    let words = [
        "run",
        "-it",
        "--rm",
        "--restart=Never",
        "tty",
        &image,
        "--command",
        "--",
        "/bin/demo",
        "sh",
    ];
    let mut shell = Terminal::kubectl(&place, &words, (97, 29));
    shell.see("pressing enter");
    shell.press("\n");
    shell.see("# ");
    shell.has_size((97, 29));
    shell.resize((61, 17));
    shell.has_size((61, 17));
    shell.press("exit 0\n");
    assert_eq!(shell.end("deleted"), 0);
}

#[test]
fn a_talking_container_is_listened_to() {
    let place = shared().workplace("streams-listen");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 0, containers: [
            {name: c, image: 'IMAGE', command: [/bin/demo, spam, '1000000', '20']},
            {name: quiet, image: 'IMAGE'}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    // Two at once, each from where it came in; that they leave is nothing to the container.
    let mut listeners: Vec<Child> = [&[][..], &SPDY]
        .map(|variables| {
            let mut command = place.command("kubectl");
            command.args(["attach", "p", "-c", "c"]).envs(variables.iter().copied());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .into();
    for listener in &mut listeners {
        let mut lines = BufReader::new(listener.stdout.take().unwrap()).lines();
        let numbers: Vec<u64> = (0..5)
            .map(|_| {
                lines
                    .next()
                    .unwrap()
                    .unwrap()
                    .rsplit(' ')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "{numbers:?}");
        listener.kill().unwrap();
        listener.wait().unwrap();
    }
    let pod = place.get(&["pod", "p"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    assert!(pod["status"]["containerStatuses"][0]["state"]["running"].is_object());
}

#[test]
fn commands_run_over_plain_spdy() {
    let place = shared().workplace("streams-spdy");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'IMAGE'}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let variables = SPDY.map(|(name, value)| format!("{name}={value}")).join(" ");
    let shell = |command: &str| place.shell(&format!("export {variables}; {command}"));
    assert_eq!(shell("kubectl exec p -- /bin/demo hostname"), ("p\n".into(), 0));
    assert_eq!(
        shell("kubectl exec p -- /bin/demo exit 7"),
        ("command terminated with exit code 7\n".into(), 7)
    );
    let (count, _) = shell("head -c 3000000 /dev/zero | kubectl exec -i p -- /bin/demo cat | wc -c");
    assert_eq!(count.trim(), "3000000");
}

/// A `kubectl port-forward`, and the port it listens on.
struct Forward {
    kubectl: Child,
    port: u16,
}

impl Forward {
    fn to(place: &Workplace, target: &str, port: &str, variables: &[(&str, &str)]) -> Forward {
        let mut command = place.command("kubectl");
        command
            .args(["port-forward", "--address", "127.0.0.1", target, &format!(":{port}")])
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut kubectl = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(kubectl.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line
            .strip_prefix("Forwarding from 127.0.0.1:")
            .and_then(|rest| rest.split(' ').next())
            .and_then(|port| port.parse().ok());
        let Some(port) = port else {
            let mut why = String::new();
            kubectl.stderr.as_mut().unwrap().read_to_string(&mut why).unwrap();
            panic!("{line:?} {why}");
        };
        Forward { kubectl, port }
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        // A connection that is refused inside ends here, somehow.
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// What it complained of until it is ended.
    fn end(mut self) -> String {
        let _ = self.kubectl.kill();
        let output = self.kubectl.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// A `kubectl proxy`, which speaks to the API for whoever asks it.
struct Proxy {
    kubectl: Child,
    port: u16,
}

impl Proxy {
    fn start(place: &Workplace) -> Proxy {
        let mut command = place.command("kubectl");
        command.args(["proxy", "--port=0"]).stdout(Stdio::piped());
        let mut kubectl = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(kubectl.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Proxy {
            kubectl,
            port: port.unwrap_or_else(|| panic!("{line:?}")),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Sends a message over a WebSocket: whole, binary, and masked with nothing, as a client may.
fn send_frame(stream: &mut TcpStream, payload: &[u8]) {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126, "a short message");
    stream
        .write_all(&[&[0x82, 0x80 | len, 0, 0, 0, 0], payload].concat())
        .unwrap();
}

/// The next message of a WebSocket; `None` once it is closed.
fn next_frame(stream: &mut impl std::io::Read) -> Option<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    let mut len = u64::from(head[1] & 0x7f);
    if len > 125 {
        let mut long = [0; 8];
        let size = if len == 126 { 2 } else { 8 };
        stream.read_exact(&mut long[8 - size..]).ok()?;
        len = u64::from_be_bytes(long);
    }
    let mut payload = vec![0; usize::try_from(len).unwrap()];
    stream.read_exact(&mut payload).ok()?;
    (head[0] & 0x0f == 2).then_some(payload)
}

#[test]
fn the_machines_logs_are_read_through_the_api() {
    let place = shared().workplace("streams-logs");
    let nodes = place.get(&["nodes"]);
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let logs = format!("/api/v1/nodes/{node}/proxy/logs/");
    let page = place.kubectl_ok(&["get", "--raw", &logs]);
    assert!(page.contains("<pre>\n") && page.ends_with("</pre>\n"), "{page}");
    let outside = place.kubectl(&["get", "--raw", &format!("{logs}..%2F..%2Fetc%2Fpasswd")]);
    assert!(!outside.status.success() && !String::from_utf8_lossy(&outside.stdout).contains("root:"));
}

/// Clients that are not client-go, such as the Python package, forward ports over channels: two for each port.
#[test]
fn ports_are_forwarded_over_channels() {
    let place = shared().workplace("streams-channels");
    create(
        &place,
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'IMAGE',
            ports: [{containerPort: 8080}], readinessProbe: {httpGet: {port: 8080, path: /}}}]}}",
    );
    place.wait("pod/p", "condition=Ready");
    let proxy = Proxy::start(&place);
    let path = "/api/v1/namespaces/streams-channels/pods/p/portforward?ports=8080&ports=9";
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    )
    .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let told = head.to_lowercase();
    assert!(
        told.starts_with("http/1.1 101") && told.contains("sec-websocket-protocol: v4.channel.k8s.io"),
        "{head}"
    );
    send_frame(&mut stream, b"\0GET /hostname HTTP/1.0\r\nHost: x\r\n\r\n");
    let mut channels = vec![Vec::new(); 4];
    while let Some(message) = next_frame(&mut reader) {
        channels[usize::from(message[0])].extend_from_slice(&message[1..]);
    }
    let text = |channel: usize| String::from_utf8_lossy(&channels[channel][2..]).into_owned();
    // Each begins with its port.
    assert_eq!([&channels[0][..2], &channels[1][..]], [&8080_u16.to_le_bytes()[..]; 2]);
    assert_eq!([&channels[2][..], &channels[3][..2]], [&9_u16.to_le_bytes()[..]; 2]);
    assert!(
        text(0).starts_with("HTTP/1.") && text(0).trim_end().ends_with('p'),
        "{}",
        text(0)
    );
    assert!(text(3).contains("connection refused"), "{}", text(3));
    let refused = place.kubectl(&["get", "--raw", "/api/v1/namespaces/streams-channels/pods/p/portforward"]);
    assert!(!refused.status.success());
    place.kubectl_ok(&["delete", "pod", "p", "--grace-period=1"]);
}

#[test]
fn ports_are_forwarded() {
    let place = shared().workplace("streams-forward");
    create(
        &place,
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {selector: {matchLabels: {app: web}},
            template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'IMAGE',
                ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {port: http, path: /}}}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}}",
    );
    place.wait("deployment/web", "condition=Available");
    let pods = place.get(&["pods"]);
    let name = pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pod = format!("pod/{name}");
    for (target, port, variables) in [
        (pod.as_str(), "8080", &[][..]),
        ("service/web", "80", &[]),
        ("deployment/web", "http", &[]),
        (&pod, "8080", &SPDY),
    ] {
        let forward = Forward::to(&place, target, port, variables);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let answer = forward.ask("/hostname");
                    assert!(answer.contains(&name), "{target}: {answer}");
                });
            }
        });
        forward.end();
    }
    let nobody = Forward::to(&place, &pod, "9", &[]);
    assert_eq!(nobody.ask("/"), "");
    // It ends by itself, having said why.
    let output = nobody.kubectl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let expect = "failed to connect to localhost:9 inside namespace";
    assert!(said.contains(expect) && said.contains("connection refused"), "{said}");
}
