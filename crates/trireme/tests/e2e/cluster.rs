//! A cluster for tests.
//!
//! Invariant: nothing of a cluster outlives this program. A reaper process waits for the end of a pipe that only we
//! hold; when we are gone, killed or not, it runs `trireme reset` and removes the directory.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use client::Client;
use client::https::{Credentials, HttpsTransport};
use serde_json::Value;

use testkit::HollowNode;

/// The program under test.
pub const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");

/// What `kubectl` is asked to wait at most; a test that needs it fails.
pub const PATIENCE: &str = "--timeout=60s";

/// The oldest `kubectl` that the tests are written for.
const KUBECTL_MINOR_MIN: u32 = 32;

/// The end of a reaped cluster: `$0` is the program, `$1` the directory.
const REAPER: &str = r#"cat >/dev/null; "$0" --quiet --dir "$1" reset --yes; rm -rf "$1""#;

/// A running control plane.
pub struct Cluster {
    /// Everything of it is below here.
    pub dir: PathBuf,
    reaper: Child,
}

/// A namespace of a cluster with a directory and a kubeconfig of its own.
pub struct Workplace {
    /// The namespace.
    pub namespace: String,
    /// The working directory of commands.
    pub dir: PathBuf,
}

impl Cluster {
    /// A directory for a cluster that is not started yet.
    pub fn prepare() -> Cluster {
        kubectl_is_new_enough();
        let dir = tempfile::Builder::new()
            .prefix("trireme-e2e-")
            .tempdir()
            .unwrap()
            .keep();
        let reaper = Command::new("/bin/sh")
            .args(["-c", REAPER, TRIREME])
            .arg(&dir)
            .env("KUBECONFIG", dir.join("kubeconfig"))
            .stdin(Stdio::piped())
            // An interrupt from the keyboard is for us, the reaper goes on.
            .process_group(0)
            .spawn()
            .unwrap();
        Cluster { dir, reaper }
    }

    /// A cluster of the caller's own.
    pub fn start() -> Cluster {
        Cluster::start_on("0")
    }

    /// The same on a port of the caller's choice.
    pub fn start_on(port: &str) -> Cluster {
        let cluster = Cluster::prepare();
        succeed(&cluster.trireme(&["--quiet", "up", "--no-node", "--api-port", port]));
        cluster
    }

    /// The cluster that tests share, with a node that reports pods as running.
    pub fn shared() -> &'static Cluster {
        static SHARED: OnceLock<(Cluster, HollowNode)> = OnceLock::new();
        &SHARED.get_or_init(Cluster::start_with_node).0
    }

    /// A cluster of the caller's own, with a node that reports pods as running.
    pub fn start_with_node() -> (Cluster, HollowNode) {
        let cluster = Cluster::start();
        let node = HollowNode::start(cluster.client(), "fake-0");
        (cluster, node)
    }

    /// `trireme up`, on any port the first time and on the same one later.
    pub fn up(&self) {
        let first: &[&str] = if self.dir.join("data/settings.json").exists() {
            &[]
        } else {
            &["--api-port", "0"]
        };
        succeed(&self.trireme(&[&["--quiet", "up", "--no-node"], first].concat()));
    }

    /// The kubeconfig that `up` writes.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Runs the program on this cluster.
    pub fn trireme(&self, arguments: &[&str]) -> Output {
        self.trireme_with(arguments, &[])
    }

    /// The same with variables in its environment.
    pub fn trireme_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(TRIREME);
        command.arg("--dir").arg(&self.dir).args(arguments);
        isolated(&mut command, &self.dir, &self.kubeconfig())
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// The process of the control plane, from its process file.
    pub fn server_pid(&self) -> i32 {
        let file = std::fs::read(self.dir.join("run/server.process")).unwrap();
        let process: Value = serde_json::from_slice(&file).unwrap();
        process["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// The supervisors of the cluster's daemons, from what they tell.
    pub fn supervisors(&self) -> Vec<i32> {
        let files = std::fs::read_dir(self.dir.join("run"))
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        let states = files.filter(|path| path.extension() == Some(OsStr::new("state")));
        let pid = |path: PathBuf| {
            let state: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            state["supervisor"]["pid"].as_i64()?.try_into().ok()
        };
        states.filter_map(pid).collect()
    }

    /// `kubectl` as the administrator; its answer whatever it is.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        kubectl(arguments, &self.dir, &self.kubeconfig(), "")
    }

    /// `kubectl`, which has to succeed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        succeed(&self.kubectl(arguments))
    }

    /// A token of the namespace `default`'s account, which a controller makes a moment after the start.
    pub fn account_token(&self) -> String {
        self.has_account("default");
        self.kubectl_ok(&["create", "token", "default"]).trim().to_owned()
    }

    /// Waits for a namespace's default account.
    pub fn has_account(&self, namespace: &str) {
        self.kubectl_ok(&[
            "wait",
            "--for=create",
            "serviceaccount/default",
            "-n",
            namespace,
            PATIENCE,
        ]);
    }

    /// Makes a namespace and a place to work in it.
    pub fn workplace(&self, namespace: &str) -> Workplace {
        self.kubectl_ok(&["create", "namespace", namespace]);
        self.has_account(namespace);
        let dir = self.dir.join("work").join(namespace);
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = self.config();
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        std::fs::write(dir.join("kubeconfig"), config.to_string()).unwrap();
        Workplace {
            namespace: namespace.into(),
            dir,
        }
    }

    /// The kubeconfig as a tree.
    pub fn config(&self) -> Value {
        serde_saphyr::from_str(&std::fs::read_to_string(self.kubeconfig()).unwrap()).unwrap()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn server(&self) -> String {
        self.config()["clusters"][0]["cluster"]["server"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The authority's certificate as PEM.
    pub fn ca_pem(&self) -> String {
        decode(&self.config()["clusters"][0]["cluster"]["certificate-authority-data"])
    }

    /// The administrator's certificate and key.
    pub fn administrator(&self) -> Credentials {
        let user = &self.config()["users"][0]["user"];
        Credentials::Certificate {
            chain_pem: decode(&user["client-certificate-data"]),
            key_pem: decode(&user["client-key-data"]),
        }
    }

    /// A connection to the API as somebody.
    pub fn transport(&self, credentials: Credentials) -> Arc<HttpsTransport> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Arc::new(HttpsTransport::new(&self.server(), &self.ca_pem(), credentials).unwrap())
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        Client::new(self.transport(self.administrator())).with_timeout(Duration::from_secs(60))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

impl Workplace {
    /// `kubectl` in this namespace; its answer whatever it is.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        kubectl(arguments, &self.dir, &self.dir.join("kubeconfig"), "")
    }

    /// `kubectl` with something on its standard input.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Output {
        kubectl(arguments, &self.dir, &self.dir.join("kubeconfig"), input)
    }

    /// `kubectl`, which has to succeed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        succeed(&self.kubectl(arguments))
    }

    /// `kubectl get` as a tree.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl_ok(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until a jsonpath of an object has a value.
    pub fn wait(&self, object: &str, condition: &str) {
        self.kubectl_ok(&["wait", object, &format!("--for={condition}"), PATIENCE]);
    }

    /// A program that is started as `kubectl` is here: with this namespace's kubeconfig and nothing of the user's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        isolated(&mut command, &self.dir, &self.dir.join("kubeconfig"));
        command
    }

    /// A shell command as a person would type it here: both outputs in the order of their writing, and the exit code.
    pub fn shell(&self, command: &str) -> (String, i32) {
        let output = self
            .command("/bin/sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.code().unwrap_or(-1),
        )
    }
}

/// The text of a successful command.
#[track_caller]
pub fn succeed(output: &Output) -> String {
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// The error text of a failed command.
#[track_caller]
pub fn fail(output: &Output) -> String {
    assert!(
        !output.status.success(),
        "it succeeded: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kubectl(arguments: &[&str], dir: &Path, kubeconfig: &Path, input: &str) -> Output {
    kubectl_of(Path::new("kubectl"), arguments, dir, kubeconfig, input)
}

/// One of several `kubectl`, with nothing of the user's.
pub fn kubectl_of(program: &Path, arguments: &[&str], dir: &Path, kubeconfig: &Path, input: &str) -> Output {
    let mut command = Command::new(program);
    let command = isolated(command.args(arguments), dir, kubeconfig);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl in PATH");
    // A kubectl that fails early does not read: that is no failure of ours.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Nothing of the user's environment, home or kubeconfig reaches a command, nor the other way round.
pub fn isolated<'a>(command: &'a mut Command, dir: &Path, kubeconfig: &Path) -> &'a mut Command {
    command
        .current_dir(dir)
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH")
                .as_deref()
                .unwrap_or(OsStr::new("/usr/bin:/bin")),
        )
        .env("HOME", dir)
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .env("KUBECONFIG", kubeconfig)
}

pub fn decode(base64_text: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(base64_text.as_str().unwrap())
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A `kubectl` that is absent or too old fails the tests; it does not skip them.
fn kubectl_is_new_enough() {
    static CHECKED: OnceLock<()> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let output = Command::new("kubectl")
            .args(["version", "--client", "-o", "json"])
            .output();
        let text = succeed(&output.expect("the tests need kubectl in PATH"));
        let version: Value = serde_json::from_str(&text).unwrap();
        let minor = version["clientVersion"]["minor"]
            .as_str()
            .unwrap()
            .trim_end_matches('+')
            .parse::<u32>()
            .unwrap();
        assert!(
            minor >= KUBECTL_MINOR_MIN,
            "kubectl 1.{minor} is too old, 1.{KUBECTL_MINOR_MIN} is needed"
        );
    });
}
