//! What is remembered of sandboxes and containers across a restart of the daemon, one file each.
//!
//! They are protobuf messages of our own around CRI's configurations, which are protobuf already. A record is replaced
//! whole; one that cannot be read is an object that was half made, and is swept.

use std::path::Path;

use prost::Message;
use rpc::cri;

use crate::error::{Error, Result, doing};

/// A sandbox.
#[derive(Clone, PartialEq, Message)]
pub struct SandboxRecord {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// As it was asked for.
    #[prost(message, optional, tag = "2")]
    pub config: Option<cri::PodSandboxConfig>,
    /// As it was asked for.
    #[prost(string, tag = "3")]
    pub runtime_handler: String,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// Whether containers can be made in it.
    #[prost(bool, tag = "5")]
    pub ready: bool,
    /// Its addresses.
    #[prost(string, repeated, tag = "6")]
    pub ips: Vec<String>,
    /// Its shim.
    #[prost(int32, tag = "7")]
    pub shim_pid: i32,
    /// The shim's start time.
    #[prost(uint64, tag = "8")]
    pub shim_ticks: u64,
    /// The boot it was made under.
    #[prost(string, tag = "9")]
    pub boot_id: String,
    /// The control group that its own and its containers' are below.
    #[prost(string, tag = "10")]
    pub cgroup: String,
    /// Whether the network has something to take away.
    #[prost(bool, tag = "11")]
    pub network_made: bool,
    /// The holder of the shared PID namespace, or 0.
    #[prost(int32, tag = "12")]
    pub pause_pid: i32,
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerRecord {
    /// Its id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its sandbox's id.
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    /// As it was asked for.
    #[prost(message, optional, tag = "3")]
    pub config: Option<cri::ContainerConfig>,
    /// `sha256:...` of the image.
    #[prost(string, tag = "4")]
    pub image_id: String,
    /// The image's name with digest.
    #[prost(string, tag = "5")]
    pub image_ref: String,
    /// Diff ids of the image's layers, which stay while the container does.
    #[prost(string, repeated, tag = "6")]
    pub layers: Vec<String>,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "7")]
    pub created_at: i64,
    /// Nanoseconds since 1970, or 0.
    #[prost(int64, tag = "8")]
    pub started_at: i64,
    /// Nanoseconds since 1970, or 0.
    #[prost(int64, tag = "9")]
    pub finished_at: i64,
    /// Where it is in its life.
    #[prost(enumeration = "cri::ContainerState", tag = "10")]
    pub state: i32,
    /// How it ended.
    #[prost(int32, tag = "11")]
    pub exit_code: i32,
    /// A word for how it ended.
    #[prost(string, tag = "12")]
    pub reason: String,
    /// A sentence for how it ended.
    #[prost(string, tag = "13")]
    pub message: String,
    /// Its first process.
    #[prost(int32, tag = "14")]
    pub pid: i32,
    /// That process's start time.
    #[prost(uint64, tag = "15")]
    pub start_ticks: u64,
    /// Whom it runs as.
    #[prost(uint32, tag = "16")]
    pub uid: u32,
    /// Whom it runs as.
    #[prost(uint32, tag = "17")]
    pub gid: u32,
    /// Whom it runs as.
    #[prost(uint32, repeated, tag = "18")]
    pub groups: Vec<u32>,
    /// Its log file, or empty.
    #[prost(string, tag = "19")]
    pub log_path: String,
    /// Its control group.
    #[prost(string, tag = "20")]
    pub cgroup: String,
    /// Its resources as they are now.
    #[prost(message, optional, tag = "21")]
    pub resources: Option<cri::LinuxContainerResources>,
    /// The signal's number that asks it to end.
    #[prost(int32, tag = "22")]
    pub stop_signal: i32,
    /// Whether it must have a seccomp filter.
    #[prost(bool, tag = "23")]
    pub seccomp: bool,
}

impl SandboxRecord {
    /// The configuration, empty if a record has none.
    pub fn config(&self) -> cri::PodSandboxConfig {
        self.config.clone().unwrap_or_default()
    }
}

/// Writes a record.
pub fn save(directory: &Path, record: &impl Message) -> Result<()> {
    let path = directory.join("record");
    crate::files::replace(&path, &record.encode_to_vec()).map_err(doing(path.display()))
}

/// Reads the records of all objects below a directory; what is not one is returned apart, to be swept.
pub fn load<T: Message + Default>(directory: &Path) -> Result<(Vec<T>, Vec<std::path::PathBuf>)> {
    let (mut records, mut broken) = (Vec::new(), Vec::new());
    let entries = std::fs::read_dir(directory).map_err(doing(directory.display()))?;
    for entry in entries.flatten() {
        let bytes = std::fs::read(entry.path().join("record"));
        match bytes
            .map_err(|_| ())
            .and_then(|bytes| T::decode(bytes.as_slice()).map_err(|_| ()))
        {
            Ok(record) => records.push(record),
            Err(()) => broken.push(entry.path()),
        }
    }
    Ok((records, broken))
}

/// CRI requires the metadata that names things.
pub fn required<T>(value: Option<T>, what: &str) -> Result<T> {
    value.ok_or_else(|| Error::Invalid(format!("{what} is missing")))
}
