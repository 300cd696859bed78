//! `trireme status`: what runs, whether it works, and why not.
//!
//! Looking is here; what is told of it is a plain function in `status/report.rs`.

mod report;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Transport as _;
use client::https::Credentials;
use serde_json::Value;

use self::report::{Health, Node, NodeHealth, Report};
use crate::access::named_transport;
use crate::cli::{Format, Status};
use crate::errors::{CliError, Context as _, Kind, Result, last_in};
use crate::kubeconfig;
use crate::layout::Layout;
use crate::server::{certificate_files, pki};
use crate::settings::Settings;
use crate::supervisor::Files;

use super::server::{DAEMON, Running};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// A control plane that does not answer for so long hangs: it answers within milliseconds, or a second under load.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How much of a log's end is searched for the reason why its daemon does not run.
const LOG_BYTES_MAX: u64 = 64 * 1024;
/// What daemons log when they work: no error before it is the reason of anything now.
const READY_WORDS: [&str; 2] = ["the control plane is ready", "the node is ready"];

/// Tells the state; fails when something does not work.
pub async fn run(arguments: Status, layout: &Layout) -> Result {
    let settings = Settings::read(layout)?;
    let running = Running::read(layout);
    if settings.is_none() && running.is_none() {
        return Err(crate::no_cluster(layout));
    }
    let settings = settings.unwrap_or_default();
    let supervised = Files::new(layout, DAEMON, DAEMON).read();
    let port = running.map_or(settings.api_port, |running| running.api_port);
    let server = match (running, &supervised) {
        (Some(_), _) => match ready(layout, &settings).await {
            Ok(()) => Health::Ready,
            Err(error) => Health::Sick(error.what),
        },
        (None, Some(_)) => Health::Restarting,
        (None, None) => Health::Absent(why_absent(layout, DAEMON, DAEMON)),
    };
    let node = match &settings.node {
        Some(name) => Some(look_at_node(layout, port, name, matches!(server, Health::Ready)).await),
        None => None,
    };
    let report = Report {
        version: super::version::text(),
        api: format!("https://127.0.0.1:{port}"),
        data: layout.data().to_owned(),
        logs: layout.log(DAEMON).parent().unwrap_or(layout.data()).to_owned(),
        kubeconfig: settings.kubeconfig.map(|owner| {
            let ours = kubeconfig::read(&layout.admin_kubeconfig()).unwrap_or_default();
            let is_there = kubeconfig::read(&owner.path).is_ok_and(|config| kubeconfig::is_ours(&config, &ours));
            (owner.path, is_there)
        }),
        pid: running.map(|running| running.process.pid),
        server,
        supervised,
        node,
        up: layout.command("up"),
        down: layout.command("down"),
    };
    match arguments.output {
        Format::Json => println!("{:#}", report.json()),
        Format::Text => print!("{}", report.text()),
    }
    if matches!(report.server, Health::Absent(_)) {
        return Err(crate::no_cluster(layout));
    }
    match report.problems().into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(CliError::new(Kind::Machine, "NOT_WELL", problem.what).hint(problem.hint)),
    }
}

async fn look_at_node(layout: &Layout, port: u16, name: &str, ask: bool) -> Node {
    let holder = super::node::holder(layout, name);
    let supervised = super::node::files(layout, name).read();
    let answers = tokio::net::UnixStream::connect(layout.node_socket(name)).await.is_ok();
    let health = match (holder, answers, &supervised) {
        (None, _, _) => NodeHealth::Absent(why_absent(layout, &super::holder_name(name), "node")),
        (Some(_), true, _) => NodeHealth::Running,
        (Some(_), false, Some(_)) => NodeHealth::Restarting,
        (Some(_), false, None) => NodeHealth::NoDaemon,
    };
    let condition = match ask {
        true => condition(layout, port, name).await,
        false => None,
    };
    Node {
        name: name.to_owned(),
        pid: holder.map(|holder| holder.pid),
        health,
        condition,
        supervised,
    }
}

/// Why a daemon and its supervisor are both gone, when that was nobody's wish.
fn why_absent(layout: &Layout, daemon: &str, log: &str) -> Option<String> {
    let killed = Files::new(layout, daemon, log).left_behind();
    let killed = killed.map(|state| {
        let pid = state.supervisor.pid;
        format!("its supervisor (process {pid}) was killed, or the machine was started anew")
    });
    killed.or_else(|| last_failure(&end_of(&layout.log(log)).unwrap_or_default()))
}

/// The error of the last start, when it failed.
fn last_failure(log: &str) -> Option<String> {
    let worked = READY_WORDS
        .iter()
        .filter_map(|words| log.rfind(words))
        .max()
        .unwrap_or(0);
    let (id, what, _) = last_in(&log[worked..])?;
    Some(format!("the last start failed, {id}: {what}"))
}

fn end_of(log: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The node's Ready condition, as the API tells it.
async fn condition(layout: &Layout, port: u16, name: &str) -> Option<Value> {
    let (_, body) = ask(layout, port, &format!("/api/v1/nodes/{name}")).await.ok()?;
    let node: Value = serde_json::from_slice(&body).ok()?;
    let conditions = node["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == "Ready")
        .cloned()
}

/// Whether the control plane is ready, asked as the administrator.
///
/// # Errors
/// It does not answer, or it tells which of its checks failed.
pub async fn ready(layout: &Layout, settings: &Settings) -> Result {
    let port = Running::read(layout).map_or(settings.api_port, |running| running.api_port);
    let (status, body) = ask(layout, port, "/readyz").await?;
    if status.is_success() {
        return Ok(());
    }
    // One line a check; those that failed begin with [-].
    let text = String::from_utf8_lossy(&body);
    let failed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    let what = match failed.is_empty() {
        true => text.trim().to_owned(),
        false => failed.join("; "),
    };
    Err(CliError::new(Kind::Machine, "NOT_READY", what).hint("wait a moment; its log tells more"))
}

/// A GET as the administrator.
async fn ask(layout: &Layout, port: u16, path: &str) -> Result<(http::StatusCode, Bytes)> {
    let admin = pki::read_leaf(&layout.pki(), "admin")?.ok_or_else(|| crate::no_cluster(layout))?;
    let ca_path = layout.pki().join("ca.crt");
    let ca = std::fs::read_to_string(&ca_path).map_err(|error| CliError::file(&ca_path, &error))?;
    let credentials = Credentials::Certificate {
        chain_pem: admin.certificate_pem,
        key_pem: admin.key_pem,
    };
    let server = format!("https://127.0.0.1:{port}");
    // Whatever it shows to others, by this name it shows the cluster's own certificate.
    let transport = named_transport(&server, certificate_files::OWN_NAME, &ca, credentials);
    let transport = Arc::new(transport.doing("reaching the API server")?);
    let request = http::Request::get(format!("{server}{path}"))
        .body(Bytes::new())
        .map_err(CliError::internal)?;
    let answer = async {
        let response = transport.send(request).await.doing("reaching the API server")?;
        let status = response.status();
        let body = client::collect(response.into_body(), ANSWER_BYTES_MAX).await;
        Ok((status, body.doing("reading its answer")?))
    };
    tokio::time::timeout(ANSWER_LIMIT, answer).await.unwrap_or_else(|_| {
        let what = format!("it does not answer within {} s", ANSWER_LIMIT.as_secs());
        Err(CliError::new(Kind::Machine, "NOT_ANSWERING", what).hint("its log tells more"))
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

    #[test]
    fn only_the_last_start_is_the_reason() {
        let failed = "error[PORT_TAKEN]: taken\nhint: x\n";
        for (log, why) in [
            (failed.to_owned(), Some("the last start failed, PORT_TAKEN: taken")),
            (
                format!("{failed}INFO the control plane is ready\nINFO the control plane ends\n"),
                None,
            ),
            (
                format!("INFO the node is ready\n{failed}"),
                Some("the last start failed, PORT_TAKEN: taken"),
            ),
            (String::new(), None),
        ] {
            assert_eq!(last_failure(&log).as_deref(), why, "{log}");
        }
    }
}
