//! `trireme down`: ends every process and all kernel state, keeps the data.

use crate::errors::{Context as _, Result};
use crate::layout::Layout;
use crate::process::Process;
use crate::progress::Progress;
use crate::settings::Settings;

use super::holder_name;

/// Ends what runs.
pub async fn run(layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    let settings = Settings::read(layout).unwrap_or_default();
    if let Some(node) = settings.and_then(|settings| settings.node) {
        end_node(layout, &node).await?;
        progress.done("node ended");
    }
    let file = layout.process("server");
    match Process::read(&file) {
        Some(process) => {
            process.end().await?;
            progress.done("control plane ended");
        }
        None if !quiet => eprintln!("  the control plane is not running"),
        None => {}
    }
    // A daemon that was killed left its file behind.
    let _ = std::fs::remove_file(&file);
    Ok(())
}

/// Ends a node: with the process that holds its namespaces the kernel takes everything in them. What is not in a
/// namespace are its control groups.
async fn end_node(layout: &Layout, node: &str) -> Result {
    let file = layout.process(&holder_name(node));
    if let Some(holder) = Process::read(&file) {
        holder.kill().await?;
    }
    let _ = std::fs::remove_file(&file);
    if let Ok(cgroups) = sys::cgroup::Cgroups::detect(&layout.cgroup_root()) {
        cgroups
            .group("")
            .kill_and_remove()
            .doing("removing the node's control groups")?;
    }
    let run = layout.node_run(node);
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(crate::errors::CliError::file(&run, &error)),
        _ => Ok(()),
    }
}
