//! Servers of etcd's API for tests: ours, and Debian's etcd.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use crate::cluster::{TRIREME, succeed};

/// How long a real etcd may take to answer first: only whether it does matters, on a machine however busy.
const START_LIMIT: Duration = Duration::from_secs(300);
/// Where the ports of servers begin: below those that the kernel gives away.
const FIRST_PORT: u16 = 20_000;

/// A server of etcd's API, ended with the test.
pub struct Server {
    child: Child,
    directory: Option<tempfile::TempDir>,
    /// Those of `etcdctl`.
    pub flags: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address of loopback that is this process's own: what others connect from is 127.0.0.1, so that no connection takes a
/// port from a server that is to come, or to come back.
fn own_host() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // A process id has 22 bits; 127.0 is left to everybody.
    Ipv4Addr::new(127, 128 + high, middle, low)
}

/// An address for a server, which nobody else is given.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST_PORT);
    loop {
        let address = SocketAddr::from((own_host(), NEXT.fetch_add(1, Ordering::Relaxed)));
        // A server that listens at all addresses may have the port.
        if TcpListener::bind(address).is_ok() {
            return address.to_string();
        }
    }
}

/// The flags by which `etcdctl` reaches one of ours.
pub fn client_flags(endpoint: &str, keys: &Path) -> Vec<String> {
    let file = |name: &str| keys.join(name).display().to_string();
    let named = |flag: &str, value: String| format!("--{flag}={value}");
    vec![
        named("endpoints", endpoint.to_owned()),
        named("cacert", file("ca.crt")),
        named("cert", file("client.crt")),
        named("key", file("client.key")),
    ]
}

/// A daemon of ours, and what it said when it was ready.
pub fn started(directory: &Path, arguments: &[&str]) -> (Child, Value) {
    let mut child = Command::new(TRIREME)
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

impl Server {
    /// `trireme store`.
    pub fn ours() -> Server {
        Server::ours_in(tempfile::tempdir().unwrap())
    }

    /// `trireme store` in a directory that may hold data already.
    pub fn ours_in(directory: tempfile::TempDir) -> Server {
        let (child, ready) = started(directory.path(), &["store", "--listen", "127.0.0.1:0"]);
        let keys = PathBuf::from(ready["keys"].as_str().unwrap());
        let flags = client_flags(ready["etcd"].as_str().unwrap(), &keys);
        Server {
            child,
            directory: Some(directory),
            flags,
        }
    }

    /// Ends it as a crash would; its directory.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.directory.take().unwrap()
    }

    /// Debian's etcd, in a directory that may hold data already.
    pub fn real(directory: tempfile::TempDir) -> Server {
        Server::real_with(directory, None)
    }

    /// Debian's etcd, for clients with a certificate only: `ca.crt`, `client.crt` and `client.key` in the directory
    /// `keys`, in which `stranger.crt` and its key are of another authority.
    pub fn real_for_certificates(keys: &Path) -> Server {
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, other) = (authority(), authority());
        std::fs::write(keys.join("ca.crt"), ours.pem()).unwrap();
        for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &other)] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![own_host().to_string()]).unwrap();
            let certificate = params.signed_by(&key, issuer).unwrap();
            std::fs::write(keys.join(format!("{name}.crt")), certificate.pem()).unwrap();
            std::fs::write(keys.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Server::real_with(tempfile::tempdir().unwrap(), Some(keys))
    }

    fn real_with(directory: tempfile::TempDir, keys: Option<&Path>) -> Server {
        let scheme = if keys.is_some() { "https" } else { "http" };
        let (client, peer) = (
            format!("{scheme}://{}", free_address()),
            format!("http://{}", free_address()),
        );
        let (secured, flags) = match keys {
            Some(keys) => {
                let file = |flag: &str, name: &str| format!("{flag}={}", keys.join(name).display());
                let secured = vec![
                    "--client-cert-auth".to_owned(),
                    file("--trusted-ca-file", "ca.crt"),
                    file("--cert-file", "server.crt"),
                    file("--key-file", "server.key"),
                ];
                (secured, client_flags(&client, keys))
            }
            None => (Vec::new(), vec![format!("--endpoints={client}")]),
        };
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
            .args(secured)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need etcd (Debian: etcd-server) in PATH");
        let server = Server {
            child,
            directory: Some(directory),
            flags,
        };
        let begin = Instant::now();
        // It tells nobody that it is ready; each try waits for an answer by itself.
        while !server
            .run(&["endpoint", "health", "--command-timeout=1s"], "")
            .status
            .success()
        {
            assert!(begin.elapsed() < START_LIMIT, "etcd does not answer");
        }
        server
    }

    /// An etcd made of a snapshot.
    pub fn real_restored(file: &str) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data").display().to_string();
        let restore = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore", file, "--data-dir", &data])
            .output()
            .unwrap();
        succeed(&restore);
        Server::real(directory)
    }

    /// The address that clients of a real one are given.
    pub fn address(&self) -> &str {
        self.flags[0].trim_start_matches("--endpoints=")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(&self.flags)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .spawn()
            .expect("the tests need etcdctl (Debian: etcd-client) in PATH");
        // A command that fails early does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// What a command prints, without what differs between any two etcds.
    pub fn told(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        let errors = error.lines().filter(|line| line.starts_with("Error: "));
        let own = |line: &&str| {
            ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""]
                .iter()
                .any(|name| line.starts_with(name))
        };
        let lines = out.lines().filter(|line| !own(line)).chain(errors).map(comparable);
        let lines: Vec<String> = lines.collect();
        format!("{} {}", output.status.code().unwrap_or(-1), lines.join("\n"))
    }

    /// The id of its one member.
    pub fn member(&self) -> String {
        let list = succeed(&self.run(&["member", "list"], ""));
        list.split(',').next().unwrap().to_owned()
    }

    /// What it told about itself, with a mark in place of its own addresses, ids, sizes, terms and times.
    pub fn likened(&self, told: &str) -> String {
        let url = regex::Regex::new(r"https?://[0-9.:]+").unwrap();
        let told = url.replace_all(told, "URL").replace(&self.member(), "MEMBER");
        let mut likened = String::new();
        for line in told.lines() {
            let (code, rest) = match line.split_once(' ') {
                Some((code, rest)) if likened.is_empty() => (code, rest),
                _ => ("", line),
            };
            let rest = match serde_json::from_str(rest) {
                Ok(value @ (Value::Object(_) | Value::Array(_))) => alike(value).to_string(),
                _ => OWN.iter().fold(rest.to_owned(), |rest, (pattern, mark)| {
                    regex::Regex::new(pattern)
                        .unwrap()
                        .replace_all(&rest, *mark)
                        .into_owned()
                }),
            };
            likened += &format!("{code} {rest}\n");
        }
        likened
    }

    /// The lines of a watch up to the one that is `last`.
    pub fn watched(&self, arguments: &[&str], last: &str) -> Vec<String> {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            lines.push(comparable(&line));
            if line == last {
                break;
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        lines
    }
}

/// What differs between any two etcds in the lines for people.
const OWN: &[(&str, &str)] = &[
    // Endpoint, id, version, size, leader, learner, term, index, applied index.
    (
        r"^URL, MEMBER, [0-9.]+, [0-9.]+ k?B, true, false, \d+, \d+, \d+, $",
        "URL, STATUS",
    ),
    (r"^(URL, )\d+$", "${1}HASH"),
    (r"(MEMBER, started, )\w+, URL, URL", "${1}NAME"),
    (r"took = .*$", "TIME"),
    (
        r#"^"(Version|DBSize|Leader|RaftIndex|RaftAppliedIndex|ID|Name)" : .*$"#,
        "$1",
    ),
];

/// An answer with a mark in place of each value that differs between any two etcds.
fn alike(told: Value) -> Value {
    const OWN: [&str; 15] = [
        "cluster_id",
        "member_id",
        "raft_term",
        "version",
        "dbSize",
        "leader",
        "raftIndex",
        "raftTerm",
        "raftAppliedIndex",
        "dbSizeInUse",
        "took",
        "hash",
        "ID",
        "name",
        "peerURLs",
    ];
    match told {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let value = if OWN.contains(&&*name) {
                    Value::from("?")
                } else {
                    alike(value)
                };
                (name, value)
            })
            .collect(),
        Value::Array(items) => items.into_iter().map(alike).collect(),
        other => other,
    }
}

/// A line without ids of clusters, members and elections.
fn comparable(line: &str) -> String {
    let Ok(Value::Object(mut told)) = serde_json::from_str(line) else {
        return line.to_owned();
    };
    if let Some(header) = told.get_mut("header").and_then(Value::as_object_mut) {
        for name in ["cluster_id", "member_id", "raft_term"] {
            header.remove(name);
        }
    }
    Value::Object(told).to_string()
}
