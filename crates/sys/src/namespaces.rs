//! The namespaces of a node: made by one process, entered by others.
//!
//! Both calls change the calling process for good, so they belong to the first lines of a program that does nothing else
//! and has one thread.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use rustix::mount::MountPropagationFlags;
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

/// Puts this process into new mount, network, UTS and IPC namespaces, and its next child into a new PID namespace. No
/// mount that is made from now on is seen outside.
///
/// # Errors
/// The kernel's: without root it is EPERM.
pub fn unshare_node() -> io::Result<()> {
    let flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
    // JUSTIFICATION: there is no safe call for a process's own namespaces.
    // SAFETY: no descriptor table is unshared, which is what makes this call unsafe.
    unsafe { rustix::thread::unshare_unsafe(flags)? };
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Enters the namespaces of the process behind a pidfd, all those that [`unshare_node`] makes; the next child is in its
/// PID namespace.
///
/// # Errors
/// The kernel's: EINVAL when this process has more than one thread.
pub fn enter_node(process: BorrowedFd<'_>) -> io::Result<()> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID;
    rustix::thread::move_into_thread_name_spaces(process, all)?;
    Ok(())
}
