//! The jobs that people and CI run: `cargo xtask JOB`.

mod bench;
mod clients;
mod demo;
mod generate;
mod kubectl;
mod test;
mod tidy;
mod uml;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

const HELP: &str = "\
usage: cargo xtask JOB

  test               everything: tidy, all tests, the end-to-end tests
  clients            builds the kube-rs program that the end-to-end tests run
  uml                the runtime's tests under user-mode-linux, for control groups v2
  tidy               crate edges, module docs, formatting, clippy, file lengths
  bench [FILTER...] [--json FILE] [--update]   measured figures beside the design's targets
  bench etcd [--update] [--seconds N] [--keys N] [--only engine|front|etcd]   our store beside Debian's etcd
  fuzz [FLAGS]       every fuzz target for a minute; flags as in crates/testkit/examples/fuzz.rs
  demo [--down]      builds the release binary, starts a cluster and looks at it from the outside
  generate schema FACTS   crates/api/data from the table of API facts
  generate kinds          docs/kinds.md
  fields KIND        the rule and the test of every field of a deep kind
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match &words[..] {
        ["test", rest @ ..] => test::run(rest),
        ["clients"] => clients::build(),
        ["uml"] => uml::run(),
        ["tidy"] => tidy::run(),
        ["bench", "etcd", rest @ ..] => bench::beside::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["fuzz", rest @ ..] => test::fuzz(rest),
        ["demo", rest @ ..] => demo::run(rest),
        ["generate", rest @ ..] => generate::run(rest),
        ["fields", kind] => generate::fields(kind),
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program in the workspace and fails with its command line when it fails.
fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    run_with(program, arguments, &[])
}

/// The same with variables in its environment.
fn run_with(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    eprintln!("+ {program} {}", arguments.join(" "));
    let mut command = child(program);
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(workspace());
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("`{program} {}` failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// A program to run, without what `cargo run` has told us about our own package: build scripts look at such variables (those
/// of ring do), so cargo would build them, and all that uses them, anew.
fn child(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let told = |prefix: &&str| name.to_str().is_some_and(|name| name.starts_with(prefix));
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(told) {
            command.env_remove(name);
        }
    }
    command
}

/// The workspace's folder.
fn workspace() -> &'static std::path::Path {
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("invariant: xtask lies in the workspace")
}

/// The folder of all builds.
fn target_dir() -> std::path::PathBuf {
    workspace().join(std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into()))
}

/// The `cargo` that runs us.
fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}
