//! `trireme reset`: ends the cluster and removes all of it.

use std::io::IsTerminal as _;
use std::path::Path;

use crate::cli::{EtcdFlags, Reset};
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
    // Settings that cannot be read keep nothing else from going.
    let settings = Settings::read(layout).ok().flatten().unwrap_or_default();
    if !arguments.yes {
        confirm(layout, settings.etcd.as_ref())?;
    }
    super::down::run(layout, quiet).await?;
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
    if let Some(etcd) = &settings.etcd {
        progress.say(&stays(etcd));
    }
    Ok(())
}

/// An etcd is somebody else's, and other servers may live on it: nothing in it is ever removed.
fn stays(etcd: &EtcdFlags) -> String {
    let (servers, prefix) = (etcd.etcd_servers.join(","), &etcd.etcd_prefix);
    format!(
        "the state in the etcd stays as it is; when no other server uses it: \
         etcdctl --endpoints {servers} del --prefix {prefix}/"
    )
}

fn confirm(layout: &Layout, etcd: Option<&EtcdFlags>) -> Result {
    let directory = layout.data().display();
    let what = match etcd {
        None => format!("this removes the cluster in {directory} and all that is stored in it"),
        // Without the keys nobody can read what was sealed with them.
        Some(_) => format!(
            "this removes the files and keys in {directory}; the state stays in its etcd, with Secrets that only these keys open"
        ),
    };
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
