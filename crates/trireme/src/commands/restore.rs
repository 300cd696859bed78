//! `trireme restore`: the store of a cluster made of a backup.
//!
//! Invariants: nothing in place is touched before the whole backup was read and the new store is on the disk; there is
//! always exactly one store under its name (the two are exchanged at once); the old one is kept aside.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base::Clock;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use store::{
    BackupCheck, BackupSummary, Embedded, EmbeddedOptions, Engine as _, ImportError, OpenError, RestoreError,
    RestoreOptions,
};

use crate::cli::Restore;
use crate::errors::{CliError, Kind, Result};
use crate::layout::{Layout, make_private_dir};
use crate::process::Process;
use crate::progress::Progress;

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Restores, or only checks.
pub async fn run(arguments: Restore, layout: &Layout, quiet: bool) -> Result {
    let mut progress = Progress::start(quiet);
    if arguments.check {
        let summary = check(&arguments.file)?;
        let header = summary.header;
        println!("taken      {}", time(header.taken_at_ms));
        println!("revisions  {} to {}", header.oldest, header.newest);
        println!("keys       {} at revision {}", summary.keys, header.oldest);
        println!("bytes      {}", summary.bytes);
        if !summary.sealing_keys.is_empty() {
            println!("sealed by  keys {:?}, which are not in it", summary.sealing_keys);
        }
        return Ok(());
    }
    if let Some(server) = Process::read(&layout.process("server")) {
        let what = format!("the control plane is running (process {})", server.pid);
        return Err(CliError::new(Kind::Usage, "RUNNING", what).hint("end it first: trireme down"));
    }
    let place = layout.store();
    let occupied = holds_files(&place)?;
    if occupied && !arguments.replace {
        let what = format!("there is a store in {} already", place.display());
        return Err(CliError::new(Kind::Usage, "STORE_EXISTS", what).hint(
            "put the backup in its place and keep the old one aside: --replace; or restore into a new directory: --dir DIR",
        ));
    }
    layout.create()?;
    let known_revision = match occupied {
        true => newest_revision(&place, quiet).await?,
        false => 0,
    };
    let beside = layout.data().join("store.restoring");
    remove(&beside)?;
    make_private_dir(&beside)?;
    let input = open(&arguments.file)?;
    let options = RestoreOptions {
        store: EmbeddedOptions::new(&beside),
        revision: arguments.revision,
        known_revision,
    };
    let restored = match store::restore(input, options).await {
        Ok(restored) => restored,
        Err(error) => {
            let _ = std::fs::remove_dir_all(&beside);
            return Err(refused(&arguments.file, error));
        }
    };
    progress.done(&format!("revision {} read, {} keys", restored.revision, restored.keys));
    let aside = put_in_place(layout, &beside, &place, occupied)?;
    progress.done(&format!("in place, revisions go on at {}", restored.new_revision));
    if quiet {
        return Ok(());
    }
    if let Some(aside) = aside {
        eprintln!("  the store that was there is kept: {}", aside.display());
    }
    if !restored.backup.sealing_keys.is_empty() {
        eprintln!(
            "  values are sealed by the keys {:?}: they have to be there",
            restored.backup.sealing_keys
        );
    }
    if !layout.pki().join("ca.key").exists() {
        eprintln!(
            "  keys are in no backup: copy the old cluster's into {} before `trireme up`, or its tokens and kubeconfigs end",
            layout.pki().display()
        );
    }
    Ok(())
}

fn open(file: &Path) -> Result<Box<dyn Read + Send>> {
    if file == Path::new("-") {
        return Ok(Box::new(std::io::stdin()));
    }
    let opened = File::open(file).map_err(|error| CliError::file(file, &error))?;
    Ok(Box::new(opened))
}

fn check(file: &Path) -> Result<BackupSummary> {
    let mut input = open(file)?;
    let (mut check, mut buffer) = (BackupCheck::new(), vec![0; READ_BYTES]);
    loop {
        let read = input.read(&mut buffer).map_err(|error| CliError::file(file, &error))?;
        if read == 0 {
            return check.finish().map_err(|error| refused(file, error.into()));
        }
        check
            .push(&buffer[..read])
            .map_err(|error| refused(file, error.into()))?;
    }
}

/// The words for a backup that was refused.
fn refused(file: &Path, error: RestoreError) -> CliError {
    let what = format!("{}: {error}", file.display());
    match error {
        RestoreError::Backup(_) => CliError::new(Kind::Usage, "BACKUP_REFUSED", what)
            .hint("nothing was changed; take another backup of the same cluster"),
        RestoreError::Revision { .. } => CliError::new(Kind::Usage, "NO_SUCH_REVISION", what)
            .hint("nothing was changed; see: trireme restore --check"),
        RestoreError::Import(ImportError::Io(error)) => CliError::file(Path::new("the new store"), &error),
        RestoreError::Read(error) => CliError::file(file, &error),
        _ => CliError::new(Kind::Machine, "RESTORE_FAILED", what).hint("nothing was changed"),
    }
}

/// The newest revision of the store that is replaced. One that cannot be opened is no hindrance: that may be why it is
/// replaced, and the wall time sees to it that revisions rise.
async fn newest_revision(place: &Path, quiet: bool) -> Result<u64> {
    let opened = match Embedded::open(EmbeddedOptions::new(place)).await {
        Ok(opened) => opened,
        Err(error @ OpenError::Locked(_)) => {
            return Err(CliError::new(Kind::Usage, "RUNNING", error.to_string()).hint("end it first: trireme down"));
        }
        Err(error) => {
            if !quiet {
                eprintln!("  the store that is replaced cannot be read: {error}");
            }
            return Ok(0);
        }
    };
    let progress = opened.progress().await;
    opened.close().await;
    Ok(progress.map_or(0, |progress| progress.revision))
}

/// Exchanges the two directories at once; the old one's new place.
fn put_in_place(layout: &Layout, beside: &Path, place: &Path, occupied: bool) -> Result<Option<PathBuf>> {
    let fail = |error: rustix::io::Errno| CliError::file(place, &error.into());
    let sync = || File::open(layout.data()).and_then(|data| data.sync_all());
    let aside = if occupied {
        renameat_with(CWD, beside, CWD, place, RenameFlags::EXCHANGE).map_err(fail)?;
        let now = Clock::real().now().strftime("%Y-%m-%dT%H-%M-%SZ");
        let aside = layout.data().join(format!("store.before-{now}"));
        renameat_with(CWD, beside, CWD, &aside, RenameFlags::NOREPLACE).map_err(fail)?;
        Some(aside)
    } else {
        remove(place)?;
        renameat_with(CWD, beside, CWD, place, RenameFlags::NOREPLACE).map_err(fail)?;
        None
    };
    sync().map_err(|error| CliError::file(layout.data(), &error))?;
    Ok(aside)
}

/// Whether there is anything that a restore would lose.
fn holds_files(place: &Path) -> Result<bool> {
    match std::fs::read_dir(place) {
        Ok(mut entries) => Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "LOCK"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CliError::file(place, &error)),
    }
}

fn remove(directory: &Path) -> Result {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CliError::file(directory, &error)),
        _ => Ok(()),
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
