//! The pod itself: its control groups, namespaces and kernel parameters, which the shim enters and so holds.

use std::path::Path;

use super::Pod;
use super::spawn::spawn_pause;
use crate::kernel;
use crate::protocol::{Answer, Sandbox};

impl Pod {
    pub(super) fn make_sandbox(&mut self, sandbox: Sandbox) -> Result<Answer, String> {
        if self.sandbox.is_some() {
            return Err("the sandbox is there already".into());
        }
        let mut warnings = Vec::new();
        for cgroup in &sandbox.cgroups {
            kernel::enter_cgroup(cgroup)?;
        }
        let flag = |wanted: bool, flag: i32| if wanted { flag } else { 0 };
        let namespaces = flag(sandbox.network, libc::CLONE_NEWNET)
            | flag(sandbox.ipc, libc::CLONE_NEWIPC)
            | flag(sandbox.uts, libc::CLONE_NEWUTS);
        kernel::unshare(namespaces).map_err(|err| format!("cannot make the namespaces: {err}"))?;
        if sandbox.network {
            kernel::loopback_up().map_err(|err| format!("cannot bring the loopback link up: {err}"))?;
        }
        if let (true, Some(hostname)) = (sandbox.uts, &sandbox.hostname) {
            rustix::system::sethostname(hostname.as_bytes())
                .map_err(|err| format!("cannot set the host name: {err}"))?;
        }
        for (name, value) in &sandbox.sysctls {
            // A dot separates, except that a slash does when the name has one: interfaces may have dots.
            let path = if name.contains('/') {
                name.clone()
            } else {
                name.replace('.', "/")
            };
            if path.split('/').any(|part| part == "..") {
                return Err(format!("{name} is not a kernel parameter"));
            }
            std::fs::write(Path::new("/proc/sys").join(path), value)
                .map_err(|err| format!("cannot set the kernel parameter {name}: {err}"))?;
        }
        if sandbox.shared_pid {
            self.pause_pid = Some(spawn_pause().map_err(|err| format!("cannot hold the PID namespace: {err}"))?);
        }
        if let Err(err) = std::fs::create_dir_all(&sandbox.exits) {
            warnings.push(format!("{}: {err}", sandbox.exits.display()));
        }
        self.sandbox = Some(sandbox);
        Ok(Answer::Sandbox {
            pause_pid: self.pause_pid,
            warnings,
        })
    }
}
