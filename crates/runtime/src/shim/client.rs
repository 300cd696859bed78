//! One connection to one shim: calls with answers, and what the shim tells by itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use crate::protocol::{Answer, Call, Exit, Message, Request, State, VERSION, VERSION_MIN};
use crate::wire::{Reader, encode, send};

/// Longest wait for an answer: creating a container on a machine that swaps takes seconds, not minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What a shim tells without being asked.
pub trait Events: Send + Sync + 'static {
    /// A container ended; its record is on disk.
    fn container_exited(&self, container: &str, exit: Exit);
    /// An exec's process ended.
    fn exec_exited(&self, exec: &str, exit: Exit);
    /// The connection ended: the shim is dead, or was asked to end.
    fn lost(&self, sandbox: &str);
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim refused; its words are for people.
    #[error("{0}")]
    Refused(String),
    /// The connection is gone.
    #[error("the pod's shim is gone")]
    Gone,
    /// No answer in time.
    #[error("the pod's shim does not answer")]
    Timeout,
    /// The socket failed.
    #[error("the pod's shim cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// It speaks a version this build does not know.
    #[error("the pod's shim speaks protocol version {0}, this program {VERSION_MIN} to {VERSION}")]
    Version(u32),
}

type Waiting = HashMap<u64, oneshot::Sender<(Result<Answer, String>, Vec<OwnedFd>)>>;

/// A connection; clones share it, and it ends with the last of them.
#[derive(Clone)]
pub struct Client(Arc<Inner>, #[allow(dead_code)] Arc<AbortOnDropHandle<()>>);

struct Inner {
    stream: UnixStream,
    next: AtomicU64,
    /// The version that both know; 0 before the shim said hello.
    version: AtomicU32,
    /// `None` once the connection ended.
    waiting: Mutex<Option<Waiting>>,
    /// A frame is written as a whole before the next one.
    writing: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects and learns what the shim knows. `sandbox` names it in events.
    pub async fn connect(socket: &Path, sandbox: &str, events: Arc<dyn Events>) -> Result<(Client, State), ShimError> {
        let stream = super::connect(socket)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let inner = Inner {
            stream,
            next: AtomicU64::new(1),
            version: AtomicU32::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
            writing: tokio::sync::Mutex::new(()),
        };
        let inner = Arc::new(inner);
        let reader = tokio::spawn(read(Arc::clone(&inner), sandbox.to_owned(), events));
        let client = Client(inner, Arc::new(AbortOnDropHandle::new(reader)));
        match client.call(Call::Hello { version: VERSION }, Vec::new()).await?.0 {
            Answer::State(state) if (VERSION_MIN..=VERSION).contains(&state.version) => {
                client.0.version.store(state.version, Ordering::Relaxed);
                Ok((client, state))
            }
            Answer::State(state) => Err(ShimError::Version(state.version)),
            _ => Err(ShimError::Refused("the pod's shim did not say what it knows".into())),
        }
    }

    /// The version that this connection speaks: a shim may be older than this program.
    pub fn version(&self) -> u32 {
        self.0.version.load(Ordering::Relaxed)
    }

    /// Asks and waits for the answer; descriptors go and come with it.
    pub async fn call(&self, call: Call, fds: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>), ShimError> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match &mut *self.0.waiting.lock() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(ShimError::Gone),
        };
        let sent = self.send(&encode(&Request { id, call }), fds).await;
        let answer = match sent {
            Ok(()) => tokio::time::timeout(ANSWER_TIMEOUT, receiver).await,
            Err(err) => {
                self.forget(id);
                return Err(err.into());
            }
        };
        match answer {
            Ok(Ok((Ok(answer), fds))) => Ok((answer, fds)),
            Ok(Ok((Err(text), _))) => Err(ShimError::Refused(text)),
            Ok(Err(_)) => Err(ShimError::Gone),
            Err(_) => {
                self.forget(id);
                Err(ShimError::Timeout)
            }
        }
    }

    /// Asks where the answer says nothing.
    pub async fn tell(&self, call: Call) -> Result<(), ShimError> {
        self.call(call, Vec::new()).await.map(drop)
    }

    fn forget(&self, id: u64) {
        if let Some(waiting) = &mut *self.0.waiting.lock() {
            waiting.remove(&id);
        }
    }

    async fn send(&self, bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<()> {
        let _turn = self.0.writing.lock().await;
        let mut sent = 0;
        while sent < bytes.len() {
            let stream = &self.0.stream;
            stream.writable().await?;
            let attempt = stream.try_io(Interest::WRITABLE, || {
                let borrowed: Vec<_> = if sent == 0 {
                    fds.iter().map(AsFd::as_fd).collect()
                } else {
                    Vec::new()
                };
                send(stream, &bytes[sent..], &borrowed)
            });
            match attempt {
                Ok(count) => sent += count,
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

/// Reads until the connection ends and hands everything to whom it belongs.
async fn read(inner: Arc<Inner>, sandbox: String, events: Arc<dyn Events>) {
    let mut reader = Reader::default();
    loop {
        if inner.stream.readable().await.is_err() {
            break;
        }
        match inner.stream.try_io(Interest::READABLE, || reader.fill(&inner.stream)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        let healthy = loop {
            match reader.next::<Message>() {
                Ok(None) => break true,
                Ok(Some((Message::Reply { id, result }, fds))) => {
                    let sender = inner.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&id));
                    if let Some(sender) = sender {
                        // Nobody may be waiting any more.
                        let _ = sender.send((result, fds));
                    }
                }
                Ok(Some((Message::ContainerExited { container, exit }, _))) => {
                    events.container_exited(&container, exit);
                }
                Ok(Some((Message::ExecExited { exec, exit }, _))) => events.exec_exited(&exec, exit),
                Err(err) => {
                    tracing::error!(%sandbox, %err, "the pod's shim sends nonsense");
                    break false;
                }
            }
        };
        if !healthy {
            break;
        }
    }
    // Whoever waits learns that the connection is gone.
    inner.waiting.lock().take();
    events.lost(&sandbox);
}
