//! The one error of the command line: what happened, why, and what to do next.
//!
//! Every error has an id that stays the same between versions: scripts match on it, and the documentation is keyed by it.

use std::fmt;

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
    pub id: &'static str,
    /// What happened, and why.
    pub what: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// The result of a command.
pub type Result<T = (), E = CliError> = std::result::Result<T, E>;

// === impl CliError ===

impl CliError {
    /// An error without advice.
    pub fn new(kind: Kind, id: &'static str, what: impl Into<String>) -> CliError {
        CliError {
            kind,
            id,
            what: what.into(),
            hint: None,
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hint = Some(hint.into());
        self
    }

    /// A failure of ours.
    pub fn internal(what: impl fmt::Display) -> CliError {
        CliError::new(Kind::Internal, "INTERNAL", what.to_string())
            .hint("this is a fault of trireme; the log may tell more, see `trireme status`")
    }

    /// A file that could not be read or written.
    pub fn file(path: &std::path::Path, error: &std::io::Error) -> CliError {
        let error_text = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                return CliError::new(Kind::Machine, "NO_PERMISSION", format!("{}: {error}", path.display()))
                    .hint("run this as root, or choose another directory with --dir");
            }
            std::io::ErrorKind::StorageFull => "the disk is full".to_owned(),
            _ => error.to_string(),
        };
        CliError::new(Kind::Machine, "FILE", format!("{}: {error_text}", path.display()))
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
        write!(f, "error[{}]: {}", self.id, self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
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
        self.map_err(|error| CliError::new(Kind::Machine, "FAILED", format!("{what}: {error}")))
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
}
