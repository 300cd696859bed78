//! The real kubectl, as the administrator.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::unseen;
use crate::errors::{CliError, Context as _, Kind, Result};

/// The real kubectl.
pub struct Kubectl {
    kubeconfig: String,
}

// === impl Kubectl ===

impl Kubectl {
    /// A kubectl that speaks to the cluster of that kubeconfig.
    pub fn new(kubeconfig: &Path) -> Kubectl {
        Kubectl {
            kubeconfig: kubeconfig.display().to_string(),
        }
    }

    /// Runs it; answers what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, "").await
    }

    /// Runs it; answers the JSON it printed.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.run(arguments).await?).doing("reading kubectl's answer")
    }

    /// Runs it with something on its standard input.
    pub async fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            CliError::new(
                Kind::Missing,
                "NO_KUBECTL",
                format!("kubectl cannot be started: {error}"),
            )
            .hint("install it: https://kubernetes.io/docs/tasks/tools/")
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await.doing("speaking to kubectl")?;
        }
        let output = child.wait_with_output().await.doing("waiting for kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(unseen(&format!(
                "`kubectl {}` succeed, but it said: {said}",
                arguments.join(" ")
            )));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
