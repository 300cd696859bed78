//! Rotating the logs of containers before they fill the disk.
//!
//! The runtime's own limit only protects the disk from a node without kubelet; this is the limit that people know.
//! Source: `pkg/kubelet/logs/container_log_manager.go`. Other than upstream's, renamed files are not compressed: reading a log
//! reads them too.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::{Clock, Shutdown};

use crate::cri::{Cri, CriError};

/// Between two looks: the kernel tells nobody of a file's size without a watch on each. Source:
/// `containerLogMonitorInterval`.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A larger log is renamed. Source: `containerLogMaxSize`.
const BYTES_MAX: u64 = 10 << 20;
/// Files of a container with the one that is written. Source: `containerLogMaxFiles`.
const FILES_MAX: usize = 5;

/// Rotates the logs below a directory (`POD/CONTAINER/ATTEMPT.log`) until the end.
pub async fn rotate(root: PathBuf, cri: Cri, clock: Clock, shutdown: Shutdown) {
    let work = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = root.clone();
            let found = tokio::task::spawn_blocking(move || large(&looked, BYTES_MAX)).await;
            for log in found.unwrap_or_default() {
                if let Err(error) = rotate_one(&log, &cri, &clock).await {
                    tracing::warn!(log = %log.display(), %error, "a log was not rotated");
                }
            }
        }
    };
    let _ = shutdown.until(work).await;
}

/// Why a log was not rotated.
#[derive(Debug, thiserror::Error)]
enum RotationError {
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("{0}")]
    Runtime(#[from] CriError),
}

async fn rotate_one(log: &Path, cri: &Cri, clock: &Clock) -> Result<(), RotationError> {
    // Asked only for a log that is too large: most nodes never are.
    for container in cri.containers(None).await? {
        let status = cri.container_status(&container.id).await?;
        if Path::new(&status.log_path) != log {
            continue;
        }
        let running = rpc::cri::ContainerState::ContainerRunning as i32;
        if status.state != running {
            return Ok(());
        }
        remove_old(log, FILES_MAX - 2)?;
        let renamed = renamed(log, &clock.now().strftime("%Y%m%d-%H%M%S").to_string());
        std::fs::rename(log, &renamed)?;
        if let Err(error) = cri.reopen_log(&container.id).await {
            // The container still writes to it.
            std::fs::rename(&renamed, log)?;
            return Err(error.into());
        }
        return Ok(());
    }
    Ok(())
}

fn renamed(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// The logs that are written and larger than that.
fn large(root: &Path, bytes: u64) -> Vec<PathBuf> {
    let below = |directory: PathBuf| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path())
    };
    let containers = below(root.to_owned()).flat_map(below);
    let logs = containers.flat_map(below);
    logs.filter(|path| path.extension() == Some(OsStr::new("log")))
        .filter(|path| {
            path.metadata()
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() > bytes)
        })
        .collect()
}

/// Removes the oldest renamed files of a log, but so many.
fn remove_old(log: &Path, kept: usize) -> io::Result<()> {
    let files = super::files::rotated(log)?;
    let too_many = files.len().saturating_sub(kept);
    files.iter().take(too_many).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_logs_are_found_and_the_oldest_files_go() {
        let root = tempfile::tempdir().unwrap();
        let container = root.path().join("ns_pod_uid/c");
        std::fs::create_dir_all(&container).unwrap();
        let log = container.join("0.log");
        std::fs::write(&log, "x".repeat(20)).unwrap();
        std::fs::write(container.join("1.log"), "x").unwrap();
        assert_eq!(large(root.path(), 10), std::slice::from_ref(&log));
        for second in 0..5 {
            let old = renamed(&log, &format!("20260101-00000{second}"));
            std::fs::write(&old, "x".repeat(20)).unwrap();
            let at = std::time::UNIX_EPOCH + Duration::from_secs(second);
            std::fs::File::options()
                .append(true)
                .open(&old)
                .unwrap()
                .set_modified(at)
                .unwrap();
        }
        assert_eq!(large(root.path(), 10), std::slice::from_ref(&log));
        remove_old(&log, FILES_MAX - 2).unwrap();
        let left: Vec<String> = super::super::files::rotated(&log)
            .unwrap()
            .iter()
            .map(|path| path.extension().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(left, ["20260101-000002", "20260101-000003", "20260101-000004"]);
    }
}
