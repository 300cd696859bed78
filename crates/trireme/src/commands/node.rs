//! `trireme node`, `node-hold` and `node-enter`: the node of this machine. Only `up` calls them.
//!
//! `node-hold` makes the node's namespaces and leaves one process in them, whose end takes everything with it.
//! `node-enter` puts a daemon into them: a daemon that dies is started again in the same namespaces, and pods go on.

use std::process::{Command, Stdio};

use crate::cli::{Node, NodeEnter};
use crate::errors::{CliError, Context as _, Result};
use crate::layout::Layout;
use crate::node::RunningNode;
use crate::process::{Process, tell_ready};

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

/// Puts the node's daemon into the namespaces of a process. Runs before any thread is started.
pub fn enter(arguments: &NodeEnter, layout_flags: &[String]) -> Result {
    let pid = rustix::process::Pid::from_raw(arguments.holder).ok_or_else(|| CliError::internal("no such process"))?;
    let holder = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    let holder = holder.doing("finding the node's namespaces")?;
    let own = std::env::current_exe().doing("finding our own program")?;
    rustix::process::setsid().doing("leaving the session")?;
    use std::os::fd::AsFd as _;
    sys::namespaces::enter_node(holder.as_fd()).doing("entering the node's namespaces")?;
    Command::new(own)
        .args(layout_flags)
        .args(["node", "--name", &arguments.name])
        .stdin(Stdio::null())
        .spawn()
        .doing("starting the node's daemon")?;
    Ok(())
}

/// The daemon.
pub async fn run(arguments: Node, layout: &Layout) -> Result {
    let mut ends = Ends::listen()?;
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
