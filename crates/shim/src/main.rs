//! The small static executable embedded in `trireme`: what runs beside, before and inside of containers.
//!
//! Its role is its first argument: `shim` (one a pod), `oci` (one a create or exec), `pause`, `init` (first process of a
//! node) and `demo` (the program that demo and test images are made of; there, its own name may choose the command too).
//!
//! **Architecture Invariant:** nothing here is asynchronous or threaded (the demo's server apart) and nothing knows
//! Kubernetes. The shim never calls `libcontainer`: a process that lives as long as a pod must stay small.

mod clock;
mod create;
mod demo;
mod devices;
mod enter;
mod errors;
mod init;
mod kernel;
mod log;
mod pod;
// Compiled into the runtime too, which uses the rest.
#[allow(dead_code)]
mod protocol;
mod spread;
mod wire;

fn main() {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let name = args
        .first()
        .map(|arg| arg.rsplit('/').next().unwrap_or_default())
        .unwrap_or_default();
    let rest = args.get(2..).unwrap_or_default();
    let code = match args.get(1).map(String::as_str) {
        _ if demo::is_command(name) => demo::run(name, args.get(1..).unwrap_or_default()),
        Some("shim") => pod::shim(),
        Some("oci") => match rest.first().and_then(|number| number.parse().ok()) {
            Some(socket) => create::helper(socket),
            None => 2,
        },
        Some("pause") => init::pause(),
        Some("init") => init::init(rest),
        Some("demo") => match rest.split_first() {
            Some((command, rest)) => demo::run(command, rest),
            None => demo::run("serve", &[]),
        },
        // An image's entry point is the program alone.
        None => demo::run("serve", &[]),
        Some(command) if demo::is_command(command) => demo::run(command, rest),
        Some(other) => {
            eprintln!("shim: no role {other:?}: shim, oci, pause, init or demo");
            2
        }
    };
    std::process::exit(code);
}
