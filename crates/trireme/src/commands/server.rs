//! `trireme server`: the control plane in the foreground.

use crate::cli::Server;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;
use crate::process::{Process, tell_ready};
use crate::server::ControlPlane;
use crate::settings::Settings;

use super::Ends;

/// Runs until it is asked to end.
pub async fn run(arguments: Server, layout: &Layout) -> Result {
    if arguments.detached {
        rustix::process::setsid().doing("leaving the session")?;
    }
    layout.create()?;
    let process_file = layout.process("server");
    if let Some(other) = Process::read(&process_file) {
        return Err(CliError::new(
            Kind::Machine,
            "ALREADY_RUNNING",
            format!(
                "a control plane is running already from {} (process {})",
                layout.data().display(),
                other.pid
            ),
        )
        .hint("look at it: trireme status; end it: trireme down"));
    }
    let mut ends = Ends::listen()?;
    let settings = Settings::read(layout)?.unwrap_or_default();
    let plane = ControlPlane::start(layout, arguments.api_port, settings.node.as_deref(), settings.demo).await?;
    if let Some(listen) = arguments.etcd_listen {
        plane.serve_etcd(layout, listen).await?;
    }
    let own = Process::of(std::process::id() as i32).ok_or_else(|| CliError::internal("our own process is unknown"))?;
    own.write(&process_file)?;
    tell_ready(&plane.describe())?;
    tracing::info!(address = %plane.address(), "the control plane is ready");
    let why = ends.next().await;
    tracing::info!(why, "the control plane ends");
    plane.end().await;
    // A file that is gone already was somebody's reset.
    let _ = std::fs::remove_file(&process_file);
    Ok(())
}
