//! The embedded executable outside of containers.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::node::{Node, container};

#[test]
fn the_node_init_ends_with_its_program_and_takes_everybody_along() {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("shim");
    std::fs::write(&shim, runtime::shim::executable_bytes()).unwrap();
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).unwrap();
    let name = format!("{}.5", 100_000 + std::process::id());
    let milliseconds = format!("{}500", 100_000 + std::process::id());
    let script = format!("orphan {milliseconds}; exit 7");
    let status = Command::new("unshare")
        .args(["--pid", "--fork"])
        .arg(&shim)
        .arg("init")
        .arg(&shim)
        .args(["demo", "sh", "-c", &script])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let left = command.split(|byte| *byte == 0).any(|word| word == name.as_bytes());
        assert!(!left, "the orphan {:?} is left", process.file_name());
    }
}

#[test]
fn the_executable_is_static_and_cannot_be_written() {
    let executable = runtime::shim::Executable::new().unwrap();
    assert!(
        std::fs::File::options()
            .write(true)
            .open(executable.path())
            .is_ok_and(|file| {
                use std::io::Write;
                (&file).write_all(b"x").is_err()
            })
    );
    // ELF type 2 is an executable at a fixed address; one with an interpreter would name it.
    let shim = runtime::shim::executable_bytes();
    assert_eq!(&shim[..4], b"\x7fELF");
    assert_eq!(u16::from_le_bytes([shim[16], shim[17]]), 2);
    assert!(!shim.windows(10).any(|window| window == b"/ld-linux-"));
}

/// What a pod costs: the private memory of its shim.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shim_is_small() {
    const ANONYMOUS_KB_MAX: u64 = 512;
    let mut node = Node::start("small").await;
    let pod = node.run_sandbox("web").await;
    node.run(&pod, container("sleeper", &["sleep", "1000"])).await;
    let info = node.sandbox_info(&pod).await;
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", info["pid"])).unwrap();
    // The program's own pages are those of the one copy in memory that all shims run.
    let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    let anonymous: u64 = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
    println!("the shim has {anonymous} kB of its own");
    assert!(anonymous < ANONYMOUS_KB_MAX, "{rollup}");
    node.remove_pod(&pod).await;
    node.finish().await;
}
