//! Somebody attached to a running container: its output beside the log, and its stdin.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rpc::cri;
use tokio::net::unix::pipe;

use crate::error::{Error, Result, doing};
use crate::protocol::{Answer, Call, VERSION_ATTACH};
use crate::runtime::Runtime;
use crate::shim::Client;

/// The streams of a container as they are lent.
pub struct Attached {
    /// Writes to its stdin; absent if it has none, or a terminal.
    pub stdin: Option<pipe::Sender>,
    /// What it writes from now on, until it ends; with a terminal all of it.
    pub stdout: Option<pipe::Receiver>,
    /// What it complains; absent with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// Its terminal, to be typed into and resized, never read.
    pub terminal: Option<OwnedFd>,
    /// Whether it takes input at all.
    pub takes_input: bool,
    /// Whether its stdin ends with this.
    once: bool,
    container: String,
    client: Client,
}

impl Attached {
    /// Nobody writes to its stdin here any more. A container whose stdin is for one only then has none.
    pub async fn input_ended(&self) {
        if self.once && self.takes_input {
            let container = self.container.clone();
            // A container that is gone has no stdin.
            let _ = self.client.tell(Call::CloseStdin { container }).await;
        }
    }
}

impl Runtime {
    /// Attaches to a running container.
    ///
    /// # Errors
    /// It does not run, or its pod was started by a version that cannot do this.
    pub async fn attach(self: &Arc<Self>, id: &str, stdin: bool) -> Result<Attached> {
        let container = self.container(id)?;
        let record = container.record.lock().clone();
        if record.state() != cri::ContainerState::ContainerRunning {
            return Err(Error::State("container is not running".into()));
        }
        let config = record.config.unwrap_or_default();
        let client = self.sandbox(&record.sandbox_id)?.client()?;
        if client.version() < VERSION_ATTACH {
            let why = "this pod was started by an older version of Trireme: attach works when it is made anew";
            return Err(Error::Unsupported(why.into()));
        }
        let explain = "making pipes";
        let mut fds = Vec::new();
        let mut output = || -> Result<pipe::Receiver> {
            let (sender, receiver) = pipe::pipe().map_err(doing(explain))?;
            fds.push(sender.into_blocking_fd().map_err(doing(explain))?);
            Ok(receiver)
        };
        let stdout = output()?;
        let stderr = if config.tty { None } else { Some(output()?) };
        let call = Call::Attach {
            container: container.id.clone(),
            stdin,
        };
        let (answer, mut fds) = client.call(call, fds).await?;
        let Answer::Attached { terminal, stdin } = answer else {
            return Err(Error::Internal("the pod's shim gave a strange answer".into()));
        };
        let lent = fds.pop();
        let mut attached = Attached {
            stdin: None,
            stdout: Some(stdout),
            stderr,
            terminal: None,
            takes_input: stdin,
            once: config.stdin_once,
            container: container.id.clone(),
            client,
        };
        match lent {
            Some(fd) if terminal => attached.terminal = Some(fd),
            Some(fd) => {
                rustix::io::ioctl_fionbio(&fd, true).map_err(|err| doing("using stdin")(err.into()))?;
                let sender = pipe::Sender::from_owned_fd(fd).map_err(doing("using stdin"))?;
                attached.stdin = Some(sender);
            }
            None => {}
        }
        Ok(attached)
    }
}
