//! `trireme backup`: the state of a running cluster into a file, a directory of files, or standard output.
//!
//! Invariants: a file has its name only when it is whole, checked and on the disk; no older backup is removed before that.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Clock;
use http_body_util::BodyExt as _;
use store::{BackupCheck, BackupSummary};

use super::Ends;
use crate::access::Access;
use crate::cli::Backup;
use crate::errors::{CliError, Kind, Result};
use crate::layout::Layout;
use crate::progress::{Progress, megabytes};

/// The API's path, and what it answers with.
const PATH: &str = "/trireme/v1/backup";
const MEDIA_TYPE: &str = "application/vnd.trireme.backup";
/// What our files in a directory are called, so that nothing else is ever removed from it.
const PREFIX: &str = "trireme-";
const SUFFIX: &str = ".backup";
/// What follows the name of a file that is not whole.
const PART: &str = ".part";
/// A backup on schedule that failed is tried again after this, when the next one is not sooner.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Takes one backup, or one after the other.
pub async fn run(arguments: Backup, layout: &Layout, quiet: bool) -> Result {
    let access = Access::open(arguments.kubeconfig.as_deref(), layout)?;
    let target = &arguments.target;
    if target == Path::new("-") {
        if arguments.every.is_some() || arguments.keep.is_some() {
            return Err(CliError::new(
                Kind::Usage,
                "USAGE",
                "standard output takes one backup: --every and --keep need more",
            )
            .hint("name a directory"));
        }
        let output = std::io::stdout().lock();
        let (_, summary) = receive(&access, output, Path::new("standard output"), quiet).await?;
        tell(&summary, target, quiet);
        return Ok(());
    }
    let Some(every) = arguments.every else {
        if arguments.keep.is_some() || target.is_dir() {
            return into_directory(&access, target, arguments.keep, quiet).await;
        }
        let summary = into_file(&access, target, quiet).await?;
        tell(&summary, target, quiet);
        return Ok(());
    };
    let mut ends = Ends::listen()?;
    loop {
        let wait = match into_directory(&access, target, arguments.keep, quiet).await {
            Ok(()) => every,
            Err(error) => {
                eprintln!("{error}");
                every.min(RETRY_AFTER)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = ends.next() => return Ok(()),
        }
    }
}

fn tell(summary: &BackupSummary, target: &Path, quiet: bool) {
    if quiet {
        return;
    }
    let header = summary.header;
    eprintln!(
        "  revision {}: {} keys at revision {} and {} revisions after it, {} bytes, checked: {}",
        header.newest,
        summary.keys,
        header.oldest,
        summary.revisions,
        summary.bytes,
        target.display()
    );
    if !summary.sealing_keys.is_empty() {
        eprintln!(
            "  values are sealed by the keys {:?}, which are not in the backup: keep them elsewhere",
            summary.sealing_keys
        );
    }
}

/// One more file in a directory; then the oldest of ours go.
async fn into_directory(access: &Access, directory: &Path, keep: Option<usize>, quiet: bool) -> Result {
    std::fs::create_dir_all(directory).map_err(|error| CliError::file(directory, &error))?;
    remove_abandoned(directory)?;
    let now = Clock::real().now().strftime("%Y-%m-%dT%H-%M-%S%.3fZ");
    let path = directory.join(format!("{PREFIX}{now}{SUFFIX}"));
    let summary = into_file(access, &path, quiet).await?;
    tell(&summary, &path, quiet);
    let Some(keep) = keep else { return Ok(()) };
    for old in surplus(directory, keep)? {
        std::fs::remove_file(&old).map_err(|error| CliError::file(&old, &error))?;
    }
    Ok(())
}

/// Removes what backups left that were killed: each has a name of its own, so that they would pile up. One that is still
/// being written is locked by who writes it.
fn remove_abandoned(directory: &Path) -> Result {
    let failed = |error: std::io::Error| CliError::file(directory, &error);
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(&format!("{SUFFIX}{PART}"));
        if !name.to_str().is_some_and(ours) {
            continue;
        }
        let path = entry.path();
        // It may have got its name or been removed by another one since: then there is nothing to do.
        let abandoned = std::fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if abandoned {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Our files in a directory beyond the newest `keep`; their names order as their times do.
fn surplus(directory: &Path, keep: usize) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).map_err(|error| CliError::file(directory, &error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ours: Vec<String> = names
        .filter(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
        .collect();
    ours.sort();
    ours.truncate(ours.len().saturating_sub(keep.max(1)));
    Ok(ours.into_iter().map(|name| directory.join(name)).collect())
}

/// Beside its place first; in its place when it is whole and on the disk.
async fn into_file(access: &Access, path: &Path, quiet: bool) -> Result<BackupSummary> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(PART);
    let beside = PathBuf::from(beside);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .map_err(|error| CliError::file(&beside, &error))?;
    // For as long as it is open: it is not abandoned. A file system without locks has nobody who asks either.
    let _ = file.try_lock();
    let written = receive(access, file, &beside, quiet).await.and_then(|(file, summary)| {
        let fail = |error: std::io::Error| write_error(path, &error);
        file.sync_all().map_err(fail)?;
        std::fs::rename(&beside, path).map_err(fail)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(fail)?;
        Ok(summary)
    });
    if written.is_err() {
        // What is there is no backup.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Receives a backup and checks every byte on its way.
async fn receive<W: Write>(access: &Access, output: W, name: &Path, quiet: bool) -> Result<(W, BackupSummary)> {
    let got = Cell::new(0);
    let doing = || format!("receiving the backup: {}", megabytes(got.get()));
    let copying = copy(access, output, name, &got);
    Progress::start(quiet).during(doing, copying).await
}

async fn copy<W: Write>(access: &Access, mut output: W, name: &Path, got: &Cell<u64>) -> Result<(W, BackupSummary)> {
    let mut body = access.get(PATH, MEDIA_TYPE).await?;
    let mut check = BackupCheck::new();
    let broken = |why: String| {
        CliError::new(
            Kind::Machine,
            "BACKUP_BROKEN",
            format!("the backup did not arrive whole: {why}; nothing was kept"),
        )
        .hint("try again; when that fails too, the server's log tells more")
    };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(error.to_string()))?;
        let Ok(bytes) = frame.into_data() else { continue };
        got.set(got.get() + bytes.len() as u64);
        check.push(&bytes).map_err(|error| broken(error.to_string()))?;
        output.write_all(&bytes).map_err(|error| write_error(name, &error))?;
    }
    output.flush().map_err(|error| write_error(name, &error))?;
    let summary = check.finish().map_err(|error| broken(error.to_string()))?;
    Ok((output, summary))
}

fn write_error(path: &Path, error: &std::io::Error) -> CliError {
    let told = CliError::file(path, error);
    match error.kind() {
        std::io::ErrorKind::StorageFull => told.hint("no backup was kept; make room, or name another disk"),
        _ => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_files_of_ours_go() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "trireme-2026-01-01T00-00-00.000Z.backup",
            "trireme-2026-01-02T00-00-00.000Z.backup",
            "trireme-2026-01-03T00-00-00.000Z.backup",
            "trireme-2026-01-04T00-00-00.000Z.backup.part",
            "other.backup",
        ] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let names = |keep| {
            let paths = surplus(directory.path(), keep).unwrap();
            let day = |path: PathBuf| path.file_name().unwrap().to_string_lossy()[16..18].to_owned();
            paths.into_iter().map(day).collect::<Vec<_>>()
        };
        assert_eq!(names(2), ["01"]);
        assert_eq!(names(3), [""; 0]);
        // The newest always stays.
        assert_eq!(names(0), ["01", "02"]);
    }
}
