//! A cluster of the built program's, apart from everything else on the machine: a directory, a port and a control group of
//! its own.
//!
//! Invariant: nothing of it outlives this program. A reaper waits for the end of a pipe that only we hold; when we are
//! gone, killed or not, it runs `trireme reset` and removes the directory and the group.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;
use sys::cgroup::Cgroups;

use crate::connection::Access;

/// The program that is measured.
pub const TRIREME: &str = env!("CARGO_BIN_EXE_trireme");
/// The group in which programs start, below a root of the cluster's own.
const GROUP: &str = "started";
/// Where directories are made: on disk, which `/tmp` often is not, and short, because sockets lie in them.
const PARENT: &str = "/var/tmp";
/// `$0` is the program, `$1` the directory, the others are control groups, inner ones first.
const REAPER: &str =
    r#"cat >/dev/null; "$0" --quiet --dir "$1" reset --yes; rm -rf "$1"; shift; rmdir "$@" 2>/dev/null"#;
/// Waits until it was put into its group, then becomes the command.
const STARTER: &str = r#"read -r go; exec "$0" "$@" </dev/null"#;

/// Directories of a cluster, running or not.
pub struct Cluster {
    dir: PathBuf,
    groups: Vec<PathBuf>,
    reaper: Child,
}

impl Cluster {
    /// The place of a cluster that is not started yet.
    pub fn prepare() -> anyhow::Result<Cluster> {
        let dir = tempfile::Builder::new()
            .prefix("trireme-bench-")
            .tempdir_in(PARENT)?
            .keep();
        let name = dir.file_name().expect("invariant: it was made with a name");
        let groups = groups(&name.to_string_lossy());
        let roots = groups.iter().filter_map(|group| group.parent());
        let reaper = Command::new("/bin/sh")
            .args(["-c", REAPER, TRIREME])
            .arg(&dir)
            .args(&groups)
            .args(roots)
            .env("KUBECONFIG", dir.join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // An interrupt from the keyboard is for us, the reaper goes on.
            .process_group(0)
            .spawn()
            .context("starting the reaper")?;
        Ok(Cluster { dir, groups, reaper })
    }

    /// A running control plane.
    pub async fn control_plane() -> anyhow::Result<Cluster> {
        let cluster = Cluster::prepare()?;
        cluster.trireme(&["up", "--no-node", "--api-port", "0"]).await?;
        Ok(cluster)
    }

    /// A running cluster with a node that is ready.
    pub async fn with_node() -> anyhow::Result<Cluster> {
        let cluster = Cluster::prepare()?;
        cluster.trireme(&["up", "--api-port", "0"]).await?;
        cluster.access()?.node_ready().await?;
        Ok(cluster)
    }

    /// Runs the program on this cluster.
    pub async fn trireme(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut child = self.start(&[&["--quiet"], arguments].concat(), Stdio::inherit())?;
        let status = tokio::task::spawn_blocking(move || child.wait()).await??;
        if !status.success() {
            bail!("`trireme {}` failed: {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// Starts the program in the cluster's control group. Nothing of the user's environment, home or kubeconfig reaches it.
    pub fn start(&self, arguments: &[&str], stderr: Stdio) -> anyhow::Result<Child> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", STARTER, TRIREME, "--dir"])
            .arg(&self.dir)
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.dir)
            .env("KUBECONFIG", self.dir.join("kubeconfig"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("starting a shell")?;
        for group in &self.groups {
            std::fs::write(group.join("cgroup.procs"), child.id().to_string())
                .with_context(|| format!("entering {}", group.display()))?;
        }
        let go: Option<ChildStdin> = child.stdin.take();
        go.expect("invariant: it was asked for").write_all(b"go\n")?;
        Ok(child)
    }

    /// How to reach the API as its administrator.
    pub fn access(&self) -> anyhow::Result<Access> {
        Access::of_kubeconfig(&self.dir.join("data/admin.kubeconfig"))
    }

    /// Where files of the measurement may lie.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The process of the control plane.
    pub fn server(&self) -> anyhow::Result<i32> {
        self.process("server")
    }

    /// All processes of ours: the daemons and their supervisors, which were started with our directory, the holder of the
    /// node's namespaces, shims. Containers are not among them: they have an IPC namespace of their own.
    pub fn processes(&self) -> anyhow::Result<Vec<i32>> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/ipc")).ok();
        let settings: Value = serde_json::from_slice(&std::fs::read(self.dir.join("data/settings.json"))?)?;
        let inside = match settings["node"].as_str() {
            Some(node) => namespace(self.process(&format!("node-{node}"))?),
            None => None,
        };
        let flag = format!("--dir\0{}\0", self.dir.display());
        let is_ours = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let started_by_us = String::from_utf8_lossy(&words).contains(&flag);
            started_by_us || (inside.is_some() && namespace(*pid) == inside)
        };
        let names = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.file_name());
        let pids = names.filter_map(|name| name.to_str()?.parse().ok());
        Ok(pids.filter(is_ours).collect())
    }

    fn process(&self, daemon: &str) -> anyhow::Result<i32> {
        let path = self.dir.join(format!("run/{daemon}.process"));
        let process: Value = serde_json::from_slice(&std::fs::read(&path).context("reading a process file")?)?;
        let pid = process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.with_context(|| format!("{} tells no process", path.display()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.reaper.stdin.take());
        let _ = self.reaper.wait();
    }
}

/// Makes the cluster's control group. Where that is not possible (not root) there is none, and the memory that the kernel
/// holds is not told.
fn groups(name: &str) -> Vec<PathBuf> {
    let Ok(all) = Cgroups::detect(std::path::Path::new(name)) else {
        return Vec::new();
    };
    let group = all.group(GROUP);
    match group.create() {
        Ok(()) => group.directories(),
        Err(_) => Vec::new(),
    }
}
