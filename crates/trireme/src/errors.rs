//! The one error of the command line: what happened, why, and what to do next.
//!
//! The type sees to it that there is advice. Every error has an id that stays the same between versions: scripts match on it, and the documentation is keyed by it.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// What kind of failure, and so which exit code (after `sysexits.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or an input file is wrong.
    Usage,
    /// Something that has to be there is not: a cluster, a file, a program.
    Missing,
    /// The machine refuses: rights, a taken port, a full disk.
    Machine,
    /// We failed.
    Internal,
}

/// An error for people and scripts.
#[derive(Debug)]
pub struct CliError {
    /// The kind.
    pub kind: Kind,
    /// The stable id, such as `NO_CLUSTER`.
    pub id: Cow<'static, str>,
    /// What happened, and why.
    pub what: String,
    /// What to do next.
    pub hint: String,
}

/// An error that does not say yet what to do: nobody can return it.
#[must_use]
pub struct WithoutHint {
    kind: Kind,
    id: Cow<'static, str>,
    what: String,
}

/// The result of a command.
pub type Result<T = (), E = CliError> = std::result::Result<T, E>;

// === impl WithoutHint ===

impl WithoutHint {
    /// What to do next.
    pub fn hint(self, hint: impl Into<String>) -> CliError {
        CliError {
            kind: self.kind,
            id: self.id,
            what: self.what,
            hint: hint.into(),
        }
    }
}

// === impl CliError ===

impl CliError {
    /// What happened and why; [`WithoutHint::hint`] makes it an error.
    #[expect(clippy::new_ret_no_self, reason = "advice makes it whole")]
    pub fn new(kind: Kind, id: impl Into<Cow<'static, str>>, what: impl Into<String>) -> WithoutHint {
        WithoutHint {
            kind,
            id: id.into(),
            what: what.into(),
        }
    }

    /// The same with other advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = hint.into();
        self
    }

    /// A failure of ours.
    pub fn internal(what: impl fmt::Display) -> CliError {
        CliError::new(Kind::Internal, "INTERNAL", what.to_string())
            .hint("this is a fault of trireme; the log may tell more, see `trireme status`")
    }

    /// A file or directory that could not be read or written.
    pub fn file(path: &Path, error: &std::io::Error) -> CliError {
        use std::io::ErrorKind;
        let shown = path.display();
        let is_root = rustix::process::geteuid().is_root();
        let (id, hint) = match error.kind() {
            ErrorKind::PermissionDenied if is_root => (
                "NO_PERMISSION",
                format!(
                    "not even root may: look at its flags and its file system: lsattr -d {shown}; findmnt -T {shown}"
                ),
            ),
            ErrorKind::PermissionDenied => (
                "NO_PERMISSION",
                "run this as root (sudo), or name a place of your own: trireme --dir DIR".to_owned(),
            ),
            ErrorKind::NotFound => ("NO_FILE", "look whether the name is right".to_owned()),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => ("DISK_FULL", format!("make room: df -h {shown}")),
            ErrorKind::ReadOnlyFilesystem => (
                "READ_ONLY",
                "name a place that can be written, such as: trireme --dir DIR".to_owned(),
            ),
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
                ("FILE", "a file is where a directory has to be: move it away".to_owned())
            }
            ErrorKind::IsADirectory => ("FILE", "that is a directory: name a file".to_owned()),
            _ => (
                "FILE",
                format!("look at the disk and its file system: findmnt -T {shown}; dmesg"),
            ),
        };
        let why = match error.kind() {
            ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => words(error),
        };
        CliError::new(Kind::Machine, id, format!("{shown}: {why}")).hint(hint)
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Usage => 64,
            Kind::Missing => 69,
            Kind::Internal => 70,
            Kind::Machine => 71,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}\nhint: {}", self.id, self.what, self.hint)
    }
}

impl std::error::Error for CliError {}

/// Adds what was being done to a foreign error.
pub trait Context<T> {
    /// `what`: the error, as a failure of the machine.
    fn doing(self, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|error| {
            CliError::new(Kind::Machine, "FAILED", format!("{what}: {error}"))
                .hint("see what runs and where the logs are: trireme status; `trireme up` starts what is missing")
        })
    }
}

/// An error of the operating system in its own words, without its number.
pub fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// The last error in a text, such as a daemon's log: its id, what happened and the advice.
pub fn last_in(text: &str) -> Option<(&str, &str, &str)> {
    let at = match text.rfind("\nerror[") {
        Some(newline) => newline + 1,
        None => text.find("error[").filter(|at| *at == 0)?,
    };
    let (id, rest) = text[at..].strip_prefix("error[")?.split_once("]: ")?;
    // What happened may have several lines; the advice is the line after them.
    match rest.split_once("\nhint: ") {
        Some((what, hint)) => Some((id, what, hint.lines().next().unwrap_or_default())),
        None => Some((id, rest.lines().next().unwrap_or_default(), "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let error = CliError::new(Kind::Missing, "NO_CLUSTER", "no cluster is running").hint("start one: trireme up");
        assert_eq!(
            error.to_string(),
            "error[NO_CLUSTER]: no cluster is running\nhint: start one: trireme up"
        );
        assert_eq!(error.exit_code(), 69);
    }

    #[test]
    fn files_are_told_with_what_to_do() {
        use std::io::ErrorKind;
        for (kind, id, hint) in [
            (ErrorKind::NotFound, "NO_FILE", "look whether the name is right"),
            (ErrorKind::StorageFull, "DISK_FULL", "make room: df -h /x"),
            (
                ErrorKind::ReadOnlyFilesystem,
                "READ_ONLY",
                "name a place that can be written, such as: trireme --dir DIR",
            ),
            (
                ErrorKind::NotADirectory,
                "FILE",
                "a file is where a directory has to be: move it away",
            ),
            (ErrorKind::IsADirectory, "FILE", "that is a directory: name a file"),
            (
                ErrorKind::Other,
                "FILE",
                "look at the disk and its file system: findmnt -T /x; dmesg",
            ),
        ] {
            let error = CliError::file(Path::new("/x"), &kind.into());
            assert_eq!((&*error.id, &*error.hint), (id, hint), "{kind}");
        }
        let error = CliError::file(Path::new("/x"), &std::io::Error::from_raw_os_error(2));
        assert_eq!(error.what, "/x: No such file or directory");
    }

    #[test]
    fn a_daemons_last_words_are_found_in_its_log() {
        let log =
            "INFO begins\nerror[OLD]: before\nhint: no\nINFO more\nerror[STORE]: the store:\n  two lines\nhint: do\n";
        assert_eq!(last_in(log), Some(("STORE", "the store:\n  two lines", "do")));
        assert_eq!(last_in("error[A]: what\n"), Some(("A", "what", "")));
        assert_eq!(last_in("INFO an error[A]: is not at its begin"), None);
    }
}
