//! A file that may change while the server runs.

use std::io;
use std::path::{Path, PathBuf};

use base::Shutdown;
use futures::StreamExt as _;
use inotify::{Inotify, WatchMask};

/// Room for the events of the kernel.
const EVENT_BYTES: usize = 4096;

/// Calls `changed` with each new content of the file, until the shutdown. Its directory is watched: editors and mounted
/// ConfigMaps put another file into its place.
pub fn follow(
    path: PathBuf,
    mut content: Vec<u8>,
    shutdown: &Shutdown,
    mut changed: impl FnMut(&[u8]) + Send + 'static,
) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
    inotify.watches().add(directory, mask)?;
    let mut events = inotify.into_event_stream(vec![0; EVENT_BYTES])?;
    let ends = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            // What was written before the watch began counts, too.
            match tokio::fs::read(&path).await {
                Ok(now) if now != content => {
                    content = now;
                    changed(&content);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(file = %path.display(), %error, "a watched file cannot be read"),
            }
            match ends.until(events.next()).await {
                Some(Some(Ok(_))) => {}
                Some(Some(Err(error))) => tracing::warn!(file = %path.display(), %error, "watching a file failed"),
                Some(None) | None => return,
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_takes_the_files_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("file"), dir.path().join("other"));
        std::fs::write(&file, "one").unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let shutdown = Shutdown::new();
        let changed = move |content: &[u8]| tell.send(String::from_utf8(content.to_vec()).unwrap()).unwrap();
        follow(file.clone(), b"none".to_vec(), &shutdown, changed).unwrap();
        assert_eq!(told.recv().await.as_deref(), Some("one"));
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_eq!(told.recv().await.as_deref(), Some("two"));
        shutdown.finish().await;
        assert_eq!(told.recv().await, None);
    }
}
