//! The few system calls that neither the standard library nor rustix wraps, or not as needed here.
//!
//! JUSTIFICATION of the unsafe code: a process that makes containers has to fork without exec, to wait for any child, and
//! to pass descriptors across exec; each block is one system call with its SAFETY reason.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Turns the C convention into a result.
pub fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Gives SIGPIPE its default action back, which Rust's start-up ignores and exec would keep ignored in the container.
pub fn default_sigpipe() {
    // SAFETY: sets a disposition; no handler is installed and the process has one thread.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Unblocks every signal, as a new program expects.
pub fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

/// Blocks `signals` and returns a descriptor that tells them.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before it is used; the descriptor returned is new and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()).into())?;
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Reads one pending signal's number.
pub fn read_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut info) {
        // ssi_signo is the first field.
        Ok(length) if length == info.len() => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
        _ => None,
    }
}

/// A child that ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which.
    pub pid: i32,
    /// Its exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal, or 0.
    pub signal: i32,
}

/// Reaps one child that ended; `Ok(None)` if there is none now, an error if there are no children at all.
pub fn reap(block: bool) -> io::Result<Option<Ended>> {
    let mut status = 0;
    let flags = if block { 0 } else { libc::WNOHANG };
    // SAFETY: status is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &mut status, flags | libc::__WALL) };
    check(pid.into())?;
    if pid == 0 {
        return Ok(None);
    }
    let signal = if libc::WIFSIGNALED(status) {
        libc::WTERMSIG(status)
    } else {
        0
    };
    let code = if signal != 0 {
        128 + signal
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Some(Ended { pid, code, signal }))
}

/// Sends a signal.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain system call without pointers.
    check(unsafe { libc::kill(pid, signal) }.into()).map(drop)
}

/// Lets exec keep a descriptor, or not.
pub fn set_cloexec(fd: BorrowedFd<'_>, close: bool) -> io::Result<()> {
    let flags = if close { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: the descriptor is borrowed, hence open.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) }.into()).map(drop)
}

/// Takes over a descriptor that the parent left open under a known number.
pub fn inherited(fd: RawFd) -> OwnedFd {
    // SAFETY: by the roles' contract the parent passes this number open and nothing else in the process uses it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Forks. `flags` are clone3's (`CLONE_PARENT`, `CLONE_NEWPID`); the child is a copy of this single-threaded process.
/// Returns 0 in the child.
pub fn fork(flags: u64) -> io::Result<i32> {
    let mut args: libc::clone_args = {
        // SAFETY: clone_args is plain integers, for which zero is valid.
        unsafe { std::mem::zeroed() }
    };
    args.flags = flags;
    // With CLONE_PARENT the kernel takes the parent's own signal and refuses another.
    args.exit_signal = if flags & libc::CLONE_PARENT as u64 != 0 {
        0
    } else {
        libc::SIGCHLD as u64
    };
    // SAFETY: no CLONE_VM, so the child has its own memory; the process has one thread, so no lock is held elsewhere.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, std::mem::size_of_val(&args)) };
    Ok(check(pid)? as i32)
}

/// Ends the process at once, without running anything.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(code) }
}

/// Becomes another program, found through `PATH` of `env` if its name has no slash. Returns why it did not.
pub fn exec(args: &[String], env: &[String]) -> io::Error {
    let to_c = |list: &[String]| -> Result<Vec<CString>, io::Error> {
        list.iter()
            .map(|text| CString::new(text.as_str()).map_err(|_| io::ErrorKind::InvalidInput.into()))
            .collect()
    };
    let (args_c, env_c) = match (to_c(args), to_c(env)) {
        (Ok(args), Ok(env)) => (args, env),
        (Err(err), _) | (_, Err(err)) => return err,
    };
    let Some(name) = args.first() else {
        return io::ErrorKind::InvalidInput.into();
    };
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        let path = env
            .iter()
            .find_map(|entry| entry.strip_prefix("PATH="))
            .unwrap_or("/usr/bin:/bin");
        path.split(':').map(|dir| format!("{dir}/{name}")).collect()
    };
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, envp) = (pointers(&args_c), pointers(&env_c));
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let Ok(path) = CString::new(candidate) else { continue };
        // SAFETY: all strings are NUL-terminated and live until the call returns, both lists end with NULL.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        let err = io::Error::last_os_error();
        // As execvp does: a name that is there but cannot be run is the better explanation.
        if err.raw_os_error() != Some(libc::ENOENT) || error.raw_os_error() == Some(libc::ENOENT) {
            error = err;
        }
    }
    error
}

/// Sets user and group ids (not the supplementary groups) and keeps permitted capabilities across it.
pub fn set_ids(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: plain system calls without pointers.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
        check(libc::setresgid(gid, gid, gid).into())?;
        check(libc::setresuid(uid, uid, uid).into())?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0).into())?;
    }
    Ok(())
}

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length describe the slice.
    check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()).map(drop)
}

/// Keeps other processes from looking into this one while it enters a container.
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: plain system call without pointers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into()).map(drop)
}

/// Never again more privileges through exec.
pub fn set_no_new_privileges() -> io::Result<()> {
    // SAFETY: plain system call without pointers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Enters the namespaces (`CLONE_NEW*`) of the process behind a pidfd.
pub fn enter(pidfd: BorrowedFd<'_>, namespaces: i32) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed, hence open; single-threaded, so all of the process moves.
    check(unsafe { libc::setns(pidfd.as_raw_fd(), namespaces) }.into()).map(drop)
}

/// Moves this process, which has one thread, into a control group's directory.
///
/// On v1 by its thread: a process is moved only after the kernel has waited until no process forks or ends, ten
/// milliseconds and more, and a thread that moves itself needs none of that. v2 moves processes only.
/// Source: `cgroup_procs_write_start` of the kernel.
pub fn enter_cgroup(directory: &Path) -> Result<(), String> {
    let tasks = directory.join("tasks");
    let file = if tasks.exists() {
        tasks
    } else {
        directory.join("cgroup.procs")
    };
    std::fs::write(&file, "0").map_err(|err| format!("cannot enter {}: {err}", file.display()))
}

/// Makes new namespaces (`CLONE_NEW*`) for this process.
pub fn unshare(namespaces: i32) -> io::Result<()> {
    // SAFETY: plain system call; single-threaded, and no CLONE_FILES or CLONE_FS among the flags used here.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Makes a terminal the controlling one of this session.
pub fn control_terminal(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}

/// Closes everything above the standard streams at exec.
pub fn close_rest_on_exec() -> io::Result<()> {
    // SAFETY: marks descriptors only, none is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    check(result).map(drop)
}

/// Brings the loopback link of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: the request is zeroed and filled before use, its name is NUL-terminated; the socket is closed by its owner.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check(fd.into())?;
        let socket = OwnedFd::from_raw_fd(fd);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
            *place = *byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request).into())?;
    }
    Ok(())
}

/// The `bpf` system call.
pub fn bpf(command: i32, attributes: &[u64]) -> io::Result<i32> {
    // SAFETY: pointer and size describe the slice; addresses inside it are kept alive by the caller for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            std::mem::size_of_val(attributes),
        )
    };
    Ok(check(result)? as i32)
}

/// A process's start time in clock ticks since boot, from `/proc/<pid>/stat`.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, so count fields after its closing parenthesis: starttime is number 22.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}
