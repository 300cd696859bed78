//! `trireme status`: what runs, and whether it answers.

use std::sync::Arc;

use bytes::Bytes;
use client::Transport as _;
use client::https::{Credentials, HttpsTransport};
use serde_json::json;

use crate::cli::{Format, Status};
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;
use crate::process::Process;
use crate::server::pki;
use crate::settings::Settings;
use crate::supervisor::{Files, State};

use super::server::DAEMON;

/// The largest answer of a health check that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Tells the state; fails when nothing runs.
pub async fn run(arguments: Status, layout: &Layout) -> Result {
    let settings = Settings::read(layout)?.ok_or_else(|| crate::no_cluster(layout))?;
    let server = Process::read(&layout.process(DAEMON));
    let supervised = Files::new(layout, DAEMON, DAEMON).read();
    let health = match (server, &supervised) {
        (Some(_), _) => ready(layout, &settings).await.unwrap_or_else(|error| error.what),
        (None, Some(_)) => "being started again".into(),
        (None, None) => "not running".into(),
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
                "processes": {"server": server.map(|process| {
                    with_deaths(json!({"pid": process.pid, "health": health}), supervised.as_ref())
                })},
            });
            if let Some(node) = &node {
                let process = json!({"pid": node.holder.map(|holder| holder.pid), "health": node.words()});
                state["processes"][format!("node/{}", node.name)] = with_deaths(process, node.supervised.as_ref());
            }
            println!("{state:#}");
        }
        Format::Text => {
            let pid = server.map_or("-".into(), |process| process.pid.to_string());
            println!("{:<16} {:<8} STATE", "PROCESS", "PID");
            println!("{:<16} {pid:<8} {health}", "control plane");
            tell_deaths(supervised.as_ref());
            if let Some(node) = &node {
                let pid = node.holder.map_or("-".into(), |holder| holder.pid.to_string());
                println!("{:<16} {pid:<8} {}", format!("node {}", node.name), node.words());
                tell_deaths(node.supervised.as_ref());
            }
            println!("\nAPI   {address}\nData  {}", layout.data().display());
        }
    }
    if server.is_none() && supervised.is_none() {
        return Err(crate::no_cluster(layout));
    }
    Ok(())
}

/// How often a daemon was started again, and why the last time.
fn tell_deaths(supervised: Option<&State>) {
    let Some((state, death)) = supervised.and_then(|state| Some((state, state.last_death.as_ref()?))) else {
        return;
    };
    let times = if state.restarts == 1 {
        "once"
    } else {
        &format!("{} times", state.restarts)
    };
    println!("{:<25} started again {times}, last at {}: {}", "", death.at, death.why);
}

fn with_deaths(mut process: serde_json::Value, supervised: Option<&State>) -> serde_json::Value {
    if let Some(state) = supervised {
        process["daemon"] = json!(state.daemon.map(|daemon| daemon.pid));
        process["supervisor"] = json!(state.supervisor.pid);
        process["restarts"] = json!(state.restarts);
        process["lastDeath"] = json!(state.last_death);
    }
    process
}

/// A node's processes.
struct NodeState {
    name: String,
    /// The process that holds its namespaces.
    holder: Option<Process>,
    /// Whether its daemon answers.
    answers: bool,
    supervised: Option<State>,
}

// === impl NodeState ===

impl NodeState {
    async fn look(layout: &Layout, name: &str) -> NodeState {
        NodeState {
            name: name.to_owned(),
            holder: super::node::holder(layout, name),
            answers: tokio::net::UnixStream::connect(layout.node_socket(name)).await.is_ok(),
            supervised: super::node::files(layout, name).read(),
        }
    }

    fn words(&self) -> &'static str {
        match (self.holder, self.answers, &self.supervised) {
            (None, _, _) => "not running",
            (Some(_), true, _) => "running",
            (Some(_), false, Some(_)) => "its daemon is being started again, its pods run",
            (Some(_), false, None) => "its daemon is not running, its pods are: trireme up",
        }
    }
}

/// `ready`, if that is what `/readyz` says, asked as the administrator.
pub async fn ready(layout: &Layout, settings: &Settings) -> Result<String> {
    let admin = pki::read_leaf(&layout.pki(), "admin")?.ok_or_else(|| crate::no_cluster(layout))?;
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
    match status.is_success() {
        true => Ok("ready".into()),
        false => Err(CliError::new(
            Kind::Machine,
            "NOT_READY",
            String::from_utf8_lossy(&body).trim().to_owned(),
        )),
    }
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
