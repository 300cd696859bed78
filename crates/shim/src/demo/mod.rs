//! The program that demo and test images are made of: a server that can be told to misbehave, and the few commands that
//! tests run in containers without a shell.

mod commands;
mod net;
mod probe;
mod server;
mod tar;

/// Whether `name` is one of the commands.
pub fn is_command(name: &str) -> bool {
    name == "serve"
        || name == "probe"
        || name == "tar"
        || net::COMMANDS.contains(&name)
        || commands::NAMES.contains(&name)
}

/// Runs a command; returns its exit code.
pub fn run(name: &str, args: &[String]) -> i32 {
    crate::kernel::default_sigpipe();
    match name {
        "serve" => server::serve(args),
        "probe" => probe::probe(args),
        "tar" => tar::tar(args),
        _ if net::COMMANDS.contains(&name) => net::run(name, args),
        _ if commands::NAMES.contains(&name) => commands::run(name, args),
        _ => {
            eprintln!("demo: no command {name:?}");
            127
        }
    }
}
