//! Keeps the documentation true: `docs/cli.md` is made of the flags, and every command line that a page shows is one.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory as _, Parser as _};

use super::Cli;

/// What the page begins with.
const HEAD: &str = "\
# Commands

Generated from the flags themselves (`TRIREME_BLESS=1 cargo test -p trireme page`); do not edit.

Data goes to standard output, what is told to people to standard error. Every error is
`error[ID]: what happened, and why` with a line `hint: what to do`; ids stay the same between versions. Exit codes: 64 the
command line or a file is wrong, 69 something is not there, 71 the machine refuses, 70 a fault of ours.
";

#[test]
fn the_page_is_what_the_flags_say() {
    let path = repository().join("docs/cli.md");
    let page = page();
    if std::env::var_os("TRIREME_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/cli.md is not what the flags say: TRIREME_BLESS=1 cargo test -p trireme page"
    );
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut out = HEAD.to_owned();
    out += "\nEvery command takes:\n\n";
    let global = |argument: &&Arg| argument.is_global_set();
    out += &table(root.get_arguments().filter(global));
    commands(&root, "trireme", &mut out);
    out
}

fn commands(command: &Command, name: &str, out: &mut String) {
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    for sub in command.get_subcommands().filter(shown) {
        let name = format!("{name} {}", sub.get_name());
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let mut usage = name.clone();
        for argument in sub.get_positionals() {
            let value = value_of(argument);
            let more = if argument.get_num_args().is_some_and(|count| count.max_values() > 1) {
                "..."
            } else {
                ""
            };
            usage += &format!(" {value}{more}");
        }
        *out += &format!("\n## `{usage}`\n\n{about}.\n");
        let own = |argument: &&Arg| {
            !argument.is_global_set()
                && !argument.is_hide_set()
                && !["help", "version"].contains(&argument.get_id().as_str())
        };
        if sub.get_arguments().any(|argument| own(&argument)) {
            *out += "\n";
            *out += &table(sub.get_arguments().filter(own));
        }
        commands(sub, &name, out);
    }
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut out = "| flag | what |\n|---|---|\n".to_owned();
    for argument in arguments {
        let value = if argument.get_action().takes_values() {
            value_of(argument)
        } else {
            String::new()
        };
        let short = argument
            .get_short()
            .map(|short| format!("`-{short}`, "))
            .unwrap_or_default();
        let name = match argument.get_long() {
            Some(long) => format!("{short}`{}`", format!("--{long} {value}").trim_end()),
            None => format!("`{value}`"),
        };
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<String> = argument
            .get_possible_values()
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let values = match values.is_empty() || !argument.get_action().takes_values() {
            true => String::new(),
            false => format!(": {}", values.join(" or ")),
        };
        let default: Vec<_> = argument
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy())
            .collect();
        let default = match default.is_empty() || !argument.get_action().takes_values() {
            true => String::new(),
            false => format!(" (default `{}`)", default.join(",")),
        };
        let variable = argument
            .get_env()
            .map(|name| format!(" (also `{}`)", name.to_string_lossy()))
            .unwrap_or_default();
        out += &format!("| {name} | {help}{values}{default}{variable} |\n");
    }
    out
}

fn value_of(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    match names {
        [] => argument.get_id().as_str().to_uppercase(),
        names => names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" "),
    }
}

#[test]
fn every_command_line_that_a_page_shows_is_one() {
    let mut pages = vec![repository().join("README.md"), repository().join("CHANGELOG.md")];
    for folder in ["docs", "examples"] {
        let entries = std::fs::read_dir(repository().join(folder)).unwrap().flatten();
        pages.extend(entries.map(|entry| entry.path()));
    }
    let mut seen = 0;
    for page in pages.iter().filter(|page| page.is_file()) {
        for line in command_lines(&std::fs::read_to_string(page).unwrap()) {
            seen += 1;
            if let Err(why) = is_one(&line) {
                panic!("{}: `{line}`: {why}", page.display());
            }
        }
    }
    assert!(seen > 30, "only {seen} command lines were found");
}

/// What stands between backticks or after a prompt and begins with our name.
fn command_lines(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        let begins_fence = line.trim_start().starts_with("```");
        fenced ^= begins_fence;
        if begins_fence {
            continue;
        }
        if fenced || line.starts_with("    ") {
            let line = line.trim().trim_start_matches("$ ").trim_start_matches("sudo ");
            found.extend(line.starts_with("trireme ").then(|| line.to_owned()));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            found.extend(spans.filter(|span| span.starts_with("trireme ")).map(str::to_owned));
        }
    }
    found
}

/// A page may leave out what a command needs, and shorten: `image import|ls|rm`. It may not name what is not there.
fn is_one(line: &str) -> Result<(), String> {
    let words = line
        .split_whitespace()
        .take_while(|word| !["#", "|", "&&", "<", ">", "\\"].contains(word));
    let words: Vec<&str> = words.map(|word| word.trim_end_matches([';', '\\'])).collect();
    let shortened = words.iter().position(|word| word.contains('|'));
    let alternatives = shortened.map_or(vec![""], |at| words[at].split('|').collect());
    for alternative in alternatives {
        let mut words = words.clone();
        if let Some(at) = shortened {
            words[at] = alternative;
        }
        let words = words.into_iter().filter(|word| *word != "...");
        match Cli::try_parse_from(words).map_err(|error| (error.kind(), error)) {
            Err((ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, error)) => return Err(error.to_string()),
            _ => continue,
        }
    }
    Ok(())
}

#[test]
fn what_is_no_command_line_is_found() {
    for (line, is) in [
        ("trireme up --demo", true),
        ("trireme image import FILE...", true),
        ("trireme image import|ls|rm", true),
        ("trireme image import|sl", false),
        ("trireme up --no-such", false),
        ("trireme upp", false),
        ("trireme backup - | ssh elsewhere", true),
        ("trireme reset", true),
    ] {
        assert_eq!(is_one(line).is_ok(), is, "{line}");
    }
    let page = "text `trireme up` and `kubectl get`\n```console\n$ trireme down\nother\n```\n    trireme status\n";
    assert_eq!(command_lines(page), ["trireme up", "trireme down", "trireme status"]);
}
