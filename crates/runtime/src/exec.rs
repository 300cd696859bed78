//! Other processes in running containers.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rpc::cri;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::error::{Error, Result, doing};
use crate::protocol::{Answer, Call, Exec, Exit};
use crate::runtime::Runtime;
use crate::shim::Client;

/// Most output of a synchronous exec that is kept, as in containerd; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// How long output is awaited after the process ended, if something it left behind holds the streams open.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A process that was started, with its streams.
pub struct ExecSession {
    /// Writes to its stdin; absent if it has none or a terminal.
    pub stdin: Option<pipe::Sender>,
    /// What it writes; absent with a terminal.
    pub stdout: Option<pipe::Receiver>,
    /// What it complains; absent with a terminal.
    pub stderr: Option<pipe::Receiver>,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
    id: String,
    client: Client,
    exit: oneshot::Receiver<Exit>,
}

impl ExecSession {
    /// Waits for its end; the exit code, or 128 plus the signal.
    pub async fn wait(&mut self) -> Result<i32> {
        match (&mut self.exit).await {
            Ok(exit) => Ok(exit.code),
            Err(_) => Err(Error::Internal("the pod's shim is gone".into())),
        }
    }

    /// Kills it.
    pub async fn kill(&self) -> Result<()> {
        let signal = rustix::process::Signal::KILL.as_raw();
        Ok(self
            .client
            .tell(Call::KillExec {
                exec: self.id.clone(),
                signal,
            })
            .await?)
    }
}

/// What a synchronous exec came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// What it wrote.
    pub stdout: Vec<u8>,
    /// What it complained.
    pub stderr: Vec<u8>,
    /// Its exit code.
    pub exit_code: i32,
}

impl Runtime {
    /// Starts a command in a running container.
    pub async fn exec(self: &Arc<Self>, id: &str, args: Vec<String>, tty: bool, stdin: bool) -> Result<ExecSession> {
        let container = self.container(id)?;
        let record = container.record.lock().clone();
        if record.state() != cri::ContainerState::ContainerRunning {
            return Err(Error::State("container is not running".into()));
        }
        if args.is_empty() {
            return Err(Error::Invalid("no command specified".into()));
        }
        let client = self.sandbox(&record.sandbox_id)?.client()?;
        let exec = self.new_id();
        let (sender, exit) = oneshot::channel();
        self.execs.lock().insert(exec.clone(), sender);
        let mut session = ExecSession {
            stdin: None,
            stdout: None,
            stderr: None,
            terminal: None,
            id: exec.clone(),
            client,
            exit,
        };
        let mut fds = Vec::new();
        if !tty {
            let explain = "making pipes";
            if stdin {
                let (sender, receiver) = pipe::pipe().map_err(doing(explain))?;
                fds.push(receiver.into_blocking_fd().map_err(doing(explain))?);
                session.stdin = Some(sender);
            }
            for place in [&mut session.stdout, &mut session.stderr] {
                let (sender, receiver) = pipe::pipe().map_err(doing(explain))?;
                fds.push(sender.into_blocking_fd().map_err(doing(explain))?);
                *place = Some(receiver);
            }
        }
        let call = Exec {
            exec: exec.clone(),
            container: container.id.clone(),
            args,
            tty,
            stdin: stdin && !tty,
        };
        match session.client.call(Call::Exec(call), fds).await {
            Ok((Answer::Started { .. }, mut fds)) => {
                session.terminal = fds.pop();
                Ok(session)
            }
            Ok(_) => Err(Error::Internal("the pod's shim gave a strange answer".into())),
            Err(err) => {
                self.execs.lock().remove(&exec);
                Err(err.into())
            }
        }
    }

    /// Runs a command to its end and returns what it wrote. `timeout` of zero is none.
    pub async fn exec_sync(self: &Arc<Self>, id: &str, args: Vec<String>, timeout: Duration) -> Result<ExecOutput> {
        let command = args.join(" ");
        let mut session = self.exec(id, args, false, false).await?;
        let (stdout, stderr) = (Output::default(), Output::default());
        let mut reading = tokio::spawn({
            let out = collect(session.stdout.take(), Arc::clone(&stdout));
            let err = collect(session.stderr.take(), Arc::clone(&stderr));
            async move { tokio::join!(out, err) }
        });
        let code = if timeout.is_zero() {
            session.wait().await?
        } else {
            match tokio::time::timeout(timeout, session.wait()).await {
                Ok(code) => code?,
                Err(_) => {
                    session.kill().await?;
                    reading.abort();
                    let text = format!(
                        "command {command:?} timed out: it ran longer than {} s",
                        timeout.as_secs()
                    );
                    return Err(Error::Deadline(text));
                }
            }
        };
        if tokio::time::timeout(DRAIN_TIMEOUT, &mut reading).await.is_err() {
            reading.abort();
        }
        let take = |output: &Output| std::mem::take(&mut *output.lock());
        Ok(ExecOutput {
            stdout: take(&stdout),
            stderr: take(&stderr),
            exit_code: code,
        })
    }
}

/// What was read so far: kept even if the stream never ends.
type Output = Arc<parking_lot::Mutex<Vec<u8>>>;

async fn collect(stream: Option<pipe::Receiver>, output: Output) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; 32 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let mut output = output.lock();
        let room = OUTPUT_BYTES_MAX - output.len();
        output.extend_from_slice(&chunk[..count.min(room)]);
    }
}
