//! What a container may do, seen from inside of it: tests read this instead of trusting a specification.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::fs::{FileType, Mode, makedev, mknodat};

/// Prints one `name: value` a line; arguments are further files to try to open for writing.
pub fn probe(args: &[String]) -> i32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines() {
        let wanted = ["Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp"];
        if wanted.iter().any(|name| line.starts_with(name)) {
            println!("{}", line.replace('\t', " "));
        }
    }
    println!("pid: {}", std::process::id());
    println!("mknod-null: {}", mknod_and_open("/tmp-probe-null", 1, 3));
    println!("mknod-kmsg: {}", mknod_and_open("/tmp-probe-kmsg", 1, 11));
    for (name, path) in [
        ("kcore", "/proc/kcore"),
        ("sysrq", "/proc/sysrq-trigger"),
        ("sys-write", "/proc/sys/kernel/domainname"),
        ("dev-null", "/dev/null"),
        ("dev-tty", "/dev/tty"),
        ("root-write", "/probe-file"),
    ] {
        println!("{name}: {}", open(Path::new(path)));
    }
    for path in args {
        println!("{path}: {}", open(Path::new(path)));
    }
    let _ = std::fs::remove_file("/probe-file");
    // Refused by the default profile, and for want of privileges. Before the next one, which would take them away.
    let mounted = rustix::mount::mount("none", "/tmp", "tmpfs", rustix::mount::MountFlags::empty(), None);
    println!("mount: {}", text(mounted));
    println!("unshare-user: {}", text(crate::kernel::unshare(libc::CLONE_NEWUSER)));
    println!(
        "stdin-null: {}",
        std::fs::read_link("/proc/self/fd/0").is_ok_and(|path| path == Path::new("/dev/null"))
    );
    let fds = std::fs::read_dir("/proc/self/fd")
        .map(|entries| entries.count())
        .unwrap_or_default();
    // The listing has one of its own.
    println!("descriptors: {}", fds.saturating_sub(1));
    0
}

fn text<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    result.map_or_else(|err| err.to_string(), |_| "done".into())
}

fn open(path: &Path) -> String {
    text(
        OpenOptions::new()
            .write(true)
            .create(!path.starts_with("/proc"))
            .truncate(false)
            .open(path),
    )
}

fn mknod_and_open(path: &str, major: u32, minor: u32) -> String {
    let mode = Mode::from_raw_mode(0o600);
    let made = mknodat(
        rustix::fs::CWD,
        path,
        FileType::CharacterDevice,
        mode,
        makedev(major, minor),
    );
    let outcome = match made {
        Ok(()) => text(OpenOptions::new().read(true).open(path)),
        Err(err) => format!("mknod {err}"),
    };
    let _ = std::fs::remove_file(path);
    outcome
}
