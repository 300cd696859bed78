//! Lifecycle hooks: what a container is told after its start and before its end.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`.

use std::net::IpAddr;
use std::time::Duration;

use client::k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::Cri;
use crate::probes::{Target, http};

/// How long an HTTP hook may take when nothing else bounds it.
const HTTP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What a container is told right after its start.
pub fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// Runs a hook within the limit.
///
/// # Errors
/// What went wrong, for the event.
pub async fn run(
    cri: &Cri,
    handler: &LifecycleHandler,
    container: &Container,
    run: &str,
    address: Option<IpAddr>,
    limit: Option<Duration>,
) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(limit.map_or(wanted, |limit| wanted.min(limit))).await;
        return Ok(());
    }
    if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        let seconds = limit.map_or(0, |limit| i64::try_from(limit.as_secs()).unwrap_or(0).max(1));
        let answer = cri
            .exec_sync(run, command, seconds)
            .await
            .map_err(|error| error.to_string())?;
        if answer.exit_code == 0 {
            return Ok(());
        }
        let output = String::from_utf8_lossy(&answer.stderr).into_owned();
        return Err(format!(
            "command '{}' exited with {}: {output}",
            command.join(" "),
            answer.exit_code
        ));
    }
    if let Some(get) = &handler.http_get {
        let target = Target {
            address,
            run: run.to_owned(),
            container: container.clone(),
        };
        let asked = tokio::time::timeout(limit.unwrap_or(HTTP_LIMIT), http::hook(get, &target)).await;
        return asked.map_err(|_| "context deadline exceeded".to_owned())?;
    }
    Err("invalid handler".into())
}
