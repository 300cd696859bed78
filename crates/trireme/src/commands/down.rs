//! `trireme down`: ends every process and all kernel state, keeps the data.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::errors::{CliError, Context as _, Result};
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
    for node in nodes(layout) {
        let end = end_node(layout, &node);
        match progress
            .during(|| format!("ending the node {node} and its pods"), end)
            .await?
        {
            true => progress.done("node ended"),
            false => progress.say(&format!("the node {node} is not running")),
        }
    }
    let end = end_server(layout);
    match progress.during(|| "ending the control plane".into(), end).await? {
        true => progress.done("control plane ended"),
        false => progress.say("the control plane is not running"),
    }
    Ok(())
}

/// The nodes that the settings tell of, and those that have a process file: settings may be broken or gone.
fn nodes(layout: &Layout) -> BTreeSet<String> {
    let told = Settings::read(layout).ok().flatten().and_then(|settings| settings.node);
    let entries = std::fs::read_dir(layout.run()).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let nodes = files.filter_map(|file| {
        Some(
            file.strip_prefix(&holder_name(""))?
                .strip_suffix(".process")?
                .to_owned(),
        )
    });
    nodes.chain(told).collect()
}

/// Answers whether there was one.
async fn end_server(layout: &Layout) -> Result<bool> {
    // The supervisor ends its daemon; a daemon without one was started by hand, or is about to follow its supervisor.
    let files = supervisor::Files::new(layout, server::DAEMON, server::DAEMON);
    let supervisor = files.read();
    if let Some(state) = &supervisor {
        state.supervisor.end(SUPERVISOR_LIMIT).await?;
    }
    files.forget();
    let file = layout.process(server::DAEMON);
    let process = Process::read(&file);
    if let Some(process) = process {
        process.end(Duration::from_secs(END_SECONDS)).await?;
    }
    if rustix::process::geteuid().is_root() {
        remove_cgroups(&layout.server_cgroup_root()).doing("removing the control plane's control group")?;
    }
    // A daemon that was killed left its file behind.
    let _ = std::fs::remove_file(&file);
    Ok(supervisor.is_some() || process.is_some())
}

/// Ends a node: with the process that holds its namespaces the kernel takes everything in them. What is not in a
/// namespace are its control groups. Answers whether there was one.
async fn end_node(layout: &Layout, node: &str) -> Result<bool> {
    // First, so that it starts nothing again; it also waits for its daemon, which nobody else would.
    let files = super::node::files(layout, node);
    let supervisor = files.read();
    if let Some(state) = &supervisor {
        state.supervisor.end(SUPERVISOR_LIMIT).await?;
    }
    files.forget();
    let file = layout.process(&holder_name(node));
    let holder = Process::read(&file);
    if let Some(holder) = holder {
        holder.kill().await?;
    }
    let _ = std::fs::remove_file(&file);
    remove_cgroups(&layout.cgroup_root()).doing("removing the node's control groups")?;
    let run = layout.node_run(node);
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::file(&run, &error)),
        _ => Ok(supervisor.is_some() || holder.is_some()),
    }
}

/// Ends whoever is left in a control group, and removes it. A machine without any has nothing to remove.
fn remove_cgroups(root: &Path) -> std::io::Result<()> {
    match sys::cgroup::Cgroups::detect(root) {
        Ok(cgroups) => cgroups.group("").kill_and_remove(),
        Err(_) => Ok(()),
    }
}
