//! `trireme kubeconfig`.

use crate::cli::Kubeconfig;
use crate::errors::{CliError, Context as _, Result};
use crate::kubeconfig;
use crate::layout::Layout;

/// Prints or merges the administrator's kubeconfig.
pub fn run(arguments: Kubeconfig, layout: &Layout) -> Result {
    if let Some(path) = &arguments.refresh {
        let text = std::io::read_to_string(std::io::stdin().lock()).doing("reading the access")?;
        let ours = serde_saphyr::from_str(&text).map_err(CliError::internal)?;
        return kubeconfig::refresh_file(path, &ours);
    }
    if arguments.merge {
        return super::up::install_kubeconfig(layout);
    }
    let text = std::fs::read_to_string(layout.admin_kubeconfig()).map_err(|_| crate::no_cluster(layout))?;
    print!("{text}");
    Ok(())
}
