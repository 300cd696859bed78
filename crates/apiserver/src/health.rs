//! `/healthz`, `/livez` and `/readyz`: named checks, each of which can be asked for alone or left out.
//!
//! Source: `k8s.io/apiserver/pkg/server/healthz/healthz.go`.

use std::sync::Arc;

use http::Response;

use api::Status;
use client::Body;

use crate::call::Call;
use crate::respond::body;
use crate::server::Server;

/// One check: `Err` says what is wrong. The text goes to the log; answers say only that it was withheld.
pub type Check = Arc<dyn Fn(&Server) -> Result<(), String> + Send + Sync>;

/// A named check.
#[derive(Clone)]
pub struct NamedCheck {
    /// The name in the path.
    pub name: String,
    /// The check.
    pub check: Check,
    /// Whether `/livez` asks it too: only what a restart would mend.
    pub live: bool,
}

impl NamedCheck {
    /// A check for `/readyz` and `/healthz`, and for `/livez` when `live`.
    pub fn new(
        name: &str,
        live: bool,
        check: impl Fn(&Server) -> Result<(), String> + Send + Sync + 'static,
    ) -> NamedCheck {
        NamedCheck {
            name: name.into(),
            check: Arc::new(check),
            live,
        }
    }
}

/// What every server checks.
pub fn defaults() -> Vec<NamedCheck> {
    vec![
        NamedCheck::new("ping", true, |_| Ok(())),
        NamedCheck::new("log", true, |_| Ok(())),
        NamedCheck::new("etcd", true, |server| server.store_health()),
        NamedCheck::new("shutdown", false, |server| match server.shutdown.is_triggered() {
            true => Err("process is shutting down".into()),
            false => Ok(()),
        }),
    ]
}

/// What was done after the start, which stays done.
fn hooks(server: &Server) -> Vec<NamedCheck> {
    let hooks = server.hooks.lock();
    let checks = hooks
        .iter()
        .map(|name| NamedCheck::new(&format!("poststarthook/{name}"), true, |_| Ok(())));
    checks.collect()
}

/// The paths of all checks.
pub fn paths(server: &Server) -> Vec<String> {
    let hooks = hooks(server);
    let mut paths = Vec::new();
    for which in ["healthz", "livez", "readyz"] {
        paths.push(format!("/{which}"));
        let checks = asked(server, &hooks, which);
        paths.extend(checks.map(|check| format!("/{which}/{}", check.name)));
    }
    paths
}

/// The checks of `/healthz`, `/livez` or `/readyz`.
fn asked<'a>(server: &'a Server, hooks: &'a [NamedCheck], which: &'a str) -> impl Iterator<Item = &'a NamedCheck> {
    let checks = server.checks.iter().chain(hooks);
    checks.filter(move |check| which != "livez" || check.live)
}

/// Asks a check and counts how it came out.
fn ask(call: &Call, which: &str, check: &NamedCheck) -> Result<(), String> {
    let outcome = (check.check)(&call.server);
    call.server.metrics.health.checked(&check.name, which, outcome.is_ok());
    outcome
}

/// Answers `/readyz`, `/readyz?verbose`, `/readyz/etcd`, `/readyz/poststarthook/rbac/bootstrap-roles` and the like.
pub fn serve(call: &Call, which: &str, single: Option<&str>) -> Result<Response<Body>, Status> {
    let hooks = hooks(&call.server);
    let checks: Vec<&NamedCheck> = asked(&call.server, &hooks, which).collect();
    if let Some(name) = single {
        let check = checks.iter().find(|check| check.name == name);
        let check = check.ok_or_else(Status::no_such_path)?;
        return Ok(match ask(call, which, check) {
            Ok(()) => body::text(200, "ok"),
            Err(why) => body::text(500, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    for check in &checks {
        let name = &check.name;
        if excluded.contains(&&**name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match ask(call, which, check) {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::warn!(check = %name, %why, "a health check fails");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(name.clone());
            }
        }
    }
    if !failed.is_empty() {
        return Ok(body::text(500, format!("{lines}{which} check failed\n")));
    }
    let unknown: Vec<&&str> = excluded
        .iter()
        .filter(|name| !checks.iter().any(|c| c.name == ***name))
        .collect();
    if !unknown.is_empty() {
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {unknown:?}\n"
        ));
    }
    if call.query.has("verbose") {
        return Ok(body::text(200, format!("{lines}{which} check passed\n")));
    }
    Ok(body::text(200, "ok"))
}
