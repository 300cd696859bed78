//! `trireme server`: the control plane in the foreground; `keep-server`: the same apart from its caller, supervised.

use std::time::Duration;

use base::Random;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::cli::{EtcdFlags, KeepServer, Server};
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::{Layout, write_private};
use crate::process::{Process, allow_many_connections, own_cgroup, tell_ready};
use crate::server::{Access, ControlPlane};
use crate::settings::Settings;
use crate::supervisor;

use super::Ends;

/// The name of the control plane's files.
pub const DAEMON: &str = "server";

/// What a control plane tells of itself while it runs, whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// Its process.
    #[serde(flatten)]
    pub process: Process,
    /// The port of the API.
    pub api_port: u16,
}

impl Running {
    /// The control plane of these directories, while it runs.
    pub fn read(layout: &Layout) -> Option<Running> {
        let bytes = std::fs::read(layout.process(DAEMON)).ok()?;
        let running: Running = serde_json::from_slice(&bytes).ok()?;
        running.process.is_running().then_some(running)
    }

    fn write(self, layout: &Layout) -> Result {
        let text = serde_json::to_vec(&self).map_err(CliError::internal)?;
        write_private(&layout.process(DAEMON), &text)
    }
}

/// A control plane that was killed is gone after a moment; one that is not is running.
const ENDING_LIMIT: Duration = Duration::from_secs(2);

/// Runs until it is asked to end.
pub async fn run(arguments: Server, layout: &Layout) -> Result {
    layout.create()?;
    let process_file = layout.process(DAEMON);
    if let Some(other) = Process::read(&process_file)
        && !other.gone_within(ENDING_LIMIT).await
    {
        return Err(CliError::new(
            Kind::Machine,
            "ALREADY_RUNNING",
            format!(
                "a control plane is running already from {} (process {})",
                layout.data().display(),
                other.pid
            ),
        )
        .hint(format!(
            "look at it: {}; end it: {}",
            layout.command("status"),
            layout.command("down")
        )));
    }
    allow_many_connections()?;
    let mut ends = match arguments.supervised {
        true => Ends::listen_supervised()?,
        false => Ends::listen()?,
    };
    if arguments.supervised && rustix::process::geteuid().is_root() {
        let root = layout.server_cgroup_root();
        tokio::task::spawn_blocking(move || own_cgroup(&root, "daemon"));
    }
    let mut settings = Settings::read(layout)?.unwrap_or_default();
    // What `up` was told counts for whoever starts it.
    let named = Some(&arguments.etcd).filter(|flags| flags.are_given());
    let etcd = named
        .or(settings.etcd.as_ref())
        .map(EtcdFlags::options)
        .transpose()?
        .flatten();
    // Etcd's API is served over the store of its own.
    let of_up = settings.etcd_listen.filter(|_| etcd.is_none());
    settings.api_server = arguments.api_server.over(&settings.api_server)?;
    let flags = &settings.api_server;
    if let Some(what) = flags.audit.without_effect(&flags.audit_webhook) {
        tracing::warn!("{what}");
    }
    let audit = flags.audit.start(&flags.audit_webhook)?;
    let access = Access {
        authorization: flags.authorization.plan(&Random::real())?,
        admission: flags.admission.selection()?,
        debug: arguments.profiling,
    };
    let start = ControlPlane::start(layout, arguments.api_port, etcd, audit, access, &settings);
    let plane = start.await?;
    let mut ready = plane.describe();
    if let Some(listen) = arguments.etcd_listen.or(of_up) {
        let address = plane.serve_etcd(layout, listen).await?;
        ready["etcd"] = format!("https://{address}").into();
    }
    let own = Process::of(std::process::id() as i32).ok_or_else(|| CliError::internal("our own process is unknown"))?;
    let running = Running {
        process: own,
        api_port: plane.address().port(),
    };
    running.write(layout)?;
    plane.settle().await;
    tell_ready(&ready)?;
    tracing::info!(address = %plane.address(), "the control plane is ready");
    let why = ends.next().await;
    tracing::info!(why, "the control plane ends");
    plane.end().await;
    // A file that is gone already was somebody's reset.
    let _ = std::fs::remove_file(&process_file);
    Ok(())
}

/// Keeps the control plane running, in a session of its own.
pub async fn keep(arguments: &KeepServer, layout: &Layout) -> Result {
    rustix::process::setsid().doing("leaving the session")?;
    let command = |told: Option<&serde_json::Value>| {
        // A port that was chosen once is kept.
        let chosen = told.and_then(|told| told["apiPort"].as_u64());
        let port = chosen.unwrap_or(arguments.api_port.into());
        let mut command = Command::new(supervisor::OWN_PROGRAM);
        command.arg0("trireme").args(layout.flags());
        command.args(["server", "--supervised", "--api-port", &port.to_string()]);
        command
    };
    supervisor::run(&supervisor::Files::new(layout, DAEMON, DAEMON), command).await
}
