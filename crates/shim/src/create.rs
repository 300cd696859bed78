//! The helper's `create`: one container by libcontainer, from a process that has one thread and ends right after.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use oci_spec::runtime::Spec;

use crate::protocol::Run;
use crate::{devices, errors, kernel, spread, wire};

/// What a helper's work came to.
pub struct Outcome {
    /// The process.
    pub pid: i32,
    /// A terminal's master side.
    pub terminal: Option<OwnedFd>,
    /// What did not matter enough to fail.
    pub warnings: Vec<String>,
}

/// Creates the container; its first process waits for the start.
pub fn create(run: &Run) -> Result<Outcome, String> {
    let mut warnings = Vec::new();
    if let Some(score) = run.oom_score_adj {
        set_oom_score(score, &mut warnings);
    }
    if let Some(rules) = &run.devices {
        let cgroup = run.cgroups.first().ok_or("a device policy needs a control group")?;
        devices::attach(cgroup, rules).map_err(|err| format!("cannot attach the device policy: {err}"))?;
    }
    let console = run.tty.then(|| Console::bind(&run.bundle)).transpose();
    let console = console.map_err(|err| format!("cannot make the terminal's socket: {err}"))?;
    errors::collect().map_err(|err| format!("cannot make a pipe: {err}"))?;
    let builder = ContainerBuilder::new(run.container.clone(), SyscallType::Linux)
        .with_root_path(&run.oci_root)
        .map_err(|err| err.to_string())?
        .with_console_socket(console.as_ref().map(|console| &console.path))
        .with_executor(Program)
        .as_init(&run.bundle)
        .with_systemd(false)
        .with_detach(true);
    let container = builder.build().map_err(|err| errors::explain(&err))?;
    let pid = container.pid().ok_or("the container has no process")?.as_raw();
    // Read from outside: a filter that libcontainer could not or did not load must not go unnoticed.
    if run.seccomp && seccomp_mode(pid) != Some(2) {
        let _ = kernel::kill(pid, libc::SIGKILL);
        return Err(format!(
            "the seccomp profile was not applied (mode {:?})",
            seccomp_mode(pid)
        ));
    }
    let terminal = console.map(|console| console.receive()).transpose();
    let terminal = terminal.map_err(|err| format!("cannot receive the terminal: {err}"))?;
    if !run.spread.is_empty()
        && let Err(err) = spread::apply(pid, &run.spread)
    {
        let _ = kernel::kill(pid, libc::SIGKILL);
        return Err(format!("cannot set how mounts spread: {err}"));
    }
    Ok(Outcome {
        pid,
        terminal,
        warnings,
    })
}

/// Lowering the score needs CAP_SYS_RESOURCE; without it the nearest value that the kernel takes is our own.
pub fn set_oom_score(score: i32, warnings: &mut Vec<String>) {
    let file = "/proc/self/oom_score_adj";
    if let Err(err) = std::fs::write(file, score.to_string()) {
        let kept = std::fs::read_to_string(file).unwrap_or_default();
        warnings.push(format!("oom_score_adj stays {} instead of {score}: {err}", kept.trim()));
    }
}

/// The `Seccomp:` mode of a process: 2 is a filter.
pub fn seccomp_mode(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))?
        .trim()
        .parse()
        .ok()
}

/// Where libcontainer's init sends the terminal's master side.
struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    fn bind(dir: &Path) -> io::Result<Console> {
        // The directory's path may be longer than a socket address; libcontainer links to it by its full name.
        std::env::set_current_dir(dir)?;
        let _ = std::fs::remove_file("tty.sock");
        let listener = UnixListener::bind("tty.sock")?;
        Ok(Console {
            path: dir.join("tty.sock"),
            listener,
        })
    }

    fn receive(&self) -> io::Result<OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        let _ = std::fs::remove_file(&self.path);
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 256];
        let mut slices = [io::IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&stream, &mut slices, &mut control, rustix::net::RecvFlags::CMSG_CLOEXEC)?;
        control
            .drain()
            .find_map(|message| match message {
                rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// How the container's program is found and run; the texts are those that users know from runc.
#[derive(Clone)]
struct Program;

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let process = spec.process().as_ref();
        let args = process.and_then(|process| process.args().clone()).unwrap_or_default();
        let env = process.and_then(|process| process.env().clone()).unwrap_or_default();
        find_program(args.first().map(String::as_str), &env)
            .map(drop)
            .map_err(ExecutorValidationError::ArgValidationError)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = spec
            .process()
            .as_ref()
            .and_then(|process| process.args().clone())
            .unwrap_or_default();
        let env: Vec<String> = std::env::vars_os()
            .filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value.to_str()?)))
            .collect();
        kernel::unblock_signals();
        let error = kernel::exec(&args, &env);
        Err(ExecutorError::Other(format!("exec {:?}: {error}", args.first())))
    }
}

/// Finds what `name` would run, or says why nothing would.
pub fn find_program(name: Option<&str>, env: &[String]) -> Result<PathBuf, String> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Err("no command specified".into());
    };
    if name.contains('/') {
        let problem = |what: &str| format!("exec: {name:?}: stat {name}: {what}");
        return match std::fs::metadata(name) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Err(problem("no such file or directory")),
            Err(err) => Err(problem(&err.to_string())),
            Ok(meta) if meta.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(meta) if meta.permissions().mode() & 0o111 == 0 => Err(format!("exec: {name:?}: permission denied")),
            Ok(_) => Ok(PathBuf::from(name)),
        };
    }
    let path = env
        .iter()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or("/usr/bin:/bin");
    std::env::split_paths(OsStr::new(path))
        .map(|dir| dir.join(name))
        .find(|file| std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
        .ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

/// The helper role: one request on an inherited socket, one reply, the end.
pub fn helper(socket: i32) -> i32 {
    let socket = kernel::inherited(socket);
    if let Err(err) = kernel::set_cloexec(std::os::fd::AsFd::as_fd(&socket), true) {
        eprintln!("helper: {err}");
        return 1;
    }
    kernel::default_sigpipe();
    kernel::unblock_signals();
    let mut reader = wire::Reader::default();
    let request = match reader.read(&socket) {
        Ok((request, _)) => request,
        Err(err) => {
            eprintln!("helper: {err}");
            return 1;
        }
    };
    // Whatever groups the daemon was started with are no business of a container's.
    let outcome = kernel::set_groups(&[])
        .map_err(|err| format!("cannot clear the supplementary groups: {err}"))
        .and_then(|()| match request {
            crate::protocol::HelperRequest::Create(run) => create(&run),
            crate::protocol::HelperRequest::Exec { .. } => crate::enter::exec(&request),
        });
    let (reply, terminal) = match outcome {
        Ok(outcome) => (
            crate::protocol::HelperReply {
                result: Ok(outcome.pid),
                warnings: outcome.warnings,
            },
            outcome.terminal,
        ),
        Err(text) => (
            crate::protocol::HelperReply {
                result: Err(text),
                warnings: Vec::new(),
            },
            None,
        ),
    };
    let fds: Vec<_> = terminal.iter().map(std::os::fd::AsFd::as_fd).collect();
    match wire::send_all(&socket, &reply, &fds) {
        Ok(()) => 0,
        Err(err) => {
            eprintln!("helper: {err}");
            1
        }
    }
}
