//! The place of the embedded store, and another store taking it: for `restore` and `migrate`.
//!
//! Invariants: there is always exactly one store under its name (the two are exchanged at once); the old one is kept aside
//! under its own name from the moment of the exchange on; while a new one is made, no control plane can open the old one.

use std::fs::File;
use std::path::{Path, PathBuf};

use base::Clock;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use store::{Embedded, EmbeddedOptions, Engine as _, OpenError};

use crate::errors::{CliError, Kind, Result};
use crate::layout::{Layout, make_private_dir};
use crate::process::Process;
use crate::supervisor;

use super::server;

/// Refuses when this directory's control plane runs.
pub fn refuse_running(layout: &Layout) -> Result {
    // A supervisor whose daemon died is about to start another one.
    let supervisor = supervisor::Files::new(layout, server::DAEMON, server::DAEMON).read();
    match Process::read(&layout.process(server::DAEMON)).or(supervisor.map(|state| state.supervisor)) {
        Some(server) => Err(
            running(&format!("the control plane is running (process {})", server.pid))
                .hint(format!("end it first: {}", layout.command("down"))),
        ),
        None => Ok(()),
    }
}

/// The words for a store that is in use.
pub fn running(what: &str) -> CliError {
    CliError::new(Kind::Usage, "RUNNING", what).hint("end it first: trireme down")
}

/// The place, claimed for another store.
pub struct Place {
    data: PathBuf,
    store: PathBuf,
    /// The store that is there. Its lock is held while it is open.
    old: Option<Embedded>,
    occupied: bool,
    /// Why the store that is there could not be opened.
    unreadable: Option<OpenError>,
    /// Its newest revision; 0: none, or not known.
    pub newest_revision: u64,
}

impl Place {
    /// Takes hold of the place. A store that is there and cannot be opened is no hindrance: that may be why it is replaced,
    /// and the wall time sees to it that revisions rise.
    pub async fn claim(layout: &Layout, replace: bool, to_do: &str) -> Result<Place> {
        let mut place = Place {
            data: layout.data().to_owned(),
            store: layout.store(),
            old: None,
            occupied: holds_files(&layout.store())?,
            unreadable: None,
            newest_revision: 0,
        };
        if place.occupied && !replace {
            let what = format!("there is a store in {} already", place.store.display());
            return Err(CliError::new(Kind::Usage, "STORE_EXISTS", what).hint(format!(
                "{to_do} and keep the old one aside: --replace; or use a new directory: --dir DIR"
            )));
        }
        layout.create()?;
        if place.occupied {
            match Embedded::open(EmbeddedOptions::new(&place.store)).await {
                Ok(old) => {
                    place.newest_revision = old.progress().await.map_or(0, |progress| progress.revision);
                    place.old = Some(old);
                }
                Err(error @ OpenError::Locked(_)) => return Err(running(&error.to_string())),
                Err(error) => place.unreadable = Some(error),
            }
        }
        Ok(place)
    }

    /// Says why the store that is there cannot be opened.
    pub fn tell_unreadable(&self, quiet: bool) {
        if let Some(error) = self.unreadable.as_ref().filter(|_| !quiet) {
            eprintln!("  the store that is replaced cannot be read: {error}");
        }
    }

    /// An empty directory beside it, for a store that is being made. What an earlier attempt left there goes.
    pub fn beside(&self, doing: &str) -> Result<PathBuf> {
        let beside = self.data.join(format!("store.{doing}"));
        match std::fs::remove_dir_all(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(CliError::file(&beside, &error)),
            _ => {}
        }
        make_private_dir(&beside)?;
        Ok(beside)
    }

    /// Puts a store in the place; where the old one is kept.
    pub async fn take(self, new: &Path) -> Result<Option<PathBuf>> {
        let fail = |error: std::io::Error| CliError::file(&self.store, &error);
        if let Some(old) = &self.old {
            old.close().await;
        }
        let aside = if self.occupied {
            // The name that the old store will have. Whatever stops us in between, no store lies where it is taken for a
            // part of one.
            let now = Clock::real().now().strftime("%Y-%m-%dT%H-%M-%S%.3fZ");
            let aside = self.data.join(format!("store.before-{now}"));
            renameat_with(CWD, new, CWD, &aside, RenameFlags::NOREPLACE).map_err(|error| fail(error.into()))?;
            renameat_with(CWD, &aside, CWD, &self.store, RenameFlags::EXCHANGE).map_err(|error| fail(error.into()))?;
            Some(aside)
        } else {
            remove_empty(&self.store).map_err(fail)?;
            renameat_with(CWD, new, CWD, &self.store, RenameFlags::NOREPLACE).map_err(|error| fail(error.into()))?;
            None
        };
        let synced = File::open(&self.data).and_then(|data| data.sync_all());
        synced.map_err(|error| CliError::file(&self.data, &error))?;
        Ok(aside)
    }
}

/// The file by which a store is locked; alone it is no store.
const LOCK: &str = "LOCK";

/// Whether there is anything that would be lost.
pub fn holds_files(place: &Path) -> Result<bool> {
    match std::fs::read_dir(place) {
        Ok(mut entries) => Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CliError::file(place, &error)),
    }
}

/// Removes a directory that holds no store.
fn remove_empty(place: &Path) -> std::io::Result<()> {
    let absent = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    absent(std::fs::remove_file(place.join(LOCK)))?;
    absent(std::fs::remove_dir(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &Path, content: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("file"), content).unwrap();
    }

    #[tokio::test]
    async fn a_store_takes_the_place_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::find(Some(dir.path()), true, |_| None).unwrap();
        let content = |path: &Path| std::fs::read_to_string(path.join("file")).unwrap();

        let place = Place::claim(&layout, false, "do it").await.unwrap();
        let new = place.beside("made").unwrap();
        make(&new, "one");
        // A control plane that was refused may have left a lock.
        std::fs::create_dir_all(layout.store()).unwrap();
        std::fs::write(layout.store().join(LOCK), "").unwrap();
        assert_eq!(place.take(&new).await.unwrap(), None);
        assert_eq!(content(&layout.store()), "one");

        let Err(error) = Place::claim(&layout, false, "do it").await else {
            panic!("a store would be lost")
        };
        assert_eq!(error.id, "STORE_EXISTS");

        // What is no store that can be read is replaced, too, and what an attempt left behind is not in the way.
        make(&layout.data().join("store.made"), "left behind");
        std::fs::write(layout.store().join("00000000000000000001.log"), "no log").unwrap();
        let place = Place::claim(&layout, true, "do it").await.unwrap();
        assert!(place.unreadable.is_some());
        let new = place.beside("made").unwrap();
        make(&new, "two");
        let aside = place.take(&new).await.unwrap().unwrap();
        assert_eq!(
            (content(&layout.store()), content(&aside)),
            ("two".into(), "one".into())
        );
        assert!(!new.exists());
    }
}
