//! The helper's `exec`: another process in a running container.
//!
//! libcontainer's own tenant builder drops the container's seccomp profile on the way, so a probe or a `kubectl exec`
//! would run unconfined; this enters the namespaces through a pidfd and applies the container's whole policy again.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use libcontainer::capabilities;
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::{Process, Spec};

use crate::create::{Outcome, find_program, set_oom_score};
use crate::kernel;
use crate::protocol::HelperRequest;

const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// Starts the process; it is a child of the shim, like the container's first one.
pub fn exec(request: &HelperRequest) -> Result<Outcome, String> {
    let HelperRequest::Exec {
        pid,
        start_ticks,
        bundle,
        cgroups,
        args,
        tty,
        oom_score_adj,
    } = request
    else {
        return Err("not an exec".into());
    };
    let mut warnings = Vec::new();
    if let Some(score) = oom_score_adj {
        set_oom_score(*score, &mut warnings);
    }
    let spec = Spec::load(bundle.join("config.json")).map_err(|err| format!("cannot read the bundle: {err}"))?;
    let process = spec.process().as_ref().ok_or("the bundle has no process")?;
    let target = rustix::process::Pid::from_raw(*pid).ok_or("the container has no process")?;
    let pidfd = rustix::process::pidfd_open(target, rustix::process::PidfdFlags::empty())
        .map_err(|err| format!("the container is not running: {err}"))?;
    if kernel::start_ticks(*pid) != Some(*start_ticks) {
        return Err("the container is not running".into());
    }
    for cgroup in cgroups {
        kernel::enter_cgroup(cgroup)?;
    }
    kernel::set_undumpable().map_err(|err| err.to_string())?;
    kernel::enter(pidfd.as_fd(), NAMESPACES).map_err(|err| format!("cannot enter the container: {err}"))?;
    drop(pidfd);
    let terminal = tty.then(open_terminal).transpose()?;
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|err| err.to_string())?;
    let child = kernel::fork(libc::CLONE_PARENT as u64).map_err(|err| format!("cannot fork: {err}"))?;
    if child == 0 {
        drop(read);
        let master_and_slave = terminal.as_ref().map(|(_, slave)| slave);
        let problem = become_program(&spec, process, args, master_and_slave);
        let _ = File::from(write).write_all(problem.as_bytes());
        kernel::exit_now(126);
    }
    drop(write);
    let mut problem = String::new();
    File::from(read)
        .read_to_string(&mut problem)
        .map_err(|err| err.to_string())?;
    if !problem.is_empty() {
        return Err(problem);
    }
    Ok(Outcome {
        pid: child,
        terminal: terminal.map(|(master, _)| master),
        warnings,
    })
}

/// A new terminal of the container's own devpts: master and slave.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), String> {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::OpenptFlags;
    let explain = |what: &str, err: rustix::io::Errno| format!("cannot open a terminal: {what}: {err}");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty()).map_err(|err| explain("/dev/pts/ptmx", err))?;
    rustix::pty::unlockpt(&master).map_err(|err| explain("unlock", err))?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(|err| explain("slave", err))?;
    Ok((master, slave))
}

/// Runs in the child: returns only if something failed.
fn become_program(spec: &Spec, process: &Process, args: &[String], terminal: Option<&OwnedFd>) -> String {
    match prepare(spec, process, args, terminal) {
        Ok(env) => format!("exec {:?}: {}", args.first(), kernel::exec(args, &env)),
        Err(problem) => problem,
    }
}

fn prepare(spec: &Spec, process: &Process, args: &[String], terminal: Option<&OwnedFd>) -> Result<Vec<String>, String> {
    let step = |what: &'static str| move |err: std::io::Error| format!("{what}: {err}");
    let errno = |what: &'static str| move |err: rustix::io::Errno| format!("{what}: {err}");
    rustix::process::setsid().map_err(errno("setsid"))?;
    let user = process.user();
    if let Some(slave) = terminal {
        kernel::control_terminal(slave.as_fd()).map_err(step("controlling terminal"))?;
        rustix::fs::fchown(slave, Some(rustix::fs::Uid::from_raw(user.uid())), None)
            .map_err(errno("terminal owner"))?;
        rustix::stdio::dup2_stdin(slave).map_err(errno("stdin"))?;
        rustix::stdio::dup2_stdout(slave).map_err(errno("stdout"))?;
        rustix::stdio::dup2_stderr(slave).map_err(errno("stderr"))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(user.umask().unwrap_or(0o022)));
    // As root first, which may enter directories that the user may not; then again as the user.
    let entered = std::env::set_current_dir(process.cwd()).is_ok();
    kernel::set_groups(user.additional_gids().as_deref().unwrap_or_default()).map_err(step("groups"))?;
    kernel::close_rest_on_exec().map_err(step("close_range"))?;
    kernel::set_ids(user.uid(), user.gid()).map_err(step("user"))?;
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let no_new_privileges = process.no_new_privileges() == Some(true);
    let syscall = create_syscall();
    // For a user other than root the effective set is empty now; without no_new_privileges a filter needs it.
    capabilities::reset_effective(syscall.as_ref()).map_err(|err| format!("capabilities: {err}"))?;
    if let (Some(profile), false) = (seccomp, no_new_privileges) {
        initialize_seccomp(profile).map_err(|err| format!("seccomp: {err}"))?;
    }
    if let Some(set) = process.capabilities() {
        capabilities::drop_privileges(set, syscall.as_ref()).map_err(|err| format!("capabilities: {err}"))?;
    }
    if !entered {
        std::env::set_current_dir(process.cwd()).map_err(step("working directory"))?;
    }
    if no_new_privileges {
        kernel::set_no_new_privileges().map_err(step("no_new_privileges"))?;
        if let Some(profile) = seccomp {
            initialize_seccomp(profile).map_err(|err| format!("seccomp: {err}"))?;
        }
    }
    let mut env = process.env().clone().unwrap_or_default();
    if terminal.is_some() && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", home(user.uid())));
    }
    find_program(args.first().map(String::as_str), &env)?;
    Ok(env)
}

/// The user's home in the container's `/etc/passwd`, `/` if it is not there.
fn home(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2).and_then(|field| field.parse().ok()) == Some(uid))
        .and_then(|fields| fields.get(5).map(|home| (*home).to_owned()))
        .filter(|home| !home.is_empty())
        .unwrap_or_else(|| "/".into())
}
