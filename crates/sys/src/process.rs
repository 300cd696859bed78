//! Processes as the node sees them: telling one from a later one with the same number, and the boot they belong to.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, pidfd_open};

/// A process's start time in clock ticks since boot, from `/proc/<pid>/stat`; `None` if there is none.
pub fn start_ticks(pid: i32) -> Option<u64> {
    parse_start_ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The name may contain anything, so count fields after its closing parenthesis: starttime is number 22.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether the process `pid` runs and is the one that started at `ticks`. A zombie does not run; a process of which some
/// thread is still ending does, and has its files and sockets open.
pub fn is_running(pid: i32, ticks: u64) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    let Ok(pidfd) = pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
        return false;
    };
    if start_ticks(pid.as_raw_nonzero().get()) != Some(ticks) {
        return false;
    }
    let mut entry = [PollFd::new(&pidfd, PollFlags::IN)];
    // Readable: all of its threads have ended.
    rustix::event::poll(&mut entry, Some(&Timespec::default())).is_ok_and(|ended| ended == 0)
}

/// Kills a process if it is still the one that started at `ticks`; `Ok(false)` if it is gone.
pub fn kill(pid: i32, ticks: u64, signal: Signal) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(pid) else {
        return Ok(false);
    };
    let pidfd = match pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(err) => return Err(err.into()),
    };
    // Pinned now: if the start time fits, the descriptor is the process meant.
    if start_ticks(pid.as_raw_nonzero().get()) != Some(ticks) {
        return Ok(false);
    }
    match rustix::process::pidfd_send_signal(&pidfd, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(err) => Err(err.into()),
    }
}

/// The kernel's name for this boot: what was recorded under another one did not survive.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// The capabilities this process could give to a container (`CAP_...`), from its bounding set.
pub fn bounding_capabilities() -> io::Result<Vec<&'static str>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| mask >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect())
}

/// The kernel's capabilities by number.
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_behind_any_name() {
        let rest = "S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1";
        let check = |stat: String, expect| assert_eq!(parse_start_ticks(&stat), expect, "{stat}");
        check(format!("7 (sh) {rest}"), Some(777));
        check(format!("7 (a) b) {rest}"), Some(777));
        check("7 (sh) S".into(), None);
    }

    #[test]
    fn this_process_runs() {
        let pid = std::process::id() as i32;
        let ticks = start_ticks(pid).unwrap();
        assert!(is_running(pid, ticks));
        assert!(!is_running(pid, ticks + 1));
        assert!(!kill(pid, ticks + 1, Signal::KILL).unwrap());
    }

    #[test]
    fn capabilities_have_their_numbers() {
        assert_eq!(CAPABILITIES[21], "CAP_SYS_ADMIN");
        assert_eq!(CAPABILITIES[40], "CAP_CHECKPOINT_RESTORE");
    }
}
