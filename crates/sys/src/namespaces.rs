//! The namespaces of a node: made by one process, entered by others.
//!
//! These calls change the calling process for good, so they belong to the first lines of a program that does nothing else
//! and has one thread.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::mount::MountPropagationFlags;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

/// Puts this process into new mount, network, UTS and IPC namespaces, and its next child into a new PID namespace. No
/// mount that is made from now on is seen outside; containers that ask for it see those of the node, as on a machine that
/// systemd started.
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
    crate::mounts::share(Path::new("/"))
}

/// Puts the next children of this thread into the PID namespace of the process behind a pidfd; the thread itself stays.
///
/// # Errors
/// The kernel's.
pub fn place_children(process: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)?;
    Ok(())
}

/// Enters the mount, network, UTS and IPC namespaces of a process, given by its directory in `/proc`.
///
/// # Errors
/// The kernel's: EINVAL when this process has more than one thread.
pub fn enter_node(process: &Path) -> io::Result<()> {
    let kinds = [
        ("net", LinkNameSpaceType::Network),
        ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("mnt", LinkNameSpaceType::Mount),
    ];
    // All are opened first: in the other mount namespace the path means something else.
    let opened: Vec<_> = kinds
        .into_iter()
        .map(|(name, kind)| Ok((File::open(process.join("ns").join(name))?, kind)))
        .collect::<io::Result<_>>()?;
    for (link, kind) in opened {
        rustix::thread::move_into_link_name_space(link.as_fd(), Some(kind))?;
    }
    Ok(())
}
