//! `trireme kubeconfig`.

use crate::cli::Kubeconfig;
use crate::errors::Result;
use crate::layout::Layout;

/// Prints or merges the administrator's kubeconfig.
pub fn run(arguments: Kubeconfig, layout: &Layout) -> Result {
    if arguments.merge {
        return super::up::install_kubeconfig(layout);
    }
    let text = std::fs::read_to_string(layout.admin_kubeconfig()).map_err(|_| crate::no_cluster(layout))?;
    print!("{text}");
    Ok(())
}
