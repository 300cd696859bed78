//! Files that somebody may replace while we run: told when that may have happened.
//!
//! The directory is watched, not the file: editors and certificate managers put another file in its place, and mounted
//! volumes exchange a link. What is told may be nothing; whoever listens reads the file and compares.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// Looked at so often without any news, too: what a link names elsewhere may change unseen, and the machine may have no
/// watch left. Source: `FileRefreshDuration` of upstream's dynamic certificates.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Room for the events of some dozen names at once.
const EVENT_BYTES: usize = 4096;

/// Changes in the directories of some files.
pub struct FileChanges(Option<EventStream<Vec<u8>>>);

impl FileChanges {
    /// Watches from now on: read the files after this.
    pub fn of(files: &[&Path]) -> FileChanges {
        let watch = || {
            let inotify = Inotify::init()?;
            let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
            for file in files {
                inotify.watches().add(file.parent().unwrap_or(Path::new("/")), mask)?;
            }
            inotify.into_event_stream(vec![0; EVENT_BYTES])
        };
        let watched: std::io::Result<_> = watch();
        if let Err(error) = &watched {
            tracing::warn!(%error, ?files, "changes are seen once a minute only");
        }
        FileChanges(watched.ok())
    }

    /// Returns when one of the files may have changed.
    pub async fn next(&mut self) {
        let news = async {
            match &mut self.0 {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        // The interval's end is no error.
        let ended = matches!(tokio::time::timeout(LOOK_INTERVAL, news).await, Ok(None | Some(Err(_))));
        if ended {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_replaced_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&file, "1").unwrap();
        let mut changes = FileChanges::of(&[&file]);
        std::fs::write(&other, "2").unwrap();
        std::fs::rename(&other, &file).unwrap();
        changes.next().await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "2");
    }
}
