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
/// The first process, and what the guest's kernel needs on processors with large registers.
const INIT: &str = "xtask/src/uml/init.sh";
const XSTATE: &str = "xtask/src/uml/xstate.rs";

/// Runs the runtime's integration tests and the control group tests of `sys` in the guest.
pub fn run() -> anyhow::Result<()> {
    if !Path::new(KERNEL).exists() {
        bail!("there is no {KERNEL}: apt-get install user-mode-linux");
    }
    let shared = Directory::new()?;
    let mut lines = String::new();
    for (package, target, filter) in [("sys", "lib", "cgroup"), ("runtime", "test", "")] {
        let executable = test_executable(package, target)?;
        lines.push_str(&format!("{} {filter}\n", executable.display()));
    }
    std::fs::write(shared.0.join("tests"), lines)?;
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

/// Builds a package's tests and finds the executable: `lib` has those beside the code, `test` the integration tests.
fn test_executable(package: &str, target: &str) -> anyhow::Result<PathBuf> {
    let selection = if target == "lib" { "--lib" } else { "--test=it" };
    let output = crate::child(&cargo())
        .args(["test", "--no-run", "--locked", "--message-format=json", "--package"])
        .args([package, selection])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the tests of {package} do not build");
    }
    let messages = output.stdout.split(|byte| *byte == b'\n');
    let found = messages
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from));
    found.with_context(|| format!("cargo names no test executable of {package}"))
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
