//! Network namespaces: made, opened, kept by a file, and visited by a thread of their own.
//!
//! A thread's network namespace is a property of the thread, and an async runtime moves tasks between threads. So nothing
//! here changes the namespace of a thread that it did not start itself; the one exception says so in its name.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace, alive at least as long as this value.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: File,
}

impl NetworkNamespace {
    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace behind a file: a pinned one, or `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)?,
        })
    }

    /// Makes a new namespace, empty but for a loopback link that is down.
    pub fn create() -> io::Result<Self> {
        on_a_thread(|| {
            // JUSTIFICATION: making a network namespace without forking is unshare on a thread that ends right after.
            // SAFETY: CLONE_NEWNET changes only this thread's namespace; no descriptor table is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            Self::current()
        })?
    }

    /// Keeps the namespace alive by a mount at `path`, which must not exist.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        // Opened by this process, so the link of its own descriptor names the same namespace.
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        mount_bind(source.as_str(), path).map_err(|error| {
            let _ = std::fs::remove_file(path);
            io::Error::from(error)
        })
    }

    /// Undoes [`NetworkNamespace::pin`]; absent is fine.
    pub fn unpin(path: &Path) -> io::Result<()> {
        match unmount(path, UnmountFlags::DETACH) {
            // EINVAL: the file is there, but nothing is mounted on it.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs `work` inside the namespace on a thread of its own. Sockets it opens stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })?
    }

    /// A TCP socket of the namespace, not connected, that does not block.
    pub fn tcp_socket(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        self.run(|| socket(address, SocketType::STREAM))?
    }

    /// Moves the calling thread, for good. Only for a process that has one thread, or for a thread the caller owns.
    pub fn enter_this_thread(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Device and inode: equal for two values that are the same namespace.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// A second handle.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
        })
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<OwnedFd> for NetworkNamespace {
    fn from(fd: OwnedFd) -> Self {
        Self { file: File::from(fd) }
    }
}

/// A socket for addresses of the family, in the namespace of the calling thread, that does not block.
pub fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let protocol = if kind == SocketType::STREAM {
        ipproto::TCP
    } else {
        ipproto::UDP
    };
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(protocol),
    )?)
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let handle = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        handle
            .join()
            .map_err(|_| io::Error::other("the thread in the network namespace panicked"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mounts made by `work` stay in a mount namespace that ends with its thread.
    fn with_own_mounts(work: impl FnOnce() + Send) {
        on_a_thread(|| {
            // JUSTIFICATION: tests must not change the machine's mounts. SAFETY: only this thread's namespaces change.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            work();
        })
        .unwrap();
    }

    #[test]
    fn a_new_namespace_is_another_one_and_can_be_pinned() {
        with_own_mounts(|| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("one");
            let created = NetworkNamespace::create().unwrap();
            let own = NetworkNamespace::current().unwrap();
            assert_ne!(created.identity().unwrap(), own.identity().unwrap());

            created.pin(&path).unwrap();
            let identity = created.identity().unwrap();
            drop(created);
            let opened = NetworkNamespace::open(&path).unwrap();
            assert_eq!(opened.identity().unwrap(), identity);
            let inside = opened
                .run(|| NetworkNamespace::current().unwrap().identity().unwrap())
                .unwrap();
            assert_eq!(inside, identity);
            assert_eq!(
                NetworkNamespace::current().unwrap().identity().unwrap(),
                own.identity().unwrap()
            );

            NetworkNamespace::unpin(&path).unwrap();
            assert!(!path.exists());
            NetworkNamespace::unpin(&path).unwrap();
        });
    }
}
