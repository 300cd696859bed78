//! What daemon, shim and oci helper say to each other: JSON in frames of a little-endian `u32` length, on unix sockets.
//!
//! A shim outlives the daemon that started it, so a newer daemon speaks to older shims: fields are only ever added, with
//! defaults, and `Hello` settles on a version both know. This file is also compiled into `crates/runtime`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version spoken by this build.
pub const VERSION: u32 = 2;
/// The oldest version that this build still understands.
pub const VERSION_MIN: u32 = 1;
/// The first version that knows [`Call::Attach`] and [`Call::CloseStdin`].
pub const VERSION_ATTACH: u32 = 2;
/// Longest frame: an exec's arguments are the largest thing sent, and the kernel takes no more than that either.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Exit status reported for a container whose exit could not be observed.
pub const EXIT_UNKNOWN: i32 = 255;

/// One question of the daemon; its number comes back in the reply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// What the daemon asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Call {
    /// First on every connection.
    Hello {
        /// The daemon's [`VERSION`].
        version: u32,
    },
    /// Makes the pod's namespaces; once in a shim's life.
    Sandbox(Sandbox),
    /// Creates and starts a container.
    Run(Box<Run>),
    /// Signals a container's first process.
    Kill {
        /// The container's id.
        container: String,
        /// The signal's number.
        signal: i32,
    },
    /// Starts another process in a container. Descriptors come with the frame: stdin, stdout, stderr, as announced.
    Exec(Exec),
    /// Signals an exec's process.
    KillExec {
        /// The exec's id.
        exec: String,
        /// The signal's number.
        signal: i32,
    },
    /// Sends a container's output to somebody, beside its log, until it ends. Descriptors come with the frame: where stdout
    /// goes, and without a terminal where stderr goes. Since version 2.
    Attach {
        /// The container's id.
        container: String,
        /// Whether its stdin is to come back with the reply.
        stdin: bool,
    },
    /// Nobody will write to a container's stdin again. Since version 2.
    CloseStdin {
        /// The container's id.
        container: String,
    },
    /// Opens the log file again after somebody renamed it.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// Drops what is known about an exited container.
    Forget {
        /// The container's id.
        container: String,
    },
    /// Kills everything and ends the shim.
    Shutdown,
}

/// The pod's namespaces and where its traces are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    /// The sandbox's id, for the process name.
    pub id: String,
    /// The name inside the UTS namespace.
    #[serde(default)]
    pub hostname: Option<String>,
    /// A network namespace of its own, otherwise the node's.
    pub network: bool,
    /// An IPC namespace of its own, otherwise the node's.
    pub ipc: bool,
    /// A UTS namespace of its own, otherwise the node's.
    pub uts: bool,
    /// One PID namespace for all containers, held by a process of ours.
    pub shared_pid: bool,
    /// Kernel parameters of those namespaces, `net.ipv4.ip_forward` -> `1`.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// Directories of control groups that the shim moves into (one a hierarchy).
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Where exit records are written, one file a container.
    pub exits: PathBuf,
}

/// A container to create from a bundle and to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The container's id.
    pub container: String,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// Directory of libcontainer's own state.
    pub oci_root: PathBuf,
    /// Whether it has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether stdin stays open (nobody writes to it yet), otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// Whether stdin ends with the first who was attached to it.
    #[serde(default)]
    pub stdin_once: bool,
    /// The log file in CRI format.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Size at which the log is rotated whether somebody asks or not.
    #[serde(default)]
    pub log_bytes_max: u64,
    /// What the kernel's out-of-memory killer thinks of it.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// Whether the container must have a seccomp filter: it is not started without.
    #[serde(default)]
    pub seccomp: bool,
    /// Directories of its control groups, one a hierarchy.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// File that counts kills by the out-of-memory killer (`memory.oom_control` or `memory.events`).
    #[serde(default)]
    pub oom_file: Option<PathBuf>,
    /// Whether processes may outlive its first one (a PID namespace shared with others): they are killed with it.
    #[serde(default)]
    pub kill_rest: bool,
    /// On cgroup v2: devices it may use; `None` on v1, where the devices hierarchy does it.
    #[serde(default)]
    pub devices: Option<Vec<DeviceRule>>,
    /// How its volumes' mounts spread; empty when nothing spreads.
    #[serde(default)]
    pub spread: Vec<MountSpread>,
}

/// How mounts below one of a container's mounts spread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpread {
    /// Where it is mounted in the container.
    pub target: PathBuf,
    /// How.
    pub how: Spread,
}

/// Which mounts made later are seen on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spread {
    /// None.
    None,
    /// The node's are seen in the container.
    In,
    /// And the container's on the node.
    Both,
}

/// One permission of a container to use devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `c`, `b` or `a`.
    pub kind: char,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// Another process in a running container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// Chosen by the daemon, unique in the shim.
    pub exec: String,
    /// The container's id.
    pub container: String,
    /// The command.
    pub args: Vec<String>,
    /// Whether it gets a terminal; its master side comes back with the reply and no descriptors are sent.
    #[serde(default)]
    pub tty: bool,
    /// Whether a descriptor for stdin was sent.
    #[serde(default)]
    pub stdin: bool,
}

/// What the shim sends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// The request's number.
        id: u64,
        /// What came of it; an error is a sentence for people.
        result: Result<Answer, String>,
    },
    /// A container ended; its exit record is on disk already.
    ContainerExited {
        /// The container's id.
        container: String,
        /// How.
        exit: Exit,
    },
    /// An exec's process ended.
    ExecExited {
        /// The exec's id.
        exec: String,
        /// How.
        exit: Exit,
    },
}

/// Answers to the calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// To `Hello`.
    State(State),
    /// To `Sandbox`.
    Sandbox {
        /// The holder of the shared PID namespace.
        #[serde(default)]
        pause_pid: Option<i32>,
        /// What could not be done and does not matter enough to fail.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// To `Run` and `Exec`.
    Started {
        /// The process as the node sees it.
        pid: i32,
        /// Its start time in clock ticks since boot, which tells it from a later process with the same number.
        start_ticks: u64,
        /// Wall time of the start.
        started_ns: i64,
        /// What could not be done and does not matter enough to fail.
        #[serde(default)]
        warnings: Vec<String>,
    },
    /// To `Attach`. With a terminal its master side comes along, to be written to and resized, never read; without one a
    /// container's stdin, when it has one and it was asked for.
    Attached {
        /// Whether the container has a terminal.
        terminal: bool,
        /// Whether it takes input.
        stdin: bool,
    },
    /// To everything else.
    Done,
}

/// What a shim knows, told to a daemon that connects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// The version that this connection speaks.
    pub version: u32,
    /// The shim's process.
    pub pid: i32,
    /// Whether `Sandbox` was done.
    #[serde(default)]
    pub ready: bool,
    /// The holder of the shared PID namespace.
    #[serde(default)]
    pub pause_pid: Option<i32>,
    /// The containers that were started and not forgotten.
    #[serde(default)]
    pub containers: Vec<ContainerState>,
}

/// A container as its shim knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerState {
    /// The container's id.
    pub container: String,
    /// Its first process.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Wall time of the start.
    pub started_ns: i64,
    /// How it ended, if it did.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// How a process ended; also the content of an exit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it, or 0.
    #[serde(default)]
    pub signal: i32,
    /// Whether the out-of-memory killer struck in its control group.
    #[serde(default)]
    pub oom_killed: bool,
    /// Wall time of the end.
    pub finished_ns: i64,
    /// Wall time of the start, so that the record is complete on its own.
    #[serde(default)]
    pub started_ns: i64,
}

/// What the shim asks of the one-shot helper.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum HelperRequest {
    /// Create a container.
    Create(Box<Run>),
    /// Start a process in the container whose first process is `pid`.
    Exec {
        /// The container's first process.
        pid: i32,
        /// Its start time, checked after the process was pinned.
        start_ticks: u64,
        /// Directory with `config.json`.
        bundle: PathBuf,
        /// The container's control groups.
        cgroups: Vec<PathBuf>,
        /// The command.
        args: Vec<String>,
        /// Whether it gets a terminal.
        tty: bool,
        /// What the kernel's out-of-memory killer thinks of it.
        #[serde(default)]
        oom_score_adj: Option<i32>,
    },
}

/// What the helper answers; a terminal's master side comes with the frame.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HelperReply {
    /// The process, or a sentence for people.
    pub result: Result<i32, String>,
    /// What could not be done and does not matter enough to fail.
    #[serde(default)]
    pub warnings: Vec<String>,
}
