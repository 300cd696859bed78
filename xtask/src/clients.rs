//! `cargo xtask clients`: the client that is built here. `./test` fetches the others (`.ci/packages`), which are programs already.

use crate::{cargo, target_dir};

/// Builds the kube-rs program `crates/conformance` where the end-to-end tests look for it. It is a package of its own, so that
/// its dependencies change nothing of ours.
pub fn build() -> anyhow::Result<()> {
    let target_dir = target_dir().join("clients").display().to_string();
    crate::run(
        &cargo(),
        &[
            "build",
            "--locked",
            "--manifest-path",
            "crates/conformance/Cargo.toml",
            "--target-dir",
            &target_dir,
        ],
    )
}
