//! The processes that a shim starts itself, and the start signal of a container.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::kernel;
use crate::protocol::HelperRequest;

/// Starts the one-shot helper, which finds its request on a socket it inherits; the container inherits the helper's
/// standard streams.
pub(super) fn spawn_helper(request: &HelperRequest, stdio: [Option<OwnedFd>; 3]) -> io::Result<(i32, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    // Its number is told by an argument; one thread, so no other child can inherit it by accident.
    kernel::set_cloexec(theirs.as_fd(), false)?;
    let mut command = Command::new("/proc/self/exe");
    let number = std::os::fd::AsRawFd::as_raw_fd(&theirs);
    command.arg0("trireme-oci").args(["oci", &number.to_string()]);
    let [stdin, stdout, stderr] = stdio.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let child = command.spawn()?;
    drop(command);
    drop(theirs);
    // Small against the socket's buffer except for huge exec arguments, which the helper reads at once.
    crate::wire::send_all(&ours, request, &[])?;
    // Reaped by the loop with every other child.
    Ok((child.id() as i32, ours))
}

/// Starts the first process of a PID namespace that all containers of the pod share.
pub(super) fn spawn_pause() -> io::Result<i32> {
    let pid = kernel::fork(libc::CLONE_NEWPID as u64)?;
    if pid == 0 {
        let args = ["/proc/self/exe".to_owned(), "pause".to_owned()];
        let _ = kernel::exec(&args, &[]);
        kernel::exit_now(127);
    }
    Ok(pid)
}

/// Tells libcontainer's waiting init to go on.
pub(super) fn start(state: &Path) -> io::Result<()> {
    // Through the directory's descriptor: the path may be longer than a socket address.
    let directory = std::fs::File::open(state)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{number}/notify.sock"))?;
    stream.write_all(b"start container")
}
