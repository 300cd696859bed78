//! What `up` was told, kept for the next `up`, for `status` and for the daemons.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cli::{ApiServerFlags, EtcdFlags};
use crate::errors::{CliError, Kind, Result};
use crate::kubeconfig::Owner;
use crate::layout::{Layout, write_private};

/// The settings of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// The port of the API on loopback; 0 lets the kernel choose at the first start.
    pub api_port: u16,
    /// The node of this machine; `None` with `--no-node`.
    pub node: Option<String>,
    /// Whether pods have no way out of the cluster.
    pub isolated: bool,
    /// Whether a port of the machine leads to the demo.
    pub demo: bool,
    /// That port, while the control plane runs.
    pub demo_port: Option<u16>,
    /// Where etcd's API is served over the embedded store; `None`: nowhere.
    pub etcd_listen: Option<SocketAddr>,
    /// The etcd that has the state, in place of the embedded store. Its files have absolute names.
    pub etcd: Option<EtcdFlags>,
    /// How the API server behaves. Its files have absolute names.
    #[serde(flatten)]
    pub api_server: ApiServerFlags,
    /// How long certificates live, in seconds; `None`: a year.
    pub certificate_seconds: Option<u32>,
    /// The user's kubeconfig that our access was merged into.
    pub kubeconfig: Option<Owner>,
    /// Directories that were made above the cluster's own, for `reset` to remove.
    pub made_directories: Vec<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            api_port: 6443,
            node: None,
            isolated: true,
            demo: false,
            demo_port: None,
            etcd_listen: None,
            etcd: None,
            api_server: ApiServerFlags::default(),
            certificate_seconds: None,
            kubeconfig: None,
            made_directories: Vec::new(),
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The settings of the last `up`, if there was one.
    pub fn read(layout: &Layout) -> Result<Option<Settings>> {
        let path = layout.settings();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                CliError::new(Kind::Machine, "SETTINGS_BROKEN", format!("{}: {error}", path.display())).hint(format!(
                    "remove that file, then: {} with the flags you want; nothing else is lost",
                    layout.command("up")
                ))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::file(&path, &error)),
        }
    }

    /// Keeps the settings.
    pub fn write(&self, layout: &Layout) -> Result {
        write_private(
            &layout.settings(),
            &serde_json::to_vec_pretty(self).map_err(CliError::internal)?,
        )
    }
}
