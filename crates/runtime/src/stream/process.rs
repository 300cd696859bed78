//! A process and a client joined: what one writes the other reads.

use std::sync::Arc;

use bytes::Bytes;
use streams::channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::peer::{Input, Outcome, Peer};
use super::{Terminal, WantedProcess};
use crate::attach::Attached;
use crate::error::{Error, Result};
use crate::exec::ExecSession;
use crate::runtime::Runtime;

/// Chunks that wait for a slow client before the process's output is not read any more, and for a slow process before the
/// client is not listened to.
const CHUNKS_MAX: usize = 16;

/// What waits to be sent: a channel's chunk.
type Chunk = (u8, Bytes);

/// Whose streams they are.
enum Process {
    /// A command's, which ends with its client.
    Exec(ExecSession),
    /// A container's, which does not.
    Attach(Attached),
}

/// The ends of a process's streams.
struct Ends {
    process: Process,
    stdin: Option<pipe::Sender>,
    outputs: Vec<(pipe::Receiver, u8)>,
    terminal: Option<Arc<Terminal>>,
}

// === impl Process ===

impl Process {
    /// Its exit code; a container's is told by its status, not by those who are attached.
    async fn wait(&mut self) -> Result<i32> {
        match self {
            Process::Exec(session) => session.wait().await,
            Process::Attach(_) => Ok(0),
        }
    }

    /// Nothing more comes from the client.
    async fn input_ended(&self) {
        if let Process::Attach(attached) = self {
            attached.input_ended().await;
        }
    }

    /// The client is gone.
    async fn leave(&self) {
        match self {
            // As with every CRI runtime, the process of a client that went away goes too: nobody could end it any more.
            Process::Exec(session) => drop(session.kill().await),
            Process::Attach(attached) => attached.input_ended().await,
        }
    }
}

impl Ends {
    async fn open(runtime: &Arc<Runtime>, wanted: &WantedProcess) -> Result<Ends> {
        let terminal = |fd| {
            Terminal::new(fd)
                .map(Arc::new)
                .map_err(crate::error::doing("using the terminal"))
        };
        let outputs = |stdout: Option<pipe::Receiver>, stderr: Option<pipe::Receiver>| {
            let named = [(stdout, channel::STDOUT), (stderr, channel::STDERR)];
            let there = named.into_iter().filter_map(|(stream, name)| Some((stream?, name)));
            there.collect()
        };
        let container = &wanted.container;
        match &wanted.command {
            Some(command) => {
                let mut session = runtime
                    .exec(container, command.clone(), wanted.tty, wanted.stdin)
                    .await?;
                Ok(Ends {
                    stdin: session.stdin.take(),
                    outputs: outputs(session.stdout.take(), session.stderr.take()),
                    terminal: session.terminal.take().map(terminal).transpose()?,
                    process: Process::Exec(session),
                })
            }
            None => {
                let mut attached = runtime.attach(container, wanted.stdin).await?;
                Ok(Ends {
                    stdin: attached.stdin.take(),
                    outputs: outputs(attached.stdout.take(), attached.stderr.take()),
                    terminal: attached.terminal.take().map(terminal).transpose()?,
                    process: Process::Attach(attached),
                })
            }
        }
    }
}

/// Runs the command, or attaches to the container, and moves bytes until it ends or the client is gone.
pub(super) async fn converse(runtime: &Arc<Runtime>, wanted: &WantedProcess, mut peer: Peer) {
    let mut ends = match Ends::open(runtime, wanted).await {
        Ok(ends) => ends,
        Err(err) => {
            let doing = if wanted.command.is_some() {
                "executing command in"
            } else {
                "attaching to"
            };
            return peer.finish(Err(format!("error {doing} container: {err}"))).await;
        }
    };
    let (sender, mut chunks) = mpsc::channel::<Chunk>(CHUNKS_MAX);
    let mut pumps = Vec::new();
    // What is written to a container's own terminal comes by way of the shim, which writes it to the log as well.
    if let (Some(terminal), Process::Exec(_)) = (&ends.terminal, &ends.process) {
        pumps.push(tokio::spawn(pump_terminal(Arc::clone(terminal), sender.clone())));
    }
    for (stream, number) in std::mem::take(&mut ends.outputs) {
        let asked = if number == channel::STDERR {
            wanted.stderr
        } else {
            wanted.stdout
        };
        pumps.push(tokio::spawn(pump(stream, number, asked, sender.clone())));
    }
    drop(sender);
    let takes_input = match &ends.process {
        Process::Exec(_) => wanted.stdin,
        Process::Attach(attached) => attached.takes_input,
    };
    let target = match (ends.terminal.clone(), ends.stdin.take()) {
        _ if !takes_input => None,
        (Some(terminal), _) => Some(Target::Terminal(terminal)),
        (None, stdin) => stdin.map(Target::Pipe),
    };
    // A task of its own: a process that does not read before its output is read must not stop that.
    let mut typed = target.map(|target| {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        pumps.push(tokio::spawn(type_in(target, receiver)));
        sender
    });
    let writers = pumps.len() - usize::from(typed.is_some());
    let mut pending: Option<Bytes> = None;
    let mut output_open = true;
    let mut exit: Option<Result<i32>> = None;
    let outcome: Option<Outcome> = loop {
        tokio::select! {
            chunk = chunks.recv(), if output_open => match chunk {
                Some((_, data)) if data.is_empty() => {}
                Some((number, data)) => {
                    if !peer.send(number, data).await {
                        break None;
                    }
                }
                None => output_open = false,
            },
            code = ends.process.wait(), if exit.is_none() => exit = Some(code),
            room = room(typed.clone()), if pending.is_some() => match (room, pending.take()) {
                (Some(room), Some(data)) => drop(room.send(data)),
                // The process does not read any more; its exit will tell.
                _ => typed = None,
            },
            input = peer.next(), if pending.is_none() => match input {
                None => break None,
                Some(Input::Stdin(data)) if typed.is_some() => pending = Some(data),
                Some(Input::StdinEnd) => {
                    typed = None;
                    ends.process.input_ended().await;
                }
                Some(Input::Resize(size)) => {
                    if let Some(terminal) = &ends.terminal {
                        terminal.resize(size);
                    }
                }
                Some(Input::Stdin(_) | Input::Other) => {}
            }
        }
        let drained = !output_open
            || (wanted.tty && chunks.is_empty() && pumps[..writers].iter().all(tokio::task::JoinHandle::is_finished));
        if drained && exit.is_some() {
            let code = exit.unwrap_or(Err(Error::Internal("it did not end".into())));
            break Some(code.map_err(|err| format!("error executing command in container: {err}")));
        }
    };
    pumps.iter().for_each(tokio::task::JoinHandle::abort);
    match outcome {
        None => ends.process.leave().await,
        Some(outcome) => {
            ends.process.input_ended().await;
            peer.finish(outcome).await;
        }
    }
}

/// Where a client's input goes.
enum Target {
    Terminal(Arc<Terminal>),
    Pipe(pipe::Sender),
}

/// Writes what the client types until it ends, or the process does not read any more.
async fn type_in(mut target: Target, mut typed: mpsc::Receiver<Bytes>) {
    while let Some(data) = typed.recv().await {
        let written = match &mut target {
            Target::Terminal(terminal) => terminal.write(&data).await,
            Target::Pipe(pipe) => pipe.write_all(&data).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// Room for one more chunk; `None` when nobody takes any.
async fn room(typed: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    typed?.reserve_owned().await.ok()
}

/// Reads a stream to its end; what nobody asked for is dropped, so that the process does not block.
async fn pump(mut stream: pipe::Receiver, number: u8, asked: bool, sender: mpsc::Sender<Chunk>) {
    let mut chunk = vec![0; channel::CHUNK_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        let bytes = Bytes::copy_from_slice(&chunk[..count]);
        if asked && sender.send((number, bytes)).await.is_err() {
            return;
        }
    }
}

async fn pump_terminal(terminal: Arc<Terminal>, sender: mpsc::Sender<Chunk>) {
    let mut chunk = vec![0; channel::CHUNK_BYTES];
    // Its other side closed says EIO.
    while let Ok(count @ 1..) = terminal.read(&mut chunk).await {
        if sender
            .send((channel::STDOUT, Bytes::copy_from_slice(&chunk[..count])))
            .await
            .is_err()
        {
            return;
        }
    }
}
