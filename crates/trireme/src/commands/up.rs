//! `trireme up`: the cluster of this machine.

use serde_json::Value;

use crate::cli::Up;
use crate::errors::{CliError, Kind, Result};
use crate::kubeconfig::{self, Owner};
use crate::layout::Layout;
use crate::process::{self, Process};
use crate::progress::{Progress, seconds};
use crate::settings::Settings;

/// Starts what is not running.
pub async fn run(arguments: Up, layout: &Layout, quiet: bool, _is_root: bool) -> Result {
    if !arguments.no_node {
        return Err(CliError::new(
            Kind::Usage,
            "NO_NODE_YET",
            "this version starts the control plane only: it has no node to run pods on yet",
        )
        .hint("start the control plane: trireme up --no-node"));
    }
    let mut progress = Progress::start(quiet);
    layout.create()?;
    let kept = Settings::read(layout)?;
    let mut settings = kept.unwrap_or_default();
    if let Some(port) = arguments.api_port {
        settings.api_port = port;
    }
    let running = Process::read(&layout.process("server"));
    if running.is_none() {
        let server = start_server(layout, &settings).await?;
        settings.api_port = port_of(&server).unwrap_or(settings.api_port);
        settings.write(layout)?;
        progress.done("control plane answering");
    } else if !quiet {
        eprintln!("  the control plane is running already");
    }
    if !arguments.no_kubeconfig {
        install_kubeconfig(layout)?;
        progress.done("kubeconfig merged, context trireme");
    }
    if !quiet {
        eprintln!("ready after {}. Try:", seconds(progress.total()));
        for line in ["kubectl get namespaces", "kubectl apply -f examples/", "trireme status"] {
            eprintln!("  {line}");
        }
    }
    Ok(())
}

async fn start_server(layout: &Layout, settings: &Settings) -> Result<Value> {
    let mut words = directory_flag(layout);
    words.extend(["server", "--detached", "--api-port"].map(str::to_owned));
    words.push(settings.api_port.to_string());
    words.rotate_left(directory_flag(layout).len());
    // The subcommand first: `process::start` names it in its error.
    process::start(&words, &layout.log("server")).await
}

/// How a daemon is told the directories that we use.
fn directory_flag(layout: &Layout) -> Vec<String> {
    match layout.data().parent().filter(|parent| parent.join("data") == layout.data()) {
        Some(parent) => vec!["--dir".into(), parent.display().to_string()],
        None => Vec::new(),
    }
}

fn port_of(ready: &Value) -> Option<u16> {
    ready["apiPort"].as_u64().and_then(|port| u16::try_from(port).ok())
}

/// Merges the administrator's access into the user's kubeconfig.
pub fn install_kubeconfig(layout: &Layout) -> Result {
    let path = layout.admin_kubeconfig();
    let text = std::fs::read_to_string(&path).map_err(|error| CliError::file(&path, &error))?;
    let ours: Value = serde_saphyr::from_str(&text).map_err(CliError::internal)?;
    kubeconfig::install(&owner(), &ours)
}

/// Whose kubeconfig is meant.
pub fn owner() -> Owner {
    Owner::find(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), kubeconfig::home_of)
}
