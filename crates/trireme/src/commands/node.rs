//! `trireme node`, `node-hold` and `keep-node`: the node of this machine. Only `up` calls them.
//!
//! `node-hold` makes the node's namespaces and leaves one process in them, whose end takes everything with it.
//! `keep-node` runs the daemon in them: one that dies is started again in the same namespaces, and pods go on.

use std::process::{Command, Stdio};

use crate::cli::{KeepNode, Node};
use crate::errors::{CliError, Context as _, Result};
use crate::layout::Layout;
use crate::node::RunningNode;
use crate::process::{Process, tell_ready};
use crate::supervisor;

use super::{Ends, holder_name};

/// Makes the namespaces. Runs before any thread is started.
pub fn hold() -> Result {
    sys::namespaces::unshare_node().doing("making the node's namespaces")?;
    let executable = runtime::shim::Executable::new().doing("making the holder's program")?;
    let mut command = Command::new(executable.path());
    command
        .arg("pause")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let holder = command.spawn().doing("starting the node's first process")?;
    let process = Process::of(holder.id().cast_signed());
    let process = process.ok_or_else(|| CliError::internal("the node's first process ended at once"))?;
    tell_ready(&serde_json::json!(process))
}

/// Enters the namespaces of the node, as its daemon. Runs before any thread is started.
pub fn enter(holder: i32) -> Result {
    let holder = std::path::PathBuf::from(format!("/proc/{holder}"));
    sys::namespaces::enter_node(&holder).doing("entering the node's namespaces")
}

/// A setting of the allocator's: pages that are free go back to the kernel at once. By itself it keeps them until a thread asks
/// for memory again, and a node that has just started its pods is quiet for hours: 0.14 MB a pod in place of 0.53.
const FREE_MEMORY_AT_ONCE: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "0");

/// Keeps the daemon running in the node's namespaces; the supervisor itself stays outside.
pub async fn keep(arguments: &KeepNode, layout: &Layout) -> Result {
    let pid = rustix::process::Pid::from_raw(arguments.holder).ok_or_else(|| CliError::internal("no such process"))?;
    let holder = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let holder = holder.doing("finding the node's namespaces")?;
    rustix::process::setsid().doing("leaving the session")?;
    use std::os::fd::AsFd as _;
    // Of this thread, which is the one that starts the daemon: the supervisor's runtime has no other.
    sys::namespaces::place_children(holder.as_fd()).doing("entering the node's PID namespace")?;
    let command = |_: Option<&serde_json::Value>| {
        let mut command = tokio::process::Command::new(supervisor::OWN_PROGRAM);
        command
            .arg0("trireme")
            .args(layout.flags())
            .args(["node", "--name", &arguments.name]);
        command.args(["--holder", &arguments.holder.to_string()]);
        command.env(FREE_MEMORY_AT_ONCE.0, FREE_MEMORY_AT_ONCE.1);
        command
    };
    supervisor::run(&files(layout, &arguments.name), command).await
}

/// The files of the supervisor of a node's daemon.
pub fn files(layout: &Layout, node: &str) -> supervisor::Files {
    supervisor::Files::new(layout, &holder_name(node), "node")
}

/// The daemon.
pub async fn run(arguments: Node, layout: &Layout) -> Result {
    let mut ends = Ends::listen_supervised()?;
    let node = RunningNode::start(layout, &arguments.name).await?;
    tell_ready(&serde_json::json!({"node": arguments.name}))?;
    tracing::info!(node = %arguments.name, "the node is ready");
    let why = ends.next().await;
    tracing::info!(why, "the node's daemon ends");
    node.end().await;
    Ok(())
}

/// The process that holds the namespaces of a node, when it runs.
pub fn holder(layout: &Layout, node: &str) -> Option<Process> {
    Process::read(&layout.process(&holder_name(node)))
}
