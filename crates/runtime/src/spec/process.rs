//! The process of a specification: what runs, with which environment, as whom, with which capabilities.

use rpc::cri;
use serde_json::{Value, json};

use super::Input;
use crate::error::{Error, Result};
use crate::user::User;

/// What containerd and CRI-O give to a container that asks for nothing.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process without its capabilities' policy: those are given.
pub(super) fn process(input: &Input<'_>, cwd: &str, capabilities: &[String]) -> Result<Value> {
    let linux = input.config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let ambient = security
        .capabilities
        .as_ref()
        .map(|caps| caps.add_ambient_capabilities.as_slice())
        .unwrap_or_default();
    let ambient: Vec<String> = ambient.iter().map(|name| capability_name(name)).collect();
    let mut process = json!({
        "terminal": input.config.tty,
        "user": {"uid": input.user.uid, "gid": input.user.gid, "additionalGids": groups(input.user)},
        "args": args(input)?,
        "env": environment(input),
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": ambient,
            "ambient": ambient,
        },
    });
    if security.no_new_privs {
        process["noNewPrivileges"] = json!(true);
    }
    Ok(process)
}

fn groups(user: &User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    groups.extend(user.groups.iter().filter(|gid| **gid != user.gid));
    groups
}

/// `command` replaces the entry point (and with it the image's arguments), `args` the image's arguments.
fn args(input: &Input<'_>) -> Result<Vec<String>> {
    let (config, image) = (input.config, input.image);
    let mut words = if config.command.is_empty() {
        image.entrypoint.clone()
    } else {
        config.command.clone()
    };
    if !config.args.is_empty() {
        words.extend(config.args.iter().cloned());
    } else if config.command.is_empty() {
        words.extend(image.cmd.iter().cloned());
    }
    if words.is_empty() {
        return Err(Error::Invalid(
            "no command specified, neither by the container nor by its image".into(),
        ));
    }
    Ok(words)
}

fn environment(input: &Input<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let key = entry.split('=').next().unwrap_or_default().to_owned();
        env.retain(|other| other.split('=').next() != Some(&key));
        env.push(entry);
    };
    set(DEFAULT_PATH.to_owned());
    if !input.hostname.is_empty() {
        set(format!("HOSTNAME={}", input.hostname));
    }
    if input.config.tty {
        set("TERM=xterm".into());
    }
    if let Some(home) = &input.user.home {
        set(format!("HOME={home}"));
    }
    input.image.env.iter().for_each(|entry| set(entry.clone()));
    for variable in &input.config.envs {
        set(format!("{}={}", variable.key, String::from_utf8_lossy(&variable.value)));
    }
    env
}

fn capability_name(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("CAP_") {
        upper
    } else {
        format!("CAP_{upper}")
    }
}

/// What it may do.
pub(super) fn capabilities(security: &cri::LinuxContainerSecurityContext, bounding: &[&str]) -> Result<Vec<String>> {
    let asked = security.capabilities.clone().unwrap_or_default();
    let names = |list: &[String]| list.iter().map(|name| capability_name(name)).collect::<Vec<_>>();
    let (add, drop) = (names(&asked.add_capabilities), names(&asked.drop_capabilities));
    let all = |list: &[String]| list.iter().any(|name| name == "CAP_ALL");
    let known = |name: &&String| sys::process::CAPABILITIES.contains(&name.as_str()) || *name == "CAP_ALL";
    if let Some(unknown) = add.iter().chain(&drop).find(|name| !known(name)) {
        return Err(Error::Invalid(format!("unknown capability {unknown:?}")));
    }
    let every = || bounding.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut set: Vec<String> = DEFAULT_CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    // In containerd's order: dropping ALL outdoes adding ALL, dropping one outdoes adding it.
    if all(&add) {
        set = every();
    }
    if all(&drop) {
        set.clear();
    }
    set.extend(add.into_iter().filter(|name| name != "CAP_ALL"));
    set.retain(|name| !drop.contains(name));
    if security.privileged {
        set = every();
    }
    // What the node itself does not have cannot be given.
    set.retain(|name| bounding.contains(&name.as_str()));
    set.sort();
    set.dedup();
    Ok(set)
}
