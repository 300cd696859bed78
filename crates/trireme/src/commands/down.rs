//! `trireme down`: ends every process and all kernel state, keeps the data.

use std::path::Path;
use std::time::Duration;

use crate::errors::{Context as _, Result};
use crate::layout::Layout;
use crate::process::{END_SECONDS, Process};
use crate::progress::Progress;
use crate::settings::Settings;

use crate::supervisor;

use super::{holder_name, server};

/// For how long a supervisor may take to end its daemon, which it kills after [`END_SECONDS`].
const SUPERVISOR_LIMIT: Duration = Duration::from_secs(END_SECONDS + 5);

/// Ends what runs.
pub async fn run(layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    let settings = Settings::read(layout).unwrap_or_default();
    if let Some(node) = settings.and_then(|settings| settings.node) {
        end_node(layout, &node).await?;
        progress.done("node ended");
    }
    // The supervisor ends its daemon; a daemon without one was started by hand, or is about to follow its supervisor.
    let supervisor = supervisor::Files::new(layout, server::DAEMON, server::DAEMON).read();
    if let Some(state) = &supervisor {
        state.supervisor.end(SUPERVISOR_LIMIT).await?;
    }
    let file = layout.process(server::DAEMON);
    let process = Process::read(&file);
    if let Some(process) = process {
        process.end(Duration::from_secs(END_SECONDS)).await?;
    }
    if rustix::process::geteuid().is_root() {
        remove_cgroups(&layout.server_cgroup_root()).doing("removing the control plane's control group")?;
    }
    if supervisor.is_some() || process.is_some() {
        progress.done("control plane ended");
    } else if !quiet {
        eprintln!("  the control plane is not running");
    }
    // A daemon that was killed left its file behind.
    let _ = std::fs::remove_file(&file);
    Ok(())
}

/// Ends a node: with the process that holds its namespaces the kernel takes everything in them. What is not in a
/// namespace are its control groups.
async fn end_node(layout: &Layout, node: &str) -> Result {
    // First, so that it starts nothing again; it also waits for its daemon, which nobody else would.
    if let Some(state) = super::node::files(layout, node).read() {
        state.supervisor.end(SUPERVISOR_LIMIT).await?;
    }
    let file = layout.process(&holder_name(node));
    if let Some(holder) = Process::read(&file) {
        holder.kill().await?;
    }
    let _ = std::fs::remove_file(&file);
    remove_cgroups(&layout.cgroup_root()).doing("removing the node's control groups")?;
    let run = layout.node_run(node);
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(crate::errors::CliError::file(&run, &error)),
        _ => Ok(()),
    }
}

/// Ends whoever is left in a control group, and removes it. A machine without any has nothing to remove.
fn remove_cgroups(root: &Path) -> std::io::Result<()> {
    match sys::cgroup::Cgroups::detect(root) {
        Ok(cgroups) => cgroups.group("").kill_and_remove(),
        Err(_) => Ok(()),
    }
}
