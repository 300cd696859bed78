//! First processes: of a node's namespaces, and of a PID namespace that the containers of a pod share.

use std::os::fd::AsFd;
use std::process::Command;

use crate::kernel;

/// Holds a PID namespace and reaps whoever has no other parent; the shim kills it.
pub fn pause() -> i32 {
    let _ = rustix::thread::set_name(c"pause");
    let signals = match kernel::signal_fd(&[libc::SIGCHLD]) {
        Ok(signals) => signals,
        Err(err) => {
            eprintln!("pause: {err}");
            return 1;
        }
    };
    let mut entry = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
    loop {
        let _ = rustix::event::poll(&mut entry, None);
        while kernel::read_signal(signals.as_fd()).is_some() {}
        while let Ok(Some(_)) = kernel::reap(false) {}
    }
}

/// Runs a program as the only reason for these namespaces to exist: passes the signals that end things on to it, reaps
/// everybody, and when it ends kills the rest and ends with its exit code. If this process is killed, the kernel does it.
pub fn init(args: &[String]) -> i32 {
    let Some((program, rest)) = args.split_first() else {
        eprintln!("init: no program");
        return 2;
    };
    let _ = rustix::thread::set_name(c"trireme-init");
    let signals = match kernel::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT]) {
        Ok(signals) => signals,
        Err(err) => {
            eprintln!("init: {err}");
            return 1;
        }
    };
    // The standard library gives the child an empty signal mask.
    let child = match Command::new(program).args(rest).spawn() {
        Ok(child) => child.id() as i32,
        Err(err) => {
            eprintln!("init: cannot start {program}: {err}");
            return 127;
        }
    };
    let mut entry = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
    let code = loop {
        let _ = rustix::event::poll(&mut entry, None);
        while let Some(signal) = kernel::read_signal(signals.as_fd()) {
            if signal != libc::SIGCHLD {
                let _ = kernel::kill(child, signal);
            }
        }
        let mut ended = None;
        while let Ok(Some(other)) = kernel::reap(false) {
            if other.pid == child {
                ended = Some(other.code);
            }
        }
        if let Some(code) = ended {
            break code;
        }
    };
    // As the first process of a PID namespace this is everybody in it; anywhere else it would be everybody there is.
    if std::process::id() == 1 {
        let _ = kernel::kill(-1, libc::SIGKILL);
        while let Ok(Some(_)) = kernel::reap(true) {}
    }
    code
}
