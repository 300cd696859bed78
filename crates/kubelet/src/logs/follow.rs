//! Reading a log to its end, and waiting there for more.
//!
//! Invariant: every record is read once and in order. A renamed file is read to its end before its successor.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::sync::mpsc;

use super::Options;
use super::files::{self, LogFile};
use super::records::Formatter;

/// What is read from the disk at once.
const BLOCK_BYTES: usize = 32 * 1024;
/// The longest record. Runtimes cut lines at 16 KiB; what is longer than this is no log and is left out.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Without a watch (the machine has no more inotify instances) the file is looked at in this period.
/// Source: `logForceCheckPeriod` of upstream.
const CHECK_PERIOD: Duration = Duration::from_secs(1);
/// Room for the events of the kernel.
const EVENT_BYTES: usize = 4096;

pub(super) struct Reader {
    path: PathBuf,
    follow: bool,
    formatter: Formatter,
    /// The file that is read.
    current: LogFile,
    offset: u64,
    /// Its successors.
    next: VecDeque<LogFile>,
    /// The beginning of a record whose end is not there yet.
    unfinished: Vec<u8>,
    /// The unfinished record is too long and is left out to its end.
    skipping: bool,
    changes: Option<Changes>,
}

enum Changes {
    Watched(EventStream<Vec<u8>>),
    /// No watch could be had.
    Unwatched,
}

/// Nobody reads any more, or all was shown.
struct Over;

// === impl Reader ===

impl Reader {
    pub(super) async fn open(path: PathBuf, options: Options) -> io::Result<Reader> {
        let found = {
            let (path, tail) = (path.clone(), options.tail_lines);
            let find = move || {
                let files = files::open_all(&path)?;
                let start = tail.map_or(Ok((0, 0)), |lines| files::start_of_tail(&files, lines))?;
                Ok::<_, io::Error>((files, start))
            };
            tokio::task::spawn_blocking(find).await.map_err(io::Error::other)??
        };
        let (files, (index, offset)) = found;
        let mut next: VecDeque<LogFile> = files.into_iter().skip(index).collect();
        let current = next.pop_front().ok_or(io::ErrorKind::NotFound)?;
        Ok(Reader {
            path,
            follow: options.follow,
            formatter: Formatter::new(&options),
            current,
            offset,
            next,
            unfinished: Vec::new(),
            skipping: false,
            changes: None,
        })
    }

    pub(super) async fn run(mut self, sender: mpsc::Sender<io::Result<Bytes>>, mut ended: BoxFuture<'static, ()>) {
        let mut has_ended = false;
        loop {
            match self.drain(&sender).await {
                Ok(Ok(())) => {}
                Ok(Err(Over)) => return,
                Err(error) => {
                    // Whoever read may be gone: then there is nobody to tell.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            }
            if !self.follow || has_ended {
                break;
            }
            if self.changes.is_none() {
                // What was written before the watch began is read once more.
                self.changes = Some(Changes::new(&self.path));
                continue;
            }
            let name = self.path.file_name().unwrap_or_default().to_owned();
            let changes = self.changes.get_or_insert(Changes::Unwatched);
            tokio::select! {
                () = &mut ended => has_ended = true,
                () = sender.closed() => return,
                () = changes.wait(&name) => {}
            }
        }
        let rest = std::mem::take(&mut self.unfinished);
        if !rest.is_empty() && !self.skipping {
            let mut out = Vec::new();
            self.formatter.line(&rest, false, &mut out);
            if !out.is_empty() {
                let _ = sender.send(Ok(out.into())).await;
            }
        }
    }

    /// Reads all that is there.
    async fn drain(&mut self, sender: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<Result<(), Over>> {
        loop {
            if self.formatter.is_done() {
                return Ok(Err(Over));
            }
            let length = match self.follow || !self.next.is_empty() {
                true => BLOCK_BYTES,
                // What is printed from now on was not asked for.
                false => BLOCK_BYTES.min(self.current.length.saturating_sub(self.offset) as usize),
            };
            let block = files::read_block(&self.current, self.offset, length).await?;
            if block.is_empty() {
                if !self.advance().await? {
                    return Ok(Ok(()));
                }
                continue;
            }
            self.offset += block.len() as u64;
            let mut out = Vec::with_capacity(block.len());
            self.take(&block, &mut out);
            if !out.is_empty() && sender.send(Ok(out.into())).await.is_err() {
                return Ok(Err(Over));
            }
        }
    }

    /// At the end of the file: goes on to its successor, or to the beginning if it was truncated. False when there is
    /// nothing more yet.
    async fn advance(&mut self) -> io::Result<bool> {
        if let Some(next) = self.next.pop_front() {
            (self.current, self.offset) = (next, 0);
            return Ok(true);
        }
        if !self.follow {
            return Ok(false);
        }
        if self.current.file.metadata()?.len() < self.offset {
            self.offset = 0;
            self.unfinished.clear();
            self.skipping = false;
            return Ok(true);
        }
        if files::inode_of(&self.path)? == Some(self.current.inode) {
            return Ok(false);
        }
        let path = self.path.clone();
        let files = tokio::task::spawn_blocking(move || files::open_all(&path))
            .await
            .map_err(io::Error::other)?;
        let files = match files {
            Ok(files) => files,
            // Between a rename and the new file, or the log was removed: the end of the container will tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let here = files.iter().position(|file| file.inode == self.current.inode);
        // Without ours among them all are newer.
        let newer: VecDeque<LogFile> = files.into_iter().skip(here.map_or(0, |at| at + 1)).collect();
        if newer.is_empty() {
            return Ok(false);
        }
        // Our file may have grown before it was renamed.
        self.next = newer;
        Ok(true)
    }

    fn take(&mut self, block: &[u8], out: &mut Vec<u8>) {
        let mut rest = block;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.unfinished.is_empty() {
                self.formatter.line(line, true, out);
            } else {
                let mut whole = std::mem::take(&mut self.unfinished);
                whole.extend_from_slice(line);
                self.formatter.line(&whole, true, out);
            }
        }
        if self.skipping {
            return;
        }
        self.unfinished.extend_from_slice(rest);
        if self.unfinished.len() > RECORD_BYTES_MAX {
            self.unfinished = Vec::new();
            self.skipping = true;
        }
    }
}

// === impl Changes ===

impl Changes {
    fn new(path: &Path) -> Changes {
        let watch = || -> io::Result<EventStream<Vec<u8>>> {
            let inotify = Inotify::init()?;
            let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE;
            inotify.watches().add(path.parent().unwrap_or(Path::new("/")), mask)?;
            inotify.into_event_stream(vec![0; EVENT_BYTES])
        };
        match watch() {
            Ok(events) => Changes::Watched(events),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the log cannot be watched, it is read every second");
                Changes::Unwatched
            }
        }
    }

    /// Returns when something happened to a file of the log.
    async fn wait(&mut self, name: &std::ffi::OsStr) {
        loop {
            let Changes::Watched(events) = self else {
                tokio::time::sleep(CHECK_PERIOD).await;
                return;
            };
            match events.next().await {
                // Events without a name: the kernel's queue ran over.
                Some(Ok(event)) if event.name.as_deref().is_none_or(|changed| changed == name) => return,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => *self = Changes::Unwatched,
            }
        }
    }
}
