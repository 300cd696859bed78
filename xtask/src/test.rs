//! `cargo xtask test`: everything that CI runs.

use crate::{cargo, kubectl, tidy};

/// Tidy first (it is quick to fail), then every test of the workspace.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    kubectl::check()?;
    tidy::run()?;
    // The end-to-end tests run the real binary: build it, so that they find it beside themselves.
    crate::run(&cargo(), &["build", "--workspace", "--bins", "--locked"])?;
    let mut command = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    command.extend(arguments);
    crate::run(&cargo(), &command)
}
