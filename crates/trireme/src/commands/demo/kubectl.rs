//! The real kubectl, as the administrator.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

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
        Kubectl { kubeconfig: kubeconfig.display().to_string() }
    }

    /// Runs it; answers what it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, "")
    }

    /// Runs it; answers the JSON it printed.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        serde_json::from_str(&self.run(arguments)?).doing("reading kubectl's answer")
    }

    /// Runs it with something on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| {
            CliError::new(Kind::Missing, "NO_KUBECTL", format!("kubectl cannot be started: {error}"))
                .hint("install it: https://kubernetes.io/docs/tasks/tools/")
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).doing("speaking to kubectl")?;
        }
        let output = child.wait_with_output().doing("waiting for kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(unseen(&format!("`kubectl {}` succeed, but it said: {said}", arguments.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
