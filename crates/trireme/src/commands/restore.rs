//! `trireme restore`: the store of a cluster made of a backup.
//!
//! Invariant: nothing in place is touched before the whole backup was read and the new store is on the disk
//! ([`super::store_place`]).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use store::{BackupCheck, BackupSummary, EmbeddedOptions, ImportError, RestoreError, RestoreOptions};

use crate::cli::Restore;
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::state_home::{Home, StateHome};

use super::store_place::{self, Place};

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
    store_place::refuse_running(layout)?;
    let place = Place::claim(layout, arguments.replace, "put the backup in its place").await?;
    place.tell_unreadable(quiet);
    let beside = place.beside("restoring")?;
    let input = open(&arguments.file)?;
    let options = RestoreOptions {
        store: EmbeddedOptions::new(&beside),
        revision: arguments.revision,
        known_revision: place.newest_revision,
    };
    let reading = store::restore(input, options);
    let doing = || format!("reading {}", arguments.file.display());
    let restored = match progress.during(doing, reading).await {
        Ok(restored) => restored,
        Err(error) => {
            let _ = std::fs::remove_dir_all(&beside);
            return Err(refused(&arguments.file, error));
        }
    };
    progress.done(&format!("revision {} read, {} keys", restored.revision, restored.keys));
    let aside = place.take(&beside).await?;
    if StateHome::read(layout)?.is_some() {
        StateHome::new(Home::Embedded, None).write(layout)?;
    }
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

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
