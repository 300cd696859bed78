//! `trireme kubeconfig`.

use serde_json::Value;

use crate::cli::Kubeconfig;
use crate::errors::{CliError, Context as _, Result};
use crate::kubeconfig::{self, Edit, Job, Owner};
use crate::layout::Layout;
use crate::settings::Settings;

/// Prints or merges the administrator's kubeconfig.
pub fn run(arguments: Kubeconfig, layout: &Layout) -> Result {
    if arguments.edit {
        let text = std::io::read_to_string(std::io::stdin().lock()).doing("reading what to edit")?;
        let job: Job = serde_json::from_str(&text).map_err(CliError::internal)?;
        let owner = kubeconfig::edit_here(&job)?;
        println!("{}", serde_json::to_string(&owner).map_err(CliError::internal)?);
        return Ok(());
    }
    if arguments.merge {
        return install(layout).map(drop);
    }
    print!("{}", own(layout)?);
    Ok(())
}

/// Merges the administrator's access into the user's kubeconfig, and keeps in mind which file that is.
pub fn install(layout: &Layout) -> Result<Owner> {
    let ours: Value = serde_saphyr::from_str(&own(layout)?).map_err(CliError::internal)?;
    let mut settings = Settings::read(layout)?.unwrap_or_default();
    let found = owner();
    // What an earlier call did is still to be undone.
    let before = settings.kubeconfig.clone().filter(|before| before.path == found.path);
    let owner = Owner {
        ids: found.ids,
        ..before.unwrap_or(found)
    };
    let edit = Edit::Merge;
    let owner = kubeconfig::edit(&Job { edit, owner, ours })?;
    if settings.kubeconfig.as_ref() != Some(&owner) {
        settings.kubeconfig = Some(owner.clone());
        settings.write(layout)?;
    }
    Ok(owner)
}

/// The cluster's own kubeconfig.
fn own(layout: &Layout) -> Result<String> {
    let path = layout.admin_kubeconfig();
    std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => crate::no_cluster(layout),
        _ => CliError::file(&path, &error),
    })
}

/// Whose kubeconfig is meant.
pub fn owner() -> Owner {
    let found = Owner::find(
        |name| std::env::var(name).ok().filter(|value| !value.is_empty()),
        kubeconfig::home_of,
        |path| path.exists(),
    );
    // It is found again from other working directories.
    let path = std::path::absolute(&found.path).unwrap_or_else(|_| found.path.clone());
    Owner { path, ..found }
}
