//! The real kubectl that tests and the demo use: found, and new enough.

use std::process::Command;

use anyhow::{Context as _, bail};

/// The oldest minor version that the tests are written for.
const MINOR_MIN: u32 = 32;

/// Checks that `kubectl` is there and at least 1.32.
///
/// # Errors
/// What is wrong, and what to do about it.
pub fn check() -> anyhow::Result<()> {
    let advice = "install kubectl 1.32 or newer (https://kubernetes.io/docs/tasks/tools/) and run this again";
    let output = Command::new("kubectl")
        .args(["version", "--client", "-o", "json"])
        .output();
    let output = output.with_context(|| format!("kubectl was not found: {advice}"))?;
    let version: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("kubectl gave no version: {advice}"))?;
    let minor = version["clientVersion"]["minor"].as_str().unwrap_or_default();
    let number: u32 = minor
        .trim_end_matches('+')
        .parse()
        .with_context(|| format!("kubectl minor version {minor:?}"))?;
    if number < MINOR_MIN {
        bail!("kubectl is 1.{number}, too old for these tests: {advice}");
    }
    Ok(())
}
