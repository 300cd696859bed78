//! `trireme reset`: ends the cluster and removes all of it.

use std::io::IsTerminal as _;
use std::path::Path;

use crate::cli::Reset;
use crate::errors::{CliError, Kind, Result};
use crate::kubeconfig;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::settings::Settings;

/// Removes everything after asking.
pub async fn run(arguments: Reset, layout: &Layout, quiet: bool) -> Result {
    if !layout.data().exists() && !layout.run().exists() {
        if !quiet {
            eprintln!("  there is no cluster in {}", layout.data().display());
        }
        return Ok(());
    }
    if !arguments.yes {
        confirm(layout)?;
    }
    super::down::run(layout, quiet).await?;
    let mut progress = Progress::start(quiet);
    // A kubeconfig that cannot be read keeps nothing else from going.
    let recorded = Settings::read(layout)
        .ok()
        .flatten()
        .and_then(|settings| settings.kubeconfig);
    let owner = recorded.unwrap_or_else(super::up::owner);
    let context = kubeconfig::uninstall(&owner);
    for dir in [layout.data(), layout.run()] {
        remove(dir)?;
    }
    context.map_err(|error| {
        error.hint(format!(
            "data and keys are removed; mend {} and take the context out of it: kubectl config delete-context {}",
            owner.path.display(),
            kubeconfig::NAME
        ))
    })?;
    progress.done("data, keys and kubeconfig context removed");
    Ok(())
}

fn confirm(layout: &Layout) -> Result {
    let what = format!(
        "this removes the cluster in {} and all that is stored in it",
        layout.data().display()
    );
    if !std::io::stdin().is_terminal() {
        return Err(CliError::new(Kind::Usage, "NOT_CONFIRMED", what).hint("call it with --yes"));
    }
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::file(Path::new("standard input"), &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::new(Kind::Usage, "NOT_CONFIRMED", "nothing was removed")),
    }
}

fn remove(dir: &Path) -> Result {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::file(dir, &error)),
        _ => Ok(()),
    }
}
