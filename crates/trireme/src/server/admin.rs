//! The administrator's kubeconfig: made at start, renewed while running, in the cluster's own file and in the user's.
//!
//! The user's file is written by a child that is nobody but that user: this daemon never follows a path of somebody else's
//! home with its own rights.

use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use apiserver::pki::Pair;

use super::pki::Pki;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::kubeconfig::{self, Access};
use crate::layout::{Layout, write_private};
use crate::renewal::Renewal;
use crate::settings::Settings;
use crate::supervisor;

/// Writes the cluster's own kubeconfig, and keeps it and the user's current until the end.
pub fn start(layout: &Layout, pki: Arc<Pki>, address: SocketAddr, renewal: Renewal) -> Result {
    let pair = pki.administrator(&renewal.clock)?;
    write(layout, &pki, address, &pair)?;
    let (clock, authority, layout) = (renewal.clock.clone(), pki.clone(), layout.clone());
    renewal.keep(
        pair,
        move || std::future::ready(authority.new_administrator(&clock)),
        move |pair| {
            let text = write(&layout, &pki, address, pair)?;
            // The user may have removed the file: the cluster's own is the one that counts.
            if let Err(error) = refresh_users(&layout, &text) {
                tracing::warn!(
                    error = error.what,
                    "the user's kubeconfig keeps the certificate of before"
                );
            }
            Ok(())
        },
    );
    Ok(())
}

fn write(layout: &Layout, pki: &Pki, address: SocketAddr, pair: &Pair) -> Result<String> {
    let config = kubeconfig::make(&Access {
        server: &format!("https://{address}"),
        ca_pem: pki.ca_pem(),
        certificate_pem: &pair.certificate_pem,
        key_pem: &pair.key_pem,
    });
    let text = kubeconfig::to_text(&config)?;
    write_private(&layout.admin_kubeconfig(), text.as_bytes())?;
    Ok(text)
}

/// Puts the access into the kubeconfig that `up` merged it into, as its owner.
fn refresh_users(layout: &Layout, text: &str) -> Result {
    let settings = Settings::read(layout)?.unwrap_or_default();
    let Some(owner) = settings.kubeconfig else {
        return Ok(());
    };
    // By its own path it may lie where that user cannot go.
    let mut command = Command::new(supervisor::OWN_PROGRAM);
    command.args(["kubeconfig", "--refresh"]).arg(&owner.path);
    if let Some((uid, gid)) = owner.ids {
        command.uid(uid).gid(gid);
    }
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().doing("starting the writer of the user's kubeconfig")?;
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(text.as_bytes())
            .doing("telling the user's kubeconfig")?;
    }
    let output = child.wait_with_output().doing("writing the user's kubeconfig")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(CliError::new(
            Kind::Machine,
            "KUBECONFIG",
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}
