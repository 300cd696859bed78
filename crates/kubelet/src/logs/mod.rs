//! What containers printed, read from the runtime's log files.
//!
//! Whoever serves `kubectl logs` calls [`open`] and passes the stream on. Memory is bounded however large the files are: a
//! block is read when the one before was taken. Rotated files (`<name>.<anything>`, not compressed) belong to the log;
//! while it is followed, nothing is lost when the file is renamed or truncated.
//! Source: `k8s.io/cri-client/pkg/logs/logs.go`, which sees one file only.

mod files;
mod follow;
mod records;
mod rotation;

#[cfg(test)]
mod tests;

pub use rotation::rotate;

use std::io;
use std::path::Path;

use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Blocks that wait for a slow reader.
const BLOCKS_MAX: usize = 4;

/// Which of a container's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// Both.
    #[default]
    All,
    /// What it printed.
    Stdout,
    /// What it complained of.
    Stderr,
}

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on when the container prints more, until it ends.
    pub follow: bool,
    /// The time before each line.
    pub timestamps: bool,
    /// Only the last lines. As upstream, a piece of a very long line counts as one.
    pub tail_lines: Option<u64>,
    /// End after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only what was printed then or later.
    pub since: Option<Timestamp>,
    /// Which stream.
    pub stream: Stream,
}

/// A log as it is read. Dropping it ends the reading.
pub type LogStream = ReceiverStream<io::Result<Bytes>>;

/// Opens the log at `path`. While following, `ended` tells that the container ended (at once if it did before): what is
/// there then is still read, then the stream ends.
///
/// # Errors
/// The file is not there or cannot be read.
pub async fn open(path: &Path, options: Options, ended: BoxFuture<'static, ()>) -> io::Result<LogStream> {
    let path = tokio::fs::canonicalize(path).await?;
    let reader = follow::Reader::open(path, options).await?;
    let (sender, receiver) = mpsc::channel(BLOCKS_MAX);
    tokio::spawn(reader.run(sender, ended));
    Ok(ReceiverStream::new(receiver))
}
