//! `trireme status`: what runs, and whether it answers.

use std::sync::Arc;

use bytes::Bytes;
use client::Transport as _;
use client::https::{Credentials, HttpsTransport};
use serde_json::json;

use crate::cli::{Format, Status};
use crate::errors::{CliError, Context as _, Result};
use crate::layout::Layout;
use crate::process::Process;
use crate::server::pki;
use crate::settings::Settings;

/// The largest answer of a health check that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Tells the state; fails when nothing runs.
pub async fn run(arguments: Status, layout: &Layout) -> Result {
    let settings = Settings::read(layout)?.ok_or_else(|| crate::no_cluster(layout))?;
    let server = Process::read(&layout.process("server"));
    let health = match server {
        Some(_) => ready(layout, &settings).await.unwrap_or_else(|error| error.what),
        None => "not running".into(),
    };
    let node = match &settings.node {
        Some(name) => Some(NodeState::look(layout, name).await),
        None => None,
    };
    let address = format!("https://127.0.0.1:{}", settings.api_port);
    match arguments.output {
        Format::Json => {
            let mut state = json!({
                "api": address, "data": layout.data(),
                "processes": {"server": server.map(|process| json!({"pid": process.pid, "health": health}))},
            });
            if let Some(node) = &node {
                let process = json!({"pid": node.holder.map(|holder| holder.pid), "health": node.words()});
                state["processes"][format!("node/{}", node.name)] = process;
            }
            println!("{state:#}");
        }
        Format::Text => {
            let pid = server.map_or("-".into(), |process| process.pid.to_string());
            println!("{:<16} {:<8} STATE", "PROCESS", "PID");
            println!("{:<16} {pid:<8} {health}", "control plane");
            if let Some(node) = &node {
                let pid = node.holder.map_or("-".into(), |holder| holder.pid.to_string());
                println!("{:<16} {pid:<8} {}", format!("node {}", node.name), node.words());
            }
            println!("\nAPI   {address}\nData  {}", layout.data().display());
        }
    }
    if server.is_none() {
        return Err(crate::no_cluster(layout));
    }
    Ok(())
}

/// A node's processes.
struct NodeState {
    name: String,
    /// The process that holds its namespaces.
    holder: Option<Process>,
    /// Whether its daemon answers.
    answers: bool,
}

// === impl NodeState ===

impl NodeState {
    async fn look(layout: &Layout, name: &str) -> NodeState {
        NodeState {
            name: name.to_owned(),
            holder: super::node::holder(layout, name),
            answers: tokio::net::UnixStream::connect(layout.node_socket(name)).await.is_ok(),
        }
    }

    fn words(&self) -> &'static str {
        match (self.holder, self.answers) {
            (None, _) => "not running",
            (Some(_), true) => "running",
            (Some(_), false) => "its daemon is not running, its pods are: trireme up",
        }
    }
}

/// What `/readyz` says, asked as the administrator.
async fn ready(layout: &Layout, settings: &Settings) -> Result<String> {
    let admin = pki::read_pair(&layout.pki(), "admin")?.ok_or_else(|| crate::no_cluster(layout))?;
    let path = layout.pki().join("ca.crt");
    let ca = std::fs::read_to_string(&path).map_err(|error| CliError::file(&path, &error))?;
    let credentials = Credentials::Certificate {
        chain_pem: admin.certificate_pem,
        key_pem: admin.key_pem,
    };
    let server = format!("https://127.0.0.1:{}", settings.api_port);
    let transport = Arc::new(HttpsTransport::new(&server, &ca, credentials).doing("reaching the API server")?);
    let request = http::Request::get(format!("{server}/readyz"))
        .body(Bytes::new())
        .map_err(CliError::internal)?;
    let response = transport.send(request).await.doing("reaching the API server")?;
    let status = response.status();
    let body = client::collect(response.into_body(), ANSWER_BYTES_MAX)
        .await
        .doing("reading its answer")?;
    Ok(if status.is_success() {
        "ready".into()
    } else {
        String::from_utf8_lossy(&body).trim().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_cluster_it_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        let error = run(Status { output: Format::Json }, &layout).await.unwrap_err();
        assert_eq!(error.id, "NO_CLUSTER");
    }
}
