//! `cargo xtask test`: everything that CI runs.

use crate::{cargo, clients, kubectl, target_dir, tidy, uml, workspace};

/// Tidy first (it is quick to fail), then every test of the workspace, then again those that a kernel with v2 shows more of.
pub fn run(arguments: &[&str]) -> anyhow::Result<()> {
    kubectl::check()?;
    tidy::run()?;
    shim()?;
    // The end-to-end tests run the real binary: build it, so that they find it beside themselves.
    crate::run(&cargo(), &["build", "--workspace", "--bins", "--locked"])?;
    clients::build()?;
    let mut command = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    command.extend(arguments);
    crate::run(&cargo(), &command)?;
    fuzz(&[])?;
    uml::run()
}

/// Every fuzz target for a minute, four a core. Not with `--release`: that would build everything once more, and
/// would not see numbers that overflow.
pub fn fuzz(arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = vec!["run", "--locked", "--package", "testkit", "--example", "fuzz", "--"];
    command.extend(arguments);
    crate::run(&cargo(), &command)
}

/// The shim is a package of its own, with flags of its own (see `crates/runtime/build.rs`): so are its tests.
fn shim() -> anyhow::Result<()> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let target_dir = target_dir().join("shim-build").display().to_string();
    let libraries = std::env::var("LIBSECCOMP_LIB_PATH").unwrap_or_else(|_| "/usr/lib/x86_64-linux-gnu".into());
    let manifest = workspace().join("crates/shim/Cargo.toml").display().to_string();
    crate::run_with(
        &cargo(),
        &[
            "test",
            "--release",
            "--locked",
            "--target",
            TARGET,
            "--manifest-path",
            &manifest,
        ],
        &[
            ("CARGO_TARGET_DIR", &target_dir),
            ("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static"),
            ("LIBSECCOMP_LINK_TYPE", "static"),
            ("LIBSECCOMP_LIB_PATH", &libraries),
        ],
    )
}
