//! The administrator's kubeconfig: made at start, renewed while running, in the cluster's own file and in the user's.
//!
//! The user's file is written as that user (see [`crate::kubeconfig`]).

use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::pki::Pair;

use super::pki::Pki;
use crate::errors::{CliError, Result};
use crate::kubeconfig::{self, Access, Edit, Job};
use crate::layout::{Layout, write_private};
use crate::renewal::Renewal;
use crate::settings::Settings;

/// How the administrator reaches the server.
#[derive(Clone, Copy)]
pub struct Way {
    /// Where it is.
    pub address: SocketAddr,
    /// By which name it is asked for, when not by its address.
    pub server_name: Option<&'static str>,
}

/// Writes the cluster's own kubeconfig, and keeps it and the user's current until the end.
pub fn start(layout: &Layout, pki: Arc<Pki>, way: Way, renewal: Renewal) -> Result {
    let pair = pki.administrator(&renewal.clock)?;
    write(layout, &pki, way, &pair)?;
    let (clock, authority, layout) = (renewal.clock.clone(), pki.clone(), layout.clone());
    renewal.keep(
        pair,
        move || std::future::ready(authority.new_administrator(&clock)),
        move |pair| {
            let text = write(&layout, &pki, way, pair)?;
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

fn write(layout: &Layout, pki: &Pki, way: Way, pair: &Pair) -> Result<String> {
    let config = kubeconfig::make(&Access {
        server: &format!("https://{}", way.address),
        server_name: way.server_name,
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
    let ours = serde_saphyr::from_str(text).map_err(CliError::internal)?;
    let edit = Edit::Refresh;
    kubeconfig::edit(&Job { edit, owner, ours }).map(drop)
}
