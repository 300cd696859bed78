//! `trireme reset`: ends the cluster and removes all of it.

use std::io::IsTerminal as _;
use std::path::Path;

use crate::cli::Reset;
use crate::errors::{CliError, Kind, Result};
use crate::kubeconfig::{self, Edit, Job};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::settings::Settings;

/// Removes everything after asking.
pub async fn run(arguments: Reset, layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    if !layout.is_ours() {
        // What somebody else keeps there is none of our business.
        progress.say(&format!("there is no cluster in {}", layout.data().display()));
        return Ok(());
    }
    if !arguments.yes {
        confirm(layout)?;
    }
    super::down::run(layout, quiet).await?;
    // Settings that cannot be read keep nothing else from going.
    let settings = Settings::read(layout).ok().flatten().unwrap_or_default();
    let owner = settings.kubeconfig.unwrap_or_else(super::kubeconfig::owner);
    let ours = kubeconfig::read(&layout.admin_kubeconfig()).unwrap_or_default();
    let edit = Edit::Remove;
    let path = owner.path.clone();
    let context = kubeconfig::edit(&Job { edit, owner, ours });
    for dir in [layout.data(), layout.run()] {
        remove(dir)?;
    }
    // What `up` made above them, from the inside out, unless somebody keeps something there now.
    for dir in settings.made_directories.iter().rev() {
        let _ = std::fs::remove_dir(dir);
    }
    context.map_err(|error| {
        error.hint(format!(
            "data and keys are removed; mend {} and take the context out of it: kubectl config delete-context {}",
            path.display(),
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
        return Err(CliError::new(Kind::Usage, "NOT_CONFIRMED", what)
            .hint(format!("call it with --yes: {}", layout.command("reset --yes"))));
    }
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CliError::file(Path::new("standard input"), &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::new(Kind::Usage, "NOT_CONFIRMED", "nothing was removed").hint("answer y to go on")),
    }
}

fn remove(dir: &Path) -> Result {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::file(dir, &error)),
        _ => Ok(()),
    }
}
