//! Files that others replace while we run: configurations, certificates and keys.
//!
//! Directories are watched, not files: editors and certificate managers put another file in a file's place, and a mounted
//! volume exchanges a link. Every directory counts in which a part of a file's path is such a link. Invariants: contents
//! that were handed out are handed out again only after others; what cannot be used changes nothing, and is told in the log
//! and in the metrics.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use apiserver::metrics::ReloadMetrics;
use base::{Clock, Shutdown};
use futures::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// Looked at so often without any news, too: a network's file system tells of no change that others make, and the machine
/// may have no watch left. Source: `FileRefreshDuration` of upstream's dynamic certificates.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Room for the events of some dozen names at once.
const EVENT_BYTES: usize = 4096;
/// So many links lead from one to another at most: the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// What is in files, in their order.
pub type Contents = Vec<Vec<u8>>;

/// Why contents are not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// They are wrong, and stay so.
    Wrong(String),
    /// Something else is in the way for now: they are tried again.
    NotYet(String),
}

/// Files, and what is known to be in them.
pub struct Watched {
    files: Vec<PathBuf>,
    known: Option<Contents>,
    events: Option<EventStream<Vec<u8>>>,
    is_new: bool,
}

// === impl Watched ===

impl Watched {
    /// Follows files in which this was read a moment ago: what changed since then counts.
    pub fn since(files: Vec<PathBuf>, known: Contents) -> Watched {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; EVENT_BYTES]));
        if let Err(error) = &events {
            tracing::warn!(%error, ?files, "changes are seen once a minute only");
        }
        Watched {
            files,
            known: Some(known),
            events: events.ok(),
            is_new: true,
        }
    }

    /// Returns what is in the files once that is something else than before.
    pub async fn changed(&mut self) -> Contents {
        loop {
            // Watches first: what happens after the look is news again.
            self.watch();
            if !std::mem::take(&mut self.is_new) {
                self.news().await;
                self.watch();
            }
            match read(&self.files).await {
                Ok(now) if Some(&now) != self.known.as_ref() => {
                    self.known = Some(now.clone());
                    return now;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a watched file cannot be read: what was in it counts on"),
            }
        }
    }

    /// Hands out what is there once more, when there is news or after a while.
    fn forget(&mut self) {
        self.known = None;
    }

    /// Watches where the files are now. What is watched already stays so.
    fn watch(&mut self) {
        let Some(events) = &self.events else { return };
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
        let mut directories = BTreeSet::new();
        for file in &self.files {
            directories_of(file, &mut directories, LINKS_MAX);
        }
        for directory in directories {
            if let Err(error) = events.watches().add(&directory, mask) {
                tracing::warn!(%error, directory = %directory.display(), "changes there are seen once a minute only");
            }
        }
    }

    async fn news(&mut self) {
        let heard = async {
            match &mut self.events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        // The interval's end is no error.
        if let Ok(None | Some(Err(_))) = tokio::time::timeout(LOOK_INTERVAL, heard).await {
            self.events = None;
        }
    }
}

/// The directories in which something can happen that changes what is at a path.
fn directories_of(file: &Path, directories: &mut BTreeSet<PathBuf>, links: u32) {
    let mut walked = PathBuf::new();
    let mut rest = file.components();
    while let Some(component) = rest.next() {
        walked.push(component);
        let is_name = matches!(component, Component::Normal(_));
        let target = is_name.then(|| std::fs::read_link(&walked)).and_then(Result::ok);
        let parent = walked.parent().filter(|parent| *parent != OsStr::new(""));
        let parent = parent.unwrap_or(Path::new(".")).to_owned();
        if let Some(target) = target.filter(|_| links > 0) {
            directories_of(&parent.join(target).join(rest.as_path()), directories, links - 1);
            directories.insert(parent);
            return;
        }
        if rest.as_path() == Path::new("") {
            directories.insert(parent);
        }
    }
}

/// Reads all files.
///
/// # Errors
/// One cannot be read; it is named.
pub async fn read(files: &[PathBuf]) -> io::Result<Contents> {
    let mut contents = Vec::with_capacity(files.len());
    for file in files {
        let content = tokio::fs::read(file).await;
        contents.push(content.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?);
    }
    Ok(contents)
}

/// Follows files for a purpose, and tells how that went.
#[derive(Clone)]
pub struct Follow {
    /// What counts.
    pub metrics: ReloadMetrics,
    /// What says when.
    pub clock: Clock,
    /// The end.
    pub shutdown: Shutdown,
}

// === impl Follow ===

impl Follow {
    /// Hands each new contents to `take`, until the end. What they are for names them in the metrics.
    pub fn start<F>(
        &self,
        what: &'static str,
        mut watched: Watched,
        mut take: impl FnMut(Contents) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<(), Refusal>> + Send,
    {
        if let Some(known) = &watched.known {
            self.metrics.began(what, known);
        }
        let (metrics, clock, stop) = (self.metrics.clone(), self.clock.clone(), self.shutdown.clone());
        let run = async move {
            loop {
                let contents = watched.changed().await;
                let outcome = take(contents.clone()).await;
                metrics.reloaded(what, &contents, outcome.is_ok(), &clock);
                match outcome {
                    Ok(()) => tracing::info!(what, files = ?watched.files, "reloaded"),
                    Err(Refusal::Wrong(error)) => {
                        tracing::error!(what, error, files = ?watched.files, "this cannot be used; what was read before stays");
                    }
                    Err(Refusal::NotYet(error)) => {
                        tracing::error!(what, error, files = ?watched.files, "this cannot be used yet; what was read before stays");
                        watched.forget();
                    }
                }
            }
        };
        self.shutdown.spawn(async move {
            stop.until(run).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::sync::mpsc;

    use super::*;

    /// Shorter than the interval: what is told in time is told by the kernel.
    const SOON: Duration = Duration::from_secs(45);

    async fn told(watched: &mut Watched) -> String {
        let contents = tokio::time::timeout(SOON, watched.changed()).await.expect("it is told");
        let texts = contents.into_iter().map(|content| String::from_utf8(content).unwrap());
        texts.collect::<Vec<_>>().join("|")
    }

    #[tokio::test]
    async fn whatever_takes_a_files_place_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("a"), "1").unwrap();
        std::fs::write(at("b"), "x").unwrap();
        let mut watched = Watched::since(vec![at("a"), at("b")], vec![b"0".to_vec(), b"x".to_vec()]);
        assert_eq!(told(&mut watched).await, "1|x", "what changed before");
        std::fs::write(at("a"), "2").unwrap();
        assert_eq!(told(&mut watched).await, "2|x", "written over");
        std::fs::write(at("new"), "3").unwrap();
        std::fs::rename(at("new"), at("a")).unwrap();
        assert_eq!(told(&mut watched).await, "3|x", "renamed over");
        std::fs::remove_file(at("b")).unwrap();
        std::fs::write(at("b"), "y").unwrap();
        assert_eq!(told(&mut watched).await, "3|y", "removed and made again");
    }

    #[tokio::test]
    async fn links_are_followed_wherever_they_lead() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // As the kubelet mounts a Secret: tls.crt -> ..data/tls.crt, ..data -> ..1.
        let version = |number: &str| {
            std::fs::create_dir_all(at("volume").join(number)).unwrap();
            std::fs::write(at("volume").join(number).join("tls.crt"), number).unwrap();
            symlink(number, at("volume/..tmp")).unwrap();
            std::fs::rename(at("volume/..tmp"), at("volume/..data")).unwrap();
        };
        version("..1");
        symlink("..data/tls.crt", at("volume/tls.crt")).unwrap();
        std::fs::create_dir(at("etc")).unwrap();
        symlink("../volume/tls.crt", at("etc/tls.crt")).unwrap();
        let mut watched = Watched::since(vec![at("etc/tls.crt")], vec![b"..1".to_vec()]);
        watched.watch();
        version("..2");
        assert_eq!(told(&mut watched).await, "..2");
        std::fs::remove_dir_all(at("volume/..1")).unwrap();
        version("..3");
        assert_eq!(told(&mut watched).await, "..3");
        // Another link, and a file that it leads to.
        std::fs::write(at("plain"), "4").unwrap();
        symlink("../plain", at("etc/new")).unwrap();
        std::fs::rename(at("etc/new"), at("etc/tls.crt")).unwrap();
        assert_eq!(told(&mut watched).await, "4");
        std::fs::write(at("plain"), "5").unwrap();
        assert_eq!(told(&mut watched).await, "5");
    }

    #[test]
    fn links_in_a_circle_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let mut directories = BTreeSet::new();
        directories_of(&dir.path().join("a/x"), &mut directories, LINKS_MAX);
        assert!(directories.contains(dir.path()));
    }

    #[tokio::test]
    async fn what_is_refused_is_not_taken_again_until_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "wrong").unwrap();
        let follow = Follow {
            metrics: ReloadMetrics::default(),
            clock: Clock::real(),
            shutdown: Shutdown::new(),
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        let watched = Watched::since(vec![file.clone()], vec![b"first".to_vec()]);
        follow.start("test", watched, move |contents| {
            let text = String::from_utf8(contents.concat()).unwrap();
            let verdict = match &*text {
                "wrong" => Err(Refusal::Wrong("it is wrong".into())),
                _ => Ok(()),
            };
            tell.send(text).unwrap();
            std::future::ready(verdict)
        });
        let mut next = async || tokio::time::timeout(SOON, told.recv()).await.expect("it is told");
        assert_eq!(next().await.as_deref(), Some("wrong"));
        std::fs::write(dir.path().join("other"), "news of another file").unwrap();
        std::fs::write(dir.path().join("new"), "right").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        assert_eq!(next().await.as_deref(), Some("right"));
        follow.shutdown.finish().await;
        assert_eq!(next().await, None);
    }
}
