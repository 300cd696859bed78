//! The stage of CI with control groups v2: tests run under Debian's user-mode-linux, whatever the machine's own kernel has.
//!
//! `linux.uml` is a Linux 6.1 that runs as an ordinary program and boots in a second. It sees the machine's files read-only
//! (hostfs), works in memory, and tells its outcome in a file, because its exit status is its own. cgroup v2 has the
//! controllers cpu, io, memory and pids there; cpuset, hugetlb and pressure stall information are not compiled in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{cargo, workspace};

/// Debian's package `user-mode-linux`.
const KERNEL: &str = "/usr/bin/linux.uml";
/// The guest's memory, half of which its `/tmp` may fill. A test's container eats 200 MB.
const MEMORY: &str = "mem=1G";
/// The runtime's tests take one minute on a quiet machine; past this the guest hangs.
const SECONDS_MAX: &str = "1200";
/// Package, kind of target (`lib` has the tests beside the code, `test` the integration tests) and filter.
const TESTS: [(&str, &str, &str); 3] = [
    ("sys", "lib", "cgroup"),
    ("sys", "lib", "mounts"),
    ("runtime", "test", ""),
];
/// The first process, and what the guest's kernel needs on processors with large registers.
const INIT: &str = "xtask/src/uml/init.sh";
const XSTATE: &str = "xtask/src/uml/xstate.rs";

/// Runs the runtime's integration tests and the control group tests of `sys` in the guest.
pub fn run() -> anyhow::Result<()> {
    if !Path::new(KERNEL).exists() {
        bail!("there is no {KERNEL}: apt-get install user-mode-linux");
    }
    let shared = Directory::new()?;
    std::fs::write(shared.0.join("tests"), tests()?)?;
    let preload = shared.0.join("libxstate.so");
    crate::run(
        &std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()),
        &[
            "--edition=2024",
            "--crate-type=cdylib",
            "-Cpanic=abort",
            "-Copt-level=2",
            "-o",
            &preload.display().to_string(),
            XSTATE,
        ],
    )?;
    boot(&shared.0, &preload)?;
    match std::fs::read_to_string(shared.0.join("outcome")).as_deref() {
        Ok("passed\n") => Ok(()),
        Ok(_) => bail!("tests failed under user-mode-linux, see above"),
        Err(_) => bail!("user-mode-linux ended before its tests did, see above"),
    }
}

/// Runs the guest to its end. What its tests print is printed.
fn boot(shared: &Path, preload: &Path) -> anyhow::Result<()> {
    let path = shared.display();
    let arguments = [
        SECONDS_MAX.to_owned(),
        KERNEL.to_owned(),
        MEMORY.to_owned(),
        "rootfstype=hostfs".to_owned(),
        "root=/dev/root".to_owned(),
        "rootflags=/".to_owned(),
        "ro".to_owned(),
        // Nothing but panics: what the tests do to the kernel on purpose (out of memory) fills pages.
        "loglevel=1".to_owned(),
        "con=null".to_owned(),
        "con0=null,fd:1".to_owned(),
        format!("uml_dir={path}"),
        format!("init={}", workspace().join(INIT).display()),
        // Not a parameter of the kernel's, so it becomes a variable of the first process.
        format!("TRIREME_SHARED={path}"),
    ];
    eprintln!("+ {KERNEL} (tests under Linux 6.1 with control groups v2)");
    // Its exit status says nothing: the outcome is in the file.
    Command::new("timeout")
        .args(["--kill-after=10"])
        .args(arguments)
        .env("LD_PRELOAD", preload)
        .env("TMPDIR", shared)
        .stdin(Stdio::null())
        .status()
        .context("cannot start timeout (coreutils)")?;
    Ok(())
}

/// The list for the guest: an executable and a filter a line. The whole workspace is built, because with fewer packages cargo
/// chooses other features and builds every dependency anew; after the workspace's own tests nothing is left to build.
fn tests() -> anyhow::Result<String> {
    let output = crate::child(&cargo())
        .args(["test", "--workspace", "--no-run", "--locked", "--message-format=json"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests do not build");
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let messages: Vec<Value> = messages.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let mut lines = String::new();
    for (package, kind, filter) in TESTS {
        let manifest = workspace().join("crates").join(package).join("Cargo.toml");
        let of_it = |message: &&Value| {
            message["manifest_path"].as_str() == manifest.to_str() && message["target"]["kind"][0] == *kind
        };
        let executable = messages
            .iter()
            .filter(of_it)
            .find_map(|message| message["executable"].as_str());
        let executable = executable.with_context(|| format!("cargo names no test executable of {package}"))?;
        lines.push_str(&format!("{executable} {filter}\n"));
    }
    Ok(lines)
}

/// A directory that both sides see, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> anyhow::Result<Directory> {
        let path = std::env::temp_dir().join(format!("trireme-uml-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing depends on it: the directory lies among temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
