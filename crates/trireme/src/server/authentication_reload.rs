//! Follows the file of `--authentication-config`: what it says about issuers holds soon after it is written.
//!
//! Invariant: a file that cannot be used changes nothing; who comes without credentials is settled at start.
//! Source: `pkg/kubeapiserver/options/authentication.go` (`ApplyTo`).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::authentication::{AuthenticationConfiguration, JwtTokens};
use apiserver::pipeline::Anonymous;
use base::Shutdown;
use futures::StreamExt as _;
use inotify::{EventStream, Inotify, WatchMask};

/// The file is looked at this often without any news, too: an issuer that did not answer gets another chance, and a
/// network's file system tells of no change that others make. Upstream's.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Room for some events of a directory.
const EVENT_BYTES: usize = 4096;

/// Gives the issuers of the file to `issuers` from now on, until the end. `text` is what is in force.
pub fn follow(file: PathBuf, text: String, anonymous: Option<Anonymous>, issuers: Arc<JwtTokens>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    let mut follower = Follower {
        file,
        text,
        anonymous,
        issuers,
    };
    shutdown.spawn(async move { stop.until(follower.run()).await });
}

struct Follower {
    file: PathBuf,
    /// What was taken or refused for good.
    text: String,
    anonymous: Option<Anonymous>,
    issuers: Arc<JwtTokens>,
}

// === impl Follower ===

impl Follower {
    async fn run(&mut self) {
        let mut news = match news(&self.file) {
            Ok(news) => Some(news),
            Err(error) => {
                tracing::warn!(%error, "changes of the authentication configuration are seen late");
                None
            }
        };
        loop {
            self.look().await;
            let heard = async {
                match &mut news {
                    Some(news) => drop(news.next().await),
                    None => std::future::pending().await,
                }
            };
            // Without news it is time to look again.
            let _ = tokio::time::timeout(LOOK_AGAIN, heard).await;
        }
    }

    async fn look(&mut self) {
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "the authentication configuration cannot be read");
                return;
            }
        };
        if text == self.text {
            return;
        }
        let read = AuthenticationConfiguration::from_text(&text).map_err(|error| error.to_string());
        let read = read.and_then(|read| match read.anonymous == self.anonymous {
            true => Ok(read.issuers),
            false => Err("anonymous: Forbidden: changed from initial configuration file".to_owned()),
        });
        match read {
            Err(error) => {
                tracing::error!(
                    error,
                    "the authentication configuration cannot be used; the old one stays"
                );
                self.text = text;
            }
            Ok(issuers) => match self.issuers.replace(&issuers).await {
                Ok(()) => {
                    tracing::info!(issuers = issuers.len(), "reloaded the authentication configuration");
                    self.text = text;
                }
                Err(error) => {
                    tracing::error!(error, "an issuer of tokens is of no use yet; the old ones stay");
                }
            },
        }
    }
}

/// What happens in the file's directory: a file is often replaced by a rename, or by a link that leads elsewhere.
fn news(file: &Path) -> std::io::Result<EventStream<Vec<u8>>> {
    let directory = file
        .parent()
        .filter(|path| *path != OsStr::new(""))
        .unwrap_or(Path::new("."));
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::DELETE;
    inotify.watches().add(directory, mask)?;
    inotify.into_event_stream(vec![0; EVENT_BYTES])
}
