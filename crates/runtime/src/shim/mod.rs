//! The embedded executable, and the daemon's side of the conversation with a pod's shim.

mod client;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flate2::bufread::DeflateDecoder;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

pub use client::{Client, Events, ShimError};

/// The executable, deflated by the build script: six megabytes are two and a half.
///
/// A `static`, so that the binary has it once: each codegen unit that names a `const` gets its own.
static DEFLATED: &[u8] = include_bytes!(env!("TRIREME_SHIM"));

/// The static executable: shim, oci helper, node init and demo program in one. Images are made from it too.
pub fn executable_bytes() -> Vec<u8> {
    let mut bytes = Vec::new();
    io::copy(&mut DeflateDecoder::new(DEFLATED), &mut bytes).expect("invariant: the build script deflated it");
    bytes
}

/// The executable in a sealed file in memory: whoever runs it, a container included, cannot write to it.
#[derive(Debug)]
pub struct Executable(OwnedFd);

impl Executable {
    /// Makes the sealed copy.
    pub fn new() -> io::Result<Executable> {
        let fd = memfd_create("trireme-shim", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = std::fs::File::from(fd);
        io::copy(&mut DeflateDecoder::new(DEFLATED), &mut file)?;
        let fd = OwnedFd::from(file);
        fcntl_add_seals(
            &fd,
            SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        )?;
        Ok(Executable(fd))
    }

    /// A path under which this process (and its children until they exec) can run it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }

    /// Starts a shim that listens on `socket` and writes its complaints to `log`.
    pub fn spawn_shim(&self, socket: &Path, log: &Path) -> io::Result<tokio::process::Child> {
        let listener = bind(socket)?;
        let log = std::fs::File::options().append(true).create(true).open(log)?;
        let mut command = tokio::process::Command::new(self.path());
        command
            .arg0("trireme-shim")
            .arg("shim")
            // Nothing of the daemon's environment is a pod's business.
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            // A session and a process group of its own: a terminal's signals do not reach it.
            .process_group(0)
            .kill_on_drop(false);
        command.spawn()
    }
}

/// A path that may be longer than a socket address, through the descriptor of its directory.
fn short(socket: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = std::fs::File::open(directory)?;
    let path = Path::new("/proc/self/fd")
        .join(directory.as_fd().as_raw_fd().to_string())
        .join(name);
    Ok((directory, path))
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(socket);
    let (_directory, path) = short(socket)?;
    UnixListener::bind(path)
}

/// Connects to a shim.
pub(crate) fn connect(socket: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let (_directory, path) = short(socket)?;
    std::os::unix::net::UnixStream::connect(path)
}
