//! Where a cluster's state is, once it was moved: in the embedded store or in an etcd.
//!
//! After a migration the source still holds the state of before. A control plane that was started on it by mistake would be
//! a second cluster with the same names and keys, so a file in the data directory says which one it is. A cluster whose state
//! was never moved has no such file.

use serde::{Deserialize, Serialize};
use store::EtcdOptions;

use crate::errors::{CliError, Kind, Result};
use crate::layout::{Layout, write_private};

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Home {
    /// The store inside this program.
    Embedded,
    /// An etcd.
    Etcd,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateHome {
    /// Where the state is.
    pub home: Home,
    /// The etcd that it is in, or that it was in before.
    pub etcd: Option<EtcdName>,
}

/// An etcd, as people tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdName {
    /// `--etcd-servers`
    pub servers: Vec<String>,
    /// `--etcd-prefix`
    pub prefix: String,
}

impl From<&EtcdOptions> for EtcdName {
    fn from(options: &EtcdOptions) -> EtcdName {
        EtcdName {
            servers: options.endpoints.clone(),
            prefix: options.prefix.clone(),
        }
    }
}

// === impl StateHome ===

impl StateHome {
    /// What is to be written.
    pub fn new(home: Home, etcd: Option<EtcdName>) -> StateHome {
        StateHome { home, etcd }
    }

    /// What the file says, when there is one.
    pub fn read(layout: &Layout) -> Result<Option<StateHome>> {
        let path = layout.state_home();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
                CliError::new(
                    Kind::Machine,
                    "STATE_HOME_BROKEN",
                    format!("{}: {error}", path.display()),
                )
                .hint("it says whether the state is in the embedded store or in an etcd; remove it only when you know")
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(CliError::file(&path, &error)),
        }
    }

    /// Keeps it.
    pub fn write(&self, layout: &Layout) -> Result {
        write_private(
            &layout.state_home(),
            &serde_json::to_vec_pretty(self).map_err(CliError::internal)?,
        )
    }

    /// Refuses to start where the state is no more.
    pub fn check(layout: &Layout, etcd: Option<&EtcdOptions>) -> Result {
        let Some(known) = StateHome::read(layout)? else {
            return Ok(());
        };
        let asked = if etcd.is_some() { Home::Etcd } else { Home::Embedded };
        if known.home == asked {
            return Ok(());
        }
        let file = layout.state_home();
        let (what, hint) = match (known.home, known.etcd) {
            (Home::Etcd, name) => {
                let servers = name.map(|name| format!("{} --etcd-prefix {}", name.servers.join(","), name.prefix));
                (
                    "the state of this cluster was moved into an etcd; the embedded store holds what was before"
                        .to_owned(),
                    format!(
                        "trireme server --etcd-servers {}; or move it back: trireme migrate --to embedded",
                        servers.as_deref().unwrap_or("...")
                    ),
                )
            }
            (Home::Embedded, _) => (
                "the state of this cluster is in the embedded store; an etcd holds what was before".to_owned(),
                format!(
                    "start it without --etcd-servers; when another cluster's etcd is meant, remove {}",
                    file.display()
                ),
            ),
        };
        Err(CliError::new(Kind::Usage, "STATE_MOVED", what).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_starts_where_the_state_is_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        layout.create().unwrap();
        let etcd = EtcdOptions::new(["http://a:1", "http://b:1"]);
        let ask = |etcd| StateHome::check(&layout, etcd).err().map(|error| error.to_string());
        assert_eq!((ask(None), ask(Some(&etcd))), (None, None));
        StateHome::new(Home::Etcd, Some((&etcd).into())).write(&layout).unwrap();
        assert_eq!(ask(Some(&etcd)), None);
        let told = ask(None).unwrap();
        assert!(
            told.starts_with("error[STATE_MOVED]") && told.contains("http://a:1,http://b:1 --etcd-prefix /registry"),
            "{told}"
        );
        StateHome::new(Home::Embedded, None).write(&layout).unwrap();
        assert_eq!(ask(None), None);
        assert!(ask(Some(&etcd)).unwrap().starts_with("error[STATE_MOVED]"));
        std::fs::write(layout.state_home(), "{").unwrap();
        assert!(ask(None).unwrap().starts_with("error[STATE_HOME_BROKEN]"));
    }
}
